"""R-precision by how new a text is: the distance of a test caption to the nearest training caption.

Measured twice: in the evaluator's own text space (Euclidean), and by words alone (see `wording`), because an evaluator
that does not understand a word may well place the sentence on top of a familiar one. The captions of all splits share
one set of pools, so that all of them meet the same distractors, and are cut into quantiles of their distance.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lmm.evaluation.audit.duplicates import Interval, ceiling, copies, with_interval
from lmm.evaluation.audit.figures import by_clip, draw_pools, rank_in_pools, spearman
from lmm.evaluation.audit.wording import Wording, identical
from lmm.evaluation.clips import embed_texts
from lmm.evaluators.base import Evaluator

QUANTILES = 5
MOST_TRAINING_CAPTIONS = 20_000  # that the evaluator embeds; the word distance reads all


@dataclass(frozen=True)
class Bin:
    """Captions of about equal novelty.

    Args:
        low: smallest distance to training among them.
        high: largest.
        captions: how many.
        plain: R-precision@3 with its 95 % interval over captions.
        corrected: the same where identical captions count as hits.
        ceiling: the highest expected plain score, given identical captions.
    """

    low: float
    high: float
    captions: int
    plain: Interval
    corrected: Interval
    ceiling: float


@dataclass(frozen=True)
class Novelty:
    """R-precision@3 over novelty.

    Args:
        measure: "words" or "text space".
        compared: with how many different training captions.
        distances: of every caption to the nearest of them.
        hits: how often each caption found its motion among the first three.
        rho: Spearman's, of distance and corrected hits.
        bins: from familiar to new.
    """

    measure: str
    compared: int
    distances: list[float]
    hits: list[float]
    rho: float
    bins: list[Bin]


def measure_novelty(
    evaluator: Evaluator,
    captions: list[str],
    texts: Float[Tensor, "N E"],
    motions: Float[Tensor, "N E"],
    train: list[str],
    *,
    seed: int,
) -> list[Novelty]:
    """By words, then in the evaluator's text space.

    Args:
        evaluator: whose space it is.
        captions: of the splits that are judged.
        texts: their points.
        motions: points of their motions.
        train: captions of the training split.
        seed: of pools, intervals and of which training captions are embedded where they are too many.
    """
    different = sorted(set(train))
    chosen = different
    if len(different) > MOST_TRAINING_CAPTIONS:
        places = np.random.default_rng([seed, len(different)]).permutation(len(different))[:MOST_TRAINING_CAPTIONS]
        chosen = [different[place] for place in places]
    known = embed_texts(evaluator, chosen)
    near = torch.stack([torch.cdist(texts, part).amin(-1) for part in known.split(2048)]).amin(0)
    near = torch.where(
        near < 1e-6 * known.norm(dim=-1).mean(), 0.0, near
    )  # a caption of train is at 0, not at rounding
    by_words = Wording(different).nearest(captions, different)

    pools = draw_pools(len(captions), seed=seed)
    same = identical(captions)
    values = {
        "plain": by_clip(rank_in_pools(texts, motions, pools) < 3, pools, len(captions)),
        "corrected": by_clip(rank_in_pools(texts, motions, pools, same) < 3, pools, len(captions)),
        "ceiling": by_clip(ceiling(copies(same, pools), 3), pools, len(captions)),
    }
    measures = (("words", len(different), by_words), ("text space", len(chosen), near))
    return [_novelty(name, compared, distances, values, seed) for name, compared, distances in measures]


def _novelty(
    measure: str, compared: int, distances: Float[Tensor, " N"], values: dict[str, Float[Tensor, " N"]], seed: int
) -> Novelty:
    drawn = ~values["plain"].isnan()
    distances, values = distances[drawn], {name: value[drawn] for name, value in values.items()}
    rho = spearman(distances.tolist(), values["corrected"].tolist())
    bins = [
        Bin(
            low=float(distances[members].min()),
            high=float(distances[members].max()),
            captions=int(members.sum()),
            plain=with_interval(values["plain"][members], seed),
            corrected=with_interval(values["corrected"][members], seed),
            ceiling=float(values["ceiling"][members].mean()),
        )
        for members in quantiles(distances)
    ]
    return Novelty(measure, compared, distances.tolist(), values["plain"].tolist(), rho, bins)


def quantiles(values: Float[Tensor, " N"]) -> list[Tensor]:
    """Which values belong to each of up to `QUANTILES` parts of about equal size; equal values stay together."""
    inner = torch.quantile(values, torch.linspace(0, 1, QUANTILES + 1, dtype=values.dtype)[1:-1])
    part = torch.bucketize(values, inner.unique())
    return [part == number for number in part.unique()]
