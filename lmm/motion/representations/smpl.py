"""SMPL's own rotations as features: D130, D135, D263 and D268 of arXiv 2410.03311 ("MotionBook", table 7).

All hold the local rotations of the 21 body joints as they are in `Motion.rotations` (6-D, two columns), where
HumanML3D's 263 features hold rotations solved from positions. T frames "*B T 22 3" give T rows "*B T D".

Placing: the clip's lowest joint stands at height 0; in frame 0 the root is above the origin and heads along +z. The
heading is the turn about y that is nearest to the root's rotation; it stays defined when the body bends over or lies
down, and is undefined (taken as 0) only for a root turned exactly head down.
Velocities lead from frame t to t+1, in metres per frame, as HumanML3D's do. The last row repeats the one before it;
decoding does not read it. The paper does not say in which frame D135's velocity is: here it is the placed world, like
the root's rotation, so that integrating it cannot drift, whatever the root does.
Decoding poses the body of `HUMANML3D_22` by the rotations along the root's path: another body's shape does not come
back. Encoding therefore gives every clip this body first, unless told not to.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.kinematics import fit_rotations as fit
from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import put_on_floor, rotate, to_uniform_skeleton

_FEET = (7, 10, 8, 11)  # left ankle, left foot, right ankle, right foot: HumanML3D's order of the contacts
_CONTACT_SPEED = 20 * 0.002**0.5  # m/s; HumanML3D's 0.002 m² between frames at 20 fps
_BODY = {"rotations": 126}
_AS_HUMANML3D = {"positions": 63, "velocities": 66, "contacts": 4}
_OWNERS: dict[str, Sequence[int]] = {
    "rotations": range(1, 22),
    "positions": range(1, 22),
    "velocities": range(22),
    "contacts": _FEET,
}


class SMPLFeatures(MotionRepresentation):
    """What the four layouts share: the body's rotations; subclasses write the root.

    Args:
        fps: frames per second of the motions; the paper does not name its own.
        fit_rotations: estimate the rotations of motions that have positions only (see `kinematics.fit_rotations` for
            how near these come to SMPL's). Left off, such motions are refused.
        uniform_skeleton: pose the body that decoding poses and scale the root's path by leg length (see
            `to_uniform_skeleton`). Left off, heights, path and positions are the motion's own, and feet of longer or
            shorter legs float, sink and slide when they are decoded.
    """

    skeleton = HUMANML3D_22
    fps: float  # of the object here: rotations have no frame rate of their own

    def __init__(self, fps: float = 20.0, *, fit_rotations: bool = False, uniform_skeleton: bool = True) -> None:
        super().__init__()
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps must be positive, got {fps}")
        self.fps = float(fps)
        self.fit_rotations = fit_rotations
        self.uniform_skeleton = uniform_skeleton

    @property
    def owners(self) -> dict[str, Sequence[int]]:
        """The joints of each block."""
        return _OWNERS

    def encode(self, motion: Motion) -> Float[Tensor, "*B T D"]:
        """Features of a motion, one row per frame.

        Raises:
            ValueError: another skeleton or frame rate, fewer than two frames, or no rotations.
        """
        self.check(motion)
        if motion.num_frames < 2:
            raise ValueError("a motion needs at least 2 frames to have velocities")
        motion = with_rotations(motion, type(self).__name__, fit_missing=self.fit_rotations)
        motion = _place(to_uniform_skeleton(motion) if self.uniform_skeleton else motion)
        assert motion.rotations is not None
        root, joints = motion.rotations[..., 0, :, :], motion.joints
        blocks = [self._encode_root(root, joints[..., 0, :])]
        blocks.append(matrix_to_rotation_6d(motion.rotations[..., 1:, :, :]).flatten(-2))
        if "positions" in self.blocks:
            blocks.append(_as_humanml3d(joints, heading(root), self.fps))
        return torch.cat(blocks, dim=-1)

    def decode(self, features: Float[Tensor, "*B T D"]) -> Motion:
        """Motion of raw features: rotations, and joints by forward kinematics."""
        root, path = self._decode_root(features)
        body = rotation_6d_to_matrix(features[..., self.slices["rotations"]].unflatten(-1, (21, 6)))
        rotations = torch.cat([root[..., None, :, :], body], dim=-3)
        joints = self.skeleton.forward_kinematics(rotations, path)
        return Motion(joints, self.fps, self.skeleton, rotations)

    @abstractmethod
    def _encode_root(self, root: Float[Tensor, "*B T 3 3"], path: Float[Tensor, "*B T 3"]) -> Float[Tensor, "*B T R"]:
        """The root's features from its rotation and position."""

    @abstractmethod
    def _decode_root(
        self, features: Float[Tensor, "*B T D"]
    ) -> tuple[Float[Tensor, "*B T 3 3"], Float[Tensor, "*B T 3"]]:
        """The root's rotation and position."""


