from collections import Counter
from pathlib import Path

import pytest
import torch

from lmm.batch import TokenSpec
from lmm.llm.prompts import TEXT_TO_MOTION, UNCONDITIONAL, Prompts, Sample
from lmm.llm.tasks import (
    Continuation,
    DurationConditioned,
    HierarchicalText,
    InBetween,
    MotionToText,
    PartCompletion,
    TaskInput,
    TextOnly,
    TextToMotion,
    Unconditional,
)
from lmm.llm.vocabulary import MotionVocabulary
from tests.llm.conftest import VOCABULARY, make_spec, make_tokenizer

TOKENS = torch.tensor([[1, 2], [3, 4]])


def make_prompts(**options) -> Prompts:
    return Prompts(make_tokenizer(), MotionVocabulary(VOCABULARY, make_spec(2)), **options)


def text_of(prompts: Prompts, ids: torch.Tensor) -> str:
    return prompts.tokenizer.decode(ids[(ids < VOCABULARY) & (ids > 2)])


def test_a_sample_is_prompt_and_motion():
    prompts = make_prompts()
    ids, labelled, weight, labels = prompts.sample("a man waves", TOKENS, None)
    assert weight == 1.0 and labels is None
    motion = prompts.vocabulary.tokens_to_ids(TOKENS)
    assert ids[0] == prompts.tokenizer.bos_token_id
    assert torch.equal(ids[-len(motion) :], motion)
    assert torch.equal(ids[: -len(motion) + 1], prompts.prompt("a man waves"))
    assert text_of(prompts, ids) == "Generate a motion: a man waves"
    assert not labelled[0] and labelled[1:].all()


def test_loss_on_the_motion_alone_covers_what_generation_draws():
    ids, labelled, *_ = make_prompts(loss_on_text=False).sample("a man waves", TOKENS, None)
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


# ------------------------------------------------------------------------------------------ many tasks

PARTS = TokenSpec(12, 2, 2, 4, 20.0, "none", "f" * 64)  # two parts of two levels, five steps a second
LONG = torch.arange(40).view(10, 4) % 12
MANY = (TextToMotion(), MotionToText(), Unconditional(), Continuation(), InBetween(), PartCompletion())


def make_many(*tasks, per_slot: bool = False, tokenizer=None, **options) -> Prompts:
    vocabulary = MotionVocabulary(VOCABULARY, PARTS, per_slot=per_slot)
    return Prompts(tokenizer or make_tokenizer(), vocabulary, tasks=tasks, **options)


def spelled(prompts: Prompts, ids: torch.Tensor) -> str:
    """Ids as a text where motion is spelled by its steps: <0.1.2.3 4.5.6.7>."""
    out, row, line = "", [], prompts.vocabulary
    for id in ids.tolist():
        if id < VOCABULARY:
            out += {1: "^", 2: "$"}.get(id) or prompts.tokenizer.decode([id])
        elif id == line.start:
            out, row = out + "<", []
        elif id == line.end:
            out += " ".join(map(str, row)) + ">"
        else:
            row.append(id - VOCABULARY - 2)
    return out


def test_an_answer_in_words():
    prompts = make_many(MotionToText())
    ids, labelled, *_ = prompts.sample("a man waves", LONG[:2], None)
    assert spelled(prompts, ids) == "^Describe the motion:<0 1 2 3 4 5 6 7> a man waves$"
    assert spelled(prompts, ids[labelled]) == "Describe the motion: a man waves$"
    ids, labelled, *_ = make_many(MotionToText(), loss_on_text=False).sample("a man waves", LONG[:2], None)
    assert spelled(prompts, ids[labelled]) == " a man waves$"


def test_motion_that_is_given_is_no_label():
    prompts = make_many(Continuation(shortest=0.5, longest=0.5))
    ids, labelled, *_ = prompts.sample("", LONG[:3], None)
    assert spelled(prompts, ids) == "^Continue the motion:<0 1 2 3 4 5 6 7><8 9 10 11>"
    assert spelled(prompts, ids[labelled]) == "Continue the motion:<8 9 10 11>"
    ids, labelled, *_ = make_many(Continuation(), loss_on_text=False).sample("", LONG[:2], None)
    assert spelled(prompts, ids[labelled]) == "4 5 6 7>"


