"""Lookup-free quantization (Yu et al., ICLR 2024; 2D-LFQ, arXiv 2410.03311): each channel's sign is one bit.

Code of z: c_i = +1 if z_i > 0 else -1 (zero maps to -1), index Σ_{i=1..d} 2^(i-1)·1{z_i > 0}: the first channel is the
least significant bit. Loss = commitment_weight·||z - sg(c)||² + entropy_weight·(E[H(p(c|z))] - γ·H(E[p(c|z)])) with
p(c|z) = softmax_c(2 z·c / τ), a product of d sigmoids σ(4 z_i/τ). Hence, with no array of 2^d per latent:
the first entropy is a sum over bits; for the second, E[p] over codes is one product AᵀB/M of two tables of half the
bits, M x 2^(d/2) each.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.training import mean_over_ranks


class LookupFreeQuantizer(Quantizer):
    """2^d implicit codes (Q = 1).

    Args:
        latent_dim: C; projected to d channels and back where it is not d already.
        codebook_size: N = 2^d.
        commitment_weight: β of the commitment loss.
        entropy_weight: weight of the entropy terms.
        diversity: γ, weight of the batch entropy within the entropy terms.
        temperature: τ of p(c|z).
    """

    num_levels = 1
    bit_order = "lsb"
    places: Tensor  # 2^i of each bit

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 2**14,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.bits = codebook_size.bit_length() - 1
        if codebook_size != 2**self.bits or not 1 <= self.bits <= 20:
            raise ValueError(f"codebook_size of a lookup-free quantizer is a power of two up to 2^20: {codebook_size}")
        self.codebook_size = codebook_size
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity, self.temperature = diversity, temperature
        same = latent_dim == self.bits
        self.down: nn.Module = nn.Identity() if same else nn.Linear(latent_dim, self.bits)
        self.up: nn.Module = nn.Identity() if same else nn.Linear(self.bits, latent_dim)
        self.register_buffer("places", 2 ** torch.arange(self.bits), persistent=False)

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Signs of the channels, straight-through."""
        z = self.down(latents)
        bits = z > 0
        indices = (bits * self.places).sum(-1, keepdim=True)
        codes = bits.to(z) * 2 - 1
        real = z[mask].flatten(0, 1)
        commitment = F.mse_loss(real, codes[mask].flatten(0, 1))
        sample, batch = self.entropies(real)
        loss = self.commitment_weight * commitment + self.entropy_weight * (sample - self.diversity * batch)
        terms = {"commitment": commitment, "sample_entropy": sample, "batch_entropy": batch}
        return QuantizerOutput(
            self.up(z + (codes - z).detach()), indices, loss, {k: v.detach() for k, v in terms.items()}
        )

    def entropies(self, z: Float[Tensor, "M d"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean entropy of a latent's code and entropy of the mean code distribution, in nats; exact.

        The second is over all ranks' latents (each rank contributes equally).
        """
        logits = 4 * z / self.temperature
        log_one, log_zero = F.logsigmoid(logits), F.logsigmoid(-logits)
        one = log_one.exp()
        sample = -(one * log_one + log_zero.exp() * log_zero).sum(-1).mean()
        halves = [
            self._table(log_zero[:, part], log_one[:, part])
            for part in (slice(0, self.bits // 2), slice(self.bits // 2, self.bits))
        ]
        joint = mean_over_ranks(halves[0].T @ halves[1] / len(z))
        batch = -torch.special.xlogy(joint, joint.clamp_min(torch.finfo(joint.dtype).tiny)).sum()
        return sample, batch

    @staticmethod
    def _table(log_zero: Float[Tensor, "M h"], log_one: Float[Tensor, "M h"]) -> Float[Tensor, "M 2**h"]:
        """Probability of every setting of h bits, first bit least significant."""
        table = log_zero.new_zeros(len(log_zero), 1)
        for zero, one in zip(log_zero.unbind(-1), log_one.unbind(-1), strict=True):
            table = torch.cat([table + zero[:, None], table + one[:, None]], dim=-1)
        return table.exp()

    def decode(self, indices: Int[Tensor, "B t P 1"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        bits = (indices & self.places) > 0
        weight = next(iter(self.up.parameters()), None)
        return self.up(bits.to(torch.float32 if weight is None else weight.dtype) * 2 - 1)
