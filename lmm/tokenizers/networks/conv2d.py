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
from lmm.tokenizers.networks.causal import Memory, TimeConv2d, UpConv2d
from lmm.tokenizers.networks.padding import Padding
from lmm.tokenizers.networks.partition import Partition
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
        self.partition = Partition(representation, parts)
        self.part_names, sizes = self.partition.names, self.partition.sizes
        self.num_parts, self.downsample, self.causal = len(sizes), 2**num_stages, causal
        self.embed = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.stages = nn.ModuleList(
            nn.ModuleList([TimeConv2d(width, width, 4, stride=2, causal=causal), *_residual(width, depth, causal)])
            for _ in range(num_stages)
        )
        self.leave = nn.Conv2d(width, latent_dim, 1)

    def forward(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], memory: Memory | None = None
    ) -> Float[Tensor, "B t P C"]:
        """Latents of normalized features; ``memory`` is a `Stream`'s."""
        padding = Padding(mask)
        parts = self.partition.split(features)
        x = torch.stack([embed(part) for embed, part in zip(self.embed, parts, strict=True)], dim=-2)  # B T P W
        x = padding.clear(x.permute(0, 3, 2, 1))
        for stage in self.stages:
            padding.halve()
            x = padding.clear(stage[0](x, memory))  # type: ignore[index]
            for block in stage[1:]:  # type: ignore[index]
                x = block(x, padding, memory)
        return padding.clear(self.leave(F.relu(x))).permute(0, 3, 2, 1)


class Conv2dDecoder(Decoder):
    """Latents "B t P C" -> features "B T D"; arguments as `Conv2dEncoder`."""

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
        self.partition = Partition(representation, parts)
        sizes = self.partition.sizes
        self.num_parts, self.downsample, self.causal = len(sizes), 2**num_stages, causal
        self.enter = nn.Conv2d(latent_dim, width, 1)
        self.stages = nn.ModuleList(
            nn.ModuleList([*_residual(width, depth, causal), UpConv2d(width, width, 3, causal=causal)])
            for _ in range(num_stages)
        )
        self.leave = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(
        self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"], memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalized features of latents; ``memory`` is a `Stream`'s."""
        padding = Padding(mask)
        x = padding.clear(self.enter(latents.permute(0, 3, 2, 1)))
        for stage in self.stages:
            for block in stage[:-1]:  # type: ignore[index]
                x = block(x, padding, memory)
            padding.double()
            x = padding.clear(stage[-1](x, memory))  # type: ignore[index]
        parts = F.relu(x).permute(2, 0, 3, 1)  # P B T W
        features = self.partition.join([leave(part) for leave, part in zip(self.leave, parts, strict=True)])
        return padding.clear(features.mT).mT


class ResidualBlock2d(nn.Module):
    """ReLU, conv 3 x 3, ReLU, conv 1 x 1, added to the input."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.spread = TimeConv2d(width, width, 3, causal=causal)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(
        self, x: Float[Tensor, "B W P T"], padding: Padding, memory: Memory | None = None
    ) -> Float[Tensor, "B W P T"]:
        """Stays zero where it is not real."""
        return x + padding.clear(self.mix(F.relu(self.spread(F.relu(x), memory))))


def _residual(width: int, depth: int, causal: bool) -> list[nn.Module]:
    return [ResidualBlock2d(width, causal) for _ in range(depth)]
