"""How well a codebook is used, for every stream of codes (part, level) and for all of them together.

* usage: share of the codes that were seen at all; dead: number of codes that were not.
* perplexity exp(H) in codes, H the entropy of the codes' frequencies; entropy: H / ln N, 1 where all are equally often.
* bit_imbalance, for codes that are bits: mean over bits of |p - 1/2|, p the share of ones; 0 is best, 1/2 a stuck bit.

Counts are P·Q·N integers of 8 bytes: 10 MB for five parts of 2^18 codes, however long the validation set.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


class CodebookUsage(Metric):
    """The figures of all streams together (their counts added up) and, where there are several, of each.

    Args:
        codebook_size: N of every stream.
        parts: names of the P parts.
        num_levels: Q.
        bits: whether a code's binary digits mean something (lookup-free quantizers).
    """

    full_state_update = False
    counts: Tensor

    def __init__(
        self, codebook_size: int, *, parts: Sequence[str] = ("body",), num_levels: int = 1, bits: bool = False
    ) -> None:
        super().__init__()
        self.parts, self.num_levels, self.bits = tuple(parts), num_levels, bits
        shape = (len(self.parts), num_levels, codebook_size)
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def streams(self) -> list[str]:
        """Names of the P·Q streams, row-major: ``left_arm``, ``level0``, ``left_arm/level0``; a lone one is ``all``."""
        parts = self.parts if len(self.parts) > 1 else ("",)
        levels = [f"level{q}" for q in range(self.num_levels)] if self.num_levels > 1 else [""]
        return [f"{part}/{level}".strip("/") or "all" for part in parts for level in levels]

    def update(self, indices: Int[Tensor, "*B P Q"]) -> None:
        """Count codes; -1 (padding, dropped levels) is left out."""
        size = self.counts.shape[-1]
        first = torch.arange(self.counts[..., 0].numel(), device=indices.device).view_as(self.counts[..., 0]) * size
        places = (indices.clamp_min(0) + first).flatten()
        self.counts.view(-1).index_add_(0, places, (indices >= 0).long().flatten())

    def compute(self) -> dict[str, Tensor]:
        """Figure by name, and ``usage/STREAM`` and the like where there are several streams; NaN without any code."""
        counts = self.counts.flatten(0, 1)
        together, each = code_figures(counts.sum(0)), code_figures(counts)
        if self.bits:
            each["bit_imbalance"] = (bit_shares(counts) - 0.5).abs().mean(-1)
            together["bit_imbalance"] = each["bit_imbalance"].mean()  # of the sum would hide what two parts even out
        if len(self.streams) == 1:
            return together
        apart = [name for name in ("usage", "perplexity", "bit_imbalance") if name in each]  # the rest follows, given N
        rows = {f"{name}/{stream}": each[name][row] for name in apart for row, stream in enumerate(self.streams)}
        return together | rows


def code_figures(counts: Int[Tensor, "*B N"]) -> dict[str, Float[Tensor, "*B"]]:
    """``usage``, ``perplexity``, ``entropy`` and ``dead`` of codes that were seen so often."""
    size = counts.shape[-1]
    p = counts.double() / counts.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    dead = (counts == 0).sum(-1)
    return {
        "usage": 1 - dead / size,
        "perplexity": entropy.exp().float(),
        "entropy": (entropy / math.log(size)).float(),
        "dead": dead.float(),
    }


def bit_shares(counts: Int[Tensor, "*B N"]) -> Float[Tensor, "*B d"]:
    """Share of ones of each of the d bits, the least significant first, of N = 2^d codes seen so often."""
    bits = counts.shape[-1].bit_length() - 1
    ones = [counts.unflatten(-1, (-1, 2, 2**bit))[..., 1, :].sum((-1, -2)) for bit in range(bits)]
    return (torch.stack(ones, dim=-1).double() / counts.sum(-1, keepdim=True)).float()
