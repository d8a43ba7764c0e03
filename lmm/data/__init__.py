"""Where motions and tokens come from, and in what batches."""

from lmm.data.motions import MotionDataModule
from lmm.data.tokens import TokenDataModule

__all__ = ["MotionDataModule", "TokenDataModule"]
