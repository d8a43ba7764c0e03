"""MotionStreamer's 272 features (Xiao et al., ICCV 2025), also MotionMillion's: 30 fps, rotations without IK.

Row t, with everything seen in the heading frame of its root (H = turn about y that takes the root's z axis to +z):
    [0:2]     root_velocity   H(t-1) · (root(t) - root(t-1)), x and z, metres per frame; 0 in row 0
    [2:8]     heading_change  H(t) · H(t-1)⁻¹ in 6-D; identity in row 0
    [8:74]    positions       H(t) · (joints - root's ground point), so the root keeps its height
    [74:140]  velocities      positions(t) - positions(t-1) of the block above; 0 in row 0
    [140:272] rotations       SMPL's 22 local rotations in 6-D, the root's with its heading removed: H(t) · root
6-D here is the first two *rows* of a matrix (PyTorch3D's), where HumanML3D has columns. The floor is the clip's lowest
joint. Joints are SMPL's of the body's own shape.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.smpl import heading, with_rotations, yaw_matrix
from lmm.motion.rotations import rotation_6d_to_matrix
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import put_on_floor


class MotionStreamer272(MotionRepresentation):
    """Joints and rotations "*B T 22 ..." <-> features "*B T 272"; one row per frame.

    30 fps; the 22 joints of `HUMANML3D_22`; five limbs. Joints come back from the positions block, so with the body's
    own shape, and rotations from the rotations block; in generated features the two may disagree. Lost: where the clip
    was and which way it looked in its first frame. The heading comes from the root's z axis alone, as published, so it
    jumps when a body bends over or lies down; features follow exactly.

    Args:
        fit_rotations: estimate the rotations of motions that have positions only (see `kinematics.fit_rotations` for
            how near these come to SMPL's). Left off, such motions are refused.
    """

    skeleton = HUMANML3D_22
    fps = 30.0
    blocks: ClassVar[dict[str, int]] = {
        "root_velocity": 2,
        "heading_change": 6,
        "positions": 66,
        "velocities": 66,
        "rotations": 132,
    }

    def __init__(self, fit_rotations: bool = False) -> None:
        super().__init__()
        self.fit_rotations = fit_rotations

    @property
    def owners(self) -> dict[str, Sequence[int]]:
        """The joints of each block."""
        return dict.fromkeys(("positions", "velocities", "rotations"), range(22))

    def encode(self, motion: Motion) -> Float[Tensor, "*B T 272"]:
        """Features of a motion.

        Raises:
            ValueError: another skeleton or frame rate, or no rotations.
        """
        self.check(motion)
        motion = put_on_floor(with_rotations(motion, type(self).__name__, fit_missing=self.fit_rotations))
        assert motion.rotations is not None
        joints, root = motion.joints, motion.rotations[..., 0, :, :]
        angle = -torch.atan2(root[..., 0, 2], root[..., 2, 2])
        turn = yaw_matrix(angle)
        ground = joints[..., :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
        positions = ((joints - ground) @ turn.transpose(-1, -2)).flatten(-2)
        step = (turn[..., :-1, :, :] @ ground.squeeze(-2).diff(dim=-2)[..., None]).squeeze(-1)
        zero = torch.zeros_like(positions[..., :1, :])
        change = torch.diff(angle, dim=-1, prepend=angle[..., :1])
        rotations = torch.cat([(turn @ root)[..., None, :, :], motion.rotations[..., 1:, :, :]], dim=-3)
        return torch.cat(
            [
                torch.cat([zero[..., :2], step[..., [0, 2]]], dim=-2),
                _rows(yaw_matrix(change)),
                positions,
                torch.cat([zero, positions.diff(dim=-2)], dim=-2),
                _rows(rotations).flatten(-2),
            ],
            dim=-1,
        )

    def decode(self, features: Float[Tensor, "*B T 272"]) -> Motion:
        """Motion of raw features: heading and root path are integrated.

        Of a heading change only the turn about y is taken; what a network adds to it besides would tilt the world from
        there on.
        """
        s = self.slices
        angle = -heading(_from_rows(features[..., s["heading_change"]])).cumsum(-1)
        back = yaw_matrix(angle)
        before = yaw_matrix(torch.cat([torch.zeros_like(angle[..., :1]), angle[..., :-1]], dim=-1))
        x, z = features[..., s["root_velocity"]].unbind(-1)
        step = (before @ torch.stack([x, torch.zeros_like(x), z], dim=-1)[..., None]).squeeze(-1)
        positions = features[..., s["positions"]].unflatten(-1, (22, 3))
        joints = positions @ back.transpose(-1, -2) + step.cumsum(-2)[..., None, :]
        local = _from_rows(features[..., s["rotations"]].unflatten(-1, (22, 6)))
        rotations = torch.cat([(back @ local[..., 0, :, :])[..., None, :, :], local[..., 1:, :, :]], dim=-3)
        return Motion(joints, self.fps, self.skeleton, rotations)


def _rows(matrix: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 6"]:
    """First two rows of the matrix, one after the other."""
    return matrix[..., :2, :].flatten(-2)


def _from_rows(r: Float[Tensor, "*N 6"]) -> Float[Tensor, "*N 3 3"]:
    """Inverse of `_rows`, by Gram-Schmidt."""
    return rotation_6d_to_matrix(r).transpose(-1, -2)
