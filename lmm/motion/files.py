"""One motion, one file: ``.npz`` (ours, keeps everything), ``.npy`` (HumanML3D's new_joints), ``.bvh`` (3D programs).

Our ``.npz`` holds ``joints`` (T, J, 3) in metres, ``fps``, ``names``, ``parents``, ``offsets``, ``parts`` (the name of
each joint's part), ``rotations`` (T, J, 3, 3) where they are known, and ``caption``. Nothing in it is pickled.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmm.motion.bvh import read_bvh, write_bvh
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

_NPY_FPS = 20.0  # new_joints carry no frame rate; HumanML3D's is 20
_EXTENSIONS = ".npz, .npy, .bvh"


def load_motion(file: str | Path) -> Motion:
    """Read a motion; the extension says how.

    Args:
        file: ``.npz``, ``.npy`` (joints (T, 22, 3) in metres at 20 fps) or ``.bvh`` (centimetres; see `read_bvh`).

    Raises:
        ValueError: what is wrong with the file, and what to do.
    """
    path = Path(file)
    suffix = _suffix(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if suffix == ".bvh":
        return read_bvh(path)
    return _load_npz(path) if suffix == ".npz" else _load_npy(path)


def load_caption(file: str | Path) -> str:
    """The caption kept beside a motion: that of an ``.npz``; empty where the file has none or cannot hold one."""
    path = Path(file)
    return str(_read_npz(path).get("caption", "")) if _suffix(path) == ".npz" else ""


def save_motion(file: str | Path, motion: Motion, caption: str = "") -> None:
    """Write a motion; the extension says how.

    Args:
        file: ``.npz``, ``.npy`` (22 joints at 20 fps only) or ``.bvh``.
        motion: joints "T J 3", no batch.
        caption: what the motion shows; only ``.npz`` can keep it.

    Raises:
        ValueError: the format cannot hold this motion.
    """
    path = Path(file)
    suffix = _suffix(path)
    joints = motion.joints.detach().cpu().float().numpy()
    if joints.ndim != 3 or not joints.size:
        raise ValueError(f"{path}: holds one motion (T, J, 3), got {joints.shape}; save each motion to its own file")
    skeleton = motion.skeleton
    if suffix == ".bvh":
        write_bvh(path, motion)
    elif suffix == ".npy":
        if (skeleton.names, motion.fps) != (HUMANML3D_22.names, _NPY_FPS):
            raise ValueError(
                f"{path}: .npy holds HumanML3D's 22 joints at 20 fps, got {skeleton.num_joints} joints at "
                f"{motion.fps:g} fps; save as .npz or .bvh, or resample first"
            )
        np.save(path, joints, allow_pickle=False)
    else:
        part = {joint: name for name, joints_ in skeleton.parts.items() for joint in joints_}
        arrays: dict[str, Any] = {
            "joints": joints,
            "fps": np.float64(motion.fps),
            "names": np.array(skeleton.names),
            "parents": np.array(skeleton.parents, np.int64),
            "offsets": np.array(skeleton.offsets, np.float64),
            "parts": np.array([part[joint] for joint in range(skeleton.num_joints)]),
            "caption": np.array(caption),
        }
        if motion.rotations is not None:
            arrays["rotations"] = motion.rotations.detach().cpu().float().numpy()
        np.savez_compressed(path, **arrays)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _EXTENSIONS.split(", "):
        raise ValueError(f"{path}: unknown extension {suffix!r}; motions are kept as {_EXTENSIONS}")
    return suffix


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        MemoryError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path}: not a readable .npz ({error}); write it again with save_motion") from error


def _load_npz(path: Path) -> Motion:
    arrays = _read_npz(path)
    if missing := [name for name in ("joints", "fps", "names", "parents") if name not in arrays]:
        raise ValueError(
            f"{path}: has no {', '.join(missing)} (it holds {', '.join(arrays) or 'nothing'}); it is no motion file of "
            "ours: build a Motion and write it with save_motion"
        )
    names, parents = arrays["names"].ravel().tolist(), arrays["parents"].ravel().tolist()
    offsets = arrays.get("offsets", np.zeros((len(names), 3)))
    labels = arrays.get("parts", np.full(len(names), "body")).ravel().tolist()
    parts = {str(label): tuple(j for j, own in enumerate(labels) if own == label) for label in dict.fromkeys(labels)}
    joints, rotations, fps = arrays["joints"], arrays.get("rotations"), arrays["fps"]
    try:
        if joints.ndim != 3 or joints.shape[1:] != (len(names), 3) or not joints.size or joints.dtype.kind not in "fiu":
            raise ValueError(f"expected joints (T, {len(names)}, 3), one motion, got {joints.shape} of {joints.dtype}")
        if rotations is not None and (rotations.shape != (*joints.shape, 3) or not np.isfinite(rotations).all()):
            raise ValueError(f"expected finite rotations {(*joints.shape, 3)}, got {rotations.shape} or NaN")
        if not np.isfinite(fps):
            raise ValueError(f"fps is {fps}")
        skeleton = Skeleton(
            names=tuple(str(name) for name in names),
            parents=tuple(int(parent) for parent in parents),
            offsets=tuple((float(x), float(y), float(z)) for x, y, z in offsets),
            parts=parts,
        )
        if skeleton.names == HUMANML3D_22.names:  # one order of the parts for all files of this body
            skeleton = Skeleton(skeleton.names, skeleton.parents, skeleton.offsets, HUMANML3D_22.parts)
        return Motion(
            joints=torch.from_numpy(joints.astype(np.float32)),
            fps=float(fps),
            skeleton=skeleton,
            rotations=None if rotations is None else torch.from_numpy(rotations.astype(np.float32)),
        )
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: {error}; write it again with save_motion") from error


def _load_npy(path: Path) -> Motion:
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")  # a header that lies about its size allocates nothing
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npy ({error}); copy or write it again") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: is an archive, not an array; call it .npz")
    if array.ndim == 2 and array.shape[1] == 263:
        raise ValueError(
            f"{path}: (T, 263) are HumanML3D features, not joints; decode them first: "
            "save_motion(out, HumanML3DFeatures().decode(torch.from_numpy(np.load(file))))"
        )
    if array.ndim != 3 or array.shape[1:] != (22, 3) or not len(array) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected joints (T, 22, 3) in metres, got {array.shape} of {array.dtype}; for another skeleton "
            "use .npz, which carries its names and tree"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: joints contain NaN or Inf; repair the clip or leave it out")
    return Motion(joints=torch.tensor(np.array(array, np.float32)), fps=_NPY_FPS, skeleton=HUMANML3D_22)
