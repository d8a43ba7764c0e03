"""Do several evaluators rank the same things alike? Rank correlation of a figure over rows, by pair of evaluators."""

from dataclasses import dataclass
from itertools import combinations

from lmm.evaluation.audit.figures import kendall, spearman


@dataclass(frozen=True)
class Agreement:
    """Of two evaluators: Spearman's rho and Kendall's tau-b over so many rows; NaN where one never changes."""

    first: str
    second: str
    spearman: float
    kendall: float
    rows: int


def rank_agreement(table: dict[str, list[float]]) -> list[Agreement]:
    """Rank correlations of every two evaluators.

    Args:
        table: a figure's values by evaluator; the same rows (corruptions, models, ...) in the same order.

    Raises:
        ValueError: columns of unequal length, or fewer than two rows.
    """
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1 or min(lengths.values(), default=0) < 2:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"rank agreement needs the same two or more rows of every evaluator, got {told or 'nothing'}")
    return [
        Agreement(a, b, spearman(table[a], table[b]), kendall(table[a], table[b]), lengths[a])
        for a, b in combinations(table, 2)
    ]