class SMPLD135(SMPLFeatures):
    """Root rotation 6, xz velocity 2, height 1 (all in the placed world), then 21 x 6 local rotations.

    20 fps unless told otherwise; the 22 joints of `HUMANML3D_22`; five limbs. Rotations and root path come back
    exactly (the path in the uniform body's scale). Lost: the body's shape, the clip's place and direction.
    """

    blocks: ClassVar[dict[str, int]] = {"root_rotation": 6, "root_velocity": 2, "root_height": 1, **_BODY}

    def _encode_root(self, root: Float[Tensor, "*B T 3 3"], path: Float[Tensor, "*B T 3"]) -> Float[Tensor, "*B T 9"]:
        return torch.cat([matrix_to_rotation_6d(root), _steps(path[..., [0, 2]]), path[..., 1:2]], dim=-1)

    def _decode_root(
        self, features: Float[Tensor, "*B T D"]
    ) -> tuple[Float[Tensor, "*B T 3 3"], Float[Tensor, "*B T 3"]]:
        s = self.slices
        ground = _integrate(features[..., s["root_velocity"]])
        path = torch.cat([ground[..., :1], features[..., s["root_height"]], ground[..., 1:]], dim=-1)
        return rotation_6d_to_matrix(features[..., s["root_rotation"]]), path


class SMPLD130(SMPLFeatures):
    """Root as HumanML3D's (yaw velocity 1, xz velocity 2 in the heading frame, height 1), then 21 x 6 local rotations.

    20 fps unless told otherwise; the 22 joints of `HUMANML3D_22`; five limbs. The yaw velocity is the whole turn in
    radians per frame (HumanML3D stores half of it, negative, and folds fast spins). The body's 21 rotations, the root
    path and the heading come back exactly. Lost: *pitch and roll of the root*. Decoding takes it as upright, so a body
    that lies or bends over comes back standing; use D135 where that matters. Lost too: what D135 loses.
    """

    blocks: ClassVar[dict[str, int]] = {"root_yaw_velocity": 1, "root_velocity": 2, "root_height": 1, **_BODY}

    def _encode_root(self, root: Float[Tensor, "*B T 3 3"], path: Float[Tensor, "*B T 3"]) -> Float[Tensor, "*B T 4"]:
        yaw = heading(root)[..., None]
        turn = _steps(yaw)
        turn = torch.atan2(turn.sin(), turn.cos())  # the short way round
        step = (yaw_matrix(-yaw.squeeze(-1)) @ _steps(path)[..., None]).squeeze(-1)
        return torch.cat([turn, step[..., [0, 2]], path[..., 1:2]], dim=-1)

    def _decode_root(
        self, features: Float[Tensor, "*B T D"]
    ) -> tuple[Float[Tensor, "*B T 3 3"], Float[Tensor, "*B T 3"]]:
        s = self.slices
        turned = yaw_matrix(_integrate(features[..., s["root_yaw_velocity"]]).squeeze(-1))
        x, z = features[..., s["root_velocity"]].unbind(-1)
        step = (turned @ torch.stack([x, torch.zeros_like(x), z], dim=-1)[..., None]).squeeze(-1)
        ground = _integrate(step)
        path = torch.cat([ground[..., :1], features[..., s["root_height"]], ground[..., 2:]], dim=-1)
        return turned, path


class SMPLD268(SMPLD135):
    """D135, then HumanML3D's 63 local positions, 66 velocities and 4 contacts in the frame of the root's heading.

    20 fps unless told otherwise; the 22 joints of `HUMANML3D_22`; five limbs. Positions are seen from the root's ground
    point; contacts are feet slower than 0.9 m/s. Gives back and loses what D135 does: decoding does not read the rest.
    """

    blocks: ClassVar[dict[str, int]] = {**SMPLD135.blocks, **_AS_HUMANML3D}


