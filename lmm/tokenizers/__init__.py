"""Motion tokenizers: features <-> tokens."""

from lmm.tokenizers.base import MotionTokenizer
from lmm.tokenizers.lfq2d import LFQ2DTokenizer
from lmm.tokenizers.rvq import RVQTokenizer
from lmm.tokenizers.vq import VQTokenizer

__all__ = ["LFQ2DTokenizer", "MotionTokenizer", "RVQTokenizer", "VQTokenizer"]
