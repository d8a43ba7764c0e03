"""Tiny language models and a tiny motion tokenizer (K = 2, 4 frames a step), all with random weights."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lmm.batch import TokenBatch, TokenSpec
from lmm.training import build_module

VOCABULARY = 320
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 192}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def make_llm(kind: str) -> PreTrainedModel:
    """gpt2 (tied), llama (untied), llama-tied, qwen (untied), qwen-tied."""
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**GPT2, **IDS)).eval()
    family, _, tied = kind.partition("-")
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen": (Qwen2Config, Qwen2ForCausalLM)}[family]
    return model(config(**TINY, **IDS, tie_word_embeddings=bool(tied))).eval()


def make_spec(slots: int = 1, codes: int = 12) -> TokenSpec:
    return TokenSpec(codes, slots, 1, 4, 20.0, "none", "f" * 64)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One id for each byte; three special tokens."""
    special = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def backbones(tmp_path_factory) -> dict[str, str]:
    """Folders of tiny pretrained models by kind."""
    folders = {}
    for kind in ("gpt2", "llama", "llama-tied"):
        folder = tmp_path_factory.mktemp("backbones") / kind
        make_llm(kind).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        folders[kind] = str(folder)
    return folders


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> str:
    """Checkpoint of a motion tokenizer with K = 2 residual levels of 12 codes."""
    networks = "lmm.tokenizers.networks.conv1d.Conv1d"
    small = {"width": 16, "depth": 1}
    arguments = {
        "_class_path": "lmm.tokenizers.rvq.RVQTokenizer",
        "representation": {"class_path": "lmm.motion.representations.positions.JointPositions"},
        "encoder": {"class_path": f"{networks}Encoder", "init_args": small},
        "decoder": {"class_path": f"{networks}Decoder", "init_args": small},
        "quantizer": {
            "class_path": "lmm.tokenizers.quantizers.ResidualQuantizer",
            "init_args": {"num_levels": 2, "codebook_size": 12},
        },
        "latent_dim": 8,
    }
    torch.manual_seed(0)
    module = build_module(arguments)
    module.representation.set_statistics(torch.zeros(66), torch.full((66,), 0.1))
    for name, buffer in module.quantizer.named_buffers():
        if name.endswith("codes"):
            buffer.normal_()
    file = tmp_path_factory.mktemp("tokenizer") / "last.ckpt"
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": arguments | {"_instantiator": "lightning.pytorch.cli.instantiate_module"},
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(content, file)
    return str(file)


def make_batch(num: int = 4, slots: int = 2, steps: tuple[int, int] = (3, 6), seed: int = 0) -> TokenBatch:
    """Random tokens of different lengths."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(steps[0], steps[1] + 1, (num,), generator=draw)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.randint(0, 12, (*mask.shape, slots), generator=draw).masked_fill(~mask[..., None], -1)
    texts = [f"{'abcdefgh'[i % 8] * 8} {i}" for i in range(num)]
    return TokenBatch(tokens, mask, [f"clip{i}" for i in range(num)], texts)


def checkpoint_of(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
