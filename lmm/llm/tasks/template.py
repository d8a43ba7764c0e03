"""Templates: how a task is worded, as pairs of an instruction and its answer with placeholders in braces.

Ours are YAML files in ``lmm/llm/tasks/templates``; a file of one's own replaces them::

    extends: text_to_motion                  # optional: a packaged list whose templates come before these
    answer: "{motion}"                       # answer of every template that is no pair
    templates:
      - "Generate a motion: {caption}"
      - ["What would {caption} look like?", "Like this: {motion}"]

A ``.json`` file is read as MotionGPT's (arXiv 2306.14795) collection of tasks:
``{task: {subtask: {"class": ..., "input": [...], "output": [...]}}}``. A subtask belongs to the task that its first
input and output fit; every input goes with every output. Inference uses the first template that can be filled.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jaxtyping import Int
from torch import Tensor

FOLDER = Path(__file__).parent / "templates"

# What may stand in braces, and what fills it.
PLACEHOLDERS = {
    "caption": "what the motion shows",
    "body": "text about the whole body",
    "upper": "text about the upper body",
    "lower": "text about the lower body",
    "limbs": "texts about smaller parts of the body, each with its name",
    "details": "all texts about the body and its parts",
    "seconds": "duration of the motion that is asked for, or described",
    "frames": "the same in frames",
    "steps": "the same in time steps of the motion tokenizer",
    "parts": "names of the body parts that are asked for",
    "given_parts": "names of the body parts whose codes are given",
    "line": "a line of plain text",
    "motion": "the whole motion",
    "first": "the first part of a motion",
    "rest": "what follows the first part",
    "last": "the end of a motion",
    "middle": "what lies between first part and end",
    "given": "codes of some body parts",
    "missing": "codes of the other body parts",
}
MOTIONS = frozenset({"motion", "first", "rest", "last", "middle", "given", "missing"})
DURATIONS = frozenset({"seconds", "frames", "steps"})

_MOTIONGPT = {
    "<Caption_Placeholder>": "{caption}",
    "<Motion_Placeholder>": "{motion}",
    "<Frame_Placeholder>": "{frames}",
    "<Second_Placeholder>": "{seconds}",
    "<Motion_Placeholder_s1>": "{first}",
    "<Motion_Placeholder_s2>": "{rest}",
    "<Motion_Placeholder_Masked>": "{first} {last}",
}


class Piece(NamedTuple):
    """Motion that fills a placeholder; ``slots`` says which slots of each step it holds, None for all."""

    tokens: Int[Tensor, "t K_line"]
    slots: tuple[int, ...] | None = None


Values = Mapping[str, str | Piece]


class Template(NamedTuple):
    """One way to put a task in words."""

    instruction: str
    answer: str

    @property
    def names(self) -> frozenset[str]:
        """Placeholders of both."""
        return frozenset(_names(self.instruction) + _names(self.answer))


class Form(NamedTuple):
    """What templates of a task look like.

    Args:
        given: placeholders an instruction may have.
        needed: of each of these sets an instruction has at least one.
        asked: placeholders of which an answer has exactly one; motion ends the answer.
    """

    given: frozenset[str]
    needed: tuple[frozenset[str], ...]
    asked: frozenset[str]

    def misfit(self, template: Template) -> str | None:
        """What keeps a template from being of this form, None if nothing does."""
        names, answer = _names(template.instruction), _names(template.answer)
        if wrong := [name for name in names if name not in self.given]:
            return f"{{{wrong[0]}}} is not given; an instruction may have {_braced(self.given)}"
        if lacking := [one for one in self.needed if not one & set(names)]:
            return f"the instruction lacks {' or '.join(_braced(one) for one in lacking)}"
        if len(answer) != 1 or answer[0] not in self.asked:
            return f"the answer must hold one of {_braced(self.asked)}"
        if answer[0] in MOTIONS and not template.answer.rstrip().endswith("}"):
            return f"nothing may follow {{{answer[0]}}} in an answer"
        return None


@lru_cache(maxsize=256)
def load_templates(source: str, form: Form, task: str) -> tuple[Template, ...]:
    """Templates of one task.

    Args:
        source: name of a packaged list, or a ``.yaml`` or ``.json`` file.
        form: what they must look like.
        task: whose they are, for the messages.

    Raises:
        ValueError: there is no such file, it is not sound, or a template is not of the form; with file and entry.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".json":
        entries = _of_one_task(_read_motiongpt(Path(source).expanduser()), form)
    else:
        own = suffix in (".yaml", ".yml")
        entries = _read_yaml(Path(source).expanduser() if own else FOLDER / f"{source}.yaml")
    for where, template in entries:
        if reason := form.misfit(template):
            raise ValueError(f"{where}: {template.instruction!r} is no template of {task}: {reason}")
    if not entries:
        raise ValueError(f"{source} has no templates of {task}: {_braced(form.given)} -> {_braced(form.asked)}")
    return tuple(template for _, template in entries)


