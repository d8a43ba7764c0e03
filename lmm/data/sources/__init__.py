"""Where motions come from."""

from lmm.data.sources.base import Caption, Clip, MotionSource
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.sources.kit import KIT
from lmm.data.sources.mixture import Member, Mixture
from lmm.data.sources.motionstreamer import MotionStreamer
from lmm.data.sources.procedural import Procedural

__all__ = [
    "KIT",
    "Caption",
    "Clip",
    "HumanML3D",
    "Member",
    "Mixture",
    "MotionSource",
    "MotionStreamer",
    "Procedural",
]
