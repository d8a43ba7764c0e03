"""``Mean.npy`` and ``Std.npy``: whose they are, and whether they fit the data.

Two published pairs go about under the same names. HumanML3D's own pair normalizes what is trained; the evaluator's
(Guo et al.) normalizes what is scored, and its deviations of root and contacts are 25 times smaller. In the wrong
place either ruins a result without an error message. Files are told by their sha256, and copies by their values.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmm.data.check.dataset import DataSet
from lmm.data.check.files import KINDS
from lmm.data.check.layout import Layout
from lmm.data.check.report import Finding

_TRAINING, _EVALUATOR, _KIT = "HumanML3D's own pair", "the evaluator's pair (t2m)", "the evaluator's pair (KIT)"
_SHA256 = {
    "26e136555dab04c94a129d446c26e6b9939cbf045fbf77bcf5462c1fb5a2001c": ("mean", _TRAINING),
    "6565a65ed9b31e23c328829a309e1c482be8b85fd23b43d65451a9b19a917f40": ("std", _TRAINING),
    "0bdb5ba69a3a9e34d71990db15bc535ebc024c8d95ddb5574196f96058faa7d3": ("mean", _EVALUATOR),
    "6a5f7d60301c9465972fc225f8ad0ee8f957e7720431189123eb6d15873a9557": ("std", _EVALUATOR),
    "9e23fac51db2215ab5666324226be48f27efd6a6e7b22ebd17c28e0f056a7c22": ("mean", _KIT),
    "296a60656cea07e65ee64512d73d47c0412df0698b35194116330661be32fa90": ("std", _KIT),
}
# Deviation of each feature block; what the published files hold.
_BLOCK_STD = {
    _TRAINING: (0.0128256, 0.0169271, 0.153766, 0.1222436, 0.2996918, 0.0194703, 0.3559327),
    _EVALUATOR: (0.000514673, 0.000676928, 0.006120817, 0.122555385, 0.300386488, 0.019540570, 0.014094940),
}
# Root height of the mean: the one value by which the two means differ well beyond rounding.
_ROOT_HEIGHT = {_TRAINING: 0.93855, _EVALUATOR: 0.91752}
_CLOSE = (0.4, 1.3)  # mean within this many deviations, deviations within this factor
_STILL = 1e-6


class _File(NamedTuple):
    """A statistics file: ``part`` is mean or std, ``pair`` whose it is; both empty where that is unknown."""

    name: str
    values: NDArray[np.float64] | None
    part: str
    pair: str
    problem: str


def check_statistics(data: DataSet) -> list[Finding]:
    """Findings on the files called mean or std in the folder and one level below."""
    files = [_identify(file, data) for file in _candidates(data.folder)]
    main = [file for file in files if file.name in ("Mean.npy", "Std.npy")]
    return [_pair(main), _fit(main, data), _others([file for file in files if file not in main])]


def _pair(files: list[_File]) -> Finding:
    name, remedy = "Mean and Std", "put the data set's own pair there, or delete both files: then they are computed"
    if not files:
        return Finding(name, "ok", "no Mean.npy and Std.npy: the train split's are computed")
    told = "; ".join(_tell(file) for file in files)
    if any(file.part and file.part != file.name[:-4].lower() for file in files):
        return Finding(name, "error", f"{told}: exchanged", remedy)
    if any(file.problem for file in files):
        return Finding(name, "error", told, remedy)
    if len(files) == 1:
        return Finding(name, "warning", f"{told}; the other file is missing, so neither is used", remedy)
    pairs = {file.pair for file in files}
    if len(pairs) > 1:
        return Finding(name, "error", f"{told}: a mixture", remedy)
    if pairs <= {_EVALUATOR, _KIT}:
        return Finding(name, "warning", f"both are {pairs.pop()}, not the one to train with", remedy)
    return Finding(name, "ok", pairs.pop() or "no published pair: the data set's own")


def _fit(files: list[_File], data: DataSet) -> Finding:
    name, sums = "statistics' fit", data.sums
    values = {file.name: file.values for file in files if file.values is not None and not file.problem}
    if len(values) < 2 or sums is None or sums.rows < 2:
        return Finding(name, "ok", "nothing to compare: no statistics, or no vectors of a train split")
    mean = sums.total / sums.rows
    std = _segments(np.sqrt(np.maximum(sums.squares / sums.rows - mean**2, 0)), data.layout)
    moving = std > _STILL
    off = np.abs(values["Mean.npy"] - mean)[moving] / std[moving]
    ratio = values["Std.npy"][moving] / std[moving]
    wide = float(np.maximum(ratio, 1 / np.maximum(ratio, 1e-12)).max(initial=1.0))
    figures = {"mean_off_in_std": float(off.max(initial=0)), "std_ratio": [float(ratio.min()), float(ratio.max())]}
    found = (
        f"against {sums.rows:,} train rows: mean off by at most {off.max(initial=0):.3f} std, "
        f"std {ratio.min():.3f} to {ratio.max():.3f} times"
    )
    if off.max(initial=0) <= _CLOSE[0] and wide <= _CLOSE[1]:
        return Finding(name, "ok", found, figures=figures)
    if any(file.pair in (_EVALUATOR, _KIT) for file in files):
        return Finding(name, "ok", f"{found} (the evaluator's pair: see above)", figures=figures)
    remedy = "they describe other data, or features of another kind: delete both, and the train split's are computed"
    return Finding(name, "warning", found, remedy, figures=figures)


def _others(files: list[_File]) -> Finding:
    if not files:
        return Finding("other statistics", "ok", "none in the folder")
    told = "; ".join(_tell(file) for file in files)
    wrong = [file.name for file in files if file.part and file.part not in file.name.lower()]
    wrong += [file.name for file in files if file.pair == _TRAINING and "eval" in file.name.lower()]
    if wrong:
        return Finding("other statistics", "warning", told, f"{', '.join(wrong)}: the name tells of something else")
    level = "warning" if any(file.problem for file in files) else "note"
    return Finding("other statistics", level, told, "no source reads them; an evaluator's own pair travels with it")


def _tell(file: _File) -> str:
    return f"{file.name}: {file.problem or (f'{file.part} of {file.pair}' if file.pair else 'not a published file')}"


def _candidates(folder: Path) -> list[Path]:
    folders = [folder, *(f for f in folder.iterdir() if f.is_dir() and f.name not in (*KINDS, "texts"))]
    found = [file for place in folders for file in place.glob("*.npy")]
    return sorted(file for file in found if any(word in file.stem.lower() for word in ("mean", "std")))


def _identify(file: Path, data: DataSet) -> _File:
    name = str(file.relative_to(data.folder))
    try:
        raw = file.read_bytes()
        values = np.load(file, allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            raise ValueError("no floating-point array")
        values = values.astype(np.float64)
    except (ValueError, TypeError, EOFError, OSError, SyntaxError) as error:
        return _File(name, None, "", "", f"unreadable ({str(error)[:60]})")
    part, pair = _SHA256.get(hashlib.sha256(raw).hexdigest(), ("", ""))
    problem = ""
    if values.shape != (data.layout.dim,):
        problem = f"shape {values.shape}, expected ({data.layout.dim},)"
    elif not np.isfinite(values).all():
        problem = "contains NaN or Inf"
    elif not pair and data.layout.name == "HumanML3D":
        part, pair = _by_value(values, data.layout)
    if not problem and part != "mean" and "std" in file.stem.lower() and not (values > 0).all():
        problem = "a deviation is not positive"
    return _File(name, values, part, pair, problem)


def _by_value(values: NDArray[np.float64], layout: Layout) -> tuple[str, str]:
    """Part and pair of a file with published values but other bytes, such as another precision."""
    segments = _segments(values, layout)
    for pair, block_std in _BLOCK_STD.items():
        if np.allclose(segments, np.repeat(block_std, list(layout.features.blocks.values())), rtol=1e-4):
            return "std", pair
    height = values[sum(list(layout.features.blocks.values())[: list(layout.features.blocks).index("root_height")])]
    for pair, published in _ROOT_HEIGHT.items():
        if abs(height - published) < 1e-4 and (values < 0).any():  # a deviation is never negative
            return "mean", pair
    return "", ""


def _segments(values: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Each feature's value replaced by its block's average, as HumanML3D does with deviations."""
    widths = list(layout.features.blocks.values())
    return np.repeat([part.mean() for part in np.split(values, np.cumsum(widths)[:-1])], widths)
