import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lmm.metrics.keys import in_key_order
from lmm.metrics.matching import (
    MatchingScore,
    caption_ceiling,
    distances,
    near_duplicate_share,
    r_precision,
    ranks,
    same_caption,
)


def pairs(count, dim=16, seed=0, noise=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(count, dim)) + shift
    return torch.from_numpy(texts).float(), torch.from_numpy(texts + noise * rng.normal(size=(count, dim))).float()


def published(texts, motions, pool=32, top=3):
    """The field's procedure on float64, with a stable sort: shares of hits, and the mean distance."""
    hits, total, groups = np.zeros(top), 0.0, len(texts) // pool
    for group in range(groups):
        rows = slice(group * pool, (group + 1) * pool)
        matrix = cdist(texts[rows].double().numpy(), motions[rows].double().numpy())
        order = np.argsort(matrix, axis=1, kind="stable")
        hits += [(order[:, :k] == np.arange(pool)[:, None]).any(1).sum() for k in range(1, top + 1)]
        total += np.trace(matrix)
    return hits / (groups * pool), total / (groups * pool)


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_distances_are_the_direct_ones(shift):
    texts, motions = pairs(64, shift=shift)
    motions[5] = texts[3]
    found = distances(texts.view(2, 32, 16), motions.view(2, 32, 16))
    for pool in range(2):
        rows = slice(32 * pool, 32 * pool + 32)
        expected = cdist(texts[rows].double().numpy(), motions[rows].double().numpy())
        assert np.allclose(found[pool], expected, rtol=1e-9, atol=1e-12)
    assert found[0, 3, 5] == 0  # not √-ε


def test_ranks_by_hand():
    matrix = torch.tensor([[2.0, 1.0, 3.0], [0.0, 5.0, 5.0], [4.0, 4.0, 4.0]])
    assert ranks(matrix).tolist() == [1, 1, 2]  # row 2: two equally near ones come first
    assert ranks(matrix.mT).tolist() == [1, 2, 1]
    assert ranks(torch.zeros(3, 3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("pool", "dim", "copies"), [(32, 512, 1), (32, 16, 4), (5, 7, 2), (33, 3, 8), (32, 24, 32)])
def test_ranks_are_those_of_a_stable_sort_with_identical_motions_in_the_pool(pool, dim, copies):
    texts, motions = pairs(pool, dim, seed=pool, noise=2.0)
    motions = motions[torch.arange(pool) % max(pool // copies, 1)]
    texts[-1] = motions[0]  # a text that lies on its motion and on all its copies
    for a, b in ((texts, motions), (motions, texts)):
        order = np.argsort(cdist(a.double().numpy(), b.double().numpy()), axis=1, kind="stable")
        expected = [list(row).index(i) for i, row in enumerate(order)]
        matrix = distances(texts, motions)
        assert ranks(matrix if a is texts else matrix.mT).tolist() == expected


def test_r_precision_is_the_published_procedure_in_both_directions():
    texts, motions = pairs(32 * 19 + 5, noise=1.5, seed=3)
    found = r_precision(texts, motions)
    hits, distance = published(texts, motions)
    assert 0.2 < hits[0] < 0.9 and found.text_to_motion.tolist() == pytest.approx(hits.tolist())
    assert float(found.distance) == pytest.approx(distance)
    assert found.motion_to_text.tolist() == pytest.approx(published(motions, texts)[0].tolist())
    assert (found.pairs, found.dropped) == (608, 5)
    other = r_precision(texts, motions, pool=10, top=5)
    assert other.text_to_motion.tolist() == pytest.approx(published(texts, motions, 10, 5)[0].tolist())
    assert (other.pairs, other.dropped) == (610, 3)


def test_perfect_and_chance():
    texts, _ = pairs(64)
    assert r_precision(texts, texts).text_to_motion.tolist() == [1, 1, 1] and r_precision(texts, texts).distance == 0
    strangers = r_precision(pairs(3200, seed=1)[0], pairs(3200, seed=2)[0]).text_to_motion
    assert torch.allclose(strangers, torch.tensor([1, 2, 3]).double() / 32, atol=0.015)


def test_what_cannot_be_ranked_is_refused():
    texts, motions = pairs(40)
    with pytest.raises(ValueError, match="32 pairs, got 31"):
        r_precision(texts[:31], motions[:31])
    motions[7, 3] = math.nan
    with pytest.raises(ValueError, match="embeddings are not finite"):
        r_precision(texts, motions)


def test_corrected_r_precision_by_brute_force():
    texts, motions = pairs(64, dim=4, noise=3.0, seed=5)
    equivalent = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.1
    found = r_precision(texts, motions, equivalent=equivalent)
    for direction, values in (("texts", found.text_to_motion), ("motions", found.motion_to_text)):
        hits = np.zeros(3)
        for pool in range(2):
            rows = slice(32 * pool, 32 * pool + 32)
            matrix, good = cdist(texts[rows], motions[rows]), equivalent[pool].numpy() | np.eye(32, dtype=bool)
            if direction == "motions":
                matrix, good = matrix.T, good.T
            nearest = np.argsort(matrix, axis=1)[:, :3]
            hits += [np.take_along_axis(good, nearest[:, :k], 1).any(1).sum() for k in (1, 2, 3)]
        assert values.tolist() == pytest.approx((hits / 64).tolist()), direction
    plain = r_precision(texts, motions)
    nothing = r_precision(texts, motions, equivalent=torch.zeros(2, 32, 32, dtype=torch.bool))
    assert torch.equal(plain.text_to_motion, nothing.text_to_motion)
    assert (found.text_to_motion >= plain.text_to_motion).all() and found.distance == plain.distance


def test_ceiling_by_hand():
    captions = ["walk"] * 3 + ["run"] + ["jump", "jump"] + ["sit", "lie"]
    assert caption_ceiling(captions, pool=8).tolist() == pytest.approx([5 / 8, 7 / 8, 1])
    assert caption_ceiling(captions, pool=4).tolist() == pytest.approx([(2 + 3) / 8, (3 + 4) / 8, 1])
    assert caption_ceiling([*captions, "fly"], pool=8).tolist() == pytest.approx([5 / 8, 7 / 8, 1])
    assert caption_ceiling([str(i) for i in range(64)]).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="got 8"):
        caption_ceiling(captions)


def test_no_ordering_of_a_small_pool_beats_the_ceiling_and_one_reaches_it():
    captions = ["a", "a", "b", "a"]
    best = np.zeros(3)
    orders = list(itertools.permutations(range(4)))
    for first, second in itertools.product(orders, orders):  # every evaluator: one order of the motions per caption
        by_caption = {"a": first, "b": second}
        hits = [sum(i in by_caption[c][:k] for i, c in enumerate(captions)) / 4 for k in (1, 2, 3)]
        best = np.maximum(best, hits)
    assert caption_ceiling(captions, pool=4).tolist() == pytest.approx(best.tolist())


def test_a_perfect_evaluator_scores_the_ceiling_and_one_when_corrected():
    captions = [f"caption {i % 20}" for i in range(64)]
    points = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))[torch.arange(64) % 20]
    plain = r_precision(points, points)
    ceiling = caption_ceiling(captions)
    for values in (plain.text_to_motion, plain.motion_to_text):
        assert torch.allclose(values.float(), ceiling)
    same = same_caption(captions)
    assert same.shape == (2, 32, 32) and same[1].tolist() == [[a == b for b in captions[32:]] for a in captions[32:]]
    corrected = r_precision(points, points, equivalent=same)
    assert corrected.text_to_motion.tolist() == corrected.motion_to_text.tolist() == [1, 1, 1]


