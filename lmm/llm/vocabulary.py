"""Motion tokens as ids of a language model.

The codes of a motion tokenizer and two markers, ``<mot>`` and ``</mot>``, stand after the last id of the base
vocabulary. Tokens are a grid "t K" (see `lmm.batch`); ids are a line. Everything is integers: no strings are made or
parsed, nothing is clamped, and what is not a whole motion raises.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lmm.batch import TokenSpec


class MotionVocabulary:
    """The ids of motion: a bijection between token grids and lines of ids.

    The line is time-major; within a step parts follow each other, within a part its levels (K = P·Q). Two parts
    (a, b) of two levels (0, 1), t = 2 steps::

                 step 0        step 1
        a  0     tokens[0,0]   tokens[1,0]
        a  1     tokens[0,1]   tokens[1,1]          read each column downwards, columns left to right
        b  0     tokens[0,2]   tokens[1,2]
        b  1     tokens[0,3]   tokens[1,3]

        line     <mot> a0 a1 b0 b1  a0 a1 b0 b1 </mot>
                       step 0       step 1

    A part of a motion is a line of the same form that holds only some slots of each step. With ``slots=(0, 1)``, which
    is body part a alone::

        line     <mot> a0 a1  a0 a1 </mot>
                       step 0 step 1

    The ids, with N codes shared by all K slots of a step, or with ``per_slot`` a range of N for each::

        0 ... base_size - 1 | base_size | + 1    | + 2 ...           + 2 + N ...       + 2 + 2N ...
        the base vocabulary | <mot>     | </mot> | codes 0 ... N - 1
                   per slot | <mot>     | </mot> | codes of slot 0 | codes of slot 1 | ...

    Args:
        base_size: rows of the language model's embedding; ids below it are text.
        spec: what the motion tokens are.
        per_slot: give each slot of a step ids of its own, for tokenizers whose parts or levels mean different things by
            the same code; an LLM then need not learn the slot from the place in the line, and pays K times the rows.
    """

    def __init__(self, base_size: int, spec: TokenSpec, *, per_slot: bool = False) -> None:
        if base_size <= 0 or spec.codebook_size <= 0 or spec.codes_per_step <= 0:
            raise ValueError(f"a vocabulary needs text ids, codes and slots, got base_size={base_size}, {spec}")
        self.base_size = base_size
        self.spec = spec
        self.per_slot = per_slot

    @property
    def start(self) -> int:
        """Id of ``<mot>``."""
        return self.base_size

    @property
    def end(self) -> int:
        """Id of ``</mot>``."""
        return self.base_size + 1

    @property
    def num_new(self) -> int:
        """Ids added to the base vocabulary."""
        return 2 + self.spec.codebook_size * (self.spec.codes_per_step if self.per_slot else 1)

    @property
    def size(self) -> int:
        """Ids in all."""
        return self.base_size + self.num_new

    @property
    def names(self) -> list[str]:
        """How the new ids are spelled where a tokenizer needs strings, in the order of the ids (made at each call)."""
        codes = range(self.spec.codebook_size)
        if not self.per_slot:
            return ["<mot>", "</mot>", *(f"<motion_id_{code}>" for code in codes)]
        slots = range(self.spec.codes_per_step)
        return ["<mot>", "</mot>", *(f"<motion_id_{slot}_{code}>" for slot in slots for code in codes)]

    def slot_range(self, slot: int) -> tuple[int, int]:
        """First and one-past-last id of the codes that slot ``slot`` of a step may hold."""
        if not 0 <= slot < self.spec.codes_per_step:
            raise ValueError(f"slot {slot} is not one of the {self.spec.codes_per_step} slots of a step")
        first = self.base_size + 2 + (slot * self.spec.codebook_size if self.per_slot else 0)
        return first, first + self.spec.codebook_size

    def tokens_to_ids(
        self, tokens: Int[Tensor, "t K_line"], *, slots: Sequence[int] | None = None
    ) -> Int[Tensor, " S"]:
        """One motion as a line of S = t·K_line + 2 ids, the markers included.

        Args:
            tokens: without padding.
            slots: which slots of each step the columns are; None for all K in their order.

        Raises:
            ValueError: a wrong number of slots, or a token outside [0, N): padding (-1) must be cut off first.
        """
        first, size = self._first_ids(slots, tokens), self.spec.codebook_size
        if tokens.ndim != 2 or tokens.shape[1] != len(first):
            raise ValueError(f"tokens of one motion must be (t, {len(first)}), got {tuple(tokens.shape)}")
        if tokens.is_floating_point():
            raise ValueError(f"tokens must be integers, got {tokens.dtype}")
        wrong = (tokens < 0) | (tokens >= size)
        if wrong.any():
            raise ValueError(f"token {int(tokens[wrong][0])} is not in [0, {size}); cut padding off first")
        line = (tokens + first).flatten().long()
        return torch.cat([line.new_tensor([self.start]), line, line.new_tensor([self.end])])

    def ids_to_tokens(self, ids: Int[Tensor, " S"], *, slots: Sequence[int] | None = None) -> Int[Tensor, "t K_line"]:
        """Inverse of `tokens_to_ids` with the same ``slots``.

        Raises:
            ValueError: markers missing, an incomplete step, or an id that its slot may not hold.
        """
        first = self._first_ids(slots, ids)
        if ids.ndim != 1 or len(ids) < 2 or int(ids[0]) != self.start or int(ids[-1]) != self.end:
            raise ValueError(f"a motion is a line of ids from <mot> ({self.start}) to </mot> ({self.end})")
        if (len(ids) - 2) % len(first):
            raise ValueError(f"{len(ids) - 2} codes do not fill steps of {len(first)}")
        line = ids[1:-1].view(-1, len(first))
        tokens = line - first
        wrong = (tokens < 0) | (tokens >= self.spec.codebook_size)
        if wrong.any():
            raise ValueError(f"id {int(line[wrong][0])} is not a code of its slot")
        return tokens

    def _first_ids(self, slots: Sequence[int] | None, like: Tensor) -> Int[Tensor, " K_line"]:
        if slots is None:
            slots = range(self.spec.codes_per_step)
        elif not slots or len(set(slots)) < len(slots):
            raise ValueError(f"a line holds at least one slot of each step and none twice, got slots {list(slots)}")
        return torch.tensor([self.slot_range(slot)[0] for slot in slots], device=like.device)
