"""Vector quantization with an EMA codebook and reset of dead codes (T2M-GPT, Zhang et al., CVPR 2023).

Nearest code in Euclidean distance; loss = commitment_weight · ||z - sg(c)||². The codebook is the running mean of the
latents that chose each code; a code whose running count falls below ``reset_threshold`` becomes a latent of the batch.
Everything is a buffer, so a resumed run continues exactly.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.training import broadcast, sum_over_ranks


class Codebook(nn.Module):
    """N codes of C channels and the running sums they are the mean of."""

    codes: Tensor
    sums: Tensor
    counts: Tensor
    started: Tensor

    def __init__(self, size: int, dim: int, decay: float, reset_threshold: float) -> None:
        super().__init__()
        self.decay, self.reset_threshold = decay, reset_threshold
        codes = torch.randn(size, dim)
        self.register_buffer("codes", codes)
        self.register_buffer("sums", codes.clone())
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("started", torch.tensor(False))

    def nearest(self, latents: Float[Tensor, "M C"]) -> Int[Tensor, " M"]:
        """Index of the nearest code: argmax of z·c - |c|²/2, in chunks so that M x N never stands in memory."""
        half = self.codes.square().sum(-1) / 2
        return torch.cat([torch.addmm(-half, x, self.codes.T).argmax(-1) for x in latents.split(4096)])

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "M C"], indices: Int[Tensor, " M"]) -> None:
        """One EMA step on this batch (of all ranks); the first call draws the codebook from the batch."""
        size = len(self.codes)
        draw = torch.randint(len(latents), (size,), device=latents.device)
        candidates = broadcast(latents[draw] + 0.01 * latents.std() * torch.randn_like(latents[draw]))
        if not self.started:
            self.codes.copy_(candidates)
            self.sums.copy_(candidates)
            self.started.fill_(True)
            return
        sums = torch.zeros_like(self.sums).index_add_(0, indices, latents)
        counts = torch.bincount(indices, minlength=size).to(self.counts)
        self.sums.lerp_(sum_over_ranks(sums), 1 - self.decay)
        self.counts.lerp_(sum_over_ranks(counts), 1 - self.decay)
        alive = (self.counts >= self.reset_threshold)[:, None]
        mean = self.sums / self.counts.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        self.codes.copy_(torch.where(alive, mean, candidates))


class VectorQuantizer(Quantizer):
    """One codebook of looked-up codes (Q = 1).

    Args:
        latent_dim: C, channels of a latent and of a code.
        codebook_size: N.
        decay: EMA decay μ.
        commitment_weight: β of the commitment loss.
        reset_threshold: a code used less than this often in a batch (running mean) is replaced.
    """

    num_levels = 1

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 512,
        decay: float = 0.99,
        commitment_weight: float = 0.02,
        reset_threshold: float = 1.0,
    ) -> None:
        super().__init__()
        self.codebook_size, self.commitment_weight = codebook_size, commitment_weight
        self.codebook = Codebook(codebook_size, latent_dim, decay, reset_threshold)

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Nearest codes, straight-through."""
        z = latents
        indices = self.codebook.nearest(z.detach().flatten(0, 2)).view(*z.shape[:3], 1)
        codes = self.decode(indices)
        commitment = F.mse_loss(z[mask], codes[mask])
        return QuantizerOutput(
            z + (codes - z).detach(), indices, self.commitment_weight * commitment, {"commitment": commitment.detach()}
        )

    def decode(self, indices: Int[Tensor, "B t P 1"]) -> Float[Tensor, "B t P C"]:
        """Codes of indices."""
        return self.codebook.codes[indices.squeeze(-1)]

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """EMA step on the real latents."""
        self.codebook.update(latents.float()[mask].flatten(0, 1), output.indices[mask].flatten())
