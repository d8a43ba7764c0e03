import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmm.batch import TokenSpec
from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate, generate_text, stream
from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import VOCABULARY, make_llm, make_spec


def make_model(kind: str = "llama", slots: int = 2, **options) -> tuple[MotionLLM, MotionVocabulary]:
    vocabulary = MotionVocabulary(VOCABULARY, make_spec(slots), **options)
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


def by_hand(model, prompt, steps, temperature=0.0, seed=0, slots=None, guide=None):
    """One motion of ``steps`` steps, the whole prefix read anew at each id, logits of the whole vocabulary."""
    llm, vocabulary = model
    slots = range(vocabulary.spec.codes_per_step) if slots is None else slots
    uniform = torch.rand(steps * len(slots), generator=torch.Generator().manual_seed(seed))
    answer: list[int] = []
    codes = []
    for i in range(steps * len(slots)):
        ids = torch.tensor(answer, dtype=torch.int64)
        logits = llm(torch.cat([prompt, ids])[None], None)[0]
        if guide is not None:
            scale, unguided = guide
            without = llm(torch.cat([unguided, ids])[None], None)[0]
            logits = without + scale * (logits - without)
        first, stop = vocabulary.slot_range(slots[i % len(slots)])
        logits = logits[first:stop].double()
        if temperature == 0:
            code = int(logits.argmax())
        else:
            below = (logits / temperature).softmax(0).cumsum(0) <= uniform[i]
            code = int(below.sum())
        codes.append(code)
        answer.append(first + code)
    return torch.tensor(codes).view(steps, len(slots))


@torch.no_grad()
@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize("slots", [None, (1, 2), (3, 0)])
def test_any_slots_of_any_vocabulary_against_the_whole_prefix(per_slot, slots):
    model, prompt = make_model(slots=4, per_slot=per_slot), make_prompts(1)[0]
    for temperature in (0.0, 1.0):
        tokens = sample(model, [prompt], 4, 4, seeds=[5], temperature=temperature, slots=slots)[0]
        assert torch.equal(tokens, by_hand(model, prompt, 4, temperature, 5, slots))


@torch.no_grad()
def test_guidance_leans_away_from_the_prompt_without_text():
    model, prompts = make_model("gpt2"), make_prompts(3)
    unguided = [prompt[-2:] for prompt in prompts]
    plain = sample(model, prompts, 5, 5)
    for scale in (0.0, 2.5, 40.0):
        guided = sample(model, prompts, 5, 5, guidance=scale, unguided=unguided)
        for i, (prompt, without) in enumerate(zip(prompts, unguided, strict=True)):
            assert torch.equal(guided[i], by_hand(model, prompt, 5, 1.0, i, guide=(scale, without)))
    assert any(not torch.equal(a, b) for a, b in zip(plain, guided, strict=True))


