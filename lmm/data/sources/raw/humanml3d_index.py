"""HumanML3D (Guo et al., CVPR 2022) from AMASS: cut as its ``index.csv`` says, with rotations, hands and body shapes.

::

    source_path,start_frame,end_frame,new_name
    ./pose_data/KIT/3/kick_high_left02_poses.npy,0,117,000000.npy              <- KIT/3/kick_high_left02_poses.npz
    ./pose_data/humanact12/humanact12/P11G01R02F1812T1847A0402.npy,0,-1,000001.npy

A recording is thinned to every int(fps / 20)-th frame, which counts as 20 fps from there on; the leading seconds of
some sub-data-sets are left out; then come the row's frames. The world is turned by (x, y, z) -> (-x, z, y).
HumanAct12's joints are taken as they are, whole. Mirrored copies M<id> are the import's business (``--mirror true``).
"""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lmm.data.sources.base import Caption
from lmm.data.sources.humanml3d import read_captions
from lmm.data.sources.raw.amass import LEADING, LICENCE, RENAMED, read_poses, to_motion
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.motion.arrays import read_npy
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import crop, rotate

_FPS = 20.0
_NUM_BETAS = 10
_COLUMNS = ["source_path", "start_frame", "end_frame", "new_name"]
_SPLITS = ("train", "val", "test")
_HUMANACT12 = "humanact12"
_TURN = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


class HumanML3DIndex(RawSource):
    """HumanML3D's 14,616 clips out of AMASS and HumanAct12, by its index.csv.

    Args:
        folder: AMASS's folder, with the SMPL-H archives unpacked (today's folder names will do as well).
        index: HumanML3D's ``index.csv``; train.txt, val.txt and test.txt beside it give the splits.
        body_models: folder with SMPL-H male and female, as for AMASS; without it the joints are a template body's.
        texts: HumanML3D's folder ``texts``, for the captions.
        humanact12: the unzipped ``pose_data/humanact12``; ``humanact12`` in the folder where this is None.
        licence: tag for the manifest.
    """

    patterns = ("*.npz",)

    def __init__(
        self,
        folder: str,
        *,
        index: str,
        body_models: str | None = None,
        texts: str | None = None,
        humanact12: str | None = None,
        licence: str = f"{LICENCE}; HumanML3D: MIT",
    ) -> None:
        super().__init__(folder)
        self.index = Path(index).expanduser()
        self.body_models = body_models
        self.texts = None if texts is None else Path(texts).expanduser()
        self.licence = licence
        # Below the folder even where it is elsewhere: an import names its files from there.
        elsewhere = os.path.relpath(Path(humanact12).expanduser(), self.folder) if humanact12 else _HUMANACT12
        self.humanact12 = self.folder / elsewhere

    def files(self) -> list[Path]:
        """All recordings that the index names; those that are not there are named too, and reading them fails.

        Raises:
            ValueError: the folder is missing or the index is not HumanML3D's.
        """
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder; give the one that AMASS's archives are unpacked in")
        return sorted({self._locate(source) for source in self._rows()})

    def missing(self) -> list[Path]:
        """The recordings that the index names and that are not there."""
        return [file for file in self.files() if not file.is_file()]

    def depends(self, file: Path) -> list[Path]:
        """The recording, the index, its split lists and the captions of the clips."""
        lists = [self.index.parent / f"{split}.txt" for split in _SPLITS]
        rows = self._rows()[self._source(file)]
        return [file, self.index, *lists, *([self.texts / f"{row.id}.txt" for row in rows] if self.texts else [])]

    def read(self, file: Path) -> Iterator[Recording]:
        """The clips of one recording.

        Raises:
            ValueError: the file is not there or not sound, or the index wants frames that it does not have.
        """
        rows = self._rows()[self._source(file)]
        if not file.is_file():
            raise ValueError(
                f"{file}: named by {self.index.name} line {rows[0].line} ({rows[0].id}) but not there; unpack "
                + ("HumanML3D's pose_data/humanact12.zip" if file.suffix == ".npy" else "AMASS's SMPL-H archives")
            )
        read = self._humanact12 if file.suffix == ".npy" else self._amass
        splits = _splits(self.index.parent)
        for row, recording in read(file, rows):
            flags = list(recording.flags)
            captions: tuple[Caption, ...] = ()
            if self.texts is not None:
                text = self.texts / f"{row.id}.txt"
                captions = tuple(read_captions(text)) if text.is_file() else ()
                flags += [] if captions else ["without a caption"]
            split = splits.get(row.id)
            yield replace(recording, captions=captions, split=split, flags=tuple(flags))

    def _amass(self, file: Path, rows: list["Row"]) -> Iterator[tuple["Row", Recording]]:
        poses = read_poses(file)
        whole, rate = len(poses.trans), poses.fps
        step = int(poses.fps / _FPS)
        if step < 1:
            raise ValueError(f"{file} has {poses.fps:g} fps; HumanML3D is made of recordings with 20 or more")
        real = poses.fps / step
        flags = [] if abs(real - _FPS) < 1e-3 else [f"{real:g} fps called 20 fps, as in HumanML3D"]
        subset = self._source(file).split("/")[0]
        leading = int(LEADING.get(subset, 0.0) * _FPS)
        poses = poses.frames(slice(None, None, step)).frames(slice(leading, None))
        # HumanML3D has no neutral bodies, and calls everybody female who is not male.
        poses = poses._replace(gender="male" if poses.gender == "male" else "female", fps=_FPS)
        count = len(poses.trans)
        for row in rows:
            if row.start >= count:
                raise ValueError(
                    f"{self.index.name} line {row.line} wants frames {row.start} to {row.stop} of {file}, which has "
                    f"{count} at 20 fps; it is not the recording that was indexed: get it from AMASS as SMPL-H"
                )
        motion, how, more = to_motion(poses, self.body_models, file, num_betas=_NUM_BETAS)
        motion = rotate(motion, _TURN)
        for row in rows:
            stop = min(row.stop, count)
            steps = [
                f"every {step}. frame taken as 20 fps",
                *([f"first {leading} of them left out"] if leading else []),
            ]
            steps += [f"frames {row.start} to {stop} of them", how, "turned from z up to y up: (-x, z, y)"]
            short = ["ends before the index's last frame"] if stop < row.stop else []
            notes = (f"sub-data-set {subset}", *flags, *more, *short)
            clip = crop(motion, row.start, stop)
            yield (
                row,
                Recording(
                    row.id,
                    clip,
                    operations=tuple(steps),
                    flags=notes,
                    extra=poses.extra,
                    source_frames=whole,
                    source_fps=rate,
                ),
            )

    def _humanact12(self, file: Path, rows: list["Row"]) -> Iterator[tuple["Row", Recording]]:
        remedy = "unzip HumanML3D's pose_data/humanact12.zip again"
        array = read_npy(file)
        joints = HUMANML3D_22.num_joints
        if (
            array.ndim != 3
            or array.shape[1] < joints
            or array.shape[2] != 3
            or not array.size
            or array.dtype.kind != "f"
        ):
            raise ValueError(f"{file} is {array.shape} of {array.dtype}, expected (T, 24, 3); {remedy}")
        array = array[:, :joints].astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{file} contains NaN or Inf; {remedy}")
        motion = Motion(torch.from_numpy(array), _FPS, HUMANML3D_22)
        flag = "HumanAct12: taken as HumanML3D does; left and right may be exchanged"
        for row in rows:
            yield row, Recording(row.id, motion, operations=("joints as in the file",), flags=(flag,))

    def _rows(self) -> dict[str, list["Row"]]:
        if not self.index.is_file():
            raise ValueError(f"{self.index}: there is no such file; give index.csv of HumanML3D's repository")
        return _read_index(self.index, self.index.stat().st_mtime_ns)

    def _locate(self, source: str) -> Path:
        """Where a source of the index lies; the first place looked at where it is nowhere."""
        first, _, rest = source.partition("/")
        if first == _HUMANACT12:
            places = [self.humanact12 / f"{rest}.npy", self.humanact12 / _HUMANACT12 / f"{rest}.npy"]
        else:
            places = [self.folder / name / f"{rest}.npz" for name in (first, RENAMED.get(first, first))]
        return next((place for place in places if place.is_file()), places[0])

    def _source(self, file: Path) -> str:
        """What the index calls a file that `_locate` found."""
        if file.suffix == ".npy":
            return f"{_HUMANACT12}/{file.stem}"
        first, *rest = file.relative_to(self.folder).with_suffix("").parts
        return "/".join([next((old for old, new in RENAMED.items() if new == first), first), *rest])


