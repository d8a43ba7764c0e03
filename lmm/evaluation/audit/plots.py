"""The audit's plots as SVG text: one strip a corruption, the splits, novelty. Needs matplotlib."""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from lmm.evaluation.audit.corruptions import SWAPPED
from lmm.evaluation.audit.duplicates import SplitFigures
from lmm.evaluation.audit.figures import R_PRECISION
from lmm.evaluation.audit.labels import FIGURE_LABELS, PHYSICS_LABELS, number, unit
from lmm.evaluation.audit.novelty import Novelty
from lmm.evaluation.audit.response import Response

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, RULE, NOISE = "#23272e", "#6b7079", "#dfdcd5", "#e6e3dc"
BLUE, ORANGE, GREEN, PURPLE = "#2b7bba", "#e87e34", "#3c8d5f", "#8a5aa8"
RETRIEVAL = dict(zip(R_PRECISION, ("#8c3f0c", ORANGE, "#f4b98a"), strict=True))
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "svg.hashsalt": "lmm",
    "axes.edgecolor": SOFT, "axes.labelcolor": SOFT, "axes.labelsize": 8.5, "axes.linewidth": 0.8,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none",
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8, "legend.frameon": False, "lines.linewidth": 1.8, "lines.markersize": 4.5,
}  # fmt: skip


def require() -> None:
    """Refuse early where the plots cannot be drawn.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("the page of an audit is drawn by matplotlib: pip install 'lmm[report]'") from None


def style() -> AbstractContextManager[None]:
    """In which plots are drawn and written."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def strip(response: Response, kind: str) -> str:
    """FID, R-precision, MM-distance and what the joints show, over the strength of one corruption."""
    rows = response.series(kind)
    ticks = ["none", *[number(kind, row.strength) for row in rows[1:]]]
    figure, axes = _figure(11.4, 2.4, 4)
    for axis, names, colours in (
        (axes[0], ("fid",), {"fid": BLUE}),
        (axes[1], R_PRECISION, RETRIEVAL),
        (axes[2], ("multimodal_distance",), {"multimodal_distance": GREEN}),
    ):
        for name in names:
            values = [row.figures[name] for row in rows]
            _band(axis, values[0], response.noise[name])
            label = FIGURE_LABELS[name].removeprefix("R-precision")
            axis.plot(values, "o-", color=colours[name], label=label if len(names) > 1 else None, clip_on=False)
        axis.set_title(FIGURE_LABELS[names[0]].removesuffix("@1"))
    axes[1].set_ylim(0, 1)
    axes[0].set_ylim(bottom=0)
    axes[1].legend(
        ncols=3, loc="lower right", bbox_to_anchor=(1.02, 0.97), handlelength=1.0, columnspacing=0.7, fontsize=7.5
    )
    _joints(axes[3], response, kind)
    for axis in axes:
        if axis.axison:
            axis.set_xticks(range(len(ticks)), ticks)
            axis.set_xlabel(unit(kind) if unit(kind) != "×" else "factor (×)")
            axis.set_xlim(-0.25, len(ticks) - 0.75)
    return _svg(figure)


def _joints(axis: "Axes", response: Response, kind: str) -> None:
    """The most telling physics figure; for mirrored clips, texts that name a side and texts that do not."""
    rows = response.series(kind)
    if kind == "mirrored" and rows[0].sided:
        for group, colour in (("side", PURPLE), ("no side", SOFT)):
            values = [row.sided[group]["r_precision_3"] for row in rows]
            axis.plot(values, "o-", color=colour, label=f"caption names {'a' if group == 'side' else 'no'} side")
        axis.set_title("R-precision@3")
        axis.set_ylim(0, 1)
        axis.legend(loc="lower left")
        return
    moved = response.seen_in_joints(kind)
    if not moved:
        axis.axis("off")
        said = "the joints are untouched" if kind == SWAPPED else "no physics figure moves beyond noise"
        axis.text(0.5, 0.5, said, ha="center", va="center", color=SOFT, transform=axis.transAxes)
        return
    name = moved[0]
    values = [row.physics[name] for row in rows]
    _band(axis, values[0], response.noise[name])
    axis.plot(values, "o-", color=PURPLE, clip_on=False)
    axis.set_title(PHYSICS_LABELS[name][0].upper() + PHYSICS_LABELS[name][1:])
    axis.set_ylim(bottom=0)


