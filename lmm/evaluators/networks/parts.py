"""What a motion encoder, a text encoder and a motion decoder of an evaluator are, and the trunk that ours share.

``B`` batch · ``T`` frames · ``D`` features · ``L`` words · ``W`` width · ``O`` numbers of an encoder: E, or 2·E where a
mean and a log-variance are asked for. ``mask`` is True on real frames; what stands elsewhere never reaches a result.
"""

import inspect
import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Part(nn.Module, ABC):
    """A network that keeps its arguments under their names, so that it can say what it is."""

    @property
    def settings(self) -> str:
        """Class and arguments that change its outputs and leave no trace in the shapes or values of its weights."""
        kept = (name for name in inspect.signature(type(self)).parameters if name in self.__dict__)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in kept)})"


class MotionEncoder(Part):
    """Normalized features "B T D" -> "B O"; T is a multiple of ``downsample``, and so is every motion's length."""

    downsample: int

    @abstractmethod
    def forward(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B O"]:
        """O numbers of each motion."""


class TextEncoder(Part):
    """Sentences -> "B O"."""

    @abstractmethod
    def forward(self, texts: list[str]) -> Float[Tensor, "B O"]:
        """O numbers of each sentence.

        Raises:
            ValueError: a sentence that cannot be read.
        """


class MotionDecoder(Part):
    """Latents "B E" -> normalized features "B T D"; T is a multiple of ``downsample``."""

    downsample: int

    @abstractmethod
    def forward(self, latents: Float[Tensor, "B E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Features; where ``mask`` is False they mean nothing."""


class Trunk(nn.Module):
    """Pre-norm transformer blocks over "B L W" with sinusoidal positions (Vaswani et al. 2017)."""

    def __init__(self, width: int, depth: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads or width % 2:
            raise ValueError(f"width {width} must be even and a multiple of num_heads, which is {num_heads}")
        block = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Float[Tensor, "B L W"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """What stands outside ``mask`` is not seen."""
        return self.blocks(x + positions(x.shape[1], x.shape[2]).to(x), src_key_padding_mask=~mask)


def positions(length: int, width: int) -> Float[Tensor, "L W"]:
    """Sines and cosines of the place, wavelengths from 2π to 10000 · 2π."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def masked_mean(x: Float[Tensor, "B L W"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B W"]:
    """Mean over what is real."""
    return x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
