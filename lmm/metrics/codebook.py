"""How well a codebook is used: share of codes seen, and perplexity of their distribution."""

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric


class CodebookUsage(Metric):
    """Perplexity exp(H) of the codes and the share of the codebook that was used at all.

    Args:
        codebook_size: N; codes of all parts and levels are counted together.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(codebook_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, tokens: Int[Tensor, "..."]) -> None:
        """Count codes; -1 (padding, dropped levels) is left out."""
        self.counts += torch.bincount(tokens[tokens >= 0], minlength=len(self.counts))

    def compute(self) -> dict[str, Tensor]:
        """``perplexity`` in codes and ``usage`` in [0, 1]."""
        p = self.counts / self.counts.sum()
        return {
            "perplexity": torch.exp(-torch.special.xlogy(p, p).sum()),
            "usage": (self.counts > 0).float().mean(),
        }
