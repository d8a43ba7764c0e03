"""HumanML3D's 263 features (Guo et al., CVPR 2022), bit-close to the published vectors, quirks kept.

Row t describes frames t and t+1 of a clip, so T+1 joint frames give T rows. Kept on purpose, because every published
checkpoint expects them: the yaw velocity is a half angle; the facing direction that the rotations and velocities refer
to is computed with swapped hips and smoothed over ±80 frames, and set to the identity in frame 0; both arm chains start
from the root's rotation instead of the upper spine's. The 6-D rotations are therefore not SMPL pose. Decoding uses root
and positions only. The arcsin folds when a body spins by more than a quarter turn between frames.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.rotations import (
    matrix_to_rotation_6d,
    quaternion_between,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_rotate,
    quaternion_to_matrix,
)
from lmm.motion.skeleton import HUMANML3D_22

FEET = (7, 10, 8, 11)  # left ankle, left foot, right ankle, right foot: the order of the contact features
CONTACT_THRESHOLD = 0.002  # squared displacement between frames, m²
# Direction of each bone in HumanML3D's reference pose: arms along -y (hanging), feet and head along +z.
_REFERENCE = torch.tensor(
    [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0]]
    + [[0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1]]
    + [[0, -1, 0]] * 6,
    dtype=torch.float32,
)
_UP = torch.tensor([0.0, 1.0, 0.0])
_AHEAD = torch.tensor([0.0, 0.0, 1.0])


class HumanML3DFeatures(MotionRepresentation):
    """Joints "*B T+1 22 3" <-> features "*B T 263".

    Args:
        uniform_skeleton: retarget to one body first, as HumanML3D does (bone directions kept, lengths from
            `HUMANML3D_22`, the root path scaled by leg length). Leave it off for joints that already share one body,
            such as HumanML3D's own ``new_joints``.
    """

    skeleton = HUMANML3D_22
    fps = 20.0
    blocks: ClassVar[dict[str, int]] = {
        "root_yaw_velocity": 1,
        "root_velocity": 2,
        "root_height": 1,
        "positions": 63,
        "rotations": 126,
        "velocities": 66,
        "contacts": 4,
    }

    def __init__(self, uniform_skeleton: bool = True) -> None:
        super().__init__()
        self.uniform_skeleton = uniform_skeleton

    @property
    def parts(self) -> dict[str, list[int]]:
        """The five limbs of the skeleton; root features belong to the torso, contacts to their leg."""
        s = {name: block.start for name, block in self.slices.items()}
        columns = {}
        for part, joints in self.skeleton.parts.items():
            mine = [0, 1, 2, 3] if 0 in joints else []
            mine += [s["positions"] + 3 * (j - 1) + i for j in joints if j for i in range(3)]
            mine += [s["rotations"] + 6 * (j - 1) + i for j in joints if j for i in range(6)]
            mine += [s["velocities"] + 3 * j + i for j in joints for i in range(3)]
            mine += [s["contacts"] + i for i, foot in enumerate(FEET) if foot in joints]
            columns[part] = mine
        return columns

    def encode(self, motion: Motion) -> Float[Tensor, "*B T 263"]:
        """Features of a motion; one row fewer than frames.

        Raises:
            ValueError: another skeleton or frame rate, fewer than two frames, or a bone without length.
        """
        self.check(motion)
        if motion.num_frames < 2:
            raise ValueError("a motion needs at least 2 frames to have velocities")
        joints = motion.joints
        bones = joints[..., 1:, :] - joints[..., torch.tensor(self.skeleton.parents[1:]), :]
        if (flat := (bones.abs().amax(dim=(-1)) == 0).flatten(0, -2).any(0)).any():
            names = [name for name, empty in zip(self.skeleton.names[1:], flat.tolist(), strict=True) if empty]
            raise ValueError(f"bones without length in some frame, so without direction: {', '.join(names[:4])}")
        if self.uniform_skeleton:
            joints = retarget(joints, self.skeleton.rest)
        joints = canonicalize(joints)
        velocity = joints[..., 1:, :, :] - joints[..., :-1, :, :]
        contacts = (velocity[..., FEET, :].square().sum(-1) < CONTACT_THRESHOLD).to(joints)

        across = joints[..., 1, :] - joints[..., 2, :] + joints[..., 17, :] - joints[..., 16, :]  # hips swapped
        facing = quaternion_between(_smooth(_forward(across)), _AHEAD.to(joints))
        identity = facing.new_tensor([1.0, 0.0, 0.0, 0.0]).expand_as(facing[..., :1, :])
        facing = torch.cat([identity, facing[..., 1:, :]], dim=-2)

        now, after = facing[..., :-1, :], facing[..., 1:, :]
        turn = quaternion_multiply(after, quaternion_conjugate(now))
        root_velocity = quaternion_rotate(after, velocity[..., 0, :])
        local = joints[..., :-1, :, :] - joints[..., :-1, :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
        return torch.cat(
            [
                turn[..., 2:3].clamp(-1, 1).asin(),
                root_velocity[..., [0, 2]],
                joints[..., :-1, 0, 1:2],
                quaternion_rotate(now[..., None, :], local[..., 1:, :]).flatten(-2),
                self._rotations(joints[..., :-1, :, :], now).flatten(-2),
                quaternion_rotate(now[..., None, :], velocity).flatten(-2),
                contacts,
            ],
            dim=-1,
        )

    def _rotations(
        self, joints: Float[Tensor, "*B T 22 3"], root: Float[Tensor, "*B T 4"]
    ) -> Float[Tensor, "*B T 21 6"]:
        """Local rotations of joints 1-21: conj(parent) · (reference bone -> bone), no chain loop."""
        parents = torch.tensor(self.skeleton.parents[1:])
        bones = joints[..., 1:, :] - joints[..., parents, :]
        world = quaternion_between(_REFERENCE[1:].to(bones), bones / bones.norm(dim=-1, keepdim=True))
        from_root = torch.tensor([p == 0 or j in (13, 14) for j, p in enumerate(self.skeleton.parents[1:], start=1)])
        above = world[..., (parents - 1).clamp_min(0), :]
        above = torch.where(from_root[:, None].to(bones.device), root[..., None, :], above)
        return matrix_to_rotation_6d(quaternion_to_matrix(quaternion_multiply(quaternion_conjugate(above), world)))

    def decode(self, features: Float[Tensor, "*B T 263"]) -> Motion:
        """Motion of raw features: the root path is integrated, positions are turned back (``recover_from_ric``)."""
        s = self.slices
        angle = features[..., s["root_yaw_velocity"]].squeeze(-1).cumsum(-1)
        angle = torch.cat([torch.zeros_like(angle[..., :1]), angle[..., :-1]], dim=-1)
        zero = torch.zeros_like(angle)
        back = torch.stack([angle.cos(), zero, -angle.sin(), zero], dim=-1)  # facing frame -> world
        step = features[..., s["root_velocity"]]
        step = torch.stack([step[..., 0], zero, step[..., 1]], dim=-1)
        step = torch.cat([torch.zeros_like(step[..., :1, :]), step[..., :-1, :]], dim=-2)
        path = quaternion_rotate(back, step).cumsum(-2)
        root = torch.stack([path[..., 0], features[..., s["root_height"]].squeeze(-1), path[..., 2]], dim=-1)
        local = features[..., s["positions"]].unflatten(-1, (21, 3))
        ground = path * path.new_tensor([1.0, 0.0, 1.0])
        others = quaternion_rotate(back[..., None, :], local) + ground[..., None, :]
        return Motion(torch.cat([root[..., None, :], others], dim=-2), self.fps, self.skeleton)


def retarget(joints: Float[Tensor, "*B T 22 3"], target: Float[Tensor, "22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Give a body the bone lengths of ``target``: directions stay, the root path scales with the leg length."""
    parents = torch.tensor(HUMANML3D_22.parents[1:])
    bones = joints[..., 1:, :] - joints[..., parents, :]
    length = target.to(joints)[1:].norm(dim=-1)
    legs = (5, 8)  # HumanML3D measures the right leg
    source = bones[..., 0, :, :].norm(dim=-1)
    scale = sum(length[j - 1] for j in legs) / sum(source[..., j - 1] for j in legs)
    bones = bones / bones.norm(dim=-1, keepdim=True) * length[:, None]
    out = [joints[..., 0, :] * scale[..., None, None]]
    for joint, parent in enumerate(HUMANML3D_22.parents[1:], start=1):
        out.append(out[parent] + bones[..., joint - 1, :])
    return torch.stack(out, dim=-2)


