"""The body that both renderers draw: capsules with volume around any skeleton, its floor and what a camera follows.

Thickness and side are read off the joints' names (HumanML3D's, BVH's usual ones); unknown names get a thin, grey limb.
Points are the motion's joints, put on the floor, then a few of ours: two in the skull, one in each hand.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from lmm.motion.motion import Motion
from lmm.motion.skeleton import Skeleton

_CHAIN = 1.07  # metres from the root to the farthest leaf on the skeleton that the radii below are meant for
_RADII = [  # metres, by the first pattern that the joint's name contains
    (r"toe|ball", 0.028),
    (r"foot|ankle", 0.036),
    (r"knee|lowerleg|shin|calf|^l?(left|right)?leg", 0.05),
    (r"upleg|upperleg|thigh|hip_|_hip|hipjoint", 0.074),
    (r"pelvis|hips|root", 0.096),
    (r"spine|chest|back|torso|abdomen|waist|thorax", 0.1),
    (r"neck", 0.05),
    (r"head", 0.05),
    (r"elbow|lowerarm|forearm", 0.037),
    (r"wrist|hand", 0.029),
    (r"collar|clav|upperarm|shoulder|arm", 0.05),
    (r"thumb|finger|index|middle|ring|pinky", 0.011),
]
_TIPS = ((r"head$", ((0.05, 0.077), (0.105, 0.1))), (r"wrist$|hand$|hand_[lr]$", ((0.035, 0.033), (0.085, 0.024))))
LEFT, RIGHT, MIDDLE = 1, 2, 0


@dataclass(frozen=True)
class Figure:
    """A motion, ready to draw.

    Args:
        points: "T P 3" in metres, the floor at y = 0; the first J are the joints.
        bones: the two points of each capsule.
        radii: the capsule's radius at either end, metres.
        sides: `MIDDLE`, `LEFT` or `RIGHT` for each capsule.
        focus: "T 3", a smooth path of the body's middle, for cameras and trails.
        height: about how tall the body stands, metres.
        fps: frames per second.
    """

    points: Float32[np.ndarray, "T P 3"]
    bones: Int64[np.ndarray, "N 2"]
    radii: Float32[np.ndarray, "N 2"]
    sides: Int64[np.ndarray, " N"]
    focus: Float32[np.ndarray, "T 3"]
    height: float
    fps: float

    def frame_at(self, seconds: float) -> int:
        """Index of the frame shown at a time; the last one stays."""
        return min(int(seconds * self.fps + 1e-6), len(self.points) - 1)


def figure_of(motion: Motion) -> Figure:
    """The drawable body of one motion (no batch)."""
    if motion.joints.ndim != 3:
        raise ValueError(f"a picture shows motions (T, J, 3), got {tuple(motion.joints.shape)}; take one of the batch")
    skeleton = motion.skeleton
    points = motion.joints.detach().cpu().float().numpy().copy()
    floor = float(points[..., 1].min())
    if abs(floor) > 0.3:  # clips stand on y = 0; leave small floats and dips visible, move what stands elsewhere
        points[..., 1] -= floor
    children: list[list[int]] = [[] for _ in skeleton.parents]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        children[parent].append(joint)
    root = 0
    while len(children[root]) == 1 and children[children[root][0]]:
        root = children[root][0]  # a root with one child only places the body (Bandai's joint_Root): not drawn
    drawn = [j for j in range(skeleton.num_joints) if j != root and _descends(skeleton, j, root)]

    parents = list(skeleton.parents)
    lengths = np.median(np.linalg.norm(points - points[:, parents], axis=-1), axis=0)
    reach = {root: 0.0}
    for joint in drawn:
        reach[joint] = reach[parents[joint]] + float(lengths[joint])
    size = max(max(reach.values()) / _CHAIN, 1e-3)

    radii = [size * _radius(name) for name in skeleton.names]
    side = [_side(name) for name in skeleton.names]
    bones = [(parents[j], j) for j in drawn]
    sides = [side[j] if side[p] else MIDDLE for p, j in bones]  # hips and collars are trunk
    ends = [
        (min(radii[p], 1.3 * radii[j]), radii[j]) if own else (radii[p], max(radii[j], 0.07 * size if side[j] else 0))
        for (p, j), own in zip(bones, sides, strict=True)
    ]
    extra: list[np.ndarray] = []
    for joint in drawn:
        direction = points[:, joint] - points[:, parents[joint]]
        direction = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-6)
        for pattern, tips in _TIPS:
            if re.search(pattern, skeleton.names[joint].lower()) and not _has_fingers(skeleton, children[joint]):
                first = skeleton.num_joints + len(extra)
                extra += [points[:, joint] + size * along * direction for along, _ in tips]
                bones.append((first, first + 1))
                ends.append((size * tips[0][1], size * tips[1][1]))
                sides.append(side[joint])
    return Figure(
        points=np.concatenate([points, np.stack(extra, axis=1)], axis=1) if extra else points,
        bones=np.array(bones, np.int64).reshape(-1, 2),
        radii=np.array(ends, np.float32).reshape(-1, 2),
        sides=np.array(sides, np.int64),
        focus=_smooth(points[:, root], 0.3 * motion.fps),
        height=1.7 * size,
        fps=motion.fps,
    )


def _descends(skeleton: Skeleton, joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = skeleton.parents[joint]
    return joint == ancestor


def _has_fingers(skeleton: Skeleton, children: list[int]) -> bool:
    return any(re.search(r"thumb|finger|index|middle", skeleton.names[child].lower()) for child in children)


def _radius(name: str) -> float:
    return next((radius for pattern, radius in _RADII if re.search(pattern, name.lower())), 0.03)


def _side(name: str) -> int:
    for side, word, letter in ((LEFT, "left", "l"), (RIGHT, "right", "r")):
        if word in name.lower() or re.search(rf"^{letter}[_.A-Z]|[_.]{letter}$", name[:1].lower() + name[1:]):
            return side
        if re.search(rf"[_.]{letter.upper()}$", name):
            return side
    return MIDDLE


def _smooth(path: Float32[np.ndarray, "T 3"], sigma: float) -> Float32[np.ndarray, "T 3"]:
    """Gaussian over time; ends repeat."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, axis], kernel / kernel.sum(), mode="valid") for axis in range(3)]
    return np.stack(columns, axis=-1).astype(np.float32)
