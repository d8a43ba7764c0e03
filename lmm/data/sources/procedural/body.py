"""From controls (pelvis path, trunk angles, arm directions, toe targets) to the joints of `HUMANML3D_22`.

A motion is drawn by a few channels over time; `solve` turns them into positions. Trunk and arms are rotated bones;
legs hang between the pelvis and the toe targets by two-bone inverse kinematics, the knee being a hinge that can only
bend backwards. A leg too short for a planted toe lifts its heel, and where that is not enough the pelvis sinks.
Every joint is its parent plus a rotated rest offset, so bone lengths hold by construction.
Sides are indexed 0 = left, 1 = right; arm directions are (outward, up, forward) in the chest's frame.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lmm.data.sources.procedural.timing import Array, blur
from lmm.motion.skeleton import HUMANML3D_22

REST = np.array(HUMANML3D_22.offsets)
SIDE = np.array([1.0, -1.0])  # x of left and right
THIGH, SHIN = 0.39, 0.40
REACH = 0.996 * (THIGH + SHIN)  # a leg is never quite straight
STAND = 0.913  # pelvis height of relaxed standing
STANCE = 0.095  # toes' distance from the middle when standing
TOE_AHEAD = 0.105  # toes' distance before the pelvis when standing
TOE_OUT = 0.14  # outward angle of a standing foot
MAX_HEEL = 1.1  # how far a heel may lift by itself, radians


@dataclass
class Controls:
    """Channels of a motion over T frames; angles in radians, lengths in metres of the unscaled body.

    Args:
        root: pelvis position, "T 3".
        turn: pelvis yaw (to the left), pitch (forward), roll (to the right), "T 3".
        spine: pitch (forward), roll (to the right), twist (to the left), spread over three joints, "T 3".
        head: pitch (down), yaw (to the left), roll (to the right), relative to the chest, "T 3".
        upper: directions of the upper arms, "T 2 3"; need not be unit vectors.
        fore: directions of the forearms, "T 2 3".
        toe: positions of the toe joints, "T 2 3".
        foot: yaw, pitch (heel up) and outward turn of the knee, "T 2 3".
    """

    root: Array
    turn: Array
    spine: Array
    head: Array
    upper: Array
    fore: Array
    toe: Array
    foot: Array

    def __len__(self) -> int:
        return len(self.root)

    def hold(self, before: int = 0, after: int = 0) -> "Controls":
        """The same with its first frame repeated ``before`` and its last ``after`` times."""

        def extend(x: Array) -> Array:
            return np.concatenate([np.repeat(x[:1], before, 0), x, np.repeat(x[-1:], after, 0)])

        return Controls(*(extend(getattr(self, f.name)) for f in fields(self)))

    def resampled(self, num_frames: int) -> "Controls":
        """The same motion, faster or slower, in ``num_frames`` frames."""
        at = np.linspace(0, len(self) - 1, num_frames)
        low = np.minimum(at.astype(int), len(self) - 2)

        def sample(x: Array) -> Array:
            part = (at - low).reshape(-1, *[1] * (x.ndim - 1))
            return x[low] * (1 - part) + x[low + 1] * part

        return Controls(*(sample(getattr(self, f.name)) for f in fields(self)))

    def then(self, other: "Controls") -> "Controls":
        """This motion followed by another that starts where and how this one ends (both stand there)."""
        yaw = self.turn[-1, 0]
        rotation = rotate_y(yaw)
        shift = self.root[-1] * [1, 0, 1]
        moved = Controls(*(getattr(other, f.name).copy() for f in fields(other)))
        moved.root = other.root @ rotation.T + shift
        moved.toe = other.toe @ rotation.T + shift
        moved.turn[:, 0] += yaw
        moved.foot[..., 0] += yaw
        return Controls(*(np.concatenate([getattr(self, f.name), getattr(moved, f.name)[1:]]) for f in fields(self)))


def standing(num_frames: int) -> Controls:
    """Relaxed standing at the origin, facing +z."""
    root = np.tile([0.0, STAND, 0.0], (num_frames, 1))
    zeros = np.zeros((num_frames, 3))
    upper, fore = hang(np.zeros((num_frames, 2)), np.full((num_frames, 2), 0.25))
    toe = np.zeros((num_frames, 2, 3))
    toe[..., 0], toe[..., 2] = STANCE * SIDE, TOE_AHEAD
    foot = np.zeros((num_frames, 2, 3))
    foot[..., 0] = TOE_OUT * SIDE
    return Controls(root, zeros.copy(), zeros.copy(), zeros.copy(), upper, fore, toe, foot)


def hang(flex: Array, elbow: Array, abduct: float = 0.09) -> tuple[Array, Array]:
    """Arm directions of a hanging arm: swung forward by ``flex``, bent (forward) by ``elbow`` radians."""

    def direction(angle: Array, outward: float) -> Array:
        return np.stack([np.full_like(angle, outward), -np.cos(angle), np.sin(angle)], axis=-1)

    return direction(flex, np.tan(abduct)), direction(flex + np.maximum(elbow, 0.05), np.tan(abduct) * 0.3)


def reach(target: Array, pole: tuple[float, float, float]) -> tuple[Array, Array]:
    """Arm directions that bring a wrist to ``target`` "... 3" with the elbow towards ``pole``.

    Both are (outward, up, forward); the target is measured from the chest joint (spine3).
    """
    shoulder = REST[13] + REST[16]
    upper, lower = REST[18, 0], REST[20, 0]
    line = target - shoulder
    distance = np.linalg.norm(line, axis=-1, keepdims=True)
    axis = line / distance
    distance = np.clip(distance, 0.12, 0.995 * (upper + lower))
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    side = np.asarray(pole) - axis * (axis @ np.asarray(pole))[..., None]
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    elbow = axis * along + side * np.sqrt(np.maximum(upper**2 - along**2, 0))
    return elbow / upper, (axis * distance - elbow) / lower


def rotate_x(angle: ArrayLike) -> Array:
    """Rotation matrices "... 3 3" about x (y towards z)."""
    c, s, o = np.cos(angle), np.sin(angle), np.zeros(np.shape(angle))
    return _matrix([o + 1, o, o, o, c, -s, o, s, c])


def rotate_y(angle: ArrayLike) -> Array:
    """Rotation matrices "... 3 3" about y (z towards x)."""
    c, s, o = np.cos(angle), np.sin(angle), np.zeros(np.shape(angle))
    return _matrix([c, o, s, o, o + 1, o, -s, o, c])


def rotate_z(angle: ArrayLike) -> Array:
    """Rotation matrices "... 3 3" about z (x towards y)."""
    c, s, o = np.cos(angle), np.sin(angle), np.zeros(np.shape(angle))
    return _matrix([c, -s, o, s, c, o, o, o, o + 1])


def solve(controls: Controls, scale: float = 1.0) -> Array:
    """Joint positions "T 22 3" in metres: floor at 0, pelvis at x = z = 0 and facing +z in frame 0."""
    joints = np.zeros((len(controls), 22, 3))
    pelvis = rotate_y(controls.turn[:, 0]) @ rotate_x(controls.turn[:, 1]) @ rotate_z(controls.turn[:, 2])
    hips = np.stack([pelvis @ REST[1], pelvis @ REST[2]], axis=1)  # from the pelvis, "T 2 3"
    root = controls.root.copy()
    root[:, 1] -= _sink(root[:, None] + hips, controls)
    joints[:, 0], joints[:, 1:3] = root, root[:, None] + hips
    knee, ankle, toe = _legs(joints[:, 1:3], pelvis, controls)
    joints[:, 4:6], joints[:, 7:9], joints[:, 10:12] = knee, ankle, toe
    _trunk_and_arms(joints, pelvis, controls)
    return _canonical(joints) * scale


def _matrix(entries: list[Any]) -> Array:
    return np.stack(entries, axis=-1).reshape(*np.shape(entries[0]), 3, 3)


def _ankle(toe: Array, yaw: Array, pitch: Array) -> Array:
    """Ankles "T 2 3" of feet that stand on ``toe``."""
    y, z = -REST[10, 1], -REST[10, 2]  # the ankle as seen from the toes
    back, up = z * np.cos(pitch) + y * np.sin(pitch), y * np.cos(pitch) - z * np.sin(pitch)
    return toe + np.stack([back * np.sin(yaw), up, back * np.cos(yaw)], axis=-1)


def _sink(hips: Array, controls: Controls) -> Array:
    """How far "T" the pelvis must sink so that both legs reach with their heels lifted."""
    ankle = _ankle(controls.toe, controls.foot[..., 0], np.maximum(controls.foot[..., 1], 0.75 * MAX_HEEL))
    line = hips - ankle
    level = np.minimum((line[..., 0] ** 2 + line[..., 2] ** 2), (0.97 * REACH) ** 2)
    excess = np.maximum(line[..., 1] - np.sqrt(REACH**2 - level), 0).max(axis=1)
    if not excess.any():
        return excess
    padded = np.pad(excess, 3, mode="edge")
    return blur(np.lib.stride_tricks.sliding_window_view(padded, 7).max(axis=-1), 1.2)


def _legs(hips: Array, pelvis: Array, controls: Controls) -> tuple[Array, Array, Array]:
    yaw, pitch = controls.foot[..., 0], controls.foot[..., 1]
    low, high = pitch, np.maximum(pitch, MAX_HEEL)
    for _ in range(14):  # bisection for the least heel lift that lets the leg reach
        middle = (low + high) / 2
        short = np.linalg.norm(_ankle(controls.toe, yaw, middle) - hips, axis=-1) > REACH
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    short = np.linalg.norm(_ankle(controls.toe, yaw, pitch) - hips, axis=-1) > REACH
    pitch = np.where(short, high, pitch)
    ankle = _ankle(controls.toe, yaw, pitch)
    line = ankle - hips
    distance = np.linalg.norm(line, axis=-1, keepdims=True)
    axis = line / distance
    far, distance = distance > REACH, np.clip(distance, 0.22, REACH)
    toe = controls.toe + np.where(far, hips + axis * REACH - ankle, 0)  # only where even the lifted heel is too far
    hinge = np.stack([pelvis, pelvis], axis=1) @ rotate_y(controls.foot[..., 2] * SIDE)
    side = np.cross(axis, hinge[..., 0])
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    along = (THIGH**2 - SHIN**2 + distance**2) / (2 * distance)
    knee = hips + axis * along + side * np.sqrt(np.maximum(THIGH**2 - along**2, 0))
    return knee, hips + axis * distance, toe


def _trunk_and_arms(joints: Array, pelvis: Array, controls: Controls) -> None:
    """Fill spine, head, collars, shoulders, elbows and wrists of ``joints`` in place."""
    pitch, roll, twist = (controls.spine / 3).T
    bend = rotate_x(pitch) @ rotate_z(roll) @ rotate_y(twist)
    frame = pelvis
    for joint, parent in ((3, 0), (6, 3), (9, 6)):
        joints[:, joint] = joints[:, parent] + frame @ REST[joint]
        frame = frame @ bend
    down, aside, tilt = controls.head.T
    neck = frame @ rotate_y(0.4 * aside) @ rotate_x(0.35 * down)
    joints[:, 12] = joints[:, 9] + frame @ rotate_x(0.35 * down) @ REST[12]
    joints[:, 15] = joints[:, 12] + neck @ rotate_y(0.6 * aside) @ rotate_x(0.65 * down) @ rotate_z(tilt) @ REST[15]
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (controls.upper, controls.fore)]
    for side in (0, 1):
        mirror = np.array([SIDE[side], 1, 1])
        upper, fore = (x[:, side] * mirror for x in unit)
        lift = 0.38 * np.maximum(upper[:, 1] + 0.3, 0) * SIDE[side]  # the collar bone follows a raised arm
        joints[:, 13 + side] = joints[:, 9] + frame @ REST[13 + side]
        collar = frame @ rotate_z(lift)
        joints[:, 16 + side] = joints[:, 13 + side] + collar @ REST[16 + side]
        joints[:, 18 + side] = joints[:, 16 + side] + (frame @ upper[..., None])[..., 0] * REST[18, 0]
        joints[:, 20 + side] = joints[:, 18 + side] + (frame @ fore[..., None])[..., 0] * REST[20, 0]


def _canonical(joints: Array) -> Array:
    """Floor to 0; frame 0 to the origin and turned to face +z (hips and shoulders, as HumanML3D measures it)."""
    across = joints[0, 1] - joints[0, 2] + joints[0, 16] - joints[0, 17]
    joints = joints - joints[0, 0] * [1, 0, 1]
    joints = joints @ rotate_y(np.arctan2(across[2], across[0])).T
    return joints - [0, joints[..., 1].min(), 0]
