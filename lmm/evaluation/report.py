"""What a measurement leaves: every repeat's raw value, a manifest, and a table in Markdown and LaTeX, real row on top.

``raw.jsonl``
    a line a system and repeat, written as it is known; a measurement that was interrupted goes on from it
``results.json``
    what was measured with what: data, evaluator, protocol, predictions, versions; means and intervals
``table.md``, ``table.tex``
    the same to read
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmm.evaluation.protocol import interval

RAW, RESULTS = "raw.jsonl", "results.json"


class Column(NamedTuple):
    """Of a table: head, digits after the point, and which way is better (1 up, -1 down, 0 near the real row)."""

    head: str
    digits: int
    better: int


COLUMNS = (
    {
        "r_precision_1": Column("R@1", 3, 1),
        "r_precision_2": Column("R@2", 3, 1),
        "r_precision_3": Column("R@3", 3, 1),
        "fid": Column("FID", 3, -1),
        "multimodal_distance": Column("MM-Dist", 3, -1),
        "diversity": Column("Diversity", 3, 0),
        "multimodality": Column("MultiModality", 3, 0),
    },
    {
        "mpjpe_mm": Column("MPJPE (mm)", 1, -1),
        "mpjpe_root_mm": Column("root-aligned MPJPE (mm)", 1, -1),
        "pa_mpjpe_mm": Column("PA-MPJPE (mm)", 1, -1),
        "accel_mm_frame2": Column("ACCEL (mm/frame²)", 2, -1),
        "ade_m": Column("ADE (m)", 3, -1),
        "fde_m": Column("FDE (m)", 3, -1),
        "length_error_s": Column("length error (s)", 2, -1),
        "skating_ratio": Column("foot skating (share)", 3, -1),
        "floating_cm": Column("floating (cm)", 2, 0),
        "penetration_mm": Column("penetration (mm)", 2, -1),
        "jitter_m_s3": Column("jitter (m/s³)", 1, 0),
        "acceleration_m_s2": Column("acceleration (m/s²)", 2, 0),
        "bone_length_std_mm": Column("bone length std (mm)", 2, -1),
    },
)
_ARROWS = {1: " ↑", -1: " ↓", 0: " →"}
_LATEX_ARROWS = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: r" $\rightarrow$"}
_LATEX = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "²": "$^2$", "³": "$^3$"})


class Raw:
    """``raw.jsonl``: figures by (key, repeat), where the key says all that they depend on.

    Args:
        file: read if it is there, and added to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[tuple[str, int], dict[str, float]] = {}
        if file.is_file():
            for line in file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the last line of a process that was killed while it wrote; it is measured again
                self._known[entry["key"], entry["repeat"]] = entry["figures"]

    def get(self, key: str, repeat: int) -> dict[str, float] | None:
        """Figures that were measured before."""
        return self._known.get((key, repeat))

    def add(self, key: str, system: str, repeat: int, figures: dict[str, float]) -> None:
        """Keep figures, now and for good."""
        self._known[key, repeat] = figures
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as out:
            out.write(json.dumps({"system": system, "repeat": repeat, "figures": figures, "key": key}) + "\n")


def summarize(rows: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """System -> figure -> mean and half of its 95 % interval over the repeats."""
    return {
        system: {name: interval([each[name] for each in repeats]) for name in repeats[0]}
        for system, repeats in rows.items()
    }


def markdown(title: str, summary: Mapping[str, Mapping[str, tuple[float, float]]], notes: Iterable[str]) -> str:
    """The tables, and what is to be known about them."""
    lines = [f"# {title}", ""]
    for columns in _present(summary):
        heads = [column.head + _ARROWS[column.better] for column in columns.values()]
        lines += ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for system, figures in summary.items():
            cells = [_cell(figures.get(name), column.digits, "{} ± {}", "{}") for name, column in columns.items()]
            lines.append(f"| {system} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"* {note}" for note in notes)]) + "\n"


def latex(summary: Mapping[str, Mapping[str, tuple[float, float]]], notes: Iterable[str]) -> str:
    """The same with booktabs."""
    lines = [f"% {note}" for note in notes]
    for columns in _present(summary):
        heads = [column.head.translate(_LATEX) + _LATEX_ARROWS[column.better] for column in columns.values()]
        lines += [
            r"\begin{tabular}{l" + "c" * len(heads) + "}",
            r"\toprule",
            " & " + " & ".join(heads) + r" \\",
            r"\midrule",
        ]
        for number, (system, figures) in enumerate(summary.items()):
            cells = [
                _cell(figures.get(name), column.digits, "${}^{{\\pm {}}}$", "${}$") for name, column in columns.items()
            ]
            lines.append(" & ".join([system.translate(_LATEX), *cells]) + r" \\")
            lines += [r"\midrule"] if number == 0 and len(summary) > 1 else []
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def write(
    folder: Path, title: str, rows: Mapping[str, list[dict[str, float]]], notes: list[str], manifest: dict[str, Any]
) -> None:
    """All files but ``raw.jsonl``."""
    summary = summarize(rows)
    means = {
        system: {name: {"mean": mean, "interval_95": width} for name, (mean, width) in figures.items()}
        for system, figures in summary.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "notes": notes} | manifest | {"figures": means, "repeats": dict(rows)}
    (folder / RESULTS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (folder / "table.md").write_text(markdown(title, summary, notes))
    (folder / "table.tex").write_text(latex(summary, notes))


def _present(summary: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Column]]:
    """Tables with the columns of which somebody has a figure."""
    found = [
        {name: column for name, column in columns.items() if any(name in figures for figures in summary.values())}
        for columns in COLUMNS
    ]
    return [columns for columns in found if columns]


def _cell(figure: tuple[float, float] | None, digits: int, form: str, alone: str) -> str:
    if figure is None or math.isnan(figure[0]):
        return "-"
    mean, width = (f"{round(number, digits) + 0.0:.{digits}f}" for number in figure)  # no minus before a zero
    # a single repeat has no interval, and what does not depend on any draw none but 0
    return form.format(mean, width) if figure[1] > 0 else alone.format(mean)
