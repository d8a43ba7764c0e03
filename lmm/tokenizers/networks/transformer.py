"""A transformer over motion: patches of time x body part, attention among the cells near in time.

The features of a part over ``downsample`` frames make one cell (ViT, Dosovitskiy et al., ICLR 2021). Pre-norm blocks
let each cell see all parts of the steps less than a window away, with rotary positions in time (RoFormer, Su et al.,
2021); the decoder mirrors it. The window is that of training, 64 frames: no layer meets a distance that it was never
trained on, so clips of any length work, and a causal stream remembers no more. One part is a time line (P = 1),
several are a grid. At D = 263 and C = 512 the defaults have 20,511,260 parameters in encoder and decoder.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.networks.causal import Memory
from lmm.tokenizers.networks.partition import Partition
from lmm.tokenizers.parts import Decoder, Encoder

WINDOW = 64  # frames; a layer sees steps less than this away


class TransformerEncoder(Encoder):
    """Features "B T D" -> latents "B t P C".

    Args:
        representation: gives the features and which of them belong to each part (``columns``, ``partition``).
        latent_dim: C, channels of a latent.
        parts: names of the parts, in the order of the grid, or the name of a partition of the body; default the whole
            body as one part.
        width: channels of a cell inside.
        depth: transformer blocks.
        num_heads: attention heads; they share the width.
        downsample: frames of a step.
        causal: a step depends on no frame after its own, so that a `Stream` can run the network.
    """

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        parts: list[str] | str | None = "whole",
        width: int = 512,
        depth: int = 3,
        num_heads: int = 8,
        downsample: int = 4,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.partition = Partition(representation, parts)
        self.part_names, sizes = self.partition.names, self.partition.sizes
        self.num_parts, self.downsample, self.causal = len(sizes), downsample, causal
        self.embed = nn.ModuleList(nn.Linear(size * downsample, width) for size in sizes)
        self.trunk = Trunk(width, depth, num_heads, (-(-WINDOW // downsample), len(sizes)), causal)
        self.leave = nn.Linear(width, latent_dim)

    def forward(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], memory: Memory | None = None
    ) -> Float[Tensor, "B t P C"]:
        """Latents of normalized features; ``memory`` is a `Stream`'s."""
        real = mask[:, :: self.downsample]
        steps = features.masked_fill(~mask[..., None], 0).unflatten(1, (-1, self.downsample))
        parts = self.partition.split(steps)
        x = torch.stack([embed(part.flatten(2)) for embed, part in zip(self.embed, parts, strict=True)], dim=2)
        return self.leave(self.trunk(x, real, memory)) * real[..., None, None]


class TransformerDecoder(Decoder):
    """Latents "B t P C" -> features "B T D"; arguments as `TransformerEncoder`."""

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        parts: list[str] | str | None = "whole",
        width: int = 512,
        depth: int = 3,
        num_heads: int = 8,
        downsample: int = 4,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.partition = Partition(representation, parts)
        sizes = self.partition.sizes
        self.num_parts, self.downsample, self.causal = len(sizes), downsample, causal
        self.enter = nn.Linear(latent_dim, width, bias=False)
        self.rows = nn.Parameter(torch.randn(len(sizes), width) * 0.02)  # tells the parts apart
        self.trunk = Trunk(width, depth, num_heads, (-(-WINDOW // downsample), len(sizes)), causal)
        self.leave = nn.ModuleList(nn.Linear(width, size * downsample) for size in sizes)

    def forward(
        self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"], memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalized features of latents; ``memory`` is a `Stream`'s."""
        x = self.trunk(self.enter(latents.masked_fill(~mask[..., None, None], 0)) + self.rows, mask, memory)
        parts = [
            leave(part).unflatten(-1, (self.downsample, -1))
            for leave, part in zip(self.leave, x.unbind(2), strict=True)
        ]
        return (self.partition.join(parts) * mask[..., None, None]).flatten(1, 2)


class Trunk(nn.Module):
    """Transformer blocks over a grid; ``window``: steps that a cell sees to a side (its own included) and parts."""

    def __init__(self, width: int, depth: int, num_heads: int, window: tuple[int, int], causal: bool) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width {width} must be a multiple of twice num_heads, which is {num_heads}")
        self.window, self.num_parts = window
        self.head_dim, self.causal = width // num_heads, causal
        past = (self.window - 1) * self.num_parts
        self.blocks = nn.ModuleList(Block(width, num_heads, past) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "B t P W"], real: Bool[Tensor, "B t"], memory: Memory | None = None
    ) -> Float[Tensor, "B t P W"]:
        """Cells outside ``real`` are not seen; what they become means nothing."""
        num_steps = real.shape[1]
        if memory is not None:
            real = memory.recall(self, real, self.window - 1, dim=1)
        steps = torch.arange(real.shape[1], device=x.device)
        ahead = steps - steps[-num_steps:, None]  # of a key from a query
        near = (ahead.abs() < self.window) & (ahead <= 0 if self.causal else True)
        seen = (near & real[:, None]) | (ahead == 0)  # softmax of nothing is NaN: padding sees itself
        seen = seen.repeat_interleave(self.num_parts, 1).repeat_interleave(self.num_parts, 2)[:, None]
        angles = _angles(real.shape[1], self.head_dim).repeat_interleave(self.num_parts, 0)
        turn = torch.stack([angles.cos(), angles.sin()]).to(x.device, torch.float32)
        x = x.flatten(1, 2)
        for block in self.blocks:
            x = block(x, seen, turn, memory)
        return self.norm(x).unflatten(1, (num_steps, self.num_parts))


class Block(nn.Module):
    """Attention and a GELU network, each behind a layer norm and added to the input."""

    def __init__(self, width: int, num_heads: int, past: int) -> None:
        super().__init__()
        self.num_heads, self.past = num_heads, past
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        x: Float[Tensor, "B L W"],
        seen: Bool[Tensor, "B 1 L M"],
        turn: Float[Tensor, "2 M E"],
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L W"]:
        """L cells, the last of M keys (a stream remembers the others); E is half a head."""
        width = x.shape[-1]
        q, kv = self.project(self.norm1(x)).split([width, 2 * width], dim=-1)
        if memory is not None:
            kv = memory.recall(self, kv, self.past, dim=1)
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (q, *kv.chunk(2, dim=-1)))
        q, k = _rotate(q, turn[:, -q.shape[2] :]), _rotate(k, turn)
        x = x + self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def _angles(num_steps: int, head_dim: int) -> Float[Tensor, "t E"]:
    """Rotary angles, in float64 on the CPU: float32 is coarse at late steps, and not every device has more."""
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
    return torch.arange(num_steps, dtype=torch.float64, device="cpu")[:, None] * frequencies


def _rotate(x: Float[Tensor, "B H L F"], turn: Float[Tensor, "2 L E"]) -> Float[Tensor, "B H L F"]:
    """Turn the pairs (i, i + E) of a head's channels, in float32."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
