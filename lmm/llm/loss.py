"""Cross-entropy of a linear head without ever holding all logits.

A head W "V H" over n positions makes n·V logits, and plain cross-entropy keeps them, their softmax and its gradient: at
97,500 rows that is a gigabyte for each thousand positions. Here a chunk of positions goes through at a time, logits ->
loss -> gradient, all in the forward pass, as Liger Kernel does (Hsu et al. 2024)::

    z = scale · (h W^T + b), or cap · tanh(of that / cap)      nll_i = logsumexp(z_i) - z_i[label_i]
    loss = Σ w_i nll_i / Σ w_i      d loss / d z_i = w_i / Σ w · (softmax(z_i) - onehot(label_i))

so that one chunk's logits and the gradients themselves are all there is; the backward pass only scales those. W may lie
in several tables, one under another, such as the rows of text and of motion; a frozen one costs no gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_LOGITS = 2**25  # of a chunk: 128 MB in float32; larger gains nothing on a CPU, smaller reads the tables more often

Table = tuple[Float[Tensor, "_V H"], Float[Tensor, " _V"] | None]


class Losses(NamedTuple):
    """Cross-entropy over n labels: only ``loss``, their weighted mean, carries a gradient."""

    loss: Float[Tensor, ""]
    nll: Float[Tensor, " n"]
    correct: Bool[Tensor, " n"]
    labels: Int[Tensor, " n"]


def linear_cross_entropy(
    hidden: Float[Tensor, "n H"],
    tables: Sequence[Table],
    labels: Int[Tensor, " n"],
    *,
    weights: Float[Tensor, " n"] | None = None,
    scale: float = 1.0,
    cap: float | None = None,
    chunk: int | None = None,
) -> Losses:
    """Cross-entropy of ``labels`` under a linear head, in chunks.

    Products run in the dtype of ``hidden``, or autocast's where that is on; softmax and sums in float32 at least.

    Args:
        hidden: what the head reads.
        tables: weight and bias of the head's parts; the first part's rows are the labels from 0 on, and so forth.
        labels: row of each position among all tables' rows.
        weights: of each position in the mean, none negative; None for equal ones.
        scale: multiplies the logits.
        cap: softly bounds the scaled logits by cap · tanh(logits / cap).
        chunk: positions at a time; None for as many as make 2^25 logits.

    Returns:
        The loss with its gradient to ``hidden`` and to every table that requires one, and what each position has; the
        gradient can be asked for once.

    Raises:
        ValueError: no labels, a label that no table has, tables of another width, or weights with no sum.
    """
    if len(labels) == 0:
        raise ValueError("there is nothing to predict: no id of the batch is labelled; leave such samples out")
    if wrong := [tuple(weight.shape) for weight, _ in tables if weight.ndim != 2 or weight.shape[1] != hidden.shape[1]]:
        raise ValueError(
            f"tables of {wrong} do not fit hidden states of {hidden.shape[1]}; a head must not be quantized"
        )
    num_rows = sum(len(weight) for weight, _ in tables)
    if int(labels.min()) < 0 or int(labels.max()) >= num_rows:
        raise ValueError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, the head's rows to {num_rows - 1}"
        )
    if weights is None:
        shares = hidden.new_full((len(labels),), 1 / len(labels), dtype=_statistics(hidden.dtype))
    else:
        if bool((weights < 0).any()) or not float(weights.sum()) > 0:
            raise ValueError("weights of the loss must not be negative, nor all zero")
        shares = weights.to(_statistics(hidden.dtype))
        shares = shares / shares.sum()
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    chunk = max(_LOGITS // num_rows, 1) if chunk is None else chunk
    parts = [part for table in tables for part in table]
    with torch.autocast(device, enabled=False):  # the dtype is settled here, once for all products
        loss, nll, correct = _LinearCrossEntropy.apply(
            hidden, labels, shares, scale, cap, chunk, dtype, torch.is_grad_enabled(), *parts
        )
    return Losses(loss, nll, correct, labels)


class _LinearCrossEntropy(Function):
    """Gradients are made beside the loss; ``parts`` are weight, bias, weight, bias ..."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        labels: Tensor,
        shares: Tensor,
        scale: float,
        cap: float | None,
        chunk: int,
        dtype: torch.dtype,
        learning: bool,  # False in a no_grad block, where the inputs still say that they require a gradient
        *parts: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = hidden.to(dtype)
        weights = [part.to(dtype) for part in parts[::2] if part is not None]
        stops = torch.tensor([len(weight) for weight in weights]).cumsum(0).tolist()
        columns = [slice(stop - len(weight), stop) for stop, weight in zip(stops, weights, strict=True)]
        needed = [learning and needs for needs in (ctx.needs_input_grad[0], *ctx.needs_input_grad[8:])]
        of_hidden = torch.empty_like(hidden) if needed[0] else None
        # float32 sums even where products are bfloat16: many chunks' small shares would round away
        of_parts = [
            torch.zeros_like(part, dtype=_statistics(part.dtype)) if part is not None and needs else None
            for part, needs in zip(parts, needed[1:], strict=True)
        ]
        nll, correct = shares.new_empty(len(labels)), labels.new_empty(len(labels), dtype=torch.bool)
        chunk = -(-len(labels) // -(-len(labels) // chunk))  # equal ones, for a small last one is slow
        scores = inputs.new_empty(chunk, stops[-1])
        for start in range(0, len(labels), chunk):
            here = slice(start, start + chunk)
            rows, target = inputs[here], labels[here, None]
            for weight, bias, column in zip(weights, parts[1::2], columns, strict=True):
                out = scores[: len(rows), column]
                for block in _blocks(weight):
                    torch.mm(rows, weight[block].T, out=out[:, block])
                if bias is not None:
                    out += bias
            logits, slope = _rescaled(scores[: len(rows)], scale, cap)
            peak, best = logits.max(-1, keepdim=True)
            chosen = logits.gather(-1, target)
            powers = logits.sub_(peak).exp_()
            total = powers.sum(-1, keepdim=True)
            nll[here] = (total.log() + peak - chosen).squeeze(-1)
            correct[here] = (best == target).squeeze(-1)
            if not any(needed):
                continue
            share = shares[here, None]
            of_logits = powers.mul_(share / total).scatter_add_(-1, target, -share)
            if slope is not None:
                of_logits *= slope
            elif scale != 1:
                of_logits *= scale
            of_logits = of_logits.to(dtype)
            if of_hidden is not None:
                products = (of_logits[:, column] @ weight for weight, column in zip(weights, columns, strict=True))
                of_hidden[here] = sum(products)  # type: ignore[arg-type]
            for of_weight, of_bias, column in zip(of_parts[::2], of_parts[1::2], columns, strict=True):
                if of_weight is not None:
                    for block in _blocks(of_weight):
                        _add_product(of_weight[block], of_logits[:, column][:, block].T, rows)
                if of_bias is not None:
                    of_bias += of_logits[:, column].sum(0)
        ctx.save_for_backward(of_hidden, *of_parts)
        ctx.dtypes = [None if part is None else part.dtype for part in (hidden, *parts)]
        ctx.mark_non_differentiable(nll, correct)
        return (shares * nll).sum(), nll, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # In place, for a table's gradient is as large as the table; autograd refuses a second backward pass by itself.
        gradients = [
            None if gradient is None else gradient.mul_(of_loss).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (gradients[0], *[None] * 7, *gradients[1:])


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _blocks(table: Tensor) -> list[slice]:
    """Rows for one product: a CPU is up to twice as fast where a block stays in its cache, a GPU wants all at once."""
    size = 1024 if table.device.type == "cpu" else max(len(table), 1)
    return [slice(start, start + size) for start in range(0, len(table), size)]


def _rescaled(scores: Tensor, scale: float, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits that may be overwritten, in the dtype of statistics, and where they are capped d logits / d scores."""
    logits = scores.to(_statistics(scores.dtype))
    if scale != 1:
        logits *= scale
    if cap is None:
        return logits, None
    bounded = logits.div_(cap).tanh_()
    slope = (1 - bounded.square()).mul_(scale)
    return bounded.mul_(cap), slope


def _statistics(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
