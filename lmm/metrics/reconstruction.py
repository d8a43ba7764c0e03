"""How far a reconstruction's joints are from the original's: mean per-joint position error (MPJPE)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric


def joint_errors(
    prediction: Float[Tensor, "*B T J 3"], target: Float[Tensor, "*B T J 3"], *, align_root: bool = False
) -> Float[Tensor, "*B T"]:
    """Mean Euclidean distance over the joints of each frame, in the unit of the input.

    Args:
        prediction: joint positions.
        target: joint positions to compare with.
        align_root: put both roots (joint 0) at the origin of every frame first.
    """
    if align_root:
        prediction, target = prediction - prediction[..., :1, :], target - target[..., :1, :]
    return (prediction - target).norm(dim=-1).mean(-1)


class MPJPE(Metric):
    """Mean per-joint position error in millimetres over all real frames.

    Args:
        align_root: root-aligned error (MotionGPT's convention); False is MoMask's, with the root path's drift in it.
    """

    higher_is_better = False
    full_state_update = False
    total: Tensor
    frames: Tensor

    def __init__(self, align_root: bool = False) -> None:
        super().__init__()
        self.align_root = align_root
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("frames", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, prediction: Float[Tensor, "B T J 3"], target: Float[Tensor, "B T J 3"], mask: Bool[Tensor, "B T"]
    ) -> None:
        """Add joints in metres; frames where ``mask`` is False do not count."""
        errors = joint_errors(prediction, target, align_root=self.align_root)[mask]
        self.total += errors.double().sum()
        self.frames += errors.numel()

    def compute(self) -> Tensor:
        """Millimetres."""
        return (self.total / self.frames * 1000).float()
