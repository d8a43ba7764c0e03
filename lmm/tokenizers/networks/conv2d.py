"""The network of 2D-LFQ (arXiv 2410.03311, section 3): motion as an image of time x body parts.

The paper sees a motion as a T x D x 1 image, splits its feature axis into P components and quantizes every (time, part)
cell. It publishes neither the split nor the layers; ours: each part's columns are embedded to a common width (a
convolution over the feature axis with a kernel as tall as the part), then T2M-GPT's topology in 2-D, 3 x 3
convolutions over (part, time) that halve time only, and a 1 x 1 projection to C channels. The decoder mirrors it.
``causal`` concerns time; over parts a convolution stays centred.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.networks.causal import Memory, TimeConv2d
from lmm.tokenizers.networks.partition import part_columns
from lmm.tokenizers.parts import Decoder, Encoder


class Conv2dEncoder(Encoder):
    """Features "B T D" -> latents "B t P C".

    Args:
        representation: gives the features and which of them belong to each part (``columns``, ``partition``).
        latent_dim: C, channels of a latent.
        parts: names of the parts, in the order of the grid, or the name of a partition of the body; default all parts
            of the representation.
        width: channels inside.
        depth: residual blocks of each stage.
        num_stages: stages that halve the frame rate; downsample = 2 ** num_stages.
        causal: a step depends on no frame after its own, so that a `Stream` can run the network.
    """

    order: Tensor  # feature columns, part after part

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        parts: list[str] | str | None = None,
        width: int = 512,
        depth: int = 3,
        num_stages: int = 2,
        causal: bool = False,
    ) -> None:
        super().__init__()
        named = part_columns(representation, parts)
        self.part_names, columns = list(named), list(named.values())
        self.num_parts, self.downsample, self.causal = len(columns), 2**num_stages, causal
        self.register_buffer("order", torch.tensor(sum(columns, [])), persistent=False)
        self.sizes = [len(c) for c in columns]
        self.embed = nn.ModuleList(nn.Linear(size, width) for size in self.sizes)
        self.stages = nn.ModuleList(
            nn.ModuleList([TimeConv2d(width, width, 4, stride=2, causal=causal), *_residual(width, depth, causal)])
            for _ in range(num_stages)
        )
        self.leave = nn.Conv2d(width, latent_dim, 1)

    def forward(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], memory: Memory | None = None
    ) -> Float[Tensor, "B t P C"]:
        """Latents of normalized features; ``memory`` is a `Stream`'s."""
        real = mask[:, None, None].to(features)
        parts = features[..., self.order].split(self.sizes, dim=-1)
        x = torch.stack([embed(part) for embed, part in zip(self.embed, parts, strict=True)], dim=-2)  # B T P W
        x = x.permute(0, 3, 2, 1) * real
        for stage in self.stages:
            real = real[..., ::2]
            x = stage[0](x, memory) * real  # type: ignore[index]
            for block in stage[1:]:  # type: ignore[index]
                x = block(x, real, memory)
        return (self.leave(F.relu(x)) * real).permute(0, 3, 2, 1)


class Conv2dDecoder(Decoder):
    """Latents "B t P C" -> features "B T D"; arguments as `Conv2dEncoder`."""

    place: Tensor  # inverse of the encoder's order

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        parts: list[str] | str | None = None,
        width: int = 512,
        depth: int = 3,
        num_stages: int = 2,
        causal: bool = False,
    ) -> None:
        super().__init__()
        columns = list(part_columns(representation, parts).values())
        self.num_parts, self.downsample, self.causal = len(columns), 2**num_stages, causal
        self.register_buffer("place", torch.tensor(sum(columns, [])).argsort(), persistent=False)
        self.enter = nn.Conv2d(latent_dim, width, 1)
        self.stages = nn.ModuleList(
            nn.ModuleList([*_residual(width, depth, causal), TimeConv2d(width, width, 3, causal=causal)])
            for _ in range(num_stages)
        )
        self.leave = nn.ModuleList(nn.Linear(width, len(c)) for c in columns)

    def forward(
        self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"], memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalized features of latents; ``memory`` is a `Stream`'s."""
        real = mask[:, None, None].to(latents)
        x = self.enter(latents.permute(0, 3, 2, 1)) * real
        for stage in self.stages:
            for block in stage[:-1]:  # type: ignore[index]
                x = block(x, real, memory)
            x, real = x.repeat_interleave(2, dim=-1), real.repeat_interleave(2, dim=-1)
            x = stage[-1](x, memory) * real  # type: ignore[index]
        parts = F.relu(x).permute(2, 0, 3, 1)  # P B T W
        features = torch.cat([leave(part) for leave, part in zip(self.leave, parts, strict=True)], dim=-1)
        return features[..., self.place] * real[:, 0, 0, :, None]


class ResidualBlock2d(nn.Module):
    """ReLU, conv 3 x 3, ReLU, conv 1 x 1, added to the input."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.spread = TimeConv2d(width, width, 3, causal=causal)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(
        self, x: Float[Tensor, "B W P T"], real: Float[Tensor, "B 1 1 T"], memory: Memory | None = None
    ) -> Float[Tensor, "B W P T"]:
        """Stays zero where ``real`` is."""
        return x + self.mix(F.relu(self.spread(F.relu(x), memory))) * real


def _residual(width: int, depth: int, causal: bool) -> list[nn.Module]:
    return [ResidualBlock2d(width, causal) for _ in range(depth)]
