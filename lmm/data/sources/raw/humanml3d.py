"""A folder in HumanML3D's layout as a raw source: to resample, cut, mirror or merge what others prepared.

::

    new_joints/<id>.npy   (T, 22, 3) metres, y up, 20 fps
    texts/<id>.txt        caption#tokens#start#end; the folder may be missing, a single file of it may not
    train.txt val.txt test.txt   the publisher's split is kept
    index.csv             HumanML3D's own list of where each clip is from; optional

HumanML3D flips x of all clips but those from HumanAct12 (1,191 of 14,616), whose left and right are therefore
doubtful; with ``index.csv`` these are flagged. ``new_joint_vecs`` is not read: positions say the same.
"""

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lmm.data.sources.base import Caption
from lmm.data.sources.humanml3d import HumanML3D as Layout
from lmm.data.sources.humanml3d import read_captions
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.joints import posture_flags, read_array
from lmm.motion.motion import Motion

_FIRST = ("train", "val", "test")  # a clip may be in further lists too; these decide


class HumanML3D(RawSource):
    """HumanML3D's layout.

    Args:
        folder: holds new_joints/ and, mostly, texts/ and the split lists.
        licence: tag for the manifest; HumanML3D's motions are AMASS's, so not for commercial use.
    """

    patterns: ClassVar[tuple[str, ...]] = ("new_joints/*.npy",)

    def __init__(self, folder: str, *, licence: str = "unknown") -> None:
        super().__init__(folder)
        self.licence = licence

    def depends(self, file: Path) -> list[Path]:
        """The file, its captions, the split lists and the index."""
        lists = [*self.folder.glob("*.txt"), self.folder / "index.csv"]
        return [file, self.folder / "texts" / f"{file.stem}.txt", *sorted(lists)]

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file of new_joints."""
        joints = read_array(file, Layout.skeleton.num_joints, 3)
        motion = Motion(joints, Layout.fps, Layout.skeleton)
        clip = file.stem
        flags = posture_flags(motion)
        if clip.removeprefix("M") in self._humanact12:
            flags = (*flags, "from HumanAct12, which HumanML3D does not flip: left and right are doubtful")
        yield Recording(clip, motion, texts_of(self.folder / "texts", clip), self._split(file), flags=flags)

    def _split(self, file: Path) -> str | None:
        if self._splits and file.stem not in self._splits:
            raise ValueError(
                f"{file} is in no split list of {self.folder}; add its id to one, or move the lists away to have new "
                "splits drawn"
            )
        return self._splits.get(file.stem)

    @cached_property
    def _splits(self) -> dict[str, str]:
        layout = Layout(str(self.folder))
        return split_of_ids(layout.splits()) if any(self.folder.glob("*.txt")) else {}

    @cached_property
    def _humanact12(self) -> frozenset[str]:
        index = self.folder / "index.csv"
        if not index.is_file():
            return frozenset()
        with index.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if not rows or not {"source_path", "new_name"} <= set(rows[0]):
            raise ValueError(f"{index} has no columns source_path and new_name; use HumanML3D's own, or delete it")
        return frozenset(Path(row["new_name"]).stem for row in rows if "humanact12" in row["source_path"])


def split_of_ids(splits: dict[str, list[str]]) -> dict[str, str]:
    """id -> its split: train, val or test before any further list that holds it too."""
    order = [name for name in _FIRST if name in splits] + [name for name in splits if name not in _FIRST]
    return {clip: name for name in reversed(order) for clip in splits[name]}


def texts_of(folder: Path, clip: str) -> tuple[Caption, ...]:
    """The captions in ``<folder>/<clip>.txt``; none where there is no such folder.

    Raises:
        ValueError: the folder is there and the file is not, or is empty.
    """
    file = folder / f"{clip}.txt"
    if not folder.is_dir():
        return ()
    remedy = f"write it, or move {folder} away to import without captions"
    if not file.is_file():
        raise ValueError(f"{file} is missing; {remedy}")
    captions = read_captions(file, remedy)
    if not captions:
        raise ValueError(f"{file} has no caption; {remedy}")
    return tuple(captions)
