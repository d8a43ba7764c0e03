"""How long generated motions are: mean absolute and mean signed difference from the real length, in seconds.

A figure of text-to-motion means something only beside the length policy: a model that stops by itself is compared
with one that was told the length by these two numbers.
"""

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric


class LengthError(Metric):
    """``length_error_s`` and ``length_bias_s`` (positive: too long), mean over clips.

    Args:
        fps: frames per second.
    """

    full_state_update = False
    totals: Tensor
    count: Tensor

    def __init__(self, fps: float) -> None:
        super().__init__()
        self.fps = fps
        self.add_state("totals", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")  # frames: exact
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, generated: Int[Tensor, " B"], target: Int[Tensor, " B"]) -> None:
        """Add lengths in frames."""
        longer = generated.long() - target.long()
        self.totals += torch.stack([longer.abs().sum(), longer.sum()])
        self.count += len(longer)

    def compute(self) -> dict[str, Tensor]:
        """Figure by name; NaN without any clip."""
        error, bias = (self.totals.double() / self.count / self.fps).float()
        return {"length_error_s": error, "length_bias_s": bias}
