import pytest
import torch
from torch.nn import functional
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lmm.llm.embedding import MotionLLM
from lmm.llm.rows import new_rows
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


def make_family(family: str, attention: str):
    """A split model; windows are shorter than samples, so that the two kinds of mask meet."""
    windows = {"sliding_window": 5}
    others = {
        "mistral": (MistralForCausalLM, MistralConfig, windows),
        "mixtral": (MixtralForCausalLM, MixtralConfig, windows),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
        "opt": (OPTForCausalLM, OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 64}),
        "bloom": (BloomForCausalLM, BloomConfig, {}),
    }
    torch.manual_seed(0)
    if family not in FAMILIES | others:
        llm = make_llm(family)
        llm.set_attn_implementation(attention)
    else:
        model, config, extra = (FAMILIES | others)[family]
        extra = extra | (windows if family in ("gemma2", "gemma3", "cohere2") else {})
        llm = model._from_config(config(**TINY, **IDS, **extra), attn_implementation=attention).eval()
    return MotionLLM(llm, NEW)


def packed_samples():
    """Three samples and the same in two rows, the second with padding: ids, labelled, segments."""
    lengths = (11, 7, 9)
    samples = [torch.randint(3, VOCABULARY + NEW, (length,)) for length in lengths]
    labelled = [torch.rand(length) < 0.8 for length in lengths]
    for each in labelled:
        each[0], each[-1] = False, True
    rows = torch.zeros(3, 2, 18, dtype=torch.int64)
    for row, start, i, number in ((0, 0, 0, 1), (0, 11, 1, 2), (1, 0, 2, 1)):
        here = slice(start, start + lengths[i])
        rows[:, row, here] = torch.stack([samples[i], labelled[i].long(), torch.full_like(samples[i], number)])
    return samples, labelled, (rows[0], rows[1].bool(), rows[2])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "qwen-tied", "qwen3", "mistral", "gemma2", "gemma3", "cohere2", "mixtral"]
)
def test_packed_samples_have_the_losses_and_gradients_they_have_alone(family, attention):
    if family == "gemma2" and attention == "sdpa":
        pytest.skip("it has eager attention only")
    llm = make_family(family, attention)
    parameters = [p for p in llm.parameters() if p.requires_grad]
    samples, labelled, (ids, packed_labelled, segments) = packed_samples()
    alone = []
    for line, wanted in zip(samples, labelled, strict=True):  # the plain way: all logits, no mask, no packing
        logits = llm.forward(line[None], wanted.roll(-1)[None])
        alone.append(functional.cross_entropy(logits, line[wanted], reduction="none"))
    expected = torch.cat(alone)
    packed = llm.nll(ids, packed_labelled, segments=segments)
    assert packed.nll.shape == expected.shape
    assert torch.allclose(packed.nll, expected, atol=1e-5)
    assert torch.allclose(packed.loss, expected.mean(), atol=1e-6)
    wanted = torch.autograd.grad(expected.mean(), parameters, allow_unused=True)
    found = torch.autograd.grad(packed.loss, parameters, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-5 * max(float(b.abs().max()), 0.1))


@pytest.mark.parametrize("family", ["opt", "bloom"])
def test_a_family_that_would_mix_packed_samples_is_refused(family):
    llm = make_family(family, "eager")
    *_, (ids, labelled, segments) = packed_samples()
    assert llm.nll(ids[:1, :11], labelled[:1, :11]).loss.isfinite()  # one sample a row is fine
    with pytest.raises(ValueError, match="see each other"):
        llm.nll(ids, labelled, segments=segments)


def test_nothing_of_one_sample_reaches_another_and_dropout_does_not_hide_it():
    llm = make_family("gpt2", "sdpa").train()
    *_, (ids, labelled, segments) = packed_samples()
    state = torch.random.get_rng_state()
    first = llm.nll(ids, labelled, segments=segments)
    assert llm.training and all(module.training for module in llm.modules())
    other = torch.where(segments == 1, torch.randint(3, VOCABULARY, ids.shape), ids)
    torch.random.set_rng_state(state)  # the check of the first call drew nothing of it
    second = llm.nll(other, labelled, segments=segments)
    in_second = segments[labelled] == 2
    assert torch.equal(first.nll[in_second], second.nll[in_second])
    assert not torch.allclose(first.nll[~in_second], second.nll[~in_second])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "granite", "cohere2"])
def test_nll_is_cross_entropy_of_the_logits(kind):
    llm = make_family(kind, "eager")
    ids = torch.randint(3, VOCABULARY + NEW, (3, 12))
    labelled = torch.rand(3, 12) < 0.6
    labelled[:, 0] = False
    weights, labels = torch.rand(3, 12), torch.randint(3, VOCABULARY + NEW, (3, 12))
    logits = llm.forward(ids, labelled.roll(-1, dims=1))
    for options, wanted in (({}, ids), ({"labels": labels, "weights": weights}, labels)):
        losses = llm.nll(ids, labelled, chunk=4, **options)
        nll = functional.cross_entropy(logits, wanted[labelled], reduction="none")
        shares = weights[labelled] / weights[labelled].sum() if options else 1 / len(nll)
        assert torch.allclose(losses.nll, nll, atol=1e-6)
        assert torch.allclose(losses.loss, (nll * shares).sum(), atol=1e-6)
        assert torch.equal(losses.labels, wanted[labelled])
        assert torch.equal(losses.correct, logits.argmax(-1) == wanted[labelled])


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_motion_rows_compare_motion_with_motion(kind):
    llm = MotionLLM(make_llm(kind), NEW)
    ids = torch.cat([torch.randint(3, VOCABULARY, (2, 4)), torch.randint(VOCABULARY, VOCABULARY + NEW, (2, 8))], 1)
    labelled = ids >= VOCABULARY
    losses = llm.nll(ids, labelled, motion_rows=True)
    logits = llm.forward(ids, labelled.roll(-1, dims=1), rows=[(0, NEW)])
    expected = functional.cross_entropy(logits, ids[labelled] - VOCABULARY)
    assert torch.allclose(losses.loss, expected, atol=1e-6)
    assert torch.equal(losses.labels, ids[labelled])
    losses.loss.backward()
    head = llm.llm.get_output_embeddings()
    assert head.motion.grad.abs().max() > 0
    if kind == "llama":
        assert head.base.weight.grad is None
    labelled[0, 2] = True
    with pytest.raises(ValueError, match="loss on motion alone"):
        llm.nll(ids, labelled, motion_rows=True)


def test_what_nll_cannot_mean_raises():
    llm = MotionLLM(make_llm("llama"), NEW)
    *_, (ids, labelled, segments) = packed_samples()
    places = torch.arange(18).expand(2, -1)
    restarted = torch.tensor([[*range(11), *range(7)], [*range(9), *([0] * 9)]])
    assert torch.equal(
        llm.nll(ids, labelled, segments=segments, positions=restarted).nll,
        llm.nll(ids, labelled, segments=segments).nll,
    )
    with pytest.raises(ValueError, match="count up from 0"):
        llm.nll(ids, labelled, segments=segments, positions=places)
    with pytest.raises(ValueError, match="belong to segments"):
        llm.nll(ids, labelled, positions=restarted)
    with pytest.raises(ValueError, match="nothing to predict"):
        llm.nll(ids, torch.zeros_like(labelled))
    for row, place, message in ((0, 0, "first id"), (0, 11, "first id"), (1, 12, "padding")):
        wrong = labelled.clone()
        wrong[row, place] = True
        with pytest.raises(ValueError, match=message):
            llm.nll(ids, wrong, segments=segments)
