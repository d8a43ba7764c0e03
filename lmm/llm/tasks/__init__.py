"""Tasks of a motion language model, chosen and weighted in YAML; each is an instruction and an answer."""

from lmm.llm.tasks.base import Task, TaskInput
from lmm.llm.tasks.completion import Continuation, InBetween, PartCompletion
from lmm.llm.tasks.motion_to_text import MotionToText
from lmm.llm.tasks.text_only import TextOnly
from lmm.llm.tasks.text_to_motion import DurationConditioned, HierarchicalText, TextToMotion, Unconditional

__all__ = [
    "Continuation",
    "DurationConditioned",
    "HierarchicalText",
    "InBetween",
    "MotionToText",
    "PartCompletion",
    "Task",
    "TaskInput",
    "TextOnly",
    "TextToMotion",
    "Unconditional",
]
