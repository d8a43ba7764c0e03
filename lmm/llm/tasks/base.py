"""What a task of a motion language model is: what it is given, what it asks for, and in which words.

Every task is one instruction and one answer over text and motion (MotionGPT, Jiang et al., arXiv 2306.14795;
instruction tuning, arXiv 2410.03311). A clip serves a task if some template of the task can be filled from it: no
other rule says which clips a task takes.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lmm.batch import TokenSpec
from lmm.llm.tasks.template import PLACEHOLDERS, Form, Piece, Template, Values, load_templates


class TaskInput(NamedTuple):
    """What a task is made of: a clip in training, what is known of one at inference.

    Args:
        caption: what the motion shows; empty if nobody said.
        tokens: the motion: all of it in training and to describe it, the first part to continue it.
        details: texts by name: body, upper_body, lower_body, left_arm, ...
        seconds: duration that is asked for (inference).
        last: the motion's end, to fill what lies between (inference).
        parts: body parts whose columns of ``tokens`` are given, the others are asked for and not looked at (inference).
    """

    caption: str = ""
    tokens: Int[Tensor, "t K"] | None = None
    details: Mapping[str, str] | None = None
    seconds: float | None = None
    last: Int[Tensor, "t_last K"] | None = None
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One thing that a motion language model learns to do.

    Args:
        weight: how often it is drawn, relative to the other tasks that a clip serves.
        loss_weight: weight of its samples in the loss.
        templates: other wordings: a packaged list by its name, a YAML of one's own, or a JSON file in MotionGPT's
            format; see `lmm.llm.tasks.template`. None takes the task's own.
    """

    form: ClassVar[Form]  # what its templates look like
    own: ClassVar[str]  # packaged list of templates
    answers_in_words: ClassVar[bool] = False
    loses_caption: ClassVar[bool] = False  # may be trained without its caption (classifier-free guidance)

    weight: float = 1.0
    loss_weight: float = 1.0
    templates: str | None = None

    def __post_init__(self) -> None:
        for name in ("weight", "loss_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} of a task must be positive, got {getattr(self, name)}; leave out what is not")

    def check(self, spec: TokenSpec) -> None:  # noqa: B027 - most tasks take any tokens
        """Refuse motion tokens that the task cannot work with."""

    def wordings(self, offered: frozenset[str]) -> tuple[Template, ...]:
        """Templates, those of inference first, for a clip that can fill the placeholders ``offered``."""
        return load_templates(self.templates or self.own, self.form, type(self).__name__)

    @abstractmethod
    def offers(self, clip: TaskInput) -> frozenset[str]:
        """Placeholders that `example` fills from a clip."""

    @abstractmethod
    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """What fills a training sample.

        Args:
            clip: with all its tokens.
            spec: what the tokens are.
            draw: where a task chooses; None chooses the same each time.
        """

    @abstractmethod
    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """What fills an instruction at inference; a motion that is asked for has no tokens, but its slots."""

    def plain(self) -> dict[str, Any]:
        """Class and arguments as plain values, for a checkpoint; the command line builds the same task from them."""
        arguments = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}


@lru_cache(maxsize=4096)
def fillable(task: Task, offered: frozenset[str]) -> tuple[Template, ...]:
    """A task's templates that can be filled from the placeholders ``offered``, in order."""
    return tuple(template for template in task.wordings(offered) if template.names <= offered)


def lacking(task: Task, offered: frozenset[str]) -> str:
    """What keeps a clip that offers some placeholders from a task, in words."""
    missing = min((t.names - offered for t in task.wordings(offered)), key=len)
    names = [f"{{{name}}} ({meaning})" for name, meaning in PLACEHOLDERS.items() if name in missing]
    return f"{type(task).__name__} lacks {', '.join(names)}"


def texts(clip: TaskInput) -> dict[str, str | Piece]:
    """The caption, if there is one."""
    return {"caption": clip.caption} if clip.caption else {}


def motions(**named: Tensor | None) -> dict[str, str | Piece]:
    """Whole steps of motion by placeholder, where there are any."""
    return {name: Piece(tokens) for name, tokens in named.items() if tokens is not None and len(tokens)}


def wanted(spec: TokenSpec) -> Piece:
    """A motion that is asked for and not known."""
    return Piece(torch.empty(0, spec.codes_per_step, dtype=torch.int64))


def durations(steps: int, spec: TokenSpec) -> dict[str, str | Piece]:
    """How long a motion is, in three units."""
    return {
        "seconds": f"{round(steps / spec.steps_per_second, 1):g}",
        "frames": str(steps * spec.downsample),
        "steps": str(steps),
    }


def duration_asked(clip: TaskInput, spec: TokenSpec) -> dict[str, str | Piece]:
    """The duration that is asked for at inference, if one is, said as in training: in whole steps.

    Raises:
        ValueError: it is less than a frame.
    """
    if clip.seconds is None:
        return {}
    frames = round(clip.seconds * spec.fps)
    if frames < 1:
        raise ValueError(f"{clip.seconds} seconds are less than a frame at {spec.fps:g} frames a second")
    return durations(-(-frames // spec.downsample), spec)
