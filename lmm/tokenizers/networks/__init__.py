"""Encoders and decoders."""

from lmm.tokenizers.networks.conv1d import Conv1dDecoder, Conv1dEncoder
from lmm.tokenizers.networks.conv2d import Conv2dDecoder, Conv2dEncoder

__all__ = ["Conv1dDecoder", "Conv1dEncoder", "Conv2dDecoder", "Conv2dEncoder"]
