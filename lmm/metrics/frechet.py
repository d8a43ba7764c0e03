"""Fréchet distance of embeddings (FID, Heusel et al. 2017): how far two sets of points are apart as Gaussians.

d² = |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), covariances with ddof 1, everything in float64.

The field takes the square root of the product Σ₁ Σ₂, which is not symmetric: slow, and complex by rounding. Here
tr (Σ₁ Σ₂)^½ is the sum of the roots of the eigenvalues of Lᵀ Σ₂ L, Σ₁ = L Lᵀ. That matrix is symmetric, and singular
covariances (no more points than dimensions) need no ε on the diagonal: the result is the limit of ε -> 0. The distance
of a set from itself is 0 up to rounding, of either sign.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

STRIP = 128  # columns of the covariance at a time
AMPLE = 5  # times as many points as dimensions, a rule of thumb: below it, `sample_note` has something to say


class Gaussian(NamedTuple):
    """What the distance needs to know of a set of points."""

    num_points: int
    mean: Float[Tensor, " E"]
    covariance: Float[Tensor, "E E"]


class FrechetDistance(Metric):
    """Distance of the generated points from the real ones, from running sums: memory does not grow with the points.

    The sums n, Σ(x - s) and Σ(x - s)(x - s)ᵀ are float64, add up over batches and ranks in any order, and are taken
    about a fixed point s: the reference's mean, or the origin. About the origin a mean 1,000 standard deviations away
    still leaves ten digits of the covariance. Every point must come once: a sampler that repeats items to fill the last
    batch makes the distance another one.

    Args:
        dim: E.
        reference: the real points, where `gaussian` has been computed before.
    """

    full_state_update = False
    counts: Tensor
    sums: Tensor
    products: Tensor
    reference_mean: Tensor
    reference_covariance: Tensor | None

    def __init__(self, dim: int, *, reference: Gaussian | None = None) -> None:
        super().__init__()
        if reference is not None and len(reference.mean) != dim:
            raise ValueError(f"the reference has {len(reference.mean)} dimensions and dim is {dim}; give those of one")
        self.add_state("counts", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")  # real, generated
        self.add_state("sums", torch.zeros(2, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("products", torch.zeros(2, dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        mean = torch.zeros(dim, dtype=torch.float64) if reference is None else reference.mean.double()
        self.reference_points = reference.num_points if reference else None
        self.register_buffer("reference_mean", mean, persistent=False)
        self.register_buffer(
            "reference_covariance", reference.covariance.double() if reference else None, persistent=False
        )

    def update(self, points: Float[Tensor, "N E"], *, real: bool) -> None:
        """Add points to one of the sides.

        Raises:
            ValueError: real points, although there is a reference.
        """
        if real and self.reference_points is not None:
            raise ValueError("the real points are the reference's; update with generated points only")
        side = 0 if real else 1
        points = points - self.reference_mean  # float64
        self.counts[side] += len(points)
        self.sums[side] += points.sum(0)
        self.products[side] += _products(points)

    def compute(self) -> Tensor:
        """The distance.

        Raises:
            ValueError: fewer than two points on a side, or points that are not finite.
        """
        return frechet_distance(self._gaussian(0), self._gaussian(1)).float()

    def _gaussian(self, side: int) -> Gaussian:
        if side == 0 and self.reference_points is not None:
            assert self.reference_covariance is not None
            return Gaussian(self.reference_points, self.reference_mean, self.reference_covariance)
        count, total = int(self.counts[side]), self.sums[side]
        _check_count(count)
        if not total.isfinite().all():
            raise ValueError(f"some of the {('real', 'generated')[side]} points are not finite; find what made them")
        covariance = (self.products[side] - torch.outer(total, total) / count) / (count - 1)
        return Gaussian(count, total / count + self.reference_mean, covariance)


def gaussian(points: Float[Tensor, "N E"]) -> Gaussian:
    """Mean and covariance (ddof 1) in float64.

    Raises:
        ValueError: fewer than two points, or points that are not finite.
    """
    _check_count(len(points))
    mean = points.mean(0, dtype=torch.float64)
    if not mean.isfinite().all():
        wrong = int((~points.isfinite()).any(-1).sum())
        raise ValueError(f"{wrong} of {len(points)} points are not finite; find what made them")
    return Gaussian(len(points), mean, _products(points - mean) / (len(points) - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> Float[Tensor, ""]:
    """d² of the module's docstring, in float64.

    Raises:
        ValueError: the two do not have equally many dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"points of {len(a.mean)} and of {len(b.mean)} dimensions have no distance; embed both with one evaluator"
        )
    if a.num_points < b.num_points:
        a, b = b, a  # the larger sample is the likelier to be regular
    factor = _factor(a.covariance)
    eigenvalues = torch.linalg.eigvalsh(factor.mT @ b.covariance @ factor)  # ascending
    rank = b.num_points - 1  # n points span n - 1 dimensions; other eigenvalues are rounding, whose root is not small
    trace = eigenvalues[-rank:].clamp_min(0).sqrt().sum()
    return (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * trace


def sample_note(count: int, dim: int) -> str | None:
    """What a table has to say below a distance from so few points, or None.

    The distance of finite samples is too large, by an amount that falls as 1/n (Chong and Forsyth 2020).
    """
    if count > AMPLE * dim:
        return None
    why = "fewer points than it takes for a covariance" if count <= dim else f"fewer than {AMPLE} points a dimension"
    return (
        f"FID from {count} points in {dim} dimensions ({why}) is biased upwards, by an amount that falls as 1/n: "
        "compare it only with figures from equally many points"
    )


def _products(points: Float[Tensor, "N E"]) -> Float[Tensor, "E E"]:
    """xᵀx, the strips of its upper half and their mirror images: little more than half the work of one product."""
    products = points.new_empty(points.shape[1], points.shape[1])
    for first in range(0, len(products), STRIP):
        last = first + STRIP
        products[first:last, first:] = points[:, first:last].mT @ points[:, first:]
        products[last:, first:last] = products[first:last, last:].mT
    return products


def _factor(covariance: Float[Tensor, "E E"]) -> Float[Tensor, "E E"]:
    """L with L Lᵀ the covariance: Cholesky's, and where that fails, singular, the eigenvectors times √eigenvalues."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * eigenvalues.clamp_min(0).sqrt()


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 points, got {count}")
