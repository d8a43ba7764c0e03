"""The small form: nothing of the base in it, the same model out of it, and nothing but that model."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lmm.llm.adapter import load_adapter, load_language_model, read_motion_tokenizer, save_adapter
from lmm.llm.export import export
from lmm.llm.lora import LoRAFinetune
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import load_module
from tests.llm.conftest import make_llm, make_tokenizer
from tests.llm.test_finetune import fit, make_model, same

IDS = torch.tensor([[1, 40, 41, 320, 325, 330, 321], [1, 50, 51, 52, 320, 333, 322]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().llm(IDS, torch.ones_like(IDS, dtype=torch.bool))


@pytest.fixture(scope="module")
def trained(backbones, tokenizer_file, tmp_path_factory):
    """A LoRA model on an untied base, its checkpoint and its adapter folder."""
    folder = tmp_path_factory.mktemp("adapter")
    model = make_model("lora", tokenizer_file, backbones["llama"])
    fit(model, 2).save_checkpoint(folder / "a.ckpt")
    save_adapter(model, folder / "small")
    return model, folder / "a.ckpt", folder / "small"


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """The folder, free to be damaged."""
    for file in trained[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("backbone", ["gpt2", "llama", "llama-tied"])
def test_comes_back_the_same_and_holds_what_trained_alone(backbones, tokenizer_file, backbone, tmp_path):
    model = make_model("lora", tokenizer_file, backbones[backbone])
    fit(model, 2)
    save_adapter(model, tmp_path / "small")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    content = (tmp_path / "small" / "adapter.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    assert len(content) - header == 4 * sum(p.numel() for p in trained.values())
    with safe_open(tmp_path / "small" / "adapter.safetensors", "pt") as file:
        assert set(file.keys()) == set(trained)
        assert sum(name.endswith(".motion") for name in file.keys()) == (2 if backbone == "llama" else 1)
    loaded = load_adapter(tmp_path / "small")
    assert type(loaded) is LoRAFinetune and not loaded.training
    assert torch.equal(logits(loaded), logits(model))
    for name, value in model.motion_tokenizer.state_dict().items():
        assert torch.equal(loaded.motion_tokenizer.state_dict()[name], value)
    assert same(loaded.generate(["hops"], seconds=1.0)[0][0], model.generate(["hops"], seconds=1.0)[0][0])


def test_no_pickle_and_no_weight_of_the_base(trained):
    files = {file.name: file.read_bytes() for file in trained[2].iterdir()}
    assert set(files) == {"adapter.safetensors", "motion_tokenizer.safetensors", "lmm.json"}
    for name, content in files.items():
        start = 0 if name.endswith(".json") else 8
        assert content[start : start + 1] == b"{"  # JSON, or safetensors' header; a zip or pickle begins otherwise
    assert trained[2].stat().st_mode & 0o777 == 0o755


def test_the_checkpoint_gives_the_same_files_without_the_base(trained, tmp_path, capsys):
    _, checkpoint, small = trained
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["backbone"] = "nowhere"
    torch.save(content, tmp_path / "moved.ckpt")
    export(str(tmp_path / "moved.ckpt"), str(tmp_path / "small"), adapter=True)
    assert str(tmp_path / "small") in capsys.readouterr().out
    for file in ("adapter.safetensors", "motion_tokenizer.safetensors"):
        assert (tmp_path / "small" / file).read_bytes() == (small / file).read_bytes()
    model = load_adapter(tmp_path / "small", content["vocabulary"]["backbone"])
    assert torch.equal(logits(model), logits(trained[0]))


def test_what_is_loaded_trains_on_and_is_saved_again(trained, tmp_path):
    model = load_language_model(trained[2], dropout=0.0)
    assert model.adapters["lora_dropout"] == 0.0
    before = logits(model)
    fit(model, 1).save_checkpoint(tmp_path / "b.ckpt")
    assert not torch.equal(logits(model), before)
    save_adapter(model, tmp_path / "again")
    for other in (load_language_model(tmp_path / "b.ckpt"), load_language_model(tmp_path / "again")):
        assert torch.equal(logits(other), logits(model)) and other.adapters["lora_dropout"] == 0.0
    assert load_language_model(trained[1]).adapters["lora_dropout"] == 0.1


def test_motion_tokenizer_alone(trained, tokenizer_file):
    mine, arguments = read_motion_tokenizer(trained[2])
    assert mine.token_spec == load_module(tokenizer_file, MotionTokenizer).token_spec
    assert arguments["_class_path"] == "lmm.tokenizers.rvq.RVQTokenizer"
    assert not mine.training and not any(p.requires_grad for p in mine.parameters())


def test_another_base_is_refused(trained, backbones, tmp_path):
    with pytest.raises(ValueError, match=r"base_weights.*set `backbone` to it"):
        load_adapter(trained[2], backbones["gpt2"])
    make_llm("llama").save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["walks"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"text_tokenizer.*set `backbone` to it"):
        load_adapter(trained[2], str(tmp_path))
    with pytest.raises(ValueError, match="no language model at 'nowhere'"):
        load_adapter(trained[2], "nowhere")


@pytest.mark.parametrize("name", ["adapter.safetensors", "motion_tokenizer.safetensors"])
def test_damaged_tensors_are_refused(copy, name):
    content = (copy / name).read_bytes()
    for damaged in (content[:-7], content[:20], b"", content[:-1] + bytes([content[-1] ^ 1])):
        (copy / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name} is not the file that was written.*copy the folder again"):
            load_adapter(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load_adapter(copy)


def test_damaged_records_are_refused(copy):
    text = (copy / "lmm.json").read_text()
    changes = {
        "damaged": text[:-30],
        "lacks vocabulary": json.dumps({"lmm_format": 1, "motion_tokenizer": {}, "sha256": {}}),
        "newer version": text.replace('"lmm_format": 1', '"lmm_format": 99'),
        "none of lmm's": text.replace("lmm.llm.lora.LoRAFinetune", "stranger.Model"),
        "which this version of lmm does not have": text.replace("lmm.llm.lora.LoRAFinetune", "lmm.llm.lora.Missing"),
        "but a MotionLanguageModel is needed": text.replace(
            "lmm.llm.lora.LoRAFinetune", "lmm.tokenizers.rvq.RVQTokenizer"
        ),
        "another tokenizer": text.replace('"downsample": 4', '"downsample": 8'),
    }
    for message, changed in changes.items():
        (copy / "lmm.json").write_text(changed)
        with pytest.raises(ValueError, match=message):
            load_adapter(copy)
    (copy / "lmm.json").unlink()
    with pytest.raises(ValueError, match=r"neither lmm.json nor motion.json.*or a checkpoint.*lmm consolidate"):
        load_language_model(copy)


def test_what_cannot_be_small_is_refused(trained, backbones, tokenizer_file, tmp_path):
    full = make_model("full", tokenizer_file, backbones["gpt2"])
    full.configure_model()
    with pytest.raises(ValueError, match="all weights of this model were trained"):
        save_adapter(full, tmp_path / "full")
    merged = load_module(trained[1], LoRAFinetune)
    merged.merge()
    with pytest.raises(ValueError, match="merged"):
        save_adapter(merged, tmp_path / "merged")
    with pytest.raises(ValueError, match="already there"):
        save_adapter(trained[0], trained[2])
    for options in ({"dtype": "float32"}, {"backbone": "x"}, {"motiongpt_names": True}):
        with pytest.raises(ValueError, match="--adapter"):
            export(str(trained[1]), str(tmp_path / "small"), adapter=True, **options)
    with pytest.raises(ValueError, match="copy an adapter as it is"):
        export(str(trained[2]), str(tmp_path / "small"), adapter=True)
    assert not list(tmp_path.iterdir())  # nothing half-written
