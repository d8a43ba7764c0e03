import sys
import types
from pathlib import Path

import pytest
import torch

from lmm.command_line import find_config
from lmm.evaluators import Evaluator, GuoEvaluator, load_evaluator
from lmm.motion import published
from lmm.motion.representations import HumanML3DFeatures, KITFeatures

from .published import pass_for_published, write


class Mean(Evaluator):
    """A user's own."""

    def __init__(self, width: int = 3, scale: float = 1.0) -> None:
        super().__init__("mean", HumanML3DFeatures(), dim=width)
        self.scale = scale

    def embed_motions(self, features, mask):
        return features[:, 0, : self.dim]

    def embed_texts(self, texts):
        return torch.zeros(len(texts), self.dim)


class Learned(Mean):
    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = checkpoint


@pytest.mark.parametrize(("kind", "dim", "representation", "pair"), [
    ("t2m", 263, HumanML3DFeatures, published.EVALUATOR_T2M), ("kit", 251, KITFeatures, published.EVALUATOR_KIT),
])  # fmt: skip
def test_shipped_configs(kind, dim, representation, pair, tmp_path, monkeypatch):
    files = write(tmp_path, kind, dim)
    monkeypatch.chdir(tmp_path)
    where = find_config(f"evaluator/guo_{kind}.yaml")
    with pytest.raises(ValueError, match="none of the published pairs"):
        load_evaluator(where)
    pass_for_published(monkeypatch, files["mean"], files["std"], pair)
    evaluator = load_evaluator(where)
    assert isinstance(evaluator, GuoEvaluator) and type(evaluator.representation) is representation
    assert not evaluator.motiongpt_compat and "uniform_skeleton=False" in evaluator.settings
    assert evaluator.embed_texts(["a person walks forward."]).shape == (1, 512)
    assert evaluator.embed_motions(torch.randn(2, 40, dim), torch.ones(2, 40, dtype=torch.bool)).shape == (2, 512)


def yaml(folder: Path, text: str) -> str:
    (folder / "evaluator.yaml").write_text(text)
    return str(folder / "evaluator.yaml")


def test_a_class_of_the_users_own(tmp_path):
    where = yaml(tmp_path, f"class_path: {__name__}.Mean\ninit_args: {{width: 5, scale: 1e-3}}\n")
    evaluator = load_evaluator(where)
    assert type(evaluator) is Mean and evaluator.dim == 5 and evaluator.scale == 1e-3


def test_short_names(tmp_path):
    with pytest.raises(ValueError, match="nowhere: there is no such file"):
        load_evaluator(yaml(tmp_path, "class_path: GuoEvaluator\ninit_args: {checkpoint: a, glove: b, texts: c, "
                                      "mean: nowhere, std: e}\n"))  # fmt: skip


@pytest.mark.parametrize(("text", "match"), [
    ("class_path: lmm.motion.representations.HumanML3DFeatures\n", "HumanML3DFeatures"),
    ("class_path: lmm.evaluators.NoSuchEvaluator\n", "NoSuchEvaluator"),
    ("class_path: lmm.evaluators.GuoEvaluator\ninit_args: {glove: b, texts: c, mean: d, std: e}\n", "checkpoint"),
    (f"class_path: {__name__}.Mean\ninit_args: {{widht: 5}}\n", "widht"),
    (f"class_path: {__name__}.Mean\ninit_args: {{width: five}}\n", "five"),
    ("model: 3\n", "no class_path"), ("", "no class_path"), ("- a\n", "no class_path"), ("a: [\n", "while parsing"),
])  # fmt: skip
def test_yamls_that_describe_no_evaluator(tmp_path, text, match):
    with pytest.raises(ValueError, match=rf"(?s)evaluator.yaml describes no evaluator: .*{match}"):
        load_evaluator(yaml(tmp_path, text))


def test_checkpoints_are_those_of_learned_evaluators(tmp_path, monkeypatch):
    learned = types.ModuleType("lmm.evaluators.learned")
    learned.LearnedEvaluator = Learned
    monkeypatch.setitem(sys.modules, "lmm.evaluators.learned", learned)
    (tmp_path / "last.ckpt").touch()
    assert load_evaluator(str(tmp_path / "last.ckpt")).checkpoint == str(tmp_path / "last.ckpt")


@pytest.mark.parametrize(("where", "match"), [
    ("nowhere.ckpt", "lmm fit --config evaluator.yaml"), ("nowhere.yaml", "configs/evaluator/"),
    ("finest.tar", r"a .ckpt .*or a .yaml"),
])  # fmt: skip
def test_files_that_are_none(where, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match):
        load_evaluator(where)
