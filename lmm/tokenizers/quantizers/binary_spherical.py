"""Binary spherical quantization (BSQ, Zhao et al. 2024, arXiv 2406.07548): signs of a unit vector.

u = z/|z|, code c_i = ±1/√d by the sign of u_i, so that the error |u - c| is bounded; the loss is that of `sign.py` with
s = 1/√d. The published batch entropy is a sum over groups of 9 bits; here it is exact, and groups are an option.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lmm.tokenizers.quantizers.bits import BitOrder
from lmm.tokenizers.quantizers.entropy import EntropyOptions
from lmm.tokenizers.quantizers.sign import SignQuantizer


class BinarySphericalQuantizer(SignQuantizer):
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
        weights = (commitment_weight, entropy_weight, diversity)
        super().__init__(latent_dim, codebook_size, *weights, temperature, bit_order, sub_codes, entropy)
        self.scale = self.code.num_bits**-0.5

    def normalize(self, z: Float[Tensor, "*M d"]) -> Float[Tensor, "*M d"]:
        """Length one."""
        return F.normalize(z, dim=-1, eps=1e-6)
