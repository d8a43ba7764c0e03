"""``lmm data check``: what is wrong with a data set in HumanML3D's layout, told before hours are spent on it.

What ``lmm data import`` writes (see `lmm.data.importing`) is such a data set with two things more: ``motions/`` and a
manifest. `lmm.data.check.reading` reads every file once, in parallel; each other file is one group of checks over what
was read.
"""

import csv
import json
import time
from pathlib import Path

from lmm.data.check.arrays import check_arrays
from lmm.data.check.captions import check_captions
from lmm.data.check.dataset import DataSet, read_lists
from lmm.data.check.duplicates import check_duplicates
from lmm.data.check.features import check_features
from lmm.data.check.files import KINDS
from lmm.data.check.imported import check_imported
from lmm.data.check.lists import check_lists
from lmm.data.check.motion import check_motion
from lmm.data.check.reading import Plan, detect, read_clips, scale_of, scan
from lmm.data.check.recorded import check_recorded
from lmm.data.check.report import LEVELS, Finding, table
from lmm.data.check.statistics import check_statistics

__all__ = ["Finding", "check", "examine"]


def check(
    folder: str,
    output: str | None = None,
    strict: bool = False,
    sample: int = 20,
    num_workers: int | None = None,
    index: str | None = None,
) -> None:
    """Examine a data set in HumanML3D's layout and print what is wrong with it; nothing is changed.

    Args:
        folder: holds new_joints/ or new_joint_vecs/ (22 joints, 263 features; or KIT's 21, 251), texts/, train.txt;
            or what lmm data import wrote.
        output: -o FILE.json; every finding with all its clips.
        strict: exit with 1 where there is a warning or an error.
        sample: how many clips to encode again and compare with their vectors.
        num_workers: processes that read; 0 reads in this one (left out: one a core, if the clips are many).
        index: HumanML3D's index.csv, which tells the clips from HumanAct12 (left out: that in the folder, if any).
    """
    path = None if output is None else Path(output)
    if path is not None and path.suffix != ".json":
        raise ValueError(f"-o {output}: the report is written as JSON; give a name that ends in .json")
    if sample < 0:
        raise ValueError(f"--sample must be 0 or more, got {sample}")
    begin = time.perf_counter()
    data, findings = examine(folder, sample=sample, num_workers=num_workers, index=index)
    seconds = time.perf_counter() - begin
    count = len(data.clips)
    layout = f"{data.layout.name}'s layout, {data.layout.num_joints} joints"
    print(f"{data.folder}: {layout}; {count:,} clips in {seconds:.1f} s\n")
    print(table(findings))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        counts = {level: sum(f.level == level for f in findings) for level in LEVELS}
        report = {
            "folder": str(data.folder.resolve()),
            "layout": data.layout.name,
            "clips": count,
            "seconds": round(seconds, 2),
            "levels": counts,
            "findings": [finding.as_dict() for finding in findings],
        }
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)
    if strict and any(finding.level in ("warning", "error") for finding in findings):
        raise SystemExit(1)


def examine(
    folder: str | Path, *, sample: int = 20, num_workers: int | None = None, index: str | None = None
) -> tuple[DataSet, list[Finding]]:
    """All findings on a data set; arguments as for `check`.

    Raises:
        ValueError: there is no such folder, or no such index, or the folder has MotionStreamer's layout.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"{root} is not a folder; name one that holds new_joints/, new_joint_vecs/ or motions/, texts/, train.txt"
        )
    files = scan(root)
    if (root / "motion_data").is_dir() and not files.keys() & set(KINDS):
        raise ValueError(
            f"{root} has MotionStreamer's layout (motion_data/, split/); what can be checked are HumanML3D's and "
            "KIT-ML's (new_joints/, new_joint_vecs/, texts/, train.txt) and what lmm data import writes (motions/): "
            f"make one with lmm data import motionstreamer {root} -o OUT"
        )
    lists, unreadable = read_lists(root)
    layout, unit = detect(root, files)
    data = DataSet(root, layout, unit, lists, unreadable, files, sources=_sources(root, index))
    there = frozenset().union(*files.values())
    train = frozenset(data.splits.get("train", ()))
    plan = Plan(root, layout, scale_of(unit), files, train)
    clips, sums = read_clips(plan, [clip for clip in data.members if clip in there], num_workers)
    data = DataSet(root, layout, unit, lists, unreadable, files, clips, sums, data.sources)
    groups = [check_lists(data), check_imported(data), check_arrays(data), check_recorded(data)]
    groups += [check_statistics(data), check_motion(data), check_features(data, sample)]
    groups += [check_duplicates(data), check_captions(data)]
    return data, [finding for group in groups for finding in group]


def _sources(folder: Path, index: str | None) -> dict[str, str]:
    """Id -> the file it was cut from; empty where the data set has no index.csv."""
    file = folder / "index.csv" if index is None else Path(index)
    if not file.is_file():
        if index is not None:
            raise ValueError(f"--index {index}: there is no such file; it is index.csv of the HumanML3D repository")
        return {}
    with file.open(encoding="utf-8", errors="replace", newline="") as handle:
        rows = csv.DictReader(handle)
        return {
            row["new_name"].removesuffix(".npy"): row["source_path"]
            for row in rows
            if row.get("new_name") and row.get("source_path")
        }
