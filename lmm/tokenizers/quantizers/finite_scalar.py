"""Finite scalar quantization (FSQ, Mentzer et al., ICLR 2024): each channel is rounded to one of a few levels.

A channel with L levels is bounded by tanh to L integers around zero (for even L shifted by half, so that zero is a
level: -L/2 .. L/2 - 1), rounded straight-through and divided by L // 2. Index = Σ_i digit_i · Π_{j<i} L_j with
digit = level + L // 2: the first channel is fastest. There is no codebook and no loss.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision

# Levels by the size they are named after (ScaMo, MotionMillion); the number of codes is their product.
PUBLISHED_LEVELS: dict[int, tuple[int, ...]] = {
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    2048: (8, 8, 6, 5),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
    65536: (8, 8, 8, 5, 5, 5),
}
_TOLERANCE = 1e-3  # the bound reaches this share beyond the outermost levels, as published


class FiniteScalarQuantizer(Quantizer):
    """Π L_i implicit codes (Q = 1).

    Args:
        latent_dim: C; projected to as many channels as levels and back where it is not that already.
        nominal_size: a key of `PUBLISHED_LEVELS`: 65536 means levels 8, 8, 8, 5, 5, 5, which are 64,000 codes.
        levels: levels of each channel, instead of the published ones; 3 or more each (5 or more are recommended).

    Raises:
        ValueError: a size that is not in the table, or levels that cannot be rounded to.
    """

    num_levels = 1
    counts: Tensor  # L of each channel
    basis: Tensor  # what a step of each channel's digit adds to the index
    middle: Tensor  # L // 2
    reach: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, latent_dim: int, *, nominal_size: int = 65536, levels: Sequence[int] | None = None) -> None:
        super().__init__()
        if levels is None and nominal_size not in PUBLISHED_LEVELS:
            raise ValueError(
                f"no levels are published for nominal_size {nominal_size}: take one of {list(PUBLISHED_LEVELS)}, "
                "or give the levels themselves"
            )
        levels = tuple(PUBLISHED_LEVELS[nominal_size] if levels is None else levels)
        self.codebook_size = math.prod(levels)
        if not levels or min(levels) < 3 or self.codebook_size > 2**24:
            raise ValueError(f"levels must be 3 or more each and at most 2^24 codes together, got {list(levels)}")
        counts = torch.tensor(levels)
        self.register_buffer("counts", counts.float(), persistent=False)
        basis = torch.cat([torch.ones(1, dtype=torch.long), counts[:-1]]).cumprod(0)
        self.register_buffer("basis", basis, persistent=False)
        reach = (self.counts - 1) * (1 + _TOLERANCE) / 2
        offset = torch.where(counts % 2 == 0, 0.5, 0.0)
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", (offset / reach).atanh(), persistent=False)
        self.register_buffer("middle", (counts // 2).float(), persistent=False)
        same = latent_dim == len(levels)
        self.down: nn.Module = nn.Identity() if same else nn.Linear(latent_dim, len(levels))
        self.up: nn.Module = nn.Identity() if same else nn.Linear(len(levels), latent_dim)

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Rounded channels, straight-through."""
        bounded = (self.down(latents) + self.shift).tanh() * self.reach - self.offset
        rounded = bounded.detach().round()
        # a sum of integers below 2^24: exact in fp32
        indices = ((rounded + self.middle) @ self.basis.to(rounded)).long()
        codes = (bounded + (rounded - bounded.detach())) / self.middle
        return QuantizerOutput(self.up(codes), indices[..., None], latents.new_zeros(()), {})

    def decode(self, indices: Int[Tensor, "B t P 1"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        digits = indices // self.basis % self.counts.long()
        weight = next(iter(self.up.parameters()), self.counts)
        return self.up(((digits - self.middle) / self.middle).to(weight.dtype))
