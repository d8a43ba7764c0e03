"""One motion of one body: what every format, representation and generator speaks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.skeleton import Skeleton


@dataclass(frozen=True)
class Motion:
    """Joint positions over time and, where they are known, the local rotations that give them.

    Args:
        joints: global joint positions in metres, "*B T J 3"; y up, the body's left at +x when it faces +z.
        fps: frames per second.
        skeleton: the joints' names and tree.
        rotations: local rotation matrices, "*B T J 3 3" (the root's is global); None where only positions are known.

    Raises:
        ValueError: a shape does not fit the skeleton, or the joints contain NaN or Inf.
    """

    joints: Float[Tensor, "*B T J 3"]
    fps: float
    skeleton: Skeleton
    rotations: Float[Tensor, "*B T J 3 3"] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.joints.shape)
        if len(shape) < 3 or shape[-2:] != (self.skeleton.num_joints, 3):
            raise ValueError(f"joints must be (..., T, {self.skeleton.num_joints}, 3), got {shape}")
        if self.rotations is not None and tuple(self.rotations.shape) != (*shape, 3):
            raise ValueError(f"rotations must be {(*shape, 3)}, got {tuple(self.rotations.shape)}")
        if not torch.isfinite(self.joints).all():
            raise ValueError("joints contain NaN or Inf")
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.joints.shape[-3]

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.num_frames / self.fps
