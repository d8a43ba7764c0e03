"""QLoRA: what is kept in 4 or 8 bits, that it trains like the weights it stands for, and that merging is exact."""

import bitsandbytes as bnb
import pytest
import torch

from lmm.llm.lora import LoRAFinetune
from lmm.training import load_module
from tests.llm.conftest import checkpoint_of, make_batch
from tests.llm.test_finetune import FAST, fit

LAYER = "model.layers.1.mlp.down_proj"  # 192 -> 64


def make_model(tokenizer: str, backbone: str, dtype: str = "nf4", compute_dtype="float32", **options) -> LoRAFinetune:
    model = LoRAFinetune(tokenizer, backbone, optimization=FAST, rank=4, dropout=0.0, dtype=dtype,
                         compute_dtype=compute_dtype, **options)  # fmt: skip
    model.configure_model()
    return model


def logits_of(model: LoRAFinetune) -> torch.Tensor:
    ids = torch.arange(20).view(2, 10)
    return model.llm(ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("dtype, bytes_a_weight", [("nf4", 0.5), ("int8", 1.0)])
def test_layers_are_quantized_and_the_rest_is_not(backbones, tokenizer_file, dtype, bytes_a_weight):
    model = make_model(tokenizer_file, backbones["llama"], dtype, None)
    kept = {id(p): p for p in model.llm.parameters() if not p.dtype.is_floating_point}
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)  # q o, k v, MLP of two layers
    assert sum(p.numel() * p.element_size() for p in kept.values()) == weights * bytes_a_weight
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    for end in (model.llm.llm.get_input_embeddings(), model.llm.llm.get_output_embeddings()):
        assert end.base.weight.dtype == torch.bfloat16  # of computing, where nothing else is said
    if dtype == "nf4":
        state = model.llm.llm.get_submodule(LAYER).get_base_layer().weight.quant_state
        assert state.quant_type == "nf4" and state.nested and state.dtype == torch.bfloat16


def test_the_error_of_nf4_is_that_of_four_bits(backbones, tokenizer_file):
    """Blocks of 64 weights with 16 levels: about a tenth of the weights' own deviation (Dettmers et al. 2023)."""
    model = make_model(tokenizer_file, backbones["llama"])
    true = make_model(tokenizer_file, backbones["llama"], "float32", None).llm.llm.get_submodule(LAYER)
    true = true.get_base_layer().weight
    model.merge()
    error = model.llm.llm.get_submodule(LAYER).weight - true
    assert 0.05 < float(error.std() / true.std()) < 0.13


@pytest.mark.parametrize("dtype", ["nf4", "int8"])
def test_merging_keeps_the_function(backbones, tokenizer_file, dtype):
    model = make_model(tokenizer_file, backbones["llama"], dtype, target_modules=["down_proj", "q_proj"])
    fit(model, 3)
    model.eval()
    adapter = model.llm.llm.get_submodule(LAYER)
    with torch.no_grad():
        before = logits_of(model)
        delta = adapter.lora_B.default.weight @ adapter.lora_A.default.weight * (32.0 / 4)
        base = adapter.get_base_layer()
        weight = base(torch.eye(192)).T + delta  # what the quantized layer computes, column by column
        assert float(delta.abs().max()) > 1e-3
        model.merge()
        tolerance = 1e-5 if dtype == "nf4" else 2e-2  # LLM.int8() rounds activations too
        assert torch.allclose(model.llm.llm.get_submodule(LAYER).weight, weight, atol=tolerance)
        assert torch.allclose(logits_of(model), before, atol=tolerance)
    assert not any(isinstance(m, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for m in model.modules())
    with pytest.raises(ValueError, match="merged"):
        model.on_save_checkpoint({})


def test_training_goes_on_after_an_evaluation(backbones, tokenizer_file):
    """bitsandbytes would repack 4-bit weights for CPUs in evaluation, and have no gradient from then on."""
    model, gradients = make_model(tokenizer_file, backbones["llama"]).train(), []
    for _ in range(2):
        model.zero_grad()
        logits_of(model).logsumexp(-1).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.eval()
        with torch.no_grad():
            logits_of(model)
        model.train()
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert sum(float(g.abs().sum()) > 0 for g in gradients[0]) == 14 + 1  # every B (A waits for it), rows of the head


@pytest.mark.parametrize("dtype", ["nf4", "int8"])
def test_resuming_repeats_the_uninterrupted_run(backbones, tokenizer_file, dtype, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    saver = ModelCheckpoint(tmp_path, filename="two", every_n_train_steps=2)
    straight = make_model(tokenizer_file, backbones["llama"], dtype, gradient_checkpointing=True)
    fit(straight, 3, callbacks=[saver])
    resumed = make_model(tokenizer_file, backbones["llama"], dtype, gradient_checkpointing=True)
    fit(resumed, 3, ckpt_path=tmp_path / "two.ckpt")
    trained = {name: p for name, p in straight.named_parameters() if p.requires_grad}
    assert set(checkpoint_of(tmp_path / "two.ckpt")["state_dict"]) == set(trained)
    for name, value in trained.items():
        assert torch.equal(resumed.get_parameter(name), value), name


def test_its_adapters_fit_the_plain_base_too(backbones, tokenizer_file, tmp_path):
    """Where a merge should not carry the rounding of 4 bits: the same checkpoint on unquantized weights."""
    model = make_model(tokenizer_file, backbones["llama"])
    fit(model, 2).save_checkpoint(tmp_path / "a.ckpt")
    saved = checkpoint_of(tmp_path / "a.ckpt")
    assert saved["hyper_parameters"]["dtype"] == "nf4" and saved["hyper_parameters"]["compute_dtype"] == "float32"
    four, plain = (load_module(tmp_path / "a.ckpt", LoRAFinetune, **options) for options in (
        {}, {"dtype": "float32", "compute_dtype": None}))  # fmt: skip
    with torch.no_grad():
        assert torch.equal(logits_of(four), logits_of(model.eval()))
        difference = (logits_of(plain) - logits_of(four)).abs().max()
    assert 1e-5 < float(difference) < 0.1
    with pytest.raises(ValueError, match="base_weights"):
        load_module(tmp_path / "a.ckpt", LoRAFinetune, backbone=backbones["gpt2"])


def test_bfloat16_products(backbones, tokenizer_file):
    model = make_model(tokenizer_file, backbones["gpt2"], compute_dtype="bfloat16")
    assert fit(model, 2, [make_batch()] * 2).global_step == 2
    assert all(torch.isfinite(p).all() for p in model.parameters() if p.requires_grad)


def test_a_later_config_cannot_unquantize_unseen(backbones, tokenizer_file):
    with pytest.raises(ValueError, match=r"--model\.dtype=nf4"):
        LoRAFinetune(tokenizer_file, backbones["llama"], dtype="bfloat16", compute_dtype="bfloat16")
