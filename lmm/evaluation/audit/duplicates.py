"""What R-precision says about a split, and what captions that are there twice make of it.

Of d captions in a pool that say the same, an evaluator cannot know whose motion is asked for: whatever it does, the
expected share of hits at k is min(k / d, 1) at best. The mean of that is the ceiling of the plain score. The corrected
score counts any motion as a hit whose caption is the same; its chance level is 1 - C(32 - d, k) / C(32, k).

Near duplicates are captions whose words are alike (1 - tf-idf cosine at most 0.1), identical ones among them.
"""

from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmm.evaluation.audit.figures import POOL, R_PRECISION, bootstrap, by_clip, draw_pools, rank_in_pools
from lmm.evaluation.audit.wording import Wording, identical, leaked
from lmm.evaluation.clips import Sample

NEAR = 0.1  # word distance up to which two captions count as nearly the same
Interval = tuple[float, float, float]  # value, and the 95 % interval over clips


@dataclass(frozen=True)
class SplitFigures:
    """A split's real row. Scores are by R-precision's name, with the 95 % interval of a bootstrap over clips.

    Args:
        split: its name.
        clips: how many were looked at.
        available: how many there are.
        plain: R-precision.
        corrected: the same where identical captions count as the text's own.
        corrected_near: the same where nearly identical ones do.
        ceiling: the highest expected plain score, given identical captions.
        chance: plain and corrected score of an evaluator that guesses.
        multimodal_distance: mean distance of text and motion.
        identical: share of captions with an identical one in their pool of 32.
        near: share with a nearly identical one.
        leaked: share of all captions that are in train word for word; None without train.
        leaked_clips: share of clips all of whose captions are.
    """

    split: str
    clips: int
    available: int
    plain: dict[str, Interval]
    corrected: dict[str, Interval]
    corrected_near: dict[str, Interval]
    ceiling: dict[str, float]
    chance: dict[str, tuple[float, float]]
    multimodal_distance: Interval
    identical: float
    near: float
    leaked: float | None
    leaked_clips: float | None


def split_figures(
    sample: Sample, texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], train: list[str] | None, *, seed: int
) -> SplitFigures:
    """The real row of a split.

    Args:
        sample: its clips.
        texts: points of their first captions.
        motions: points of their motions.
        train: captions of the training split, if there is one.
        seed: of pools and intervals.

    Raises:
        ValueError: fewer clips than a pool has.
    """
    if len(sample.ids) < POOL:
        raise ValueError(
            f"split {sample.split!r} has {len(sample.ids)} clips and a pool of R-precision has {POOL}: leave it out of "
            "--splits"
        )
    pools = draw_pools(len(sample.ids), seed=seed)
    same = identical(sample.texts)
    wording = Wording(sample.texts if train is None else train)
    near = same | (wording.distances(sample.texts, sample.texts) <= NEAR)
    distance = (texts - motions).norm(dim=-1)

    def scores(counted: Bool[Tensor, "N N"]) -> dict[str, Interval]:
        rank = rank_in_pools(texts, motions, pools, counted)
        rates = {k: by_clip(rank < k, pools, len(texts)) for k in (1, 2, 3)}
        return {name: with_interval(rates[k], seed) for k, name in enumerate(R_PRECISION, start=1)}

    alike = copies(same, pools)
    leaks = None
    if train is not None:
        said = leaked([text for captions in sample.captions for text in captions], train)
        leaks = said.split([len(captions) for captions in sample.captions])
    return SplitFigures(
        split=sample.split,
        clips=len(sample.ids),
        available=sample.available,
        plain=scores(torch.eye(len(texts), dtype=torch.bool)),
        corrected=scores(same),
        corrected_near=scores(near),
        ceiling={name: float(ceiling(alike, k).mean()) for k, name in enumerate(R_PRECISION, start=1)},
        chance={name: (k / POOL, chance(alike, k)) for k, name in enumerate(R_PRECISION, start=1)},
        multimodal_distance=with_interval(distance, seed),
        identical=float((alike > 1).double().mean()),
        near=float((copies(near, pools) > 1).double().mean()),
        leaked=None if leaks is None else float(torch.cat(leaks).double().mean()),
        leaked_clips=None if leaks is None else float(torch.stack([clip.all() for clip in leaks]).double().mean()),
    )


def copies(same: Bool[Tensor, "N N"], pools: Int[Tensor, "R P S"]) -> Int[Tensor, "R P S"]:
    """How many captions of its pool say what a caption says, itself included: d."""
    return same[pools[..., :, None], pools[..., None, :]].sum(-1)


def ceiling(copies: Int[Tensor, "*P"], k: int) -> Float[Tensor, "*P"]:
    """Highest expected hit rate at k of a caption that is in its pool d times."""
    return (k / copies.double()).clamp_max(1)


def chance(copies: Int[Tensor, "*P"], k: int) -> float:
    """Corrected score of an evaluator that guesses."""
    misses = torch.tensor([comb(POOL - d, k) / comb(POOL, k) for d in range(POOL + 1)])
    return float(1 - misses[copies].mean())


def with_interval(values: Float[Tensor, " N"], seed: int) -> Interval:
    """Mean and its 95 % interval by bootstrap; clips that no pooling drew (NaN) are left out."""
    drawn = values[~values.isnan()]
    return (float(drawn.mean()), *bootstrap(drawn, seed=seed))
