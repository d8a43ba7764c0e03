"""SMPL parameters that were estimated from video: GVHMR's, WHAM's, and anything with the same fields.

::

    hmr4d_results.pt  (GVHMR)  smpl_params_global: global_orient (T, 3), body_pose (T, 63), transl (T, 3), betas (T, 10)
    wham_output.pkl   (WHAM)   {person: pose_world (T, 72), trans_world (T, 3), betas (T, 10), frame_ids (T,)}
    .npz .pt .pkl              global_orient/root_orient + body_pose/pose_body, or poses (T, 66 or more); transl/trans;
                               betas where they are known; one person, or a dict of persons

Both estimators give a world with y up (WHAM asks its network for that, GVHMR's world is gravity-aligned with +y up).
Results in the camera's space (4D-Humans, TRAM's tracks, WHAM without ``pose_world``) have no path through the world and
are refused. The body is `HUMANML3D_22`'s: the two hand joints of SMPL's 24 are left out. Nothing but arrays is ever
unpickled; joblib, which WHAM writes with, is not needed.
"""

import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.joints import Axis, check_axis, check_rate, posture_flags, y_up
from lmm.data.sources.raw.motionx import posed
from lmm.motion.arrays import NUMPY_NAMES, PickledArray, Stub, array_from_buffer, plain_array
from lmm.motion.body import SMPL_24, SMPLX_55
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import select

# (rotations, translation), in order of preference.
_LAYOUTS = (
    (("pose_world",), "trans_world"),
    (("global_orient", "body_pose"), "transl"),
    (("root_orient", "pose_body"), "trans"),
    (("poses",), "trans"),
)
_REMEDY = "run GVHMR or WHAM with its world output, or save poses, trans and betas as .npz"


class SMPLVideo(RawSource):
    """Bodies estimated from video, one recording a person.

    Args:
        folder: the estimator's output; captions in ``<name>.txt`` beside a file, ``<name>_<person>.txt`` where it holds
            several people.
        source_fps: the video's frame rate, which is not in the file; GVHMR's demo calls every copy of a video 30.
        up: the axis that points up.
        body_models: folder with smpl/SMPL_NEUTRAL (24 joints: WHAM) or smplx/SMPLX_NEUTRAL (22: GVHMR); without one
            every body gets the bone lengths of our template.
        licence: tag for the manifest.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.npz", "*.pt", "*.pkl")

    def __init__(
        self,
        folder: str,
        *,
        source_fps: float = 30.0,
        up: Axis = "y",
        body_models: str | None = None,
        licence: str = "unknown",
    ) -> None:
        super().__init__(folder)
        check_rate(source_fps)
        check_axis(up)
        self.source_fps = float(source_fps)
        self.up = up
        self.body_models = body_models
        self.licence = licence

    def read(self, file: Path) -> Iterator[Recording]:
        """The people of one file; a track with gaps gives a recording for each stretch."""
        people = _people(_load(file))
        for person, arrays in people.items():
            name = f"{self.name(file)}_{person}" if person else self.name(file)
            text = file.with_name(f"{file.stem}_{person}{file.suffix}") if len(people) > 1 else file
            try:
                vectors, trans, betas, frames = _parameters(arrays)
            except ValueError as error:
                raise ValueError(f"{file}{', person ' + person if person else ''}: {error}; {_REMEDY}") from None
            gaps = (np.flatnonzero(np.diff(frames) != 1) + 1).tolist()
            for start, stop in zip([0, *gaps], [*gaps, len(frames)], strict=True):
                recording = self._recording(vectors[start:stop], trans[start:stop], betas[start:stop], file)
                if not gaps:
                    yield replace(recording, id=name, captions=self.captions(text))
                    continue
                yield replace(
                    recording,
                    id=f"{name}_f{frames[start]:06d}",
                    operations=(f"frames {frames[start]} to {frames[stop - 1]} of the video", *recording.operations),
                    flags=("a piece of a track with gaps, without the captions of the whole", *recording.flags),
                )

    def _recording(
        self, vectors: Float[Tensor, "T J 3"], trans: Float[Tensor, "T 3"], betas: Float[Tensor, "T S"], file: Path
    ) -> Recording:
        """One stretch of a track, without a name; J is 24 (SMPL) or 22 (the body of SMPL-X)."""
        said = [f"frame rate taken as {self.source_fps:g}: it is not in the file"]
        count = vectors.shape[1]
        if count == SMPL_24.num_joints:
            said.append("hand joints 22 and 23 of SMPL dropped")
        elif self.body_models:
            vectors = torch.cat([vectors, torch.zeros(len(vectors), SMPLX_55.num_joints - count, 3)], dim=1)
        recording = posed(vectors, trans, betas, fps=self.source_fps, body_models=self.body_models, file=file)
        motion, turned = y_up(select(recording.motion, HUMANML3D_22), self.up)
        return replace(
            recording,
            motion=motion,
            operations=(*said, *recording.operations, *turned),
            flags=("estimated from video", *recording.flags, *posture_flags(motion)),
        )


def _people(content: Any) -> dict[str, dict[str, Any]]:
    """Each person's fields by the person's name, which is empty where the file holds just one."""
    if not isinstance(content, dict):
        return {"": {}}
    if "smpl_params_global" in content:
        return _people(content["smpl_params_global"])
    if content and all(isinstance(value, dict) for value in content.values()):
        return {str(person): _people(value).get("", {}) for person, value in content.items()}
    return {"": {str(name): value for name, value in content.items()}}


def _parameters(
    arrays: dict[str, Any],
) -> tuple[Float[Tensor, "T J 3"], Float[Tensor, "T 3"], Float[Tensor, "T S"], np.ndarray]:
    """Rotation vectors of 24 or 22 joints, translation, body shape and frame numbers of one person.

    Raises:
        ValueError: fields are missing, or one is not what it should be.
    """
    for names, translation in _LAYOUTS:
        if all(name in arrays for name in (*names, translation)):
            break
    else:
        camera = "pose" in arrays or "pred_rotmat" in arrays or "smpl" in arrays
        why = "only poses in the camera's space, without a path through the world" if camera else "no SMPL parameters"
        raise ValueError(f"holds {why} (it has {', '.join(arrays)[:200] or 'no fields'})")
    rotations = [_rows(arrays, name) for name in names]
    if len({len(part) for part in rotations}) > 1:
        raise ValueError(f"{' and '.join(names)} do not fit together: {[tuple(part.shape) for part in rotations]}")
    vectors = torch.cat(rotations, dim=1)
    length, width = vectors.shape
    joints = HUMANML3D_22.num_joints if width != 3 * SMPL_24.num_joints else SMPL_24.num_joints
    if width % 3 or width < 3 * joints:
        raise ValueError(
            f"{' and '.join(names)} have {width} numbers a frame, expected 66, 72 or more rotation vectors"
        )
    trans = _rows(arrays, translation)
    betas = _numbers(arrays, "betas") if "betas" in arrays else torch.zeros(1, 10)
    betas = betas.reshape(-1, betas.shape[-1]).expand(length, -1) if betas.numel() == betas.shape[-1] else betas
    frames = _numbers(arrays, "frame_ids").long().numpy() if "frame_ids" in arrays else np.arange(length)
    if trans.shape != (length, 3) or betas.shape[:-1] != (length,) or frames.shape != (length,):
        raise ValueError(
            f"{length} poses, translation {tuple(trans.shape)}, betas {tuple(betas.shape)} and frame_ids "
            f"{frames.shape} do not fit together"
        )
    if (np.diff(frames) < 1).any():
        raise ValueError("frame_ids do not rise")
    return vectors[:, : 3 * joints].unflatten(1, (joints, 3)), trans, betas, frames


def _rows(arrays: dict[str, Any], name: str) -> Float[Tensor, "T D"]:
    values = _numbers(arrays, name)
    if values.ndim < 2:
        raise ValueError(f"{name} has shape {tuple(values.shape)}, expected (T, ...)")
    return values.flatten(1)


def _numbers(arrays: dict[str, Any], name: str) -> Float[Tensor, "..."]:
    value = arrays[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.ndim or not value.size:
        raise ValueError(f"{name} is no array of numbers")
    values = torch.from_numpy(value.astype(np.float32))
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or Inf")
    return values


def _load(file: Path) -> Any:
    """What a file holds, tensors as arrays.

    Raises:
        ValueError: it cannot be read, or holds anything but dicts, arrays and plain values.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                return dict(archive.items())
        if file.suffix == ".pt":
            return _arrays(_tensors(file))
        with file.open("rb") as handle:
            return _arrays(_Joblib(handle).load())
    except Exception as error:  # broken bytes raise about everything there is, from deep inside the parsers
        raise ValueError(f"{file} cannot be read safely ({type(error).__name__}: {error}); {_REMEDY}") from None


