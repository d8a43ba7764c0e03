"""Retrieval among the whole test set, as TMR (Petrovich et al. 2023) measures it: R@1, 2, 3, 5, 10 and the median rank.

Given is one matrix of similarities "N N": rows are texts, columns motions, larger is nearer (the negative of a distance
will do). TMR's four protocols:

* all: every text among all motions, every motion among all texts: `retrieval(similarity)`.
* threshold: a motion whose caption is nearly the query's is right too: `retrieval(similarity, same_text(cosine))`.
* dissimilar ("nsim"): 100 pairs whose texts are far apart: `retrieval(subset(similarity, dissimilar(cosine)))`. TMR
  took the 100 from an approximate solution of a quadratic knapsack problem and published the list (its split
  ``nsim_test``); `dissimilar` is greedy and finds others, so give the list's indices to compare with TMR's tables.
* guo: batches of 32, `retrieval_in_batches(similarity)`; rows in the sorted order of their ids give TMR's batches.

Recalls are shares, where TMR prints percent. Equally near ones share the mean of their places, as in TMR.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RECALLS = (1, 2, 3, 5, 10)


def retrieval(
    similarity: Float[Tensor, "N N"], same: Bool[Tensor, "N N"] | None = None
) -> dict[str, Float[Tensor, ""]]:
    """``text_to_motion/R@1`` and so on, ``text_to_motion/MedR`` (1 is best), and the same of ``motion_to_text``.

    Args:
        similarity: rows are texts, columns are motions.
        same: pairs whose texts count as the same; the diagonal always does.

    Raises:
        ValueError: similarities that are not finite.
    """
    back = None if same is None else same.mT
    directions = {"text_to_motion": (similarity, same), "motion_to_text": (similarity.mT, back)}
    figures: dict[str, Tensor] = {}
    for direction, arguments in directions.items():
        places = retrieval_ranks(*arguments)
        figures |= {f"{direction}/R@{k}": (places < k).double().mean() for k in RECALLS}
        figures[f"{direction}/MedR"] = places.quantile(0.5) + 1  # unlike median(), the mean of the two in the middle
    return figures


def retrieval_in_batches(
    similarity: Float[Tensor, "N N"], *, size: int = 32, seed: int = 0
) -> dict[str, Float[Tensor, ""]]:
    """TMR's protocol "guo": `retrieval` in batches of 32, mean over batches; the last, incomplete one is dropped.

    Args:
        similarity: rows and columns in the sorted order of their ids, for TMR's batches.
        size: pairs in a batch.
        seed: of numpy's legacy shuffle, as TMR's.

    Raises:
        ValueError: fewer pairs than a batch, or similarities that are not finite.
    """
    if len(similarity) < size:
        raise ValueError(f"needs at least one batch of {size} pairs, got {len(similarity)}; give a smaller size")
    order = np.arange(len(similarity))
    np.random.RandomState(seed).shuffle(order)
    batches = torch.from_numpy(order)[: len(order) // size * size].view(-1, size)
    each = [retrieval(subset(similarity, batch)) for batch in batches]
    return {name: torch.stack([figures[name] for figures in each]).mean() for name in each[0]}


def tmr_protocols(
    similarity: Float[Tensor, "N N"], alike: Bool[Tensor, "N N"], *, size: int = 32
) -> dict[str, dict[str, Float[Tensor, ""]]]:
    """Protocol -> figures: among all, where alike texts count as one, and in small batches (if there is one).

    Args:
        similarity: see `retrieval_in_batches`.
        alike: see `retrieval`.
        size: pairs in a small batch.
    """
    found = {"all": retrieval(similarity), "threshold": retrieval(similarity, alike)}
    return found | ({"small_batches": retrieval_in_batches(similarity, size=size)} if len(similarity) >= size else {})


def tmr_table(figures: Mapping[str, Tensor]) -> str:
    """Both directions of each protocol, from figures by ``protocol/direction/figure``."""
    names = [*(f"R@{k}" for k in RECALLS), "MedR"]
    lines = ["", f"{'retrieval (TMR)':<32}" + "".join(f"{name:>8}" for name in names)]
    for protocol in ("all", "threshold", "small_batches"):
        for direction in ("text_to_motion", "motion_to_text"):
            values = [figures.get(f"{protocol}/{direction}/{name}") for name in names]
            row = f"{protocol.replace('_', ' ')}, {direction.replace('_to_', '→')}"
            cells = [f"{value:>8.1f}" if name == "MedR" else f"{value:>8.3f}"
                     for name, value in zip(names, values, strict=True) if value is not None]  # fmt: skip
            lines += [f"{row:<32}" + "".join(cells)] if cells else []
    return "\n".join(lines)


def retrieval_ranks(similarity: Float[Tensor, "N N"], same: Bool[Tensor, "N N"] | None = None) -> Float[Tensor, " N"]:
    """Place of each row's nearest right column, from 0; equally near ones share the mean of their places.

    Raises:
        ValueError: similarities that are not finite.
    """
    if not similarity.isfinite().all():
        raise ValueError("some similarities are not finite; find the embeddings that made them")
    right = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    best = similarity.masked_fill(~(right if same is None else same | right), -torch.inf).amax(-1, keepdim=True)
    nearer, level = (similarity > best).sum(-1), (similarity == best).sum(-1)
    return nearer + (level.double() - 1) / 2


def same_text(cosine: Float[Tensor, "N N"], *, threshold: float = 0.95) -> Bool[Tensor, "N N"]:
    """Which texts count as the same: (1 + cosine) / 2 above the threshold. TMR's .95 is a cosine of .9."""
    return (1 + cosine) / 2 > threshold


def dissimilar(cosine: Float[Tensor, "N N"], count: int = 100) -> Int[Tensor, " count"]:
    """Indices of so many texts that are unlike each other, in ascending order.

    Greedy: from the text that is least like all others on, always the one that is least like those already chosen.

    Raises:
        ValueError: fewer texts than asked for.
    """
    if not 1 <= count <= len(cosine):
        raise ValueError(f"cannot choose {count} of {len(cosine)} texts; ask for at least 1 and at most all")
    likeness = cosine.double().sum(-1) - cosine.diagonal()
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(likeness.argmin()))
        likeness = cosine[:, chosen].double().sum(-1)
        likeness[chosen] = torch.inf
    return torch.tensor(sorted(chosen))


def subset(similarity: Float[Tensor, "N N"], indices: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Rows and columns of these pairs alone."""
    return similarity[indices][:, indices]
