"""Lookup-free quantization (Yu et al., ICLR 2024; 2D-LFQ, arXiv 2410.03311): each channel's sign is one bit.

Code of z: c_i = +1 if z_i > 0 else -1 (zero maps to -1), index Σ_{i=1..d} 2^(i-1)·1{z_i > 0}: the first channel is the
least significant bit. Loss = commitment_weight·||z - sg(c)||² + entropy_weight·(E[H(p(c|z))] - γ·H(E[p(c|z)])) with
p(c|z) = softmax_c(2 z·c / τ), a product of d sigmoids σ(4 z_i/τ); both entropies are exact (`entropy.py`).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.bits import BitIndices, BitOrder, signs
from lmm.tokenizers.quantizers.codebook import real_cells
from lmm.tokenizers.quantizers.entropy import BitEntropy, EntropyOptions
from lmm.tokenizers.quantizers.straight_through import straight_through


class LookupFreeQuantizer(Quantizer):
    """2^d implicit codes (Q = 1, or the number of sub-codes). Nine arguments: five are the published loss's own.

    Args:
        latent_dim: C; projected to d channels and back where it is not d already.
        codebook_size: 2^d codes of a latent; a token is one of 2^(d / sub_codes).
        commitment_weight: β of the commitment loss.
        entropy_weight: weight of the entropy terms.
        diversity: γ, weight of the batch entropy within the entropy terms.
        temperature: τ of p(c|z) (Open-MAGVIT2 0.01).
        bit_order: "lsb" where the first channel is the least significant bit, "msb" where it is the most significant.
        sub_codes: tokens that a code is spelled in; the first holds the first d / sub_codes channels.
        entropy: estimate and annealing of the entropy terms.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 2**14,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
        bit_order: BitOrder = "lsb",
        sub_codes: int = 1,
        entropy: EntropyOptions = EntropyOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.code = BitIndices(codebook_size, sub_codes, bit_order)
        self.num_levels, self.codebook_size, self.bit_order = sub_codes, 2**self.code.width, bit_order
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity, self.temperature = diversity, temperature
        bits = self.code.num_bits
        self.down: nn.Module = nn.Identity() if latent_dim == bits else nn.Linear(latent_dim, bits)
        self.up: nn.Module = nn.Identity() if latent_dim == bits else nn.Linear(bits, latent_dim)
        self.entropy = BitEntropy(entropy)

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Signs of the channels, straight-through."""
        z = self.down(latents)
        bits = z.detach() > 0
        codes, commitment = straight_through(z, signs(bits), mask)
        sample, batch = self.entropy(real_cells(z, mask) * (4 / self.temperature))
        weight = self.entropy_weight * self.entropy.factor()
        loss = self.commitment_weight * commitment + weight * (sample - self.diversity * batch)
        terms = {"commitment": commitment, "sample_entropy": sample, "batch_entropy": batch}
        indices = self.code.to_indices(bits)
        return QuantizerOutput(self.up(codes), indices, loss, {k: v.detach() for k, v in terms.items()})

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        weight = next(iter(self.up.parameters()), self.code.places)
        return self.up(self.code.to_signs(indices).to(weight.dtype))

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """Advance the annealing of the entropy weight."""
        self.entropy.update()
