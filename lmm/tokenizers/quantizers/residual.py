"""Residual vector quantization with quantize-dropout (MoMask, Guo et al., CVPR 2024; SoundStream).

Level q quantizes what levels 0..q-1 left over; each level has its own EMA codebook. With probability
``dropout`` a training batch keeps only the first levels, so that a prefix of levels already decodes well; dropped
levels have index -1. Loss = commitment_weight · mean over levels of ||r_q - sg(c_q)||².
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.vector import Codebook
from lmm.training import broadcast


class ResidualQuantizer(Quantizer):
    """Q codebooks, each for the rest of the one before.

    Args:
        latent_dim: C, channels of a latent and of a code.
        num_levels: Q.
        codebook_size: N of every level.
        dropout: probability that a training batch drops the levels after a random one.
        decay: EMA decay μ.
        commitment_weight: β of the commitment loss.
        reset_threshold: a code used less than this often in a batch (running mean) is replaced.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_levels: int = 6,
        codebook_size: int = 512,
        dropout: float = 0.2,
        decay: float = 0.99,
        commitment_weight: float = 0.02,
        reset_threshold: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_levels, self.codebook_size = num_levels, codebook_size
        self.dropout, self.commitment_weight = dropout, commitment_weight
        self.levels = nn.ModuleList(
            Codebook(codebook_size, latent_dim, decay, reset_threshold) for _ in range(num_levels)
        )

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Sum of the nearest codes of each level, straight-through."""
        z = latents
        depth = self.num_levels
        if self.training and self.dropout:
            drop, keep = broadcast(torch.rand(2, device=z.device)).tolist()  # one depth for all ranks
            if drop < self.dropout:
                depth = 1 + int(keep * self.num_levels)
        total, indices, losses = torch.zeros_like(z), [], []
        for codebook in self.levels[:depth]:
            rest = z - total
            index = codebook.nearest(rest.detach().flatten(0, 2)).view(z.shape[:3])  # type: ignore[operator]
            code = codebook.codes[index]  # type: ignore[index]
            losses.append(F.mse_loss(rest[mask], code[mask]))
            total = total + code
            indices.append(index)
        indices += [torch.full_like(indices[0], -1)] * (self.num_levels - depth)
        commitment = torch.stack(losses).mean()
        return QuantizerOutput(
            z + (total - z).detach(),
            torch.stack(indices, dim=-1),
            self.commitment_weight * commitment,
            {"commitment": commitment.detach()},
        )

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Sum of the levels' codes; an index of -1 adds nothing."""
        codes = [
            torch.where((i >= 0)[..., None], codebook.codes[i.clamp_min(0)], 0.0)  # type: ignore[index]
            for codebook, i in zip(self.levels, indices.unbind(-1), strict=True)
        ]
        return torch.stack(codes).sum(0)

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """EMA step of every level that was used; residuals are those of the forward pass."""
        rest = latents.float()[mask].flatten(0, 1)
        for codebook, index in zip(self.levels, output.indices[mask].flatten(0, 1).unbind(-1), strict=True):
            if index[0] < 0:
                return
            code = codebook.codes[index]  # type: ignore[index]
            codebook.update(rest, index)  # type: ignore[operator]
            rest = rest - code
