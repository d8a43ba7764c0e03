"""`lmm test --evaluation.evaluator` and `lmm evaluate`, as typed: a tokenizer and a language model at toy size."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmm.evaluation.testing import GENERATIONS, Evaluation
from tests.conftest import REPOSITORY
from tests.toy import SMALL_2D, SMALL_LLM, TRAINER, lmm, options

from .toy import write_data

YAML = "class_path: tests.evaluation.toy.ToyEvaluator\ninit_args: {uniform_skeleton: true}\n"
DATA = ["--config", "data/folder.yaml", "--data.source.folder", "set", "--data.batch_size", "4"]
TOKENIZER = "runs/tokenizer_lfq2d"
LLM = [f"--model.tokenizer={TOKENIZER}/checkpoints/last.ckpt", f"--data.tokens={TOKENIZER}/tokens"]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with data, an evaluator, a tokenizer and a language model that describes motions, too."""
    folder, patch, before = tmp_path_factory.mktemp("evaluation"), pytest.MonkeyPatch(), os.getcwd()
    os.chdir(folder)
    write_data(folder / "set")
    (folder / "toy.yaml").write_text(YAML)
    small = {**SMALL_2D, "model.latent_dim": 6, "model.quantizer.codebook_size": 64, "data.window": 20}
    lmm(patch, "fit", "--config", "tokenizer_lfq2d.yaml", *DATA, *options(TRAINER, small))
    tasks = ["--config", "tasks/align.yaml", "--trainer.default_root_dir=runs/llm"]
    lmm(patch, "fit", "--config", "llm_full.yaml", *DATA, *tasks, *options(TRAINER, SMALL_LLM), *LLM)
    os.chdir(before)
    yield folder
    patch.undo()


@pytest.fixture
def here(there, monkeypatch):
    monkeypatch.chdir(there)
    return there


def judged(monkeypatch, run: str, *more: str) -> None:
    lmm(monkeypatch, "test", "--config", f"{run}/config.yaml", "--evaluation.evaluator=toy.yaml", *more)


def test_a_tokenizer_is_judged_by_what_it_reconstructs(here, monkeypatch, capsys):
    judged(monkeypatch, TOKENIZER)
    out = capsys.readouterr().out
    assert "| tokenizer_lfq2d |" in out and "MPJPE" in out
    results = json.loads(Path(TOKENIZER, "test/reconstruction/scores/results.json").read_text())
    figures = results["figures"]["tokenizer_lfq2d"]
    own = json.loads(Path(TOKENIZER, "metrics.jsonl").read_text().splitlines()[-1])  # what the test loop measured
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "jitter_m_s3"):
        assert figures[name]["mean"] == pytest.approx(own[f"test/{name}"], rel=1e-4)
    content = Path(TOKENIZER, "checkpoints/last.ckpt").read_bytes()
    made_by = results["predictions"]["tokenizer_lfq2d"]["made_by"]
    assert made_by["checkpoint_sha256"] == hashlib.sha256(content).hexdigest()
    capsys.readouterr()
    judged(monkeypatch, TOKENIZER)
    assert ": repeat" not in capsys.readouterr().out  # all was known
    lmm(monkeypatch, "evaluate", f"again={TOKENIZER}/test/reconstruction/predictions", "--data", "set",
        "--evaluator", "toy.yaml", "--protocol", "deterministic", "-o", "out")  # fmt: skip
    assert "| again |" in Path("out/table.md").read_text()
    lmm(monkeypatch, "evaluate", "--data", f"{TOKENIZER}/config.yaml", "--evaluator", "toy.yaml", "-o", "real",
        "--repeats", "2")  # fmt: skip
    assert json.loads(Path("real/results.json").read_text())["measured_with"]["data"]["source"] == "set"


