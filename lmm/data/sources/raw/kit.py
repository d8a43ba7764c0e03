"""KIT-ML's layout (21 joints, 12.5 fps) as a raw source: refused, with the way to use it.

Its skeleton is the Master Motor Map's, without collars and with another spine, so some of the 22 joints of an import
would have to be invented. Train from the folder as it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NoReturn

from lmm.data.sources.raw.base import RawSource, Recording


class KIT(RawSource):
    """KIT-ML's layout.

    Args:
        folder: holds new_joints/ and new_joint_vecs/.
    """

    licence = "KIT-ML"
    patterns: ClassVar[tuple[str, ...]] = ("new_joints/*.npy",)

    def files(self) -> NoReturn:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self.folder}: KIT-ML's 21 joints cannot become the 22 of an import without inventing some; train from "
            "the folder as it is: --data.source lmm.data.sources.KIT with --data.representation KITFeatures"
        )

    def read(self, file: Path) -> Iterator[Recording]:
        """Refuse."""
        self.files()
