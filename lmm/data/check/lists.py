"""Split lists against each other, against the published ones and against the files."""

from collections import Counter
from itertools import combinations

from lmm.data.check.dataset import KNOWN, MAIN, SKIP_KNOWN, DataSet
from lmm.data.check.files import ARRAYS, KINDS
from lmm.data.check.report import Finding, clips, some, worst


def check_lists(data: DataSet) -> list[Finding]:
    """Split lists: sizes, what is in none or in several, repetitions, files that are missing."""
    return [_lists(data), _published(data), _missing(data), _unlisted(data), _overlap(data), _mirrors(data)]


def _lists(data: DataSet) -> Finding:
    sizes = {name: len(ids) for name, ids in data.splits.items()}
    order = [name for name in MAIN if name in sizes] + [name for name in sizes if name not in MAIN]
    found, levels, remedy = [" · ".join(f"{name} {sizes[name]:,}" for name in order)], ["ok"], []
    if not data.lists and not data.unreadable:
        found, remedy = ["no split list"], ["write one id a line into train.txt, val.txt and test.txt"]
        levels = ["error"]
    elif "train" not in sizes:
        found, levels = [*found, "no train.txt"], ["warning"]
    if data.unreadable:
        found += [f"{name} {why}" for name, why in data.unreadable.items()]
        remedy.append("every .txt beside the folders is read as a list of ids: repair it, or move it elsewhere")
        levels.append("error")
    if empty := [name for name, ids in data.lists.items() if not ids]:
        found.append(f"{', '.join(f'{name}.txt' for name in empty)} empty")
        remedy.append("delete empty lists, or fill them")
        levels.append("error")
    counts = {name: Counter(ids) for name, ids in data.lists.items()}
    twice = {name: [clip for clip, n in count.items() if n > 1] for name, count in counts.items()}
    for name, ids in twice.items():
        if ids:
            found.append(f"{name}.txt names {clips(len(ids))} more than once {some(ids)}")
            remedy.append("remove the repeated lines")
            levels.append("warning")
    repeated = {f"repeated in {name}": ids for name, ids in twice.items()}
    text = "; ".join(part for part in found if part)
    return Finding("split lists", worst(levels), text, "; ".join(dict.fromkeys(remedy)), repeated, {"sizes": sizes})


def _published(data: DataSet) -> Finding:
    sizes = {name: len(data.splits.get(name, [])) for name in MAIN}
    wanted, digits = data.layout.published, 6 if data.layout.name == "HumanML3D" else 5
    alike = sum(clip.removeprefix("M").isdecimal() and len(clip.removeprefix("M")) == digits for clip in data.members)
    name = data.layout.name
    if alike < max(0.9 * len(data.members), 0.5 * sum(wanted.values())):
        return Finding("published sizes", "ok", f"not {name} itself: nothing to compare with")
    text = " · ".join(f"{split} {n:,}" for split, n in wanted.items())
    if sizes == wanted:
        return Finding("published sizes", "ok", f"those of {name}: {text}")
    found = "; ".join(f"{split} has {sizes[split]:,}, published {n:,}" for split, n in wanted.items())
    remedy = f"results on other splits are not comparable; take the lists of the {name} repository"
    return Finding("published sizes", "warning", found, remedy, figures={"found": sizes, "published": wanted})


def _missing(data: DataSet) -> Finding:
    have = [kind for kind in KINDS if kind in data.files]
    if not have:
        text = "none of new_joints/, new_joint_vecs/ and motions/ is in the folder"
        return Finding("missing files", "error", text, "is this the data set's folder? It holds texts/, train.txt, ...")
    listed = sorted({clip for ids in data.lists.values() for clip in ids})
    needed = [*have, *(["texts"] if "texts" in data.files else [])]  # no texts at all: see the captions
    missing = {kind: [clip for clip in listed if clip not in data.files[kind]] for kind in needed}
    known = {f"{kind} (known)": [clip for clip in ids if clip in KNOWN] for kind, ids in missing.items()}
    missing = {kind: [clip for clip in ids if clip not in KNOWN] for kind, ids in missing.items()}
    parts = [f"{kind} of {clips(len(ids))} {some(ids)}" for kind, ids in missing.items() if ids]
    expected = sorted({clip for ids in known.values() for clip in ids})
    absent = "".join(f"; no {kind}/: not needed" for kind in ARRAYS if kind not in have)
    if parts:
        found, level = f"missing: {'; '.join(parts)}", "error"
        remedy = "copy the files, or take the ids out of the lists"
        if len(missing.get("texts", ())) == len(listed):
            found += "; a tokenizer can be trained without texts (require_captions: false)"
    elif expected:
        found, level, remedy = f"missing as in everybody's HumanML3D: {', '.join(expected)}", "note", SKIP_KNOWN
    else:
        found, level, remedy = f"every listed id has its files{absent}", "ok", ""
    return Finding("missing files", level, found, remedy, {**missing, **known})


def _unlisted(data: DataSet) -> Finding:
    listed = {clip for ids in data.lists.values() for clip in ids}
    ids = {kind: sorted(files - listed) for kind, files in data.files.items()}
    if not data.lists or not any(ids.values()):
        return Finding("unlisted files", "ok", "every file is in a list" if data.lists else "no list to be in")
    found = "; ".join(f"{kind}: {len(names):,} in no list {some(names)}" for kind, names in ids.items() if names)
    return Finding("unlisted files", "note", found, "they are not read, and were not checked", ids)


def _overlap(data: DataSet) -> Finding:
    splits = {name: set(ids) for name, ids in data.splits.items() if name in MAIN}
    shared = {f"{a} and {b}": sorted(splits[a] & splits[b]) for a, b in combinations(splits, 2)}
    if not any(shared.values()):
        return Finding("split overlap", "ok", "no id is in two of train, val, test")
    found = "; ".join(f"{pair} share {clips(len(ids))} {some(ids)}" for pair, ids in shared.items() if ids)
    return Finding(
        "split overlap", "error", found, "take them out of one: a test must not see what was trained", shared
    )


def _mirrors(data: DataSet) -> Finding:
    split = data.main_split()
    pairs = [clip for clip in split if f"M{clip}" in split]
    apart = [clip for clip in pairs if split[clip] != split[f"M{clip}"]]
    if not apart:
        found = f"{len(pairs):,} clips and their mirror images M<id> are in the same split" if pairs else "no M<id>"
        return Finding("mirror splits", "ok", found)
    found = f"{clips(len(apart))} in another split than the mirror image M<id> {some(apart)}"
    return Finding(
        "mirror splits", "warning", found, "put both into one split: they are one recording", {"clips": apart}
    )
