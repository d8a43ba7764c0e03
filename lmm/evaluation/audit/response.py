"""Does a figure rank damaged motions in the right order? A row for every corruption and strength, then a judgement.

A judgement compares a corruption's rows with "real, re-encoded": the same motions brought through `Motion` and back.

* sees: the strongest damage costs more than noise, and none costs more than a stronger one by more than noise.
* wrong order: some damage costs more than noise, but not as above.
* faint: no damage costs more than noise, yet Spearman's rho of strength and figure is 0.9 or more.
* rewards: damage improves the figure by more than noise, and never costs as much.
* blind: none of these.
"""

import math
from dataclasses import dataclass
from itertools import combinations

from lmm.evaluation.audit.bench import Bench, Row
from lmm.evaluation.audit.corruptions import CORRUPTIONS, SWAPPED, SWAPPED_STRENGTHS, swap_captions
from lmm.evaluation.audit.figures import FIGURES, WORSE, spearman
from lmm.metrics.physics import FIGURES as PHYSICS

REAL, CROPPED, CONTROL = UNDAMAGED = "real", "real, other crops", "real, re-encoded"
ORDERED = 0.9  # rho; of five strengths two neighbours may be exchanged
RESOLUTION = 1e-3  # of a physics figure in its own unit; a smaller change says nothing, however small the noise
_TELLING = ("skating_m_s", "jitter_m_s3", "bone_length_std_mm")  # what a reader looks at first


@dataclass(frozen=True)
class Judgement:
    """What a figure makes of a corruption.

    Args:
        corruption: its name.
        figure: its name.
        verdict: see above.
        rho: Spearman's, of strength and figure; positive where the figure gets worse. For physics, which has no worse,
            absolute.
        cost: of the strongest damage: how much worse (physics: how different) the figure is.
        noise: what a cost has to exceed.
        first: the weakest strength from which on every cost exceeds noise, if there is one.
    """

    corruption: str
    figure: str
    verdict: str
    rho: float
    cost: float
    noise: float
    first: float | None


@dataclass(frozen=True)
class Response:
    """All rows, the real ones first; noise by figure; a judgement by corruption and figure."""

    rows: list[Row]
    noise: dict[str, float]
    judgements: list[Judgement]

    @property
    def corruptions(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys(judgement.corruption for judgement in self.judgements))

    def row(self, name: str) -> Row:
        """The first row of a name."""
        return next(row for row in self.rows if row.corruption == name)

    def series(self, corruption: str) -> list[Row]:
        """The undamaged row and those of one corruption, in the order of strength."""
        return [row for row in self.rows if row.corruption in (CONTROL, corruption)]

    def seen_by(self, corruption: str) -> list[str]:
        """The evaluator's figures that see a corruption."""
        judged = self.judged(corruption)
        return [name for name in FIGURES if judged[name].verdict == "sees"]

    def seen_in_joints(self, corruption: str) -> list[str]:
        """The physics figures that see a corruption, the most telling ones first."""
        judged = self.judged(corruption)
        seen = [name for name in PHYSICS if judged[name].verdict == "sees"]
        first = sorted((n for n in _TELLING if n in seen), key=lambda n: -judged[n].cost / judged[n].noise)
        return [*first, *[name for name in seen if name not in first]]

    def judged(self, corruption: str) -> dict[str, Judgement]:
        """Judgements of one corruption, by figure."""
        return {judgement.figure: judgement for judgement in self.judgements if judgement.corruption == corruption}


def measure_response(bench: Bench, *, seed: int) -> Response:
    """Damage the motions in every way and watch every figure.

    Raises:
        ValueError: damage that the representation or the evaluator refuses.
    """
    control = bench.points(bench.motions)
    rows = [
        bench.row(REAL, 0.0, bench.real, bench.counted),
        bench.row(CROPPED, 0.0, bench.cropped, bench.counted),
        bench.row(CONTROL, 0.0, control, bench.counted),
    ]
    for corruption in CORRUPTIONS:
        for strength in corruption.strengths:
            damaged = [corruption.corrupt(m, strength, seed=seed, clip=i) for i, m in enumerate(bench.motions)]
            touched = [i for i, motion in enumerate(damaged) if motion is not bench.motions[i]]
            points, counted = control.clone(), bench.counted.clone()
            if touched:
                points[touched] = bench.points([damaged[i] for i in touched])
                counted[touched] = bench.count([damaged[i] for i in touched])
            rows.append(bench.row(corruption.name, strength, points, counted))
    for share in SWAPPED_STRENGTHS:
        given = swap_captions(len(control), share, seed=seed)
        rows.append(bench.row(SWAPPED, share, control, bench.counted, given))
    return judge(rows, bench.noise())


def judge(rows: list[Row], noise: dict[str, float]) -> Response:
    """A judgement of every figure on every corruption among the rows."""
    kinds = dict.fromkeys(row.corruption for row in rows if row.corruption not in UNDAMAGED)
    response = Response(rows, noise, [])
    for kind in kinds:
        series = response.series(kind)
        strengths = [row.strength for row in series]
        for name in FIGURES:
            costs = [WORSE[name] * (row.figures[name] - series[0].figures[name]) for row in series]
            rho = spearman(strengths, costs)
            response.judgements.append(_judgement(kind, name, strengths[1:], costs[1:], rho, noise[name]))
        for name in PHYSICS:
            changes = [row.physics[name] - series[0].physics[name] for row in series]
            rho = abs(spearman(strengths, changes))
            moved = [abs(change) for change in changes[1:]]
            least = max(noise[name], RESOLUTION)
            response.judgements.append(_judgement(kind, name, strengths[1:], moved, rho, least))
    return response


def _judgement(
    corruption: str, figure: str, strengths: list[float], costs: list[float], rho: float, noise: float
) -> Judgement:
    """The verdict on the costs of increasing strengths."""
    beyond = [cost > noise for cost in costs]
    inverted = any(weaker - stronger > noise for weaker, stronger in combinations(costs, 2))
    if any(beyond):
        verdict = "sees" if beyond[-1] and not inverted else "wrong order"
    elif min(costs) < -noise:
        verdict = "rewards"
    else:
        verdict = "faint" if rho >= ORDERED - 1e-9 else "blind"
    within = max((i for i, over in enumerate(beyond) if not over), default=-1)
    first = strengths[within + 1] if within + 1 < len(strengths) else None
    return Judgement(corruption, figure, verdict, rho, costs[-1], noise, None if math.isnan(costs[-1]) else first)
