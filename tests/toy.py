"""Run `lmm` in this process as a user would, at a size that takes a second."""

import sys
from pathlib import Path

import pytest

CLIPS = 48
TRAINER = {"trainer.max_steps": 4, "trainer.val_check_interval": 2, "trainer.enable_progress_bar": False,
           "trainer.enable_model_summary": False}  # fmt: skip
DATA = {"data.source.num_clips": CLIPS, "data.batch_size": 4}
SMALL_1D = {"model.encoder.width": 8, "model.decoder.width": 8, "model.latent_dim": 8}
SMALL_2D = {"model.encoder.width": 8, "model.decoder.width": 8}
SMALL_LLM = {"model.backbone.hidden_size": 64, "model.backbone.num_layers": 2, "model.backbone.vocab_size": 400,
             "model.backbone.steps": 2}  # fmt: skip
TOKENIZERS = {"vq": SMALL_1D, "rvq": SMALL_1D, "lfq2d": SMALL_2D}


def options(*settings: dict) -> list[str]:
    merged = {k: v for setting in settings for k, v in setting.items()}
    return [f"--{key}={value}" for key, value in merged.items()]


def lmm(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run one command; errors come as they are, not as an exit code."""
    from lmm.__main__ import main

    monkeypatch.setattr(sys, "argv", ["lmm", *map(str, words)])
    monkeypatch.setenv("LMM_TRACEBACK", "1")
    main()


def fit_tokenizer(monkeypatch: pytest.MonkeyPatch, kind: str, **more: object) -> Path:
    """Train a tokenizer below the current folder; returns its checkpoint."""
    lmm(monkeypatch, "fit", "--config", f"tokenizer_{kind}.yaml", *options(TRAINER, DATA, TOKENIZERS[kind], more))
    return Path(str(more.get("trainer.default_root_dir", f"runs/tokenizer_{kind}"))) / "checkpoints/last.ckpt"


def fit_llm(monkeypatch: pytest.MonkeyPatch, kind: str, **more: object) -> Path:
    """Train a language model on the tokens of the tokenizer at its default place."""
    lmm(monkeypatch, "fit", "--config", f"llm_{kind}.yaml", *options(TRAINER, DATA, SMALL_LLM, more))
    return Path(str(more.get("trainer.default_root_dir", f"runs/llm_{kind}"))) / "checkpoints/last.ckpt"
