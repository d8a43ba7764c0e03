import json
import re
import sys
from dataclasses import replace

import pytest

from lmm.command_line import call, plain_words
from lmm.evaluation.audit import figures, response, verb
from lmm.evaluation.audit.corruptions import CORRUPTIONS
from lmm.evaluation.audit.findings import findings
from lmm.evaluation.audit.page import markdown
from tests.evaluation.audit_toy import WordsAndStatistics, toy_store

KEPT = tuple(replace(c, strengths=(0.5, 1.0)) for c in CORRUPTIONS if c.name == "foot skating")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("verb"), clips=150, test=70)


@pytest.fixture
def run(store, tmp_path, monkeypatch):
    evaluators = {
        "one.ckpt": WordsAndStatistics("one", store),
        "two.ckpt": WordsAndStatistics("two <b>", store, seed=1),
    }
    monkeypatch.setattr(verb, "instrument", evaluators.__getitem__)
    monkeypatch.setattr(response, "CORRUPTIONS", KEPT)
    monkeypatch.setattr(figures, "POOLINGS", 4)
    monkeypatch.setattr(figures, "HALVINGS", 4)
    data = ["--data", str(store.folder.parent.parent / "toy"), "--cache", str(store.folder.parent)]

    def go(*words):
        call(verb.audit_evaluator, plain_words([*words, *data]), "lmm audit-evaluator")

    return go


def test_two_evaluators_leave_a_page_its_tables_and_every_value(run, tmp_path, capsys):
    out = tmp_path / "audit"
    run("one.ckpt", "two.ckpt", "-o", str(out), "--splits", "test,unseen", "--max-clips", "64")
    assert sorted(file.name for file in out.iterdir()) == ["audit.html", "audit.json", "audit.md"]
    told = capsys.readouterr().out
    assert told.endswith(f"{out / 'audit.html'}\n") and "one: sees " in told

    made = json.loads((out / "audit.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert [each["name"] for each in made["evaluators"]] == ["one", "two <b>"]
    first = made["evaluators"][0]
    assert len(first["fingerprint"]) == 64 and first["clips"] == 64 and made["asked"]["seed"] == 0
    assert made["environment"]["versions"]["torch"] and len(made["data"]["fingerprint"]) == 64
    assert len(first["response"]["rows"]) == 3 + 2 + 4 and len(first["response"]["rows"][0]["halvings"]) == 4
    assert [split["split"] for split in first["splits"]] == ["test", "unseen"]
    assert [split["available"] for split in first["splits"]] == [70, 40]
    assert len(first["novelty"][0]["distances"]) == 104
    assert made["agreement"]["fid"][0]["rows"] == 6 and set(made["agreement"]) == set(response.FIGURES)

    page = (out / "audit.html").read_text()
    assert page.count("<svg") == 2 * (2 + 1 + 1) and page.count("</svg>") == page.count("<svg")
    assert "two &lt;b&gt;" in page and "two <b>" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page) and "NaN" not in page  # nothing from elsewhere
    for title in ("In short", "What it sees", "Real motions of each split", "Do the evaluators agree?"):
        assert title in page
    tables = (out / "audit.md").read_text()
    assert tables.count("| foot skating | 1 m/s |") == 2 and "| real |  |" in tables


def test_the_same_seed_gives_the_same_figures_and_train_is_not_needed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "page", markdown)  # drawing takes longest
    for name in ("a", "b"):
        run("one.ckpt", "-o", str(tmp_path / name), "--splits", "test", "--train-split", "nothing", "--max-clips", "64")
    made = [json.loads((tmp_path / name / "audit.json").read_text()) for name in ("a", "b")]
    assert made[0]["evaluators"] == made[1]["evaluators"]
    assert made[0]["evaluators"][0]["novelty"] == [] and made[0]["evaluators"][0]["splits"][0]["leaked"] is None
    assert "new to it" not in (tmp_path / "a" / "audit.md").read_text() and made[0]["agreement"] == {}
    assert "neither leaks nor new texts were measured" in (tmp_path / "a" / "audit.md").read_text()


def test_what_is_found_is_said(store):
    from lmm.evaluation.audit.report import audit

    evaluator = WordsAndStatistics("one", store)
    patch = pytest.MonkeyPatch()
    patch.setattr(response, "CORRUPTIONS", KEPT)
    found = findings(audit(evaluator, "one.ckpt", store, ["test"], "train", max_clips=0, seed=0))
    patch.undo()
    for about, said in [*found.trusted, *found.not_trusted, *found.mind]:
        assert said.endswith(".") and "nan" not in said.lower() and "None" not in said, (about, said)
    assert "swapped captions" in [about for about, _ in found.trusted]
    assert "swapped captions" not in [about for about, said in found.not_trusted if "FID" in said]
    assert found.mind[0].about == "FID"


def test_splits_that_are_there_are_taken(store):
    assert verb.choose_splits(store, None) == ["test", "unseen"]
    assert verb.choose_splits(store, "val, test") == ["val", "test"]


def test_refusals_come_before_any_work(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="names a file"):
        run("one.ckpt", "-o", str(tmp_path / "audit.html"))
    with pytest.raises(ValueError, match="max-clips must be 0"):
        run("one.ckpt", "-o", str(tmp_path / "out"), "--max-clips", "-1")
    with pytest.raises(ValueError, match="needs 64 clips"):
        run("one.ckpt", "-o", str(tmp_path / "out"), "--max-clips", "40")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install"):
        run("one.ckpt", "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_evaluators_of_one_name_are_told_apart_by_their_file(store):
    from lmm.evaluation.audit.report import audit

    patch = pytest.MonkeyPatch()
    patch.setattr(response, "CORRUPTIONS", ())
    patch.setattr(figures, "POOLINGS", 2)
    evaluator = WordsAndStatistics("one", store)
    both = [audit(evaluator, where, store, ["test"], None, max_clips=64, seed=0) for where in ("a.ckpt", "b.ckpt")]
    patch.undo()
    (found,) = verb.agreement_of(both)["r_precision_1"]
    assert (found.first, found.second) == ("one, a.ckpt", "one, b.ckpt") and found.spearman == pytest.approx(1)
