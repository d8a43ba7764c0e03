import pytest
import torch

from lmm.batch import TokenSpec
from lmm.llm.embedding import MotionLLM
from lmm.llm.rows import CodeStructured, Mean, NewRows, NoisyMean, new_rows
from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import make_llm, make_spec

ALL = (NoisyMean(), Mean(), CodeStructured())


def bits_vocabulary(num_bits: int = 6, slots: int = 1, order: str = "lsb", **options) -> MotionVocabulary:
    return MotionVocabulary(100, TokenSpec(2**num_bits, slots, 1, 4, 20.0, order, "f" * 64), **options)


def old_table(width: int = 32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(500, width, generator=draw) * torch.linspace(0.1, 2, width) + 3


@pytest.mark.parametrize("rows", ALL, ids=lambda rows: type(rows).__name__)
@pytest.mark.parametrize("per_slot", [False, True])
def test_rows_fit_the_vocabulary_repeat_and_follow_the_base_in_dtype(rows, per_slot):
    vocabulary = bits_vocabulary(4, slots=3, per_slot=per_slot)
    frozen, trained = old_table().bfloat16(), old_table().bfloat16().requires_grad_()
    assert isinstance(rows, NewRows)
    first = rows(frozen, vocabulary, seed=0)
    torch.manual_seed(99)  # the global state has no say
    assert torch.equal(first, rows(frozen, vocabulary, seed=0))
    assert first.shape == (vocabulary.num_new, 32) and first.requires_grad
    assert first.dtype == torch.float32
    assert rows(trained, vocabulary, seed=0).dtype == torch.bfloat16
    if not isinstance(rows, Mean):
        assert not torch.equal(first, rows(frozen, vocabulary, seed=1))


def test_noisy_mean_is_the_draw_that_checkpoints_were_made_with():
    old = old_table()
    noise = torch.randn(14, 32, generator=torch.Generator().manual_seed(7))
    expected = old.mean(0) + noise * old.std(0)
    assert torch.equal(NoisyMean()(old, MotionVocabulary(100, make_spec()), seed=7), expected)
    assert torch.equal(new_rows(old, 14, seed=7), expected)


def test_mean_is_the_mean():
    old = old_table()
    rows = Mean()(old, bits_vocabulary(), seed=0)
    assert torch.allclose(rows, old.mean(0).expand_as(rows))


@pytest.mark.parametrize("order", ["lsb", "msb"])
@pytest.mark.parametrize("per_slot", [False, True])
def test_structured_rows_have_the_old_mean_and_variance(order, per_slot):
    old = old_table(width=4096)
    vocabulary = bits_vocabulary(6, slots=4, order=order, per_slot=per_slot)
    codes = CodeStructured()(old, vocabulary, seed=0).detach()[2:]
    assert codes.shape[0] == 64 * (4 if per_slot else 1)
    standard = (codes - old.mean(0)) / old.std(0)
    assert standard.square().mean() == pytest.approx(1, abs=0.05)
    assert standard.mean() == pytest.approx(0, abs=0.05)


def test_distance_of_structured_rows_is_the_number_of_bits_that_differ():
    old = old_table(width=20_000)
    codes = CodeStructured()(old, bits_vocabulary(6), seed=0).detach()[2:]
    standard = (codes - old.mean(0)) / old.std(0)
    for a, b in ((0, 1), (5, 7), (0, 63), (21, 42), (3, 60)):
        squared = (standard[a] - standard[b]).square().mean()
        assert squared == pytest.approx(4 * (a ^ b).bit_count() / 6, rel=0.05)


def test_bit_orders_give_the_same_channels_the_same_directions():
    old, width = old_table(), 6
    lsb, msb = (CodeStructured()(old, bits_vocabulary(width, order=order), seed=0)[2:] for order in ("lsb", "msb"))
    turned = [int(f"{code:06b}"[::-1], 2) for code in range(64)]
    assert torch.allclose(lsb, msb[turned], atol=1e-6)
    # the first channel is the least significant bit of one and the most significant of the other
    assert torch.allclose(lsb[1] - lsb[0], msb[32] - msb[0], atol=1e-5)


def test_slots_shift_all_codes_together():
    codes = CodeStructured()(old_table(), bits_vocabulary(3, slots=2, per_slot=True), seed=0)[2:].view(2, 8, 32)
    shift = codes[1] - codes[0]
    assert torch.allclose(shift, shift[:1].expand_as(shift), atol=1e-5)
    assert shift[0].abs().max() > 0.1


@pytest.mark.parametrize("codes, order", [(12, "none"), (64, "none"), (12, "lsb")])
def test_structure_needs_bits(codes, order):
    vocabulary = MotionVocabulary(100, TokenSpec(codes, 1, 1, 4, 20.0, order, "f" * 64))
    with pytest.raises(ValueError, match="NoisyMean"):
        CodeStructured()(old_table(), vocabulary, seed=0)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_a_language_model_begins_with_them(kind):
    from functools import partial

    vocabulary = bits_vocabulary(4)
    llm = MotionLLM(make_llm(kind), vocabulary.num_new, draw=partial(CodeStructured(), vocabulary=vocabulary))
    embedding, head = llm.llm.get_input_embeddings(), llm.llm.get_output_embeddings()
    assert torch.equal(embedding.motion, CodeStructured()(embedding.base.weight, vocabulary, seed=0))
    if kind == "llama":
        assert torch.equal(head.motion, CodeStructured()(head.base.weight, vocabulary, seed=1))
    else:
        assert head.motion is embedding.motion
    with pytest.raises(ValueError, match="99 rows of 64"):
        MotionLLM(make_llm(kind), 99, draw=partial(Mean(), vocabulary=vocabulary))
