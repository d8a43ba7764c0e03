"""Binary spherical quantization (BSQ, Zhao et al. 2024, arXiv 2406.07548): signs of a unit vector.

u = z/|z|, code c_i = ±1/√d by the sign of u_i, so that the error |u - c| is bounded. Loss = commitment_weight·||u -
sg(c)||² + entropy_weight·(E[H(p(c|u))] - γ·H(E[p(c|u)])), p(c|u) = softmax_c(2 u·c / τ) = Π σ(4 u_i / (τ √d)). The
published batch entropy is a sum over groups of 9 bits; here it is exact, and groups are an option (`entropy.py`).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.bits import BitIndices, BitOrder, signs
from lmm.tokenizers.quantizers.codebook import real_cells
from lmm.tokenizers.quantizers.entropy import BitEntropy, EntropyOptions
from lmm.tokenizers.quantizers.straight_through import straight_through


class BinarySphericalQuantizer(Quantizer):
    """2^d implicit codes on the unit sphere. Nine arguments, those of `LookupFreeQuantizer`.

    Args:
        latent_dim: C; projected to d channels and back where it is not d already.
        codebook_size: 2^d codes of a latent (published 2^18 and 2^36); a token is one of 2^(d / sub_codes).
        commitment_weight: β of the commitment loss; none is needed, the error being bounded.
        entropy_weight: weight ζ of the entropy terms (published with start_factor 3 over 2,000 updates).
        diversity: γ, weight of the batch entropy within the entropy terms.
        temperature: τ of p(c|u).
        bit_order: "msb" where the first channel is the most significant bit (as published), "lsb" the least.
        sub_codes: tokens that a code is spelled in; the first holds the first d / sub_codes channels.
        entropy: estimate and annealing of the entropy terms.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 2**18,
        commitment_weight: float = 0.0,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
        bit_order: BitOrder = "msb",
        sub_codes: int = 1,
        entropy: EntropyOptions = EntropyOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.code = BitIndices(codebook_size, sub_codes, bit_order)
        self.num_levels, self.codebook_size, self.bit_order = sub_codes, 2**self.code.width, bit_order
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity, self.temperature = diversity, temperature
        bits = self.code.num_bits
        self.scale = bits**-0.5
        self.down: nn.Module = nn.Identity() if latent_dim == bits else nn.Linear(latent_dim, bits)
        self.up: nn.Module = nn.Identity() if latent_dim == bits else nn.Linear(bits, latent_dim)
        self.entropy = BitEntropy(entropy)

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Signs of the channels at length one, straight-through from the unit vector."""
        u = F.normalize(self.down(latents), dim=-1, eps=1e-6)
        bits = u.detach() > 0
        codes, commitment = straight_through(u, signs(bits) * self.scale, mask)
        sample, batch = self.entropy(real_cells(u, mask) * (4 * self.scale / self.temperature))
        weight = self.entropy_weight * self.entropy.factor()
        loss = self.commitment_weight * commitment + weight * (sample - self.diversity * batch)
        terms = {"commitment": commitment, "sample_entropy": sample, "batch_entropy": batch}
        indices = self.code.to_indices(bits)
        return QuantizerOutput(self.up(codes), indices, loss, {k: v.detach() for k, v in terms.items()})

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        weight = next(iter(self.up.parameters()), self.code.places)
        return self.up(self.code.to_signs(indices).to(weight.dtype) * self.scale)

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """Advance the annealing of the entropy weight."""
        self.entropy.update()
