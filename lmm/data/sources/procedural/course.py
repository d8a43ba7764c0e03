"""How a gesture runs through its stretch of a clip, and how arms go from one pose to another."""

import numpy as np

from lmm.data.sources.procedural.body import Controls
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import step_side
from lmm.data.sources.procedural.timing import Array, bump, clock, envelope

Direction = Array | tuple[float, float, float]  # (outward, up, forward), "3" or "T 3"

PACE = {"slow": 0.72, "": 1.0, "fast": 1.35}
RISE = 0.55  # seconds to bring the hands where the gesture begins


def course(controls: Controls, act: Act, period: float, rise: float = RISE) -> tuple[Array, Array, Array]:
    """Times, the weight of the gesture, and the beat (0 before, then up to the number of repetitions)."""
    time = clock((len(controls) - 1) / 20)
    end = float(time[-1])
    active = max(end - 2 * rise, 0.3)
    count = act.count or max(1, round(active / period))
    beat = np.clip((time - rise) / active, 0, 1) * count
    return time, envelope(time, 0.03, end - 0.03, min(rise, 0.45 * end)), beat


def arms_of(act: Act) -> tuple[int, ...]:
    """Indices of the arms an act uses."""
    return (0, 1) if act.side == "both" else (step_side(act.side),)


def blend_arm(controls: Controls, side: int, weight: Array, upper: Direction, fore: Direction) -> None:
    """Bring one arm by ``weight`` "T" (0 to 1) into the pose of the directions ``upper`` and ``fore``.

    Where old and new direction are opposite, the way leads forward and outward instead of through nothing.
    """
    for channel, goal in ((controls.upper, upper), (controls.fore, fore)):
        now, then = channel[:, side], np.broadcast_to(np.asarray(goal, dtype=np.float64), (len(controls), 3))
        lengths = np.linalg.norm(now, axis=-1) * np.linalg.norm(then, axis=-1)
        opposite = np.maximum(-(now * then).sum(axis=-1) / lengths, 0)
        detour = (opposite * bump(weight))[:, None] * [0.4, 0.0, 0.9]
        channel[:, side] += weight[:, None] * (then - now) + detour
