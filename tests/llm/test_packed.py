import copy

import pytest
import torch
from torch import nn

from lmm.llm import packed
from lmm.llm.decoding import DecodingBatch
from lmm.llm.embedding import MotionLLM
from lmm.llm.packed import PackedLinear, can_pack, pack
from tests.llm.conftest import VOCABULARY, make_llm
from tests.llm.test_generation import make_model, make_prompts, sample

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="torch is built without oneDNN")


def make_packed(kind: str, dtype: torch.dtype = torch.float32) -> tuple[MotionLLM, MotionLLM]:
    """A model as it was and packed."""
    plain = MotionLLM(make_llm(kind).to(dtype), 20).eval()
    other = copy.deepcopy(plain)
    pack(other)
    return plain, other


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-tied", "qwen", "qwen-tied"])
def test_packed_weights_give_the_same_logits(kind):
    plain, other = make_packed(kind)
    kinds = [type(module) for module in other.modules()]
    assert PackedLinear in kinds and kinds.count(nn.Linear) == (kind.endswith("tied") or kind == "gpt2")  # a tied head
    for shape in ((1, 1), (3, 7)):
        ids = torch.randint(0, VOCABULARY + 20, shape)
        for rows in (None, [(1, 20)], [(1, 2), (5, 9)]):
            torch.testing.assert_close(other(ids, None, rows=rows), plain(ids, None, rows=rows), atol=1e-5, rtol=1e-5)


def test_layers_of_one_input_are_one_product():
    _, llama = make_packed("llama")
    layer = llama.llm.model.layers[0]
    for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        parent = layer.self_attn if hasattr(layer.self_attn, names[0]) else layer.mlp
        assert len({id(getattr(parent, name).whole) for name in names}) == 1
    assert layer.self_attn.q_proj.whole.seen is None  # nothing of a pass is kept beyond it
    calls = []
    for module in llama.modules():
        if isinstance(module, PackedLinear):
            module.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        llama(torch.zeros(1, 3, dtype=torch.int64), None, rows=[(1, 20)])
    assert len(calls) == 2 * 4  # qkv, o, gate and up, down; of two layers


@torch.no_grad()
def test_another_input_is_never_answered_with_what_was_seen():
    linears = [nn.Linear(8, 3), nn.Linear(8, 5, bias=False)]
    whole = PackedLinear(linears)
    shares = [packed.Share(whole, index) for index in range(2)]
    a, b = torch.randn(2, 4, 8)
    for x, index in ((a, 0), (b, 0), (a, 1), (b, 1), (b, 1), (a, 0), (a, 1)):
        torch.testing.assert_close(shares[index](x), linears[index](x), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_second_copy_is_made_for_a_single_row_only():
    layer = nn.Linear(8, 3)
    whole = PackedLinear([layer])
    for shape in ((5, 8), (2, 1, 8), (1, 8), (1, 1, 8), (8,), (0, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(whole(x), layer(x), atol=1e-6, rtol=1e-6)
        assert (whole.matrix.for_one_row is None) == (
            shape in ((5, 8), (2, 1, 8)) or not torch.backends.mkl.is_available()
        )


def test_samples_are_those_of_the_plain_model():
    prompts = make_prompts(6)
    for kind in ("gpt2", "llama"):
        llm, vocabulary = make_model(kind)
        before = [sample((llm, vocabulary), prompts, 1, 9, temperature=t) for t in (0.0, 2.0)]
        pack(llm)
        pack(llm)  # twice is once
        after = [sample((llm, vocabulary), prompts, 1, 9, temperature=t) for t in (0.0, 2.0)]
        assert all(torch.equal(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True))


@torch.no_grad()
def test_bfloat16_with_float32_motion_rows():
    if not can_pack(torch.zeros(1, dtype=torch.bfloat16)):
        pytest.skip("no bfloat16 here")
    plain, other = make_packed("llama", torch.bfloat16)
    for model in (plain, other):
        model.llm.get_output_embeddings().motion.data = model.llm.get_output_embeddings().motion.data.float()
    ids = torch.randint(0, VOCABULARY, (3, 7))
    torch.testing.assert_close(other(ids, None, rows=[(1, 20)]), plain(ids, None, rows=[(1, 20)]), atol=0.02, rtol=0.02)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bfloat16_attends_in_float32(kind):
    if not can_pack(torch.zeros(1, dtype=torch.bfloat16)):
        pytest.skip("no bfloat16 here")
    plain, other = make_packed(kind, torch.bfloat16)
    batches = [DecodingBatch(model, make_prompts(5), room=6) for model in (plain.float(), other)]
    for step in range(6):
        exact, ours = (batch.logits([(1, 20)]) for batch in batches)
        torch.testing.assert_close(ours, exact, atol=0.02, rtol=0.02)
        if step == 3:
            for batch in batches:
                batch.keep([4, 0])
            exact = exact[[4, 0]]
        for batch in batches:
            batch.append(exact.argmax(-1) + VOCABULARY + 1)
    assert {layer.keys.dtype for layer in batches[1].cache.layers} == {torch.float32}


def test_packed_weights_say_that_they_cannot_move():
    _, other = make_packed("llama")
    other.to("cpu").eval()
    with pytest.raises(ValueError, match=r"move the model first"):
        other.to(torch.bfloat16)
    assert not any("weight" in name and "proj" in name for name in other.state_dict())


def test_what_cannot_be_packed_stays(monkeypatch):
    class Quantized(nn.Linear):
        """Like those of bitsandbytes: another product under the same name."""

    llm = MotionLLM(make_llm("llama"), 20).eval()
    llm.llm.model.layers[0].mlp.up_proj = Quantized(64, 192, bias=False)
    pack(llm)
    assert type(llm.llm.model.layers[0].mlp.up_proj) is Quantized
    assert type(llm.llm.model.layers[0].mlp.gate_proj) is PackedLinear
    assert not can_pack(torch.zeros(1, dtype=torch.float64)) and not can_pack(torch.zeros(1, device="meta"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    llm = MotionLLM(make_llm("gpt2"), 20).eval()
    before = str(llm)
    pack(llm)
    assert str(llm) == before
