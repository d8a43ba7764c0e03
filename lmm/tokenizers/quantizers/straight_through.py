"""Straight-through gradient and commitment loss as one node of autograd (van den Oord et al., NeurIPS 2017).

Forward: the codes themselves, and the mean of ||z - sg(c)||² over real cells. Backward: the decoder's gradient passes
to the latents unchanged, and commitment adds 2 (z - c) / n to it; no array is kept that the network does not hold
anyway. The values are exactly the codes', which z + sg(c - z) is not.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def straight_through(
    latents: Float[Tensor, "B t P C"], codes: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]
) -> tuple[Float[Tensor, "B t P C"], Float[Tensor, ""]]:
    """The codes with the latents' gradient, and the mean squared distance over cells where ``mask`` is True."""
    squares = (latents.detach() - codes).square().sum((2, 3)).masked_fill(~mask, 0.0).sum()
    return commit(latents, codes, squares, mask)


def commit(
    latents: Float[Tensor, "B t P C"],
    codes: Float[Tensor, "B t P C"],
    squares: Float[Tensor, ""],
    mask: Bool[Tensor, "B t"],
    earlier: Float[Tensor, "B t P C"] | None = None,
    depth: int = 1,
) -> tuple[Float[Tensor, "B t P C"], Float[Tensor, ""]]:
    """As `straight_through` where the distances are known.

    Args:
        latents: what was quantized.
        codes: what it became.
        squares: sum of the squared residuals of all levels in real cells.
        mask: real steps.
        earlier: sum of what all levels but the last left over (None where there is one level).
        depth: levels, over which the commitment is a mean.
    """
    share = 1 / (mask.sum() * (latents.shape[2] * latents.shape[3] * depth))
    out: tuple[Tensor, Tensor] = _StraightThrough.apply(latents, codes, squares * share, 2 * share, mask, earlier)
    return out


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        latents: Tensor,
        codes: Tensor,
        commitment: Tensor,
        scale: Tensor,
        mask: Tensor,
        earlier: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(latents, codes, scale, mask, earlier)
        return codes.view_as(codes), commitment.view_as(commitment)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_codes: Tensor, of_commitment: Tensor) -> tuple[Tensor | None, ...]:
        latents, codes, scale, mask, earlier = ctx.saved_tensors
        pull = latents - codes
        if earlier is not None:
            pull += earlier
        if not mask.all():
            pull.masked_fill_(~mask[..., None, None], 0.0)
        return torch.addcmul(of_codes, pull, scale * of_commitment, out=pull), None, None, None, None, None
