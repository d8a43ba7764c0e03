"""Plain joint positions: 66 features, exactly invertible, no facing frame.

The clip stands on the floor, starts at the origin and faces +z in frame 0 (see `canonicalize`). Row t: the root's step
from frame t-1 in x and z (0 in frame 0), its height, and every other joint relative to the root's ground point.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import canonicalize
from lmm.motion.skeleton import HUMANML3D_22


class JointPositions(MotionRepresentation):
    """Joints "*B T 22 3" <-> features "*B T 66".

    Args:
        fps: frames per second of the motions.
    """

    skeleton = HUMANML3D_22
    blocks: ClassVar[dict[str, int]] = {"root_velocity": 2, "root_height": 1, "positions": 63}

    def __init__(self, fps: float = 20.0) -> None:
        super().__init__()
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps must be positive, got {fps}")
        self.fps = float(fps)

    @property
    def owners(self) -> dict[str, Sequence[int]]:
        """The joints of each block."""
        return {"positions": range(1, 22)}

    def encode(self, motion: Motion) -> Float[Tensor, "*B T 66"]:
        """Features of a motion, one row per frame."""
        self.check(motion)
        joints = canonicalize(motion.joints)
        root = joints[..., 0, :]
        step = torch.diff(root[..., [0, 2]], dim=-2, prepend=torch.zeros_like(root[..., :1, :2]))
        local = joints[..., 1:, :] - root[..., None, :] * root.new_tensor([1.0, 0.0, 1.0])
        return torch.cat([step, root[..., 1:2], local.flatten(-2)], dim=-1)

    def decode(self, features: Float[Tensor, "*B T 66"]) -> Motion:
        """Motion of raw features."""
        s = self.slices
        path = features[..., s["root_velocity"]].cumsum(-2)
        root = torch.stack([path[..., 0], features[..., s["root_height"]].squeeze(-1), path[..., 1]], dim=-1)
        local = features[..., s["positions"]].unflatten(-1, (21, 3))
        others = local + (root * root.new_tensor([1.0, 0.0, 1.0]))[..., None, :]
        return Motion(torch.cat([root[..., None, :], others], dim=-2), self.fps, self.skeleton)
