"""Lookup-free quantization (Yu et al., ICLR 2024; 2D-LFQ, arXiv 2410.03311): each channel's sign is one bit.

Code of z: c_i = +1 if z_i > 0 else -1 (zero maps to -1), index Σ_{i=1..d} 2^(i-1)·1{z_i > 0}: the first channel is the
least significant bit. The loss is that of `sign.py` with s = 1.
"""

from lmm.tokenizers.quantizers.bits import BitOrder
from lmm.tokenizers.quantizers.entropy import EntropyOptions
from lmm.tokenizers.quantizers.sign import SignQuantizer


class LookupFreeQuantizer(SignQuantizer):
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
        weights = (commitment_weight, entropy_weight, diversity)
        super().__init__(latent_dim, codebook_size, *weights, temperature, bit_order, sub_codes, entropy)
