"""Encoders and decoders."""

from lmm.tokenizers.networks.causal import Stream
from lmm.tokenizers.networks.conv1d import Conv1dDecoder, Conv1dEncoder
from lmm.tokenizers.networks.conv2d import Conv2dDecoder, Conv2dEncoder
from lmm.tokenizers.networks.transformer import TransformerDecoder, TransformerEncoder

__all__ = [
    "Conv1dDecoder",
    "Conv1dEncoder",
    "Conv2dDecoder",
    "Conv2dEncoder",
    "Stream",
    "TransformerDecoder",
    "TransformerEncoder",
]
