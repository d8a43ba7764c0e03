"""KIT-ML's 251 features (Guo et al., CVPR 2022, after Plappert et al. 2016), bit-close to the published procedure.

The same layout as HumanML3D's, on the 21 joints of the Master Motor Map at 12.5 fps: 4 + 60 + 120 + 63 + 4. Published
vectors are neither in metres nor right-handed: 640 units make a metre (TEMOS: 480 / 0.75), and a body that faces +z
has its left at -x, where every other format has it at +x. `KITFeatures.units` holds both facts; motions are in metres
with the left at +x as everywhere, so captions, drawings and exports agree. Because of the mirroring, published hip and
shoulder rotations are near half turns.
"""

from typing import ClassVar

from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.skeleton import Skeleton

# The Master Motor Map's joints under the names of the same joints in SMPL's skeleton, where there is one. Rest offsets
# are ours: an adult of 1.70 m with rounded anthropometric lengths, standing with arms out (T-pose).
_BODY = [
    # name, parent, offset; the Master Motor Map's name
    ("pelvis", -1, (0.0, 0.0, 0.0)),  # root
    ("spine1", 0, (0.0, 0.10, 0.0)),  # BP
    ("spine3", 1, (0.0, 0.21, 0.0)),  # BT
    ("neck", 2, (0.0, 0.21, 0.0)),  # BLN
    ("head", 3, (0.0, 0.10, 0.03)),  # BUN
    ("left_shoulder", 3, (0.18, -0.06, 0.0)),  # LS
    ("left_elbow", 5, (0.26, 0.0, 0.0)),  # LE
    ("left_wrist", 6, (0.25, 0.0, 0.0)),  # LW
    ("right_shoulder", 3, (-0.18, -0.06, 0.0)),  # RS
    ("right_elbow", 8, (-0.26, 0.0, 0.0)),  # RE
    ("right_wrist", 9, (-0.25, 0.0, 0.0)),  # RW
    ("left_hip", 0, (0.08, -0.08, 0.0)),  # LH
    ("left_knee", 11, (0.0, -0.39, 0.0)),  # LK
    ("left_ankle", 12, (0.0, -0.40, 0.0)),  # LA
    ("left_heel", 13, (0.0, -0.04, 0.03)),  # LMrot
    ("left_foot", 14, (0.0, -0.01, 0.10)),  # LF
    ("right_hip", 0, (-0.08, -0.08, 0.0)),  # RH
    ("right_knee", 16, (0.0, -0.39, 0.0)),  # RK
    ("right_ankle", 17, (0.0, -0.40, 0.0)),  # RA
    ("right_heel", 18, (0.0, -0.04, 0.03)),  # RMrot
    ("right_foot", 19, (0.0, -0.01, 0.10)),  # RF
]

KIT_21 = Skeleton(
    names=tuple(name for name, _, _ in _BODY),
    parents=tuple(parent for _, parent, _ in _BODY),
    offsets=tuple(offset for _, _, offset in _BODY),
    parts={
        "torso": (0, 1, 2, 3, 4),
        "left_arm": (5, 6, 7),
        "right_arm": (8, 9, 10),
        "left_leg": (11, 12, 13, 14, 15),
        "right_leg": (16, 17, 18, 19, 20),
    },
)


class KITFeatures(HumanML3DFeatures):
    """Joints "*B T+1 21 3" in metres <-> KIT-ML's features "*B T 251" in its own units; see `HumanML3DFeatures`.

    Args:
        uniform_skeleton: retarget to one body first: bone lengths from `KIT_21`.
        fixed: as in `HumanML3DFeatures`; units, mirroring and layout stay the published ones.
    """

    skeleton = KIT_21
    fps = 12.5
    blocks: ClassVar[dict[str, int]] = {
        "root_yaw_velocity": 1,
        "root_velocity": 2,
        "root_height": 1,
        "positions": 60,
        "rotations": 120,
        "velocities": 63,
        "contacts": 4,
    }
    reference: ClassVar[tuple[str, ...]] = (
        *("+z", "+y", "+y", "+y", "+y", "+x", "-y", "-y", "-x", "-y", "-y"),
        *("+x", "-y", "-y", "+z", "+z", "-x", "-y", "-y", "+z", "+z"),
    )
    # Published code calls 11 the right hip, because it looks at the mirrored body.
    face: ClassVar[tuple[int, ...]] = (11, 16, 5, 8)
    legs: ClassVar[tuple[int, int]] = (17, 18)
    arms: ClassVar[tuple[int, int]] = (5, 8)
    feet: ClassVar[tuple[int, ...]] = (19, 20, 14, 15)  # right heel, right foot, left heel, left foot
    contact_threshold: ClassVar[float] = 0.05
    units: ClassVar[tuple[float, float, float]] = (-640.0, 640.0, 640.0)
