"""Motion representations: motion <-> features."""

from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.positions import JointPositions

__all__ = ["HumanML3DFeatures", "JointPositions", "MotionRepresentation"]
