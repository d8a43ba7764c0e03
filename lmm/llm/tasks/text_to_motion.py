"""Tasks that ask for a whole motion: from a caption, from texts about parts, of a said duration, or from nothing."""

import random
from dataclasses import dataclass
from typing import ClassVar

from lmm.batch import TokenSpec
from lmm.llm.tasks.base import Task, TaskInput, duration_asked, durations, motions, texts, wanted
from lmm.llm.tasks.template import DURATIONS, Form, Template, Values, load_templates

_MOTION = frozenset({"motion"})
_UPPER, _LOWER, _BODY = "upper_body", "lower_body", "body"  # names the field agrees on (arXiv 2410.03311)
_ANYTHING = Form(DURATIONS, (), _MOTION)


@dataclass(frozen=True, kw_only=True)
class TextToMotion(Task):
    """A motion from its caption.

    Without one, because the clip has none or it was taken away for classifier-free guidance, any motion is asked for
    in the words of the packaged list ``unconditional``.
    """

    form: ClassVar = Form(frozenset({"caption"}), (frozenset({"caption"}),), _MOTION)
    own: ClassVar = "text_to_motion"
    loses_caption: ClassVar = True

    def wordings(self, offered: frozenset[str]) -> tuple[Template, ...]:
        """Of text to motion where there is a text."""
        if "caption" in offered:
            return super().wordings(offered)
        return load_templates("unconditional", _ANYTHING, type(self).__name__)

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """A motion, and its caption if it has one."""
        return frozenset(texts(clip)) | frozenset(motions(motion=clip.tokens))

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Nothing to choose."""
        return texts(clip) | motions(motion=clip.tokens)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """The caption."""
        return texts(clip) | {"motion": wanted(spec)}


@dataclass(frozen=True, kw_only=True)
class Unconditional(Task):
    """Any motion: from nothing, or from its duration alone."""

    form: ClassVar = _ANYTHING
    own: ClassVar = "unconditional_varied"

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """A motion and its duration."""
        found = motions(motion=clip.tokens)
        return frozenset(found) | DURATIONS if found else frozenset()

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Nothing to choose."""
        assert clip.tokens is not None
        return motions(motion=clip.tokens) | durations(len(clip.tokens), spec)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """The duration, if one is asked for."""
        return duration_asked(clip, spec) | {"motion": wanted(spec)}


@dataclass(frozen=True, kw_only=True)
class DurationConditioned(Task):
    """A motion from its caption and its duration in seconds, frames or time steps."""

    form: ClassVar = Form(frozenset({"caption"}) | DURATIONS, (frozenset({"caption"}), DURATIONS), _MOTION)
    own: ClassVar = "duration"

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """A motion, its duration, and its caption if it has one."""
        found = motions(motion=clip.tokens)
        return frozenset(texts(clip)) | frozenset(found) | DURATIONS if found else frozenset()

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Nothing to choose."""
        assert clip.tokens is not None
        return texts(clip) | motions(motion=clip.tokens) | durations(len(clip.tokens), spec)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """Caption and duration."""
        return texts(clip) | duration_asked(clip, spec) | {"motion": wanted(spec)}


@dataclass(frozen=True, kw_only=True)
class HierarchicalText(Task):
    """A motion from texts about the body and its parts (arXiv 2410.03311); only for clips that have such texts.

    A clip's caption stands for a missing text about the whole body.
    """

    form: ClassVar = Form(
        frozenset({"body", "upper", "lower", "limbs", "details"}),
        (frozenset({"upper", "lower", "limbs", "details"}),),
        _MOTION,
    )
    own: ClassVar = "hierarchical"

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """A motion and the texts that there are."""
        found = motions(motion=clip.tokens)
        return frozenset(_detailed(clip)) | frozenset(found) if found else frozenset()

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Nothing to choose."""
        return _detailed(clip) | motions(motion=clip.tokens)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """The texts."""
        return _detailed(clip) | {"motion": wanted(spec)}


def _detailed(clip: TaskInput) -> dict:
    """Texts by placeholder, without those that are missing; none at all where there are no details."""
    details = {name: text.strip() for name, text in (clip.details or {}).items() if text.strip()}
    if not details:
        return {}
    body = details.pop(_BODY, clip.caption)
    limbs = {name: text for name, text in details.items() if name not in (_UPPER, _LOWER)}
    said = {
        "body": body,
        "upper": details.get(_UPPER, ""),
        "lower": details.get(_LOWER, ""),
        "limbs": _listed(limbs),
        "details": " ".join(part for part in (_sentence(body), _listed(details)) if part),
    }
    return {name: text for name, text in said.items() if text}


def _listed(named: dict[str, str]) -> str:
    return " ".join(f"{name.replace('_', ' ').capitalize()}: {_sentence(text)}" for name, text in named.items())


def _sentence(text: str) -> str:
    return f"{text}." if text and text[-1].isalnum() else text
