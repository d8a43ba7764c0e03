"""Motion representations: motion <-> features."""

from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.motionstreamer import MotionStreamer272
from lmm.motion.representations.positions import JointPositions
from lmm.motion.representations.smpl import SMPLD130, SMPLD135, SMPLD263, SMPLD268

__all__ = [
    "SMPLD130",
    "SMPLD135",
    "SMPLD263",
    "SMPLD268",
    "HumanML3DFeatures",
    "JointPositions",
    "MotionRepresentation",
    "MotionStreamer272",
]
