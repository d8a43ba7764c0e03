import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lmm.metrics.frechet import FrechetDistance, Gaussian, frechet_distance, gaussian, sample_note


def points(count, dim, seed, scale=1.0, shift=0.0):
    """Correlated points, whose variances span three orders of magnitude."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dim, dim)) * np.geomspace(1, 1e-3, dim)
    return torch.from_numpy(scale * rng.normal(size=(count, dim)) @ mixing + shift)


def published(a, b):
    """The field's formula."""
    a, b = a.numpy(), b.numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * np.trace(sqrtm(s @ t).real)


def by_singular_values(a, b):
    """Without any covariance: tr (Σ₁ Σ₂)^½ is the sum of the singular values of A Bᵀ / √((n - 1)(m - 1))."""
    a, b = a.numpy(), b.numpy()
    x, y = a - a.mean(0), b - b.mean(0)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum() / math.sqrt((len(a) - 1) * (len(b) - 1))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * root


def distance(a, b):
    return float(frechet_distance(gaussian(a), gaussian(b)))


@pytest.mark.parametrize("dim", [1, 6, 128, 300])
def test_gaussian_is_mean_and_covariance_with_ddof_1(dim):
    x = points(50, dim, 0, shift=3.0)
    found = gaussian(x.float())
    assert found.num_points == 50 and found.mean.dtype == found.covariance.dtype == torch.float64
    assert np.allclose(found.mean, x.float().numpy().astype(float).mean(0))
    assert np.allclose(found.covariance, np.cov(x.float().numpy().astype(float), rowvar=False), rtol=1e-9)


def test_distance_of_two_normals_on_a_line_by_hand():
    one, two = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [9.0]])  # means 1, 5; deviations √2, √32
    assert distance(one, two) == pytest.approx(16 + (math.sqrt(2) - math.sqrt(32)) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_distance_is_the_published_one(seed):
    a, b = points(400, 48, seed), points(300, 48, seed + 10, scale=1.3, shift=0.1)
    assert distance(a, b) == pytest.approx(published(a, b), rel=1e-6)
    assert distance(a, b) == pytest.approx(by_singular_values(a, b), rel=1e-9)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
    assert distance(a, a) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("n", "m"), [(10, 10), (10, 300), (300, 10), (48, 48), (2, 2), (49, 30)])
def test_no_more_points_than_dimensions(n, m):
    a, b = points(n, 48, 1), points(m, 48, 2, shift=0.1)
    assert distance(a, b) == pytest.approx(by_singular_values(a, b), rel=1e-8)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-8)


def test_singular_covariances_are_the_limit_of_regular_ones():
    a, b = gaussian(points(10, 48, 1)), gaussian(points(12, 48, 2, shift=0.1))
    limit = float(frechet_distance(a, b))
    gaps = []
    for epsilon in (1e-4, 1e-6, 1e-8):  # as many points as it takes for the matrices to be regular
        lifted = [Gaussian(999, g.mean, g.covariance + epsilon * torch.eye(48)) for g in (a, b)]
        gaps.append(abs(float(frechet_distance(*lifted)) - limit))
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-3 * limit


def test_points_on_a_plane_of_many_dimensions():
    a, b = torch.zeros(200, 20).double(), torch.zeros(100, 20).double()
    a[:, :2], b[:, :2] = points(200, 2, 1), points(100, 2, 2, shift=1.0)
    assert distance(a, b) == pytest.approx(distance(a[:, :2], b[:, :2]), rel=1e-6)
    assert distance(torch.ones(5, 3), torch.zeros(5, 3)) == 3  # no spread at all


def test_metric_is_the_function_and_a_reference_saves_the_real_side():
    real, generated = points(200, 16, 1), points(150, 16, 2, shift=0.3)
    metric, cached = FrechetDistance(16), FrechetDistance(16, reference=gaussian(real))
    for part in generated.split(60):
        metric.update(part, real=False)
        cached.update(part, real=False)
    for part in real.split(70):
        metric.update(part, real=True)
    assert float(metric.compute()) == pytest.approx(distance(real, generated), rel=1e-6)
    assert float(cached.compute()) == pytest.approx(distance(real, generated), rel=1e-6)
    with pytest.raises(ValueError, match="reference's"):
        cached.update(real, real=True)
    metric.reset()
    with pytest.raises(ValueError, match="at least 2 points"):
        metric.compute()


@pytest.mark.parametrize("with_reference", [False, True])
def test_means_far_from_the_origin_cost_no_digits_that_matter(with_reference):
    shift = 1e3
    real, generated = points(300, 8, 1, shift=shift), points(300, 8, 2, shift=shift)
    metric = FrechetDistance(8, reference=gaussian(real) if with_reference else None)
    if not with_reference:
        metric.update(real, real=True)
    metric.update(generated, real=False)
    assert float(metric.compute()) == pytest.approx(by_singular_values(real, generated), rel=1e-5)


def test_what_has_no_covariance_is_refused():
    x = points(9, 4, 0)
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        gaussian(x[:1])
    x[3, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 9 points are not finite"):
        gaussian(x)
    metric = FrechetDistance(4)
    metric.update(points(9, 4, 1), real=True)
    metric.update(x, real=False)
    with pytest.raises(ValueError, match="generated points are not finite"):
        metric.compute()
    with pytest.raises(ValueError, match="4 and of 5 dimensions"):
        frechet_distance(gaussian(points(9, 4, 0)), gaussian(points(9, 5, 0)))
    with pytest.raises(ValueError, match="4 dimensions and dim is 5"):
        FrechetDistance(5, reference=gaussian(points(9, 4, 0)))


def test_note_below_few_points_and_the_bias_it_speaks_of():
    assert sample_note(4640, 512) is None
    assert "fewer points than it takes" in sample_note(512, 512) and "5 points a dimension" in sample_note(513, 512)
    few, more = (np.mean([distance(*twins(n, seed)) for seed in range(8)]) for n in (40, 80))
    assert 1.5 < few / more < 2.7  # twice the points, half the distance


def twins(count, seed):
    """Two samples of one distribution."""
    both = points(2 * count, 16, seed)
    return both[:count], both[count:]
