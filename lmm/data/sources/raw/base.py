"""What every raw source is: a folder of recordings as somebody publishes them, read one file at a time.

`lmm data import NAME FOLDER -o OUT` reads them (see `lmm.data.importing`) into the layout that `HumanML3D` trains from.
NAME is the module's name in this folder: a new format is a new file with one `RawSource`, and touches nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from lmm.data.sources.base import Caption
from lmm.data.sources.humanml3d import read_captions
from lmm.motion.motion import Motion


@dataclass(frozen=True)
class Recording:
    """One motion out of a raw file.

    Args:
        id: its name in the import; letters, digits, ``_``, ``-`` and ``.`` only.
        motion: joints in metres, y up, on the 22 joints of `HUMANML3D_22` or on a skeleton whose first joints they are
            (SMPL-H, SMPL-X); at the file's own frame rate.
        captions: what is said about it, with times in seconds of this motion.
        split: the publisher's split, None where there is none.
        operations: what was done to the file's content to get here, in order, for the manifest.
        flags: what a user should know about this recording, for the manifest.
        extra: arrays to keep beside the motion (``betas``, ``gender``).
    """

    id: str
    motion: Motion
    captions: tuple[Caption, ...] = ()
    split: str | None = None
    operations: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    extra: dict[str, np.ndarray] = field(default_factory=dict)


class RawSource(ABC):
    """Recordings as they are published. Objects are pickled to the processes that read, so keep them small.

    Subclasses take the folder first, then options of their format by keyword, and set ``licence``, a tag for the
    manifest (an argument where the format does not decide it).
    """

    licence: str
    patterns: ClassVar[tuple[str, ...]]  # glob patterns of the files that are recordings

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()

    def files(self) -> list[Path]:
        """All files to read, sorted; each is read, kept or quarantined on its own.

        Raises:
            ValueError: the folder is missing, or nothing in it is of this format.
        """
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder; give the one that holds the recordings")
        found = sorted({file for pattern in self.patterns for file in self.folder.rglob(pattern) if file.is_file()})
        if not found:
            raise ValueError(
                f"{self.folder} holds no {' or '.join(self.patterns)}; is this the right format or folder?"
            )
        return found

    @abstractmethod
    def read(self, file: Path) -> Iterator[Recording]:
        """The recordings of one file.

        Raises:
            ValueError: the file is not sound; the message names it, says what is wrong and what to do. The file goes
                to quarantine with this reason.
        """

    def name(self, file: Path) -> str:
        """An id for a file: its path below the folder, without extensions, ``_`` for separators and odd characters."""
        relative = file.relative_to(self.folder)
        stem = relative.name.removesuffix(".gz")
        path = [*relative.parts[:-1], stem.rpartition(".")[0] or stem]
        return "".join(c if c.isalnum() or c in "-." else "_" for c in "_".join(path))

    def captions(self, file: Path) -> tuple[Caption, ...]:
        """The sentences in ``<name>.txt`` beside a recording: one a line, plain or ``caption#tokens#start#end``.

        Raises:
            ValueError: the file is not utf-8, or a line's times are not seconds.
        """
        text = file.with_name(file.name.removesuffix(".gz")).with_suffix(".txt")
        return tuple(read_captions(text)) if text.is_file() else ()
