"""Every YAML in configs/ is read by `lmm fit` and trains, at toy size."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from lmm.command_line import config_names
from lmm.llm.backbone import EmbeddedBackbone
from lmm.motion.motion import Motion
from lmm.motion.representations import KITFeatures, MotionRepresentation, MotionStreamer272
from lmm.motion.rotations import axis_angle_to_matrix

from .toy import DATA, SMALL_1D, SMALL_2D, SMALL_LLM, TRAINER, fit_tokenizer, lmm, options

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TINY_LLAMA = dict(hidden_size=64, intermediate_size=192, num_hidden_layers=1, num_attention_heads=2)
BACKBONES = {
    "gpt2": (GPT2Config, dict(n_embd=64, n_layer=1, n_head=2, n_positions=512)),
    "llama": (LlamaConfig, TINY_LLAMA),
    "qwen2.5": (Qwen2Config, TINY_LLAMA | dict(num_key_value_heads=1)),
    "qwen3": (Qwen3Config, TINY_LLAMA | dict(num_key_value_heads=1, head_dim=32)),
    "gemma_": (GemmaConfig, TINY_LLAMA | dict(num_key_value_heads=1, head_dim=32)),
    "gemma3": (Gemma3TextConfig, TINY_LLAMA | dict(num_key_value_heads=1, head_dim=32, query_pre_attn_scalar=32)),
    "phi": (PhiConfig, TINY_LLAMA),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, patch = tmp_path_factory.mktemp("configs"), pytest.MonkeyPatch()
    patch.chdir(folder)
    fit_tokenizer(patch, "lfq2d")
    EmbeddedBackbone("runs/backbone", hidden_size=64, num_layers=2, vocab_size=400, steps=2).build()
    yield folder
    patch.undo()


SMALL_EVALUATOR = {"model.motion_encoder.width": 8, "model.text_encoder.width": 8, "model.latent_dim": 8}


def size_of(base: str) -> list[str]:
    """Options that make a shipped config tiny."""
    if base.startswith("evaluator"):
        return options(TRAINER, DATA, SMALL_EVALUATOR)
    small = SMALL_LLM if base.startswith("llm") else SMALL_2D if "lfq2d" in base else SMALL_1D
    if base.startswith("tokenizer_lfq2d"):
        small = small | {"model.latent_dim": 6, "model.quantizer.codebook_size": 64}
    return options(TRAINER, DATA, small)


def layout_folder(name: str, motions: str, lists: str, representation: MotionRepresentation) -> str:
    """A tiny data set in a layout of its own: features of a body at rest that is rocked a little."""
    folder, noise = Path("runs/data") / name, torch.Generator().manual_seed(0)
    body = representation.skeleton
    for sub in (motions, lists, "texts"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for clip in range(12):
        angles = (
            torch.randn(1, body.num_joints, 3, generator=noise) * torch.sin(torch.arange(100) / 8)[:, None, None] / 5
        )
        rotations, root = axis_angle_to_matrix(angles), torch.tensor([0.0, 0.9, 0.0]).expand(100, 3)
        motion = Motion(body.forward_kinematics(rotations, root), representation.fps, body, rotations)
        np.save(folder / motions / f"{clip}.npy", representation.encode(motion).numpy())
        (folder / "texts" / f"{clip}.txt").write_text("a person rocks#a/DET#0.0#0.0\n")
    for split, ids in {"train": range(8), "val": range(8, 10), "test": range(10, 12)}.items():
        (folder / lists / f"{split}.txt").write_text("".join(f"{clip}\n" for clip in ids))
    return str(folder)


MEMBERS = ["--data.source.members.some.source.num_clips=48", "--data.source.members.few.source.num_clips=24"]
FOLDERS = {
    "data/kit.yaml": lambda: layout_folder("kit", "new_joint_vecs", ".", KITFeatures()),
    "data/motionstreamer.yaml": lambda: layout_folder("272", "motion_data", "split", MotionStreamer272()),
}


def test_the_list_is_complete():
    assert set(config_names()) == {str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml")}
    for name in config_names():
        text = (CONFIGS / name).read_text()
        command = "# lmm evaluate " if name.startswith("evaluator/") else "# lmm fit --config "
        assert text.startswith(command), f"{name} opens with its command"


@pytest.mark.parametrize("name", [n for n in config_names() if "/" not in n])
def test_main_configs(place, name, monkeypatch):
    lmm(monkeypatch, "fit", "--config", name, *size_of(name), "--trainer.default_root_dir=runs/main")
    assert torch.load("runs/main/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def sentence_encoder(folder: str) -> str:
    """A random encoder of Hugging Face's kind, with the text tokenizer of the embedded language model."""
    torch.manual_seed(0)
    tiny = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    BertModel(BertConfig(vocab_size=400, pad_token_id=0, **tiny)).save_pretrained(folder)
    for file in Path("runs/backbone").glob("tokenizer*"):
        (Path(folder) / file.name).write_bytes(file.read_bytes())
    return folder


