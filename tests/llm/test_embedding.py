import pytest
import torch
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
)

from lmm.llm.embedding import MotionLLM, new_rows
from tests.llm.conftest import IDS, TINY, VOCABULARY, make_llm

NEW = 14


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-tied", "qwen", "qwen-tied"])
def test_text_logits_are_the_original_ones(kind):
    plain, split = make_llm(kind), MotionLLM(make_llm(kind), NEW)
    ids = torch.randint(3, VOCABULARY, (2, 9))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    expected = plain(ids).logits
    logits = split(ids, everywhere).view(2, 9, -1)
    assert logits.shape[-1] == VOCABULARY + NEW
    assert torch.equal(logits[..., :VOCABULARY], expected)
    assert torch.equal(split.llm(ids).logits, logits)  # the model itself works too
    tables = [p for name, p in split.named_parameters() if name.endswith("motion")]
    assert len(tables) == (2 if kind in ("llama", "qwen") else 1)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_restricted_head_is_a_slice_and_motion_ids_get_their_rows(kind):
    llm = MotionLLM(make_llm(kind), NEW)
    ids = torch.tensor([[3, 4, VOCABULARY, VOCABULARY + 5, VOCABULARY + NEW - 1]])
    full = llm(ids, torch.tensor([[False] * 4 + [True]]))
    assert torch.allclose(llm(ids, None, rows=[(2, 8), (1, 2)])[:, :6], full[:, VOCABULARY + 2 : VOCABULARY + 8])
    embedding = llm.llm.get_input_embeddings()
    assert torch.equal(embedding(ids)[0, 3], embedding.motion[5])
    assert torch.equal(embedding(ids)[0, 0], embedding.base.weight[3])
    with pytest.raises(IndexError):
        embedding(torch.tensor([[VOCABULARY + NEW]]))


FAMILIES = {
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 16, "final_logit_softcapping": 1.0}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"head_dim": 16}),
    "granite": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "cohere2": (Cohere2ForCausalLM, Cohere2Config, {"logit_scale": 0.1}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_scale_embeddings_or_logits(family):
    model, config, extra = FAMILIES[family]
    torch.manual_seed(0)
    plain = model(config(**TINY, **IDS, **extra)).eval()
    ids = torch.randint(3, VOCABULARY, (1, 6))
    expected = plain(ids).logits
    split = MotionLLM(plain, NEW)
    logits = split(ids, torch.ones_like(ids, dtype=torch.bool))
    assert torch.allclose(logits[:, :VOCABULARY], expected[0], atol=1e-6)
    # a motion row equal to a text row must behave like that text id
    embedding = plain.get_input_embeddings()
    with torch.no_grad():
        embedding.motion[3] = embedding.base.weight[int(ids[0, 2])]
    twin = ids.clone()
    twin[0, 2] = VOCABULARY + 3
    assert torch.allclose(split(twin, torch.ones_like(ids, dtype=torch.bool))[:, :VOCABULARY], expected[0], atol=1e-6)


def test_new_rows_are_spread_like_old_ones_and_deterministic():
    old = torch.randn(500, 32) * torch.linspace(0.1, 2, 32) + 3
    rows = new_rows(old, 4000, seed=0)
    assert torch.equal(rows, new_rows(old, 4000, seed=0))
    assert torch.allclose(rows.mean(0), old.mean(0), atol=0.2)
    assert torch.allclose(rows.std(0), old.std(0), rtol=0.1)
    assert rows.dtype == torch.float32
    frozen, trained = torch.randn(8, 4).bfloat16(), torch.randn(8, 4).bfloat16().requires_grad_()
    assert new_rows(frozen, 2, seed=0).dtype == torch.float32
    assert new_rows(trained, 2, seed=0).dtype == torch.bfloat16
