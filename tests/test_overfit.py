"""The whole path learns: eight clips, trained to convergence, come back from their captions token by token."""

import json
from pathlib import Path

import torch

from lmm.data.sources.procedural import generate
from lmm.data.tokens import TokenStore
from lmm.llm import FullFinetune, generation
from lmm.training import load_module

from .toy import lmm, options

CLIPS = 8


def eight_clips(folder: Path) -> dict[str, str]:
    """A data set with eight training clips of one caption each; returns the captions."""
    generate(folder, 24, seed=5)
    ids = (folder / "all.txt").read_text().split()
    captions = {}
    for name in ids:
        file = folder / "texts" / f"{name}.txt"
        line = next(line for line in file.read_text().splitlines() if line.split("#")[0] not in captions.values())
        file.write_text(line + "\n")
        captions[name] = line.split("#")[0]
    for list_ in folder.glob("*.txt"):
        list_.unlink()
    splits = {"train": ids[:CLIPS], "val": ids[CLIPS : CLIPS + 2], "test": ids[CLIPS + 2 : CLIPS + 4]}
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
    return {name: captions[name] for name in splits["train"]}


def test_greedy_generation_gives_back_the_very_tokens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captions = eight_clips(tmp_path / "clips")
    overlay = ["--config", "data/humanml3d.yaml", "--data.source.folder=clips", "--data.batch_size=8"]
    quiet = {"trainer.enable_progress_bar": False, "trainer.val_check_interval": 400, "trainer.limit_val_batches": 1}
    lmm(monkeypatch, "fit", "--config", "tokenizer_vq.yaml", *overlay, *options(quiet, {
        "trainer.max_steps": 150, "data.window": 40, "model.encoder.width": 32, "model.decoder.width": 32,
        "model.latent_dim": 32, "model.quantizer.codebook_size": 64}))  # fmt: skip
    tokenizer = "runs/tokenizer_vq/checkpoints/last.ckpt"
    lmm(monkeypatch, "fit", "--config", "llm_full.yaml", *overlay, *options(quiet, {
        "trainer.max_steps": 300, "data.tokens": "runs/tokens", "model.tokenizer": tokenizer,
        "model.backbone.hidden_size": 128, "model.backbone.num_layers": 2, "model.backbone.vocab_size": 400,
        "model.backbone.steps": 5, "model.optimization.lr": 2e-3}))  # fmt: skip

    store = TokenStore(Path("runs/tokens"))
    written = {name: store.tokens(i) for i, name in enumerate(store.ids)}
    assert len({tuple(written[name].flatten().tolist()) for name in captions}) == CLIPS  # eight different motions
    model = load_module("runs/llm_full/checkpoints/last.ckpt", FullFinetune)
    grids = generation.generate(
        model.llm,
        model.vocabulary,
        prompts=[model.prompts.prompt(caption) for caption in captions.values()],
        min_steps=[1] * CLIPS,
        max_steps=[60] * CLIPS,
        seeds=[0] * CLIPS,
        temperature=0.0,
    )
    for name, grid in zip(captions, grids, strict=True):
        assert torch.equal(grid, written[name]), captions[name]
    lines = [json.loads(line) for line in Path("runs/llm_full/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train/token_accuracy"] == 1.0
