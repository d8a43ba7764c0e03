"""How different motions are from each other: diversity of a set, multimodality of one text's motions.

* diversity: two sets of 300 indices, drawn independently, each without replacement; mean Euclidean distance of the
  points at equal places (Guo et al. 2022). An index may meet itself. It is good when near the real motions'.
* multimodality: of every text's 30 generations, 10 pairs of indices, drawn alike, once, and shared by all texts; mean
  over texts and pairs.

Draws come from a seed alone, so they are the same on one device and on many.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lmm.metrics.keys import in_key_order, no_rows


class Diversity(Metric):
    """`diversity` of the points of all ranks, in the order of their keys.

    Args:
        dim: E.
        pairs: distances to average.
        seed: of the draws; another one for every repeat.
    """

    full_state_update = False
    points: list[Tensor]
    keys: list[Tensor]

    def __init__(self, dim: int, *, pairs: int = 300, seed: int = 0) -> None:
        super().__init__()
        self.dim, self.pairs, self.seed = dim, pairs, seed
        for name in ("points", "keys"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all points."""
        super().reset()
        self.points += no_rows(self.dim, device=self.device)
        self.keys += no_rows(dtype=torch.int64, device=self.device)

    def update(self, points: Float[Tensor, "B E"], keys: Int[Tensor, " B"]) -> None:
        """Add points; a key is a point's number in the whole data set, of all ranks."""
        self.points.append(points.float())
        self.keys.append(keys)

    def compute(self) -> Tensor:
        """The mean distance.

        Raises:
            ValueError: fewer points than pairs, or a key that came twice.
        """
        (points,) = in_key_order(self.keys, self.points)
        return diversity(points, pairs=self.pairs, seed=self.seed).float()


class MultiModality(Metric):
    """`multimodality` of all texts; every text has equally many generations.

    Args:
        generations: of each text.
        pairs: distances of each text.
        seed: of the draws; another one for every repeat.

    Raises:
        ValueError: fewer generations than pairs.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, *, generations: int = 30, pairs: int = 10, seed: int = 0) -> None:
        super().__init__()
        self.generations, self.pairs, self.seed = generations, pairs, seed
        _draws(generations, pairs, seed, "generations of each text")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, points: Float[Tensor, "B G E"]) -> None:
        """Add all generations of some texts.

        Raises:
            ValueError: not ``generations`` of them.
        """
        if points.shape[1] != self.generations:
            raise ValueError(f"expected {self.generations} generations of each text, got {points.shape[1]}")
        self.total += multimodality(points, pairs=self.pairs, seed=self.seed) * len(points)
        self.count += len(points)

    def compute(self) -> Tensor:
        """The mean distance; NaN without any text."""
        return (self.total / self.count).float()


def diversity(points: Float[Tensor, "N E"], *, pairs: int = 300, seed: int = 0) -> Float[Tensor, ""]:
    """Mean distance of so many pairs.

    Raises:
        ValueError: fewer points than pairs.
    """
    first, second = _draws(len(points), pairs, seed, "points")
    return (points[first].double() - points[second].double()).norm(dim=-1).mean()


def multimodality(points: Float[Tensor, "N G E"], *, pairs: int = 10, seed: int = 0) -> Float[Tensor, ""]:
    """Mean distance of so many pairs of each text's G generations.

    Raises:
        ValueError: fewer generations than pairs.
    """
    first, second = _draws(points.shape[1], pairs, seed, "generations of each text")
    return (points[:, first].double() - points[:, second].double()).norm(dim=-1).mean()


def _draws(count: int, pairs: int, seed: int, what: str) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Two sets of indices below ``count``, each without replacement."""
    if count < pairs:
        raise ValueError(f"{pairs} pairs need at least {pairs} {what}, there are {count}; give more, or ask for fewer")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:pairs], torch.randperm(count, generator=generator)[:pairs]