def canonicalize(joints: Float[Tensor, "*B T 22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Lowest point at height 0; in frame 0 the root stands above the origin and the body faces +z."""
    floor = joints[..., 1].amin(dim=(-1, -2))
    root = joints[..., 0, 0, :]
    origin = torch.stack([root[..., 0], floor, root[..., 2]], dim=-1)
    joints = joints - origin[..., None, None, :]
    first = joints[..., 0, :, :]
    across = first[..., 2, :] - first[..., 1, :] + first[..., 17, :] - first[..., 16, :]
    facing = quaternion_between(_forward(across), _AHEAD.to(joints))
    return quaternion_rotate(facing[..., None, None, :], joints)


def _forward(across: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Horizontal forward direction of a body whose left-to-right axis is ``across``; shorter when it leans."""
    across = across / across.norm(dim=-1, keepdim=True)
    return torch.linalg.cross(_UP.to(across).expand_as(across), across)


def _smooth(forward: Float[Tensor, "*B T 3"], sigma: float = 20.0, radius: int = 80) -> Float[Tensor, "*B T 3"]:
    """Gaussian filter along time with repeated ends."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(forward)
    x = forward.movedim(-2, -1)
    x = torch.cat([x[..., :1].expand(*x.shape[:-1], radius), x, x[..., -1:].expand(*x.shape[:-1], radius)], dim=-1)
    x = torch.nn.functional.conv1d(x.reshape(-1, 1, x.shape[-1]), kernel[None, None]).view(
        forward.movedim(-2, -1).shape
    )
    return x.movedim(-1, -2)
