"""Captioning: a motion is given, words are asked for."""

import random
from dataclasses import dataclass
from typing import ClassVar

from lmm.batch import TokenSpec
from lmm.llm.tasks.base import Task, TaskInput, durations, motions, texts
from lmm.llm.tasks.template import DURATIONS, Form, Values


@dataclass(frozen=True, kw_only=True)
class MotionToText(Task):
    """The caption of a motion."""

    form: ClassVar = Form(frozenset({"motion"}) | DURATIONS, (frozenset({"motion"}),), frozenset({"caption"}))
    own: ClassVar = "motion_to_text"
    answers_in_words: ClassVar = True

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """A motion and its duration, and its caption if it has one."""
        found = motions(motion=clip.tokens)
        return frozenset(texts(clip)) | frozenset(found) | DURATIONS if found else frozenset()

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Nothing to choose."""
        assert clip.tokens is not None
        return texts(clip) | motions(motion=clip.tokens) | durations(len(clip.tokens), spec)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """The motion."""
        if clip.tokens is None:
            return {"caption": ""}
        return {"caption": ""} | motions(motion=clip.tokens) | durations(len(clip.tokens), spec)
