"""``lmm convert``: from any motion format to any other, and the file that was written is read back and measured.

It is written beside its place and moved there when it gave the motion back, so that a failure leaves nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmm.motion.body import BodyMesh
    from lmm.motion.motion import Motion
    from lmm.motion.representations import MotionRepresentation

_DRAWN = (".html", ".mp4", ".gif", ".png")
_TOLERANCE = 1e-3  # metres


def convert(
    source: str,
    target: str,
    format: str | None = None,
    representation: str | None = None,
    to: str | None = None,
    fps: float | None = None,
    input_fps: float | None = None,
    scale: float = 0.01,
    body: str | None = None,
    mirror: bool = False,
    clean_up: bool = False,
    rigid: bool = False,
    fit_rotations: bool = False,
) -> None:
    """Convert a motion file: .npz .npy .bvh .bvh.gz .amc .glb .gltf in, .npz .npy .bvh .glb .gltf or a picture out.

    Args:
        source: the file to read; .npy holds joints (T, 22, 3) in metres, or features with --representation.
        target: the file to write, also .html, .mp4, .gif or .png; .npy gets joints, or features with --to.
        format: read the input as this format of `lmm data import` (bvh, asfamc, amass, ...): mapped to SMPL's joints.
        representation: the input is a .npy of features of this class, say HumanML3DFeatures, or a.module.Class.
        to: write a .npy of features of this class, in its own frame rate and joints.
        fps: frame rate to write; left out, that of the input.
        input_fps: frame rate of an input that tells none (.npy, .amc, some formats), or to sample a glTF at.
        scale: metres per unit of a .bvh.
        body: SMPL-family model file (.npz, .pkl): the .glb or .gltf shows its skin, in the shape (betas) of the input.
        mirror: exchange left and right.
        clean_up: put the motion on the floor and stop sliding feet.
        rigid: keep bone lengths constant in .bvh and glTF, as some retargeting tools expect.
        fit_rotations: where the input has positions only, estimate rotations for .npz and --to (.bvh and glTF always).

    Raises:
        ValueError: what cannot be read or written, or the file does not give the motion back within 1 mm; then there is
            none.
    """
    import numpy as np

    from lmm.data.sources.raw import about_foreign, read_recording
    from lmm.data.sources.raw.joints import size_note
    from lmm.motion import transforms
    from lmm.motion.cleanup import clean_up as plant_feet
    from lmm.motion.files import SAVED, load_caption, load_extra, load_motion

    out = Path(target)
    ending = out.suffix.lower()
    _check(source, out, SAVED, to, body, fit_rotations)
    caption, extra = "", {}
    if format is not None:
        if representation is not None:
            raise ValueError("--format and --representation both say what the input is; give one of them")
        recording = read_recording(source, format, source_fps=input_fps)
        motion, extra = recording.motion, recording.extra
        caption = recording.captions[0].text if recording.captions else ""
        print(*recording.operations, *(f"note: {flag}" for flag in recording.flags), sep="\n")
    elif representation is not None:
        motion = _decode(source, _representation(representation), input_fps)
    else:
        motion, caption = load_motion(source, fps=input_fps, scale=scale), load_caption(source)
        extra = load_extra(source, ["betas", "gender", "rotations_fitted"])
    if note := size_note(motion, source, scale):
        print(note)
    try:
        if mirror:
            motion = transforms.mirror(motion)
        if clean_up:
            motion = plant_feet(transforms.put_on_floor(motion))
        if to is not None:
            _encode(out, motion, _representation(to), fps, fit_rotations)
            return
        if fps is not None and fps != motion.fps:
            motion = transforms.resample(motion, fps)
    except ValueError as why:
        raise about_foreign(source, motion, why) from why
    if ending in _DRAWN:
        from lmm.render import draw

        with _beside(out) as place:
            draw(place, [motion], [caption or Path(source).stem])
        print(f"{out}: {_words(motion)}")
        return
    from lmm.motion.files import check_written, save_motion
    from lmm.motion.gltf import pose_body, write_gltf

    if ending == ".npy":
        motion = _without_hands(motion)
    needed = fit_rotations or ending in (".bvh", ".glb", ".gltf")
    fitted = "rotations_fitted" in extra or (needed and motion.rotations is None)
    if fit_rotations or body is not None:
        motion = _with_rotations(motion)
    with _beside(out) as place:
        if ending in (".glb", ".gltf"):
            mesh = None if body is None else _body(body, extra)
            write_gltf(place, motion, body=mesh, caption=caption, rigid=rigid, fitted=fitted)
            motion = motion if mesh is None else pose_body(motion, mesh)
        else:
            extra = extra | ({"rotations_fitted": np.array(True)} if fitted else {})
            save_motion(place, motion, caption, extra=extra if ending == ".npz" else None, rigid=rigid)
        error = check_written(place, motion)
        if error > _TOLERANCE:
            cause = (
                "its bones stretch, or its hips and shoulders shift, which --rigid does not write: leave --rigid out"
                if rigid
                else "that is a fault of ours: please report it with the file"
            )
            raise ValueError(f"{out} is not written: its joints would be {1000 * error:.1f} mm off; {cause}")
    note = ", rotations fitted to joints" if fitted and ending != ".npy" else ""
    print(f"{out}: {_words(motion)}{note}; read back: {1000 * error:.3f} mm off")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A place to write to; what is there becomes ``out`` if nothing is raised."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".lmm_") as folder:
        place = Path(folder) / out.name
        try:
            yield place
        except ValueError as error:
            raise ValueError(str(error).replace(str(place), str(out))) from error
        os.replace(place, out)


def _check(
    source: str, out: Path, saved: tuple[str, ...], to: str | None, body: str | None, fit_rotations: bool
) -> None:
    """Refuse before any work is done."""
    ending = out.suffix.lower()
    if out.resolve() == Path(source).resolve() or (out.exists() and Path(source).exists() and out.samefile(source)):
        raise ValueError(f"{out}: is the input, too; give the output another name")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; give the output another name")
    if fit_rotations and to is None and ending in (".npy", *_DRAWN):
        raise ValueError(f"{out}: holds no rotations; leave out --fit-rotations")
    if ending not in (*saved, *_DRAWN):
        raise ValueError(f"{out}: unknown extension {ending!r}; motions become {', '.join((*saved, *_DRAWN))}")
    if to is not None and ending != ".npy":
        raise ValueError(f"{out}: features are written as .npy; call it {out.with_suffix('.npy')} or leave out --to")
    if body is not None and ending not in (".glb", ".gltf"):
        raise ValueError(f"{out}: only .glb and .gltf hold the skin of a body; leave out --body")


def _words(motion: "Motion") -> str:
    return f"{motion.num_frames} frames, {motion.skeleton.num_joints} joints, {motion.fps:g} fps"


def _representation(name: str) -> "MotionRepresentation":
    """A representation with its default arguments, by class name or by import path."""
    import importlib

    from lmm.motion import representations

    module, _, cls = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else representations, cls, None)
    except ImportError as error:
        raise ValueError(f"there is no representation {name!r} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, representations.MotionRepresentation)):
        raise ValueError(f"there is no representation {name!r}; there are {', '.join(representations.__all__)}")
    try:
        return found()
    except TypeError as error:
        raise ValueError(f"{name} cannot be made without arguments ({error}); use one that can") from error


def _decode(source: str, representation: "MotionRepresentation", input_fps: float | None) -> "Motion":
    """The motion of a file of features."""
    import numpy as np
    import torch

    from lmm.motion.files import load_array

    name, path = type(representation).__name__, Path(source)
    if path.suffix.lower() != ".npy" or not path.is_file():
        raise ValueError(f"{source}: features of {name} are read from .npy; there is no such file")
    array = load_array(path)
    if array.ndim != 2 or array.shape[1] != representation.dim or not len(array) or array.dtype.kind != "f":
        raise ValueError(
            f"{source}: {name} has {representation.dim} features (T, {representation.dim}), got {array.shape} of "
            f"{array.dtype}; name another --representation"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{source}: features contain NaN or Inf; repair the clip or leave it out")
    if input_fps not in (None, representation.fps):
        raise ValueError(f"{source}: {name} is defined at {representation.fps:g} fps; leave out --input-fps")
    return representation.decode(torch.from_numpy(array.astype(np.float32)))


def _encode(
    out: Path, motion: "Motion", representation: "MotionRepresentation", fps: float | None, fit_rotations: bool
) -> None:
    """Write features in the representation's frame rate and joints, and compare what was written."""
    import numpy as np

    from lmm.motion.files import load_array
    from lmm.motion.transforms import resample, select

    name = type(representation).__name__
    if fps not in (None, representation.fps):
        raise ValueError(f"{out}: {name} is defined at {representation.fps:g} fps; leave out --fps")
    if motion.fps != representation.fps:
        motion = resample(motion, representation.fps)
    motion = select(_without_hands(motion), representation.skeleton)
    note = ", rotations fitted to joints" if fit_rotations and motion.rotations is None else ""
    motion = _with_rotations(motion) if fit_rotations else motion
    features = representation.encode(motion).float().numpy()
    with _beside(out) as place:
        np.save(place, features, allow_pickle=False)
        if not np.array_equal(load_array(place), features):
            raise ValueError(f"{out} is not written: it reads back differently; is the disk full?")
    print(f"{out}: {len(features)} rows of {features.shape[1]} features ({name}, {representation.fps:g} fps{note})")


