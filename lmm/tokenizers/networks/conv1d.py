"""T2M-GPT's network (Zhang et al., CVPR 2023): 1-D convolutions over time, one latent a step (P = 1).

Conv k3 -> 2 x [conv k4 stride 2 -> 3 residual blocks of dilation 9, 3, 1] -> conv k3, and its mirror with nearest
upsampling. At D = 263, width 512 and C = 512 encoder and decoder have 19,436,807 parameters. Frames outside the mask
are zero before every convolution, so that a padded clip and the clip alone give the same latents. ``causal`` moves all
padding before the first frame (`lmm.tokenizers.networks.causal`); the parameters are the same.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.networks.causal import Memory, TimeConv1d, UpConv1d
from lmm.tokenizers.networks.padding import Padding
from lmm.tokenizers.parts import Decoder, Encoder


class Conv1dEncoder(Encoder):
    """Features "B T D" -> latents "B t 1 C".

    Args:
        representation: gives the number of features.
        latent_dim: C, channels of a latent.
        width: channels inside.
        depth: residual blocks of each stage; block i has dilation ``dilation_growth ** i``, largest first.
        num_stages: stages that halve the frame rate; downsample = 2 ** num_stages.
        dilation_growth: see ``depth``.
        causal: a step depends on no frame after its own, so that a `Stream` can run the network.
    """

    num_parts = 1

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        width: int = 512,
        depth: int = 3,
        num_stages: int = 2,
        dilation_growth: int = 3,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.part_names = ["body"]
        self.downsample, self.causal = 2**num_stages, causal
        self.enter = TimeConv1d(representation.dim, width, 3, causal=causal)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                [
                    TimeConv1d(width, width, 4, stride=2, causal=causal),
                    *_residual(width, depth, dilation_growth, causal),
                ]
            )
            for _ in range(num_stages)
        )
        self.leave = TimeConv1d(width, latent_dim, 3, causal=causal)

    def forward(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], memory: Memory | None = None
    ) -> Float[Tensor, "B t 1 C"]:
        """Latents of normalized features; ``memory`` is a `Stream`'s."""
        padding = Padding(mask)
        x = F.relu(padding.clear(self.enter(padding.clear(features.mT), memory)))
        for stage in self.stages:
            padding.halve()
            x = padding.clear(stage[0](x, memory))  # type: ignore[index]
            for block in stage[1:]:  # type: ignore[index]
                x = block(x, padding, memory)
        return padding.clear(self.leave(x, memory)).mT[:, :, None]


class Conv1dDecoder(Decoder):
    """Latents "B t 1 C" -> features "B T D"; arguments as `Conv1dEncoder`."""

    num_parts = 1

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        width: int = 512,
        depth: int = 3,
        num_stages: int = 2,
        dilation_growth: int = 3,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.downsample, self.causal = 2**num_stages, causal
        self.enter = TimeConv1d(latent_dim, width, 3, causal=causal)
        self.stages = nn.ModuleList(
            nn.ModuleList([*_residual(width, depth, dilation_growth, causal), UpConv1d(width, width, 3, causal=causal)])
            for _ in range(num_stages)
        )
        self.middle = TimeConv1d(width, width, 3, causal=causal)
        self.leave = TimeConv1d(width, representation.dim, 3, causal=causal)

    def forward(
        self, latents: Float[Tensor, "B t 1 C"], mask: Bool[Tensor, "B t"], memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalized features of latents; ``memory`` is a `Stream`'s."""
        padding = Padding(mask)
        x = F.relu(padding.clear(self.enter(padding.clear(latents[:, :, 0].mT), memory)))
        for stage in self.stages:
            for block in stage[:-1]:  # type: ignore[index]
                x = block(x, padding, memory)
            padding.double()
            x = padding.clear(stage[-1](x, memory))  # type: ignore[index]
        x = F.relu(padding.clear(self.middle(x, memory)))
        return padding.clear(self.leave(x, memory)).mT


class ResidualBlock1d(nn.Module):
    """ReLU, dilated conv k3, ReLU, conv k1, added to the input."""

    def __init__(self, width: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.spread = TimeConv1d(width, width, 3, dilation=dilation, causal=causal)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(
        self, x: Float[Tensor, "B W T"], padding: Padding, memory: Memory | None = None
    ) -> Float[Tensor, "B W T"]:
        """Stays zero where it is not real."""
        return x + padding.clear(self.mix(F.relu(self.spread(F.relu(x), memory))))


def _residual(width: int, depth: int, growth: int, causal: bool) -> list[nn.Module]:
    return [ResidualBlock1d(width, growth**i, causal) for i in reversed(range(depth))]
