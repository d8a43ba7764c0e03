"""All that travels between rooms: motions in a batch, tokens in a batch, and what the tokens are."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


class MotionBatch(NamedTuple):
    """Clips of motion with one caption each.

    ``features`` are raw (not normalized); frames where ``mask`` is False are zero. ``ids`` are the clips' names in
    their data set.
    """

    features: Float[Tensor, "B T D"]
    mask: Bool[Tensor, "B T"]
    ids: list[str]
    texts: list[str]


class TokenBatch(NamedTuple):
    """Clips of motion tokens with one caption each; steps where ``mask`` is False hold -1.

    ``details`` are each clip's texts about the whole body and its parts, by name (body, upper_body, left_arm, ...),
    empty for a clip without; None where the data set has none.
    """

    tokens: Int[Tensor, "B t K"]
    mask: Bool[Tensor, "B t"]
    ids: list[str]
    texts: list[str]
    details: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class TokenSpec:
    """What a token file holds and who wrote it: enough to lay tokens out in a vocabulary and to refuse strangers.

    Args:
        codebook_size: N, the number of codes; every token is in [0, N).
        num_levels: Q, residual levels of one part (1 except for residual quantizers).
        num_parts: P, body parts of one time step (1 for a time line).
        downsample: motion frames per time step (α).
        fps: motion frames per second.
        bit_order: of codes that are bits: "lsb" (index Σ 2^(i-1)·bit_i) or "msb"; "none" where codes are looked up.
        fingerprint: sha256 of the tokenizer's weights and statistics.
    """

    codebook_size: int
    num_levels: int
    num_parts: int
    downsample: int
    fps: float
    bit_order: str
    fingerprint: str

    @property
    def codes_per_step(self) -> int:
        """K = P·Q, ordered row-major: part, then level."""
        return self.num_parts * self.num_levels

    @property
    def steps_per_second(self) -> float:
        """Time steps in a second of motion."""
        return self.fps / self.downsample

    def save(self, file: Path) -> None:
        """Write as JSON."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, file: Path) -> "TokenSpec":
        """Read what `save` wrote."""
        try:
            return cls(**json.loads(file.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is not a token spec of this version ({error}); write the tokens again") from None

    def check(self, other: "TokenSpec", where: str) -> None:
        """Refuse tokens at ``where`` that another tokenizer (``other``) wrote.

        Raises:
            ValueError: naming every field that differs.
        """
        mine, theirs = asdict(self), asdict(other)
        wrong = [f"{k}: {theirs[k]} there, {mine[k]} here" for k in mine if mine[k] != theirs[k]]
        if wrong:
            raise ValueError(
                f"the tokens in {where} come from another tokenizer ({'; '.join(wrong)}); "
                "encode the data set again with the tokenizer in use, or name the tokenizer that wrote them"
            )
