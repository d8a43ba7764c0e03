"""How far a continued or filled-in motion is from the real one: ADE and FDE, in metres.

A clip is part given, part missing: the end (prediction) or a stretch in the middle (in-between). The distance of a
frame is the norm of the difference of all its joints together (66 numbers for 22 joints), not a mean over joints.

* ADE: mean of that distance over the missing frames of a clip, then over clips.
* FDE: that distance in the last missing frame of a clip, then mean over clips. For in-betweening this is the frame
  before the given end, near what is given, so it is no measure of drift there.

MotionGPT's prediction figures run on into the padding behind a clip's end; these do not.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric


class Displacement(NamedTuple):
    """Of each clip, in metres."""

    ade: Float[Tensor, "*B"]
    fde: Float[Tensor, "*B"]


class DisplacementErrors(Metric):
    """``ade_m`` and ``fde_m``, mean over clips."""

    full_state_update = False
    totals: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("totals", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, prediction: Float[Tensor, "B T J 3"], target: Float[Tensor, "B T J 3"], missing: Bool[Tensor, "B T"]
    ) -> None:
        """Add clips of joints in metres (see `displacement`)."""
        found = displacement(prediction, target, missing)
        self.totals += torch.stack([found.ade.sum(), found.fde.sum()])
        self.count += len(missing)

    def compute(self) -> dict[str, Tensor]:
        """Figure by name; NaN without any clip."""
        ade, fde = (self.totals / self.count).float()
        return {"ade_m": ade, "fde_m": fde}


def displacement(
    prediction: Float[Tensor, "*S T J 3"], target: Float[Tensor, "*B T J 3"], missing: Bool[Tensor, "*B T"]
) -> Displacement:
    """ADE and FDE of each clip.

    Args:
        prediction: joints in metres; several of each clip in a leading dimension, whose ``amin(0)`` is best-of-N.
        target: joints in metres.
        missing: real frames that were not given.

    Raises:
        ValueError: a clip of which nothing is missing.
    """
    if not missing.any(-1).all():
        clips = int((~missing.any(-1)).sum())
        raise ValueError(f"nothing is missing of {clips} clips, so nothing was predicted; leave them out")
    error = (prediction.double() - target.double()).flatten(-2).norm(dim=-1)
    last = missing.shape[-1] - 1 - missing.flip(-1).byte().argmax(-1)
    final = error.gather(-1, last.expand(error.shape[:-1])[..., None])[..., 0]
    return Displacement(torch.where(missing, error, 0.0).sum(-1) / missing.sum(-1), final)
