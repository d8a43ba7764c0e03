"""What a check says: one finding a check, shown as a table of at most 100 columns and written as JSON.

Levels: ``ok``; ``note`` (good to know, nothing to repair); ``warning`` (training runs, but on something odd);
``error`` (training stops, or what it learns or reports is wrong).
"""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("ok", "note", "warning", "error")
_WIDTH = 100
_MARGIN = 9 + 18  # columns of level and name


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: the check's name, unique among the findings.
        level: one of `LEVELS`.
        found: what was found, in a sentence or less.
        remedy: what to do; empty where nothing is to do.
        ids: what -> the clips it concerns, all of them.
        figures: numbers behind the sentence, for the JSON file.
    """

    check: str
    level: str
    found: str
    remedy: str = ""
    ids: Mapping[str, list[str]] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.level in LEVELS, self.level

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a group of ids without an id is left out."""
        ids = {what: sorted(clips) for what, clips in self.ids.items() if clips}
        return {**vars(self), "ids": ids, "figures": dict(self.figures)}

    def lines(self) -> list[str]:
        """The finding as rows of the table."""
        rows = textwrap.wrap(self.found, _WIDTH - _MARGIN)
        if self.remedy:
            rows += textwrap.wrap(self.remedy, _WIDTH - _MARGIN, initial_indent="-> ", subsequent_indent="   ")
        heads = [f"{self.level:<9}{self.check:<18}"] + [" " * _MARGIN] * (len(rows) - 1)
        return [head + row for head, row in zip(heads, rows, strict=True)]


def table(findings: Iterable[Finding]) -> str:
    """All findings in their order, and a line that counts them."""
    findings = list(findings)
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS}
    lines = [line for finding in findings for line in finding.lines()]
    total = [f"{n} {level if level == 'ok' or n == 1 else level + 's'}" for level, n in reversed(counts.items()) if n]
    return "\n".join([*lines, "", ", ".join(total)])


def worst(levels: Iterable[str]) -> str:
    """The most severe of some levels; ``ok`` where there is none."""
    return max(levels, key=LEVELS.index, default="ok")


def some(ids: Iterable[str], count: int = 3) -> str:
    """The first ids in brackets, for a sentence."""
    ids = sorted(ids)
    return f"({', '.join(ids[:count])}{', ...' if len(ids) > count else ''})"


def clips(count: int) -> str:
    """``1 clip``, ``1,234 clips``."""
    return f"{count:,} clip{'' if count == 1 else 's'}"
