"""Replay of plain text, so that a language model that learns motion does not forget language."""

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from lmm.batch import TokenSpec
from lmm.llm.tasks.base import Task, TaskInput
from lmm.llm.tasks.template import Form, Values


@dataclass(frozen=True, kw_only=True)
class TextOnly(Task):
    """Lines of a text file, each a sample by itself; the clip it is drawn for is not looked at.

    Args:
        file: UTF-8, a text a line; blank lines are no texts. Kept in memory, and read when the first line is drawn: a
            checkpoint does not need it.
    """

    form: ClassVar = Form(frozenset(), (), frozenset({"line"}))
    own: ClassVar = "text_only"
    answers_in_words: ClassVar = True

    file: str

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """Always a line."""
        return frozenset({"line"})

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Draws a line."""
        lines = _read(self.file)
        return {"line": lines[0] if draw is None else draw.choice(lines)}

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError("TextOnly is learned and never asked; ask for text with MotionToText")


@lru_cache(maxsize=8)
def _read(file: str) -> tuple[str, ...]:
    try:
        lines = tuple(line.strip() for line in Path(file).expanduser().read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} cannot be read as UTF-8 text ({error}); name TextOnly a file, a text a line"
        ) from None
    texts = tuple(line for line in lines if line)
    if not texts:
        raise ValueError(f"{file} has no line of text for TextOnly")
    return texts