def _without_hands(motion: "Motion") -> "Motion":
    """The 22 joints of a body that has more (SMPL, SMPL-H, SMPL-X), and a word about it; others as they are."""
    from lmm.motion.skeleton import HUMANML3D_22
    from lmm.motion.transforms import select

    more = motion.skeleton.num_joints - HUMANML3D_22.num_joints
    if more <= 0 or not set(HUMANML3D_22.names) <= set(motion.skeleton.names):
        return motion
    print(f"left out {more} joints beyond the 22 (hands)")
    return select(motion, HUMANML3D_22)


def _with_rotations(motion: "Motion") -> "Motion":
    """The motion with its rotations, or with ones that are fitted to its joints, and the offsets that go with them."""
    from dataclasses import replace

    from lmm.motion.kinematics import fit_rotations

    if motion.rotations is not None:
        return motion
    rotations, offsets = fit_rotations(motion.joints, motion.skeleton)
    skeleton = replace(motion.skeleton, offsets=tuple((x, y, z) for x, y, z in offsets.tolist()))
    return replace(motion, skeleton=skeleton, rotations=rotations)


def _body(file: str, extra: dict) -> "BodyMesh":
    """The skin of a body model file, in the shape that the input's ``betas`` say, else in its mean shape."""
    import numpy as np
    import torch

    from lmm.motion.body import BodyModel

    model = BodyModel(file)
    betas = np.asarray(extra.get("betas", np.zeros(1)), np.float32).ravel()
    return model.mesh(torch.from_numpy(betas[: model.num_betas]))
