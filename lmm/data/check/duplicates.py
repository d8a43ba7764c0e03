"""Clips that are there twice: to the byte, or nearly.

Nearly: of the same length (to 5 %) and, at 8 even phases from a common origin and facing direction, with joints less
than 3 cm (root mean square) apart. Projections on principal axes never lie further apart than the clips, so a grid on
the first few finds all candidates without comparing every pair; excerpts and time-shifted copies are not found.
"""

from collections import defaultdict
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lmm.data.check.dataset import DataSet
from lmm.data.check.report import Finding, clips, some

NEAR = 0.03  # metres, root mean square over joints and phases
_LENGTH = 0.05
_AXES = 4  # of the grid
_AHEAD = 200  # clips of one cell that a clip is compared with: bounds the work where all clips are alike
_AT_ONCE = 100_000  # pairs compared in one go


def check_duplicates(data: DataSet) -> list[Finding]:
    """Findings on repeated clips, within a split and across train, val and test."""
    same = defaultdict(list)
    for clip, facts in data.clips.items():
        digests = [facts.arrays[kind].digest for kind in sorted(facts.arrays) if facts.usable(kind)]
        if digests:
            same[digests[0]].append(clip)
    groups = [ids for ids in same.values() if len(ids) > 1]
    twins = {(ids[0], other) for ids in groups for other in ids[1:]}
    exact = _finding("exact duplicates", twins, data, "identical to the byte")
    kept = {ids[0] for ids in same.values()}
    bodies = {clip: facts.body for clip, facts in data.clips.items() if facts.body is not None and clip in kept}
    if len(bodies) < 2:
        return [exact]
    names = np.array(list(bodies))
    shapes = np.stack([body.shape.reshape(-1) for body in bodies.values()])
    frames = np.array([body.frames for body in bodies.values()])
    pairs, cut = near_pairs(shapes, frames, NEAR * np.sqrt(shapes.shape[1] / 3))
    found = {(min(a, b), max(a, b)) for a, b in names[pairs].tolist()}
    alike = f"within {NEAR * 100:.0f} cm" + (f" (of a cell's clips the next {_AHEAD} compared)" if cut else "")
    return [exact, _finding("near duplicates", found, data, alike)]


def near_pairs(points: NDArray[np.float32], frames: NDArray[np.int64], radius: float) -> tuple[NDArray[np.int64], bool]:
    """Pairs of points closer than ``radius`` whose lengths agree.

    Args:
        points: "N D".
        frames: lengths of the clips, "N".
        radius: largest Euclidean distance of a pair.

    Returns:
        Index pairs "M 2", and whether crowded cells made it leave candidates out.
    """
    points = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(points[:: max(len(points) // 2000, 1)], full_matrices=False)
    projected = points @ axes[:24].T
    cells = np.floor(projected[:, :_AXES] / radius).astype(np.int64)
    cells = cells - cells.min(axis=0) + 1
    strides = np.cumprod(np.concatenate([[1], cells.max(axis=0)[:-1] + 2]))
    keys = cells @ strides
    order = np.lexsort((frames, keys))
    sorted_keys = keys[order]
    found, cut = [], False
    for step in product((-1, 0, 1), repeat=cells.shape[1]):
        offset = int(np.array(step) @ strides)
        if step < (0,) * len(step):  # each pair of neighbouring cells once
            continue
        begin = np.searchsorted(sorted_keys, keys[order] + offset, side="left")
        if not any(step):
            begin = np.arange(1, len(order) + 1)
        end = np.searchsorted(sorted_keys, keys[order] + offset, side="right")
        cut |= bool((end - begin > _AHEAD).any())
        counts = np.clip(end - begin, 0, _AHEAD)
        starts = np.flatnonzero(counts)
        batches = np.cumsum(counts[starts]) // _AT_ONCE
        for batch in np.unique(batches):
            mine = starts[batches == batch]
            first = np.repeat(mine, counts[mine])
            within = np.arange(len(first)) - np.repeat(np.cumsum(counts[mine]) - counts[mine], counts[mine])
            a, b = order[first], order[begin[first] + within]
            alike = np.abs(frames[a] - frames[b]) <= _LENGTH * np.maximum(frames[a], frames[b])
            a, b = a[alike], b[alike]
            close = np.square(projected[a] - projected[b]).sum(axis=1) < radius**2
            a, b = a[close], b[close]
            close = np.square(points[a] - points[b]).sum(axis=1) < radius**2
            found.append(np.stack([a[close], b[close]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64), cut


def _finding(name: str, pairs: set[tuple[str, str]], data: DataSet, alike: str) -> Finding:
    if not pairs:
        return Finding(name, "ok", f"no two clips are {alike}")
    split = data.main_split()
    across = sorted(pair for pair in pairs if {split.get(clip) for clip in pair} >= {"train"} and _apart(pair, split))
    judged = sorted({clip for pair in across for clip in pair if split[clip] != "train"})
    ids = {
        "pairs": [f"{a} = {b}" for a, b in sorted(pairs)],
        "clips of val and test that train has": judged,
    }
    first = some((f"{a} = {b}" for a, b in across or pairs), 2)
    found = f"{len(pairs):,} pair{'' if len(pairs) == 1 else 's'} {alike} {first}"
    if not across:
        return Finding(name, "note", f"{found}, none of train with val or test", "", ids)
    found += f"; train has the like of {clips(len(judged))} of val and test"
    remedy = "results on these clips measure memory: leave them out of val and test, or split by recording"
    return Finding(name, "warning", found, remedy, ids)


def _apart(pair: tuple[str, str], split: dict[str, str]) -> bool:
    a, b = (split.get(clip) for clip in pair)
    return a is not None and b is not None and a != b
