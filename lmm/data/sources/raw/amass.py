"""AMASS (Mahmood et al., ICCV 2019): SMPL-H and SMPL-X parameters, z up, at the frame rates of 20-odd laboratories.

::

    <sub-data-set>/<subject>/<name>_poses.npz     SMPL-H: poses (T, 156), trans (T, 3), betas, gender, mocap_framerate
    <sub-data-set>/<subject>/<name>_stageii.npz   SMPL-X: poses (T, 165) or root_orient, pose_body, pose_jaw, pose_eye,
                                                  pose_hand; trans, betas, gender, mocap_frame_rate, surface_model_type

Any ``.npz`` with these arrays will do, also with 66 or 72 numbers a pose. ``shape.npz`` and ``*_stagei.npz``, which lie
beside the recordings and hold a subject's body shape but no motion, are not read. Soft-tissue ``dmpls`` are not used.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lmm.data.sources.base import Caption
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.motion.arrays import read_npz
from lmm.motion.body import SMPL_24, SMPLH_52, SMPLX_55, BodyModel
from lmm.motion.kinematics import local_translations
from lmm.motion.motion import Motion
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import rotate

LICENCE = "AMASS: non-commercial research, and each sub-data-set's own terms"

# Folders that AMASS's archives unpacked to in 2019, and what they are called today; HumanML3D speaks of the former.
RENAMED = {
    **{"BioMotionLab_NTroje": "BMLrub", "DFaust_67": "DFaust", "MPI_HDM05": "HDM05", "MPI_Limits": "PosePrior"},
    **{"MPI_mosh": "MoSh", "SSM_synced": "SSM", "TCD_handMocap": "TCDHands", "Transitions_mocap": "Transitions"},
}
_SUB_DATA_SETS = {*RENAMED, *RENAMED.values()} | set(
    "ACCAD BMLhandball BMLmovi CMU CNRS DanceDB EKUT Eyes_Japan_Dataset GRAB HUMAN4D HumanEva KIT SFU SOMA "
    "TotalCapture WEIZMANN".split()
)
# Seconds of T-pose or calibration at the beginning, as HumanML3D cuts them.
LEADING = {
    "Eyes_Japan_Dataset": 3.0,
    "MPI_HDM05": 3.0,
    "TotalCapture": 1.0,
    "MPI_Limits": 1.0,
    "Transitions_mocap": 0.5,
}
_OF_2019 = {today: name for name, today in RENAMED.items()}
_SKELETONS = {s.num_joints: s for s in (HUMANML3D_22, SMPL_24, SMPLH_52, SMPLX_55)}
_FAMILIES = {"smpl": 24, "smplh": 52, "smplx": 55, "smplx_locked_head": 55}
_PARTS = ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")  # in the order of SMPL-X's joints
_RATES = ("mocap_framerate", "mocap_frame_rate")
_LOWEST_FPS, _HIGHEST_FPS = 5.0, 1000.0
_MAX_POSES = 10_000_000  # joints x frames: SMPL-H for 26 minutes at 120 fps
_LARGEST = {"poses": 50.0}  # radians; degrees would be more
_FARTHEST = 1000.0  # m, and betas; beyond is no recording in these units
_Z_UP_TO_Y_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # (x, y, z) -> (x, z, -y)


class AMASS(RawSource):
    """AMASS's .npz files, SMPL-H and SMPL-X, also those of others in this format.

    Args:
        folder: AMASS's folder or one of its sub-data-sets.
        body_models: folder with your licensed body models (see `BodyModel.find`), or one such file for everybody.
            Without it the joints are those of a template body posed by the recorded rotations, or the file's own
            ``joints`` where it has them.
        trim: leave out the leading T-pose or calibration of some sub-data-sets, as HumanML3D does.
        licence: tag for the manifest.
    """

    patterns = ("*.npz",)

    def __init__(
        self, folder: str, *, body_models: str | None = None, trim: bool = True, licence: str = LICENCE
    ) -> None:
        super().__init__(folder)
        self.body_models = body_models
        self.trim = trim
        self.licence = licence

    def files(self) -> list[Path]:
        """All recordings, sorted: the ``.npz`` that are no body shapes.

        Raises:
            ValueError: the folder is missing, or holds no recording.
        """
        found = [file for file in super().files() if file.name != "shape.npz" and not file.stem.endswith("_stagei")]
        if not found:
            raise ValueError(f"{self.folder} holds body shapes only (shape.npz, *_stagei.npz) and no recording")
        return found

    def read(self, file: Path) -> Iterator[Recording]:
        """The recording of one file, hands and all, y up, at its own frame rate."""
        poses = read_poses(file)
        subset = sub_data_set(file, self.folder)
        captions, operations = self.captions(file), []
        frames = len(poses.trans)
        seconds = LEADING.get(_OF_2019.get(subset, subset), 0.0) if self.trim else 0.0
        if seconds:
            leading = round(seconds * poses.fps)
            if leading >= len(poses.trans):
                raise ValueError(
                    f"{file} lasts {len(poses.trans) / poses.fps:.1f} s, and the first {seconds:g} s of {subset} are "
                    "left out; import it with trim false"
                )
            poses = poses.frames(slice(leading, None))
            later = tuple(_later(captions, seconds))
            gone = f", and {len(captions) - len(later)} captions about them" if len(later) < len(captions) else ""
            captions = later
            operations.append(f"first {seconds:g} s left out{gone}, as HumanML3D does with {subset}")
        motion, how, flags = to_motion(poses, self.body_models, file)
        yield Recording(
            id=self.name(file),
            motion=rotate(motion, _Z_UP_TO_Y_UP),
            captions=captions,
            operations=(*operations, how, "turned from z up to y up: (x, z, -y)"),
            flags=(f"sub-data-set {subset}", *flags),
            extra=poses.extra,
            source_frames=frames,
        )


class Poses(NamedTuple):
    """What a file says of its body.

    Args:
        vectors: rotation vectors "T J 3", radians.
        trans: SMPL's translation "T 3" in metres, z up.
        betas: shape coefficients "S".
        gender: ``male``, ``female`` or ``neutral``.
        fps: frames per second.
        joints: positions "T K 3" that somebody added to the file; None as AMASS ships it.
    """

    vectors: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    gender: str
    fps: float
    joints: np.ndarray | None

    @property
    def skeleton(self) -> Skeleton:
        """The family's skeleton."""
        return _SKELETONS[self.vectors.shape[1]]

    @property
    def extra(self) -> dict[str, np.ndarray]:
        """What is kept beside the motion."""
        return {"betas": self.betas, "gender": np.array(self.gender)}

    def frames(self, frames: slice) -> "Poses":
        """Some of the frames, at the same nominal rate."""
        joints = None if self.joints is None else self.joints[frames]
        return self._replace(vectors=self.vectors[frames], trans=self.trans[frames], joints=joints)


