"""Recordings as their publishers ship them; a module for each format, its name is what `lmm data import` takes."""

import difflib
import importlib
import inspect
import pkgutil
from pathlib import Path

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22


def formats() -> dict[str, str]:
    """Name of each format -> what it is, in a line."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    return {
        name: (importlib.import_module(f"{__name__}.{name}").__doc__ or "").strip().splitlines()[0] for name in names
    }


def find_format(name: str) -> type[RawSource]:
    """The class that a format's name, or the import path of a class of one's own, stands for.

    Raises:
        ValueError: there is none; near names are told.
    """
    path, _, attribute = name.rpartition(".")
    if path:
        try:
            found = getattr(importlib.import_module(path), attribute, None)
        except ImportError as error:
            raise ValueError(
                f"{name} cannot be imported ({error}); a module of your own is found by LMM_IMPORT={path}"
            ) from None
        if not (isinstance(found, type) and issubclass(found, RawSource)):
            raise ValueError(f"{name} is no RawSource; write one after lmm/data/sources/raw/base.py")
        return found
    known = formats()
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no format {name!r}{hint}; known are {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name.lower()}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, RawSource) and value.__module__ == module.__name__
    )
    return found


def read_recording(file: str | Path, name: str, *, source_fps: float | None = None) -> Recording:
    """The one recording in a file of the named format, on SMPL's joints.

    Args:
        file: the file.
        name: see `find_format`.
        source_fps: frame rate of a format whose files tell none.

    Raises:
        ValueError: no such file or format, the file is not sound, or it holds several recordings.
    """
    path, cls = Path(file), find_format(name)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    takes = "source_fps" in inspect.signature(cls).parameters
    if source_fps is not None and not takes:
        raise ValueError(f"{path}: files of format {name} tell their frame rate; leave it out")
    source = cls(str(path.parent), **({} if source_fps is None else {"source_fps": source_fps}))
    recordings = list(source.read(path))
    if len(recordings) != 1:
        raise ValueError(f"{path}: holds {len(recordings)} recordings; `lmm data import {name}` takes them apart")
    return recordings[0]


def about_foreign(file: str, motion: Motion, error: ValueError) -> ValueError:
    """An error about a motion, with its file's name and, for a foreign skeleton, how it is mapped."""
    hint = ""
    if not set(HUMANML3D_22.names) <= set(motion.skeleton.names):
        ending = Path(file.lower().removesuffix(".gz")).suffix
        hints = {".bvh": "have it mapped to SMPL's joints: --format bvh", ".amc": "have it mapped: --format asfamc"}
        hint = "; " + hints.get(ending, "only .bvh and .amc can be mapped to SMPL's joints (--format bvh, asfamc)")
    return ValueError(f"{file}: {error}{hint}")
