"""How physical a motion is: foot skating, floating, penetration, jitter, acceleration, changing bone lengths.

Each figure is a total divided by a count, both summed over clips, so that halves, batches and ranks add up exactly.
Speeds are in m/s and windows in seconds: the thresholds mean the same at every frame rate. Definitions:

* skating_ratio: share of steps between frames in which a foot skates (Guided Motion Diffusion's "foot skating ratio",
  used by OmniControl and others): both frames lower than 5 cm, and faster than 0.5 m/s (2.5 cm a frame at 20 fps) over
  the floor, both at once and averaged over 5 frames. GMD averages the ratios of clips, here all steps count alike.
* skating_m_s: mean speed over the floor of planted feet, weighted by 2 - 2^(h/H), H = 2.5 cm, where 0 <= h <= H
  (the weight of MANN, Zhang et al. 2018, who do not divide by its sum); NaN where no foot is planted.
* floating, penetration (PhysDiff, Yuan et al. 2023, of joints instead of vertices): height of the lowest joint above
  the floor, and its depth below; a jump floats too, so compare with real data. The ratios have a tolerance.
* jitter_m_s3, acceleration_m_s2: mean norm of the third and second derivative over joints and frames. TransPose prints
  jitter in 10² m/s³, WHAM and GVHMR in 10 m/s³. Noise counts more at a higher frame rate, smooth motion does not.
* bone_length_std_mm: standard deviation over time of a bone's length, mean over bones and clips.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool1d
from torchmetrics import Metric

from lmm.motion.skeleton import Skeleton

FIGURES = (
    "skating_ratio",
    "skating_m_s",
    "floating_ratio",
    "floating_cm",
    "penetration_ratio",
    "penetration_mm",
    "jitter_m_s3",
    "acceleration_m_s2",
    "bone_length_std_mm",
)
CONTACT_HEIGHT = 0.05  # m; GMD
SKATING_SPEED = 0.5  # m/s; GMD
SKATING_WINDOW = 0.25  # s; GMD's 5 frames at 20 fps
PLANTED_HEIGHT = 0.025  # m; MANN's H
FLOATING_HEIGHT = 0.05  # m; as CONTACT_HEIGHT: nothing is in contact with the floor
PENETRATION_DEPTH = 0.005  # m; PhysDiff's tolerance
_FEET = ("toe", "toes", "foot", "ankle")  # a side's lowest named joint: SMPL's "foot" is the ball of the foot


class Physics(Metric):
    """All `FIGURES` over all real frames of all clips; the floor is a plane.

    Args:
        skeleton: of the joints.
        fps: frames per second.
        floor: height of the floor in metres; 0 for a clip that stands on it.

    Raises:
        ValueError: the skeleton has no feet (see `feet`).
    """

    full_state_update = False
    totals: Tensor
    counts: Tensor

    def __init__(self, skeleton: Skeleton, fps: float, *, floor: float = 0.0) -> None:
        super().__init__()
        feet(skeleton)
        self.skeleton, self.fps, self.floor = skeleton, fps, floor
        for name in ("totals", "counts"):
            self.add_state(name, torch.zeros(len(FIGURES), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, joints: Float[Tensor, "*B T J 3"], mask: Bool[Tensor, "*B T"]) -> None:
        """Add joints in metres; frames where ``mask`` is False do not count."""
        sums = _sums(joints, mask, self.skeleton, self.fps, self.floor)
        self.totals += torch.stack([sums[name][0].sum() for name in FIGURES])
        self.counts += torch.stack([sums[name][1].sum() for name in FIGURES])

    def compute(self) -> dict[str, Tensor]:
        """Figure by name; NaN where nothing could be counted."""
        return dict(zip(FIGURES, (self.totals / self.counts).float(), strict=True))


def physics(
    joints: Float[Tensor, "*B T J 3"],
    mask: Bool[Tensor, "*B T"],
    *,
    skeleton: Skeleton,
    fps: float,
    floor: float = 0.0,
) -> dict[str, Float[Tensor, "*B"]]:
    """All `FIGURES` of each clip.

    Args:
        joints: global positions in metres, y up.
        mask: True where a frame is real.
        skeleton: of the joints.
        fps: frames per second.
        floor: height of the floor in metres.

    Raises:
        ValueError: the skeleton has no feet (see `feet`).
    """
    sums = _sums(joints, mask, skeleton, fps, floor)
    return {name: (sums[name][0] / sums[name][1]).float() for name in FIGURES}


def feet(skeleton: Skeleton) -> list[int]:
    """The left and the right joint that touches the floor, found by name: ``left_foot`` and ``right_foot``.

    Raises:
        ValueError: a side has no joint of such a name.
    """
    found = []
    for side in ("left", "right"):
        present = [f"{side}_{foot}" for foot in _FEET if f"{side}_{foot}" in skeleton.names]
        if not present:
            raise ValueError(
                f"the skeleton has no {' or '.join(f'{side}_{foot}' for foot in _FEET)}, so nothing is known about its "
                f"feet; rename its joints (it has {', '.join(skeleton.names)})"
            )
        found.append(skeleton.index(present[0]))
    return found


def _sums(
    joints: Float[Tensor, "*B T J 3"], mask: Bool[Tensor, "*B T"], skeleton: Skeleton, fps: float, floor: float
) -> dict[str, tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]]:
    """Total and count of each figure, clip by clip."""
    joints = torch.where(mask[..., None, None], joints.double(), 0.0)  # third differences at 120 fps need the digits
    height = joints[..., 1] - floor
    lowest = height.amin(-1)
    lengths = (joints[..., 1:, :] - joints[..., list(skeleton.parents[1:]), :]).norm(dim=-1)
    acceleration = (joints.diff(n=2, dim=-3) * fps**2).norm(dim=-1).mean(-1)
    jerk = (joints.diff(n=3, dim=-3) * fps**3).norm(dim=-1).mean(-1)
    clips = mask.any(-1).double()
    return {
        **_skating(joints[..., feet(skeleton), :], height[..., feet(skeleton)], mask, fps),
        "floating_ratio": _total(lowest > FLOATING_HEIGHT, mask),
        "floating_cm": _total(lowest.clamp_min(0) * 100, mask),
        "penetration_ratio": _total(lowest < -PENETRATION_DEPTH, mask),
        "penetration_mm": _total((-lowest).clamp_min(0) * 1000, mask),
        "jitter_m_s3": _total(jerk, _windows(mask, 4)),
        "acceleration_m_s2": _total(acceleration, _windows(mask, 3)),
        "bone_length_std_mm": (_deviation(lengths, mask).mean(-1) * 1000, clips),
    }


def _skating(
    positions: Float[Tensor, "*B T 2 3"], height: Float[Tensor, "*B T 2"], mask: Bool[Tensor, "*B T"], fps: float
) -> dict[str, tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]]:
    """Both skating figures; a step lies between two frames."""
    steps = _windows(mask, 2)
    speed = (positions.diff(dim=-3)[..., [0, 2]] * fps).norm(dim=-1) * steps[..., None]
    higher = torch.maximum(height[..., 1:, :], height[..., :-1, :])
    skates = (higher < CONTACT_HEIGHT) & (speed > SKATING_SPEED) & (_smooth(speed, fps) > SKATING_SPEED)
    weight = (2 - 2 ** (higher.clamp_min(0) / PLANTED_HEIGHT)).clamp_min(0) * steps[..., None]
    return {
        "skating_ratio": _total(skates.any(-1), steps),
        "skating_m_s": ((weight * speed).sum((-1, -2)), weight.sum((-1, -2))),
    }


def _smooth(speed: Float[Tensor, "*B U F"], fps: float) -> Float[Tensor, "*B U F"]:
    """Mean over `SKATING_WINDOW`, an odd number of steps; as in GMD, what lies beyond the clip counts as standing."""
    half = round((SKATING_WINDOW * fps - 1) / 2)
    if not speed.shape[-2]:
        return speed
    rows = speed.transpose(-1, -2).reshape(-1, 1, speed.shape[-2])
    smooth = avg_pool1d(rows, 2 * half + 1, stride=1, padding=half)
    return smooth.reshape(*speed.shape[:-2], speed.shape[-1], -1).transpose(-1, -2)


def _deviation(values: Float[Tensor, "*B T N"], mask: Bool[Tensor, "*B T"]) -> Float[Tensor, "*B N"]:
    """Standard deviation over the real frames; 0 without any."""
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    mean = (values * mask[..., None]).sum(-2, keepdim=True) / count[..., None]
    return (((values - mean) * mask[..., None]).square().sum(-2) / count).sqrt()


def _windows(mask: Bool[Tensor, "*B T"], frames: int) -> Bool[Tensor, "*B U"]:
    """Whether all of so many frames in a row are real."""
    for _ in range(frames - 1):
        mask = mask[..., 1:] & mask[..., :-1]
    return mask


def _total(
    values: Float[Tensor, "*B U"] | Bool[Tensor, "*B U"], mask: Bool[Tensor, "*B U"]
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """Sum and number of the masked values."""
    return (values * mask).sum(-1).double(), mask.sum(-1).double()
