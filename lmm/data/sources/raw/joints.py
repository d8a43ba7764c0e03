"""Plain joint positions: ``.npy`` (T, J, 3), J >= 22, whose first 22 joints are SMPL's (pelvis ... right_wrist).

Nothing in such a file says its frame rate, its unit or its axes, so they are arguments. What a wrong axis looks like is
measured and told: a body on its head, toes that point backwards. The functions below serve the other readers too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import check_fps, rotate

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]

# Turns that bring an axis to +y.
_TO_Y: dict[str, list[list[float]]] = {
    "x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}
_SHORTEST, _TALLEST = 0.9, 2.3  # metres from head to foot along the bones; nobody is shorter or taller
_SCALES = (1.0, 0.01, 0.001, 0.0254, 0.0254 / 0.45)  # m, cm, mm, inch, CMU's
_REMEDY = "write it again, or move it out of the folder"


class Joints(RawSource):
    """Joint positions without a word about them.

    Args:
        folder: ``.npy`` files anywhere below, captions in ``<name>.txt`` beside them.
        source_fps: their frame rate.
        scale: metres of one unit of the file; 0.01 for centimetres, 0.001 for millimetres.
        up: the axis that points up; the other two must make a right-handed frame with it.
        licence: tag for the manifest.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.npy",)

    def __init__(
        self, folder: str, *, source_fps: float, scale: float = 1.0, up: Axis = "y", licence: str = "unknown"
    ) -> None:
        super().__init__(folder)
        check_rate(source_fps)
        check_axis(up)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is metres a unit and must be positive, got {scale}")
        self.source_fps = float(source_fps)
        self.scale = scale
        self.up = up
        self.licence = licence

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file."""
        array = read_array(file)
        if array.ndim != 3 or array.shape[1] < HUMANML3D_22.num_joints or array.shape[2] != 3:
            raise ValueError(f"{file} has shape {tuple(array.shape)}, expected joints (T, 22 or more, 3); {_REMEDY}")
        operations = [] if self.scale == 1 else [f"multiplied by {self.scale:g} to metres"]
        if (count := array.shape[1]) > HUMANML3D_22.num_joints:
            operations.append(f"first 22 of {count} joints kept")
        motion = Motion(array[:, : HUMANML3D_22.num_joints] * self.scale, self.source_fps, HUMANML3D_22)
        motion, turned = y_up(motion, self.up)
        yield Recording(
            self.name(file),
            motion,
            self.captions(file),
            operations=(*operations, *turned),
            flags=(*posture_flags(motion), *_size_flags(motion)),
        )


def read_array(file: Path, *shape: int) -> Float[Tensor, "T ..."]:
    """A finite array of ``.npy``, as float32; (T, *shape) where a shape is given.

    Raises:
        ValueError: not a plain array of numbers, empty, another shape, NaN or Inf; the message names the file.
    """
    try:
        # A header that lies about its size allocates nothing when it is mapped.
        array = np.load(file, allow_pickle=False, mmap_mode="r")
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise ValueError("not one array of numbers")
        values = torch.from_numpy(np.array(array, np.float32))
    except Exception as error:  # broken headers raise about everything there is, from deep inside numpy
        raise ValueError(f"{file} is not a readable .npy array ({error}); {_REMEDY}") from None
    if values.ndim == 0 or len(values) == 0 or (shape and tuple(values.shape[1:]) != shape):
        want = f"(T, {', '.join(map(str, shape))})" if shape else "(T, ...)"
        raise ValueError(f"{file} has shape {tuple(values.shape)}, expected {want}; {_REMEDY}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{file} contains NaN or Inf; {_REMEDY}")
    return values


def check_rate(source_fps: float) -> None:
    """Refuse what is no frame rate.

    Raises:
        ValueError: it is below 1 or above 1000.
    """
    check_fps(float(source_fps), "source_fps: ")


def check_axis(up: str) -> None:
    """Refuse what is no axis.

    Raises:
        ValueError: ``up`` is none of x, y, z, -x, -y, -z.
    """
    if up not in _TO_Y:
        raise ValueError(f"up must be one of {', '.join(_TO_Y)}, got {up!r}")


def y_up(motion: Motion, up: str) -> tuple[Motion, tuple[str, ...]]:
    """The motion turned so that the axis ``up`` becomes +y, and what to say of it in a manifest."""
    if up == "y":
        return motion, ()
    return rotate(motion, torch.tensor(_TO_Y[up], dtype=torch.float32)), (f"turned from {up} up to y up",)


def posture_flags(motion: Motion) -> tuple[str, ...]:
    """What a wrong up axis or exchanged sides would look like, where the motion "T J 3" looks like that.

    The median over time of two cosines: of the line from ankles to head with +y, and of the toes with where hips and
    shoulders say the body faces. On 3,124 clips of studio motion capture both are above 0 in every one.
    """
    at = {name: motion.joints[:, motion.skeleton.index(name)] for name in HUMANML3D_22.names}
    spine = at["head"] - (at["left_ankle"] + at["right_ankle"]) / 2
    across = at["left_hip"] - at["right_hip"] + at["left_shoulder"] - at["right_shoulder"]
    toes = at["left_foot"] - at["left_ankle"] + at["right_foot"] - at["right_ankle"]
    upright = torch.cosine_similarity(spine, spine.new_tensor([0.0, 1.0, 0.0]).expand_as(spine), dim=-1).median()
    forward = torch.cosine_similarity(torch.linalg.cross(across, spine), toes, dim=-1).median()
    flags = []
    if upright < 0:
        flags.append("upside down most of the time: is the axis that points up right?")
    elif upright < 0.5:
        flags.append("not upright most of the time: it lies or crawls, or another axis points up")
    if forward < 0:
        flags.append("toes point backwards: left and right are exchanged, or the axes are left-handed")
    return tuple(flags)


def size_note(motion: Motion, file: str, scale: float = 0.01) -> str:
    """A warning where somebody with a head and a foot is not as long between them as people are; else nothing.

    Measured along the bones, so neither pose nor axes matter.

    Args:
        motion: joints "T J 3".
        file: where it is from.
        scale: metres per unit that it was read with, if it is a .bvh.
    """
    names, parents = [name.lower() for name in motion.skeleton.names], motion.skeleton.parents
    ends = []
    for words in (("head",), ("foot", "ankle", "toe")):
        ends.append(next((names.index(name) for word in words for name in names if word in name), None))
    between: set[int] = set()
    for end in ends:
        chain = set()
        while end is not None and end >= 0:
            chain.add(end)
            end = parents[end]
        between ^= chain  # what is above both is on no way between them
    if None in ends or not between:
        return ""
    joints = motion.joints[:: max(motion.num_frames // 100, 1)]
    length = sum(float((joints[:, j] - joints[:, parents[j]]).norm(dim=-1).median()) for j in between if j)
    if _SHORTEST < length < _TALLEST:
        return ""
    remedy = "its unit is not the metre, or it is no person"
    if ".bvh" in Path(file).name.lower():
        fitting = [other for other in _SCALES if length and _SHORTEST < length * other / scale < _TALLEST]
        remedy = f"try lmm convert --scale {fitting[0]:.6g}" if fitting else "give lmm convert --scale, metres a unit"
    return f"warning: {file}: the body is {length:.3g} m from head to foot along its bones; {remedy}"


def _size_flags(motion: Motion) -> tuple[str, ...]:
    leg = [motion.skeleton.index(name) for name in ("left_hip", "left_knee", "left_ankle")]
    hip, knee, ankle = (motion.joints[:, joint] for joint in leg)
    length = float(((hip - knee).norm(dim=-1) + (knee - ankle).norm(dim=-1)).median())
    return () if 0.4 < length < 1.3 else ("legs shorter than 0.4 m or longer than 1.3 m: is scale right?",)
