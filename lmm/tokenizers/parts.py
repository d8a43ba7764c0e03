"""The law of shapes: what an encoder, a quantizer and a decoder are.

``B`` batch · ``T`` frames · ``D`` features · ``t`` = T / downsample · ``P`` parts · ``Q`` levels · ``C`` channels.
A time line is P = 1, a residual quantizer Q > 1; nothing ever squeezes a dimension of one.
``mask`` is True on real frames (steps); what stands elsewhere never reaches a real one.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Normalized features "B T D" -> latents "B t P C"; T is a multiple of ``downsample``."""

    num_parts: int
    part_names: list[str]  # of the grid's rows, for the log
    downsample: int
    causal: bool = False  # whether a latent depends on no later frame, so that encoding can stream

    @abstractmethod
    def forward(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B t P C"]:
        """Latents; zero where ``mask`` has no real step."""


class Decoder(nn.Module, ABC):
    """Latents "B t P C" -> normalized features "B T D", T = t · downsample."""

    num_parts: int
    downsample: int
    causal: bool = False  # whether a frame depends on no later latent, so that decoding can stream

    @abstractmethod
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> Float[Tensor, "B T D"]:
        """Features; zero where ``mask`` has no real step."""


class QuantizerOutput(NamedTuple):
    """What a quantizer returns.

    ``latents`` carry a straight-through gradient; ``indices`` are -1 at levels that were dropped; ``loss`` is what the
    quantizer adds to the training loss (already weighted), ``terms`` its unweighted pieces for the log.
    """

    latents: Float[Tensor, "B t P C"]
    indices: Int[Tensor, "B t P Q"]
    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


def full_precision(forward: Callable[..., QuantizerOutput]) -> Callable[..., QuantizerOutput]:
    """Run a quantizer's forward in fp32, whatever autocast is on around it."""

    @functools.wraps(forward)
    def wrapped(self: nn.Module, latents: Tensor, mask: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            return forward(self, latents.float(), mask)

    return wrapped


class Quantizer(nn.Module, ABC):
    """Latents -> the nearest codes. ``forward`` is pure; learning outside the gradient happens in `update`."""

    num_levels: int
    codebook_size: int
    bit_order: str = "none"

    @abstractmethod
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Codes, their latents with a straight-through gradient, and the quantizer's own loss."""

    @abstractmethod
    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Latents of codes; a level of -1 adds nothing."""

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """One step of learning outside the gradient (EMA codebooks); called once per training step."""
