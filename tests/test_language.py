"""The verbs of language models, as they are typed: a model that stays loaded, frames as they come, captions."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from .toy import fit_llm, fit_tokenizer, lmm

CAUSAL = {"model.encoder.causal": True, "model.decoder.causal": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a language model of a causal tokenizer that knows text to motion alone."""
    folder, patch = tmp_path_factory.mktemp("language"), pytest.MonkeyPatch()
    patch.chdir(folder)
    fit_tokenizer(patch, "lfq2d", **CAUSAL)
    fit_llm(patch, "lora")
    yield folder
    patch.undo()


def test_frames_as_they_come_are_those_of_the_whole(place, monkeypatch, capsys):
    words = ("generate", "a person walks", "--seconds", "1.9", "--seed", "4", "-o")
    lmm(monkeypatch, *words, "walk.npy")
    lmm(monkeypatch, *words, "walk.jsonl")
    lines = [json.loads(line) for line in Path("walk.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == pytest.approx([i / 20 for i in range(38)])
    assert np.allclose([line["joints"] for line in lines], np.load("walk.npy"), atol=1e-4)
    told = capsys.readouterr()
    assert "38 frames" in told.err and "s to the first frame, real-time factor" in told.err
    lmm(monkeypatch, *words, "-")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


def test_a_conversation(place, monkeypatch, capsys):
    said = iter(
        [
            ":seconds 1",
            "a person waves",
            ":mood good",
            ":seconds soon",
            ":num_samples 0",
            ":seconds 2",
            "a person hops",
            "",
        ]
    )
    monkeypatch.setattr(builtins, "input", lambda prompt: next(said))
    lmm(monkeypatch, "generate", "--interactive", "-o", "made.npy")
    assert len(np.load("made_0.npy")) == 20 and len(np.load("made_1.npy")) == 40
    out = capsys.readouterr().out
    assert "there is no setting 'mood'" in out and "could not convert" in out and "--num-samples must be" in out

    def ends(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", ends)
    lmm(monkeypatch, "generate", "--interactive", "-o", "none.npy")
    assert not list(Path().glob("none*"))


@pytest.mark.parametrize(
    "words, message",
    [
        (["generate", "-o", "a.html"], "say what the person does"),
        (["generate", "a", "--interactive", "-o", "a.html"], "leave sentences out"),
        (["generate", "--interactive", "-o", "-"], "leave sentences out"),
        (["generate", "a", "b", "-o", "a.jsonl"], "one sentence"),
        (["generate", "a", "--num-samples", "2", "-o", "-"], "one motion as it comes"),
        (["generate", "a", "-o", "a.html", "--guidance", "-1"], "guidance"),
        (["describe", "walk.npy"], r"not trained to describe.*tasks/align\.yaml"),
        (["describe", "nowhere.npy"], "nowhere.npy"),
    ],
)
def test_what_makes_no_sense_is_refused(place, monkeypatch, words, message):
    np.save("walk.npy", np.zeros((40, 22, 3), dtype=np.float32))
    with pytest.raises((ValueError, OSError), match=message):
        lmm(monkeypatch, *words)


def test_frames_need_a_tokenizer_that_does_not_look_ahead(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_tokenizer(monkeypatch, "lfq2d")
    model = fit_llm(monkeypatch, "lora", **{"trainer.max_steps": 1})
    with pytest.raises(ValueError, match="causal"):
        lmm(monkeypatch, "generate", "a person walks", "--model", model, "-o", "walk.jsonl")
    assert not Path("walk.jsonl").exists()
