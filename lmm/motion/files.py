"""One motion, one file: ours out and in, anybody's in; the extension says which format.

``.npz`` (ours, keeps everything), ``.npy`` (new_joints of HumanML3D or KIT-ML, in their units), ``.bvh``, ``.glb`` and
``.gltf`` are written and read; ``.bvh.gz`` and ``.amc`` (with its ``.asf`` beside it) are read.

Our ``.npz`` holds ``joints`` (T, J, 3) in metres, ``fps``, ``names``, ``parents``, ``offsets``, ``parts`` (the name of
each joint's part), ``rotations`` (T, J, 3, 3) where they are known, and ``caption``. Nothing in it is pickled. On the
joints of the SMPL family with rotations it also holds what AMASS calls them: ``poses`` (T, 3J) in axis-angle, ``trans``
(T, 3) and ``mocap_framerate``. Mind two differences: y is up here (z in AMASS), and ``trans`` is where the pelvis is;
SMPL's translation is that minus the pelvis of the body model's rest pose.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmm.motion.arrays import npz_names, read_npz
from lmm.motion.bvh import read_bvh, write_bvh
from lmm.motion.motion import Motion
from lmm.motion.rotations import matrix_to_quaternion
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import check_fps

SAVED = (".npz", ".npy", ".bvh", ".glb", ".gltf")
_READ_ONLY = (".bvh.gz", ".amc", ".amc.gz")
_NPY_FPS = 20.0  # new_joints carry no frame rate; HumanML3D's is 20
_OWN = {"joints", "fps", "names", "parents", "offsets", "parts", "caption", "rotations"}
_AMASS = {"poses", "trans", "mocap_framerate"}
_MAX_POSES = 20_000_000  # joints x frames


def load_motion(file: str | Path, *, fps: float | None = None, scale: float = 0.01) -> Motion:
    """Read a motion; the extension says how.

    Args:
        file: ``.npz``, ``.npy`` (joints (T, 22, 3) of HumanML3D, in metres, or (T, 21, 3) of KIT-ML, in the units of
            `KITFeatures`), ``.bvh``, ``.bvh.gz``, ``.amc``, ``.amc.gz``, ``.glb`` or ``.gltf``.
        fps: frame rate of a file that tells none: ``.npy`` (20 if not given, 12.5 for KIT-ML), ``.amc`` (120); for
            glTF, whose tracks are continuous, the rate to sample them at.
        scale: metres per unit of a ``.bvh``; 0.01 for centimetres.

    Raises:
        ValueError: what is wrong with the file, and what to do.
    """
    path = Path(file)
    suffix = _suffix(path, (*SAVED, *_READ_ONLY))
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if fps is not None and suffix in (".npz", ".bvh", ".bvh.gz"):
        raise ValueError(f"{path}: tells its own frame rate; leave fps out, and resample where another is wanted")
    check_fps(_NPY_FPS if fps is None else fps, f"{path}: ")
    if suffix in (".bvh", ".bvh.gz"):
        return read_bvh(path, scale=scale)
    if suffix in (".amc", ".amc.gz"):
        from lmm.motion.asfamc import read_amc

        return read_amc(path) if fps is None else read_amc(path, fps=fps)
    if suffix in (".glb", ".gltf"):
        from lmm.motion.gltf import read_gltf

        return read_gltf(path, fps=fps)
    return _load_npz(path) if suffix == ".npz" else _load_npy(path, fps)


def load_caption(file: str | Path) -> str:
    """The caption kept beside a motion in ``.npz``, ``.glb`` or ``.gltf``; empty where there is none."""
    path = Path(file)
    suffix = _suffix(path, (*SAVED, *_READ_ONLY))
    if suffix in (".glb", ".gltf"):
        from lmm.motion.gltf import read_gltf_caption

        return read_gltf_caption(path)
    return str(read_npz(path, ["caption"]).get("caption", "")) if suffix == ".npz" else ""


def load_extra(file: str | Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays that an ``.npz`` holds besides the motion (``betas``, ``gender``, ...), or those of these names.

    Other formats have none but, in glTF too, ``rotations_fitted``: the rotations are not recorded.
    """
    path = Path(file)
    suffix = _suffix(path, (*SAVED, *_READ_ONLY))
    if suffix in (".glb", ".gltf"):
        from lmm.motion.gltf import read_gltf_fitted

        return {"rotations_fitted": np.array(True)} if read_gltf_fitted(path) else {}
    return read_npz(path, set(names or npz_names(path)) - _OWN - _AMASS) if suffix == ".npz" else {}


