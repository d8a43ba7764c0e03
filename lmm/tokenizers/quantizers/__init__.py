"""Quantizers: latents -> codes."""

from lmm.tokenizers.quantizers.binary_spherical import BinarySphericalQuantizer
from lmm.tokenizers.quantizers.entropy import EntropyOptions
from lmm.tokenizers.quantizers.finite_scalar import FiniteScalarQuantizer
from lmm.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from lmm.tokenizers.quantizers.partwise import PartwiseQuantizer
from lmm.tokenizers.quantizers.residual import ResidualQuantizer
from lmm.tokenizers.quantizers.vector import VectorQuantizer

__all__ = [
    "BinarySphericalQuantizer",
    "EntropyOptions",
    "FiniteScalarQuantizer",
    "LookupFreeQuantizer",
    "PartwiseQuantizer",
    "ResidualQuantizer",
    "VectorQuantizer",
]
