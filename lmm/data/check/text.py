"""A file of captions, utf-8: ``caption#word/POS word/POS ...#start#end`` a line, in seconds; 0#0 is the whole clip.

The tokens may be left out (``caption##start#end``), as ``lmm data import`` does.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SIDE = re.compile(r"\b(left|right|((?:counter|anti)[- ]?)?clockwise)\b")
_DETERMINERS = {"a", "an", "the"}
_SUFFIXES = ("ing", "ed", "es", "s", "ly")


class Line(NamedTuple):
    """A caption as written; ``tags`` are the parts of speech of its tokens."""

    number: int
    caption: str
    start: float
    end: float
    tags: frozenset[str]


class Text(NamedTuple):
    """A file of captions; ``problems`` are what a reader of the format stumbles over."""

    lines: list[Line]
    problems: list[str]


def read_text(file: Path) -> Text:
    """Captions of a file and what is wrong with it; never raises for what is in the file."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        return Text([], [f"unreadable: {error.strerror}"])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Text([], [f"not utf-8 (byte {error.start})"])
    lines, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split("#")
        if len(fields) != 4:
            problems.append(f"line {number}: {len(fields) - 1} '#' instead of 3")
            continue
        caption, tokens, *times = fields
        try:
            start, end = (float(time) for time in times)
        except ValueError:
            problems.append(f"line {number}: times {'#'.join(times)!r} are no numbers")
            continue
        start, end = (0.0 if math.isnan(time) else time for time in (start, end))
        pairs = [token.rpartition("/") for token in tokens.split()]
        if not caption.strip():
            problems.append(f"line {number}: empty caption")
        elif math.isinf(start) or math.isinf(end) or min(start, end) < 0:
            problems.append(f"line {number}: times {'#'.join(times)!r} are not seconds from the clip's start")
        elif not all(word and tag for word, _, tag in pairs):
            problems.append(f"line {number}: tokens are not word/POS")
        lines.append(Line(number, caption.strip(), start, end, frozenset(tag for _, _, tag in pairs)))
    if not lines and not problems:
        problems.append("no caption")
    return Text(lines, problems)


def words(caption: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(caption.casefold())


def sides(caption: str) -> list[str]:
    """The words of a caption that a mirror exchanges: left, right, clockwise, counterclockwise (however written)."""
    return ["counterclockwise" if found[2] else found[1] for found in _SIDE.finditer(caption.casefold())]


def bag(caption: str) -> tuple[str, ...]:
    """Sorted word stems without articles: equal bags are nearly equal sentences."""
    return tuple(sorted(_stem(word) for word in words(caption) if word not in _DETERMINERS))


def _stem(word: str) -> str:
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            stem = word.removesuffix(suffix)
            return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem.removesuffix("e")
    return word.removesuffix("e")
