"""Motion representations: motion <-> features."""

from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.kit import KIT_21, KITFeatures
from lmm.motion.representations.motionstreamer import MotionStreamer272
from lmm.motion.representations.positions import JointPositions
from lmm.motion.representations.smpl import SMPLD130, SMPLD135, SMPLD263, SMPLD268

__all__ = [
    "KIT_21",
    "SMPLD130",
    "SMPLD135",
    "SMPLD263",
    "SMPLD268",
    "HumanML3DFeatures",
    "JointPositions",
    "KITFeatures",
    "MotionRepresentation",
    "MotionStreamer272",
]
