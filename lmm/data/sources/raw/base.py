"""What every raw source is: a folder of recordings as somebody publishes them, read one file at a time.

`lmm data import NAME FOLDER -o OUT` reads them (see `lmm.data.importing`) into the layout that `HumanML3D` trains from.
NAME is the module's name in this folder: a new format is a new file with one `RawSource`, and touches nothing else.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
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
        source_frames: frames of the file itself, where the motion is a part of it.
        source_fps: frame rate of the file itself, where the motion has another.
    """

    id: str
    motion: Motion
    captions: tuple[Caption, ...] = ()
    split: str | None = None
    operations: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    source_frames: int | None = None
    source_fps: float | None = None


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
        patterns = [each for pattern in self.patterns for each in (pattern.lower(), f"*/{pattern.lower()}")]
        found = sorted(
            file
            for file in _files_below(self.folder)
            if any(fnmatch(file.relative_to(self.folder).as_posix().lower(), pattern) for pattern in patterns)
        )
        if not found:
            raise ValueError(
                f"{self.folder} holds no {' or '.join(self.patterns)}; is this the right format or folder?"
            )
        return found

    def depends(self, file: Path) -> list[Path]:
        """All files that reading a file uses; the file is read again when one of them has changed."""
        return [file, self.captions_file(file)]

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

    def captions_file(self, file: Path) -> Path:
        """Where the sentences about a recording may stand: ``<name>.txt`` beside it."""
        return file.with_name(file.name.removesuffix(".gz")).with_suffix(".txt")

    def captions(self, file: Path) -> tuple[Caption, ...]:
        """The sentences about a recording: one a line, plain or ``caption#tokens#start#end``.

        Raises:
            ValueError: the file is not utf-8, or a line's times are not seconds or end before they start.
        """
        text = self.captions_file(file)
        captions = tuple(read_captions(text)) if text.is_file() else ()
        for caption in captions:
            if caption.end < caption.start:
                raise ValueError(f"{text}: {caption.text!r} ends before it starts; correct its times")
        return captions


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, links to folders followed (each folder once, so that no circle is endless)."""
    seen = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, followlinks=True):
        for name in list(folders):
            real = os.path.realpath(os.path.join(root, name))
            if real in seen:
                folders.remove(name)
            seen.add(real)
        yield from (Path(root, name) for name in files)
