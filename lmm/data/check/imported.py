"""What ``lmm data import`` says about the clips it made: where they come from, under which licence, and what is odd.

Every line of ``manifest.jsonl`` names a clip's source file with its sha256. So clips that are cut from one recording,
or from two copies of it, are found where they fall into train and test, whatever was done to them since.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lmm.data.check.dataset import DataSet
from lmm.data.check.report import Finding, clips, some

_KEYS = ("id", "file", "sha256")
_UNKNOWN = "unknown"
_AGAIN = "import the recordings again; training does not read these files, but where the clips come from is lost"
_LEAK = "results on these clips measure memory: put all clips of a recording into one split"


def check_imported(data: DataSet) -> list[Finding]:
    """Findings on manifest, quarantine and settings of an import; none where the folder is not one."""
    imported, file = (data.folder / "import.json").is_file(), data.folder / "manifest.jsonl"
    if not file.is_file():
        remedy = "give the same lmm data import command again: it goes on where it stopped"
        unfinished = Finding("import", "error", "import.json without manifest.jsonl: not finished", remedy)
        return [unfinished] if imported else []
    manifest, problem = _lines(file, _KEYS)
    if problem:  # without import.json it is a manifest of another kind
        return [Finding("import", "warning", problem, _AGAIN)] if imported else []
    findings = [_import(data.folder, manifest), _quarantine(data.folder), _licences(manifest), _flags(manifest)]
    return [*findings, _manifest(manifest, data), _recordings(manifest, data), _copies(manifest, data)]


def _import(folder: Path, manifest: list[dict[str, Any]]) -> Finding:
    files = len({line["file"] for line in manifest})
    found, figures = f"{clips(len(manifest))} of {files:,} source files", {"clips": len(manifest), "files": files}
    try:
        settings = json.loads((folder / "import.json").read_text(encoding="utf-8"))
        source = settings["format"].rpartition(".")[2]
        options = {**settings["options"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Finding("import", "warning", f"{found}; import.json is missing or broken", _AGAIN, figures=figures)
    told = ", ".join(
        f"{key} {options[key]}".removesuffix(" True")
        for key in ("fps", "window", "mirror")
        if options.get(key) not in (None, False)
    )
    return Finding("import", "ok", f"{found}, by {source}" + (f" ({told})" if told else ""), figures=figures)


def _quarantine(folder: Path) -> Finding:
    if not (folder / "quarantine.jsonl").is_file():
        return Finding("quarantine", "ok", "no quarantine.jsonl")
    lines, problem = _lines(folder / "quarantine.jsonl", ("file", "reason"))
    if problem:
        return Finding("quarantine", "warning", problem, _AGAIN)
    if not lines:
        return Finding("quarantine", "ok", "every source file was read")
    first = "; ".join(line["reason"][:200] for line in lines[:2])
    found = f"{len(lines):,} source file{'' if len(lines) == 1 else 's'} could not be read: {first}"
    remedy = "repair them and give the same command again, or do without; quarantine.jsonl has all reasons"
    return Finding("quarantine", "note", found, remedy, {"files": [line["file"] for line in lines]})


def _licences(manifest: list[dict[str, Any]]) -> Finding:
    count = Counter(str(line.get("licence") or _UNKNOWN) for line in manifest)
    found = " · ".join(f"{tag} {number:,}" for tag, number in count.most_common())
    figures = {"clips": dict(count)}
    if _UNKNOWN not in count:
        return Finding("licences", "ok", found, figures=figures)
    remedy = "find out whether you may use and share them, and import again with --licence"
    ids = {_UNKNOWN: [line["id"] for line in manifest if str(line.get("licence") or _UNKNOWN) == _UNKNOWN]}
    return Finding("licences", "note", found, remedy, ids, figures)


def _flags(manifest: list[dict[str, Any]]) -> Finding:
    ids: dict[str, list[str]] = defaultdict(list)
    for line in manifest:
        flags = line.get("flags")
        for flag in flags if isinstance(flags, list) else []:
            ids[str(flag)].append(line["id"])
    if not ids:
        return Finding("flags", "ok", "none")
    order = sorted(ids, key=lambda flag: -len(ids[flag]))
    found = "; ".join(f"{clips(len(ids[flag]))}: {flag}" for flag in order[:5])
    found += f"; {len(order) - 5} other flags" if len(order) > 5 else ""
    return Finding("flags", "note", found, "", ids, {"clips": {flag: len(who) for flag, who in ids.items()}})


def _manifest(manifest: list[dict[str, Any]], data: DataSet) -> Finding:
    told = Counter(line["id"] for line in manifest)
    ids = {
        "not in the manifest": sorted(set(data.members) - set(told)),
        "not in a list": sorted(set(told) - set(data.members)),
        "twice in the manifest": sorted(clip for clip, count in told.items() if count > 1),
    }
    if not any(ids.values()):
        return Finding("manifest", "ok", f"tells of the {clips(len(told))} of the lists")
    found = "; ".join(f"{clips(len(who))} {what} {some(who)}" for what, who in ids.items() if who)
    remedy = "lists or manifest were changed by hand: nothing is known of clips that the manifest leaves out"
    return Finding("manifest", "warning", found, remedy, ids)


def _recordings(manifest: list[dict[str, Any]], data: DataSet) -> Finding:
    """Clips of one source file in several of train, val and test."""
    split, of_file = data.main_split(), defaultdict(list)
    for line in manifest:
        if line["id"] in split:
            of_file[line["file"]].append(line["id"])
    torn = {file: who for file, who in of_file.items() if len({split[clip] for clip in who}) > 1}
    if not torn:
        return Finding("recordings", "ok", "all clips of a source file are in one of train, val, test")
    judged = [clip for who in torn.values() for clip in who if split[clip] != "train"]
    found = f"clips of {_files(len(torn))} are in more than one of train, val, test {some(torn)}"
    ids = {"files": list(torn), "clips of val and test": judged}
    return Finding("recordings", "warning", found, _LEAK, ids)


def _copies(manifest: list[dict[str, Any]], data: DataSet) -> Finding:
    """Source files with the same bytes under several names."""
    split, names, splits = data.main_split(), defaultdict(set), defaultdict(set)
    for line in manifest:
        names[line["sha256"]].add(line["file"])
        splits[line["sha256"]].add(split.get(line["id"]))
    twins = {digest: sorted(files) for digest, files in names.items() if len(files) > 1}
    if not twins:
        return Finding("source copies", "ok", "no two source files are identical")
    pairs = [" = ".join(files) for files in twins.values()]
    found = f"{_files(sum(map(len, twins.values())))} are copies of one another {some(pairs, 2)}"
    across = [" = ".join(files) for digest, files in twins.items() if len(splits[digest] - {None}) > 1]
    if not across:
        return Finding("source copies", "note", found, "training sees these recordings more often", {"files": pairs})
    found += f"; {len(across):,} of {len(twins):,} groups in more than one of train, val, test"
    return Finding("source copies", "warning", found, _LEAK, {"files": pairs, "across": across})


def _lines(file: Path, keys: tuple[str, ...]) -> tuple[list[dict[str, Any]], str]:
    """The lines of a JSON-lines file that all have ``keys`` with text, or why there are none."""
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        return [], f"{file.name} is not readable: {str(error).splitlines()[0][:80]}"
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in keys):
            return [], f"{file.name}, line {number}: has no {', '.join(keys)}"
    return lines, ""


def _files(count: int) -> str:
    return f"{count:,} source file{'' if count == 1 else 's'}"
