"""Sequences that a language model continues together, one id each at a time.

Prompts are padded on the left, so that all of them end at the same place; each id's position is its place in its own
sequence. Keys and values are written into room that is made once, and sequences that ended leave the batch: a long one
does not pay for the finished. With classifier-free guidance (Ho and Salimans 2022) every sequence has a second one
beside it, which lacks the text and is given the same ids::

    logits = u + guidance · (c - u)          c with the text, u without
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lmm.llm.embedding import MotionLLM

WIDE = "sdpa_in_float32"  # attention of that name computes in float32 whatever the model's dtype


class DecodingBatch:
    """The state of sequences that are continued together.

    >>> batch = DecodingBatch(llm, prompts, room=100)
    >>> logits = batch.logits()        # of the next id
    >>> batch.append(ids)              # the choice; or batch.keep([0, 2]) where sequence 1 ended

    Args:
        llm: the language model, in eval mode.
        prompts: ids to continue; lengths may differ.
        room: most ids that will be appended.
        unguided: the same prompts without their text, for guidance.
        guidance: scale g; used where ``unguided`` is given.
    """

    def __init__(
        self,
        llm: MotionLLM,
        prompts: list[Int[Tensor, "_s"]],
        *,
        room: int,
        unguided: list[Int[Tensor, "_s"]] | None = None,
        guidance: float = 1.0,
    ) -> None:
        self.llm, self.guidance, self.twins = llm, guidance, unguided is not None
        device = next(llm.parameters()).device
        self.ids, self.mask = _pad_left(prompts + (unguided or []), room, device)
        self.length = self.ids.shape[1]
        prompt = self.mask[:, : self.length]
        self.positions = (prompt.cumsum(1) - 1).masked_fill(~prompt, 0)
        self.padded = not bool(prompt.all())
        self.cache = make_cache(llm.llm.config, self.length + room)

    def logits(self, rows: list[tuple[int, int]] | None = None) -> Float[Tensor, "B R"]:
        """Of the next id of each sequence, guided; ``rows`` as `MotionLLM.forward` takes them."""
        mask = self.mask[:, : self.length] if self.padded else None
        logits = self.llm(self.ids, None, mask=mask, positions=self.positions, cache=self.cache, rows=rows)
        if not self.twins:
            return logits
        guided, unguided = logits.chunk(2)
        return unguided + self.guidance * (guided - unguided)

    def append(self, ids: Int[Tensor, " B"]) -> None:
        """Go on behind these ids."""
        self.ids = (ids.repeat(2) if self.twins else ids)[:, None]
        self.positions = self.positions[:, -1:] + 1
        self.length += 1

    def keep(self, rows: list[int]) -> None:
        """Let all sequences but these leave."""
        size = len(self.ids) // 2
        index = torch.tensor([*rows, *(row + size for row in rows)] if self.twins else rows, device=self.ids.device)
        self.ids, self.mask, self.positions = self.ids[index], self.mask[index], self.positions[index]
        self.cache.batch_select_indices(index)


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in room made once, where the usual cache copies all of them at every id.

    Args:
        room: most ids.
        wide: keep them in float32.
    """

    def __init__(self, room: int, *, wide: bool) -> None:
        super().__init__()
        self.room, self.wide = room, wide

    def update(
        self,
        key_states: Float[Tensor, "B h s d"],
        value_states: Float[Tensor, "B h s e"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "B h S d"], Float[Tensor, "B h S e"]]:
        """All keys and values so far, as views."""
        seen = self.get_seq_length()
        if not seen:
            self.device, self.is_initialized = key_states.device, True
            self.dtype = torch.float32 if self.wide else key_states.dtype
            self.key_room, self.value_room = self._make_room(key_states), self._make_room(value_states)
        stop = seen + key_states.shape[2]
        self.key_room[:, :, seen:stop] = key_states
        self.value_room[:, :, seen:stop] = value_states
        self.keys, self.values = self.key_room[:, :, :stop], self.value_room[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Int[Tensor, " b"]) -> None:
        """Only these sequences."""
        assert self.keys is not None and self.values is not None
        keys, values = self.keys[indices], self.values[indices]
        self.key_room, self.value_room = self._make_room(keys), self._make_room(values)
        self.keys, self.values = self.key_room[:, :, : keys.shape[2]], self.value_room[:, :, : keys.shape[2]]
        self.keys.copy_(keys)
        self.values.copy_(values)

    def _make_room(self, like: Tensor) -> Tensor:
        return like.new_empty(*like.shape[:2], self.room, like.shape[3], dtype=self.dtype)


def make_cache(config: PreTrainedConfig, room: int) -> DynamicCache:
    """A cache for ``room`` ids; layers that see only a window, or are no attention, keep transformers' own."""
    cache, wide = DynamicCache(config=config), config._attn_implementation == WIDE
    cache.layers = [RoomyLayer(room, wide=wide) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _wide_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Torch's own attention; on a CPU it is several times as fast in float32 as in bfloat16."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(query.dtype), None


AttentionInterface.register(WIDE, _wide_attention)
AttentionMaskInterface.register(WIDE, sdpa_mask)


def _pad_left(
    prompts: list[Tensor], room: int, device: torch.device
) -> tuple[Int[Tensor, "B s"], Bool[Tensor, "B s_all"]]:
    """Prompts that all end at the same place, and True on real ids with ``room`` True behind them."""
    length = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    mask = torch.ones(len(prompts), length + room, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = prompt
        mask[row, : length - len(prompt)] = False
    return ids.to(device), mask.to(device)
