"""The audit's tables as rows of text: `page` makes HTML of them, and audit.md."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lmm.evaluation.audit.agreement import Agreement
from lmm.evaluation.audit.duplicates import Interval, SplitFigures
from lmm.evaluation.audit.figures import FIGURES, R_PRECISION
from lmm.evaluation.audit.labels import FIGURE_LABELS, PHYSICS_LABELS, amount, listed
from lmm.evaluation.audit.novelty import Novelty
from lmm.evaluation.audit.response import RESOLUTION, Response

_SHOWN = ("skating_ratio", "skating_m_s", "jitter_m_s3", "bone_length_std_mm")


class Table(NamedTuple):
    """Head and rows, and the verdict of each cell that is one, by (row, column)."""

    head: list[str]
    rows: list[list[str]]
    verdicts: dict[tuple[int, int], str]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def overview(response: Response) -> Table:
    """A row for each corruption: verdict and rho of every figure, and the joints' figures that see it."""
    rows: list[list[str]] = []
    verdicts: dict[tuple[int, int], str] = {}
    for kind in response.corruptions:
        judged = response.judged(kind)
        joints = [PHYSICS_LABELS[name].partition(" (")[0] for name in response.seen_in_joints(kind)[:3]]
        for column, name in enumerate(FIGURES, start=1):
            verdicts[len(rows), column] = judged[name].verdict
        cells = []
        for name in FIGURES:
            rho = "never moves" if math.isnan(judged[name].rho) else f"ρ {judged[name].rho:.2f}"
            cells.append(f"{judged[name].verdict} ({rho})")
        rows.append([kind, *cells, listed(joints) if joints else "nothing"])
    return Table(["damage", *[FIGURE_LABELS[name] for name in FIGURES], "what the joints show"], rows, verdicts)


def every_row(response: Response) -> Table:
    """All rows, the real ones first."""
    head = ["motions", "strength", *[FIGURE_LABELS[name] for name in FIGURES], "FID, same clips"]
    rows = []
    for row in response.rows:
        strength = amount(row.corruption, row.strength).partition(" of ")[0] if row.strength else ""
        own = [f"{row.figures[name]:.3f}" for name in (*FIGURES, "fid_same_clips")]
        rows.append([row.corruption, strength, *own, *[_joints(row.physics[name]) for name in _SHOWN]])
    noise = [f"± {response.noise[name]:.3f}" for name in FIGURES]
    rows.append(["noise", "", *noise, "", *[f"± {_joints(response.noise[name])}" for name in _SHOWN]])
    return Table([*head, *[PHYSICS_LABELS[name] for name in _SHOWN]], rows, {})


def split_table(splits: Sequence[SplitFigures]) -> Table:
    """Real rows of all splits; twins, ceilings, leaks."""
    rows = []
    for s in splits:
        plain, corrected = ([_interval(scores[name]) for name in R_PRECISION] for scores in (s.plain, s.corrected))
        ceiling = " / ".join(f"{s.ceiling[name]:.3f}" for name in R_PRECISION)
        leak = "–" if s.leaked is None else f"{s.leaked:.1%} ({s.leaked_clips:.1%} of clips)"
        distance, shares = f"{s.multimodal_distance[0]:.3f}", [f"{s.identical:.1%}", f"{s.near:.1%}"]
        rows.append([s.split, f"{s.clips} of {s.available}", *plain, *corrected, ceiling, distance, *shares, leak])
    head = ["split", "clips", *[f"R@{k}" for k in (1, 2, 3)], *[f"R@{k}, twins count" for k in (1, 2, 3)]]
    head += [
        "ceiling of R@1 / 2 / 3",
        "MM-distance",
        "twin in the pool",
        "near twin",
        "captions in train",
    ]
    return Table(head, rows, {})


def novelty_table(novelty: Sequence[Novelty]) -> Table:
    """Bins of novelty."""
    rows = []
    for n in novelty:
        for b in n.bins:
            scores = [_interval(b.plain), _interval(b.corrected), f"{b.ceiling:.3f}"]
            rows.append([n.measure, f"{b.low:.3g} to {b.high:.3g}", str(b.captions), *scores])
    return Table(["measure", "distance to training", "captions", "R@3", "R@3, twins count", "ceiling of R@3"], rows, {})


def agreement_table(agreement: dict[str, list[Agreement]]) -> Table:
    """Rank correlations by pair of evaluators and figure."""
    rows = [
        [FIGURE_LABELS[name], a.first, a.second, f"{a.spearman:.3f}", f"{a.kendall:.3f}", str(a.rows)]
        for name, pairs in agreement.items()
        for a in pairs
    ]
    return Table(["figure", "evaluator", "evaluator", "Spearman's ρ", "Kendall's τ", "rows"], rows, {})


def _joints(value: float) -> str:
    return "0" if abs(value) < RESOLUTION else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _interval(value: Interval) -> str:
    return f"{value[0]:.3f} ({value[1]:.2f} to {value[2]:.2f})"
