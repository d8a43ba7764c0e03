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

import glob
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.joints import Axis, check_axis, check_rate, posture_flags, y_up
from lmm.data.sources.raw.motionx import posed
from lmm.motion.arrays import Joblib, Stub, check_unpacked, npz_names, plain_array, read_npz
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
_FIELDS = sorted({*(name for names, trans in _LAYOUTS for name in (*names, trans)), "betas", "frame_ids"})
_MAX_POSES = 10_000_000  # joints x frames
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

    def depends(self, file: Path) -> list[Path]:
        """The file and the captions of everybody in it."""
        return [*super().depends(file), *sorted(file.parent.glob(f"{glob.escape(file.stem)}_*.txt"))]

    def read(self, file: Path) -> Iterator[Recording]:
        """The people of one file; a track with gaps gives a recording for each stretch."""
        content = _load(file)
        try:
            people = _people(content)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        for person, arrays in people.items():
            called = _plain(person)
            name = f"{self.name(file)}_{called}" if called else self.name(file)
            text = file.with_name(f"{file.stem}_{called}{file.suffix}") if len(people) > 1 else file
            try:
                vectors, trans, betas, frames = _parameters(arrays)
            except ValueError as error:
                raise ValueError(f"{file}{f', person {person[:40]}' * bool(person)}: {error}; {_REMEDY}") from None
            gaps = (np.flatnonzero(np.diff(frames) != 1) + 1).tolist()
            for start, stop in zip([0, *gaps], [*gaps, len(frames)], strict=True):
                recording = self._recording(vectors[start:stop], trans[start:stop], betas[start:stop], file)
                if called != person:
                    said = f"person {person[:40]!r} called {called}"
                    recording = replace(recording, operations=(said, *recording.operations))
                if not gaps:
                    yield replace(recording, id=name, captions=self.captions(text))
                    continue
                yield replace(
                    recording,
                    id=f"{name}_f{frames[start]:06d}",
                    operations=(f"frames {frames[start]} to {frames[stop - 1]} of the video", *recording.operations),
                    flags=("a piece of a track with gaps, without the captions of the whole", *recording.flags),
                    source_frames=len(frames),
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
    """Each person's fields by the person's name, which is empty where the file holds just one.

    Raises:
        ValueError: two people would get one name.
    """
    if not isinstance(content, dict):
        return {"": {}}
    if "smpl_params_global" in content:
        return _people(content["smpl_params_global"])
    if content and all(isinstance(value, dict) for value in content.values()):
        names = [_plain(str(person)) for person in content]
        if twins := [person for person in content if names.count(_plain(str(person))) > 1]:
            told = " and ".join(repr(person)[:40] for person in twins[:2])
            raise ValueError(f"people {told} would both be called {_plain(str(twins[0]))!r}; rename one")
        return {str(person): _people(value).get("", {}) for person, value in content.items()}
    return {"": {str(name): value for name, value in content.items()}}


def _plain(person: str) -> str:
    """A person's name as a part of a file's name."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in person)


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
    if length * joints > _MAX_POSES:
        raise ValueError(f"{length} frames are too many for one file; cut it")
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
    if file.suffix.lower() == ".npz":
        return dict.fromkeys(npz_names(file)) | read_npz(file, _FIELDS)
    if zipfile.is_zipfile(file):
        check_unpacked(file)
    try:
        if file.suffix.lower() == ".pt":
            return _arrays(_tensors(file))
        with file.open("rb") as handle:
            return _arrays(Joblib(handle).load())
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