class SMPLD263(SMPLD130):
    """D130, then HumanML3D's 63 local positions, 66 velocities and 4 contacts in the frame of the root's heading.

    20 fps unless told otherwise; the 22 joints of `HUMANML3D_22`; five limbs. Unlike D130 it keeps the root's pitch and
    roll: decoding takes them from the positions of hips and spine1, the only positions it reads. That is exact unless
    ``uniform_skeleton`` is off and the body another (some degrees). Lost: what D135 loses.
    """

    blocks: ClassVar[dict[str, int]] = {**SMPLD130.blocks, **_AS_HUMANML3D}

    def _decode_root(
        self, features: Float[Tensor, "*B T D"]
    ) -> tuple[Float[Tensor, "*B T 3 3"], Float[Tensor, "*B T 3"]]:
        turned, path = super()._decode_root(features)
        local = features[..., self.slices["positions"]].unflatten(-1, (21, 3))
        rest = _pelvis(self.skeleton.rest[1:].to(features))
        return turned @ _pelvis(local) @ rest.transpose(-1, -2), path


def with_rotations(motion: Motion, representation: str, *, fit_missing: bool) -> Motion:
    """The motion with rotations: its own, or fitted ones where it has none and that is allowed.

    Args:
        motion: positions, perhaps rotations, of the 22 joints.
        representation: who asks, for the message.
        fit_missing: whether rotations may be estimated from positions, on the T-pose of `HUMANML3D_22`.

    Raises:
        ValueError: no rotations, or NaN in them.
    """
    if motion.rotations is None and not fit_missing:
        raise ValueError(
            f"{representation} holds SMPL's local rotations and this motion has positions only (a mapped .bvh or "
            ".amc has, too); read it from SMPL parameters or an .npz with rotations, or give fit_rotations=True to "
            "have them estimated (lmm convert --fit-rotations, lmm data import --fit_rotations, or fit_rotations: true "
            "among the representation's arguments in a config)"
        )
    if motion.rotations is None:
        return replace(motion, rotations=fit(motion.joints, HUMANML3D_22)[0])
    if not torch.isfinite(motion.rotations).all():
        raise ValueError(f"{representation}: rotations contain NaN or Inf; repair the clip or leave it out")
    return motion


def heading(rotation: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N"]:
    """Angle about y, in (-π, π], of the yaw nearest to a rotation; positive turns +z to +x."""
    return torch.atan2(rotation[..., 0, 2] - rotation[..., 2, 0], rotation[..., 0, 0] + rotation[..., 2, 2])


def yaw_matrix(angle: Float[Tensor, "*N"]) -> Float[Tensor, "*N 3 3"]:
    """Turn about y by an angle."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=-1).unflatten(-1, (3, 3))


def _place(motion: Motion) -> Motion:
    """Floor at 0; in frame 0 the root above the origin, heading +z."""
    assert motion.rotations is not None
    back = yaw_matrix(-heading(motion.rotations[..., 0, 0, :, :]))
    motion = put_on_floor(motion)
    origin = motion.joints[..., :1, :1, :] * motion.joints.new_tensor([1.0, 0.0, 1.0])
    return rotate(replace(motion, joints=motion.joints - origin), back)


def _steps(x: Float[Tensor, "*B T C"]) -> Float[Tensor, "*B T C"]:
    """Difference to the next frame; the last one is repeated."""
    step = x.diff(dim=-2)
    return torch.cat([step, step[..., -1:, :]], dim=-2)


def _integrate(step: Float[Tensor, "*B T C"]) -> Float[Tensor, "*B T C"]:
    """Inverse of `_steps`, from 0."""
    return torch.cat([torch.zeros_like(step[..., :1, :]), step[..., :-1, :]], dim=-2).cumsum(-2)


def _as_humanml3d(
    joints: Float[Tensor, "*B T 22 3"], yaw: Float[Tensor, "*B T"], fps: float
) -> Float[Tensor, "*B T 133"]:
    """Local positions of joints 1-21, velocities of all and contacts, in the heading frame."""
    velocity = _steps(joints.flatten(-2)).unflatten(-1, (22, 3))
    local = joints[..., 1:, :] - joints[..., :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
    contacts = (velocity[..., _FEET, :].square().sum(-1) < (_CONTACT_SPEED / fps) ** 2).to(joints)
    turned = torch.cat([local, velocity], dim=-2) @ yaw_matrix(yaw)  # rows: the inverse turn
    return torch.cat([turned.flatten(-2), contacts], dim=-1)


def _pelvis(joints: Float[Tensor, "*N 21 3"]) -> Float[Tensor, "*N 3 3"]:
    """Axes of the pelvis from joints 1-21, of which the first three are the hips and spine1."""
    left, right, spine = joints[..., :3, :].unbind(-2)
    return rotation_6d_to_matrix(torch.cat([left - right, spine - (left + right) / 2], dim=-1))
