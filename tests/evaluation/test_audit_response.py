import math
from dataclasses import replace

import pytest

from lmm.evaluation.audit import figures
from lmm.evaluation.audit import response as module
from lmm.evaluation.audit.bench import Bench, Row
from lmm.evaluation.audit.corruptions import CORRUPTIONS, SWAPPED
from lmm.evaluation.audit.figures import FIGURES
from lmm.evaluation.audit.report import examine
from lmm.evaluation.audit.response import CONTROL, REAL, judge, measure_response
from lmm.evaluation.clips import all_captions, embed_motions, embed_texts, find_source, read_sample
from lmm.metrics.physics import FIGURES as PHYSICS
from lmm.motion.representations import HumanML3DFeatures, JointPositions, KITFeatures, MotionStreamer272
from tests.evaluation.audit_toy import OnePoint, ReadsPadding, WordsAndStatistics, toy_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def works(store):
    return WordsAndStatistics("works", store)


def rows_of(fid, r3, skating):
    """A series of one corruption, strength 0 first."""
    made = [Row(REAL, 0.0, dict.fromkeys(FIGURES, 0.5), dict.fromkeys(PHYSICS, 0.0))]
    for strength, (f, r, s) in enumerate(zip(fid, r3, skating, strict=True)):
        figures = dict.fromkeys(FIGURES, 0.5) | {"fid": f, "r_precision_3": r}
        physics = dict.fromkeys(PHYSICS, 0.0) | {"skating_ratio": s}
        made.append(Row("damage" if strength else CONTROL, float(strength), figures, physics))
    return made


@pytest.mark.parametrize(
    ("fid", "verdict", "first"),
    [
        ([1.0, 1.2, 1.6, 2.0, 3.0], "sees", 2),
        ([1.0, 1.01, 0.99, 1.02, 3.0], "sees", 4),  # what differs by less than noise has no order
        ([1.0, 3.0, 2.0, 1.9, 1.6], "wrong order", 1),
        ([1.0, 1.0, 3.0, 1.0, 1.1], "wrong order", None),
        ([1.0, 1.1, 1.2, 1.3, 1.4], "faint", None),
        ([1.0, 1.1, 1.0, 1.2, 0.9], "blind", None),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "blind", None),
        ([2.0, 1.8, 1.6, 1.2, 1.0], "rewards", None),
    ],
)
def test_verdicts(fid, verdict, first):
    noise = dict.fromkeys([*FIGURES, *PHYSICS], 0.5)
    found = judge(rows_of(fid, [0.5] * 5, [0.0] * 5), noise)
    judged = found.judged("damage")["fid"]
    assert (judged.verdict, judged.first) == (verdict, first)
    assert judged.cost == pytest.approx(fid[-1] - fid[0])
    assert found.seen_by("damage") == (["fid"] if verdict == "sees" else [])


def test_r_precision_gets_worse_when_it_falls_and_physics_when_it_changes():
    noise = dict.fromkeys([*FIGURES, *PHYSICS], 0.0)
    found = judge(rows_of([1.0] * 5, [0.9, 0.8, 0.6, 0.5, 0.1], [0.5, 0.4, 0.3, 0.2, 0.1]), noise)
    judged = found.judged("damage")
    assert judged["r_precision_3"].verdict == "sees" and judged["r_precision_3"].rho == pytest.approx(1)
    assert judged["r_precision_3"].cost == pytest.approx(0.8)
    assert judged["skating_ratio"].verdict == "sees" and judged["skating_ratio"].rho == pytest.approx(1)
    assert found.seen_in_joints("damage") == ["skating_ratio"]
    assert judged["fid"].verdict == "blind" and math.isnan(judged["fid"].rho)
    small = judge(rows_of([1.0] * 5, [0.5] * 5, [0.0, 1e-5, 2e-5, 3e-5, 4e-5]), noise)
    assert not small.seen_in_joints("damage")  # too small to mean anything, however small the noise


