"""What is known of a data set when its checks run: lists, files, and the facts of every clip."""

from dataclasses import dataclass, field
from pathlib import Path

from lmm.data.check.layout import Layout
from lmm.data.check.reading import Clip, Sums

# Unions of other lists, and lists of what a data set leaves out: no splits.
_NOT_SPLITS = {"all", "train_val", "short", "excluded", "none"}
MAIN = ("train", "val", "test")
# HumanML3D as everybody has it: two clips contain NaN, four are too short to have features.
KNOWN = frozenset(f"{side}{clip}" for side in ("", "M") for clip in ("007975", "009707", "011059"))
SKIP_KNOWN = 'leave them out with the source\'s argument skip: ["007975", "M007975", ...] as in data/humanml3d.yaml'


@dataclass(frozen=True)
class DataSet:
    """All that was read of a data set.

    Args:
        folder: where it lies.
        layout: which body it has.
        unit: what its lengths are in.
        lists: every list beside the folders -> its ids, with repetitions, in order.
        unreadable: list -> why it is none.
        files: folder of the layout -> ids of its files.
        clips: facts of every clip that a split names and that has a file.
        sums: of the train split's vectors.
        sources: id -> file that the clip was cut from, as ``index.csv`` has it.
    """

    folder: Path
    layout: Layout
    unit: str
    lists: dict[str, list[str]]
    unreadable: dict[str, str]
    files: dict[str, frozenset[str]]
    clips: dict[str, Clip] = field(default_factory=dict)
    sums: Sums | None = None
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, list[str]]:
        """Lists that training and tests read, each id once."""
        return {name: list(dict.fromkeys(ids)) for name, ids in self.lists.items() if name not in _NOT_SPLITS}

    @property
    def members(self) -> list[str]:
        """Every id of a split, sorted; every id with a file where there is no split."""
        if self.splits:
            return sorted({clip for ids in self.splits.values() for clip in ids})
        return sorted(frozenset().union(*self.files.values()))

    def main_split(self) -> dict[str, str]:
        """Id -> train, val or test; the later one for an id in several."""
        return {clip: name for name in MAIN for clip in self.splits.get(name, [])}


def read_lists(folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Ids of every .txt beside the folders, and the files that are no list with the reason."""
    lists, unreadable = {}, {}
    for file in sorted(folder.glob("*.txt")):
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (UnicodeDecodeError, OSError):
            unreadable[file.name] = "is not readable as utf-8 text"
            continue
        ids = [line for line in lines if line]
        if bad := [clip for clip in ids if clip.startswith("/") or ".." in clip.split("/")]:
            unreadable[file.name] = f"names {bad[0]!r}, which points outside the data set"
        elif any(len(clip.split()) > 1 for clip in ids):
            unreadable[file.name] = "is not one id a line"
        else:
            lists[file.stem] = ids
    return lists, unreadable
