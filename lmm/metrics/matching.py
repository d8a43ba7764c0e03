"""How well texts and motions find each other: R-precision, multimodal distance, and what bounds them.

Pairs are cut, in their order, into pools of 32 (Guo et al. 2022). In a pool every text ranks all motions by Euclidean
distance; R-precision at k is the share of texts whose own motion is among the k nearest, multimodal distance
(MM-Dist, "matching score") the mean distance of a text from its own motion, over the same pairs. The last, incomplete
pool is dropped, as the field's loader does, and counted. TM2T's and MotionGPT's motion-to-text figures are the same
with motions ranking texts.

A rank counts the nearer ones, without sorting. Of equally near ones those at a lower index come first, as in a stable
sort, so identical motions in a pool are ordered by chance, once: see `caption_ceiling`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from lmm.metrics.keys import in_key_order, no_rows

STACK = 8  # pools whose distances are computed at once: they stay in a processor's cache
ROUNDING = 1e-7  # of the largest distance: nearer to each other are only distances of equal float32 embeddings


class RPrecision(NamedTuple):
    """Both directions; entry k - 1 of a tensor is R-precision at k."""

    text_to_motion: Float[Tensor, " top"]
    motion_to_text: Float[Tensor, " top"]
    distance: Float[Tensor, ""]
    pairs: int
    dropped: int


class MatchingScore(Metric):
    """`r_precision` of the pairs of all ranks, in the order of their keys, whatever the number of ranks.

    Figures: ``r_precision_1`` and so on, ``motion_to_text_r_precision_1`` and so on, ``multimodal_distance``, and the
    number of ``pairs`` and of ``dropped`` ones.

    Args:
        dim: E.
        pool: pairs in a pool.
        top: largest k.
    """

    full_state_update = False
    texts: list[Tensor]
    motions: list[Tensor]
    keys: list[Tensor]

    def __init__(self, dim: int, *, pool: int = 32, top: int = 3) -> None:
        super().__init__()
        self.dim, self.pool, self.top = dim, pool, top
        for name in ("texts", "motions", "keys"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all pairs."""
        super().reset()
        self.texts += no_rows(self.dim, device=self.device)
        self.motions += no_rows(self.dim, device=self.device)
        self.keys += no_rows(dtype=torch.int64, device=self.device)

    def update(self, texts: Float[Tensor, "B E"], motions: Float[Tensor, "B E"], keys: Int[Tensor, " B"]) -> None:
        """Add pairs.

        Args:
            texts: embeddings.
            motions: embeddings of the texts' motions.
            keys: each pair's place in the order that pools are cut from, in the whole data set, of all ranks.
        """
        self.texts.append(texts.float())
        self.motions.append(motions.float())
        self.keys.append(keys)

    def compute(self) -> dict[str, Tensor]:
        """Figure by name.

        Raises:
            ValueError: fewer pairs than a pool, a key that came twice, embeddings that are not finite.
        """
        texts, motions = in_key_order(self.keys, self.texts, self.motions)
        found = r_precision(texts, motions, pool=self.pool, top=self.top)
        figures = {f"r_precision_{k + 1}": found.text_to_motion[k] for k in range(self.top)}
        figures |= {f"motion_to_text_r_precision_{k + 1}": found.motion_to_text[k] for k in range(self.top)}
        figures["multimodal_distance"] = found.distance
        counts = {"pairs": found.pairs, "dropped": found.dropped}
        return {name: value.float() for name, value in figures.items()} | {
            name: torch.tensor(value, device=self.device) for name, value in counts.items()
        }


def r_precision(
    texts: Float[Tensor, "N E"],
    motions: Float[Tensor, "N E"],
    *,
    pool: int = 32,
    top: int = 3,
    equivalent: Bool[Tensor, "G pool pool"] | None = None,
) -> RPrecision:
    """R-precision at 1 to ``top`` and multimodal distance.

    Args:
        texts: embeddings, in the order that pools are cut from.
        motions: embeddings of the texts' motions.
        pool: pairs in a pool.
        top: largest k.
        equivalent: for the corrected R-precision, whether motion j answers text i as well as its own motion does, for
            all G = N // pool pools (`same_caption`); a hit is then any such motion among the k nearest.

    Raises:
        ValueError: fewer pairs than a pool, or embeddings that are not finite.
    """
    pools = _num_pools(len(texts), pool)
    pairs = (points[: pools * pool].unflatten(0, (pools, pool)).split(STACK) for points in (texts, motions))
    between = torch.cat([distances(t, m) for t, m in zip(*pairs, strict=True)])
    back = None if equivalent is None else equivalent.mT
    return RPrecision(
        _hits(ranks(between, equivalent), top),
        _hits(ranks(between.mT, back), top),
        between.diagonal(dim1=-2, dim2=-1).mean(),
        pools * pool,
        len(texts) - pools * pool,
    )


