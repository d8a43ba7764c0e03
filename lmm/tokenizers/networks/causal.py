"""Causal time: convolutions that see no frame ahead, and streams that need only that.

A causal convolution pads before the first frame only: the latents of a step depend on frames up to the step's own end,
decoded frames on latents up to their own step. A causal layer needs a bounded tail of what it has seen (a convolution
dilation · (kernel - 1) frames, attention its window), so a `Stream` gives what the whole clip would give, step by step,
at a cost per step that does not grow with the clip.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.tokenizers.parts import Decoder, Encoder


class Stream:
    """A causal encoder or decoder that is fed whole steps as they arrive; one object per batch of clips.

    >>> stream = Stream(decoder)
    >>> for latents in steps:      # "B n P C", n >= 1 steps of equally many clips
    ...     frames = stream(latents)  # "B n·downsample D", final

    An encoder takes "B n·downsample D" and gives "B n P C". All steps are real: a clip that ends before the others of
    its batch is fed anything, since nothing reaches back.

    Args:
        network: its ``forward`` takes a `Memory` after the mask and its ``causal`` is true.

    Raises:
        ValueError: a network that looks ahead.
    """

    def __init__(self, network: Encoder | Decoder) -> None:
        if not getattr(network, "causal", False):
            raise ValueError(f"{type(network).__name__} looks ahead and cannot stream; train it with causal=true")
        self.network, self.memory = network, Memory()
        self.frames = network.downsample if isinstance(network, Encoder) else 1

    @torch.no_grad()
    def __call__(self, chunk: Float[Tensor, "B _ ..."]) -> Tensor:
        """What the network says about the next steps.

        Raises:
            ValueError: frames that are no whole number of steps.
        """
        if chunk.shape[1] == 0 or chunk.shape[1] % self.frames:
            raise ValueError(f"a stream takes whole steps of {self.frames} frames, got {chunk.shape[1]}")
        mask = torch.ones(chunk.shape[:2], dtype=torch.bool, device=chunk.device)
        return self.network(chunk, mask, self.memory)


class Memory(dict[nn.Module, Tensor]):
    """The tail of what each layer of one stream has seen."""

    def recall(self, layer: nn.Module, x: Tensor, count: int, dim: int) -> Tensor:
        """``x`` behind the last ``count`` entries along ``dim`` before it; fewer where the stream began later."""
        if layer in self:
            x = torch.cat([self[layer], x], dim)
        kept = min(count, x.shape[dim])
        self[layer] = x.narrow(dim, x.shape[dim] - kept, kept)
        return x


class TimeConv1d(nn.Conv1d):
    """`nn.Conv1d` over time, padded to keep T / stride frames: on both sides, or before the first if ``causal``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, causal: bool = False
    ) -> None:
        past = dilation * (kernel - 1) + 1 - stride
        super().__init__(inputs, outputs, kernel, stride, 0 if causal else past // 2, dilation)
        self.past, self.causal = past, causal

    def forward(self, x: Float[Tensor, "B W T"], memory: Memory | None = None) -> Float[Tensor, "B V U"]:
        """T / stride frames."""
        return super().forward(_behind_past(x, self, self.past, memory) if self.causal else x)


class TimeConv2d(nn.Conv2d):
    """`TimeConv1d` over an image part x time; three parts are seen, always centred."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, causal: bool = False) -> None:
        past = kernel - stride
        super().__init__(inputs, outputs, (3, kernel), (1, stride), (1, 0 if causal else past // 2))
        self.past, self.causal = past, causal

    def forward(self, x: Float[Tensor, "B W P T"], memory: Memory | None = None) -> Float[Tensor, "B V P U"]:
        """T / stride frames."""
        return super().forward(_behind_past(x, self, self.past, memory) if self.causal else x)


class UpConv1d(TimeConv1d):
    """Nearest upsampling by two and a `TimeConv1d` of kernel 3 behind it, with a third less work."""

    def forward(self, x: Float[Tensor, "B W T"], memory: Memory | None = None) -> Float[Tensor, "B V U"]:
        """2 T frames."""
        return _upsampled(x, self) if memory is None else super().forward(x.repeat_interleave(2, dim=-1), memory)


class UpConv2d(TimeConv2d):
    """`UpConv1d` over an image part x time; parts are not upsampled."""

    def forward(self, x: Float[Tensor, "B W P T"], memory: Memory | None = None) -> Float[Tensor, "B V P U"]:
        """2 T frames."""
        return _upsampled(x, self) if memory is None else super().forward(x.repeat_interleave(2, dim=-1), memory)


def _upsampled(x: Tensor, layer: TimeConv1d | TimeConv2d) -> Tensor:
    """Three taps on doubled frames meet two different ones: sums of taps on frames that are not doubled.

    Between x_0 and x_1 lie (w_0 + w_1) x_0 + w_2 x_1 and w_0 x_0 + (w_1 + w_2) x_1, two outputs of one convolution. For
    the few frames of a stream the sums cost more than they save.
    """
    w0, w1, w2 = layer.weight.unbind(-1)
    weight = torch.cat([torch.stack([w0 + w1, w2], -1), torch.stack([w0, w1 + w2], -1)])
    bias = None if layer.bias is None else layer.bias.repeat(2)
    x = F.pad(x, (1, 0)) if layer.causal else x
    first, second = layer._conv_forward(x, weight, bias).chunk(2, dim=1)
    if not layer.causal:  # zeros on both sides: of the pairs at the two ends, only the half at a frame is of the clip
        first, second = second[..., :-1], first[..., 1:]
    return torch.stack([first, second], -1).flatten(-2)


def _behind_past(x: Tensor, layer: nn.Module, past: int, memory: Memory | None) -> Tensor:
    """``x`` behind ``past`` frames: those a stream remembers, zeros before the first."""
    length = x.shape[-1] + past
    if memory is not None:
        x = memory.recall(layer, x, past, dim=-1)
    return F.pad(x, (length - x.shape[-1], 0))
