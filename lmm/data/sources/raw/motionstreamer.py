"""MotionStreamer's and MotionMillion's 272 features as a raw source: to resample, cut or merge what others prepared.

::

    motion_data/<id>.npy    (T, 272), 30 fps, see `MotionStreamer272`; ids may hold folders
    texts/<id>.txt          caption#tokens#start#end, or a plain caption a line (MotionMillion)
    split/train.txt ...     one id a line

Joints come from the features' positions and rotations from their rotations, so both are the recorded ones (no IK).
`lmm.data.sources.MotionStreamer` trains on such a folder as it is.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lmm.data.sources.motionstreamer import MotionStreamer as Layout
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.humanml3d import split_of_ids, texts_of
from lmm.data.sources.raw.joints import posture_flags, read_array
from lmm.motion.representations.motionstreamer import MotionStreamer272


class MotionStreamer(RawSource):
    """The 272 features.

    Args:
        folder: holds motion_data/, texts/ and split/.
        motions: the features' folder below it; MotionMillion's is motion_data/vector_272.
        lists: the split lists' folder below it; MotionMillion's is split/version1/t2m_60_300.
        licence: tag for the manifest; what is made of AMASS is not for commercial use.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.npy",)

    def __init__(
        self, folder: str, *, motions: str = "motion_data", lists: str = "split", licence: str = "unknown"
    ) -> None:
        super().__init__(folder)
        self.motions = motions
        self.lists = lists
        self.licence = licence

    def files(self) -> list[Path]:
        """All files of features, sorted."""
        if not (self.folder / self.motions).is_dir():
            raise ValueError(f"{self.folder} has no folder {self.motions}; name the one of the .npy files as motions")
        return [file for file in super().files() if file.is_relative_to(self.folder / self.motions)]

    def depends(self, file: Path) -> list[Path]:
        """The file, its captions and the split lists."""
        return [
            file,
            self.folder / "texts" / f"{self._clip(file)}.txt",
            *sorted((self.folder / self.lists).glob("*.txt")),
        ]

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file of features."""
        representation = MotionStreamer272()
        motion = representation.decode(read_array(file, representation.dim))
        clip = self._clip(file)
        if self._splits and clip not in self._splits:
            raise ValueError(
                f"{file} is in no list of {self.folder / self.lists}; add {clip} to one, or move the lists away "
                "to have new splits drawn"
            )
        yield Recording(
            clip.replace("/", "_"),
            motion,
            texts_of(self.folder / "texts", clip),
            self._splits.get(clip),
            operations=("decoded 272 features: joints from positions, rotations from rotations",),
            flags=posture_flags(motion),
        )

    def _clip(self, file: Path) -> str:
        return file.relative_to(self.folder / self.motions).with_suffix("").as_posix()

    @cached_property
    def _splits(self) -> dict[str, str]:
        if not (self.folder / self.lists).is_dir():
            return {}
        return split_of_ids(Layout(str(self.folder), motions=self.motions, lists=self.lists).splits())