def distances(texts: Float[Tensor, "*B N E"], motions: Float[Tensor, "*B M E"]) -> Float[Tensor, "*B N M"]:
    """Euclidean distances: rows are texts, columns are motions.

    One product for all pools, |t|² + |m|² - 2 t·m, as the field does, but in float64 and about the motions' mean: in
    float32 it is negative for near points, and NaN. What is left below the product's rounding is 0. The differences
    themselves, which need no such care, take five times as long.

    Raises:
        ValueError: embeddings that are not finite.
    """
    centre = motions.mean(-2, keepdim=True, dtype=torch.float64)
    texts, motions = texts - centre, motions - centre  # float64
    sizes = texts.norm(dim=-1).square()[..., :, None] + motions.norm(dim=-1).square()[..., None, :]
    if not sizes.isfinite().all():
        raise ValueError("some embeddings are not finite and would rank first; find what made them")
    squares = sizes - 2 * texts @ motions.mT
    return torch.where(squares > 1e-12 * sizes, squares, 0.0).sqrt()


def ranks(distances: Float[Tensor, "*B N N"], equivalent: Bool[Tensor, "*B N N"] | None = None) -> Int[Tensor, "*B N"]:
    """How many columns come before each row's own, the one on the diagonal; 0 is best.

    Args:
        distances: two count as equal where they differ by less than `ROUNDING`.
        equivalent: columns that are as good as the own one, which always is: the best of them is ranked.
    """
    index = torch.arange(distances.shape[-1], device=distances.device)
    margin = ROUNDING * distances.amax(-1, keepdim=True)
    own, place = distances.diagonal(dim1=-2, dim2=-1)[..., None], index[:, None]
    if equivalent is not None:
        equivalent = equivalent | (index == index[:, None])
        own = distances.masked_fill(~equivalent, torch.inf).amin(-1, keepdim=True)
        place = (equivalent & (distances <= own + margin)).byte().argmax(-1, keepdim=True)  # the first of the nearest
    before = (distances < own - margin) | ((distances <= own + margin) & (index < place))
    return before.sum(-1)


def caption_ceiling(captions: Sequence[str], *, pool: int = 32, top: int = 3) -> Float[Tensor, " top"]:
    """The highest R-precision at 1 to ``top`` that any evaluator can reach, given that some captions are identical.

    Of m pairs with one caption in a pool, all m texts rank the motions alike, and every place in that order is one
    text's own: at most min(k, m) of them hit at k. The same holds for motions that rank texts.

    Args:
        captions: as the evaluator reads them, in the order that pools are cut from.
        pool: pairs in a pool.
        top: largest k.

    Raises:
        ValueError: fewer captions than a pool.
    """
    pools = _num_pools(len(captions), pool)
    sizes = [size for first in range(0, pools * pool, pool)
             for size in Counter(captions[first : first + pool]).values()]  # fmt: skip
    return torch.tensor([sum(min(k, m) for m in sizes) / (pools * pool) for k in range(1, top + 1)])


def same_caption(captions: Sequence[str], *, pool: int = 32) -> Bool[Tensor, "G pool pool"]:
    """Which pairs of a pool have one caption: what `r_precision` takes as equivalent to correct for it.

    Raises:
        ValueError: fewer captions than a pool.
    """
    pools = _num_pools(len(captions), pool)
    number = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    numbers = torch.tensor([number[caption] for caption in captions[: pools * pool]]).view(pools, pool)
    return numbers[:, :, None] == numbers[:, None, :]


def near_duplicate_share(equivalent: Bool[Tensor, "*B N N"]) -> Float[Tensor, ""]:
    """Share of the other N - 1 motions of a pool that are equivalent to a text's own, mean over texts and pools."""
    size = equivalent.shape[-1]
    others = equivalent & ~torch.eye(size, dtype=torch.bool, device=equivalent.device)
    return others.double().sum(-1).mean() / (size - 1)


def _hits(ranks: Int[Tensor, "G pool"], top: int) -> Float[Tensor, " top"]:
    return torch.stack([(ranks < k).double().mean() for k in range(1, top + 1)])


def _num_pools(count: int, pool: int) -> int:
    if count < pool:
        raise ValueError(
            f"R-precision needs at least one pool of {pool} pairs, got {count}; give more, or a smaller pool"
        )
    return count // pool
