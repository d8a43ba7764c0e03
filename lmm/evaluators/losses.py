"""What trains an evaluator: contrastive losses over all pairs of a batch, and TMR's regularization of the latents.

InfoNCE (van den Oord et al. 2018; TMR, Petrovich et al., ICCV 2023): with S_ij = cos(text_i, motion_j) / τ,

    L = -1/2N Σ_i [ log(exp S_ii / Σ_j exp S_ij) + log(exp S_ii / Σ_j exp S_ji) ]

where pairs i ≠ j whose captions say the same are left out of both sums. Margin (Hadsell et al. 2006; the evaluator of
Guo et al., CVPR 2022): with D_ij the Euclidean distance, L = mean_i D_ii² + mean_{i≠j} max(0, m - D_ij)².
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.evaluators.similarity import TextSimilarity, WordOverlap


@dataclass(frozen=True)
class LossWeights:
    """TMR's; all but the first matter only to a model with a motion decoder.

    Args:
        contrastive: of matching motions with captions.
        reconstruction: of the motion decoded from its own latent plus that from its caption's (smooth-L1 each).
        kl: of KL(text ‖ motion) + KL(motion ‖ text) + KL(motion ‖ N(0, 1)) + KL(text ‖ N(0, 1)).
        latent: of the smooth-L1 between the latents of motion and caption.
    """

    contrastive: float = 0.1
    reconstruction: float = 1.0
    kl: float = 1e-5
    latent: float = 1e-5


class ContrastiveLoss(nn.Module, ABC):
    """Pulls each motion and its caption together, pushes all other pairs apart, over the batches of all ranks.

    Args:
        similarity: factory of what says which captions mean the same; such pairs are not pushed apart.
    """

    def __init__(self, similarity: Callable[[], TextSimilarity]) -> None:
        super().__init__()
        self.similarity = similarity()

    @staticmethod
    @abstractmethod
    def points(latents: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Where latents lie in the space in which this loss compares, and its evaluator measures, by distance."""

    @abstractmethod
    def compare(
        self, texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], alike: Bool[Tensor, "N N"]
    ) -> Float[Tensor, ""]:
        """The loss of points; i matches i, and no other pair in ``alike`` is pushed apart."""

    def forward(
        self, texts: Float[Tensor, "B E"], motions: Float[Tensor, "B E"], captions: list[str]
    ) -> Float[Tensor, ""]:
        """The loss of latents; the same number on every rank, each with the gradient of its own rows."""
        with torch.autocast(texts.device.type, enabled=False):
            texts, motions = (_of_all_ranks(self.points(x.float())) for x in (texts, motions))
            alike = self.similarity.alike(_of_all_ranks(self.similarity(captions)))
            alike = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
            return self.compare(texts, motions, alike)


class InfoNCE(ContrastiveLoss):
    """Points of length 1, so that the order by Euclidean distance is that by cosine.

    Args:
        similarity: see `ContrastiveLoss`.
        temperature: τ.
    """

    def __init__(self, similarity: Callable[[], TextSimilarity] = WordOverlap, *, temperature: float = 0.1) -> None:
        super().__init__(similarity)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    @staticmethod
    def points(latents: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Scaled to length 1."""
        return F.normalize(latents, dim=-1)

    def compare(
        self, texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], alike: Bool[Tensor, "N N"]
    ) -> Float[Tensor, ""]:
        """Mean of both directions."""
        scores = (texts @ motions.mT / self.temperature).masked_fill(alike, -torch.inf)
        own = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.mT, own)) / 2


class Margin(ContrastiveLoss):
    """Guo et al. push one drawn wrong pair a caption apart, this one all of the batch.

    Args:
        similarity: see `ContrastiveLoss`.
        margin: m, the distance at which wrong pairs are left alone.
    """

    def __init__(self, similarity: Callable[[], TextSimilarity] = WordOverlap, *, margin: float = 10.0) -> None:
        super().__init__(similarity)
        self.margin = margin

    @staticmethod
    def points(latents: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """The latents themselves."""
        return latents

    def compare(
        self, texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"], alike: Bool[Tensor, "N N"]
    ) -> Float[Tensor, ""]:
        """Mean over the right pairs plus mean over the wrong ones."""
        squares = (texts[:, None] - motions).square().sum(-1)
        wrong = ~alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        gaps = (self.margin - (squares + 1e-12).sqrt()).clamp_min(0).square()  # sqrt has no gradient at 0
        return squares.diagonal().mean() + (gaps * wrong).sum() / wrong.sum().clamp_min(1)


def gaussian_kl(
    mean: Float[Tensor, "B E"], log_var: Float[Tensor, "B E"], to_mean: Tensor, to_log_var: Tensor
) -> Float[Tensor, ""]:
    """KL divergence of diagonal Gaussians from others, mean over batch and dimensions (TEMOS and TMR)."""
    ratio = log_var - to_log_var
    return 0.5 * (ratio.exp() + (to_mean - mean).square() / to_log_var.exp() - 1 - ratio).mean()


def _of_all_ranks(x: Float[Tensor, "B E"]) -> Float[Tensor, "N E"]:
    """Rows of all ranks, with their gradient: each rank computes the whole loss, and DDP's mean is then exact."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x.contiguous()))
    return x
