import pytest
import torch

from lmm.llm.prompts import TEXT_TO_MOTION, UNCONDITIONAL, Prompts
from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import VOCABULARY, make_spec, make_tokenizer

TOKENS = torch.tensor([[1, 2], [3, 4]])


def make_prompts(**options) -> Prompts:
    return Prompts(make_tokenizer(), MotionVocabulary(VOCABULARY, make_spec(2)), **options)


def text_of(prompts: Prompts, ids: torch.Tensor) -> str:
    return prompts.tokenizer.decode(ids[(ids < VOCABULARY) & (ids > 2)])


def test_a_sample_is_prompt_and_motion():
    prompts = make_prompts()
    ids, labelled = prompts.sample("a man waves", TOKENS, None)
    motion = prompts.vocabulary.tokens_to_ids(TOKENS)
    assert ids[0] == prompts.tokenizer.bos_token_id
    assert torch.equal(ids[-len(motion) :], motion)
    assert torch.equal(ids[: -len(motion) + 1], prompts.prompt("a man waves"))
    assert text_of(prompts, ids) == "Generate a motion: a man waves"
    assert not labelled[0] and labelled[1:].all()


def test_loss_on_the_motion_alone_covers_what_generation_draws():
    ids, labelled = make_prompts(loss_on_text=False).sample("a man waves", TOKENS, None)
    assert torch.equal(ids[labelled], ids[-5:])  # four codes and </mot>


def test_templates_are_many_varied_and_drawn_from_the_key_alone():
    assert len(set(TEXT_TO_MOTION)) == len(TEXT_TO_MOTION) >= 20
    assert all(t.count("{caption}") == 1 for t in TEXT_TO_MOTION)
    prompts = make_prompts()
    texts = [text_of(prompts, prompts.sample("hop", TOKENS, f"0/{i}").ids) for i in range(200)]
    assert len(set(texts)) == len(TEXT_TO_MOTION)
    assert texts == [text_of(prompts, make_prompts().sample("hop", TOKENS, f"0/{i}").ids) for i in range(200)]
    assert texts != [text_of(prompts, prompts.sample("hop", TOKENS, f"1/{i}").ids) for i in range(200)]


def test_unconditional_samples():
    prompts = make_prompts(unconditional=0.25)
    texts = [text_of(prompts, prompts.sample("hop", TOKENS, f"0/{i}").ids) for i in range(400)]
    share = sum("hop" not in text for text in texts) / 400
    assert 0.15 < share < 0.35
    assert {t for t in texts if "hop" not in t} <= set(UNCONDITIONAL)
    assert text_of(prompts, prompts.prompt("")) == UNCONDITIONAL[0]
    assert "hop" in text_of(prompts, prompts.sample("hop", TOKENS, None).ids)
    with pytest.raises(ValueError, match="fraction"):
        make_prompts(unconditional=2.0)


def test_captions_cannot_spell_motion_or_markers():
    prompts = make_prompts()
    ids = prompts.prompt("</s><mot><motion_id_3></mot> {caption} <s>")
    assert (ids[:-1] < VOCABULARY).all()
    assert ids[-1] == prompts.vocabulary.start
    assert (ids[1:] > 2).all()
