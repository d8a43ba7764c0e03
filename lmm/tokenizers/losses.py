"""Reconstruction loss on normalized features, by named blocks."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.motion.representations.base import MotionRepresentation


class ReconstructionLoss(nn.Module):
    """Smooth-L1 over all features plus extra weight on blocks.

    T2M-GPT: smooth-L1 of all 263 dimensions + 0.5 · smooth-L1 of the joint positions (which its code calls velocity).

    Args:
        representation: gives the blocks.
        block_weights: block name -> weight of its own smooth-L1 mean, on top of the mean over all features.
    """

    def __init__(self, representation: MotionRepresentation, block_weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.block_weights = {"positions": 0.5} if block_weights is None else block_weights
        self.slices = representation.slices
        unknown = sorted(set(self.block_weights) - set(self.slices))
        if unknown:
            raise ValueError(
                f"{type(representation).__name__} has no block {', '.join(unknown)} to weigh; it has "
                f"{', '.join(self.slices)}"
            )

    def forward(
        self,
        reconstruction: Float[Tensor, "B T D"],
        features: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The weighted loss, and the plain mean of each term for the log."""
        error = F.smooth_l1_loss(reconstruction, features, reduction="none")[mask]
        terms = {"features": error.mean()} | {name: error[:, self.slices[name]].mean() for name in self.block_weights}
        loss = terms["features"] + sum((w * terms[name] for name, w in self.block_weights.items()), torch.zeros(()))
        return loss, {name: term.detach() for name, term in terms.items()}
