import difflib
import json
import random
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import lmm.llm.tasks as tasks
from lmm.batch import TokenSpec
from lmm.llm.tasks import (
    Continuation,
    DurationConditioned,
    HierarchicalText,
    InBetween,
    MotionToText,
    PartCompletion,
    Task,
    TaskInput,
    TextOnly,
    TextToMotion,
    Unconditional,
)
from lmm.llm.tasks.base import fillable
from lmm.llm.tasks.template import FOLDER, MOTIONS, Piece, fill

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SPEC = TokenSpec(12, 2, 3, 4, 20.0, "none", "f" * 64)  # three parts of two levels, five steps a second
DETAILS = {"body": "a man walks", "upper_body": "he waves.", "lower_body": "he steps.", "left_arm": "it rises."}
ALL = (
    TextToMotion(),
    TextToMotion(templates="text_to_motion_varied"),
    Unconditional(),
    DurationConditioned(),
    HierarchicalText(),
    MotionToText(),
    Continuation(),
    InBetween(),
    PartCompletion(),
    TextOnly(file="lines.txt"),
)


def clip_of(steps: int, caption: str = "a man walks", details: dict | None = DETAILS) -> TaskInput:
    draw = torch.Generator().manual_seed(steps)
    return TaskInput(caption, torch.randint(12, (steps, 6), generator=draw), details)


@pytest.fixture(autouse=True)
def lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("The sky is blue.\n\nWater is wet.\n")


# ------------------------------------------------------------------------------------------ our templates


def own_instructions() -> list[tuple[str, str]]:
    """Every instruction of every packaged list, as it stands in the files, with its list."""
    found = []
    for file in sorted(FOLDER.glob("*.yaml")):
        entries = yaml.safe_load(file.read_text())["templates"]
        found += [(file.stem, entry if isinstance(entry, str) else entry[0]) for entry in entries]
    return found


def test_our_templates_are_many():
    assert sum(bool(text) for _, text in own_instructions()) >= 250


def test_our_templates_are_not_alike():
    """Across all lists: no two are the same but for placeholders, nor nearly so, by words or by letters."""
    own = own_instructions()
    shapes = [re.sub(r"\{\w+\}", "_", text).lower() for _, text in own]
    assert len(set(shapes)) == len(own)
    texts = [shape.replace("_", "") for shape in shapes]
    words = [set(re.findall(r"[a-z]+", text)) for text in texts]
    for a, b in combinations(range(len(own)), 2):
        either = words[a] | words[b]
        if len(either) < 5:
            continue  # a few words cannot vary much
        assert len(words[a] & words[b]) < 0.65 * len(either), (own[a], own[b])
        letters = difflib.SequenceMatcher(None, texts[a], texts[b], autojunk=False)
        if letters.real_quick_ratio() > 0.8 and letters.quick_ratio() > 0.8:
            assert letters.ratio() < 0.8, (own[a], own[b])


def test_our_templates_open_in_many_ways():
    openings = {" ".join(re.findall(r"[A-Za-z]+|\{", text)[:2]).lower() for _, text in own_instructions()}
    assert len(openings) > 150


@pytest.mark.parametrize("task", ALL, ids=lambda task: f"{type(task).__name__}-{task.templates or ''}")
def test_every_template_of_a_task_can_be_filled_and_says_what_it_must(task):
    clip = clip_of(10)
    values = task.example(clip, SPEC, None)
    templates = fillable(task, task.offers(clip))
    assert set(values) == task.offers(clip)
    assert set(templates) == set(task.wordings(task.offers(clip)))
    for template in templates:
        answer = fill(template.answer, values)
        asked = re.findall(r"\{(\w+)\}", template.answer)
        assert len(asked) == 1 and asked[0] not in re.findall(r"\{(\w+)\}", template.instruction)
        assert isinstance(answer[-1], Piece) == (asked[0] in MOTIONS)
        assert "{" not in "".join(part for part in fill(template.instruction, values) if isinstance(part, str))


def test_what_each_task_cannot_do_without():
    short, bare = clip_of(1, details=None), clip_of(10, "", None)
    names = {type(task).__name__ for task in ALL if fillable(task, task.offers(bare))}
    assert names == {"TextToMotion", "Unconditional", "Continuation", "InBetween", "PartCompletion", "TextOnly"}
    names = {type(task).__name__ for task in ALL if fillable(task, task.offers(short))}
    assert names == {
        "TextToMotion", "Unconditional", "DurationConditioned", "MotionToText", "PartCompletion", "TextOnly"
    }  # fmt: skip
    blank = clip_of(10, "", {"body": " "})
    assert not fillable(HierarchicalText(), HierarchicalText().offers(blank))
    assert not fillable(InBetween(), InBetween().offers(clip_of(2)))


