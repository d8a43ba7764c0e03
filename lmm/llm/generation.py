"""Sampling motions from a language model: batched, cached, and legal by construction.

After ``<mot>`` a motion is a line of complete steps closed by ``</mot>`` (see `MotionVocabulary`). At slot k of a step
only the rows of the head that slot may hold are scored, ``</mot>`` only at the start of a step and only between
``min_steps`` and ``max_steps``. So a sequence that cannot be parsed cannot be sampled, and equal bounds give an exact
duration. Every sample draws from its own seed: it does not depend on what shares its batch.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from lmm.llm.embedding import MotionLLM
from lmm.llm.vocabulary import MotionVocabulary


@torch.no_grad()
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
) -> list[Int[Tensor, "_t K"]]:
    """Continue each prompt with one motion.

    Args:
        llm: the language model, in eval mode.
        vocabulary: its motion ids.
        prompts: ids up to and with ``<mot>``; lengths may differ.
        min_steps: fewest steps of each motion.
        max_steps: most steps of each motion.
        seeds: seed of each motion.
        temperature: divides the logits; 0 takes the likeliest id.
        top_k: draw among so many likeliest ids; 0 among all.
        top_p: draw among the likeliest ids that hold this much probability.

    Raises:
        ValueError: bounds that contradict each other, or sequences longer than the model's context.
    """
    _check(llm, vocabulary, prompts, min_steps, max_steps, seeds)
    if not (temperature == 0 or temperature >= 1e-3) or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            "need a temperature of 0 or at least 0.001, top_k >= 0 and 0 < top_p <= 1, got "
            f"{temperature}, {top_k} and {top_p}"
        )
    device = next(llm.parameters()).device
    num_slots, size = vocabulary.spec.codes_per_step, vocabulary.spec.codebook_size
    total = max(max_steps) * num_slots
    lower, upper = torch.tensor(min_steps, device=device), torch.tensor(max_steps, device=device)
    uniform = torch.stack([torch.rand(total, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(device)

    ids, mask = _pad_left(prompts, total, device)
    length = ids.shape[1]
    positions = (mask[:, :length].cumsum(1) - 1).masked_fill(~mask[:, :length], 0)
    padded = not bool(mask.all())
    cache = DynamicCache(config=llm.llm.config)
    end = vocabulary.end - vocabulary.base_size
    codes = torch.zeros(len(prompts), total, dtype=torch.int64, device=device)
    steps = upper.clone()  # of each motion; fewer where </mot> came earlier
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for i in range(total):
        step, slot = divmod(i, num_slots)
        start, stop = (x - vocabulary.base_size for x in vocabulary.slot_range(slot))
        rows = [(start, stop), (end, end + 1)] if slot == 0 else [(start, stop)]
        seen = mask[:, : length + i] if padded else None
        logits = llm(ids, None, mask=seen, positions=positions, cache=cache, rows=rows)
        if slot == 0:
            logits[:, size] = logits[:, size].masked_fill(step < lower, -torch.inf)
        choice = _draw(logits, uniform[:, i], temperature, top_k, top_p)
        if slot == 0:
            ended = running & ((choice == size) | (step >= upper))
            steps = torch.where(ended, step, steps)
            running = running & ~ended
            if not running.any():
                break
        codes[:, i] = torch.where(running, choice, 0)
        ids = (codes[:, i] + start + vocabulary.base_size)[:, None]  # ended motions go on unread
        positions = positions[:, -1:] + 1
    return [line[: num * num_slots].view(num, num_slots) for line, num in zip(codes, steps.tolist(), strict=True)]


def _draw(
    logits: Float[Tensor, "B R"], uniform: Float[Tensor, " B"], temperature: float, top_k: int, top_p: float
) -> Int[Tensor, " B"]:
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the first is never outside
        probabilities = probabilities.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
    # Inverse of the distribution function, in float64: a float32 draw below 1 times the total stays below the total,
    # and the first entry above it has a probability above zero.
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def _pad_left(prompts: list[Tensor], room: int, device: torch.device) -> tuple[Int[Tensor, "B s"], Tensor]:
    """Prompts that all end at the same place, and True on real ids with ``room`` True behind them."""
    length = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    mask = torch.ones(len(prompts), length + room, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = prompt
        mask[row, : length - len(prompt)] = False
    return ids.to(device), mask.to(device)


def _check(
    llm: MotionLLM,
    vocabulary: MotionVocabulary,
    prompts: list[Tensor],
    min_steps: list[int],
    max_steps: list[int],
    seeds: list[int],
) -> None:
    if not prompts or not len(prompts) == len(min_steps) == len(max_steps) == len(seeds):
        raise ValueError("generate needs one minimum, maximum and seed for each of at least one prompt")
    for prompt, low, high in zip(prompts, min_steps, max_steps, strict=True):
        if not 1 <= low <= high:
            raise ValueError(f"a motion has at least one step and at most max_steps, got bounds {low} and {high}")
        if int(prompt[-1]) != vocabulary.start:
            raise ValueError("a prompt ends with <mot>")
    longest = max(len(p) for p in prompts) + max(max_steps) * vocabulary.spec.codes_per_step
    if llm.context is not None and longest > llm.context:
        raise ValueError(
            f"a prompt and its motion need up to {longest} ids, the language model takes {llm.context}; "
            "ask for fewer seconds, shorten the text, or choose a backbone with a longer context"
        )