def save_motion(
    file: str | Path,
    motion: Motion,
    caption: str = "",
    *,
    extra: Mapping[str, np.ndarray] | None = None,
    rigid: bool = False,
) -> None:
    """Write a motion; the extension says how.

    Args:
        file: ``.npz``, ``.npy`` (22 joints at 20 fps, or KIT-ML's 21 at 12.5, only), ``.bvh``, ``.glb`` or ``.gltf``.
        motion: joints "T J 3", no batch.
        caption: what the motion shows; ``.npz`` and glTF keep it.
        extra: further arrays for an ``.npz``, under their names (``betas``, ``gender``).
        rigid: for BVH and glTF, let no joint but the root travel (see `write_bvh`).

    Raises:
        ValueError: the format cannot hold this motion.
    """
    path = Path(file)
    suffix = _suffix(path, SAVED)
    joints = motion.joints.detach().cpu().float().numpy()
    if joints.ndim != 3 or not joints.size:
        raise ValueError(f"{path}: holds one motion (T, J, 3), got {joints.shape}; save each motion to its own file")
    check_fps(motion.fps, f"{path}: ")
    if extra and suffix != ".npz":
        raise ValueError(f"{path}: cannot keep {', '.join(extra)}; save as .npz")
    if rigid and suffix in (".npz", ".npy"):
        raise ValueError(f"{path}: holds the joints as they are; rigid is for .bvh, .glb and .gltf")
    if suffix == ".bvh":
        write_bvh(path, motion, rigid=rigid)
    elif suffix in (".glb", ".gltf"):
        from lmm.motion.gltf import write_gltf

        write_gltf(path, motion, caption=caption, rigid=rigid)
    elif suffix == ".npy":
        skeleton, fps, units = _npy_body(motion.skeleton.num_joints)
        if (motion.skeleton.names, motion.fps) != (skeleton.names, fps):
            raise ValueError(
                f"{path}: .npy holds HumanML3D's 22 joints at 20 fps or KIT-ML's 21 at 12.5, got "
                f"{motion.skeleton.num_joints} joints at {motion.fps:g} fps; {_npy_remedy(motion, skeleton, fps)}, or "
                "save as .npz, .bvh or .glb"
            )
        np.save(path, joints * units, allow_pickle=False)
    else:
        _save_npz(path, motion, joints, caption, extra or {})


def check_written(file: str | Path, motion: Motion) -> float:
    """Read a file back and compare.

    Args:
        file: what `save_motion` or `write_gltf` wrote (with a body: of ``pose_body(motion, body)``).
        motion: what was written.

    Returns:
        The largest distance of a joint from where it should be, in metres.

    Raises:
        ValueError: the file cannot be read, or holds other joints, frames or another frame rate.
    """
    back = load_motion(file)
    ours, theirs = (["_".join(name.split()) for name in m.skeleton.names] for m in (motion, back))
    if len(set(ours)) < len(ours):
        raise ValueError(f"{file}: two joints of one name cannot be told apart; rename them")
    if set(ours) != set(theirs) or back.num_frames != motion.num_frames or abs(back.fps / motion.fps - 1) > 1e-3:
        raise ValueError(
            f"{file}: reads back as {back.num_frames} frames of {len(theirs)} joints at {back.fps:g} fps, written were "
            f"{motion.num_frames} of {len(ours)} at {motion.fps:g}; write it again, and report it if that does not help"
        )
    joints = back.joints[:, [theirs.index(name) for name in ours]]
    return float((joints - motion.joints.detach().cpu().float()).norm(dim=-1).max())


def _suffix(path: Path, known: tuple[str, ...]) -> str:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = "".join(path.suffixes[-2:]).lower()
    if suffix not in known:
        raise ValueError(f"{path}: unknown extension {suffix!r}; motions are kept as {', '.join(known)}")
    return suffix


def _save_npz(path: Path, motion: Motion, joints: np.ndarray, caption: str, extra: Mapping[str, np.ndarray]) -> None:
    skeleton = motion.skeleton
    if clash := sorted((_OWN | _AMASS) & set(extra)):
        raise ValueError(f"{path}: {', '.join(clash)} are the motion's own arrays; give the extra ones other names")
    part = {joint: name for name, joints_ in skeleton.parts.items() for joint in joints_}
    arrays: dict[str, Any] = {
        "joints": joints,
        "fps": np.float64(motion.fps),
        "names": np.array(skeleton.names),
        "parents": np.array(skeleton.parents, np.int64),
        "offsets": np.array(skeleton.offsets, np.float64),
        "parts": np.array([part[joint] for joint in range(skeleton.num_joints)]),
        "caption": np.array(caption),
        **extra,
    }
    if motion.rotations is not None:
        rotations = motion.rotations.detach().cpu().float()
        arrays["rotations"] = rotations.numpy()
        if skeleton.names[: HUMANML3D_22.num_joints] == HUMANML3D_22.names:
            w, axis = matrix_to_quaternion(rotations.double()).split([1, 3], dim=-1)
            size = axis.norm(dim=-1, keepdim=True)
            angle = 2 * torch.atan2(size, w)
            poses = torch.where(size > 1e-12, axis / size.clamp_min(1e-12) * angle, 2 * axis)
            arrays["poses"] = poses.flatten(-2).float().numpy()
            arrays["trans"] = joints[:, 0]
            arrays["mocap_framerate"] = np.float64(motion.fps)
    np.savez_compressed(path, **arrays)


