"""Data sets in HumanML3D's folder layout (Guo et al., CVPR 2022), the one format the whole field reads.

::

    new_joint_vecs/<id>.npy   float32 (T, 263)     read as it is where the representation is HumanML3DFeatures
    motions/<id>.npz          what `lmm data import` writes: rotations and hands too; read for the others if there
    new_joints/<id>.npy       float32 (T, 22, 3)   metres, y up, 20 fps; read for the others where motions/ is not
    texts/<id>.txt            caption#token/POS token/POS ...#start#end   one caption a line, seconds, 0#0 = whole clip
    train.txt val.txt test.txt and any further split list, one id a line
    Mean.npy Std.npy          published statistics of new_joint_vecs, optional
    manifest.jsonl            or any other name: texts about parts of the body, see `hierarchical`; optional
"""

import hashlib
import math
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lmm.data.sources.base import Caption, Clip, MotionSource
from lmm.data.sources.hierarchical import read_hierarchical
from lmm.motion.files import load_motion
from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import select

# Unions of other lists, and lists of what a data set leaves out.
_NOT_SPLITS = {"all", "train_val", "short", "excluded", "none"}


class HumanML3D(MotionSource):
    """HumanML3D, and every data set in its layout with the 22-joint body.

    Every ``<name>.txt`` beside the folders is the split ``<name>``, except all, train_val (unions) and short, excluded,
    none (what is left out). An id may be in several lists (``test_strict`` within ``test``), but train, val and test
    must not share one.

    Args:
        folder: the data set's folder.
        min_frames: clips and sub-clips with fewer rows of features are dropped (the field's rule: 40).
        max_frames: clips and sub-clips with this many rows or more are dropped (the field's rule: 200).
        skip: ids to leave out, such as HumanML3D's broken 007975, M007975, 009707, M009707, 011059, M011059.
        require_captions: refuse a clip without a caption; without it such clips train a tokenizer too.
        hierarchical: file in the folder with texts about parts of the body, such as manifest.jsonl; read if given.
    """

    fps: ClassVar[float] = 20.0
    skeleton: ClassVar[Skeleton] = HUMANML3D_22
    vectors: ClassVar[type[MotionRepresentation]] = HumanML3DFeatures  # what new_joint_vecs holds

    def __init__(
        self,
        folder: str,
        *,
        min_frames: int = 40,
        max_frames: int = 200,
        skip: list[str] | None = None,
        require_captions: bool = True,
        hierarchical: str | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.min_frames = min_frames
        self.max_frames = max_frames
        self.skip = frozenset(skip or ())
        self.require_captions = require_captions
        self.hierarchical = hierarchical
        self.name = self.folder.resolve().name

    def splits(self) -> dict[str, list[str]]:
        """Ids of every split list, in the list's order, without the skipped ones."""
        lists = {file.stem: self._ids(file) for file in self._lists() if file.stem not in _NOT_SPLITS}
        if not lists:
            raise ValueError(f"{self.folder} has no split list; write one id a line into train.txt, val.txt, test.txt")
        for a, b in combinations([name for name in ("train", "val", "test") if name in lists], 2):
            if shared := sorted(set(lists[a]) & set(lists[b])):
                raise ValueError(
                    f"{self.folder / a}.txt and {b}.txt share {len(shared)} ids ({', '.join(shared[:3])}, ...); "
                    f"take them out of one of the two: a model would be judged on what it was trained on"
                )
        return lists

    def fingerprint(self) -> str:
        """Digest of names, sizes and times of all files read, and of the arguments."""
        # Stores that were packed before there was a choice stay valid: only the departure from the rule is named.
        rules: tuple[object, ...] = (self.min_frames, self.max_frames, sorted(self.skip))
        rules += () if self.require_captions else ("uncaptioned",)
        rules += () if self.hierarchical is None else ("hierarchical", self.hierarchical)
        digest = hashlib.sha256(repr(rules).encode())
        files = [(file.name, file.stat()) for file in self._lists()]
        files += [(file.name, file.stat()) for name in ("Mean.npy", "Std.npy") if (file := self.folder / name).exists()]
        if self.hierarchical is not None and (file := self.folder / self.hierarchical).exists():
            files.append((self.hierarchical, file.stat()))
        for name in ("new_joint_vecs", "motions", "new_joints", "texts"):
            if (self.folder / name).is_dir():
                files += scan_files(str(self.folder / name), name)
        for name, stat in sorted(files, key=lambda entry: entry[0]):
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def clips(self, representation: MotionRepresentation) -> Iterator[Clip]:
        """Every clip of every split, sorted by id."""
        # One kind for the whole set: published vectors and ones we encode must not mix.
        read = self._vectors if self._reads_vectors(representation) else self._joints
        if read == self._joints and (self.folder / "motions").is_dir():
            read = self._motion
        elif read == self._joints and not (self.folder / "new_joints").is_dir():
            raise ValueError(
                f"{self.folder} has no folder new_joints or motions, from which {type(representation).__name__} is "
                f"computed; copy it there, or use {self.vectors.__name__} with new_joint_vecs"
            )
        clips = sorted({clip for ids in self.splits().values() for clip in ids})
        details = self._details(clips)
        for clip in clips:
            motion, features = read(clip, representation)
            yield Clip(clip, motion, features, self._captions(clip), details.get(clip, {}))

    def _vectors(self, clip: str, representation: MotionRepresentation) -> tuple[None, Tensor]:
        return None, self._array("new_joint_vecs", clip, (representation.dim,))

    def _joints(self, clip: str, representation: MotionRepresentation) -> tuple[Motion, None]:
        joints = self._array("new_joints", clip, (self.skeleton.num_joints, 3))
        return Motion(joints, fps=self.fps, skeleton=self.skeleton), None

    def _motion(self, clip: str, representation: MotionRepresentation) -> tuple[Motion, None]:
        file = self.folder / "motions" / f"{clip}.npz"
        motion = load_motion(file)
        if motion.fps != representation.fps:
            raise ValueError(
                f"{file} has {motion.fps:g} frames a second and {type(representation).__name__} is defined at "
                f"{representation.fps:g}; import the recordings again with --fps {representation.fps:g}, or use "
                "features whose frame rate can be set, such as SMPLD135"
            )
        try:
            return select(motion, representation.skeleton), None  # features of a body without hands leave them out
        except ValueError as error:
            raise ValueError(f"{file}: {error}; use a representation of its joints") from None

    def statistics(self, representation: MotionRepresentation) -> tuple[Tensor, Tensor] | None:
        """``Mean.npy`` and ``Std.npy`` where both are there, with the published vectors that they describe."""
        files = [self.folder / "Mean.npy", self.folder / "Std.npy"]
        if not self._reads_vectors(representation) or not all(file.exists() for file in files):
            return None
        mean, std = (load_tensor(file, "delete it: then the statistics are computed from train") for file in files)
        return (mean, std) if mean.shape == std.shape == (representation.dim,) else None

    def _reads_vectors(self, representation: MotionRepresentation) -> bool:
        published = type(representation) is self.vectors and not getattr(representation, "fixed", False)
        return published and (self.folder / "new_joint_vecs").is_dir()

    def _lists(self) -> list[Path]:
        if not self.folder.is_dir():
            raise ValueError(
                f"{self.folder} is not a folder; name one in HumanML3D's layout (new_joints/ or new_joint_vecs/, "
                "texts/, train.txt, val.txt, test.txt)"
            )
        return sorted(self.folder.glob("*.txt"))

    def _ids(self, file: Path) -> list[str]:
        try:
            ids = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise ValueError(f"{file} is not utf-8 text; save it as utf-8, one id a line") from None
        for clip in ids:
            if clip.startswith("/") or ".." in clip.split("/"):
                raise ValueError(f"{file} names {clip!r}, which points outside the data set; use plain ids")
        ids = [clip for clip in dict.fromkeys(ids) if clip not in self.skip]
        if not ids:
            raise ValueError(f"{file} lists no clip; add ids, or delete the file")
        return ids

    def _array(self, kind: str, clip: str, shape: tuple[int, ...]) -> Tensor:
        file = self.folder / kind / f"{clip}.npy"
        remedy = f"repair it, or leave {clip} out with the source's argument skip"
        array = load_tensor(file, remedy)
        if array.ndim != len(shape) + 1 or tuple(array.shape[1:]) != shape or len(array) == 0:
            want = ", ".join(map(str, shape))
            raise ValueError(f"{file} has shape {tuple(array.shape)}, expected (T, {want}); {remedy}")
        if not torch.isfinite(array).all():
            raise ValueError(f"{file} contains NaN or Inf; {remedy}")
        return array

    def _details(self, clips: list[str]) -> dict[str, dict[str, str]]:
        return read_hierarchical(self.folder / self.hierarchical, clips) if self.hierarchical is not None else {}

    def _captions(self, clip: str) -> list[Caption]:
        file = self.folder / "texts" / f"{clip}.txt"
        if not self.require_captions and not file.is_file():
            return [Caption("")]
        remedy = f"repair it, or leave {clip} out with the source's argument skip"
        if not file.is_file():
            raise ValueError(
                f"{file} is missing, though a split list names {clip}; {remedy}, or set require_captions to false: a "
                "tokenizer needs no captions"
            )
        captions = read_captions(file, remedy)
        if not captions:
            raise ValueError(f"{file} has no caption; {remedy}")
        return captions


def read_captions(file: Path, remedy: str = "repair it") -> list[Caption]:
    """The captions of a text file, one a line: a plain sentence, or ``caption#tokens#start#end``.

    Raises:
        ValueError: not utf-8, an empty caption, or times that are not seconds; ``remedy`` ends the message.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not utf-8 text; {remedy}") from None
    captions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        text, *fields = line.split("#")
        try:
            start, end = (_seconds(field) for field in fields[1:3]) if fields else (0.0, 0.0)
        except ValueError:
            raise ValueError(f"{file}:{number} is not 'caption#tokens#start#end': {line!r}; {remedy}") from None
        if not text.strip():
            raise ValueError(f"{file}:{number} has an empty caption; {remedy}")
        captions.append(Caption(text.strip(), start, end))
    return captions


def _seconds(field: str) -> float:
    """Time field of a caption; nan is written for "whole clip" and reads as 0."""
    value = float(field)
    if math.isnan(value):
        return 0.0
    if value < 0 or math.isinf(value):
        raise ValueError("times are seconds from the clip's start")
    return value


def load_tensor(file: Path, remedy: str) -> Tensor:
    """An array of a data set, float32; ``remedy`` ends the message of the ``ValueError`` where it cannot be read."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing, though a split list names it; {remedy}") from None
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"{file} is not a readable array ({error}); {remedy}") from None


def scan_files(folder: str, name: str) -> list[tuple[str, os.stat_result]]:
    """(relative name, stat) of every file below; scandir is several times faster than Path.rglob on 10^5 files."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found += scan_files(entry.path, f"{name}/{entry.name}")
            else:
                found.append((f"{name}/{entry.name}", entry.stat()))
    return found
