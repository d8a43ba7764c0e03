"""Tasks that give some of a motion and ask for the rest: what follows, what lies between, what other body parts do."""

import random
from dataclasses import dataclass
from typing import ClassVar

from lmm.batch import TokenSpec
from lmm.llm.tasks.base import Task, TaskInput, duration_asked, durations, motions, texts, wanted
from lmm.llm.tasks.template import DURATIONS, Form, Piece, Values

_CAPTION = frozenset({"caption"})


@dataclass(frozen=True, kw_only=True)
class Continuation(Task):
    """The rest of a motion from its first part; durations are the rest's.

    Args:
        shortest: smallest share of the steps that is given.
        longest: greatest share; the share is drawn in between, and in the middle in validation.
    """

    form: ClassVar = Form(_CAPTION | DURATIONS | {"first"}, (frozenset({"first"}),), frozenset({"rest"}))
    own: ClassVar = "continuation"

    shortest: float = 0.1
    longest: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shortest <= self.longest < 1:
            raise ValueError(f"0 <= shortest <= longest < 1 is needed, got {self.shortest} and {self.longest}")

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """Both parts, where there are two steps."""
        if clip.tokens is None or len(clip.tokens) < 2:
            return frozenset()
        return frozenset(texts(clip)) | DURATIONS | {"first", "rest"}

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Draws where to cut."""
        assert clip.tokens is not None
        cut = 1 + int(_share(self.shortest, self.longest, draw) * (len(clip.tokens) - 1))  # both parts have a step
        first, rest = clip.tokens[:cut], clip.tokens[cut:]
        return texts(clip) | motions(first=first, rest=rest) | durations(len(rest), spec)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """All tokens are the first part."""
        return texts(clip) | motions(first=clip.tokens) | duration_asked(clip, spec) | {"rest": wanted(spec)}


@dataclass(frozen=True, kw_only=True)
class InBetween(Task):
    """The middle of a motion from its beginning and end; durations are the middle's.

    Args:
        shortest: smallest share of the steps that is given at either end.
        longest: greatest share at either end; drawn in between for each, and in the middle in validation.
    """

    form: ClassVar = Form(
        _CAPTION | DURATIONS | {"first", "last"},
        (frozenset({"first"}), frozenset({"last"})),
        frozenset({"middle", "motion"}),
    )
    own: ClassVar = "in_between"

    shortest: float = 0.1
    longest: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shortest <= self.longest < 0.5:
            raise ValueError(f"0 <= shortest <= longest < 0.5 is needed, got {self.shortest} and {self.longest}")

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """All three pieces, where there are three steps."""
        if clip.tokens is None or len(clip.tokens) < 3:
            return frozenset()
        return frozenset(texts(clip)) | DURATIONS | {"first", "middle", "last", "motion"}

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Draws both cuts."""
        assert clip.tokens is not None
        room = len(clip.tokens) - 2  # shares below a half leave the middle at least one step
        begin = 1 + int(_share(self.shortest, self.longest, draw) * room)
        end = len(clip.tokens) - 1 - int(_share(self.shortest, self.longest, draw) * room)
        pieces = motions(first=clip.tokens[:begin], middle=clip.tokens[begin:end], last=clip.tokens[end:])
        return texts(clip) | pieces | motions(motion=clip.tokens) | durations(end - begin, spec)

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """``tokens`` are the beginning, ``last`` is the end."""
        known = texts(clip) | motions(first=clip.tokens, last=clip.last) | duration_asked(clip, spec)
        return known | {"middle": wanted(spec), "motion": wanted(spec)}


@dataclass(frozen=True, kw_only=True)
class PartCompletion(Task):
    """What some body parts do from what the others do, for tokenizers with several parts.

    Args:
        names: what the tokenizer's parts are called, in its order; empty calls them "part 1", "part 2", ...
    """

    form: ClassVar = Form(
        _CAPTION | {"parts", "given_parts", "given"},
        (frozenset({"given"}), frozenset({"parts"})),
        frozenset({"missing"}),
    )
    own: ClassVar = "part_completion"

    names: tuple[str, ...] = ()

    def check(self, spec: TokenSpec) -> None:
        """Needs several parts, and a name for each or none."""
        if spec.num_parts < 2:
            raise ValueError(
                "PartCompletion needs motion tokens of several body parts, and this tokenizer has one; leave the task "
                "out, or train a tokenizer with parts (tokenizer_lfq2d.yaml)"
            )
        if self.names and len(self.names) != spec.num_parts:
            raise ValueError(f"PartCompletion has {len(self.names)} names for the tokenizer's {spec.num_parts} parts")

    def offers(self, clip: TaskInput) -> frozenset[str]:
        """Two pieces of any motion."""
        if clip.tokens is None or not len(clip.tokens):
            return frozenset()
        return frozenset(texts(clip)) | {"parts", "given_parts", "given", "missing"}

    def example(self, clip: TaskInput, spec: TokenSpec, draw: random.Random | None) -> Values:
        """Draws which parts are given, all choices of how many being equally likely."""
        assert clip.tokens is not None
        everything = range(spec.num_parts)
        if draw is None:
            given = tuple(everything[: spec.num_parts // 2])
        else:
            given = tuple(sorted(draw.sample(everything, draw.randint(1, spec.num_parts - 1))))
        missing = tuple(part for part in everything if part not in given)
        slots = _slots(missing, spec)
        return texts(clip) | self._known(clip, given, spec) | {"missing": Piece(clip.tokens[:, slots], slots)}

    def question(self, clip: TaskInput, spec: TokenSpec) -> Values:
        """``parts`` of ``tokens`` are given."""
        if clip.tokens is None or not len(clip.tokens):
            return {}
        given = tuple(sorted(set(clip.parts)))
        missing = tuple(part for part in range(spec.num_parts) if part not in given)
        if not given or not missing or not set(given) <= set(range(spec.num_parts)):
            raise ValueError(f"some of the {spec.num_parts} parts must be given and some not, got parts={clip.parts}")
        slots = _slots(missing, spec)
        return texts(clip) | self._known(clip, given, spec) | {"missing": Piece(clip.tokens[:0, slots], slots)}

    def _known(self, clip: TaskInput, given: tuple[int, ...], spec: TokenSpec) -> dict[str, str | Piece]:
        assert clip.tokens is not None
        names = self.names or tuple(f"part {part + 1}" for part in range(spec.num_parts))
        slots = _slots(given, spec)
        return {
            "given": Piece(clip.tokens[:, slots], slots),
            "given_parts": ", ".join(names[part] for part in given),
            "parts": ", ".join(name for part, name in enumerate(names) if part not in given),
        }


def _share(shortest: float, longest: float, draw: random.Random | None) -> float:
    return (shortest + longest) / 2 if draw is None else draw.uniform(shortest, longest)


def _slots(parts: tuple[int, ...], spec: TokenSpec) -> tuple[int, ...]:
    """Slots of a step that hold some parts: a part's levels stand together."""
    return tuple(part * spec.num_levels + level for part in parts for level in range(spec.num_levels))
