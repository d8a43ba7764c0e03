"""Bits and the indices they spell: d bits as one index, or as several shorter sub-codes (Open-MAGVIT2, Luo et al.).

Sub-code q holds channels q·d/Q .. (q+1)·d/Q - 1. Within it the first channel is the least significant bit ("lsb":
Open-MAGVIT2 and arXiv 2410.03311) or the most significant one ("msb": MAGVIT-v2 as others implement it). So 2^18 codes
are two tokens of 2^9, and a language model needs 512 rows instead of 262,144.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

BitOrder = Literal["lsb", "msb"]


class BitIndices(nn.Module):
    """d bits <-> Q indices of d/Q bits each.

    Args:
        codebook_size: 2^d, up to 2^20.
        sub_codes: Q, a divisor of d.
        bit_order: which end of a sub-code its first channel is.

    Raises:
        ValueError: not a power of two, or bits that do not divide.
    """

    level: Tensor  # sub-code of each channel
    shift: Tensor  # and its place in it
    places: Tensor  # "d Q": 2^shift at the channel's sub-code

    def __init__(self, codebook_size: int, sub_codes: int, bit_order: BitOrder) -> None:
        super().__init__()
        self.num_bits = codebook_size.bit_length() - 1
        if codebook_size != 2**self.num_bits or not 1 <= self.num_bits <= 20:
            raise ValueError(f"codebook_size of a lookup-free quantizer is a power of two up to 2^20: {codebook_size}")
        if sub_codes < 1 or self.num_bits % sub_codes:
            raise ValueError(f"{self.num_bits} bits do not divide into {sub_codes} sub-codes; name a divisor")
        self.width = self.num_bits // sub_codes
        channel = torch.arange(self.num_bits)
        level, shift = channel // self.width, channel % self.width
        shift = self.width - 1 - shift if bit_order == "msb" else shift
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        # exact in fp32: a sub-code is less than 2^24
        places = torch.zeros(self.num_bits, sub_codes).index_put_((channel, level), 2.0**shift)
        self.register_buffer("places", places, persistent=False)

    def to_indices(self, bits: Bool[Tensor, "*M d"]) -> Int[Tensor, "*M Q"]:
        """Indices that the bits spell."""
        return (bits.to(self.places) @ self.places).long()

    def to_signs(self, indices: Int[Tensor, "*M Q"]) -> Int[Tensor, "*M d"]:
        """±1 of each bit."""
        return (indices[..., self.level] >> self.shift & 1) * 2 - 1

    def extra_repr(self) -> str:
        """Printed with the model."""
        return f"bits={self.num_bits}, sub_codes={self.places.shape[1]}"


def signs(bits: Bool[Tensor, "*M d"]) -> Float[Tensor, "*M d"]:
    """±1.0 of each bit."""
    return bits.float().mul_(2).sub_(1)
