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
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lmm import __version__
from lmm.data.importing.clips import ImportOptions, clips_of, refuse, write_clip
from lmm.data.sources.raw.base import RawSource, Recording

FORMAT = 1
_SPLITS = ("train", "val", "test")


def import_recordings(
    source: RawSource, output: str | Path, options: ImportOptions, *, settings: dict[str, Any], num_workers: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
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
        ValueError: there is nothing to read, the folder holds another import, two recordings have the same id, or
            nothing at all could be read.
    """
    out, files = Path(output), source.files()
    _claim(out, settings | {"options": asdict(options)})
    earlier = _progress(out)
    if gone := sorted(set(earlier) - {_relative(source, file) for file in files}):
        raise ValueError(
            f"{out} holds clips of {len(gone)} recordings that are no longer in {source.folder} ({gone[0]}, ...); "
            "put them back, or import into another folder"
        )
    done: dict[str, list[dict[str, Any]]] = {}  # file -> its clips
    todo = []
    for file in files:
        entry = earlier.get(_relative(source, file))
        if entry is not None and _stamp(file).items() <= entry.items():
            done[entry["file"]] = entry["clips"]
        else:
            todo.append(file)
    quarantine: list[dict[str, str]] = []
    with (out / "progress.jsonl").open("a", encoding="utf-8") as progress:
        results = _run(source, out, options, todo, num_workers)
        for file, clips, reason in tqdm(
            results, f"importing {source.folder.name}", len(todo), unit="file", disable=None
        ):
            name = _relative(source, file)
            if reason:
                quarantine.append({"file": name, "reason": reason})
                continue
            done[name] = clips
            progress.write(json.dumps({"file": name, **_stamp(file), "clips": clips}, ensure_ascii=False) + "\n")
            progress.flush()
    _refuse_twins(done)
    quarantine.sort(key=lambda line: line["file"])
    _write_lines(out / "quarantine.jsonl", quarantine)
    if not any(done.values()):
        reasons = "\n".join(f"  {line['file']}: {line['reason']}" for line in quarantine[:5])
        raise ValueError(f"none of the {len(files)} files in {source.folder} could be read:\n{reasons}")
    manifest = _with_splits(done, options)
    _write_lines(out / "manifest.jsonl", manifest)
    for split in dict.fromkeys([*_SPLITS, *(line["split"] for line in manifest)]):
        ids = [line["id"] for line in manifest if line["split"] == split]
        (out / f"{split}.txt").unlink(missing_ok=True)
        if ids:
            (out / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return manifest, quarantine


def _run(
    source: RawSource, out: Path, options: ImportOptions, files: list[Path], num_workers: int
) -> Iterator[tuple[Path, list[dict[str, Any]], str]]:
    """(file, its manifest lines, why it could not be read) in order of completion."""
    if num_workers < 1 or len(files) < 2:
        for file in files:
            yield (file, *_import_file(source, out, options, file))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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


def _import_file(source: RawSource, out: Path, options: ImportOptions, file: Path) -> tuple[list[dict[str, Any]], str]:
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
        return [], str(error) if known else f"{type(error).__name__}: {error} (not foreseen: please report it)"
    for clip in clips:  # outside of the try: a full disk is no fault of the file
        write_clip(clip, out)
    return [origin | line for line in lines], "" if lines else "holds no recording"


def _describe(recording: Recording, clip: Recording) -> dict[str, Any]:
    """A clip's line of the manifest, apart from what is said of its file."""
    return {
        "id": clip.id,
        "source_frames": recording.motion.num_frames,
        "source_fps": recording.motion.fps,
        "frames": clip.motion.num_frames,
        "fps": clip.motion.fps,
        "joints": clip.motion.skeleton.num_joints,
        "captions": len(clip.captions),
        "operations": list(clip.operations),
        "flags": list(clip.flags),
        "split": clip.split,
    }


def _with_splits(done: dict[str, list[dict[str, Any]]], options: ImportOptions) -> list[dict[str, Any]]:
    """Manifest lines in order of id, each with a split; all clips of one file fall into one."""
    drawn = [file for file, clips in done.items() if clips and any(clip["split"] is None for clip in clips)]
    drawn.sort(key=lambda file: hashlib.sha256(f"{options.seed}\0{file}".encode()).digest())
    quota = [round(share * len(drawn)) for share in options.split[1:]]
    if len(drawn) >= len(_SPLITS):  # a small set still has something to be judged on
        quota = [max(number, 1) if share else 0 for number, share in zip(quota, options.split[1:], strict=True)]
    of_file = {file: "val" if i < quota[0] else "test" if i < sum(quota) else "train" for i, file in enumerate(drawn)}
    lines = [clip | {"split": clip["split"] or of_file[file]} for file, clips in done.items() for clip in clips]
    return sorted(lines, key=lambda line: line["id"])


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or make sure that it holds this very import."""
    mine = json.loads(json.dumps({"format": FORMAT, **settings}))
    file = out / "import.json"
    if file.is_file():
        theirs = {key: value for key, value in json.loads(file.read_text()).items() if key != "lmm"}
        if theirs != mine:
            changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
            raise ValueError(
                f"{out} holds another import ({', '.join(changed)} differ); give another folder, or delete it first"
            )
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is already there and holds no import; give another folder, or delete it first")
    else:
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(mine | {"lmm": __version__}, indent=2) + "\n")


def _progress(out: Path) -> dict[str, Any]:
    """What earlier runs did: file -> its line; a last line that a kill cut short is dropped."""
    file = out / "progress.jsonl"
    if not file.is_file():
        return {}
    whole, newline, _ = file.read_text(encoding="utf-8").rpartition("\n")
    file.write_text(whole + newline, encoding="utf-8")
    return {entry["file"]: entry for entry in map(json.loads, whole.splitlines())}


def _stamp(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _refuse_twins(done: dict[str, list[dict[str, Any]]]) -> None:
    seen: dict[str, str] = {}
    for file, clips in done.items():
        for clip in clips:
            if seen.setdefault(clip["id"], file) != file:
                raise ValueError(
                    f"{file} and {seen[clip['id']]} both give a clip {clip['id']!r}; rename one of the two"
                )


def _relative(source: RawSource, file: Path) -> str:
    return file.relative_to(source.folder).as_posix()


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write_lines(file: Path, lines: list[Any]) -> None:
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