# ------------------------------------------------------------------------------------------ what fills them


def test_continuation_cuts_every_motion_in_two():
    task = Continuation(shortest=0.0, longest=0.99)
    for steps in range(2, 30):
        clip, lengths = clip_of(steps), set()
        for seed in range(20):
            values = task.example(clip, SPEC, random.Random(seed))
            first, rest = values["first"].tokens, values["rest"].tokens
            assert torch.equal(torch.cat([first, rest]), clip.tokens)
            assert len(first) and len(rest)
            assert values["steps"] == str(len(rest)) and values["frames"] == str(4 * len(rest))
            assert float(values["seconds"]) == pytest.approx(len(rest) / 5)
            lengths.add(len(first))
        assert len(lengths) > 1 or steps == 2
    half = Continuation(shortest=0.5, longest=0.5).example(clip_of(21), SPEC, random.Random(0))
    assert len(half["first"].tokens) == 11
    with pytest.raises(ValueError, match="shortest"):
        Continuation(shortest=0.5, longest=0.2)


def test_in_between_cuts_every_motion_in_three():
    task = InBetween(shortest=0.0, longest=0.499)
    for steps in range(3, 30):
        clip = clip_of(steps)
        for draw in (None, *(random.Random(seed) for seed in range(20))):
            values = task.example(clip, SPEC, draw)
            pieces = [values[name].tokens for name in ("first", "middle", "last")]
            assert all(len(piece) for piece in pieces)
            assert torch.equal(torch.cat(pieces), clip.tokens)
            assert values["steps"] == str(len(pieces[1]))


