import itertools

import numpy as np
import pytest
import torch

from lmm.metrics.retrieval import (
    RECALLS,
    dissimilar,
    retrieval,
    retrieval_in_batches,
    retrieval_ranks,
    same_text,
    subset,
    tmr_protocols,
    tmr_table,
)


def matrix(count, seed=0, levels=None):
    values = np.random.default_rng(seed).normal(size=(count, count)) + 2 * np.eye(count)
    return torch.from_numpy(np.round(values * levels) / levels if levels else values)


def published(similarity, same=None):
    """Places of the nearest right ones by sorting and looking them up, ties averaged; then TMR's figures."""
    places = []
    for i, row in enumerate(similarity):
        right = max(value for j, value in enumerate(row) if j == i or (same is not None and same[i][j]))
        where = [k for k, value in enumerate(sorted(row, reverse=True)) if value == right]
        places.append(sum(where) / len(where))
    return {f"R@{k}": np.mean(np.array(places) < k) for k in RECALLS} | {"MedR": np.median(places) + 1}, places


@pytest.mark.parametrize("levels", [None, 2, 1])  # rounded values have many ties
@pytest.mark.parametrize("with_same", [False, True])
def test_figures_are_tmrs(levels, with_same):
    similarity = matrix(60, levels=levels)
    same = torch.from_numpy(np.random.default_rng(1).random((60, 60)) < 0.03) if with_same else None
    same = same | same.T if with_same else None
    found = retrieval(similarity, same)
    for direction, rows in (("text_to_motion", similarity), ("motion_to_text", similarity.T)):
        expected, places = published(rows.tolist(), None if same is None else same.tolist())
        assert retrieval_ranks(rows, same).tolist() == places
        for name, value in expected.items():
            assert float(found[f"{direction}/{name}"]) == pytest.approx(value), (direction, name)
    assert 0 < found["text_to_motion/R@1"] < 1 and found["text_to_motion/MedR"] > 1


def test_by_hand():
    similarity = torch.tensor([[3.0, 1, 2, 0], [9, 5, 7, 8], [0, 1, 2, 3], [1, 1, 1, 1]])
    assert retrieval_ranks(similarity).tolist() == [0, 3, 1, 1.5]
    assert float(retrieval(similarity)["text_to_motion/MedR"]) == 2.25  # the mean of 1 and 1.5, from 1
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[1, 0] = True
    assert retrieval_ranks(similarity, same).tolist() == [0, 0, 1, 1.5]


def test_similar_texts_are_above_a_cosine_of_nine_tenths():
    cosine = torch.tensor([[1.0, 0.91], [0.89, 1.0]])
    assert same_text(cosine).tolist() == [[True, True], [False, True]]
    assert same_text(cosine, threshold=0.99).tolist() == [[True, False], [False, True]]


def test_batches_are_those_of_numpys_legacy_shuffle():
    similarity = matrix(70)
    order = np.arange(70)
    np.random.seed(0)
    np.random.shuffle(order)
    each = [published(similarity.numpy()[np.ix_(batch, batch)].tolist())[0] for batch in (order[:32], order[32:64])]
    found = retrieval_in_batches(similarity)
    for name in each[0]:
        assert float(found[f"text_to_motion/{name}"]) == pytest.approx((each[0][name] + each[1][name]) / 2)
    with pytest.raises(ValueError, match="batch of 32 pairs, got 20"):
        retrieval_in_batches(matrix(20))


def test_dissimilar_texts_come_from_different_clusters():
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(6), 5, axis=0) + 0.05 * rng.normal(size=(30, 6))
    points = torch.from_numpy(points / np.linalg.norm(points, axis=1, keepdims=True))
    chosen = dissimilar(points @ points.T, 6)
    assert sorted((chosen // 5).tolist()) == list(range(6)) and chosen.tolist() == sorted(chosen.tolist())
    cosine = points @ points.T

    def likeness(indices):
        return float(subset(cosine, torch.tensor(indices)).sum())

    some = [likeness(list(c)) for c in itertools.islice(itertools.combinations(range(0, 30, 2), 6), 500)]
    assert likeness(chosen.tolist()) <= min(some)
    assert sorted(dissimilar(cosine, 30).tolist()) == list(range(30))
    with pytest.raises(ValueError, match="31 of 30"):
        dissimilar(cosine, 31)


def test_not_finite():
    similarity = matrix(4)
    similarity[1, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        retrieval(similarity)


def test_the_protocols_of_a_table():
    generator = torch.Generator().manual_seed(1)
    similarity = torch.randn(70, 70, generator=generator)
    alike = torch.eye(70, dtype=torch.bool)
    alike[3] = True
    found = tmr_protocols(similarity, alike)
    assert found["all"] == retrieval(similarity) and found["small_batches"] == retrieval_in_batches(similarity)
    assert found["threshold"]["text_to_motion/R@1"] >= found["all"]["text_to_motion/R@1"]
    assert set(tmr_protocols(similarity[:9, :9], alike[:9, :9])) == {"all", "threshold"}
    flat = {f"{protocol}/{name}": value for protocol, figures in found.items() for name, value in figures.items()}
    lines = tmr_table(flat).splitlines()
    assert len(lines) == 2 + 6 and lines[1].split() == [
        "retrieval",
        "(TMR)",
        "R@1",
        "R@2",
        "R@3",
        "R@5",
        "R@10",
        "MedR",
    ]
    assert float(lines[2].split()[-1]) == pytest.approx(float(found["all"]["text_to_motion/MedR"]), abs=0.05)