def _tensors(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own message advises to load it unsafely
        raise ValueError("it is no file of tensors and plain values alone") from None


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(item) for name, item in value.items()}
    if isinstance(value, Tensor):
        return value.detach().numpy()
    return plain_array(value) if isinstance(value, Stub) else value


class _Inline(Stub):
    """joblib's stand-in for an array, whose bytes follow in the file."""

    def read(self, handle: BinaryIO) -> PickledArray:
        """The array: a length byte and as much padding where the file is aligned, then the numbers."""
        if self.state.get("numpy_array_alignment_bytes") is not None:
            handle.read(handle.read(1)[0])
        shape, dtype = self.state["shape"], self.state["dtype"]
        size = math.prod(shape) * np.dtype(dtype.code).itemsize
        data = handle.read(size) if size >= 0 else b""
        if len(data) != size:
            raise EOFError("the file ends inside an array")
        return array_from_buffer(data, dtype, shape, self.state["order"])


def _number(dtype: Any, data: Any) -> Any:
    """A numpy scalar, such as a person's number."""
    return plain_array(array_from_buffer(data, dtype, (), "C")).item()


def _dict(*_: Any) -> dict[Any, Any]:
    return {}


_NAMES: dict[tuple[str, str], Any] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Inline,
    ("collections", "defaultdict"): _dict,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "dict"): _dict,
}


# The one in Python: the one in C reads ahead, past the bytes that joblib puts between the opcodes.
_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Joblib(_Unpickler):
    """Unpickles dicts of arrays and nothing else, so that a foreign file cannot run code."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(handle)
        self._handle = handle

    def find_class(self, module: str, name: str) -> Any:
        """One of the few names that dicts and arrays are pickled with."""
        if module.partition(".")[0] == "numpy" and name in NUMPY_NAMES:
            return _number if name == "scalar" else NUMPY_NAMES[name]
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no array needs")

    def load_build(self) -> None:
        """Give an object its state; joblib's stand-in becomes its array here, where its bytes are next in the file."""
        super().load_build()
        if isinstance(self.stack[-1], _Inline):
            self.stack[-1] = self.stack[-1].read(self._handle)

    dispatch[pickle.BUILD[0]] = load_build
