"""Any causal language model of Hugging Face: each family, small and with random weights, in each way of tuning."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from lmm.llm.base import MotionLanguageModel
from lmm.llm.frozen import FrozenFinetune
from lmm.llm.full import FullFinetune
from lmm.llm.lora import LoRAFinetune
from lmm.training import load_module
from tests.llm.conftest import GPT2, IDS, TINY, make_tokenizer
from tests.llm.test_finetune import FAST, fit, same

SMALL = TINY | IDS
HEADS = SMALL | {"head_dim": 16}
CONFIGS = {
    "gpt2": GPT2Config(**GPT2, **IDS),
    "llama2": LlamaConfig(**SMALL | {"num_key_value_heads": 4}),
    "llama3": LlamaConfig(
        **SMALL,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    ),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**HEADS, tie_word_embeddings=True),
    "gemma": GemmaConfig(**HEADS),
    "gemma3": Gemma3TextConfig(**HEADS, query_pre_attn_scalar=16),
    "phi": PhiConfig(**SMALL),  # its head has a bias
}
KINDS = {
    "full": (FullFinetune, {}),
    "scratch": (FullFinetune, {"pretrained": False}),
    "lora": (LoRAFinetune, {"rank": 4}),
    "nf4": (LoRAFinetune, {"rank": 4, "dtype": "nf4", "compute_dtype": "float32"}),
    "int8": (LoRAFinetune, {"rank": 4, "dtype": "int8", "compute_dtype": "float32"}),
    "frozen": (FrozenFinetune, {}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    made = {}
    for family, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp("families") / family
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        made[family] = str(folder)
    return made


CASES = [(kind, family) for kind in ("full", "lora", "nf4") for family in CONFIGS]
CASES += [("scratch", "qwen3"), ("int8", "gpt2"), ("int8", "phi"), ("frozen", "gemma"), ("frozen", "phi")]


@pytest.mark.parametrize("kind, family", CASES)
def test_family(folders, tokenizer_file, family, kind, tmp_path):
    """It learns, old rows stay (unless all trains), and what is saved generates the same."""
    cls, options = KINDS[kind]
    model = cls(tokenizer_file, folders[family], optimization=FAST, **options)
    model.configure_model()
    before = {name: p.detach().clone() for name, p in model.llm.named_parameters()}
    plain = AutoModelForCausalLM.from_pretrained(folders[family]).get_input_embeddings().weight
    assert torch.equal(model.llm.llm.get_input_embeddings().weight, plain) == (kind != "scratch")
    trainer = fit(model, 2)
    moved = {name for name, p in model.llm.named_parameters() if not torch.equal(p, before[name])}
    tables = {name for name in before if name.endswith(".motion")}
    assert tables <= moved and len(tables) == 2 - CONFIGS[family].tie_word_embeddings
    if kind in ("full", "scratch"):
        assert moved == set(before)
    else:
        assert moved == tables | {name for name in before if "lora_" in name}
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_module(tmp_path / "a.ckpt", MotionLanguageModel)
    expected = model.generate(["hops"], seconds=0.6)[0][0]
    assert same(loaded.generate(["hops"], seconds=0.6)[0][0], expected)
    loaded.prepare_for_generation()
    if kind != "int8":  # its products round activations too, which plain weights do not
        assert same(loaded.generate(["hops"], seconds=0.6)[0][0], expected)
