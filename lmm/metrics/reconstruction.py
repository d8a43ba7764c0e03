"""How far a reconstruction's joints are from the original's: MPJPE, PA-MPJPE and ACCEL, as the field reports them.

* mpjpe_mm: mean per-joint position error, no alignment: the root path's drift is in it (MoMask).
* mpjpe_root_mm: the same with both roots at the origin of every frame (MotionGPT).
* pa_mpjpe_mm: the same after the similarity transform (rotation without reflection, scale, translation) that brings
  each frame nearest to the original's in the least-squares sense (Umeyama 1991; SMPL's and MotionGPT's "PA").
* accel_mm_frame2: ACCEL (MotionGPT), mean norm of the difference of the second differences over time, in mm per
  frame², not per s²: compare at equal frame rates only (times fps²/1000 it is in m/s²).

Each figure is a total over a count of real frames, so that batches and ranks add up exactly.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

FIGURES = ("mpjpe_mm", "mpjpe_root_mm", "pa_mpjpe_mm", "accel_mm_frame2")
_ROWS = {  # of the table: errors of a reconstruction, and figures that real motion has as well
    "mpjpe_mm": "MPJPE (mm)",
    "mpjpe_root_mm": "MPJPE, root aligned (mm)",
    "pa_mpjpe_mm": "PA-MPJPE (mm)",
    "accel_mm_frame2": "ACCEL error (mm/frame²)",
    "skating_ratio": "foot skating (share of steps)",
    "jitter_m_s3": "jitter (m/s³)",
    "acceleration_m_s2": "acceleration (m/s²)",
}


class ReconstructionErrors(Metric):
    """All `FIGURES` over all real frames (ACCEL: over all real frames between two real ones)."""

    full_state_update = False
    totals: Tensor
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("totals", torch.zeros(len(FIGURES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(FIGURES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, prediction: Float[Tensor, "*B T J 3"], target: Float[Tensor, "*B T J 3"], mask: Bool[Tensor, "*B T"]
    ) -> None:
        """Add joints in metres; frames where ``mask`` is False do not count."""
        prediction, target = prediction.double(), target.double()
        p, t = prediction[mask], target[mask]
        inner = mask[..., 2:] & mask[..., 1:-1] & mask[..., :-2]
        errors = (
            joint_errors(p, t),
            joint_errors(p, t, align_root=True),
            joint_errors(procrustes(p, t), t),
            acceleration_errors(prediction, target)[inner],
        )
        self.totals += 1000 * torch.stack([error.sum() for error in errors])
        self.counts += torch.tensor([error.numel() for error in errors], device=self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Figure by name; NaN where nothing could be counted."""
        return dict(zip(FIGURES, (self.totals / self.counts).float(), strict=True))


def joint_errors(
    prediction: Float[Tensor, "*B J 3"], target: Float[Tensor, "*B J 3"], *, align_root: bool = False
) -> Float[Tensor, "*B"]:
    """Mean Euclidean distance over the joints of each frame, in the unit of the input.

    Args:
        prediction: joint positions.
        target: joint positions to compare with.
        align_root: put both roots (joint 0) at the origin of every frame first.
    """
    if align_root:
        prediction, target = prediction - prediction[..., :1, :], target - target[..., :1, :]
    return (prediction - target).norm(dim=-1).mean(-1)


def procrustes(prediction: Float[Tensor, "*B J 3"], target: Float[Tensor, "*B J 3"]) -> Float[Tensor, "*B J 3"]:
    """The prediction, each frame turned, scaled and moved to where it is nearest to the target (least squares).

    A frame whose joints all coincide has no rotation and no scale: it is moved only.
    """
    centre = target.mean(-2, keepdim=True)
    x, y = prediction - prediction.mean(-2, keepdim=True), target - centre
    u, s, vh = torch.linalg.svd(x.mT @ y)
    mirrored = torch.linalg.det(u @ vh) < 0  # the best orthogonal map is a reflection: give up its weakest direction
    sign = torch.ones_like(s)
    sign[..., 2] = torch.where(mirrored, -1.0, 1.0)
    size = x.square().sum((-1, -2))
    scale = (s * sign).sum(-1) / torch.where(size > 0, size, 1.0)
    return scale[..., None, None] * (x @ (u * sign[..., None, :] @ vh)) + centre


def acceleration_errors(
    prediction: Float[Tensor, "*B T J 3"], target: Float[Tensor, "*B T J 3"]
) -> Float[Tensor, "*B U"]:
    """Mean distance over the joints of the second differences, U = T - 2, in the unit of the input per frame²."""
    return (prediction - target).diff(n=2, dim=-3).norm(dim=-1).mean(-1)


def table(title: str, figures: Mapping[str, Tensor], streams: Sequence[str]) -> str:
    """What reads at a glance: reconstruction beside real motion, then usage of the codebook, stream by stream.

    Args:
        title: head of the first column.
        figures: by name; ``real_`` before a name is the original motion's.
        streams: names of a `CodebookUsage`'s streams.
    """
    lines = ["", f"{title:<32}{'reconstruction':>16}{'real':>12}"]
    for name, row in _ROWS.items():
        real = f"{figures[f'real_{name}']:.4g}" if f"real_{name}" in figures else "-"
        lines.append(f"{row:<32}{figures[name]:>16.4g}{real:>12}")
    lines += ["", f"{'codebook':<32}{'usage':>16}{'perplexity':>12}"]
    rows = {"all": ""} | ({stream: f"/{stream}" for stream in streams} if len(streams) > 1 else {})
    for row, key in rows.items():
        usage, perplexity = figures[f"codebook_usage{key}"], figures[f"codebook_perplexity{key}"]
        lines.append(f"{row:<32}{100 * usage:>14.2f} %{perplexity:>12.1f}")
    return "\n".join(lines)
