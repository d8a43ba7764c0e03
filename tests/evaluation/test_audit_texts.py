import math

import numpy as np
import pytest
import torch

from lmm.evaluation.audit.duplicates import ceiling, chance, copies, split_figures
from lmm.evaluation.audit.novelty import measure_novelty, quantiles
from lmm.evaluation.audit.wording import Wording, identical, leaked
from lmm.evaluation.clips import Sample
from lmm.evaluators.base import Evaluator
from lmm.metrics.matching import caption_ceiling
from lmm.motion.representations import JointPositions

RANDOM = torch.Generator().manual_seed(0)


class Reads(Evaluator):
    """A fixed point for every text."""

    def __init__(self, points):
        super().__init__("reads", JointPositions(), dim=6)
        self.points = points

    def embed_motions(self, features, mask):
        raise NotImplementedError

    def embed_texts(self, texts):
        return torch.stack([self.points[text] for text in texts])


def test_word_distance_by_hand():
    wording = Wording(["a man walks", "a man jumps", "the man walked"])  # stems: man walk, man jump; n = 2
    rare, common = math.log(3 / 2) + 1, math.log(3 / 3) + 1
    cosine = common * common / (common**2 + rare**2)
    found = wording.distances(["A man is... walking", "jumps"], ["the man walks", "a man jumps"])
    new = math.log(3 / 1) + 1  # "is" is in no caption
    walks = (common**2 + rare**2) / math.sqrt((common**2 + rare**2) * (common**2 + rare**2 + new**2))
    assert float(found[0, 0]) == pytest.approx(1 - walks, abs=1e-6)
    assert float(found[1, 1]) == pytest.approx(1 - rare / math.hypot(rare, common), abs=1e-6)
    assert float(found[1, 0]) == pytest.approx(1)
    assert float(wording.distances(["a man walks"], ["a man jumps"])) == pytest.approx(1 - cosine, abs=1e-6)
    assert wording.nearest(["man walks", "jump man", "dog"], ["a man walks", "a man jumps"]).tolist() == [0, 0, 1]


def test_identical_and_leaked_ignore_case_and_punctuation_alone():
    texts = ["A man walks.", "a man walks", "a man walked"]
    assert identical(texts).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert leaked(["A man walks", "man walks a"], ["a man walks!"]).tolist() == [True, False]


def sample_of(texts):
    n = len(texts)
    return Sample(
        "test", [str(i) for i in range(n)], [[text, f"{text} again"] for text in texts], [torch.zeros(8, 4)] * n, n
    )


def test_a_perfect_evaluator_scores_the_ceiling_and_1_where_twins_count():
    texts = [f"says {i // 4}" if i < 48 else f"alone {i}" for i in range(96)]  # 12 captions four times, 48 once
    points = {text: torch.randn(6, generator=RANDOM, dtype=torch.float64) for text in texts}
    spoken = torch.stack([points[text] for text in texts])
    motions = spoken + 1e-4 * torch.randn(96, 6, generator=RANDOM, dtype=torch.float64)
    found = split_figures(sample_of(texts), spoken, motions, ["says 0", "alone 50 again"], seed=0)
    for name in ("r_precision_1", "r_precision_2", "r_precision_3"):
        assert found.corrected[name][0] == 1
        assert found.plain[name][0] == pytest.approx(found.ceiling[name], abs=0.04)
        assert found.plain[name][1] <= found.plain[name][0] <= found.plain[name][2]
        assert found.chance[name][1] > found.chance[name][0]
    assert found.ceiling["r_precision_1"] < 0.9
    # 3 of the other 95 captions are twins, 31 are drawn: none of 48/96 of the captions with C(92,31)/C(95,31).
    none = math.comb(92, 31) / math.comb(95, 31)
    assert found.identical == pytest.approx(0.5 * (1 - none), abs=0.03)
    assert found.leaked == pytest.approx(5 / 192) and found.leaked_clips == 0
    nothing = split_figures(sample_of(texts), spoken, motions, None, seed=0)
    assert nothing.leaked is None and nothing.leaked_clips is None
    with pytest.raises(ValueError, match="31 clips"):
        split_figures(sample_of(texts[:31]), spoken[:31], motions[:31], None, seed=0)


def test_ceiling_and_chance():
    texts = ["same"] * 5 + ["twin"] * 2 + [f"alone {i}" for i in range(25)]
    pools = torch.arange(32)[None, None]
    alike = copies(identical(texts), pools)
    assert alike[0, 0, [0, 5, 7]].tolist() == [5, 2, 1]
    for k in (1, 2, 3):
        assert float(ceiling(alike, k).mean()) == pytest.approx(float(caption_ceiling(texts)[k - 1]))
    rng = np.random.default_rng(0)
    same = identical(texts).numpy()
    hits = [same[i, rng.permutation(32)[:2]].any() for _ in range(500) for i in range(32)]
    assert chance(alike, 2) == pytest.approx(np.mean(hits), abs=0.01)


def test_equal_distances_stay_in_one_quantile():
    values = torch.tensor([0.0] * 50 + [float(i) for i in range(1, 51)], dtype=torch.float64)
    parts = quantiles(values)
    assert len(parts) > 1 and parts[0][:50].all()
    assert torch.stack(parts).sum(0).tolist() == [1] * 100
    assert [int(p.sum()) for p in quantiles(torch.arange(100.0).double())] == [20] * 5


@pytest.mark.parametrize("understands", [True, False])
def test_novelty_falls_for_an_evaluator_that_knows_training_words_only(understands):
    known = [f"a person does known{i}" for i in range(64)]
    new = [f"somebody performs novel{i} strangely" for i in range(64)]
    points = {text: torch.randn(6, generator=RANDOM, dtype=torch.float64) for text in known + new}
    captions = known + new
    motions = torch.stack([points[text] for text in captions])
    if not understands:
        points |= {text: points[known[i]] for i, text in enumerate(new)}
    texts = torch.stack([points[text] for text in captions])
    by_words, by_space = measure_novelty(Reads(points), captions, texts, motions, known, seed=0)
    assert by_words.measure == "words" and by_words.compared == 64
    assert by_words.bins[0].high == 0 and by_words.bins[0].captions >= 64
    assert by_words.bins[0].corrected[0] == 1
    last = by_words.bins[-1].corrected
    assert (last[0] == 1) if understands else (last[2] < 0.4)
    assert by_words.rho < -0.5 or understands
    # In its own space, one that does not understand new words takes them for known ones: no distance, no warning.
    assert (max(by_space.distances) > 0) == understands
