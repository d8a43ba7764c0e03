"""Entropies of binary codes, exact and without an array of latents x codes (Yu et al. 2024; Zhao et al. 2024).

p(c|z) = softmax over 2^d sign patterns is a product of d sigmoids σ(l_i). The mean entropy of p(c|z) is a sum over
bits. The entropy of the mean P(c) = E[p(c|z)] needs P itself: with the bits in two halves it is one matrix product
A Bᵀ / M of two tables of 2^(d/2) x M, and its gradient two more; memory is O(2^d + chunk · 2^(d/2)).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lmm.training import mean_over_ranks


@dataclass(frozen=True)
class EntropyOptions:
    """How the entropies are estimated and weighted; the defaults are exact and constant.

    Args:
        marginal_samples: the batch entropy sees a random draw of this many latents in training (None: all). On 8,192
            latents of 18 bits a draw of 2,048-4,096 is 0.03-0.5 nats off, its gradient's cosine 0.84-0.99.
        groups: the batch entropy is the sum over this many groups of bits (BSQ-ViT: groups of 9 bits). Biased where
            groups depend on each other: with groups of 9 of 18 bits 0.4-1.9 nats too high, gradient's cosine 0.57-0.78.
        start_factor: the entropy terms' weight starts this many times as high ...
        annealing_updates: ... and comes down to 1 in a line over this many training steps.
    """

    marginal_samples: int | None = None
    groups: int = 1
    start_factor: float = 1.0
    annealing_updates: int = 0


class BitEntropy(nn.Module):
    """Entropies of bits with given logits, and the annealed factor of their weight."""

    updates: Tensor

    def __init__(self, options: EntropyOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("updates", torch.zeros((), dtype=torch.long), persistent=options.annealing_updates > 0)

    def forward(self, logits: Float[Tensor, "M d"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean entropy of a latent's code and entropy of the mean code distribution of all ranks, in nats.

        ``logits`` are log p(bit = 1) / p(bit = 0).
        """
        size = logits.abs()
        sample = (F.softplus(-size) + size * torch.sigmoid(-size)).sum(-1).mean()
        few = self.options.marginal_samples
        if self.training and few is not None and few < len(logits):
            logits = logits[torch.randperm(len(logits), device=logits.device)[:few]]
        count = mean_over_ranks(logits.new_tensor(float(len(logits))))
        batch = logits.new_zeros(())
        for bits in logits.tensor_split(self.options.groups, dim=1):
            joint = mean_over_ranks(_Joint.apply(bits)) / count
            batch = batch - torch.special.xlogy(joint, joint.clamp_min(torch.finfo(joint.dtype).tiny)).sum()
        return sample, batch

    def factor(self) -> Float[Tensor, ""]:
        """What the entropy weight is multiplied by at this step."""
        done = (self.updates / max(self.options.annealing_updates, 1)).clamp_max(1.0)
        over = self.options.start_factor - 1.0 if self.options.annealing_updates else 0.0
        return 1.0 + over * (1.0 - done)

    @torch.no_grad()
    def update(self) -> None:
        """One training step further."""
        if self.options.annealing_updates:
            self.updates += 1


class _Joint(torch.autograd.Function):
    """Logits "M d" -> Σ_m p(c|m) as a table "2**(d//2) 2**(d-d//2)", first bits first, first bit least significant."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        columns = logits.T.contiguous()
        ctx.save_for_backward(columns)
        half = len(columns) // 2
        joint = logits.new_zeros(2**half, 2 ** (len(columns) - half))
        for chunk in columns.split(_chunk(columns), dim=1):
            a, b = _tables(chunk, half)
            joint.addmm_(a, b.T)
        return joint

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (columns,) = ctx.saved_tensors
        bits, half = len(columns), len(columns) // 2
        out = torch.empty_like(columns)
        ranges = list(pairwise((0, half, bits)))
        patterns = [_patterns(stop - start, columns) for start, stop in ranges]
        for start in range(0, columns.shape[1], _chunk(columns)):
            chunk = columns[:, start : start + _chunk(columns)]
            a, b = _tables(chunk, half)
            weighted = (torch.mm(gradient, b).mul_(a), torch.mm(gradient.T, a).mul_(b))
            for (first, stop), pattern, weight in zip(ranges, patterns, weighted, strict=True):
                # d p(c) / d l_i = p(c) σ(-l_i) where bit i is one and -p(c) σ(l_i) where it is zero
                one, zero = (pattern @ weight).chunk(2)
                rows = chunk[first:stop]
                part = out[first:stop, start : start + chunk.shape[1]]
                part.copy_(one * torch.sigmoid(-rows) - zero * torch.sigmoid(rows))
        return out.T


def _tables(columns: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Probability of every setting of the first ``half`` bits and of the others: "2**h m" each."""
    ones, zeros = torch.sigmoid(columns), torch.sigmoid(-columns)
    tables = []
    for start, stop in ((0, half), (half, len(columns))):
        table = columns.new_empty(2 ** (stop - start), columns.shape[1])
        table[0] = 1.0
        for bit in range(start, stop):
            filled = 2 ** (bit - start)
            torch.mul(table[:filled], ones[bit], out=table[filled : 2 * filled])
            table[:filled] *= zeros[bit]
        tables.append(table)
    return tables[0], tables[1]


def _patterns(num_bits: int, like: Tensor) -> Tensor:
    """Which settings have bit i at one, then which have it at zero: "2h 2**h"."""
    settings = torch.arange(2**num_bits, device=like.device)
    ones = (settings >> torch.arange(num_bits, device=like.device)[:, None] & 1).to(like)
    return torch.cat([ones, 1 - ones])


def _chunk(columns: Tensor) -> int:
    """Latents at a time, such that a table fits the cache (a few hundred MB on an accelerator)."""
    budget = 2**18 if columns.device.type == "cpu" else 2**26
    return max(budget >> (len(columns) + 1) // 2, 64)
