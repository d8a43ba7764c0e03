"""`lmm data import`: any raw source into the folder layout that `HumanML3D` reads, in parallel and resumable.

::

    OUT/motions/<id>.npz      everything that is known: joints, rotations, hands, frame rate, caption
    OUT/new_joints/<id>.npy   float32 (T, 22, 3), the field's own format; only at its frame rate of 20
    OUT/texts/<id>.txt        captions, where there are any (caption##start#end: no part-of-speech tags)
    OUT/train.txt val.txt test.txt
    OUT/manifest.jsonl        a line a clip: source file and its sha256, licence, frames, operations, flags
    OUT/quarantine.jsonl      a line a file that could not be read: which, and why
    OUT/import.json           the source, its arguments and the options; OUT/progress.jsonl: what is done so far

A file's clips are written before its line in ``progress.jsonl`` is, so a killed import goes on where it stopped.
"""

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lmm.data.importing.clips import ImportOptions, clips_of, refuse, write_clip
from lmm.data.importing.folder import ImportFolder, Line, state_of, with_splits
from lmm.data.sources.raw.base import RawSource, Recording

__all__ = ["ImportOptions", "import_recordings"]


def import_recordings(
    source: RawSource, output: str | Path, options: ImportOptions, *, settings: dict[str, Any], num_workers: int = 0
) -> tuple[list[Line], list[Line]]:
    """Import all files of a source; those that an earlier, interrupted run of the same import did are not read again.

    Args:
        source: the recordings.
        output: folder to make or to go on with.
        options: what to do to each recording.
        settings: what decides the import besides ``options`` (format and arguments), kept in ``import.json``.
        num_workers: processes; 0 reads in this one.

    Returns:
        The manifest's and the quarantine's lines.

    Raises:
        ValueError: there is nothing to read, the output lies among the recordings or holds something else, two
            recordings have the same id, or nothing at all could be read.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
    out, files = Path(output), source.files()
    if out.resolve().is_relative_to(source.folder.resolve()):
        raise ValueError(f"{out} lies in {source.folder}, whose recordings are read; give a folder outside of it")
    names = _names(source, files)
    named = {key: state_of([Path(value)]) for key, value in settings.items() if _names_files(key, value)}
    folder = ImportFolder(out, settings | {"files": named, "options": asdict(options)})
    states = {name: state_of(source.depends(file)) for name, file in names.items()}
    done = folder.finished(states)
    todo = [file for name, file in names.items() if name not in done]
    quarantine: list[Line] = []
    results = _run(source, out, options, todo, num_workers)
    for file, clips, reason in tqdm(results, f"importing {source.folder.name}", len(todo), unit="file", disable=None):
        name = _relative(source, file)
        if reason:
            quarantine.append({"file": name, "reason": reason})
        else:
            done[name] = clips
            folder.note(name, states[name], clips)
    _refuse_twins(done)
    quarantine.sort(key=lambda line: line["file"])
    manifest = with_splits(done, options.split, options.seed)
    folder.finish(manifest, quarantine)
    if not manifest:
        reasons = "\n".join(f"  {line['file']}: {line['reason']}" for line in quarantine[:5])
        raise ValueError(f"none of the {len(files)} files in {source.folder} could be read:\n{reasons}")
    return manifest, quarantine


def _run(
    source: RawSource, out: Path, options: ImportOptions, files: list[Path], num_workers: int
) -> Iterator[tuple[Path, list[Line], str]]:
    """(file, its manifest lines, why it could not be read) in order of completion."""
    if num_workers < 1 or len(files) < 2:
        for file in files:
            yield (file, *_import_file(source, out, options, file))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(os.getpid(),)) as pool:
        pending = {pool.submit(_import_file, source, out, options, file): file for file in files}
        try:
            for future in as_completed(pending):
                yield (pending[future], *future.result())
        except BrokenProcessPool:
            raise ValueError(
                "a reading process was killed, probably for want of memory; run the same command again with fewer "
                "--num-workers: what is done is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """A reading process uses one core and ends when the import does, however that ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    torch.set_num_threads(1)
    threading.Thread(target=watch, daemon=True).start()


def _import_file(source: RawSource, out: Path, options: ImportOptions, file: Path) -> tuple[list[Line], str]:
    """Write all clips of one file; all of them or, with a reason, none."""
    clips, lines = [], []
    try:
        for recording in source.read(file):
            for clip in clips_of(recording, options):
                refuse(clip)
                clips.append(clip)
                lines.append(_describe(recording, clip))
        origin = {"file": _relative(source, file), "sha256": _sha256(file), "licence": source.licence}
    except Exception as error:  # whatever a foreign file does to a reader, the other files still have to be read
        known = isinstance(error, ValueError | OSError)
        reason = str(error) if known else f"{type(error).__name__}: {error} (not foreseen: please report it)"
        return [], reason.encode("utf-8", "backslashreplace").decode()
    for clip in clips:  # outside of the try: a full disk is no fault of the file
        write_clip(clip, out)
    return [origin | line for line in lines], "" if lines else "holds no recording"


def _describe(recording: Recording, clip: Recording) -> Line:
    """A clip's line of the manifest, apart from what is said of its file."""
    motion = recording.motion
    return {
        "id": clip.id,
        "source_frames": motion.num_frames if recording.source_frames is None else recording.source_frames,
        "source_fps": motion.fps if recording.source_fps is None else recording.source_fps,
        "frames": clip.motion.num_frames,
        "fps": clip.motion.fps,
        "joints": clip.motion.skeleton.num_joints,
        "captions": len(clip.captions),
        "operations": list(clip.operations),
        "flags": list(clip.flags),
        "split": clip.split,
    }


def _names(source: RawSource, files: list[Path]) -> dict[str, Path]:
    """Relative name -> file; refused before anything is read where two files would give clips of one name."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(source.name(file), file)
        if other != file:
            raise ValueError(f"{file} and {other} would both be called {source.name(file)!r}; rename one of the two")
    return {_relative(source, file): file for file in files}


def _names_files(key: str, value: Any) -> bool:
    """Whether an argument names files, other than the recordings themselves (body models, an index, a joint map)."""
    return key not in ("folder", "format") and isinstance(value, str) and Path(value).exists()


def _refuse_twins(done: dict[str, list[Line]]) -> None:
    seen: dict[str, str] = {}
    for file, clips in done.items():
        for clip in clips:
            if seen.setdefault(clip["id"], file) != file:
                other = seen[clip["id"]]
                raise ValueError(f"{file} and {other} both give a clip {clip['id']!r}; rename one of the two")


def _relative(source: RawSource, file: Path) -> str:
    return file.relative_to(source.folder).as_posix()


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
