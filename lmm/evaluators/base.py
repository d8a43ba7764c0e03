"""What every evaluator is: motions and sentences become points of one space, where near means alike.

An evaluator is a measuring instrument: it is frozen, it embeds a motion the same alone and in any batch, and its
fingerprint goes beside every figure that it gave.
"""

import hashlib
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lmm.motion.representations.base import MotionRepresentation


class Evaluator(nn.Module, ABC):
    """Motions and sentences -> E numbers each.

    Subclasses call `freeze` at the end of their constructor.

    Args:
        name: what tables call it.
        representation: of the features it reads; normalizing them is the evaluator's own affair.
        dim: E.
        unit: motions are cut to a multiple of so many frames.
        max_frames: longest motion it reads.
    """

    def __init__(
        self, name: str, representation: MotionRepresentation, *, dim: int, unit: int = 1, max_frames: int | None = None
    ) -> None:
        super().__init__()
        self.name, self.representation = name, representation
        self.dim, self.unit, self.max_frames = dim, unit, max_frames

    @property
    def published_real_row(self) -> dict[str, tuple[float, float]]:
        """Figures of real motion in published tables with this very evaluator, and how far one may be off; or none."""
        return {}

    @abstractmethod
    def embed_motions(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Points of motions, from raw (not normalized) features; a motion's point does not depend on its batch.

        Raises:
            ValueError: a motion shorter than ``unit`` or longer than ``max_frames``.
        """

    @abstractmethod
    def embed_texts(self, texts: list[str]) -> Float[Tensor, "B E"]:
        """Points of sentences.

        Raises:
            ValueError: a sentence that the evaluator cannot read.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def settings(self) -> str:
        """What changes its figures and is no weight; part of the fingerprint."""
        return f"{type(self).__name__} {self.representation.settings}"

    @property
    def fingerprint(self) -> str:
        """sha256 of the settings and of all weights and statistics."""
        digest = hashlib.sha256(self.settings.encode())
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def freeze(self) -> None:
        """No gradient, no dropout, for good."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Evaluator":
        """Stays in eval mode: a measuring instrument that learns is none."""
        return super().train(False)
