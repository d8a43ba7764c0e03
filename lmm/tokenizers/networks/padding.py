"""Padding inside a network: zero before every convolution, and no work at all where every frame is real."""

from jaxtyping import Bool, Float
from torch import Tensor


class Padding:
    """What lies outside a mask, at the frame rate of a layer.

    Args:
        mask: real frames. Asking whether all are makes a GPU's host wait, so a forward makes one of these.
    """

    def __init__(self, mask: Bool[Tensor, "B T"]) -> None:
        self.real = None if mask.all() else mask

    def clear(self, x: Float[Tensor, "B W *P T"]) -> Float[Tensor, "B W *P T"]:
        """``x`` with zeros outside the mask, in its own precision (a float32 mask would raise that of bfloat16)."""
        if self.real is None:
            return x
        return x * self.real.view(len(x), *[1] * (x.ndim - 2), -1).to(x.dtype)

    def halve(self) -> None:
        """On to half the frame rate."""
        self.real = None if self.real is None else self.real[:, ::2]

    def double(self) -> None:
        """On to twice the frame rate."""
        self.real = None if self.real is None else self.real.repeat_interleave(2, dim=1)
