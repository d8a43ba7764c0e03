"""HumanML3D's 263 features (Guo et al., CVPR 2022), bit-close to the published vectors; ``fixed`` repairs their quirks.

Row t describes frames t and t+1 of a clip, so T+1 joint frames give T rows: yaw velocity (half the angle), root step,
root height, positions, 6-D rotations, velocities (all in the facing frame of t), foot contacts. The facing direction
is smoothed over ±80 frames and set to the identity in frame 0. Published vectors, which every published checkpoint
expects, compute it with swapped hips, take the arcsine of a quaternion that changes sign where the body faces -z, and
start the arms' rotations at the root instead of the upper spine.

Inside, joints are rows "J 3 B T": every step is a few operations on contiguous rows, and no loop follows a chain.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.rows import (
    TINY,
    across_body,
    ancestors,
    bones_of,
    columns_of,
    forward_of,
    lengths_of,
    place,
    products_with,
    set_lengths,
    smooth,
    square_of,
    stand_at_origin,
    to_rows,
    turn_ahead,
    turned,
)
from lmm.motion.skeleton import HUMANML3D_22

CLIPS_AT_ONCE = 16  # few enough for a core's cache, enough to make each operation worth its call


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
    reference: ClassVar[tuple[str, ...]] = (
        *("", "+x", "-x", "+y", "-y", "-y", "+y", "-y", "-y", "+y", "+z", "+z", "+y", "+x", "-x", "+z"),
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
    _jumps: Tensor
    _pick: Tensor
    _sign: Tensor
    _half_turn: Tensor

    def __init__(self, uniform_skeleton: bool = True, fixed: bool = False) -> None:
        super().__init__()
        self.uniform_skeleton = uniform_skeleton
        self.fixed = fixed
        parents = self.skeleton.parents[1:]
        above = [0 if joint in self.arms and not fixed else parent for joint, parent in enumerate(parents, start=1)]
        pick, sign, half_turn = products_with(self.reference[1:])
        constants = {"parents": torch.tensor(parents), "above": torch.tensor(above), "soles": torch.tensor(self.feet)}
        constants |= {"target": self.skeleton.rest.norm(dim=-1) * abs(self.units[1]), "jumps": ancestors(self.skeleton)}
        constants |= {"pick": pick, "sign": sign, "half_turn": half_turn}
        for name, constant in constants.items():
            self.register_buffer(f"_{name}", constant, persistent=False)

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
            mine += [s["contacts"] + i for i, foot in enumerate(self.feet) if foot in joints]
            columns[part] = mine
        return columns

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
        if self.uniform_skeleton:
            root, bones = set_lengths(rows[0], bones, lengths, self._target.to(rows), self.legs)
            rows = place(root, bones, self._jumps)
        ahead = turn_ahead(rows, self.face)
        rows = stand_at_origin(rows, *ahead)
        x, y, z = bones[..., :-1].unbind(1)  # turned as they are: differences of positions would be less exact
        x, z = turned(x, z, *ahead)
        bones = torch.stack([x, y, z], dim=1)

        angle = self._facing(rows)
        cos, sin = angle.cos(), angle.sin()
        now, after = (cos[:, :-1], sin[:, :-1]), (cos[:, 1:], sin[:, 1:])
        half = (angle[:, 1:] - angle[:, :-1]) / 2
        if self.fixed:
            turn = half - math.pi * (half / math.pi).round()
        else:
            turn = 2 * half.clamp(-math.pi / 2, math.pi / 2) - half  # arcsin(sin(half)), as it folds

        first = rows[..., :-1]
        velocity = rows[..., 1:] - first
        local = first[1:] - first[:1] * rows.new_tensor([1.0, 0.0, 1.0])[:, None, None]
        ahead_x, ahead_z = turned(velocity[0, 0], velocity[0, 2], *after)
        x, y, z = torch.cat([local, velocity]).unbind(1)
        x, z = turned(x, z, *now)
        positions, velocities = torch.stack([x, y, z], dim=1).split([len(local), len(velocity)])
        still = square_of(velocity.index_select(0, self._soles.to(rows.device)), 1) < self.contact_threshold
        blocks = [
            torch.stack([turn, ahead_x, ahead_z, first[0, 1]]),
            positions,
            self._rotations(bones, angle[:, :-1] / 2),
            velocities,
            still.to(rows),
        ]
        features = torch.cat([block.reshape(-1, turn.numel()).t() for block in blocks], dim=1)
        return features.view(*turn.shape, self.dim)

    def _facing(self, rows: Float[Tensor, "J 3 B T"]) -> Float[Tensor, "B T"]:
        """Angle about y that turns each frame's smoothed facing direction to +z; 0 in frame 0."""
        x, z = smooth(forward_of(across_body(rows, self.face, swapped=not self.fixed))).unbind(0)
        angle = torch.atan2(-x, z + TINY)  # where there is no direction at all: +z, with a gradient
        return torch.cat([torch.zeros_like(angle[:, :1]), angle[:, 1:]], dim=1)

    def _rotations(self, bones: Float[Tensor, "j 3 B T"], half: Float[Tensor, "B T"]) -> Float[Tensor, "j 6 B T"]:
        """Local rotations of joints 1 on: conj(joint above) · (reference bone -> bone), first two matrix columns."""
        products = bones.flatten(0, 1).index_select(0, self._pick.to(bones.device)) * self._sign.to(bones)
        products = products.view(-1, 4, *half.shape)
        dot, square = products[:, 0], square_of(products[:, 1:], 1)  # u·v and |u×v|²
        length = torch.addcmul(square, dot, dot).sqrt()
        # w is length + dot; where that cancels (opposite directions) it is the equal square / (length - dot)
        both = length + dot.abs()
        w = torch.lerp(square / both, both, dot.sign() / 2 + 0.5)
        arc = torch.cat([w[:, None], products[:, 1:] + self._half_turn.to(bones)], dim=1)
        norm = torch.addcmul(square, w, w) + TINY**2
        # Each factor is scaled by 2^¼, so that their product is √2 times a unit quaternion, as `columns_of` wants it.
        world = arc * (norm * 0.5**0.5).rsqrt()[:, None]
        zero = torch.zeros_like(half)
        root = torch.stack([half.cos(), zero, half.sin(), zero]) * 2**0.25
        above = torch.cat([root[None], world]).index_select(0, self._above.to(bones.device))
        return columns_of(above, world)

    def decode(self, features: Float[Tensor, "*B T D"]) -> Motion:
        """Motion of raw features."""
        return Motion(self.to_joints(features), self.fps, self.skeleton)

    def to_joints(self, features: Float[Tensor, "*B T D"]) -> Float[Tensor, "*B T J 3"]:
        """Joint positions in metres: the root path is integrated, positions are turned back (``recover_from_ric``)."""
        *batch, frames, width = *features.shape[:-1], self.slices["positions"].stop
        rows = features[..., :width].reshape(-1, width).t().contiguous().view(width, -1, frames)
        turn, ahead_x, ahead_z, height = rows[:4].unbind(0)
        angle = -2 * _sum_before(turn)  # facing frame -> world
        cos, sin = angle.cos(), angle.sin()
        delayed = [torch.nn.functional.pad(step[..., :-1], (1, 0)) for step in (ahead_x, ahead_z)]
        root_x, root_z = (step.cumsum(-1) for step in turned(delayed[0], delayed[1], cos, sin))
        x, y, z = rows[4:].unflatten(0, (-1, 3)).unbind(1)
        x, z = turned(x, z, cos, sin)
        root, others = torch.stack([root_x, height, root_z]), torch.stack([x + root_x, y, z + root_z], dim=1)
        joints = torch.cat([root.flatten(1).t(), others.flatten(2).flatten(0, 1).t()], dim=1)
        joints = joints.view(*batch, frames, -1, 3)
        return joints if self.units == (1.0, 1.0, 1.0) else joints / joints.new_tensor(self.units)


