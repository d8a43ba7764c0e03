"""The figures that an audit watches, from points "N E" of motions and texts.

* r_precision_k: share of texts whose motion is among the k nearest of a pool of 32 (`lmm.metrics.matching`); pools are
  drawn anew 20 times.
* multimodal_distance (MM-Dist): mean Euclidean distance of a text to its motion.
* fid: Fréchet distance of Gaussians, |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½), of the motions of one half of the clips
  and the *real* motions of the other half, mean over 20 halvings. So the real row is not 0 but what the sample's size
  makes of no difference at all, and every row has that same bias.
* fid_same_clips: Fréchet distance of all motions and the real motions of the same clips, as generated motions are
  scored against their own references.

It is the distance of `lmm.metrics.frechet`, computed the short way where points are fewer than dimensions, because an
audit needs a thousand of them: tr (Σ₁Σ₂)^½ is the sum of the singular values of X₁X₂ᵀ, X the centred points / √(n - 1).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmm.evaluation.protocol import POOL
from lmm.metrics.matching import distances, ranks

POOLINGS = 20
HALVINGS = 20
R_PRECISION = ("r_precision_1", "r_precision_2", "r_precision_3")
FIGURES = ("fid", *R_PRECISION, "multimodal_distance")  # those that are judged
WORSE = dict.fromkeys(FIGURES, 1) | dict.fromkeys(R_PRECISION, -1)  # which way a figure goes when motions get worse


def draw_halves(count: int, *, seed: int) -> Bool[Tensor, "H N"]:
    """The clips of one half, `HALVINGS` times.

    Raises:
        ValueError: fewer than two pools' worth of clips.
    """
    if count < 2 * POOL:
        raise ValueError(
            f"an audit needs {2 * POOL} clips with captions in a split, two pools of {POOL}, and got {count}; name a "
            "larger split, or raise --max-clips"
        )
    rng = np.random.default_rng([seed, count])
    halves = torch.zeros(HALVINGS, count, dtype=torch.bool)
    for half in halves:
        half[torch.from_numpy(rng.permutation(count)[: count // 2])] = True
    return halves


def draw_pools(count: int, *, seed: int) -> Int[Tensor, "R P 32"]:
    """``count`` clips shuffled into pools, `POOLINGS` times; the remainder of each shuffle is left out."""
    rng = np.random.default_rng([seed, count, POOL])
    orders = np.stack([rng.permutation(count)[: count // POOL * POOL] for _ in range(POOLINGS)])
    return torch.from_numpy(orders).unflatten(1, (-1, POOL))


def rank_in_pools(
    texts: Float[Tensor, "N E"],
    motions: Float[Tensor, "N E"],
    pools: Int[Tensor, "R P S"],
    same: Bool[Tensor, "N N"] | None = None,
) -> Int[Tensor, "R P S"]:
    """How many motions of its pool come before a text's own; 0 is a hit at 1.

    Args:
        texts: points.
        motions: points.
        pools: clips of each.
        same: which motions count as a text's own besides its own; the best of them is ranked.
    """
    found = []
    for pooling in pools:
        equivalent = None if same is None else same[pooling[:, :, None], pooling[:, None, :]]
        found.append(ranks(distances(texts[pooling], motions[pooling]), equivalent))
    return torch.stack(found)


def by_clip(values: Tensor, pools: Int[Tensor, "R P S"], count: int) -> Float[Tensor, " N"]:
    """Mean of the values that a clip got in the poolings that drew it; NaN for one that none drew."""
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, pools.flatten(), values.double().flatten())
    return total / torch.bincount(pools.flatten(), minlength=count)


def retrieval(rank: Int[Tensor, "*B"]) -> dict[str, float]:
    """R-precision at 1, 2, 3 over all these ranks."""
    return {name: float((rank < k).double().mean()) for k, name in enumerate(R_PRECISION, start=1)}


def frechet_distance(a: Float[Tensor, "N E"], b: Float[Tensor, "M E"]) -> float:
    """Fréchet distance of the Gaussians with the two samples' means and covariances (ddof 1)."""
    x, y = (_centred(points) for points in (a, b))
    shared = torch.linalg.svdvals(_compact(x) @ _compact(y).T).sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float((shift + x.square().sum() + y.square().sum() - 2 * shared).clamp_min(0))


def frechet_of_halves(
    real: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], halves: Bool[Tensor, "H N"]
) -> list[float]:
    """Fréchet distance of the motions of either half and the real motions of the other, for each halving."""
    return [
        (frechet_distance(real[half], motions[~half]) + frechet_distance(real[~half], motions[half])) / 2
        for half in halves
    ]


def spearman(x: list[float], y: list[float]) -> float:
    """Correlation of the ranks, equal values sharing their mean rank; NaN where one side never changes."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return float("nan")
    return float(np.corrcoef(_mean_ranks(x), _mean_ranks(y))[0, 1])


def kendall(x: list[float], y: list[float]) -> float:
    """Kendall's tau-b; NaN where one side never changes."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return float("nan")
    a, b = (np.sign(np.subtract.outer(values, values)) for values in (x, y))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def bootstrap(values: Float[Tensor, " N"], *, seed: int, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean, by drawing as many values again with replacement."""
    rng = np.random.default_rng([seed, len(values)])
    means = values.numpy()[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _centred(points: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    return (points - points.mean(0)) / (len(points) - 1) ** 0.5


def _compact(x: Float[Tensor, "N E"]) -> Float[Tensor, "_ E"]:
    """As few rows with the same xᵀx as there can be."""
    return torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x


def _mean_ranks(values: list[float]) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]
