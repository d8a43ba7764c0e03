"""ASF/AMC as the CMU motion library and HDM05 ship them: a skeleton for each subject, a motion for each trial."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.bvh import joint_map_for, mapped, own_map
from lmm.data.sources.raw.joints import check_rate
from lmm.motion.asfamc import AcclaimSkeleton, find_asf, read_amc, read_asf
from lmm.motion.joint_map import JointMap


class ASFAMC(RawSource):
    """AMC files, ``.amc`` and ``.amc.gz``, each with its subject's ``.asf`` in the same folder (02_01.amc: 02.asf).

    Args:
        folder: the files, anywhere below; captions in ``<name>.txt`` beside them.
        source_fps: frames per second, which the files do not say; CMU's and HDM05's have 120.
        map: a joint map's name or ``.yaml``; recognised by the bones' names if None.
        scale: metres per unit of length, instead of what the ``.asf`` says.
        licence: tag for the manifest; that of a given ``map`` if None, unknown otherwise: names prove no origin.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.amc", "*.amc.gz")

    def __init__(
        self,
        folder: str,
        *,
        source_fps: float = 120.0,
        map: str | None = None,
        scale: float | None = None,
        licence: str | None = None,
    ) -> None:
        super().__init__(folder)
        check_rate(source_fps)
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive, got {scale}")
        self.source_fps = float(source_fps)
        self.map = None if map is None else JointMap.load(map)
        self.map_file = own_map(map)
        self.scale = scale
        self.licence = licence or (self.map.licence if self.map else "unknown")

    def depends(self, file: Path) -> list[Path]:
        """The file, its captions, its skeleton if there is one, and a joint map of one's own."""
        try:
            skeleton = [find_asf(file)]
        except ValueError:  # reading the file says so
            skeleton = []
        return [*super().depends(file), *skeleton, *self.map_file]

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file."""
        acclaim = _skeleton(find_asf(file), self.scale)
        raw = read_amc(file, acclaim, fps=self.source_fps)
        yield mapped(self, file, raw, joint_map_for(file, raw, self.map), acclaim.scale)


@lru_cache(maxsize=4)  # a subject's trials follow one another
def _skeleton(file: Path, scale: float | None) -> AcclaimSkeleton:
    return read_asf(file, scale=scale)
