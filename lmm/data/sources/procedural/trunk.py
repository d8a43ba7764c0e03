"""What trunk and head do, on top of standing, sitting or walking: one function per gesture, as in `gestures`."""

import random

import numpy as np

from lmm.data.sources.procedural.body import Controls
from lmm.data.sources.procedural.course import PACE, blend_arm, course
from lmm.data.sources.procedural.gestures import raise_arms
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import Style
from lmm.data.sources.procedural.timing import clock, ease, keys


def stretch(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Both arms far overhead; the back arches, or the trunk leans to one side."""
    raise_arms(controls, Act("raise", "up", "both"), style, rng)
    _, w, _ = course(controls, act, 1.0, rise=1.3)
    side = {"up": 0.0, "left": -1.0, "right": 1.0}[act.way]
    controls.spine[:, 1] += 0.55 * side * w
    controls.root[:, 0] += 0.04 * side * w
    controls.spine[:, 0] -= (0.22 if side == 0 else 0.05) * w
    controls.head[:, 0] -= (0.3 if side == 0 else 0.0) * w
    if side == 0:
        controls.foot[..., 1] += 0.3 * w[:, None]
        controls.root[:, 1] += 0.045 * w


def bow(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Bend forward from the hips, arms at the sides, and straighten up."""
    count = act.count or 1
    time = clock((len(controls) - 1) / 20)
    u = np.clip((time - 0.25) / (time[-1] - 0.5), 0, 1 - 1e-9) * count
    u = u - np.floor(u)
    down = ease(u / 0.38) * ease((1 - u) / 0.38)
    deep = rng.uniform(0.85, 1.05) if act.way == "deep" else rng.uniform(0.42, 0.52)
    controls.turn[:, 1] += 0.62 * deep * down
    controls.spine[:, 0] += 0.65 * deep * down
    controls.head[:, 0] += 0.2 * down
    controls.root[:, 2] -= 0.13 * deep * down
    controls.root[:, 1] -= 0.02 * deep * down
    for side in (0, 1):
        blend_arm(controls, side, down, (0.06, -0.97, 0.12 + 0.25 * deep), (0.0, -0.95, 0.3 + 0.25 * deep))


def nod(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The head goes down and up once per beat."""
    _, w, beat = course(controls, act, 0.55 / PACE[act.speed] / style.pace)
    controls.head[:, 0] += 0.6 * w * (0.5 - 0.5 * np.cos(2 * np.pi * beat))


def shake_head(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The head turns left and right."""
    _, w, beat = course(controls, Act("shake head"), 0.7 / PACE[act.speed] / style.pace)
    controls.head[:, 1] += 0.85 * w * np.sin(2 * np.pi * beat)


def look_around(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Head and shoulders turn far to one side, then to the other."""
    time = clock((len(controls) - 1) / 20)
    first = rng.choice((-1, 1))
    at = [0.08, 0.28, 0.42, 0.66, 0.78, 0.96]
    aside = first * keys(time, [float(u * time[-1]) for u in at], [0, 1, 1, -1, -1, 0])
    controls.head[:, 1] += 0.95 * aside
    controls.spine[:, 2] += 0.4 * aside
