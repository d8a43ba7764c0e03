"""Quantizers: latents -> codes."""

from lmm.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from lmm.tokenizers.quantizers.residual import ResidualQuantizer
from lmm.tokenizers.quantizers.vector import VectorQuantizer

__all__ = ["LookupFreeQuantizer", "ResidualQuantizer", "VectorQuantizer"]
