"""Encoders of motion and text, and the decoder of motion."""

from lmm.evaluators.networks.gru import MotionGRU, TextGRU
from lmm.evaluators.networks.sentence import SentenceEncoder
from lmm.evaluators.networks.transformer import MotionTransformer, MotionTransformerDecoder, TextTransformer

__all__ = [
    "MotionGRU",
    "MotionTransformer",
    "MotionTransformerDecoder",
    "SentenceEncoder",
    "TextGRU",
    "TextTransformer",
]