def test_part_completion_gives_some_parts_and_asks_for_the_others():
    task, clip = PartCompletion(names=("legs", "trunk", "arms")), clip_of(5)
    seen = set()
    for seed in range(60):
        values = task.example(clip, SPEC, random.Random(seed))
        given, missing = values["given"], values["missing"]
        assert sorted(given.slots + missing.slots) == list(range(6))
        for piece in (given, missing):
            assert torch.equal(piece.tokens, clip.tokens[:, list(piece.slots)])
            assert all(slot + 1 in piece.slots for slot in piece.slots if slot % 2 == 0)  # both levels of a part
        said = values["given_parts"].split(", ")
        assert [("legs", "trunk", "arms")[slot // 2] for slot in given.slots[::2]] == said
        assert set(said) | set(values["parts"].split(", ")) == {"legs", "trunk", "arms"}
        seen.add(given.slots)
    assert len(seen) == 6  # three single parts, three pairs
    asked = task.question(clip._replace(parts=(2, 0)), SPEC)
    assert asked["given"].slots == (0, 1, 4, 5) and asked["missing"].slots == (2, 3)
    assert torch.equal(asked["given"].tokens, clip.tokens[:, [0, 1, 4, 5]]) and asked["parts"] == "trunk"
    for parts in ((), (0, 1, 2), (3,)):
        with pytest.raises(ValueError, match="some of the 3 parts"):
            task.question(clip._replace(parts=parts), SPEC)


def test_part_completion_needs_parts():
    with pytest.raises(ValueError, match="several body parts"):
        PartCompletion().check(TokenSpec(12, 6, 1, 4, 20.0, "none", "f" * 64))
    with pytest.raises(ValueError, match="2 names for the tokenizer's 3"):
        PartCompletion(names=("legs", "arms")).check(SPEC)


def test_hierarchical_texts():
    values = HierarchicalText().example(clip_of(3), SPEC, None)
    assert values["details"] == "a man walks. Upper body: he waves. Lower body: he steps. Left arm: it rises."
    assert values["limbs"] == "Left arm: it rises." and values["upper"] == "he waves."
    partial = HierarchicalText().example(clip_of(3, "he runs", {"lower_body": "fast"}), SPEC, None)
    assert partial["details"] == "he runs. Lower body: fast." and "upper" not in partial


def test_durations_are_said_in_training_as_at_inference():
    said = DurationConditioned().example(clip_of(24), SPEC, None)
    assert (said["seconds"], said["frames"], said["steps"]) == ("4.8", "96", "24")
    for seconds in (4.8, 4.65, 4.7):  # 96, 93 and 94 frames: all of them 24 steps
        asked = DurationConditioned().question(TaskInput("walk", seconds=seconds), SPEC)
        assert (asked["seconds"], asked["frames"], asked["steps"]) == ("4.8", "96", "24")
    with pytest.raises(ValueError, match="less than a frame"):
        DurationConditioned().question(TaskInput("walk", seconds=0.01), SPEC)


def test_text_only_reads_lines():
    task = TextOnly(file="lines.txt")
    drawn = {task.example(TaskInput(), SPEC, random.Random(seed))["line"] for seed in range(20)}
    assert drawn == {"The sky is blue.", "Water is wet."}
    Path("empty.txt").write_text("\n\n")
    for file, message in {"empty.txt": "no line", "missing.txt": "cannot be read"}.items():
        with pytest.raises(ValueError, match=message):
            TextOnly(file=file).example(TaskInput(), SPEC, None)
    with pytest.raises(ValueError, match="never asked"):
        task.question(TaskInput(), SPEC)


# ------------------------------------------------------------------------------------------ templates of one's own


def test_a_file_replaces_our_templates():
    Path("mine.yaml").write_text(
        'answer: "{motion}"\ntemplates:\n - "Do {caption}"\n - ["{caption}!", "Ok: {motion}"]\n'
    )
    templates = TextToMotion(templates="mine.yaml").wordings(frozenset({"caption"}))
    assert templates == (("Do {caption}", "{motion}"), ("{caption}!", "Ok: {motion}"))
    Path("more.yaml").write_text('extends: text_to_motion\ntemplates:\n - ["Do {caption}", "{motion}"]\n')
    more = TextToMotion(templates="more.yaml").wordings(frozenset({"caption"}))
    assert more == (*TextToMotion().wordings(frozenset({"caption"})), ("Do {caption}", "{motion}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('templates: [["{capton}", "{motion}"]]', r"mine.yaml, template 1: unknown placeholder \{capton\}"),
        ('templates: [["{caption}", "{motion}"], ["{caption} }", "{motion}"]]', "template 2: a brace"),
        ('templates: [["{seconds} {caption}", "{motion}"]]', r"\{seconds\} is not given"),
        ('templates: [["Move!", "{motion}"]]', r"lacks \{caption\}"),
        ('templates: [["{caption}", "Here"]]', r"must hold one of \{motion\}"),
        ('templates: [["{caption}", "{motion} Done."]]', "nothing may follow"),
        ('templates: ["{caption}"]', "`answer` serves the former"),
        ("templates: []", "no templates of TextToMotion"),
        ("template: [a]", "list of templates is expected"),
        ("templates: [a]\nanswers: b", "unknown key 'answers'"),
        ("templates: [a", "not readable YAML"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(content, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        TextToMotion(templates=str(file)).wordings(frozenset({"caption"}))


def test_a_list_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"known lists are continuation, .*unconditional_varied"):
        TextToMotion(templates="text_to_motions").wordings(frozenset({"caption"}))


MOTIONGPT = {
    "Text-to-Motion": {
        "caption": {
            "class": "t2m",
            "input": ["Do <Caption_Placeholder>", "Perform <Caption_Placeholder> now"],
            "output": ["<Motion_Placeholder>", "See <Motion_Placeholder>"],
        },
        "caption_seclen": {
            "class": "t2m",
            "input": ["<Caption_Placeholder> in <Second_Placeholder> s"],
            "output": ["<Motion_Placeholder>"],
        },
        "framelen": {"class": "t2m", "input": ["<Frame_Placeholder> frames"], "output": ["<Motion_Placeholder>"]},
    },
    "Motion-to-Text": {
        "m2t": {"class": "m2t", "input": ["Say <Motion_Placeholder>"], "output": ["<Caption_Placeholder>"]}
    },
    "Motion-to-Motion": {
        "pred": {
            "class": "predict",
            "input": ["After <Motion_Placeholder_s1>"],
            "output": ["<Motion_Placeholder_s2>"],
        },
        "inbetween": {
            "class": "inbetween",
            "input": ["Mend <Motion_Placeholder_Masked>"],
            "output": ["<Motion_Placeholder>"],
        },
    },
}


def test_motiongpt_templates_find_their_tasks():
    Path("gpt.json").write_text(json.dumps(MOTIONGPT))
    found = {
        task.__name__: [tuple(t) for t in task(templates="gpt.json").wordings(frozenset({"caption"}))]
        for task in (TextToMotion, DurationConditioned, Unconditional, MotionToText, Continuation, InBetween)
    }
    assert found == {
        "TextToMotion": [
            ("Do {caption}", "{motion}"),
            ("Do {caption}", "See {motion}"),
            ("Perform {caption} now", "{motion}"),
            ("Perform {caption} now", "See {motion}"),
        ],
        "DurationConditioned": [("{caption} in {seconds} s", "{motion}")],
        "Unconditional": [("{frames} frames", "{motion}")],
        "MotionToText": [("Say {motion}", "{caption}")],
        "Continuation": [("After {first}", "{rest}")],
        "InBetween": [("Mend {first} {last}", "{motion}")],
    }
    with pytest.raises(ValueError, match="no templates of PartCompletion"):
        PartCompletion(templates="gpt.json").wordings(frozenset())


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ({"class": "t2m", "input": ["<Speed_Placeholder>"], "output": ["a"]}, "Extra/odd: unknown placeholder <Speed_"),
        ({"class": "t2m", "input": ["<caption_placeholder>"], "output": ["a"]}, "unknown placeholder <caption_"),
        ({"input": ["a"], "output": ["b"]}, 'Extra/odd: an object with "class"'),
        ({"class": "t2m", "input": "a", "output": ["b"]}, "must be lists"),
        (
            {
                "class": "t2m",
                "input": ["<Caption_Placeholder>", "<Caption_Placeholder> <Frame_Placeholder>"],
                "output": ["<Motion_Placeholder>"],
            },
            r"Extra/odd: .*\{frames\} is not given",
        ),
    ],
)
def test_a_motiongpt_file_is_read_strictly(leaf, message, tmp_path):
    file = tmp_path / "gpt.json"
    file.write_text(json.dumps(MOTIONGPT | {"Extra": {"odd": leaf}}))
    with pytest.raises(ValueError, match=message):
        TextToMotion(templates=str(file)).wordings(frozenset({"caption"}))


def test_what_fills_a_template_is_not_filled_again():
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    filled = fill("Do {caption}:  {first}  then {caption}", {"caption": "{first} {x}", "first": Piece(tokens)})
    assert filled[0] == "Do {first} {x}:" and filled[2] == "  then {first} {x}"
    assert filled[1].tokens is tokens


# ------------------------------------------------------------------------------------------ YAML


class Model:
    def __init__(self, tasks: list[Task] | None = None, unconditional: float = 0.0) -> None:
        self.tasks = tasks


def parse(*words: str) -> list[Task]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model.init_args")
    parser.add_argument("--trainer.default_root_dir", type=str)
    parser.add_argument("--config", action="config")
    return parser.instantiate_classes(parser.parse_args([*words])).model.init_args.tasks


@pytest.mark.parametrize("name", ["text_to_motion", "align", "instruct"])
def test_configs_are_read(name):
    file = CONFIGS / "tasks" / f"{name}.yaml"
    text = file.read_text()
    assert text.startswith(f"# lmm fit --config llm_lora.yaml --config tasks/{name}.yaml\n")
    found = parse("--config", str(file))
    assert [f"lmm.llm.tasks.{type(task).__name__}" for task in found] == re.findall(r"- class_path: (\S+)", text)
    for task in found:
        task.check(SPEC)
        assert task.wordings(frozenset({"caption"}))


def test_instruct_has_every_task_that_needs_no_file():
    names = {type(task).__name__ for task in parse("--config", str(CONFIGS / "tasks/instruct.yaml"))}
    assert names == set(tasks.__all__) - {"Task", "TaskInput", "TextOnly"}
    header = (CONFIGS / "tasks/instruct.yaml").read_text()
    option = re.search(r"--model\.tasks\+='(.*)'", header).group(1)
    longer = parse("--config", str(CONFIGS / "tasks/instruct.yaml"), f"--model.init_args.tasks+={option}")
    assert longer[-1] == TextOnly(file="lines.txt", weight=0.5)


@pytest.mark.parametrize(
    "task", [*ALL, PartCompletion(names=("a", "b", "c"), weight=2.0, loss_weight=0.5), Continuation(longest=0.9)]
)
def test_plain_arguments_build_the_same_task(task):
    plain = task.plain()
    assert set(plain) == {"class_path", "init_args"}
    torch.save(plain, "plain.pt")
    again = torch.load("plain.pt", weights_only=True)
    assert parse(f"--model.init_args.tasks={json.dumps([again])}") == [task]


def test_bad_arguments_are_refused():
    for options in ({"weight": 0.0}, {"weight": -1.0}, {"loss_weight": float("inf")}, {"weight": float("nan")}):
        with pytest.raises(ValueError, match="must be positive"):
            Unconditional(**options)
    with pytest.raises(Exception, match="temperature"):
        parse('--model.init_args.tasks=[{"class_path": "TextToMotion", "init_args": {"temperature": 1}}]')
    with pytest.raises(Exception, match="file"):
        parse('--model.init_args.tasks=[{"class_path": "lmm.llm.tasks.TextOnly"}]')
