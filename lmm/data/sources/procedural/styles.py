"""Manners of moving: how a mood changes pace, posture and arms.

Every number of a `Style` is added to, or multiplies, what the neutral one does.
"""

import random
from dataclasses import dataclass

from lmm.data.sources.procedural.body import SIDE, Controls
from lmm.data.sources.procedural.timing import clock, wobble


@dataclass(frozen=True)
class Style:
    """How a mood shows in the body.

    Args:
        pace: multiplies the tempo.
        stride: multiplies the step length.
        swing: multiplies the arm swing.
        bounce: multiplies the rise and fall of the pelvis.
        lean: forward bend of the spine, radians.
        head: forward bend of the neck, radians.
        elbow: extra bend of hanging arms, radians.
        open: extra outward angle of hanging arms.
        sink: how far the pelvis hangs lower, metres.
        sway: sideways drift of the trunk, radians.
    """

    pace: float = 1.0
    stride: float = 1.0
    swing: float = 1.0
    bounce: float = 1.0
    lean: float = 0.0
    head: float = 0.0
    elbow: float = 0.0
    open: float = 0.0
    sink: float = 0.0
    sway: float = 0.015


STYLES = {
    "neutral": Style(),
    "happy": Style(pace=1.1, stride=1.05, swing=1.5, bounce=1.9, lean=-0.05, head=-0.15, elbow=0.45, open=0.1),
    "tired": Style(
        pace=0.82, stride=0.85, swing=0.5, bounce=0.7, lean=0.32, head=0.35, elbow=-0.1, sink=0.035, sway=0.06
    ),
    "proud": Style(pace=0.95, stride=1.08, swing=1.15, bounce=1.1, lean=-0.14, head=-0.22, elbow=0.1, open=0.2),
    "sad": Style(pace=0.85, stride=0.85, swing=0.35, bounce=0.6, lean=0.2, head=0.6, elbow=-0.15, sink=0.015),
    "angry": Style(pace=1.18, stride=1.05, swing=1.25, bounce=1.25, lean=0.2, head=0.05, elbow=0.7, open=0.16),
}


def apply_posture(controls: Controls, style: Style, rng: random.Random) -> None:
    """Add a style's posture, breathing and small individual drift to a finished motion, in place."""
    time = clock((len(controls) - 1) / 20)
    breath = 0.012 * wobble(time, rng, 1.0, 3.5)
    controls.spine[:, 0] += style.lean + 0.05 + rng.gauss(0, 0.02) + breath
    controls.spine[:, 1] += wobble(time, rng, style.sway, 3.0)
    controls.spine[:, 2] += wobble(time, rng, 0.02)
    controls.head[:, 0] += style.head - 0.3 * style.lean + wobble(time, rng, 0.04)
    controls.head[:, 1] += wobble(time, rng, 0.08)
    controls.root[:, 0] += wobble(time, rng, 0.006)
    controls.root[:, 2] += wobble(time, rng, 0.006)
    controls.root[:, 1] -= style.sink
    for side in (0, 1):
        hanging = (controls.upper[:, side, 1] < -0.5)[:, None]
        drift = [style.open + rng.uniform(0, 0.05), 0, 0]
        controls.upper[:, side] += hanging * drift + 0.02 * wobble(time, rng, 1.0)[:, None]
        controls.fore[:, side] += hanging * [0.5 * style.open, 0, 0] + 0.03 * abs(wobble(time, rng, 1.0))[:, None]


def step_side(side: str) -> int:
    """0 for "left", 1 for "right"."""
    return 0 if side == "left" else 1


def outward(side: str) -> float:
    """x of a side: +1 for "left", -1 for "right"."""
    return float(SIDE[step_side(side)])
