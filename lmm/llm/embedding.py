"""A pretrained causal language model that also speaks motion, with its own matrices left as they are.

The embedding and the head are split instead of resized: the base matrices V "V H" stay the very same tensors, and a
new table M "num_new H" holds the rows of motion::

    embedding(id) = V[id]            if id < V   else  M[id - V]
    logits(h)     = [ V_head h ;  M_head h ]          M_head is M where the base model ties its weights

So the rows of text are bit-identical by construction, adapters hold the new rows only, nothing of size V is copied,
and generation scores motion rows alone with one small matmul. Training asks for `MotionLLM.nll`, which never makes the
logits of more than a chunk of positions and takes several samples a row.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PreTrainedModel

from lmm.llm.loss import Losses, linear_cross_entropy
from lmm.llm.rows import new_rows


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
        draw: makes the new rows from ``(old, seed=...)``, old being a table of text, such as
            ``partial(NoisyMean(), vocabulary=vocabulary)``; None for rows spread like the old ones (`lmm.llm.rows`).
    """

    def __init__(self, llm: PreTrainedModel, num_new: int, *, draw: Callable[..., nn.Parameter] | None = None) -> None:
        super().__init__()
        embedding, head = llm.get_input_embeddings(), llm.get_output_embeddings()
        if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
            raise ValueError(
                f"{type(llm).__name__} has {type(embedding).__name__} as embedding and {type(head).__name__} as head; "
                "choose a causal language model with an ordinary embedding and a linear head"
            )
        if head.out_features != embedding.num_embeddings:
            raise ValueError(f"the head has {head.out_features} rows and the embedding {embedding.num_embeddings}")
        draw = draw or partial(new_rows, num=num_new)
        motion = draw(embedding.weight, seed=0)
        if motion.shape != (num_new, embedding.embedding_dim):
            raise ValueError(
                f"{num_new} rows of {embedding.embedding_dim} are needed, drawn were {tuple(motion.shape)}"
            )
        tied = head.weight is embedding.weight
        llm.set_input_embeddings(MotionEmbedding(embedding, motion))
        llm.set_output_embeddings(MotionHead(head, motion if tied else draw(head.weight, seed=1)))
        self.llm = llm
        self._packs = False  # becomes True when that was found out

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

    def nll(
        self,
        ids: Int[Tensor, "B S"],
        labelled: Bool[Tensor, "B S"],
        *,
        labels: Int[Tensor, "B S"] | None = None,
        positions: Int[Tensor, "B S"] | None = None,
        segments: Int[Tensor, "B S"] | None = None,
        weights: Float[Tensor, "B S"] | None = None,
        motion_rows: bool = False,
        chunk: int | None = None,
    ) -> Losses:
        """Next-id cross-entropy of the labelled ids, without the logits of all positions (see `lmm.llm.loss`).

        Args:
            ids: text and motion ids, padded on the right.
            labelled: True on the n ids to be predicted, each from the one before it.
            labels: what is to be predicted there, where that is not what is read there.
            positions: place of each id in its sample; follows from ``segments``, and is compared with them.
            segments: which sample of its row an id belongs to, 1, 2 ..., and 0 on padding; samples of a row do not see
                each other. None where a row is one sample.
            weights: of each id in the loss.
            motion_rows: compare motion ids with motion ids only, for a loss on motion alone; far cheaper where text has
                many rows.
            chunk: positions at a time.

        Raises:
            ValueError: nothing is labelled, or an id that begins a sample or is padding; a text label with
                ``motion_rows``; segments with a model whose attention crosses them.
        """
        if segments is None and positions is not None:
            raise ValueError("positions belong to segments; leave them out where a row is one sample")
        places = None
        if segments is not None:
            places = _places(segments)
            if positions is not None and bool(((positions != places) & (segments > 0)).any()):
                raise ValueError("positions do not count up from 0 in each of the segments")
            if bool((labelled & (segments == 0)).any()):
                raise ValueError("padding (segment 0) is labelled")
            self._check_packing(ids.device)
        begins = labelled[:, 0] if places is None else labelled & (places == 0)
        if bool(begins.any()):
            raise ValueError("the first id of a sample is labelled, but nothing comes before it to predict it from")
        hidden = self.llm.base_model(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
        wanted = (ids if labels is None else labels)[labelled]
        head = self.llm.get_output_embeddings()
        # read here, not kept: a sharded model has its weights together in here only
        tables, first = [(head.base.weight, head.base.bias), (head.motion, None)], 0
        if motion_rows:
            tables, first = tables[1:], head.base.out_features
            if bool((wanted < first).any()):
                raise ValueError("text is labelled; motion_rows needs a loss on motion alone (loss_on_text: false)")
        losses = linear_cross_entropy(
            hidden[:, :-1][labelled[:, 1:]],
            tables,
            wanted - first,
            weights=None if weights is None else weights[labelled],
            scale=self._logit_scale,
            cap=self._logit_cap,
            chunk=chunk,
        )
        return losses._replace(labels=wanted)

    @torch.no_grad()
    def _check_packing(self, device: torch.device) -> None:
        """Find out once whether a sample sees what lies before it in its row.

        Transformers tells samples apart by positions that start again, but not all families ask it to (BLOOM, OPT),
        state-space models cannot, and flash attention does so in batches of one row only; nothing of that raises.
        """
        if self._packs:
            return
        segments = torch.tensor([[1] * 8 + [2] * 8, [1] * 5 + [2] * 11], device=device)
        same = torch.arange(2, 34, device=device).view(2, 16) % self.llm.get_output_embeddings().base.out_features
        hidden = []
        for ids in (same, same.masked_fill(segments == 1, 1)):
            with torch.random.fork_rng([] if device.type == "cpu" else [device]):
                torch.manual_seed(0)  # the same dropout in both
                outputs = self.llm.base_model(input_ids=ids, position_ids=_places(segments), use_cache=False)
            hidden.append(outputs.last_hidden_state[segments == 2].float())
        # exactly equal but for mixtures of experts, whose sums run in another order
        if (hidden[0] - hidden[1]).abs().mean() > 0.01 * hidden[0].abs().mean():
            config = self.llm.config
            raise ValueError(
                f"{type(self.llm).__name__} with {config._attn_implementation} attention lets samples of one row see "
                "each other; do not pack, or load it with sdpa or eager attention"
            )
        self._packs = True

    @property
    def _logit_scale(self) -> float:
        config = self.llm.config
        return (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    @property
    def _logit_cap(self) -> float | None:
        return getattr(self.llm.config, "final_logit_softcapping", None)

    def _rescale(self, logits: Float[Tensor, "n R"]) -> Float[Tensor, "n R"]:
        """What some families do to logits after their head (Cohere, Granite, Gemma 2), in fp32 from here on."""
        logits, cap = logits.float() * self._logit_scale, self._logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _places(segments: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Place of each id in its sample; 0 on padding, which thereby is a sample of its own each."""
    place = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = place.masked_fill(~starts, 0).cummax(1).values
    return (place - first).masked_fill(segments == 0, 0)