def _npy_remedy(motion: Motion, skeleton: Skeleton, fps: float) -> str:
    """What would make a motion fit into .npy; the skeleton and frame rate of its kind of .npy."""
    if motion.skeleton.names == skeleton.names:
        return f"resample it (lmm convert --fps {fps:g})"
    if set(HUMANML3D_22.names) <= set(motion.skeleton.names):
        return "take the 22 joints alone (lmm convert does, or lmm.motion.transforms.select)"
    return "map a .bvh or .amc of another skeleton (lmm convert --format bvh, or asfamc)"


def _load_npz(path: Path) -> Motion:
    arrays = read_npz(path, _OWN - {"caption"})
    if missing := [name for name in ("joints", "fps", "names", "parents") if name not in arrays]:
        holds = ", ".join(npz_names(path)) or "nothing"
        raise ValueError(
            f"{path}: has no {', '.join(missing)} (it holds {holds}); it is no motion file of "
            "ours: AMASS files are read by `lmm convert --format amass` and `lmm data import amass`; otherwise build a "
            "Motion and write it with save_motion"
        )
    names, parents = arrays["names"].ravel().tolist(), arrays["parents"].ravel().tolist()
    offsets = arrays.get("offsets", np.zeros((len(names), 3)))
    labels = arrays.get("parts", np.full(len(names), "body")).ravel().tolist()
    parts = {str(label): tuple(j for j, own in enumerate(labels) if own == label) for label in dict.fromkeys(labels)}
    joints, rotations, fps = arrays["joints"], arrays.get("rotations"), arrays["fps"]
    try:
        if joints.ndim != 3 or joints.shape[1:] != (len(names), 3) or not joints.size or joints.dtype.kind not in "fiu":
            raise ValueError(f"expected joints (T, {len(names)}, 3), one motion, got {joints.shape} of {joints.dtype}")
        if joints.shape[0] * joints.shape[1] > _MAX_POSES:
            raise ValueError(f"{joints.shape[0]} frames of {joints.shape[1]} joints are too many; cut it")
        if rotations is not None and (rotations.shape != (*joints.shape, 3) or not np.isfinite(rotations).all()):
            raise ValueError(f"expected finite rotations {(*joints.shape, 3)}, got {rotations.shape} or NaN")
        if not np.isfinite(offsets).all():
            raise ValueError("offsets contain NaN or Inf")
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
            fps=check_fps(float(fps)),
            skeleton=skeleton,
            rotations=None if rotations is None else torch.from_numpy(rotations.astype(np.float32)),
        )
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"{path}: {error}; correct it, or write it again with save_motion") from error


def load_array(file: str | Path) -> np.ndarray:
    """An array of numbers from a ``.npy``, not read into memory yet; never unpickled.

    Raises:
        ValueError: no such array.
    """
    path = Path(file)
    try:  # a header that lies about its size allocates nothing where the file is mapped
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy's header parser raises a dozen kinds on broken bytes
        raise ValueError(f"{path}: not a readable .npy ({error}); copy or write it again") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: is an archive, not an array; call it .npz")
    return array


def _load_npy(path: Path, fps: float | None) -> Motion:
    array = load_array(path)
    if not array.ndim:
        raise ValueError(f"{path}: holds one number; expected joints (T, 22, 3)")
    if array.ndim == 2 and array.shape[1] > 3:
        raise ValueError(
            f"{path}: (T, {array.shape[1]}) are features, not joints (T, J, 3); say of which representation: "
            f"lmm convert {path.name} OUT --representation HumanML3DFeatures (or JointPositions, ...)"
        )
    skeleton, usual, units = _npy_body(array.shape[1] if array.ndim == 3 else 0)
    if array.shape != (len(array), skeleton.num_joints, 3) or not len(array) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected joints (T, 22, 3) in metres, or KIT-ML's (T, 21, 3), got {array.shape} of "
            f"{array.dtype}; for another skeleton use .npz, which carries its names and tree"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: joints contain NaN or Inf; repair the clip or leave it out")
    joints = torch.from_numpy(np.array(array, np.float32) / units)
    return Motion(joints=joints, fps=usual if fps is None else fps, skeleton=skeleton)


def _npy_body(num_joints: int) -> tuple[Skeleton, float, np.ndarray]:
    """The data set whose new_joints have so many joints, HumanML3D if none has: skeleton, frame rate, units a metre."""
    if num_joints == 21:
        from lmm.motion.representations.kit import KIT_21, KITFeatures

        return KIT_21, KITFeatures.fps, np.array(KITFeatures.units, np.float32)
    return HUMANML3D_22, _NPY_FPS, np.ones(3, np.float32)
