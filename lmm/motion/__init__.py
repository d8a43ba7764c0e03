"""What a motion is."""

from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

__all__ = ["HUMANML3D_22", "Motion", "Skeleton"]
