"""A pretrained causal language model that also speaks motion, with its own matrices left as they are.

The embedding and the head are split instead of resized: the base matrices V "V H" stay the very same tensors, and a
new table M "num_new H" holds the rows of motion::

    embedding(id) = V[id]            if id < V   else  M[id - V]
    logits(h)     = [ V_head h ;  M_head h ]          M_head is M where the base model ties its weights

So the rows of text are bit-identical by construction, adapters hold the new rows only, nothing of size V is copied,
and generation scores motion rows alone with one small matmul.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PreTrainedModel


class MotionEmbedding(nn.Module):
    """Input embedding of text (``base``, as it was) and motion ids.

    Args:
        base: the language model's embedding.
        motion: rows of the ids from ``base.num_embeddings`` on.
    """

    def __init__(self, base: nn.Embedding, motion: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.motion = motion

    @property
    def weight(self) -> Float[Tensor, "V H"]:
        """The base table (libraries look at its dtype and device)."""
        return self.base.weight

    def forward(self, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S H"]:
        """Vectors of text and motion ids; an id beyond both tables raises."""
        is_motion = ids >= self.base.num_embeddings
        text = self.base(ids.masked_fill(is_motion, 0))  # both lookups run on all positions; the other's row is unused
        rows = (ids - self.base.num_embeddings).masked_fill(~is_motion, 0)
        motion = functional.embedding(rows, self.motion).to(text.dtype)
        # Gemma 3 and its like scale inside the embedding module
        motion = motion * torch.as_tensor(getattr(self.base, "embed_scale", 1.0)).to(motion)
        return torch.where(is_motion[..., None], motion, text)


class MotionHead(nn.Module):
    """Logits of text ids (``base``, as it was), then of motion ids.

    Args:
        base: the language model's head.
        motion: rows of the motion ids; the embedding's own parameter where the model ties its weights.
    """

    def __init__(self, base: nn.Linear, motion: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.motion = motion

    @property
    def weight(self) -> Float[Tensor, "V H"]:
        """The base matrix."""
        return self.base.weight

    def forward(self, hidden: Float[Tensor, "*B H"]) -> Float[Tensor, "*B V_all"]:
        """Logits over text, then motion."""
        return torch.cat([self.base(hidden), self.motion_logits(hidden, [(0, len(self.motion))])], dim=-1)

    def motion_logits(self, hidden: Float[Tensor, "*B H"], rows: list[tuple[int, int]]) -> Float[Tensor, "*B R"]:
        """Logits of some ranges of motion rows, one after another (row 0 is ``<mot>``)."""
        logits = [functional.linear(hidden, self.motion[start:stop].to(hidden.dtype)) for start, stop in rows]
        return torch.cat(logits, dim=-1)


class MotionLLM(nn.Module):
    """A Hugging Face causal language model with motion ids after its own vocabulary.

    Adapters must be put into ``llm`` before: whatever they target, they then cannot touch the new rows.

    Args:
        llm: the model; its embedding and head are replaced by split ones that hold the old ones.
        num_new: motion ids.
    """

    def __init__(self, llm: PreTrainedModel, num_new: int) -> None:
        super().__init__()
        embedding, head = llm.get_input_embeddings(), llm.get_output_embeddings()
        if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
            raise ValueError(
                f"{type(llm).__name__} has {type(embedding).__name__} as embedding and {type(head).__name__} as head; "
                "choose a causal language model with an ordinary embedding and a linear head"
            )
        if head.out_features != embedding.num_embeddings:
            raise ValueError(f"the head has {head.out_features} rows and the embedding {embedding.num_embeddings}")
        motion = new_rows(embedding.weight, num_new, seed=0)
        tied = head.weight is embedding.weight
        llm.set_input_embeddings(MotionEmbedding(embedding, motion))
        llm.set_output_embeddings(MotionHead(head, motion if tied else new_rows(head.weight, num_new, seed=1)))
        self.llm = llm

    @property
    def context(self) -> int | None:
        """Longest sequence of ids the model takes; None where it names no limit."""
        return getattr(self.llm.config, "max_position_embeddings", None)

    def forward(
        self,
        ids: Int[Tensor, "B S"],
        select: Bool[Tensor, "B S"] | None,
        *,
        mask: Bool[Tensor, "B S_all"] | None = None,
        positions: Int[Tensor, "B S"] | None = None,
        cache: Cache | None = None,
        rows: list[tuple[int, int]] | None = None,
    ) -> Float[Tensor, "n R"]:
        """Next-id logits at the selected positions only, so that the head never runs where nobody looks.

        Args:
            ids: text and motion ids.
            select: the n positions whose logits are wanted; None for the last of each sequence.
            mask: True on real ids, the cached ones included; not needed where padding is on the right.
            positions: place of each id in its sequence; needed where padding is on the left.
            cache: keys and values of earlier ids, extended in place.
            rows: score these ranges of motion rows instead of the whole vocabulary.
        """
        outputs = self.llm.base_model(
            input_ids=ids,
            attention_mask=None if mask is None else mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden = outputs.last_hidden_state
        hidden = hidden[:, -1] if select is None else hidden[select]
        head = self.llm.get_output_embeddings()
        return self._rescale(head(hidden) if rows is None else head.motion_logits(hidden, rows))

    def _rescale(self, logits: Float[Tensor, "n R"]) -> Float[Tensor, "n R"]:
        """What some families do to logits after their head (Cohere, Granite, Gemma 2), in fp32 from here on."""
        config = self.llm.config
        logits = logits.float() * (getattr(config, "logit_scale", None) or 1.0)
        logits = logits / (getattr(config, "logits_scaling", None) or 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


def new_rows(old: Float[Tensor, "V H"], num: int, *, seed: int) -> nn.Parameter:
    """Trainable rows spread like the old ones: their mean plus normal noise of their deviation in each dimension.

    A frozen base keeps its dtype while rows that train alone are float32; rows of a training base share its dtype.
    The draw is made on the CPU from ``seed``, the same on every rank.
    """
    table = old.detach().float().cpu()
    noise = torch.randn(num, table.shape[1], generator=torch.Generator().manual_seed(seed))
    rows = table.mean(0) + noise * table.std(0)
    return nn.Parameter(rows.to(old.device, old.dtype if old.requires_grad else torch.float32))
