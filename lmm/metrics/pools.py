"""How well captions find their motions, exactly and with no draw, and how well they can.

Of N pairs, query i has n_i candidates nearer than its own, and s_i just as near. In a random pool of R of the N pairs
that holds pair i, it is hit at k if fewer than k of the nearer ones came along, which is hypergeometric:

    h_k(n) = Σ_{x<k} C(n, x) C(N-1-n, R-1-x) / C(N-1, R-1),      hit_i = mean of h_k(n_i), ..., h_k(n_i + s_i)

R-precision is the mean of hit_i: the expectation of the usual pools of 32 over all ways to make them. R = N is plain
recall. Among identical captions chance decides, so the best that is possible is n_i = 0 with s_i the number of other
pairs with the same caption: the ceiling.
"""

from collections import Counter
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

POOL = 32
_CHUNK = 1024  # rows of distances at a time


def expected_retrieval(
    texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], captions: list[str]
) -> dict[str, Float[Tensor, ""]]:
    """R-precision in pools of 32 and recall among all at 1, 2 and 3, both with their ceilings, and the median rank.

    Names are of text to motion; ``motion_to_text_`` stands before those of the other direction.

    Args:
        texts: points of the captions.
        motions: points of the motions; pair i is texts[i], motions[i].
        captions: what the texts are.
    """
    count = len(captions)
    counts = Counter(captions)
    same = torch.tensor([counts[caption] - 1 for caption in captions])
    figures = {}
    for prefix, (queries, candidates) in {"": (texts, motions), "motion_to_text_": (motions, texts)}.items():
        nearer, equal = _ranks(queries.double().cpu(), candidates.double().cpu())
        for name, pool in (("r_precision", min(POOL, count)), ("recall", count)):
            for k in (1, 2, 3):
                figures[f"{prefix}{name}_top{k}"] = _hits(nearer, equal, pool, k)
        figures[f"{prefix}median_rank"] = (1 + nearer + equal / 2).quantile(0.5)
    for name, pool in (("r_precision", min(POOL, count)), ("recall", count)):
        for k in (1, 2, 3):
            figures[f"{name}_top{k}_ceiling"] = _hits(torch.zeros_like(same), same, pool, k)
    return {name: value.float() for name, value in figures.items()}


def table(title: str, figures: Mapping[str, Tensor], count: int) -> str:
    """Both directions beside chance and what duplicate captions leave possible."""
    lines = ["", f"{title:<32}{'text→motion':>12}{'motion→text':>12}{'ceiling':>10}{'chance':>10}"]
    for name, row, pool in (
        ("r_precision", f"R-precision, pools of {min(POOL, count)}", min(POOL, count)),
        ("recall", f"recall among all {count}", count),
    ):
        for k in (1, 2, 3):
            key = f"{name}_top{k}"
            values = (figures[key], figures[f"motion_to_text_{key}"], figures[f"{key}_ceiling"], min(k / pool, 1.0))
            lines.append(f"{row + f', top {k}':<32}{values[0]:>12.3f}{values[1]:>12.3f}" + "".join(
                f"{value:>10.3f}" for value in values[2:]
            ))  # fmt: skip
    ranks = figures["median_rank"], figures["motion_to_text_median_rank"]
    return "\n".join([*lines, f"{'median rank':<32}{ranks[0]:>12.1f}{ranks[1]:>12.1f}{'':>10}{(count + 1) / 2:>10.1f}"])


def _ranks(
    queries: Float[Tensor, "N E"], candidates: Float[Tensor, "N E"]
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """How many candidates lie nearer to each query than its own, and how many others just as near."""
    nearer, equal = [], []
    for start in range(0, len(queries), _CHUNK):
        rows = torch.cdist(queries[start : start + _CHUNK], candidates)
        own = rows.diagonal(start)[:, None]
        nearer.append((rows < own).sum(1))
        equal.append((rows == own).sum(1) - 1)
    return torch.cat(nearer), torch.cat(equal)


def _hits(nearer: Int[Tensor, " N"], equal: Int[Tensor, " N"], pool: int, k: int) -> Float[Tensor, ""]:
    """Mean of hit_i."""
    others = len(nearer) - 1
    n = torch.arange(others + 1, dtype=torch.float64)
    hit = sum(
        (_log_choose(n, x) + _log_choose(others - n, pool - 1 - x) - _log_choose(torch.tensor(others), pool - 1)).exp()
        for x in range(min(k, pool))
    )
    below = torch.cat([torch.zeros(1, dtype=torch.float64), torch.as_tensor(hit).cumsum(0)])
    return ((below[nearer + equal + 1] - below[nearer]) / (equal + 1)).mean()


def _log_choose(n: Tensor, k: int) -> Tensor:
    """ln C(n, k); -∞ where k > n."""
    n = n.double()
    there = (n - k + 1).clamp_min(1)
    value = (n + 1).lgamma() - torch.tensor(k + 1.0, dtype=torch.float64).lgamma() - there.lgamma()
    return torch.where(n >= k, value, -torch.inf)
