"""Expected R-precision against all pools that there are, and the ceiling against all orders among duplicates."""

import itertools

import pytest
import torch

from lmm.evaluators.contrastive import in_fixed_order
from lmm.metrics import pools as room
from lmm.metrics.pools import expected_retrieval, table


def by_enumeration(texts, motions, pool, k):
    """Every pool of pair i with pool - 1 of the others; equally near ones in every order."""
    distances, hits = torch.cdist(texts, motions), []
    for i in range(len(texts)):
        others = [j for j in range(len(texts)) if j != i]
        for chosen in itertools.combinations(others, pool - 1):
            nearer = sum(bool(distances[i, j] < distances[i, i]) for j in chosen)
            level = sum(bool(distances[i, j] == distances[i, i]) for j in chosen)
            hits.append(sum(nearer + place < k for place in range(level + 1)) / (level + 1))
    return sum(hits) / len(hits)


def test_it_is_the_mean_over_all_pools(monkeypatch):
    monkeypatch.setattr(room, "POOL", 4)
    torch.manual_seed(0)
    motions = torch.randn(9, 3).double()
    texts = motions + torch.randn(9, 3)
    texts[3], motions[5] = texts[2], motions[4]  # the same sentence twice, the same motion twice
    captions = list("abccdefgh")
    figures = expected_retrieval(texts, motions, captions)
    for k in (1, 2, 3):
        for prefix, pair in {"": (texts, motions), "motion_to_text_": (motions, texts)}.items():
            for name, pool in (("r_precision", 4), ("recall", 9)):
                expected = by_enumeration(*pair, pool, k)
                assert float(figures[f"{prefix}{name}_top{k}"]) == pytest.approx(expected, abs=1e-6)
    ranks = torch.cdist(texts, motions).argsort(1).argsort(1).diagonal() + 1.0
    ties = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 0])
    assert abs(float(figures["median_rank"]) - float(ranks.median())) <= float(ties.max())
    assert figures["r_precision_top1"] > figures["recall_top1"]


def test_the_ceiling_is_what_a_perfect_evaluator_reaches(monkeypatch):
    monkeypatch.setattr(room, "POOL", 4)
    captions = list("aaabbcdef")
    points = torch.tensor([[ord(c) - 97.0] for c in captions]).double()  # all of a caption on one point, others away
    figures = expected_retrieval(points, points, captions)
    for name in ("r_precision", "recall"):
        for k in (1, 2, 3):
            assert float(figures[f"{name}_top{k}"]) == pytest.approx(float(figures[f"{name}_top{k}_ceiling"]), abs=1e-6)
    assert float(figures["recall_top1_ceiling"]) == pytest.approx((3 / 3 + 2 / 2 + 4) / 9)
    assert float(figures["recall_top2_ceiling"]) == pytest.approx((2 + 2 + 4) / 9)
    assert figures["r_precision_top3_ceiling"] == 1


def test_a_collapsed_evaluator_is_at_chance():
    points = torch.zeros(100, 4)
    figures = expected_retrieval(points, points, [str(i) for i in range(100)])
    assert [round(float(figures[f"r_precision_top{k}"]), 5) for k in (1, 2, 3)] == [
        pytest.approx(k / 32, abs=1e-5) for k in (1, 2, 3)
    ]
    assert figures["median_rank"] == 50.5


def test_many_rows_and_few(monkeypatch):
    torch.manual_seed(0)
    texts, motions, captions = torch.randn(70, 3), torch.randn(70, 3), [str(i) for i in range(70)]
    whole = expected_retrieval(texts, motions, captions)
    monkeypatch.setattr(room, "_CHUNK", 16)
    assert all(torch.equal(value, whole[name]) for name, value in expected_retrieval(texts, motions, captions).items())
    few = expected_retrieval(texts[:2], motions[:2], captions[:2])  # fewer than a pool: all are one
    assert few["r_precision_top1"] == few["recall_top1"] and few["r_precision_top3"] == 1
    one = expected_retrieval(texts[:1], motions[:1], captions[:1])
    assert one["recall_top1"] == 1
    printed = table("val", whole, 70)
    assert "R-precision, pools of 32, top 1" in printed and f"{1 / 32:.3f}" in printed and "35.5" in printed


def test_each_id_counts_once_in_the_order_of_ids():
    points = torch.arange(8.0).view(4, 2)
    batches = [(["c", "a"], ["x", "y"], points[:2], -points[:2]), (["b", "a"], ["z", "y"], points[2:], -points[2:])]
    ids, captions, texts, motions = in_fixed_order(batches)
    assert ids == ["a", "b", "c"] and captions == ["y", "z", "x"]
    assert torch.equal(texts, points[[3, 2, 0]]) and torch.equal(motions, -texts)
