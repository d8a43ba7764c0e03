"""HumanML3D's 263 features (Guo et al., CVPR 2022), bit-close to the published vectors; ``fixed`` repairs their quirks.

Row t describes frames t and t+1 of a clip, so T+1 joint frames give T rows: yaw velocity (half the angle), root step,
root height, positions, 6-D rotations, velocities (all in the facing frame of t), foot contacts. The facing direction
is smoothed over ±80 frames and set to the identity in frame 0. Published vectors, which every published checkpoint
expects, compute it with swapped hips, take the arcsine of a quaternion that changes sign where the body faces -z, and
start the arms' rotations at the root instead of the upper spine.

Inside, joints are rows "J 3 B T": every step is a few operations on contiguous rows, and no loop follows a chain.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.rows import (
    TINY,
    across_body,
    bones_of,
    lengths_of,
    paths_of,
    place,
    set_lengths,
    smooth,
    square_of,
    stand_at_origin,
    swing,
    to_rows,
    turn_ahead,
    turned,
    wrapped,
)
from lmm.motion.skeleton import HUMANML3D_22

CLIPS_AT_ONCE = 8  # few enough for a core's cache, enough to make each operation worth its call


class HumanML3DFeatures(MotionRepresentation):
    """Joints "*B T+1 22 3" <-> features "*B T 263".

    What the layout loses, fixed or not: the last frame, where in the world the clip took place and which way it began,
    how bones twist about their own axis (rotations are those of bone directions, not SMPL's pose), and with
    ``uniform_skeleton`` the body. `decode` uses the root and the positions only.

    Args:
        uniform_skeleton: retarget to one body first, as HumanML3D does (bone directions kept, lengths from
            `HUMANML3D_22`, the root path scaled by leg length). Leave it off for joints that already share one body,
            such as HumanML3D's own ``new_joints``.
        fixed: hips the right way round, the turn between frames without the arcsine's fold, arms that start at the
            upper spine. Encoding and decoding are then exact inverses however fast a body spins; by default a turn
            past -z or of more than half a circle a frame comes back mirrored. Same layout, same decoding, but not
            the published features: train and compare within one of the two.
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
    # Direction of each bone in the reference pose, one of ±x ±y ±z: arms along -y (hanging), feet and head along +z.
    # That of the root is the body's facing direction.
    reference: ClassVar[tuple[str, ...]] = (
        *("+z", "+x", "-x", "+y", "-y", "-y", "+y", "-y", "-y", "+y", "+z", "+z", "+y", "+x", "-x", "+z"),
        *("-y",) * 6,
    )
    face: ClassVar[tuple[int, ...]] = (2, 1, 17, 16)  # right hip, left hip, right shoulder, left shoulder
    legs: ClassVar[tuple[int, int]] = (5, 8)  # the bones whose length scales the root path: HumanML3D's right leg
    arms: ClassVar[tuple[int, int]] = (13, 14)  # first joints of the arm chains
    feet: ClassVar[tuple[int, ...]] = (7, 10, 8, 11)  # left ankle, left foot, right ankle, right foot: as contacts
    contact_threshold: ClassVar[float] = 0.002  # squared displacement between frames, in the features' units
    units: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)  # what the features write for one metre of x, y, z

    _parents: Tensor
    _above: Tensor
    _soles: Tensor
    _target: Tensor
    _paths: Tensor
    _cells: Tensor
    _axis: Tensor
    _beside: Tensor
    _half_turn: Tensor
    _identity: Tensor
    _signs: Tensor

    def __init__(self, uniform_skeleton: bool = True, fixed: bool = False) -> None:
        super().__init__()
        self.uniform_skeleton = uniform_skeleton
        self.fixed = fixed
        parents = self.skeleton.parents[1:]
        above = [0 if joint in self.arms and not fixed else parent for joint, parent in enumerate(parents, start=1)]
        constants = {"parents": torch.tensor(parents), "above": torch.tensor(above), "soles": torch.tensor(self.feet)}
        constants["target"] = self.skeleton.rest.norm(dim=-1) * abs(self.units[1])
        constants["paths"], constants["cells"] = paths_of(self.skeleton)
        signs = torch.tensor([-1.0 if axis[0] == "-" else 1.0 for axis in self.reference])
        axis = signs[:, None] * torch.eye(3)[["xyz".index(axis[1]) for axis in self.reference]]
        beside = 1 - axis[1:].abs()
        constants |= {"axis": axis[1:, :, None, None], "beside": beside[..., None, None]}
        constants["half_turn"] = TINY * torch.eye(3)[beside.argmax(-1)][..., None, None]
        signs = 2 * axis.square() - 1  # of x, y, z in the half turn about the reference direction
        constants["identity"] = torch.eye(2, 3)[..., None, None]
        constants["signs"] = (signs[1:, :2, None] * signs[above][:, None])[..., None, None]
        for name, constant in constants.items():
            self.register_buffer(f"_{name}", constant, persistent=False)

    @property
    def owners(self) -> dict[str, Sequence[int]]:
        """The joints of each block; contacts belong to their foot."""
        everything = range(self.skeleton.num_joints)
        blocks = {"positions": everything[1:], "rotations": everything[1:], "velocities": everything}
        return {**blocks, "contacts": self.feet}

    def encode(self, motion: Motion) -> Float[Tensor, "*B _ D"]:
        """Features of a motion; one row fewer than frames.

        Raises:
            ValueError: another skeleton or frame rate, fewer than two frames, or a bone without length.
        """
        self.check(motion)
        joints = motion.joints
        features = self._encode(joints.reshape(-1, *joints.shape[-3:]))
        return features.reshape(*joints.shape[:-3], joints.shape[-3] - 1, self.dim)

    def encode_clips(self, motions: list[Motion]) -> list[Float[Tensor, "T D"]]:
        """Features of many clips "T 22 3" of any lengths, as `encode` gives them one by one, several times as fast.

        Clips of similar lengths are encoded together, each prolonged by its last frame. That changes no row: it is
        what the smoothing filter assumes beyond the end, and every other step looks at its own two frames.

        Raises:
            ValueError: as `encode`, or a batch among the motions.
        """
        for motion in motions:
            self.check(motion)
            if motion.joints.dim() != 3:
                raise ValueError(f"encode_clips needs clips (T, J, 3), got {tuple(motion.joints.shape)}: use encode")
        order = sorted(range(len(motions)), key=lambda i: motions[i].num_frames)
        features: dict[int, Tensor] = {}
        for start in range(0, len(order), CLIPS_AT_ONCE):
            together = order[start : start + CLIPS_AT_ONCE]
            lengths = [motions[i].num_frames for i in together]
            joints = [motions[i].joints for i in together]
            padded = [torch.cat([x, x[-1:].expand(lengths[-1] - len(x), -1, -1)]) for x in joints]
            for i, length, rows in zip(together, lengths, self._encode(torch.stack(padded)), strict=True):
                features[i] = rows[: length - 1].clone()  # a view would keep all the clips' memory
        return [features[i] for i in range(len(motions))]

    def check(self, motion: Motion) -> None:
        """Refuse a motion that these features are not defined for.

        Raises:
            ValueError: another skeleton or frame rate, or fewer than two frames.
        """
        super().check(motion)
        if motion.num_frames < 2:
            raise ValueError("a motion needs at least 2 frames to have velocities")

    def _encode(self, joints: Float[Tensor, "B T J 3"]) -> Float[Tensor, "B _ D"]:
        rows = to_rows(joints)
        if self.units != (1.0, 1.0, 1.0):
            rows = rows * rows.new_tensor(self.units)[:, None, None]
        bones = bones_of(rows, self._parents)
        lengths = lengths_of(bones)
        if not lengths.amin() > 0:
            flat = (lengths == 0).flatten(1).any(1).tolist()
            names = [name for name, empty in zip(self.skeleton.names[1:], flat, strict=True) if empty]
            raise ValueError(f"bones without length in some frame, so without direction: {', '.join(names[:4])}")
        root, directions = rows[0], bones / lengths[:, None]
        if self.uniform_skeleton:
            root, bones = set_lengths(root, directions, lengths, self._target.to(rows), self.legs)
            rows = place(root, bones, self._paths, self._cells)
        facing = self._facing(rows)
        angle = wrapped(facing - facing[:, :1])
        change = angle[:, 1:] - angle[:, :-1]
        if self.fixed:
            turn = wrapped(change) / 2
        else:
            turn = change.clamp(-math.pi, math.pi) - change / 2  # arcsin(sin(change / 2)), as it folds

        first = rows[..., :-1]
        velocity = rows[..., 1:] - first
        floor = rows[:, 1].amin(dim=(0, 2))[:, None].expand_as(turn)
        local = first - torch.stack([first[0, 0], floor, first[0, 2]])
        cos, sin = swing(facing)
        moved = turned(torch.cat([local, velocity]), cos[..., :-1], sin[..., :-1])
        root_x, _, root_z = turned(velocity[0], cos[..., 1:], sin[..., 1:]).unbind(0)
        still = square_of(velocity.index_select(0, self._soles.to(rows.device)), 1) < self.contact_threshold
        blocks = [
            torch.stack([turn, root_x, root_z, moved[0, 1]]),
            moved[1 : self.skeleton.num_joints],
            self._rotations(turned(directions[..., :-1], cos[..., :1], sin[..., :1]), angle[:, :-1] / 2),
            moved[self.skeleton.num_joints :],
            still.to(rows),
        ]
        frames = turn.numel()
        features = torch.cat([block.reshape(-1, frames).t() for block in blocks], dim=1)
        return features.view(*turn.shape, self.dim)

    def _facing(self, rows: Float[Tensor, "J 3 B T"]) -> Float[Tensor, "B T"]:
        """Angle about y that turns each frame's facing direction to +z: smoothed over time, but in frame 0 its own."""
        across, swapped = across_body(rows, self.face)
        each = across if self.fixed else swapped
        level = each[::2] * square_of(each, 0).clamp_min(1e-16).rsqrt()  # shorter when the body leans sideways
        return turn_ahead(torch.cat([across[::2, :, :1], smooth(level)[..., 1:]], dim=-1))

    def _rotations(self, directions: Float[Tensor, "j 3 B T"], half: Float[Tensor, "B T"]) -> Float[Tensor, "j 6 B T"]:
        """Local rotations of joints 1 on, first two matrix columns: of the joint above, undone, after the joint's own.

        The rotation that takes the reference u the shortest way to v is a half turn about u, then one about u + v. Half
        turns are pp' - I with |p|² = 2, and about an axis of the coordinate system they are signs.
        """
        axis = self._axis.to(half)
        beside = torch.addcmul(self._half_turn.to(half), directions, self._beside.to(half))
        dot, square = (directions * axis).sum(1, keepdim=True), (beside * beside).sum(1, keepdim=True)
        # Along u, u + v is 1 + dot; where that cancels (opposite directions) it is the equal square / (1 - dot).
        both = 1 + dot.abs()
        along = torch.where(dot < 0, square / both, both)
        own = torch.addcmul(beside, axis, along) * along.rsqrt()
        root = math.sqrt(2) * torch.stack([half.sin(), torch.zeros_like(half), half.cos()])
        above = torch.cat([root[None], own]).index_select(0, self._above.to(half.device))
        columns = (above * own).sum(1, keepdim=True) * own[:, :2] - above[:, :2]
        matrix = torch.addcmul(self._identity.to(half), columns[:, :, None], above[:, None])
        matrix = torch.addcmul(matrix, own[:, :2, None], own[:, None], value=-1)
        return (matrix * self._signs.to(half)).flatten(1, 2)

    def decode(self, features: Float[Tensor, "*B T D"]) -> Motion:
        """Motion of raw features."""
        return Motion(self.to_joints(features), self.fps, self.skeleton)

    def to_joints(self, features: Float[Tensor, "*B T D"]) -> Float[Tensor, "*B T J 3"]:
        """Joint positions in metres: the root path is integrated, positions are turned back (``recover_from_ric``)."""
        steps = torch.nn.functional.pad(features[..., :-1, :3], (0, 0, 1, 0))  # frame 0 is where the path begins
        turn, ahead_x, ahead_z = steps.unbind(-1)
        angle = -2 * turn.cumsum(-1)  # facing frame -> world
        cos, sin = angle.cos(), angle.sin()
        root_x = torch.addcmul(cos * ahead_x, sin, ahead_z).cumsum(-1)
        root_z = torch.addcmul(cos * ahead_z, sin, ahead_x, value=-1).cumsum(-1)
        cos, sin, root_x, root_z = cos[..., None], sin[..., None], root_x[..., None], root_z[..., None]

        _, _, height, positions, *_ = features.split(list(self.blocks.values()), dim=-1)
        local = torch.cat([torch.zeros_like(height), height, torch.zeros_like(height), positions], dim=-1)
        x, y, z = local.unflatten(-1, (-1, 3)).unbind(-1)
        world_x = torch.addcmul(torch.addcmul(root_x, cos, x), sin, z)
        world_z = torch.addcmul(torch.addcmul(root_z, cos, z), sin, x, value=-1)
        joints = torch.stack([world_x, y, world_z], dim=-1)
        return joints if self.units == (1.0, 1.0, 1.0) else joints / joints.new_tensor(self.units)


def retarget(joints: Float[Tensor, "*B T 22 3"], target: Float[Tensor, "22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Give a body the bone lengths of ``target``: directions stay, the root path scales with the leg length."""
    rows = to_rows(joints.reshape(-1, *joints.shape[-3:]))
    bones = bones_of(rows, torch.tensor(HUMANML3D_22.parents[1:]))
    length = target.to(rows).norm(dim=-1)
    lengths = lengths_of(bones)
    root, bones = set_lengths(rows[0], bones / lengths[:, None], lengths, length, HumanML3DFeatures.legs)
    return place(root, bones, *paths_of(HUMANML3D_22)).permute(2, 3, 0, 1).reshape(joints.shape)


def canonicalize(joints: Float[Tensor, "*B T 22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Lowest point at height 0; in frame 0 the root stands above the origin and the body faces +z."""
    rows = to_rows(joints.reshape(-1, *joints.shape[-3:]))
    across, _ = across_body(rows[..., :1], HumanML3DFeatures.face)
    return stand_at_origin(rows, turn_ahead(across)).permute(2, 3, 0, 1).reshape(joints.shape)