def fill(text: str, values: Values) -> list[str | Piece]:
    """One side of a template with its placeholders filled; texts that meet are one, without spaces before a motion."""
    filled: list[str | Piece] = [""]
    for i, part in enumerate(re.split(r"\{(\w+)\}", text)):  # text, name, text, name, ..., text
        value = values[part] if i % 2 else part
        if isinstance(value, str) and isinstance(filled[-1], str):
            filled[-1] += value
        else:
            filled.append(value)
    joined = [
        part.rstrip() if isinstance(part, str) and (i + 1 == len(filled) or isinstance(filled[i + 1], Piece)) else part
        for i, part in enumerate(filled)
    ]
    return [part for part in joined if part != ""]


def _names(text: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", text)


def _braced(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS if name in names) or "no placeholder"


def _read_yaml(file: Path) -> list[tuple[str, Template]]:
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise ValueError(f"there are no templates at {file}; known lists are {known}, or give a .yaml or .json file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable YAML ({str(error)[:200]})") from None
    if not isinstance(content, dict) or not isinstance(content.get("templates"), list):
        raise ValueError(f"{file}: a list of templates is expected under `templates`")
    if unknown := sorted(set(map(str, content)) - {"extends", "answer", "templates"}):
        raise ValueError(f"{file}: unknown key {unknown[0]!r}; there are extends, answer and templates")
    entries = _read_yaml(FOLDER / f"{content['extends']}.yaml") if "extends" in content else []
    for number, entry in enumerate(content["templates"], 1):
        pair = entry if isinstance(entry, list) else [entry, content.get("answer")]
        entries.append(_checked(pair, f"{file}, template {number}"))
    return entries


def _checked(pair: list[Any], where: str) -> tuple[str, Template]:
    if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise ValueError(f"{where}: an instruction, or [instruction, answer], is expected; `answer` serves the former")
    for text in pair:
        if unknown := [name for name in _names(text) if name not in PLACEHOLDERS]:
            raise ValueError(f"{where}: unknown placeholder {{{unknown[0]}}}; there are {', '.join(PLACEHOLDERS)}")
        if set(re.sub(r"\{\w+\}", "", text)) & set("{}"):
            raise ValueError(f"{where}: a brace that is no placeholder in {text!r}")
    return where, Template(*pair)


def _read_motiongpt(file: Path) -> list[list[tuple[str, Template]]]:
    """Templates by subtask."""
    if not file.is_file():
        raise ValueError(f"there are no templates at {file}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        leaves = [(f"{a}/{b}", leaf) for a, subtasks in content.items() for b, leaf in subtasks.items()]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not a JSON object of tasks and subtasks ({str(error)[:200]})") from None
    return [_read_leaf(leaf, f"{file}, {name}") for name, leaf in leaves]


def _read_leaf(leaf: Any, where: str) -> list[tuple[str, Template]]:
    if not isinstance(leaf, dict) or set(leaf) != {"class", "input", "output"}:
        raise ValueError(f'{where}: an object with "class", "input" and "output" is expected')
    sides = [leaf["input"], leaf["output"]]
    if not all(isinstance(side, list) and side and all(isinstance(text, str) for text in side) for side in sides):
        raise ValueError(f'{where}: "input" and "output" must be lists of texts')

    def ours(text: str) -> str:
        return re.sub(r"<\w*placeholder\w*>", lambda found: _of_motiongpt(found[0], where), text, flags=re.IGNORECASE)

    return [_checked([ours(question), ours(answer)], where) for question, answer in product(*sides)]


def _of_motiongpt(placeholder: str, where: str) -> str:
    if placeholder not in _MOTIONGPT:
        raise ValueError(f"{where}: unknown placeholder {placeholder}; there are {', '.join(_MOTIONGPT)}")
    return _MOTIONGPT[placeholder]


def _of_one_task(leaves: list[list[tuple[str, Template]]], form: Form) -> list[tuple[str, Template]]:
    return [entry for leaf in leaves if form.misfit(leaf[0][1]) is None for entry in leaf]