def retarget(joints: Float[Tensor, "*B T 22 3"], target: Float[Tensor, "22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Give a body the bone lengths of ``target``: directions stay, the root path scales with the leg length."""
    rows = to_rows(joints.reshape(-1, *joints.shape[-3:]))
    bones = bones_of(rows, torch.tensor(HUMANML3D_22.parents[1:]))
    length = target.to(rows).norm(dim=-1)
    root, bones = set_lengths(rows[0], bones, lengths_of(bones), length, HumanML3DFeatures.legs)
    return place(root, bones, ancestors(HUMANML3D_22)).permute(2, 3, 0, 1).reshape(joints.shape)


def canonicalize(joints: Float[Tensor, "*B T 22 3"]) -> Float[Tensor, "*B T 22 3"]:
    """Lowest point at height 0; in frame 0 the root stands above the origin and the body faces +z."""
    rows = to_rows(joints.reshape(-1, *joints.shape[-3:]))
    rows = stand_at_origin(rows, *turn_ahead(rows, HumanML3DFeatures.face))
    return rows.permute(2, 3, 0, 1).reshape(joints.shape)


def _sum_before(x: Float[Tensor, "*B T"]) -> Float[Tensor, "*B T"]:
    """Cumulative sum that begins with 0."""
    return torch.nn.functional.pad(x[..., :-1], (1, 0)).cumsum(-1)