def split_bars(splits: Sequence[SplitFigures]) -> str:
    """Plain and corrected R-precision of each split, with ceilings."""
    figure, axes = _figure(11.4, 2.9, max(len(splits), 2))
    for axis, split in zip(axes, splits, strict=False):
        for offset, scores, colour, label in (
            (-0.19, split.plain, ORANGE, "plain"),
            (0.19, split.corrected, "#8c3f0c", "twins count"),
        ):
            values = [scores[name][0] for name in R_PRECISION]
            errors = [[v - scores[n][1] for v, n in zip(values, R_PRECISION, strict=True)],
                      [scores[n][2] - v for v, n in zip(values, R_PRECISION, strict=True)]]  # fmt: skip
            places = [k + offset for k in range(3)]
            axis.bar(places, values, 0.36, color=colour, label=label, yerr=errors, ecolor=INK, error_kw={"lw": 1})
        for k, name in enumerate(R_PRECISION):
            axis.plot(
                [k - 0.38, k], [split.ceiling[name]] * 2, color=BLUE, lw=2, label=None if k else "ceiling of plain"
            )
            axis.plot(
                [k - 0.38, k + 0.38],
                [split.chance[name][0]] * 2,
                color=SOFT,
                lw=1.2,
                ls=":",
                label=None if k else "guessing",
            )
        axis.set_xticks(range(3), ["@1", "@2", "@3"])
        axis.set_ylim(0, 1.02)
        axis.set_title(f"{split.split} ({split.clips} clips)")
        axis.set_ylabel("R-precision of real motions")
    for axis in axes[len(splits) :]:
        axis.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return _svg(figure)


def novelty_plot(novelty: Sequence[Novelty]) -> str:
    """R-precision@3 by quantile of distance to training, by words and in the evaluator's space."""
    figure, axes = _figure(11.4, 3.1, 2)
    titles = {"words": "By words alone (1 − tf-idf cosine)", "text space": "In the evaluator's own text space"}
    for axis, measured in zip(axes, novelty, strict=True):
        places = list(range(len(measured.bins)))
        for offset, colour, label, scores in (
            (-0.06, ORANGE, "plain", [b.plain for b in measured.bins]),
            (0.06, "#8c3f0c", "twins count", [b.corrected for b in measured.bins]),
        ):
            values = [value for value, _, _ in scores]
            errors = [[v - low for v, low, _ in scores], [high - v for v, _, high in scores]]
            axis.errorbar([p + offset for p in places], values, errors, fmt="o-", color=colour, label=label)
        axis.plot(places, [b.ceiling for b in measured.bins], color=BLUE, lw=1.5, ls="--", label="ceiling of plain")
        axis.axhline(3 / 32, color=SOFT, lw=1.2, ls=":", label="guessing")
        axis.set_xticks(places, [f"{_span(b.low, b.high)}\nn = {b.captions}" for b in measured.bins])
        axis.set_xlim(-0.4, len(places) - 0.6)
        axis.set_ylim(0, 1.05)
        axis.set_xlabel(f"distance to the nearest of {measured.compared:,} training captions")
        axis.set_ylabel("R-precision@3 of real motions")
        axis.set_title(titles[measured.measure])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return _svg(figure)


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _band(axis: "Axes", centre: float, noise: float) -> None:
    axis.axhspan(centre - noise, centre + noise, color=NOISE, lw=0, zorder=0)


def _figure(width: float, height: float, columns: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots(1, columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.08, wspace=0.04)  # type: ignore[union-attr, call-arg]
    for axis in axes[0]:
        axis.grid(axis="y", color=RULE, lw=0.7)
        axis.set_axisbelow(True)
    return figure, list(axes[0])


def _svg(figure: "Figure") -> str:
    """The element alone, as wide as its place; letters are paths, so that no browser's font moves them."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    return re.sub(r' (width|height)="[^"]*pt"', "", element, count=2)