def test_an_evaluator_that_works_sees_what_it_should_and_one_that_does_not_is_blind(store, works, monkeypatch):
    few = {"joint noise": (10.0, 50.0), "mirrored": (0.5, 1.0), "frozen": (0.5, 1.0)}
    kept = tuple(replace(c, strengths=few[c.name]) for c in CORRUPTIONS if c.name in few)
    monkeypatch.setattr(module, "CORRUPTIONS", kept)
    monkeypatch.setattr(figures, "POOLINGS", 5)
    sample = read_sample(store, "test", max_clips=64)
    found = measure_response(Bench(works, sample, seed=0), seed=0)
    assert [row.corruption for row in found.rows[:3]] == ["real", "real, other crops", "real, re-encoded"]
    assert len(found.rows) == 3 + 3 * 2 + 4 and found.corruptions == ["joint noise", "mirrored", "frozen", SWAPPED]
    real, control = found.row(REAL), found.row(CONTROL)
    assert real.figures["r_precision_3"] > 0.3  # guessing: 0.09
    assert real.figures["fid_same_clips"] == pytest.approx(0, abs=1e-6)
    assert control.figures["r_precision_3"] == pytest.approx(real.figures["r_precision_3"], abs=0.02)
    assert "fid" in found.seen_by("joint noise") and "fid" in found.seen_by("frozen")
    assert {"r_precision_1", "r_precision_3", "multimodal_distance"} <= set(found.seen_by(SWAPPED))
    assert "fid" not in found.seen_by(SWAPPED) and math.isnan(found.judged(SWAPPED)["fid"].rho)
    assert "jitter_m_s3" in found.seen_in_joints("joint noise") and not found.seen_in_joints(SWAPPED)
    assert found.series(SWAPPED)[-1].figures["r_precision_1"] == pytest.approx(1 / 32, abs=0.04)
    mirrored = found.series("mirrored")
    named = [row.sided["side"]["r_precision_3"] for row in mirrored]
    unnamed = [row.sided["no side"]["r_precision_3"] for row in mirrored]
    assert named[0] - named[-1] > 0.05 and unnamed[0] - unnamed[-1] < 0.5 * (named[0] - named[-1])
    assert mirrored[-1].physics == pytest.approx(mirrored[0].physics)

    monkeypatch.setattr(module, "CORRUPTIONS", kept[:1])
    nothing = measure_response(Bench(OnePoint("blind", store), sample, seed=0), seed=0)
    assert all(j.verdict == "blind" for j in nothing.judgements if j.figure in FIGURES)
    assert nothing.row(REAL).figures["r_precision_1"] == pytest.approx(1 / 32)


def test_an_evaluator_that_reads_padding_is_found_out(store, works):
    sample = read_sample(store, "test")
    for evaluator, honest in ((works, True), (ReadsPadding("padding", store), False)):
        texts, motions = embed_texts(evaluator, sample.texts), embed_motions(evaluator, sample.features)
        found = examine(evaluator, sample, texts, motions)
        assert (found.motions_alone < 1e-4) == honest
        assert found.texts_alone < 1e-4


def test_samples_are_drawn_once_and_captions_are_needed(store):
    some, same = (read_sample(store, "test", max_clips=10, seed=3) for _ in range(2))
    assert some.ids == same.ids == sorted(some.ids) and len(some.ids) == 10 and some.available == 80
    assert some.ids != read_sample(store, "test", max_clips=10, seed=4).ids
    assert len(read_sample(store, "test").ids) == 80 and some.texts == [c[0] for c in some.captions]
    assert len(all_captions(store, "train")) > 2 * len(store.indices("train"))
    with pytest.raises(ValueError, match="no split 'tset'"):
        read_sample(store, "tset")


def test_points_do_not_depend_on_the_order_and_rows_beyond_the_unit_are_left_out(store, works):
    features = read_sample(store, "test").features[:9]
    points = embed_motions(works, features)
    assert embed_motions(works, features[::-1]).flip(0).allclose(points)
    assert embed_motions(works, [rows[: len(rows) // 4 * 4] for rows in features]).allclose(points)
    with pytest.raises(ValueError, match="reads motions of 4 rows or more, got 3"):
        embed_motions(works, [features[0], features[1][:3]])


def test_the_layout_follows_from_the_representation(tmp_path):
    names = [type(find_source(str(tmp_path), f())).__name__
             for f in (HumanML3DFeatures, KITFeatures, MotionStreamer272, JointPositions)]  # fmt: skip
    assert names == ["HumanML3D", "KIT", "MotionStreamer", "HumanML3D"]
    with pytest.raises(ValueError, match="no such folder"):
        find_source(str(tmp_path / "no"), HumanML3DFeatures())
