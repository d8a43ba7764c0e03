"""Figures of a folder against the same put together by hand from the evaluator's points, and the files they leave."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lmm.evaluation import scoring
from lmm.evaluation.clips import embed_motions
from lmm.evaluation.evaluate import score
from lmm.evaluation.predictions import Predictions, PredictionWriter, Record, describe_representation
from lmm.evaluation.protocol import Protocol, interval
from lmm.evaluation.scoring import Judge
from lmm.motion.representations import HumanML3DFeatures

from .toy import ToyEvaluator, write_data

EVALUATOR = ToyEvaluator()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_data(folder / "set"), folder / "cache"


THREE = Protocol(repeats=3)


def judge_of(data, protocol=THREE, evaluator=EVALUATOR) -> Judge:
    return Judge(evaluator, data[0], split="test", protocol=protocol, cache=data[1])


def write(judge: Judge, folder, task: str, make, repeats: int = 1, captions: bool = True) -> Predictions:
    """Predictions that are made of the real features."""
    representation = describe_representation(EVALUATOR.representation)
    writer = PredictionWriter(folder, Record(folder.name, task, "predicted", representation))
    for repeat in range(repeats):
        for i, index in enumerate(judge.indices.tolist()):
            features = judge.store.features(index).clone()
            writer.write(writer.place(judge.ids[i], repeat=repeat), make(features, repeat))
        if captions:
            writer.captions(repeat, {name: f"asked for {name}" for name in judge.ids})
    return Predictions(folder)


def point(features: np.ndarray) -> np.ndarray:
    return features.mean(0) @ EVALUATOR.weight.numpy()


def by_hand(texts: np.ndarray, motions: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """One pool of 32 pairs, and all of the reference."""
    assert len(texts) == 32
    between = np.linalg.norm(texts[:, None] - motions[None], axis=-1)
    rank = (between < between.diagonal()[:, None]).sum(1)
    a, b = np.cov(reference.T), np.cov(motions.T)
    gap = ((reference.mean(0) - motions.mean(0)) ** 2).sum()
    return {
        "r_precision_1": (rank < 1).mean(),
        "r_precision_3": (rank < 3).mean(),
        "multimodal_distance": between.diagonal().mean(),
        "fid": gap + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real,
    }


def points_of_pass(judge: Judge, number: int) -> tuple[np.ndarray, np.ndarray]:
    look, texts, motions = judge.draw(number), [], []
    for place in look.order:
        features = judge.store.features(int(judge.indices[place])).numpy().astype(np.float64)
        motions.append(point(features[look.starts[place] : look.starts[place] + look.frames[place]]))
        texts.append(judge.captions[place][look.captions[place]])
    return EVALUATOR.embed_texts(texts).double().numpy(), np.stack(motions)


def test_the_real_row_compares_two_draws_of_real_motion(data):
    judge = judge_of(data)
    for repeat in range(3):
        figures = judge.real(repeat)
        texts, motions = points_of_pass(judge, repeat + 1)
        expected = by_hand(texts, motions, points_of_pass(judge, repeat)[1])
        assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert figures["jitter_m_s3"] > 0


def test_no_pass_is_embedded_twice(data, tmp_path, monkeypatch):
    embedded = []
    monkeypatch.setattr(scoring, "embed_motions", lambda *arguments: embedded.append(1) or embed_motions(*arguments))
    judge = judge_of(data)
    for repeat in range(3):
        judge.real(repeat)
    assert len(embedded) == 4  # three judged, and the first one's reference
    made = write(judge, tmp_path / "made", "text_to_motion", lambda x, r: x)
    list(judge.system(made, range(3)))
    assert len(embedded) == 4 + 3


def test_generated_motions_are_judged_whole_with_the_words_they_were_made_from(data, tmp_path):
    judge = judge_of(data)
    made = write(judge, tmp_path / "made", "text_to_motion", lambda x, r: 1.1 * x[: len(x) - 3 * r - 2], repeats=2)
    for repeat, figures in judge.system(made, [0, 1, 2]):
        look, which = judge.draw(repeat + 1), repeat % 2
        texts = EVALUATOR.embed_texts([f"asked for {judge.ids[place]}" for place in look.order]).double().numpy()
        motions = []
        for place in look.order:
            whole = 1.1 * judge.store.features(int(judge.indices[place])).double().numpy()
            whole = whole[: len(whole) - 3 * which - 2]
            motions.append(point(whole[: min(len(whole), 60) // 4 * 4]))
        expected = by_hand(texts, np.stack(motions), points_of_pass(judge, repeat)[1])
        assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert figures["length_error_s"] == pytest.approx((3 * which + 2) / 20)
        assert figures["length_bias_s"] == pytest.approx(-(3 * which + 2) / 20)


def test_a_reconstruction_shares_crops_captions_and_joints_with_its_clip(data, tmp_path):
    judge = judge_of(data)
    same = write(judge, tmp_path / "same", "reconstruction", lambda x, r: x)
    for repeat, figures in judge.system(same, [0, 2]):
        real = judge.real(repeat)
        assert {name: figures[name] for name in real} == pytest.approx(real, rel=1e-5, abs=1e-7)
        assert figures["mpjpe_mm"] == pytest.approx(0, abs=1e-3)

    def lift(features, repeat):
        features[:, 3] += 0.1  # the root alone: of 22 joints, one is 10 cm off
        return features

    lifted = write(judge, tmp_path / "lifted", "reconstruction", lift)
    assert next(judge.system(lifted, [0]))[1]["mpjpe_mm"] == pytest.approx(100 / 22, rel=1e-3)


@pytest.mark.parametrize("task, first, last", [("prediction", 0.2, 0.0), ("in_between", 0.25, 0.25)])
def test_only_what_was_missing_counts(data, tmp_path, task, first, last):
    judge = judge_of(data)

    def spoil(features, repeat):
        frames = len(features)
        features[int(first * frames) : frames - int(last * frames), 3] += 0.1  # the root alone: its height
        return features

    figures = next(judge.system(write(judge, tmp_path / task, task, spoil), [0]))[1]
    assert figures["ade_m"] == pytest.approx(0.1, rel=1e-3) and figures["fde_m"] == pytest.approx(0.1, rel=1e-3)
    short = write(judge, tmp_path / "short", task, lambda x, r: x[:-2])
    with pytest.raises(ValueError, match="has as many as the clip"):
        next(judge.system(short, [0]))


def test_several_motions_of_a_caption(data, tmp_path):
    judge = judge_of(data)
    made = write(judge, tmp_path / "many", "text_to_motion", lambda x, r: x)
    writer = PredictionWriter(tmp_path / "many", made.record)
    for name, size in (("c000", 1.0), ("c001", 3.0)):
        for sample in range(12):
            features = judge.store.features(0)[:40].clone()
            features[:, 3] += size * sample
            writer.write(writer.place(name, sample=sample), features)
    figures = next(judge.system(Predictions(tmp_path / "many"), [0]))[1]
    unit = float(EVALUATOR.weight[3].norm())
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randperm(12, generator=generator)[:10] for _ in range(2))
    expected = unit * float((first - second).abs().double().mean()) * (1 + 3) / 2
    assert figures["multimodality"] == pytest.approx(expected, rel=1e-4)


def test_what_is_left_behind(data, tmp_path, capsys):
    judge = judge_of(data)
    made = write(judge, tmp_path / "made_by_me", "text_to_motion", lambda x, r: x, captions=False)
    text = score(judge, [made], tmp_path / "out")
    assert text == (tmp_path / "out/table.md").read_text()
    heading, *_ = text.splitlines()
    assert "not the standard protocol (3 repeats instead of 20; made_by_me was generated for 1 of 3" in heading
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[1] == "| real" and rows[2] == "| made_by_me"
    assert "made_by_me: text_to_motion, length predicted; generated for 1 of 3 repeats, and used" in text
    assert "each clip's first caption is assumed" in text
    results = json.loads((tmp_path / "out/results.json").read_text())
    raw = [json.loads(line) for line in (tmp_path / "out/raw.jsonl").read_text().splitlines()]
    assert [(line["system"], line["repeat"]) for line in raw] == [
        (s, r) for s in ("real", "made_by_me") for r in range(3)
    ]
    for system in ("real", "made_by_me"):
        fids = [line["figures"]["fid"] for line in raw if line["system"] == system]
        assert (
            results["figures"][system]["fid"]["mean"],
            results["figures"][system]["fid"]["interval_95"],
        ) == interval(fids)
    measured = results["measured_with"]
    assert measured["evaluator"]["fingerprint"] == EVALUATOR.fingerprint
    assert measured["protocol"] == {"name": "standard", "repeats": 3, "seed": 0}
    assert measured["data"]["fingerprint"] == judge.store.key and results["environment"]["versions"]["torch"]
    assert r"made\_by\_me & $" in (tmp_path / "out/table.tex").read_text()
    capsys.readouterr()


def test_what_was_measured_is_not_measured_again(data, tmp_path, capsys, monkeypatch):
    judge = judge_of(data)
    made = write(judge, tmp_path / "made", "text_to_motion", lambda x, r: x)
    first = score(judge, [made], tmp_path / "out")
    lines = (tmp_path / "out/raw.jsonl").read_text().splitlines()
    (tmp_path / "out/raw.jsonl").write_text("\n".join(lines[:4]) + '\n{"system": "ma')  # killed while it wrote
    capsys.readouterr()
    assert score(judge_of(data), [made], tmp_path / "out") == first
    assert capsys.readouterr().out.splitlines() == ["made: repeat 2 of 3", "made: repeat 3 of 3"]
    write(judge, tmp_path / "made", "text_to_motion", lambda x, r: x[:-1])
    assert score(judge_of(data), [Predictions(tmp_path / "made")], tmp_path / "out") != first
    assert len(capsys.readouterr().out.splitlines()) == 3


class Published(ToyEvaluator):
    """One with a published real row."""

    def __init__(self, **row: tuple[float, float]) -> None:
        super().__init__()
        self.row = row

    @property
    def published_real_row(self):
        return self.row


def test_the_words_standard_protocol_are_earned(data, tmp_path, capsys):
    protocol = Protocol()
    fid = interval([judge_of(data, protocol).real(r)["fid"] for r in range(20)])[0]
    good = judge_of(data, protocol, Published(fid=(fid, 1e-6)))
    assert score(good, [], tmp_path / "good").splitlines()[0] == "# set, split test: standard protocol"
    bad = judge_of(data, protocol, Published(fid=(fid + 1, 0.5)))
    assert "not the standard protocol (the real row's fid is" in score(bad, [], tmp_path / "bad").splitlines()[0]
    still = judge_of(data, Protocol("deterministic", 1), Published(fid=(0.0, 1e-6)))
    text = score(still, [], tmp_path / "still")
    assert "(nothing is drawn)" in text.splitlines()[0] and "its FID is 0" in text
    once = write(good, tmp_path / "once", "text_to_motion", lambda x, r: x)
    assert "once was generated for 1 of 20 repeats" in score(good, [once], tmp_path / "good").splitlines()[0]


def test_what_cannot_be_judged_is_refused(data, tmp_path):
    judge = judge_of(data)
    made = write(judge, tmp_path / "made", "text_to_motion", lambda x, r: x)
    with pytest.raises(ValueError, match="two rows have one name"):
        score(judge, [made, made], tmp_path / "out")
    (tmp_path / "made/repeat_00/c007.npy").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of the 40 clips .*\(c007\)"):
        score(judge, [Predictions(tmp_path / "made")], tmp_path / "out")
    with pytest.raises(ValueError, match="no split 'unseen'"):
        Judge(EVALUATOR, data[0], split="unseen", protocol=Protocol(), cache=data[1])


def test_motions_of_another_representation_are_named_as_such(data, tmp_path, capsys):
    judge = judge_of(data, Protocol("deterministic", 1))
    representation = HumanML3DFeatures(uniform_skeleton=True)
    writer = PredictionWriter(
        tmp_path / "other", Record("other", "reconstruction", "x", describe_representation(representation))
    )
    for name, index in zip(judge.ids, judge.indices.tolist(), strict=True):
        writer.write(writer.place(name, repeat=0), judge.store.features(index))
    text = score(judge, [Predictions(tmp_path / "other")], tmp_path / "out")
    assert "converted from HumanML3DFeatures(uniform_skeleton=True, fixed=False) to HumanML3DFeatures(unif" in text
    assert "| 0.000 |" in text and "-0.000" not in text  # FID of the real row with itself