@pytest.mark.parametrize("per_slot", [False, True])
def test_the_slots_of_parts(per_slot):
    prompts = make_many(PartCompletion(names=("legs", "arms")), per_slot=per_slot)
    sample = prompts.sample("", LONG[:2], None)
    given, missing = (
        prompts.vocabulary.tokens_to_ids(LONG[:2, slots], slots=tuple(slots)) for slots in ([0, 1], [2, 3])
    )
    text = prompts.tokenizer("Complete the motion of arms. Given legs:")["input_ids"]
    assert sample.ids.tolist() == [1, *text, *given.tolist(), *missing.tolist()]


def test_a_text_by_itself(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("The sky is blue.\n")
    prompts = make_many(TextOnly(file=str(file), loss_weight=0.25), loss_on_text=False)
    ids, labelled, weight, _ = prompts.sample("a man waves", LONG, "0")
    assert spelled(prompts, ids) == "^The sky is blue.$" and spelled(prompts, ids[labelled]) == "The sky is blue.$"
    assert weight == 0.25


def test_text_tokenizers_without_bos_or_eos():
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    prompts = make_many(MotionToText(), tokenizer=tokenizer)
    ids, labelled, *_ = prompts.sample("hop", LONG[:1], None)
    assert spelled(prompts, ids) == "Describe the motion:<0 1 2 3> hop$"
    assert not labelled[0] and labelled[1]
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end of sequence"):
        prompts.sample("hop", LONG[:1], None)


def test_tasks_are_drawn_by_weight_and_from_the_key_alone():
    tasks = (TextToMotion(weight=6.0), MotionToText(weight=3.0), Unconditional(weight=1.0))
    prompts = make_many(*tasks)

    def kind(sample: Sample) -> str:
        if sample.ids[-1] == 2:
            return "words"
        return "text" if "hop" in spelled(prompts, sample.ids) else "nothing"

    samples = [prompts.sample("hop", LONG, f"0/{i}") for i in range(1000)]
    share = Counter(map(kind, samples))
    assert abs(share["text"] - 600) < 60 and abs(share["words"] - 300) < 60 and abs(share["nothing"] - 100) < 40
    again = make_many(*tasks)
    for i in range(50, 0, -1):  # in any order
        assert torch.equal(again.sample("hop", LONG, f"0/{i}").ids, samples[i].ids)
    assert any(not torch.equal(prompts.sample("hop", LONG, f"1/{i}").ids, samples[i].ids) for i in range(20))


def test_cuts_and_parts_are_drawn_from_the_key_alone():
    for task in MANY[3:]:
        first, second = ([make_many(task).sample("hop", LONG, f"{i}").ids.tolist() for i in range(40)] for _ in "ab")
        assert first == second and len({tuple(ids) for ids in first}) > 20


def test_a_clip_without_caption_or_details_serves_the_tasks_that_need_none():
    prompts = make_many(HierarchicalText(), MotionToText(), Unconditional(), DurationConditioned())
    plain = [prompts.sample("", LONG, f"{i}") for i in range(60)]
    words = {t.instruction.split("{")[0] for t in Unconditional().wordings(frozenset())}
    assert all(spelled(prompts, ids)[1:].startswith(tuple(words)) for ids, *_ in plain)
    detailed = make_many(HierarchicalText(), TextToMotion())
    details = {"upper_body": "the arms swing"}
    assert "arms swing" in spelled(prompts, detailed.sample("hop", LONG, None, details=details).ids)
    assert spelled(prompts, detailed.sample("hop", LONG, None).ids).startswith("^Generate a motion: hop<")
    for details in (None, {}):
        with pytest.raises(ValueError, match=r"serves no task: HierarchicalText lacks \{details\}.*MotionToText lacks"):
            make_many(HierarchicalText(), MotionToText()).sample("", LONG, "0", details=details)


def test_without_a_key_the_first_task_that_is_able():
    prompts = make_many(MotionToText(), Continuation(), TextToMotion())
    assert spelled(prompts, prompts.sample("hop", LONG[:1], None).ids) == "^Describe the motion:<0 1 2 3> hop$"
    assert spelled(prompts, prompts.sample("", LONG[:2], None).ids) == "^Continue the motion:<0 1 2 3><4 5 6 7>"


def test_guidance_takes_captions_from_text_to_motion_alone():
    prompts = make_many(TextToMotion(), MotionToText(), unconditional=1.0)
    texts = [spelled(prompts, prompts.sample("hop", LONG[:1], f"{i}").ids) for i in range(40)]
    assert {t[1:].split("<")[0] for t in texts if "hop" not in t} == set(UNCONDITIONAL)
    assert any("hop$" in t for t in texts)
    with pytest.raises(ValueError, match="TextToMotion, which is not among"):
        make_many(MotionToText(), unconditional=0.1)


def test_prompts_refuses_what_it_cannot_train():
    with pytest.raises(ValueError, match="several body parts"):
        make_prompts(tasks=(PartCompletion(),))
    with pytest.raises(ValueError, match="at least one"):
        make_prompts(tasks=())
    with pytest.raises(ValueError, match="no templates at"):
        make_prompts(tasks=(MotionToText(templates="missing.yaml"),))
    for name in ("drop_tokens", "replace_tokens"):
        with pytest.raises(ValueError, match=name):
            make_prompts(**{name: 1.0})


# ------------------------------------------------------------------------------------------ disturbed tokens


@pytest.mark.parametrize("per_slot", [False, True])
def test_replaced_codes_are_read_and_true_ones_predicted(per_slot):
    plain = make_many(TextToMotion(), per_slot=per_slot)
    prompts = make_many(TextToMotion(), per_slot=per_slot, replace_tokens=0.3)
    long = torch.randint(12, (200, 4), generator=torch.Generator().manual_seed(0))
    true, read = plain.sample("hop", long, "0"), prompts.sample("hop", long, "0")
    assert torch.equal(read.labels, true.ids) and torch.equal(read.labelled, true.labelled)
    assert torch.equal(read.ids, prompts.sample("hop", long, "0").ids)
    start = len(true.ids) - 802
    assert torch.equal(read.ids[: start + 1], true.ids[: start + 1]) and read.ids[-1] == true.ids[-1]
    tokens = prompts.vocabulary.ids_to_tokens(read.ids[start:])  # every code is one of its slot
    assert abs(float((tokens != long).float().mean()) - 0.3 * 11 / 12) < 0.06
    assert len(tokens[tokens != long].unique()) == 12
    assert prompts.sample("hop", long, None).labels is None


def test_dropped_steps_are_gaps_that_no_label_follows():
    prompts = make_many(TextToMotion(), drop_tokens=0.4)
    steps = torch.arange(12)[:, None].expand(12, 4)  # each step's number, four times
    whole = lost_end = 0
    for i in range(100):
        ids, labelled, _, labels = prompts.sample("hop", steps, f"{i}")
        assert labels is None
        motion = int((ids == prompts.vocabulary.start).nonzero())
        tokens = prompts.vocabulary.ids_to_tokens(ids[motion:])
        kept, marks = tokens[:, 0].tolist(), labelled[motion + 1 :]
        assert kept[0] == 0 and kept == sorted(set(kept)) and (tokens == tokens[:, :1]).all()
        after = [b == a + 1 for a, b in zip([-1, *kept], [*kept, 12], strict=True)]
        assert marks[:-1].view(-1, 4)[:, 0].tolist() == after[:-1] and bool(marks[-1]) == after[-1]
        assert marks[:-1].view(-1, 4)[:, 1:].all()
        whole, lost_end = whole + len(kept), lost_end + (kept[-1] != 11)
    assert abs(whole / 100 - (1 + 11 * 0.6)) < 0.6 and lost_end > 20


def test_steps_stay_where_their_number_is_said_or_parts_keep_step():
    for task in (DurationConditioned(), PartCompletion()):
        whole, disturbed = make_many(task), make_many(task, drop_tokens=0.9)
        for i in range(20):
            assert torch.equal(whole.sample("hop", LONG, f"{i}").ids, disturbed.sample("hop", LONG, f"{i}").ids)


# ------------------------------------------------------------------------------------------ inference


def test_what_is_asked_is_how_the_sample_of_inference_begins():
    """For each task: the question continued by the answer is the training sample without draws."""
    details = {"body": "hop", "lower_body": "knees bend"}
    for task in (*MANY, DurationConditioned(), HierarchicalText()):
        prompts = make_many(task)
        ids, labelled, *_ = prompts.sample("hop", LONG, None, details=details)
        values = task.example(TaskInput("hop", LONG, details), PARTS, None)
        known = {
            Continuation: lambda v: {"tokens": v["first"].tokens, "seconds": float(v["seconds"])},
            InBetween: lambda v: {"tokens": v["first"].tokens, "last": v["last"].tokens},
            PartCompletion: lambda v: {"tokens": LONG, "parts": (0,)},
            MotionToText: lambda v: {"tokens": LONG},
            DurationConditioned: lambda v: {"seconds": 2.0},
        }.get(type(task), lambda v: {})(values)
        asked, slots = prompts.ask(task, TaskInput("hop", details=details, **known))
        assert torch.equal(asked, ids[: len(asked)]), type(task)
        assert labelled[len(asked) :].all() and len(asked) < len(ids)
        assert (asked[-1] == prompts.vocabulary.start) == (not isinstance(task, MotionToText))
        assert slots == ((2, 3) if isinstance(task, PartCompletion) else None)


def test_an_answer_may_begin_in_words(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text('templates: [["Show {caption}", "Look: {motion}"]]')
    prompts = make_many(TextToMotion(templates=str(file)))
    ids = prompts.sample("hop", LONG[:1], None).ids
    assert spelled(prompts, ids) == "^Show hop Look:<0 1 2 3>"
    assert torch.equal(prompts.prompt("hop"), ids[:-5])


def test_asking_for_what_is_not_known_is_refused():
    prompts = make_many(TextToMotion())
    for task, clip, lacks in (
        (TextToMotion(templates="text_to_motion_varied"), TaskInput("hop"), None),
        (MotionToText(), TaskInput("hop"), r"\{motion\}"),
        (Continuation(), TaskInput("hop"), r"\{first\}"),
        (InBetween(), TaskInput("hop", LONG), r"\{last\}"),
        (DurationConditioned(), TaskInput("hop"), r"\{seconds\}"),
        (DurationConditioned(), TaskInput("", seconds=2.0), r"\{caption\}"),
        (HierarchicalText(), TaskInput("hop"), r"\{details\}"),
        (PartCompletion(), TaskInput("hop"), r"\{parts\}|\{given\}"),
    ):
        if lacks is None:
            prompts.ask(task, clip)
            continue
        with pytest.raises(ValueError, match=f"{type(task).__name__} lacks.*({lacks})"):
            prompts.ask(task, clip)


def test_seconds_are_said_to_models_that_have_learned_them():
    told = make_many(TextToMotion(), DurationConditioned())
    assert spelled(told, told.prompt("hop", seconds=4.8)) == "^Generate a motion of 4.8 seconds: hop<"
    assert spelled(told, told.prompt("hop")) == "^Generate a motion: hop<"
    assert spelled(told, told.prompt("", seconds=4.8)) == "^Generate a motion.<"
    assert spelled(told, make_many(TextToMotion()).prompt("hop", seconds=4.8)) == "^Generate a motion: hop<"


def test_given_motion_cannot_be_spelled_either():
    prompts = make_many(*MANY)
    for i in range(60):
        ids = prompts.sample("</s><mot><motion_id_3></mot> {first} {caption} <s>", LONG, f"{i}").ids
        text = ids[ids < VOCABULARY]
        assert (text[1:-1] > 2).all()