def read_poses(file: Path) -> Poses:
    """The parameters of one file, checked.

    Raises:
        ValueError: the file cannot be read, an array is missing, has another shape or holds NaN; which, and where.
    """
    names = ("poses", *_PARTS, "trans", "betas", "gender", *_RATES, "surface_model_type", "joints")
    arrays = read_npz(file, names)
    try:
        return _poses(arrays)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def to_motion(
    poses: Poses, body_models: str | None, file: Path, *, num_betas: int | None = None
) -> tuple[Motion, str, tuple[str, ...]]:
    """A motion, z up; where its joints come from; and flags.

    Args:
        poses: the file's parameters.
        body_models: see `AMASS`.
        file: for messages.
        num_betas: shape coefficients to use at most; None for all that the body model has.

    Raises:
        ValueError: there is no body model for this body.
    """
    skeleton, trans = poses.skeleton, torch.from_numpy(poses.trans)
    rotations = axis_angle_to_matrix(torch.from_numpy(poses.vectors))
    if body_models is not None:
        if skeleton is HUMANML3D_22:
            raise ValueError(f"{file} poses 22 joints, which no body model has; import it without body models")
        model = _body_model(body_models, skeleton.num_joints, poses.gender)
        betas = torch.from_numpy(poses.betas[: min(model.num_betas, num_betas or model.num_betas)])
        motion = Motion(model.joints(rotations, trans, betas), poses.fps, model.skeleton(betas), rotations)
        used = f"{len(betas)} of {len(poses.betas)} betas"
        return motion, f"joints from the body model {model.file.name} with {used}", ()
    if poses.joints is not None:
        count = poses.joints.shape[1]
        skeleton, rotations = _SKELETONS[count], rotations[:, :count]
        joints = torch.from_numpy(poses.joints)
        bones = local_translations(joints, rotations, skeleton).median(dim=0).values
        offsets = ((0.0, 0.0, 0.0), *((x, y, z) for x, y, z in bones[1:].tolist()))
        return Motion(joints, poses.fps, replace(skeleton, offsets=offsets), rotations), "joints as in the file", ()
    joints = skeleton.forward_kinematics(rotations, trans)
    how = "joints from the template body, shape ignored"
    return Motion(joints, poses.fps, skeleton, rotations), how, (how,)