OVERLAYS = ("size/", "ablations/", "representation/", "tasks/", "evaluator_parts/")


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith(OVERLAYS)])
def test_overlays(place, name, monkeypatch):
    base = (CONFIGS / name).read_text().split()[4]  # "# lmm fit --config BASE --config NAME"
    more = [f"--model.text_encoder.source={sentence_encoder('runs/bert')}"] if "sentence" in name else []
    lmm(monkeypatch, "fit", "--config", base, "--config", name, *size_of(base), *more,
        "--trainer.default_root_dir=runs/over")  # fmt: skip
    assert torch.load("runs/over/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith("data/")])
def test_data_overlays(place, name, monkeypatch, capsys):
    """For both stages, where the second may follow: it is run by the very command that the first prints."""
    folder, base = FOLDERS.get(name, lambda: "runs/data/demo")(), (CONFIGS / name).read_text().split()[4]
    small = [o for o in size_of(base) if "num_clips" not in o]
    mixed = name == "data/mixture.yaml"
    source = MEMBERS if mixed else [f"--data.source.folder={folder}"]
    lmm(monkeypatch, "fit", "--config", base, "--config", name, *source,
        *small, "--trainer.default_root_dir=runs/overlay")  # fmt: skip
    assert torch.load("runs/overlay/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    if name in FOLDERS:
        return
    printed = next(line for line in capsys.readouterr().out.splitlines() if "lmm fit --config llm_lora.yaml" in line)
    small = [o for o in size_of("llm_lora.yaml") if "num_clips" not in o]
    lmm(monkeypatch, *shlex.split(printed)[1:], *small, "--trainer.default_root_dir=runs/overlay_llm")
    config = Path("runs/overlay_llm/config.yaml").read_text()
    assert "folder: runs/data/demo" in config and ("Procedural" in config) == mixed
    assert f"uniform_skeleton: {'false' if 'humanml3d' in name else 'true'}" in config


@pytest.mark.parametrize("name", ["data/folder.yaml", "data/kit.yaml", "data/mixture.yaml"])
def test_evaluators_take_the_same_data(place, name, monkeypatch):
    folder = FOLDERS.get(name, lambda: "runs/data/demo")()
    source = MEMBERS if "mixture" in name else [f"--data.source.folder={folder}"]
    small = [o for o in size_of("evaluator.yaml") if "num_clips" not in o]
    lmm(monkeypatch, "fit", "--config", "evaluator.yaml", "--config", name, *source, *small,
        "--trainer.default_root_dir=runs/eval")  # fmt: skip
    assert torch.load("runs/eval/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith("backbone/")])
def test_backbones(place, name, monkeypatch):
    """The real weights are not at hand: a random model of the same family stands in for them."""
    folder = Path("runs") / Path(name).stem
    config, sizes = BACKBONES[next(family for family in BACKBONES if family in name)]
    text_tokenizer = Path("runs/backbone")
    torch.manual_seed(0)
    config = config(vocab_size=400, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in text_tokenizer.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    lmm(monkeypatch, "fit", "--config", "llm_lora.yaml", "--config", name, f"--model.backbone={folder}",
        *options(TRAINER, DATA), "--trainer.default_root_dir=runs/other_backbone")  # fmt: skip
    kept = torch.load("runs/other_backbone/checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 4 and not any("base_layer" in key for key in kept["state_dict"])


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith("strategy/")])
def test_strategies(place, name):
    """Two gloo processes, launched as a user would."""
    if name == "strategy/fsdp.yaml" and torch.cuda.device_count() < 2:
        pytest.skip("FSDP1 runs on GPUs alone")
    base = (CONFIGS / name).read_text().split()[4]
    # the tokenizer whose ranks must agree most: EMA, resets, and how many levels to drop
    more = ["--model.quantizer.dropout=0.9"] if base == "tokenizer_rvq.yaml" else []
    folder = f"--trainer.default_root_dir=runs/{Path(name).stem}"
    words = ["fit", "--config", base, "--config", name, "--trainer.accelerator=cpu", folder, *more, *size_of(base)]
    done = subprocess.run(
        [sys.executable, "-m", "lmm", *words], capture_output=True, text=True, env={**os.environ, "LMM_TRACEBACK": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert torch.load(f"runs/{Path(name).stem}/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
