import pytest
import torch

from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate
from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import VOCABULARY, make_llm, make_spec


def make_model(kind: str = "llama", slots: int = 2) -> tuple[MotionLLM, MotionVocabulary]:
    vocabulary = MotionVocabulary(VOCABULARY, make_spec(slots))
    return MotionLLM(make_llm(kind), vocabulary.num_new), vocabulary


def make_prompts(num: int, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 12, (num,), generator=draw).tolist()
    return [torch.cat([torch.randint(3, 300, (n,), generator=draw), torch.tensor([VOCABULARY])]) for n in lengths]


def sample(model, prompts, low, high, seeds=None, **options):
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return generate(
        *model, prompts=prompts, min_steps=[low] * len(prompts), max_steps=[high] * len(prompts), seeds=seeds, **options
    )


@pytest.mark.parametrize("slots", [1, 5, 6])
def test_every_sample_is_legal_at_any_temperature(slots):
    model = make_model(slots=slots)
    for temperature in (1.0, 50.0):
        motions = sample(model, make_prompts(300), 1, 6, temperature=temperature)
        for tokens in motions:
            assert tokens.shape[1] == slots and 1 <= len(tokens) <= 6
            assert torch.equal(model[1].ids_to_tokens(model[1].tokens_to_ids(tokens)), tokens)
        if temperature > 1:
            assert len({len(tokens) for tokens in motions}) > 1  # some chose to stop
            assert len(torch.cat(motions).unique()) == 12  # and every code is reachable


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen-tied"])
def test_a_batch_gives_what_each_prompt_gives_alone(kind):
    model, prompts = make_model(kind), make_prompts(5)
    for options in ({"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.5, "top_k": 6, "top_p": 0.9}):
        together = sample(model, prompts, 2, 8, **options)
        for i, prompt in enumerate(prompts):
            alone = sample(model, [prompt], 2, 8, seeds=[i], **options)[0]
            assert torch.equal(together[i], alone)


def test_greedy_is_the_argmax_without_a_cache():
    llm, vocabulary = make_model()
    prompt = make_prompts(1)[0]
    tokens = sample((llm, vocabulary), [prompt], 4, 4, temperature=0.0)[0]
    ids = prompt
    for code in tokens.flatten():
        logits = llm(ids[None], None)[0, vocabulary.base_size + 2 :]
        assert int(logits.argmax()) == int(code)
        ids = torch.cat([ids, code[None] + vocabulary.base_size + 2])


def test_seeds_and_exact_lengths():
    model, prompts = make_model(), make_prompts(6)
    exact = generate(*model, prompts=prompts, min_steps=[1, 2, 3, 4, 5, 6], max_steps=[1, 2, 3, 4, 5, 6], seeds=[7] * 6)
    assert [len(tokens) for tokens in exact] == [1, 2, 3, 4, 5, 6]
    one, same, other = (sample(model, prompts[:1] * 1, 8, 8, seeds=[s])[0] for s in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_top_k_and_top_p_keep_the_likeliest():
    model, prompts = make_model(slots=1), make_prompts(1)
    greedy = sample(model, prompts, 5, 5, temperature=0.0)[0]
    assert torch.equal(sample(model, prompts, 5, 5, top_k=1)[0], greedy)
    assert torch.equal(sample(model, prompts, 5, 5, top_p=1e-6)[0], greedy)


def test_what_cannot_be_is_refused():
    model, prompts = make_model("gpt2"), make_prompts(1)
    with pytest.raises(ValueError, match=r"takes 256.*fewer seconds"):
        sample(model, prompts, 1, 200)
    with pytest.raises(ValueError, match="bounds 3 and 2"):
        sample(model, prompts, 3, 2)
    with pytest.raises(ValueError, match="bounds 0 and 2"):
        sample(model, prompts, 0, 2)
    with pytest.raises(ValueError, match="<mot>"):
        sample(model, [prompts[0][:-1]], 1, 2)
    with pytest.raises(ValueError, match="temperature"):
        sample(model, prompts, 1, 2, temperature=-1.0)
