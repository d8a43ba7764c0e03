import numpy as np
import pytest
import torch

from lmm.metrics.diversity import Diversity, MultiModality, diversity, multimodality

NOISE = torch.Generator().manual_seed(0)


def test_diversity_of_points_on_a_line():
    points = torch.arange(400.0)[:, None]
    values = [float(diversity(points, seed=seed)) for seed in range(20)]
    assert len(set(values)) == 20 and diversity(points, seed=3) == values[3]
    assert np.mean(values) == pytest.approx(400 / 3, rel=0.02)  # two uniform draws are a third of the line apart
    assert np.std(values) < 0.1 * np.mean(values)


def test_each_set_is_drawn_without_replacement_and_independently_of_the_other():
    points = torch.eye(300)  # distance √2, and 0 where an index meets itself, once a draw on average
    met = [300 - round(float(diversity(points, seed=seed)) * 300 / 2**0.5) for seed in range(200)]
    assert 0.8 < np.mean(met) < 1.2 and min(met) == 0
    weights = 2.0 ** torch.arange(5)[:, None]  # all five in both sets: the sum of distances tells which were paired
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        first, second = torch.randperm(5, generator=generator), torch.randperm(5, generator=generator)
        expected = np.abs(2.0 ** first.numpy() - 2.0 ** second.numpy()).mean()
        assert float(diversity(weights, pairs=5, seed=seed)) == pytest.approx(expected)


def test_too_few_points():
    with pytest.raises(ValueError, match="at least 300 points, there are 299"):
        diversity(torch.zeros(299, 2))
    with pytest.raises(ValueError, match="at least 10 generations of each text, there are 9"):
        multimodality(torch.zeros(4, 9, 2))
    with pytest.raises(ValueError, match="there are 9"):
        MultiModality(generations=9)


def test_metric_does_not_depend_on_batches():
    points = torch.randn(350, 8, generator=NOISE)
    metric = Diversity(8, seed=5)
    for rows in torch.randperm(350, generator=NOISE).split(64):
        metric.update(points[rows], rows)
    assert float(metric.compute()) == pytest.approx(float(diversity(points, seed=5)), rel=1e-6)
    metric.update(points[:1], torch.tensor([0]))
    with pytest.raises(ValueError, match="came twice"):
        metric.compute()


def test_multimodality_draws_once_and_shares_the_draws():
    points = torch.randn(1, 30, 8, generator=NOISE).expand(6, 30, 8)
    alone = multimodality(points[:1])
    assert float(multimodality(points)) == pytest.approx(float(alone), rel=1e-12)
    assert multimodality(points[:, :1].expand(6, 30, 8)) == 0
    position = torch.arange(30.0).view(1, 30, 1).expand(6, 30, 1)
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randperm(30, generator=generator)[:10].numpy() for _ in range(2))
    assert float(multimodality(position, seed=2)) == pytest.approx(np.abs(first - second).mean())
    assert len(set(first)) == len(set(second)) == 10


def test_multimodality_metric_adds_up():
    points = torch.randn(7, 12, 8, generator=NOISE)
    metric, other = (MultiModality(generations=12, pairs=4, seed=1) for _ in range(2))
    metric.update(points[:3])
    other.update(points[3:])
    metric.merge_state(other)
    assert float(metric.compute()) == pytest.approx(float(multimodality(points, pairs=4, seed=1)), rel=1e-6)
    with pytest.raises(ValueError, match="expected 12 generations of each text, got 11"):
        metric.update(points[:, :11])
