"""Joints as rows "J 3 B T": the layout in which features are computed.

Frames come last, so that every operation runs over contiguous memory, a clip's joints are selected by copying whole
rows, and what belongs to a frame (a facing direction, an angle) applies to all joints by broadcasting.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmm.motion.skeleton import Skeleton

TINY = 1e-10  # metres; its cube, which gradients contain, is still a float32
SMOOTHED_AT_ONCE = 64  # frames: the fewer, the smaller the matrix; the more, the fewer windows


def to_rows(joints: Float[Tensor, "B T J 3"]) -> Float[Tensor, "J 3 B T"]:
    """Joints as rows; ``rows.permute(2, 3, 0, 1)`` is the way back."""
    batch, frames, num_joints, _ = joints.shape
    return joints.reshape(batch * frames, -1).t().contiguous().view(num_joints, 3, batch, frames)


def bones_of(rows: Float[Tensor, "J 3 B T"], parents: Int[Tensor, " j"]) -> Float[Tensor, "j 3 B T"]:
    """Vectors from parent to joint, for joints 1 on."""
    return rows[1:] - rows.index_select(0, parents.to(rows.device))


def lengths_of(bones: Float[Tensor, "j 3 B T"]) -> Float[Tensor, "j B T"]:
    """Lengths of bones."""
    return square_of(bones, 1).sqrt()


def paths_of(skeleton: Skeleton) -> tuple[Int[Tensor, "L depth"], Int[Tensor, " J"]]:
    """The joints from the root to each of the L leaves, filled up with roots, and where in it each joint stands."""
    paths = []
    for leaf in sorted(set(range(skeleton.num_joints)) - set(skeleton.parents)):
        path = [leaf]
        while path[0]:
            path.insert(0, skeleton.parents[path[0]])
        paths.append(path)
    depth = max(map(len, paths))
    cells = {joint: depth * i + step for i, path in enumerate(paths) for step, joint in enumerate(path)}
    filled = torch.tensor([path + [0] * (depth - len(path)) for path in paths])
    return filled, torch.tensor([cells[joint] for joint in range(skeleton.num_joints)])


def place(
    root: Float[Tensor, "3 B T"],
    bones: Float[Tensor, "j 3 B T"],
    paths: Int[Tensor, "L depth"],
    cells: Int[Tensor, " J"],
) -> Float[Tensor, "J 3 B T"]:
    """Joints from the root and all bones, summed along ``paths``; with ``cells`` the skeleton's `paths_of`."""
    steps = torch.cat([root[None], bones]).index_select(0, paths.flatten().to(bones.device))
    sums = steps.view(*paths.shape, *root.shape).cumsum(1).flatten(0, 1)
    return sums.index_select(0, cells.to(bones.device))


def set_lengths(
    root: Float[Tensor, "3 B T"],
    directions: Float[Tensor, "j 3 B T"],
    lengths: Float[Tensor, "j B T"],
    target: Float[Tensor, " J"],
    legs: tuple[int, int],
) -> tuple[Float[Tensor, "3 B T"], Float[Tensor, "j 3 B T"]]:
    """Root and bones: directions stay, lengths become ``target``, the root path scales with the legs of frame 0."""
    thigh, shin = legs
    first = lengths[..., :1]
    scale = (target[thigh] + target[shin]) / (first[thigh - 1] + first[shin - 1])
    return root * scale, directions * target[1:, None, None, None]


def across_body(
    rows: Float[Tensor, "J 3 B T"], face: tuple[int, ...]
) -> tuple[Float[Tensor, "3 B T"], Float[Tensor, "3 B T"]]:
    """A body's left-to-right axis by hips and shoulders, and the same with its hips swapped."""
    right_hip, left_hip, right_shoulder, left_shoulder = (rows[joint] for joint in face)
    hips, shoulders = right_hip - left_hip, right_shoulder - left_shoulder
    return shoulders + hips, shoulders - hips


def turn_ahead(across: Float[Tensor, "C B T"]) -> Float[Tensor, "B T"]:
    """Angle of the turn about y after which a body with this left-to-right axis (x first, z last) faces +z."""
    return torch.atan2(-across[-1], TINY - across[0])  # 0, with a gradient, for one without any facing direction


def swing(angle: Float[Tensor, "B T"]) -> tuple[Float[Tensor, "3 B T"], Float[Tensor, "3 B T"]]:
    """What `turned` needs of angles about y: (cos, 1, cos) and (sin, 0, -sin)."""
    return (angle * _LEVEL.to(angle)).cos(), (angle * _SWING.to(angle)).sin()


def turned(
    vectors: Float[Tensor, "*J 3 B T"], cos: Float[Tensor, "3 B t"], sin: Float[Tensor, "3 B t"]
) -> Float[Tensor, "*J 3 B T"]:
    """Rotation about y by the angles of a `swing`: (cos·x + sin·z, y, cos·z - sin·x)."""
    return torch.addcmul(vectors * cos, vectors.flip(-3), sin)


def wrapped(angle: Tensor) -> Tensor:
    """The same angle between -π and π."""
    return torch.add(angle, (angle / (2 * math.pi)).round(), alpha=-2 * math.pi)


def stand_at_origin(rows: Float[Tensor, "J 3 B T"], angle: Float[Tensor, "B 1"]) -> Float[Tensor, "J 3 B T"]:
    """Lowest point at height 0, the root of frame 0 above the origin, everything turned about it by ``angle``."""
    x, _, z = rows[0, ..., :1].unbind(0)
    floor = rows[:, 1].amin(dim=(0, 2))[:, None]
    return turned(rows - torch.stack([x, floor, z]), *swing(angle))


def smooth(across: Float[Tensor, "C B T"]) -> Float[Tensor, "C B T"]:
    """Gaussian filter along time with repeated ends: windows of frames times a banded matrix."""
    frames = across.shape[-1]
    padded = torch.nn.functional.pad(across, (_RADIUS, _RADIUS + -frames % SMOOTHED_AT_ONCE), mode="replicate")
    windows = padded.unfold(-1, SMOOTHED_AT_ONCE + 2 * _RADIUS, SMOOTHED_AT_ONCE)
    # In float64, which neither autocast nor a faster float32 matmul touches: both would show in every feature.
    smoothed = (windows.flatten(0, -2).double() @ _BAND.to(across.device)).to(across)
    return smoothed.view(*across.shape[:-1], -1)[..., :frames]


def square_of(vectors: Tensor, dim: int) -> Tensor:
    """Squared length of vectors along ``dim``; much faster than a norm over a dimension that is not the last."""
    return (vectors * vectors).sum(dim)


def _gaussian(sigma: float, radius: int) -> Float[Tensor, " K"]:
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return kernel / kernel.sum()


_RADIUS = 80  # frames: four standard deviations
_GAUSSIAN = _gaussian(_RADIUS / 4, _RADIUS)
_BAND = torch.stack(
    [torch.nn.functional.pad(_GAUSSIAN, (i, SMOOTHED_AT_ONCE - 1 - i)) for i in range(SMOOTHED_AT_ONCE)], 1
)
_LEVEL = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
_SWING = torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
