"""One file of a data set: an array (``.npy``), or a motion as ``lmm data import`` writes it (``.npz``).

Nothing here raises for what is in a file.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lmm.motion.files import load_motion
from lmm.motion.motion import Motion
from lmm.motion.skeleton import Skeleton
from lmm.motion.transforms import select

ARRAYS = ("new_joints", "new_joint_vecs")
KINDS = (*ARRAYS, "motions")  # folders of motion, in whichever form
ENDINGS = {"new_joints": ".npy", "new_joint_vecs": ".npy", "motions": ".npz", "texts": ".txt"}
SKEW = 1e-3  # rotation matrices are orthonormal to this


class Array(NamedTuple):
    """An array as found: ``problem`` says why it cannot be used; ``nan`` counts values that are not finite."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    problem: str = ""
    nan: int = 0
    digest: bytes = b""


class Recorded(NamedTuple):
    """What a file of ``motions`` says besides the joints that its `Array` describes.

    Args:
        fps: frames per second.
        num_joints: of the whole body, with hands where there are any.
        skew: how far its rotations are from rotations (largest entry of RᵀR - 1, or det R - 1); None without any.
        off: largest distance in metres of a joint from where forward kinematics puts it; None where there is none.
        apart: largest difference from the same clip of ``new_joints`` in metres; None where the two do not compare.
    """

    fps: float
    num_joints: int
    skew: float | None = None
    off: float | None = None
    apart: float | None = None


def read_array(file: Path) -> tuple[NDArray[np.float32] | None, Array]:
    """The array as float32 where its numbers can be read, and what it is."""
    try:
        raw = np.load(file, allow_pickle=False)
        if not isinstance(raw, np.ndarray):
            return None, Array(problem="an archive (.npz) instead of one array")
        if raw.dtype.kind != "f":
            return None, Array(raw.shape, str(raw.dtype), problem=f"holds {raw.dtype}, not floating-point numbers")
        array = np.ascontiguousarray(raw, dtype=np.float32)
    except (ValueError, TypeError, EOFError, OSError, MemoryError, SyntaxError) as error:
        return None, Array(problem=f"unreadable: {str(error).splitlines()[0][:80] if str(error) else 'empty file'}")
    return array, Array(
        raw.shape, str(raw.dtype), nan=int(array.size - np.isfinite(array).sum()), digest=_digest(array)
    )


def read_motion(file: Path, skeleton: Skeleton) -> tuple[NDArray[np.float32] | None, Array, Recorded | None]:
    """The joints "T J 3" of ``skeleton`` in a file of ``motions``, in metres, what they are, and what else it says."""
    try:
        motion = load_motion(file)
        joints = select(replace(motion, rotations=None), skeleton).joints.contiguous().numpy()
    except ValueError as error:
        return None, Array(problem=str(error).removeprefix(f"{file}: ").splitlines()[0][:120]), None
    recorded = Recorded(motion.fps, motion.skeleton.num_joints, *_kinematics(motion))
    if len(joints) < 2:
        return None, Array(joints.shape, "float32", problem="one frame is no motion"), recorded
    return joints, Array(joints.shape, "float32", digest=_digest(joints)), recorded


def _kinematics(motion: Motion) -> tuple[float | None, float | None]:
    """`Recorded.skew` and `Recorded.off`."""
    rotations = motion.rotations
    if rotations is None:
        return None, None
    square = rotations.transpose(-1, -2) @ rotations - torch.eye(3)
    x, y, z = rotations.unbind(-1)
    volume = (torch.linalg.cross(x, y) * z).sum(-1)  # the determinant; linalg.det is slow on small matrices
    skew = max(float(square.abs().max()), float((volume - 1).abs().max()))
    if not skew <= SKEW:
        return skew, None
    placed = motion.skeleton.forward_kinematics(rotations, motion.joints[:, 0])
    return skew, float((placed - motion.joints).norm(dim=-1).max())


def _digest(array: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(array.data, digest_size=16).digest() if array.size else b""
