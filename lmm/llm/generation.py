"""Sampling motions (and captions) from a language model: batched, cached, and legal by construction.

After ``<mot>`` a motion is a line of complete steps closed by ``</mot>`` (see `MotionVocabulary`). At slot k of a step
only the rows of the head that slot may hold are scored, ``</mot>`` only at the start of a step and only between
``min_steps`` and ``max_steps``. So a sequence that cannot be parsed cannot be sampled, and equal bounds give an exact
duration. Every sample draws from its own seed: it does not depend on what shares its batch.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lmm.llm.decoding import DecodingBatch
from lmm.llm.drawing import Drawing, uniform_numbers
from lmm.llm.embedding import MotionLLM
from lmm.llm.vocabulary import MotionVocabulary


def generate(
    llm: MotionLLM,
    vocabulary: MotionVocabulary,
    *,
    prompts: list[Int[Tensor, "_s"]],
    min_steps: list[int],
    max_steps: list[int],
    seeds: list[int],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    slots: Sequence[int] | None = None,
    guidance: float = 1.0,
    unguided: list[Int[Tensor, "_s"]] | None = None,
) -> list[Int[Tensor, "_t _K"]]:
    """Continue each prompt with one motion.

    Args:
        llm: the language model, in eval mode.
        vocabulary: its motion ids.
        prompts: ids up to and with ``<mot>``; lengths may differ.
        min_steps: fewest steps of each motion.
        max_steps: most steps of each motion.
        seeds: seed of each motion.
        temperature: see `Drawing`.
        top_k: see `Drawing`.
        top_p: see `Drawing`.
        slots: slots of each step that the answer holds, in this order; None for all K.
        guidance: see `Drawing`.
        unguided: each prompt without its text; needed for a guidance other than 1.

    Raises:
        ValueError: bounds that contradict each other, sequences longer than the model's context, or options that
            nothing can be drawn with.
    """
    drawing = Drawing(temperature, top_k, top_p, guidance)
    job = _job(llm, vocabulary, prompts, min_steps, max_steps, seeds, drawing, slots, unguided)
    shape = len(prompts), max(max_steps), len(job.slots)
    codes = torch.zeros(shape, dtype=torch.int64, device=next(llm.parameters()).device)
    lengths = [0] * len(prompts)
    for step, (running, of_step) in enumerate(_steps(llm, vocabulary, job)):
        codes[running, step] = of_step
        for row in running:
            lengths[row] = step + 1
    return [line[:length] for line, length in zip(codes, lengths, strict=True)]


def stream(
    llm: MotionLLM,
    vocabulary: MotionVocabulary,
    *,
    prompt: Int[Tensor, "_s"],
    min_steps: int,
    max_steps: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    slots: Sequence[int] | None = None,
    guidance: float = 1.0,
    unguided: Int[Tensor, "_s"] | None = None,
) -> Iterator[Int[Tensor, "1 _K"]]:
    """The steps of one motion, each as soon as it is complete; arguments and codes are those of `generate`.

    Raises:
        ValueError: at the call, as `generate`.
    """
    drawing, lone = Drawing(temperature, top_k, top_p, guidance), None if unguided is None else [unguided]
    job = _job(llm, vocabulary, [prompt], [min_steps], [max_steps], [seed], drawing, slots, lone)
    return (of_step for _, of_step in _steps(llm, vocabulary, job))


@torch.no_grad()
def generate_text(
    llm: MotionLLM,
    vocabulary: MotionVocabulary,
    prompts: list[Int[Tensor, "_s"]],
    *,
    max_ids: int,
    eos: int,
    seeds: list[int],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[Int[Tensor, "_n"]]:
    """Continue each prompt with text alone: no motion id can come.

    Args:
        llm: the language model, in eval mode.
        vocabulary: where motion ids begin.
        prompts: ids to continue; lengths may differ.
        max_ids: most ids of each answer.
        eos: the id that ends an answer, not part of it.
        seeds: seed of each answer.
        temperature: see `Drawing`.
        top_k: see `Drawing`.
        top_p: see `Drawing`.

    Raises:
        ValueError: no room for an answer, sequences longer than the model's context, or options that nothing can be
            drawn with.
    """
    drawing = Drawing(temperature, top_k, top_p)
    drawing.check()
    if not prompts or len(prompts) != len(seeds) or max_ids < 1:
        raise ValueError(f"generate_text needs a seed for each of at least one prompt and max_ids >= 1, got {max_ids}")
    _check_context(llm, prompts, max_ids)
    batch = DecodingBatch(llm, prompts, room=max_ids)
    uniform = uniform_numbers(seeds, max_ids).to(batch.ids.device)
    running, answers = list(range(len(prompts))), [[] for _ in prompts]  # type: ignore[var-annotated]
    for i in range(max_ids):
        choice = drawing.draw(batch.logits()[:, : vocabulary.base_size], uniform[running, i])
        ended = [row for row, id in zip(running, choice.tolist(), strict=True) if id == eos]
        running, choice = _leave(batch, running, choice, ended)
        for row, id in zip(running, choice.tolist(), strict=True):
            answers[row].append(id)
        if not running:
            break
        batch.append(choice)
    return [torch.tensor(ids, dtype=torch.int64) for ids in answers]


class _Job(NamedTuple):
    """Motions to sample, checked; ``slots`` named and ``unguided`` None where it has no effect."""

    prompts: list[Tensor]
    fewest: list[int]
    most: list[int]
    seeds: list[int]
    drawing: Drawing
    slots: Sequence[int]
    unguided: list[Tensor] | None


@torch.no_grad()
def _steps(
    llm: MotionLLM, vocabulary: MotionVocabulary, job: _Job
) -> Iterator[tuple[list[int], Int[Tensor, "n K_line"]]]:
    """Each step of the motions that still run: which they are, and their codes."""
    room = max(job.most) * len(job.slots)
    batch = DecodingBatch(llm, job.prompts, room=room, unguided=job.unguided, guidance=job.drawing.guidance)
    uniform = uniform_numbers(job.seeds, room).to(batch.ids.device)
    running = list(range(len(job.prompts)))
    for step in range(max(job.most)):
        codes: list[Tensor] = []
        for slot in job.slots:
            first, stop = vocabulary.slot_range(slot)
            scores = batch.logits(_rows(vocabulary, first, stop, with_end=not codes))
            logits = scores[:, first - stop :]
            may_end = not codes and any(step >= job.fewest[row] for row in running)
            if may_end:
                early = torch.tensor([[step < job.fewest[row]] for row in running], device=scores.device)
                logits = torch.cat([logits, scores[:, :1].masked_fill(early, -torch.inf)], dim=1)
            choice = job.drawing.draw(logits, uniform[running, step * len(job.slots) + len(codes)])
            if may_end:
                ended = [row for row, code in zip(running, choice.tolist(), strict=True) if code == stop - first]
                running, choice = _leave(batch, running, choice, ended)
                if not running:
                    return
            codes.append(choice)
            if len(codes) < len(job.slots):
                batch.append(choice + first)
        yield running, torch.stack(codes, dim=1)
        running, choice = _leave(batch, running, codes[-1], [row for row in running if job.most[row] == step + 1])
        if not running:
            return
        batch.append(choice + first)


def _rows(vocabulary: MotionVocabulary, first: int, stop: int, *, with_end: bool) -> list[tuple[int, int]]:
    """Rows of the head that a slot needs: its codes last, ``</mot>`` first.

    Where ``</mot>`` stands before the codes anyway, both are one view of the head and the same one for every slot, so
    that a head which lays its rows out anew (`lmm.llm.packed`) does it once.
    """
    end, base = vocabulary.end, vocabulary.base_size
    if end + 1 == first:
        return [(end - base, stop - base)]
    codes = (first - base, stop - base)
    return [(end - base, end + 1 - base), codes] if with_end else [codes]


def _leave(
    batch: DecodingBatch, running: list[int], choice: Int[Tensor, " n"], ended: list[int]
) -> tuple[list[int], Int[Tensor, " m"]]:
    """The names and the choices of those that go on."""
    if not ended:
        return running, choice
    gone = set(ended)
    kept = [place for place, row in enumerate(running) if row not in gone]
    if kept:
        batch.keep(kept)
    return [running[place] for place in kept], choice[kept]


def _job(
    llm: MotionLLM,
    vocabulary: MotionVocabulary,
    prompts: list[Tensor],
    fewest: list[int],
    most: list[int],
    seeds: list[int],
    drawing: Drawing,
    slots: Sequence[int] | None,
    unguided: list[Tensor] | None,
) -> _Job:
    drawing.check()
    slots = range(vocabulary.spec.codes_per_step) if slots is None else slots
    if not slots or len(set(slots)) < len(slots):
        raise ValueError(f"an answer holds at least one slot of each step and none twice, got slots {list(slots)}")
    if not prompts or not len(prompts) == len(fewest) == len(most) == len(seeds):
        raise ValueError("generate needs one minimum, maximum and seed for each of at least one prompt")
    for low, high in zip(fewest, most, strict=True):
        if not 1 <= low <= high:
            raise ValueError(f"a motion has at least one step and at most max_steps, got bounds {low} and {high}")
    if drawing.guidance == 1:
        unguided = None
    elif unguided is None or len(unguided) != len(prompts):
        raise ValueError(f"guidance {drawing.guidance:g} needs `unguided`: each prompt without its text")
    everything = prompts + (unguided or [])
    if any(int(prompt[-1]) != vocabulary.start for prompt in everything):
        raise ValueError("a prompt ends with <mot>")
    _check_context(llm, everything, max(most) * len(slots))
    return _Job(prompts, fewest, most, seeds, drawing, slots, unguided)


def _check_context(llm: MotionLLM, prompts: list[Tensor], room: int) -> None:
    longest = max(len(p) for p in prompts) + room
    if llm.context is not None and longest > llm.context:
        raise ValueError(
            f"a prompt and its answer need up to {longest} ids, the language model takes {llm.context}; "
            "ask for fewer seconds, shorten the text, or choose a backbone with a longer context"
        )