def sub_data_set(file: Path, folder: Path) -> str:
    """The sub-data-set a file is of: the nearest folder above it with such a name, else the first below ``folder``."""
    for part in reversed(file.absolute().parent.parts):
        if part in _SUB_DATA_SETS:
            return part
    return file.relative_to(folder).parts[0] if file.parent != folder else folder.absolute().name


@lru_cache(maxsize=4)
def _body_model(path: str, num_joints: int, gender: str) -> BodyModel:
    return BodyModel.find(path, _SKELETONS[num_joints], gender=gender)


def _poses(arrays: dict[str, np.ndarray]) -> Poses:
    parts = [arrays[name] for name in _PARTS if name in arrays]
    flat = arrays.get("poses")
    if flat is None and parts and all(part.ndim == 2 and len(part) == len(parts[0]) for part in parts):
        flat = np.concatenate(parts, axis=1)
    rate = next((arrays[name] for name in _RATES if name in arrays), None)
    absent = {"poses": flat, "trans": arrays.get("trans"), "betas": arrays.get("betas")}
    absent |= {"gender": arrays.get("gender"), "mocap_framerate": rate}
    if missing := [name for name, value in absent.items() if value is None]:
        raise ValueError(f"has no {', '.join(missing)} (it holds {', '.join(arrays) or 'nothing of AMASS'})")
    assert flat is not None and rate is not None
    if flat.ndim != 2 or not len(flat) or flat.shape[1] not in [3 * count for count in _SKELETONS]:
        raise ValueError(f"poses are {flat.shape}, expected (T, 156) for SMPL-H or (T, 165) for SMPL-X")
    frames, count = len(flat), flat.shape[1] // 3
    if flat.size // 3 > _MAX_POSES:
        raise ValueError(f"{frames} frames of {count} joints are too many; cut it into shorter files")
    family = _text(arrays["surface_model_type"], "surface_model_type") if "surface_model_type" in arrays else ""
    if _FAMILIES.get(family, count) != count:
        raise ValueError(f"is said to be {family}, but has {count} joints")
    if rate.dtype.kind not in "fiu" or rate.size != 1 or not _LOWEST_FPS <= float(rate.ravel()[0]) <= _HIGHEST_FPS:
        raise ValueError(f"has a frame rate of {rate}, expected {_LOWEST_FPS:g} to {_HIGHEST_FPS:g}")
    gender = _text(arrays["gender"], "gender").lower()
    if gender not in ("male", "female", "neutral"):
        raise ValueError(f"has the gender {gender!r}, expected male, female or neutral")
    betas = _floats("betas", np.atleast_2d(arrays["betas"]), (1, None))[0]
    joints = arrays.get("joints")
    if joints is not None:
        sizes = [size for size in _SKELETONS if size <= count]
        if joints.ndim != 3 or joints.shape[1] not in sizes:
            raise ValueError(f"joints are {joints.shape}, expected (T, J, 3) with J of {', '.join(map(str, sizes))}")
        joints = _floats("joints", joints, (frames, None, 3))
    vectors = _floats("poses", flat, (frames, 3 * count)).reshape(frames, count, 3)
    return Poses(vectors, _floats("trans", arrays["trans"], (frames, 3)), betas, gender, float(rate.ravel()[0]), joints)


def _floats(name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array as float32.

    Raises:
        ValueError: another shape, or values that are none; which frames.
    """
    fits = len(shape) == array.ndim and all(n in (None, m) for n, m in zip(shape, array.shape, strict=False))
    if not fits or array.dtype.kind not in "fiu":
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} are {array.shape} of {array.dtype}, expected ({wanted}) numbers")
    limit = _LARGEST.get(name, _FARTHEST)
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32)
        bad = ~(np.abs(array.reshape(len(array), -1)) < limit).all(axis=1)
    if bad.any():
        which = np.flatnonzero(bad)
        what = f"frame {which[0]}" if len(which) == 1 else f"{len(which)} frames, {which[0]} to {which[-1]}"
        raise ValueError(f"{name} hold NaN, Inf or more than {limit:g} (radians, metres) in {what}; cut them out")
    return array


def _text(array: np.ndarray, name: str) -> str:
    if array.size != 1 or array.dtype.kind not in "US":
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, expected a word")
    value = array.ravel()[0]
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _later(captions: tuple[Caption, ...], seconds: float) -> Iterator[Caption]:
    """Captions after the first seconds were cut off; those about nothing but these seconds are gone with them."""
    for caption in captions:
        if caption.start == caption.end == 0:
            yield caption
        elif caption.end > seconds:
            yield caption._replace(start=max(caption.start - seconds, 0.0), end=caption.end - seconds)
