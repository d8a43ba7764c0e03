import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from lmm.evaluation.audit import figures
from lmm.evaluation.audit.agreement import rank_agreement
from lmm.metrics import frechet

RANDOM = torch.Generator().manual_seed(0)


def points(n, e):
    return torch.randn(n, e, generator=RANDOM, dtype=torch.float64) @ torch.randn(e, e, generator=RANDOM).double()


def test_frechet_distance_is_the_textbook_formula():
    a, b = points(300, 8), 1 + points(200, 8)
    x, y = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(x + y - 2 * scipy.linalg.sqrtm(x @ y).real)
    assert figures.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "e"), [(40, 30, 64), (100, 20, 64), (20, 100, 50), (90, 80, 10)])
def test_frechet_distance_is_that_of_the_metrics_for_few_points_and_many(n, m, e):
    a, b = points(n, e), 0.5 + points(m, e)
    expected = float(frechet.frechet_distance(frechet.gaussian(a), frechet.gaussian(b)))
    assert figures.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert figures.frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * float(a.square().sum()))


def test_halves_measure_one_half_against_the_other():
    real, motions = points(64, 5), points(64, 5)
    halves = figures.draw_halves(64, seed=0)
    assert halves.sum(1).tolist() == [32] * figures.HALVINGS and len(set(map(tuple, halves.tolist()))) > 10
    found = figures.frechet_of_halves(real, motions, halves)
    first = halves[3]
    one, two = (
        float(frechet.frechet_distance(frechet.gaussian(real[h]), frechet.gaussian(motions[~h])))
        for h in (first, ~first)
    )
    assert found[3] == pytest.approx((one + two) / 2)
    with pytest.raises(ValueError, match="needs 64 clips"):
        figures.draw_halves(63, seed=0)


def test_pools_hold_every_clip_at_most_once():
    pools = figures.draw_pools(70, seed=0)
    assert pools.shape == (figures.POOLINGS, 2, 32)
    for pooling in pools.flatten(1).tolist():
        assert len(set(pooling)) == 64 and set(pooling) <= set(range(70))
    assert torch.equal(pools, figures.draw_pools(70, seed=0))
    assert not torch.equal(pools, figures.draw_pools(70, seed=1))


def test_ranks_against_a_plain_loop():
    texts, motions = points(70, 4), points(70, 4)
    same = torch.rand(70, 70, generator=RANDOM) < 0.05
    same = same | same.T | torch.eye(70, dtype=torch.bool)
    pools = figures.draw_pools(70, seed=0)[:2]
    plain, corrected = figures.rank_in_pools(texts, motions, pools), figures.rank_in_pools(texts, motions, pools, same)
    for r, pooling in enumerate(pools.tolist()):
        for p, pool in enumerate(pooling):
            for s, i in enumerate(pool):
                near = sorted(pool, key=lambda j: float((texts[i] - motions[j]).norm()))
                assert plain[r, p, s] == near.index(i)
                assert corrected[r, p, s] == min(near.index(j) for j in pool if same[i, j])
    rates = figures.by_clip(plain < 3, pools, 70)
    seen = [float(plain[r, p, s] < 3) for r, p, s in zip(*np.nonzero((pools == 7).numpy()), strict=True)]
    assert float(rates[7]) == pytest.approx(np.mean(seen))
    found = figures.retrieval(plain)
    assert found["r_precision_1"] == pytest.approx(float((plain == 0).double().mean()))
    assert found["r_precision_1"] <= found["r_precision_2"] <= found["r_precision_3"]


def test_rank_correlations_are_scipys():
    x, y = [1.0, 2.0, 2.0, 4.0, 5.0, 5.0, 7.0], [0.3, 0.1, 0.7, 0.7, 0.9, 2.0, 1.0]
    assert figures.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-6)
    assert figures.kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-6)
    assert figures.spearman([1.0, 2.0, 3.0], [5.0, 4.0, 3.0]) == pytest.approx(-1)
    assert math.isnan(figures.spearman([1.0, 2.0], [4.0, 4.0])) and math.isnan(figures.kendall([1.0, 1.0], [1.0, 2.0]))


def test_agreement_is_of_every_pair():
    table = {"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 4.0, 6.0, 9.0], "c": [9.0, 7.0, 8.0, 1.0]}
    found = {(each.first, each.second): each for each in rank_agreement(table)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert found["a", "b"].spearman == pytest.approx(1) and found["a", "b"].kendall == pytest.approx(1)
    assert found["a", "c"].spearman == pytest.approx(-0.8) and found["a", "c"].kendall == pytest.approx(-2 / 3)
    assert found["a", "c"].rows == 4
    with pytest.raises(ValueError, match="a 2, b 3"):
        rank_agreement({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]})


def test_bootstrap_interval_is_about_two_standard_errors():
    values = torch.randn(400, generator=RANDOM, dtype=torch.float64)
    low, high = figures.bootstrap(values, seed=0)
    error = float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.4 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.4 * error)
