"""What lookup-free and binary spherical quantization share: each code is the signs of d channels, at a scale s.

Code of z: c_i = +s if z_i > 0 else -s. Loss = commitment_weight·||z - sg(c)||² + entropy_weight·(E[H(p(c|z))] -
γ·H(E[p(c|z)])) with p(c|z) = softmax_c(2 z·c / τ) = Π σ(4 s z_i / τ); both entropies are exact (`entropy.py`).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.bits import BitIndices, BitOrder, signs
from lmm.tokenizers.quantizers.codebook import real_cells
from lmm.tokenizers.quantizers.entropy import BitEntropy, EntropyOptions
from lmm.tokenizers.quantizers.straight_through import straight_through


class SignQuantizer(Quantizer):
    """2^d implicit codes; arguments as `LookupFreeQuantizer`."""

    scale = 1.0

    def __init__(
        self,
        latent_dim: int,
        codebook_size: int,
        commitment_weight: float,
        entropy_weight: float,
        diversity: float,
        temperature: float,
        bit_order: BitOrder,
        sub_codes: int,
        entropy: EntropyOptions,
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

    def normalize(self, z: Float[Tensor, "*M d"]) -> Float[Tensor, "*M d"]:
        """What the signs are taken of; the channels as they are."""
        return z

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Signs of the channels, straight-through."""
        z = self.normalize(self.down(latents))
        bits = z.detach() > 0
        codes, commitment = straight_through(z, signs(bits) * self.scale, mask)
        sample, batch = self.entropy(real_cells(z, mask) * (4 * self.scale / self.temperature))
        weight = self.entropy_weight * self.entropy.factor()
        loss = self.commitment_weight * commitment + weight * (sample - self.diversity * batch)
        terms = {"commitment": commitment, "sample_entropy": sample, "batch_entropy": batch}
        terms = {name: term.detach() for name, term in terms.items()}
        return QuantizerOutput(self.up(codes), self.code.to_indices(bits), loss, terms)

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        weight = next(iter(self.up.parameters()), self.code.places)
        return self.up(self.code.to_signs(indices).to(weight.dtype) * self.scale)

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """Advance the annealing of the entropy weight."""
        self.entropy.update()