def test_near_duplicate_share():
    equivalent = torch.eye(4, dtype=torch.bool).repeat(2, 1, 1)
    assert near_duplicate_share(equivalent) == 0
    equivalent[0, 0, 1] = equivalent[0, 1, 0] = equivalent[1, 2, 3] = True
    assert float(near_duplicate_share(equivalent)) == pytest.approx(3 / 8 / 3)
    assert near_duplicate_share(torch.ones(4, 4, dtype=torch.bool)) == 1


def test_metric_cuts_pools_in_the_order_of_the_keys():
    texts, motions = pairs(100, noise=1.5)
    metric, keys = MatchingScore(16), torch.randperm(100, generator=torch.Generator().manual_seed(0)) * 7
    for rows in torch.randperm(100, generator=torch.Generator().manual_seed(1)).split(13):
        metric.update(texts[rows], motions[rows], keys[rows])
    order = keys.argsort()
    found, expected = metric.compute(), r_precision(texts[order], motions[order])
    for k in range(3):
        assert float(found[f"r_precision_{k + 1}"]) == pytest.approx(float(expected.text_to_motion[k]))
        assert float(found[f"motion_to_text_r_precision_{k + 1}"]) == pytest.approx(float(expected.motion_to_text[k]))
    assert float(found["multimodal_distance"]) == pytest.approx(float(expected.distance), rel=1e-6)
    assert (int(found["pairs"]), int(found["dropped"])) == (96, 4)
    metric.update(texts[:2], motions[:2], keys[:2])
    with pytest.raises(ValueError, match="2 keys came twice"):
        metric.compute()
    metric.reset()
    with pytest.raises(ValueError, match="got 0"):
        metric.compute()


def test_rows_in_key_order():
    keys, rows = [torch.tensor([5, 1]), torch.tensor([3])], [torch.tensor([[5.0], [1.0]]), torch.tensor([[3.0]])]
    (found,) = in_key_order(keys, rows)
    assert found.flatten().tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="1 keys came twice, the first is 3"):
        in_key_order(torch.tensor([3, 1, 3]), torch.zeros(3))