def test_guidance_of_one_runs_no_second_prompt():
    (llm, vocabulary), prompts = make_model(), make_prompts(3)
    sizes = []
    llm.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    plain = sample((llm, vocabulary), prompts, 2, 2)
    one = sample((llm, vocabulary), prompts, 2, 2, guidance=1.0, unguided=prompts)
    assert set(sizes) == {3} and all(map(torch.equal, plain, one))
    sample((llm, vocabulary), prompts, 2, 2, guidance=1.5, unguided=prompts)
    assert sizes[-1] == 6
    with pytest.raises(ValueError, match=r"guidance 2 needs `unguided`"):
        sample((llm, vocabulary), prompts, 2, 2, guidance=2.0)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_ended_motions_leave_the_batch_and_change_nothing_for_the_rest(guidance):
    (llm, vocabulary), prompts = make_model(), make_prompts(12)
    steps = [1, 9, 3, 9, 2, 1, 5, 9, 4, 4, 7, 6]
    options = {"guidance": guidance, "unguided": [prompt[-3:] for prompt in prompts]}
    sizes = []
    llm.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    low = [1 if i % 3 == 0 else count for i, count in enumerate(steps)]  # some may stop earlier, if they like
    bounds = {"min_steps": low, "max_steps": steps}
    together = generate(llm, vocabulary, prompts=prompts, **bounds, seeds=list(range(12)), temperature=2.0, **options)
    copies = 1 if guidance == 1 else 2
    running = [sum(len(tokens) > i for tokens in together) for i in range(9)]
    paid = [size // copies for size in sizes]
    # slot 0 of a step is scored for those that may yet choose to end there, slot 1 for those that go on
    assert paid[1::2] == [count for count in running if count] and paid == sorted(paid, reverse=True)
    for i, prompt in enumerate(prompts):
        alone = generate(
            llm, vocabulary, prompts=[prompt], min_steps=[low[i]], max_steps=[steps[i]], seeds=[i], temperature=2.0,
            guidance=guidance, unguided=[options["unguided"][i]],
        )[0]  # fmt: skip
        assert torch.equal(together[i], alone)


def test_a_stream_gives_the_steps_of_generate_one_by_one():
    (llm, vocabulary), prompts = make_model(slots=3), make_prompts(4)
    calls = []
    llm.register_forward_pre_hook(lambda *_: calls.append(1))
    for seed, prompt in enumerate(prompts):
        options = {"temperature": 3.0, "guidance": 1.5}
        whole = sample((llm, vocabulary), [prompt], 1, 8, seeds=[seed], **options, unguided=[prompt[-2:]])[0]
        calls.clear()
        steps = stream(
            llm, vocabulary, prompt=prompt, min_steps=1, max_steps=8, seed=seed, **options, unguided=prompt[-2:]
        )
        assert torch.equal(next(steps), whole[:1]) and len(calls) == 3  # no id ahead of what was asked for
        rest = list(steps)
        assert [tuple(step.shape) for step in rest] == [(1, 3)] * (len(whole) - 1)
        assert not rest or torch.equal(torch.cat(rest), whole[1:])
    with pytest.raises(ValueError, match="bounds 3 and 2"):  # at the call, not at the first step
        stream(llm, vocabulary, prompt=prompts[0], min_steps=3, max_steps=2, seed=0)


@torch.no_grad()
def test_text_is_greedy_text_that_stops_at_its_end():
    llm, vocabulary = make_model()
    prompts = [prompt[:-1] for prompt in make_prompts(5)]
    llm.llm.get_output_embeddings().motion.data.mul_(100)  # a motion id would win every time
    assert llm(prompts[0][None], None).argmax() >= VOCABULARY
    by_hand_ids = []
    for prompt in prompts:
        ids = prompt
        for _ in range(12):
            ids = torch.cat([ids, llm(ids[None], None)[:, :VOCABULARY].argmax(-1)])
        by_hand_ids.append(ids[len(prompt) :].tolist())
    options = {"seeds": [0] * 5, "temperature": 0.0}
    eos = by_hand_ids[2][4]
    answers = generate_text(llm, vocabulary, prompts, max_ids=12, eos=eos, **options)
    for answer, expected in zip(answers, by_hand_ids, strict=True):
        assert answer.tolist() == (expected[: expected.index(eos)] if eos in expected else expected)
    assert len({len(answer) for answer in answers}) > 1


def test_text_draws_from_each_seed_alone():
    (llm, vocabulary), prompts = make_model("gpt2"), [prompt[:-1] for prompt in make_prompts(6)]
    options = {"max_ids": 20, "eos": 7, "temperature": 1.5}
    together = generate_text(llm, vocabulary, prompts, seeds=list(range(6)), **options)
    for seed, prompt in enumerate(prompts):
        assert torch.equal(together[seed], generate_text(llm, vocabulary, [prompt], seeds=[seed], **options)[0])
    assert all(int(ids.max()) < VOCABULARY for ids in together)
    with pytest.raises(ValueError, match="max_ids"):
        generate_text(llm, vocabulary, prompts, seeds=[0] * 6, max_ids=0, eos=7)
    with pytest.raises(ValueError, match="takes 256"):
        generate_text(llm, vocabulary, prompts, seeds=[0] * 6, max_ids=256, eos=7)


def parses(line: list[int], base: int, codes: int, slots: int, per_slot: bool) -> bool:
    """The grammar once more, as an automaton over ids that shares nothing with the package."""
    start, end, first = base, base + 1, base + 2
    if line[0] != start or line[-1] != end or (len(line) - 2) % slots:
        return False
    for place, id in enumerate(line[1:-1]):
        offset = first + (place % slots * codes if per_slot else 0)
        if not offset <= id < offset + codes:
            return False
    return True


SHAPES = [  # codes, levels, parts, per_slot
    (5, 1, 1, False),
    (5, 4, 1, False),
    (3, 1, 6, True),
    (2, 3, 2, True),
    (4, 2, 2, False),  # with two levels that are one code's halves, ids are laid out like any two levels
]


def test_ten_thousand_hot_samples_are_all_legal_and_as_long_as_asked():
    num = 2000
    for seed, (codes, levels, parts, per_slot) in enumerate(SHAPES):
        vocabulary = MotionVocabulary(
            VOCABULARY, TokenSpec(codes, levels, parts, 4, 20.0, "none", "f" * 64), per_slot=per_slot
        )
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, tie_word_embeddings=bool(seed % 2),
        )  # fmt: skip
        llm = MotionLLM(LlamaForCausalLM(config).eval(), vocabulary.num_new)
        draw = torch.Generator().manual_seed(seed)
        fewest = torch.randint(1, 5, (num,), generator=draw)
        most = fewest + torch.randint(0, 4, (num,), generator=draw)
        prompts = make_prompts(40, seed) * (num // 40)
        bounds = {"min_steps": fewest.tolist(), "max_steps": most.tolist()}
        motions = generate(llm, vocabulary, prompts=prompts, **bounds, seeds=list(range(num)), temperature=1000.0)
        seen = set()
        for tokens, low, high in zip(motions, fewest.tolist(), most.tolist(), strict=True):
            line = vocabulary.tokens_to_ids(tokens).tolist()
            assert parses(line, VOCABULARY, codes, levels * parts, per_slot)
            assert low <= len(tokens) <= high and len(line) == 2 + len(tokens) * levels * parts
            seen.update(line)
        assert len(seen) == vocabulary.num_new  # and every id is reachable
        assert any(low < high and len(t) < high for t, low, high in zip(motions, fewest, most, strict=True))


def test_wrong_slots_are_refused():
    model, prompts = make_model(slots=3), make_prompts(1)
    for slots, match in (((), "at least one slot"), ((1, 1), "none twice"), ((3,), "slot 3 is not one")):
        with pytest.raises(ValueError, match=match):
            sample(model, prompts, 1, 2, slots=slots)
    with pytest.raises(ValueError, match="guidance is a scale"):
        sample(model, prompts, 1, 2, guidance=-1.0, unguided=prompts)