class Row(NamedTuple):
    """A line of the index: frames ``start`` to ``stop`` (exclusive) are the clip ``id``."""

    line: int
    start: int
    stop: int
    id: str


@lru_cache(maxsize=2)
def _read_index(file: Path, _: int) -> dict[str, list[Row]]:
    """Rows by what they are cut from, ``KIT/3/kick_high_left02_poses`` or ``humanact12/P11G01R02F1812T1847A0402``."""
    rows: dict[str, list[Row]] = {}
    seen: dict[str, int] = {}
    with file.open(newline="", encoding="utf-8") as handle:
        lines = csv.reader(handle)
        if next(lines, None) != _COLUMNS:
            raise ValueError(
                f"{file} does not begin with {','.join(_COLUMNS)}; give index.csv of HumanML3D's repository"
            )
        for number, fields in enumerate(lines, start=2):
            try:
                path, start, stop, name = fields
                row = Row(number, int(start), int(stop), name.removesuffix(".npy"))
            except ValueError:
                raise ValueError(f"{file}:{number} is not {','.join(_COLUMNS)}: {','.join(fields)!r}") from None
            if not re.fullmatch(r"[\w-][\w.-]*", row.id):
                raise ValueError(f"{file}:{number}: {name!r} cannot name a clip; use letters, digits, _, - and .")
            parts = path.removeprefix("./").removeprefix("pose_data/").removesuffix(".npy").split("/")
            whole = parts[0] == _HUMANACT12
            if len(parts) < 2 or ".." in parts or "" in parts:
                raise ValueError(f"{file}:{number}: {path!r} names no file below pose_data")
            if not whole and not 0 <= row.start < row.stop:
                raise ValueError(f"{file}:{number}: there are no frames {start} to {stop}")
            if seen.setdefault(row.id, number) != number:
                raise ValueError(f"{file}:{number} names {row.id} again, which line {seen[row.id]} did; delete one")
            rows.setdefault(f"{_HUMANACT12}/{parts[-1]}" if whole else "/".join(parts), []).append(row)
    return rows


@lru_cache(maxsize=2)
def _splits(folder: Path) -> dict[str, str]:
    """HumanML3D's split of each clip, where its lists are there."""
    files = [folder / f"{split}.txt" for split in _SPLITS]
    return {line.strip(): file.stem for file in files if file.is_file() for line in file.open(encoding="utf-8")}
