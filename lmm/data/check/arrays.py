"""The arrays themselves: readable, of the right shape, finite, equally long; and how long."""

from collections import Counter

import numpy as np

from lmm.data.check.dataset import KNOWN, SKIP_KNOWN, DataSet
from lmm.data.check.files import ENDINGS, KINDS
from lmm.data.check.report import Finding, clips, some

_SKIP = "repair or make them again, or leave the clips out with the source's argument skip"


def check_arrays(data: DataSet) -> list[Finding]:
    """Findings on ``new_joints``, ``new_joint_vecs`` and ``motions``."""
    return [_readable(data), _finite(data), _lengths(data), _frames(data)]


def _readable(data: DataSet) -> Finding:
    arrays = [(kind, clip, array) for clip, facts in data.clips.items() for kind, array in facts.arrays.items()]
    bad = [(kind, clip, array) for kind, clip, array in arrays if array.problem]
    types = Counter(array.dtype for _, _, array in arrays if not array.problem)
    if bad:
        reasons = [f"{kind}/{clip}{ENDINGS[kind]}: {array.problem}" for kind, clip, array in bad]
        found = f"{len(bad):,} of {len(arrays):,} files cannot be used; {'; '.join(reasons[:2])}"
        ids = {kind: [clip for k, clip, _ in bad if k == kind] for kind in KINDS if kind in data.files}
        return Finding("arrays", "error", found, _SKIP, ids, {"reasons": reasons})
    if set(types) - {"float32"}:
        found = ", ".join(f"{n:,} files of {kind}" for kind, n in types.most_common())
        ids = {"not float32": [clip for _, clip, array in arrays if array.dtype != "float32"]}
        return Finding("arrays", "note", found, "float32 is the layout's; others are converted when they are read", ids)
    return Finding("arrays", "ok", f"{len(arrays):,} files read: float32, shapes right")


def _finite(data: DataSet) -> Finding:
    bad = {
        kind: [clip for clip, facts in data.clips.items() if kind in facts.arrays and facts.arrays[kind].nan]
        for kind in KINDS
    }
    ids = sorted({clip for found in bad.values() for clip in found})
    if not ids:
        return Finding("NaN and Inf", "ok", "none")
    new = [clip for clip in ids if clip not in KNOWN]
    if not new:
        return Finding("NaN and Inf", "note", f"as in everybody's HumanML3D: {', '.join(ids)}", SKIP_KNOWN, bad)
    return Finding("NaN and Inf", "error", f"in {clips(len(ids))} {some(new)}", _SKIP, bad)


def _lengths(data: DataSet) -> Finding:
    frames = {
        clip: {kind: array.shape[0] for kind, array in facts.arrays.items() if not array.problem}
        for clip, facts in data.clips.items()
    }
    several = {clip: lengths for clip, lengths in frames.items() if len(lengths) > 1}
    differ = [clip for clip, lengths in several.items() if len(set(lengths.values())) > 1]
    if not several:
        return Finding("equal lengths", "ok", "only one kind of array to read")
    kinds = " and ".join(kind for kind in KINDS if kind in data.files)
    if not differ:
        return Finding("equal lengths", "ok", f"{kinds} of {clips(len(several))} are equally long")
    told = ", ".join(f"{kind} {rows}" for kind, rows in several[differ[0]].items())
    found = f"{kinds} of {clips(len(differ))} differ in length; {differ[0]}: {told}"
    remedy = "the layout keeps T frames of each kind and T rows of vectors; make all again from one recording"
    return Finding("equal lengths", "warning", found, remedy, {"clips": differ})


def _frames(data: DataSet) -> Finding:
    frames = {clip: facts.frames for clip, facts in data.clips.items() if facts.frames is not None}
    if not frames:
        return Finding("frames", "error", "no clip can be read", "see the findings above")
    low, high = data.layout.min_frames, data.layout.max_frames
    lengths = np.array(list(frames.values()))
    ids = {
        "short": [clip for clip, n in frames.items() if n < low],
        "long": [c for c, n in frames.items() if n >= high],
    }
    hours = sum(facts.seconds or 0.0 for facts in data.clips.values()) / 3600
    found = f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}; {hours:.2f} h"
    rates = {facts.fps for facts in data.clips.values()}
    rule = f"{low} <= T < {high}" + "".join(
        f" ({low / fps:.1f} to {high / fps:.1f} s at {fps:g} fps)" for fps in rates if len(rates) == 1
    )
    figures = {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
        "hours": hours,
    }
    if not any(ids.values()):
        return Finding("frames", "ok", f"{found}; all in {rule}", figures=figures)
    found += f"; {len(ids['short']):,} clips under {low}, {len(ids['long']):,} of {high} or more"
    remedy = f"these are dropped by the field's rule, {rule}; the source's min_frames and max_frames change it"
    return Finding("frames", "note", found, remedy, ids, figures)