def test_motions_are_generated_once_a_repeat_and_clip_and_go_on_where_they_were(here, monkeypatch, capsys):
    options = ["--evaluation.repeats=2", "--evaluation.multimodality=1"]
    judged(monkeypatch, "runs/llm", *options)
    folder = Path("runs/llm/test/text_to_motion/predictions")
    made = {file: np.load(file) for file in folder.glob("repeat_*/*.npy")}
    assert len(made) == 80 and len(list(folder.glob("multimodality/*/*.npy"))) == GENERATIONS
    captions = [json.loads((folder / f"repeat_0{r}/captions.json").read_text()) for r in (0, 1)]
    assert captions[0] != captions[1] and all(text in Path("set/texts", f"{name}.txt").read_text()
                                              for name, text in captions[0].items())  # fmt: skip
    results = json.loads((folder.parent / "scores/results.json").read_text())
    assert set(results["figures"]) == {"real", "llm"} and "multimodality" in results["figures"]["llm"]
    for file in list(made)[::3]:
        file.unlink()
    capsys.readouterr()
    judged(monkeypatch, "runs/llm", *options)
    for file, features in made.items():
        np.testing.assert_allclose(np.load(file), features, atol=1e-4)  # another batch, the same motion
    with pytest.raises(ValueError, match="were made otherwise"):
        judged(monkeypatch, "runs/llm", *options, "--evaluation.temperature=0.5")


def test_lengths_of_the_clips_are_met_exactly(here, monkeypatch):
    root = ["--trainer.default_root_dir=runs/exact", "--ckpt_path=runs/llm/checkpoints/last.ckpt"]
    judged(monkeypatch, "runs/llm", "--evaluation.repeats=1", "--evaluation.length=ground_truth", *root)
    results = json.loads(Path("runs/exact/test/text_to_motion/scores/results.json").read_text())
    assert results["figures"]["exact"]["length_error_s"]["mean"] == 0
    assert results["predictions"]["exact"]["length"] == "ground_truth"


@pytest.mark.parametrize("task", ["prediction", "in_between"])
def test_motions_are_completed(here, monkeypatch, task):
    judged(monkeypatch, "runs/llm", "--evaluation.repeats=1", f"--evaluation.task={task}")
    figures = json.loads(Path(f"runs/llm/test/{task}/scores/results.json").read_text())["figures"]["llm"]
    assert figures["ade_m"]["mean"] > 0 and "length_error_s" not in figures


def test_motions_are_described(here, monkeypatch, capsys):
    judged(monkeypatch, "runs/llm", "--evaluation.task=motion_to_text")
    scores = json.loads(Path("runs/llm/test/motion_to_text/scores.json").read_text())
    said = json.loads(Path("runs/llm/test/motion_to_text/captions.json").read_text())
    assert len(said) == 40 and 0 <= scores["bleu_1"] <= 1 and scores["references"] == "raw"


def test_what_cannot_be_judged_is_refused_before_anything_is_generated(here, monkeypatch):
    with pytest.raises(ValueError, match=r"no config 'none\.yaml'"):
        lmm(monkeypatch, "test", "--config", f"{TOKENIZER}/config.yaml", "--evaluation.evaluator=none.yaml")
    with pytest.raises(ValueError, match="no split 'unseen'"):
        judged(monkeypatch, TOKENIZER, "--data.test_split=unseen")
    with pytest.raises(ValueError, match="temperature"):
        Evaluation(temperature=-1.0)


def test_two_processes_share_the_work_and_one_scores(here, monkeypatch):
    judged(monkeypatch, TOKENIZER)
    words = ["test", "--config", f"{TOKENIZER}/config.yaml", "--evaluation.evaluator=toy.yaml",
             f"--ckpt_path={TOKENIZER}/checkpoints/last.ckpt", "--trainer.accelerator=cpu", "--trainer.devices=2",
             "--trainer.strategy=ddp", "--trainer.default_root_dir=runs/two"]  # fmt: skip
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "lmm", *words]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": path}, timeout=300)
    (one, real), (two, again) = (
        (results["repeats"][name], results["repeats"]["real"])
        for name, run in (("tokenizer_lfq2d", TOKENIZER), ("two", "runs/two"))
        for results in [json.loads(Path(run, "test/reconstruction/scores/results.json").read_text())]
    )
    assert real == again
    for mine, theirs in zip(one, two, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7)
