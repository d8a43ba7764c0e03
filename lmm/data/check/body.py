"""What one clip's joints say about the body and its motion, measured with numpy, joints "T J 3" in metres.

Left and right are told by anatomy: with u from the pelvis to the neck, f where the toes point and the knees bend, and l
from the right hip to the left one, (u × f) · l is positive for a body and negative for its mirror image, however it
stands or lies.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmm.data.check.layout import Layout

PHASES = 8  # frames of a descriptor
_PLANTED = 0.05  # metres: a toe lower than this above the clip's floor is planted
# From the ankle to the head joint along the bones a body measures 1/1.2 of its stature (that of HUMANML3D_22).
_STATURE = 1.2


class Body(NamedTuple):
    """Measurements of a clip; lengths in metres.

    Args:
        frames: T.
        stature: about how tall the body is.
        bones: median length of each bone, "J-1".
        stretch: largest standard deviation of a bone's length over time.
        floor: height of the lowest joint of all frames.
        facing: degrees between +z and where hips and shoulders face in frame 0.
        origin: horizontal distance of the root from the origin in frame 0.
        sides: cosine-like, 1 a body, -1 its mirror image, about 0 where feet and knees do not tell.
        up: index of the axis (0-5: +x +y +z -x -y -z) that the body stands along in most frames, and their share.
        skate: mean horizontal speed of the slower planted toe in m/s; nan where no toe is ever planted.
        moved: how far the joint that moves most gets (diagonal of its bounding box).
        jump: largest root speed between two frames in m/s.
        shape: joints at `PHASES` even phases, root at the origin and facing +z in frame 0, "PHASES J 3" float32.
    """

    frames: int
    stature: float
    bones: NDArray[np.float32]
    stretch: float
    floor: float
    facing: float
    origin: float
    sides: float
    up: tuple[int, float]
    skate: float
    moved: float
    jump: float
    shape: NDArray[np.float32]


def measure(joints: NDArray[np.float32], layout: Layout, fps: float) -> Body:
    """Measurements of finite joints "T J 3", T at least 2."""
    bones = joints[:, 1:] - joints[:, list(layout.features.skeleton.parents[1:])]
    lengths = np.sqrt(np.einsum("tjc,tjc->tj", bones, bones))
    median = np.median(lengths, axis=0)
    spine = [j for j, name in enumerate(layout.features.skeleton.names) if name.startswith(("spine", "neck", "head"))]
    tall = [j - 1 for j in (*spine, *layout.joints("left_knee", "left_ankle"))]
    _, facing = _heading(joints[0], layout)
    floor = float(joints[..., 1].min())
    root = joints[:, 0]
    steps = np.linalg.norm(np.diff(root, axis=0), axis=-1)
    phases = np.linspace(0, len(joints) - 1, PHASES).round().astype(int)
    return Body(
        frames=len(joints),
        stature=float(median[tall].sum() * _STATURE),
        bones=median.astype(np.float32),
        stretch=float(lengths.std(axis=0).max()),
        floor=floor,
        facing=facing,
        origin=float(np.hypot(root[0, 0], root[0, 2])),
        sides=_sides(joints, layout),
        up=_up(joints, layout),
        skate=_skate(joints, layout, floor, fps),
        moved=float(np.linalg.norm(np.ptp(joints, axis=0), axis=-1).max()),
        jump=float(steps.max() * fps),
        shape=place(joints, layout)[phases],
    )


def place(joints: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """The clip on the floor, with the root above the origin and the body facing +z in frame 0."""
    turn, _ = _heading(joints[0], layout)
    placed = (joints - joints[0, 0] * np.array([1, 0, 1], np.float32)) @ turn.T
    placed[..., 1] -= placed[..., 1].min()
    return placed


def mirror_shape(shape: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """The `Body.shape` of the mirrored motion, "*N PHASES J 3"."""
    return shape[..., layout.mirrored, :] * np.array([-1, 1, 1], np.float32)


def _heading(first: NDArray[np.float32], layout: Layout) -> tuple[NDArray[np.float32], float]:
    """Rotation about y that makes the body face +z, and the angle in degrees that it was off."""
    left_hip, right_hip, left, right = layout.joints("left_hip", "right_hip", "left_shoulder", "right_shoulder")
    across = first[left_hip] - first[right_hip] + first[left] - first[right]
    x, z = float(-across[2]), float(across[0])  # forward = across × up
    length = np.hypot(x, z)
    sin, cos = (x / length, z / length) if length > 1e-6 else (0.0, 1.0)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=np.float32)
    return turn, float(np.degrees(np.arctan2(abs(sin), cos)))


def _sides(joints: NDArray[np.float32], layout: Layout) -> float:
    hips, neck = layout.joints("left_hip", "right_hip"), layout.joints("neck")[0]
    feet, ankles = layout.joints("left_foot", "right_foot"), layout.joints("left_ankle", "right_ankle")
    knees = layout.joints("left_knee", "right_knee")
    bent = joints[:, knees] - (joints[:, hips] + joints[:, ankles]) / 2  # knees bend forward, and toes may point down
    forward = (joints[:, feet] - joints[:, ankles] + bent).sum(axis=1)
    left = joints[:, hips[0]] - joints[:, hips[1]]
    up = joints[:, neck] - joints[:, 0]
    triple = np.einsum("tc,tc->t", np.cross(up, forward), left)
    size = np.linalg.norm(up, axis=1) * np.linalg.norm(forward, axis=1) * np.linalg.norm(left, axis=1)
    return float((triple / np.maximum(size, 1e-12)).mean())


def _up(joints: NDArray[np.float32], layout: Layout) -> tuple[int, float]:
    tall = joints[:, layout.joints("head")[0]] - joints[:, layout.joints("left_foot", "right_foot")].mean(axis=1)
    axis = np.abs(tall).argmax(axis=1)
    axis += 3 * (np.take_along_axis(tall, axis[:, None], axis=1)[:, 0] < 0)
    counts = np.bincount(axis, minlength=6)
    return int(counts.argmax()), float(counts.max() / len(axis))


def _skate(joints: NDArray[np.float32], layout: Layout, floor: float, fps: float) -> float:
    toes = joints[:, layout.joints("left_foot", "right_foot")]
    planted = toes[..., 1] - floor < _PLANTED
    planted = planted[1:] & planted[:-1]
    speed = np.linalg.norm(np.diff(toes[..., [0, 2]], axis=0), axis=-1) * fps
    slower = np.where(planted, speed, np.inf).min(axis=1)
    slower = slower[np.isfinite(slower)]
    return float(slower.mean()) if len(slower) else float("nan")
