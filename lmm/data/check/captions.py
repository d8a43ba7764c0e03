"""Captions: format, times, words of the sides in mirrored clips, and what val and test share with train.

Nearly the same: the same words after articles, endings and order are dropped. OpenT2M (arXiv 2603.18623) found 10.6 %
of HumanML3D's and 17.0 % of Motion-X's validation texts verbatim in train.
"""

from collections import Counter

import numpy as np

from lmm.data.check.dataset import DataSet
from lmm.data.check.report import Finding, clips, some
from lmm.data.check.text import Text, bag, sides, words

_SLACK = 0.25  # seconds a caption may end after its clip
_OTHER = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}


def check_captions(data: DataSet) -> list[Finding]:
    """Findings on the folder ``texts``."""
    texts = {clip: facts.text for clip, facts in data.clips.items() if facts.text is not None}
    if not texts:
        found = "no texts to examine" if "texts" in data.files else "no texts/, so no captions"
        return [Finding("captions", "note", found, "good for tokenizers only, with require_captions: false")]
    return [_counts(texts), _format(texts), _times(texts, data), _sides(texts), _tags(texts), _shared(texts, data)]


def _counts(texts: dict[str, Text]) -> Finding:
    counts = np.array([len(text.lines) for text in texts.values()])
    vocabulary = Counter(word for text in texts.values() for line in text.lines for word in words(line.caption))
    found = (
        f"{counts.sum():,} of {clips(len(texts))}: {counts.mean():.2f} each ({counts.min()} to {counts.max()}), "
        f"{len(vocabulary):,} different words"
    )
    figures = {"captions": int(counts.sum()), "words": len(vocabulary), "per_clip": float(counts.mean())}
    return Finding("captions", "ok", found, figures=figures)


def _format(texts: dict[str, Text]) -> Finding:
    problems = {clip: text.problems for clip, text in texts.items() if text.problems}
    if not problems:
        return Finding("caption format", "ok", "every line is caption#word/POS ...#start#end")
    first = [f"{clip}.txt, {why[0]}" for clip, why in problems.items()][:2]
    found = f"{len(problems):,} files cannot be read as they are: {'; '.join(first)}"
    remedy = "write caption#word/POS word/POS#0.0#0.0 a line, as utf-8"
    return Finding("caption format", "error", found, remedy, {"clips": list(problems)}, {"problems": problems})


def _times(texts: dict[str, Text], data: DataSet) -> Finding:
    parts, empty, beyond = 0, [], []
    for clip, text in texts.items():
        seconds = data.clips[clip].seconds
        for line in text.lines:
            if line.start == line.end == 0:
                continue
            parts += 1
            if line.end <= line.start:
                empty.append(clip)
            elif seconds is not None and line.end > seconds + _SLACK:
                beyond.append(clip)
    if not empty and not beyond:
        return Finding("caption times", "ok", f"all within their clip; {parts:,} are about a part of it")
    told = ["no time between start and end " + some(empty)] * bool(empty)
    told += [f"in {clips(len(set(beyond)))} beyond the end {some(set(beyond))}"] * bool(beyond)
    remedy = (
        "such captions are cut to the clip, or dropped as too short: correct the times (seconds from the clip's start)"
    )
    ids = {"no duration": sorted(set(empty)), "beyond the end": sorted(set(beyond))}
    return Finding("caption times", "warning", "; ".join(told), remedy, ids)


def _sides(texts: dict[str, Text]) -> Finding:
    pairs = [clip for clip in texts if f"M{clip}" in texts]
    kept, differ = [], []
    for clip in pairs:
        own, mirrored = texts[clip].lines, texts[f"M{clip}"].lines
        if len(own) != len(mirrored):
            differ.append(f"M{clip}")
            continue
        for a, b in zip(own, mirrored, strict=True):
            said, others = sides(a.caption), sides(b.caption)
            if said and others == said:
                kept.append(f"M{clip}")
            elif others != [_OTHER[word] for word in said]:
                differ.append(f"M{clip}")
    kept, differ = sorted(set(kept)), sorted(set(differ) - set(kept))
    if not kept and not differ:
        text = f"left and right are exchanged in {clips(len(pairs))} M<id>" if pairs else "no M<id>"
        return Finding("mirrored words", "ok", text)
    told = [f"left and right as in the original in {clips(len(kept))} {some(kept)}"] * bool(kept)
    told += [f"other captions than the original's in {clips(len(differ))} {some(differ)}"] * bool(differ)
    remedy = "exchange left and right (and the clockwise words) in the captions of mirrored clips"
    return Finding("mirrored words", "warning", "; ".join(told), remedy, {"not exchanged": kept, "differ": differ})


def _tags(texts: dict[str, Text]) -> Finding:
    known = Counter(bool(line.tags - {"OTHER"}) for text in texts.values() for line in text.lines)
    if not known[False]:
        return Finding("parts of speech", "ok", "every caption has them")
    found = f"{known[False]:,} of {known.total():,} captions have none but OTHER"
    return Finding(
        "parts of speech", "note", found, "only the evaluator of Guo et al. reads them: tag with spaCy for it"
    )


def _shared(texts: dict[str, Text], data: DataSet) -> Finding:
    splits = {
        name: [(clip, line.caption) for clip in ids if clip in texts for line in texts[clip].lines]
        for name, ids in data.splits.items()
    }
    train = splits.pop("train", [])
    if not train or not any(splits.values()):
        return Finding("shared captions", "ok", "no train split and another one to compare")
    verbatim = {tuple(words(caption)) for _, caption in train}
    near = {bag(caption) for _, caption in train}
    told, ids, figures = [], {}, {}
    for name, captions in splits.items():
        if captions:
            same = [clip for clip, caption in captions if tuple(words(caption)) in verbatim]
            alike = [clip for clip, caption in captions if bag(caption) in near]
            figures[name] = {"verbatim": len(same) / len(captions), "nearly": len(alike) / len(captions)}
            told.append(f"{name} {len(same) / len(captions):.1%} verbatim, {len(alike) / len(captions):.1%} nearly")
            ids[f"{name}, verbatim"], ids[f"{name}, nearly"] = sorted(set(same)), sorted(set(alike))
    found = f"in train already: {'; '.join(told)} (HumanML3D: 10.6 % verbatim)"
    remedy = "for text-to-motion results, score the other captions apart"
    return Finding("shared captions", "note" if any(ids.values()) else "ok", found, remedy, ids, figures)
