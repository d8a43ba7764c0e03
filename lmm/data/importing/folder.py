"""The folder of an import: which import it holds, what is done of it, and its lists.

::

    import.json       format, arguments (and the state of files that they name), options
    progress.jsonl    a line a finished file: its clips, and the state of every file that reading it used
    manifest.jsonl quarantine.jsonl train.txt val.txt test.txt: written at the end of every run
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lmm import __version__

FORMAT = 1
SPLITS = ("train", "val", "test")
Line = dict[str, Any]


class ImportFolder:
    """An import's folder.

    Args:
        folder: where; made if it is not there.
        settings: all that decides what an import gives.

    Raises:
        ValueError: something else is in the folder, or another import.
    """

    def __init__(self, folder: Path, settings: Line) -> None:
        self.folder = folder
        mine = json.loads(json.dumps({"import_format": FORMAT, **settings}))
        file = folder / "import.json"
        if file.is_file():
            theirs = _read(file, file.read_text(encoding="utf-8"))
            theirs.pop("lmm", None)
            if theirs != mine:
                changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
                raise ValueError(
                    f"{folder} holds another import ({', '.join(changed)} differ); give another folder, or delete it"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is already there and holds no import; give another folder, or delete it first")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(mine | {"lmm": __version__}, indent=2) + "\n", encoding="utf-8")

    def finished(self, states: dict[str, str]) -> dict[str, list[Line]]:
        """File -> its clips, of the files that were read in the state they are in now.

        Clips of files that are gone or changed are removed, so that nothing of an older state stays.

        Args:
            states: every file of the source -> `state_of` what reading it uses.
        """
        file = self.folder / "progress.jsonl"
        if not file.is_file():
            return {}
        whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")  # a kill may have cut the last line
        entries = {entry["file"]: entry for entry in (_read(file, line) for line in whole.split("\n") if line)}
        old = [entry for name, entry in entries.items() if states.get(name) != entry["state"]]
        for entry in old:
            self.remove(clip["id"] for clip in entry["clips"])
        if gone := sum(entry["file"] not in states for entry in old):
            rank_zero_info(f"{gone} recordings are no longer in the source; their clips were removed")
        kept = [entry for name, entry in entries.items() if states.get(name) == entry["state"]]
        file.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        return {entry["file"]: entry["clips"] for entry in kept}

    def remove(self, ids: Iterable[str]) -> None:
        """Delete the files of clips."""
        for name in ids:
            for file in (f"motions/{name}.npz", f"new_joints/{name}.npy", f"texts/{name}.txt"):
                (self.folder / file).unlink(missing_ok=True)

    def note(self, file: str, state: str, clips: list[Line]) -> None:
        """Remember that a file is done; its clips are written already."""
        with (self.folder / "progress.jsonl").open("a", encoding="utf-8") as progress:
            progress.write(json.dumps({"file": file, "state": state, "clips": clips}) + "\n")

    def finish(self, manifest: list[Line], quarantine: list[Line]) -> None:
        """Write manifest, quarantine and split lists."""
        for name, lines in (("manifest", manifest), ("quarantine", quarantine)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        for split in dict.fromkeys([*SPLITS, *(line["split"] for line in manifest)]):
            ids = [line["id"] for line in manifest if line["split"] == split]
            (self.folder / f"{split}.txt").unlink(missing_ok=True)
            if ids:
                (self.folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")


def state_of(files: Iterable[Path]) -> str:
    """Digest of names, sizes and times of files, and of all files in folders; a missing one counts as such."""
    digest = hashlib.sha256()
    for file in files:
        inside = sorted(path for path in file.rglob("*") if path.is_file()) if file.is_dir() else [file]
        for path in inside:
            stat = path.stat() if path.exists() else None
            size, time = (stat.st_size, stat.st_mtime_ns) if stat else (-1, -1)
            digest.update(f"{path}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def with_splits(done: dict[str, list[Line]], shares: tuple[float, float, float], seed: int) -> list[Line]:
    """Manifest lines in order of id, each with a split; all clips of one file fall into one.

    Args:
        done: file -> its clips; a clip whose ``split`` is None takes the one that is drawn for its file.
        shares: of train, val and test.
        seed: of the draw.
    """
    drawn = [file for file, clips in done.items() if any(clip["split"] is None for clip in clips)]
    drawn.sort(key=lambda file: hashlib.sha256(f"{seed}\0{file}".encode("utf-8", "surrogateescape")).digest())
    quota = [round(share * len(drawn)) for share in shares[1:]]
    if len(drawn) >= len(SPLITS):  # a small set still has something to be judged on
        quota = [max(number, 1) if share else 0 for number, share in zip(quota, shares[1:], strict=True)]
    of_file = {file: "val" if i < quota[0] else "test" if i < sum(quota) else "train" for i, file in enumerate(drawn)}
    lines = [clip | {"split": clip["split"] or of_file[file]} for file, clips in done.items() for clip in clips]
    return sorted(lines, key=lambda line: line["id"])


def _read(file: Path, text: str) -> Line:
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); delete the folder and import again") from None
