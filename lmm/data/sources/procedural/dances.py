"""Dance steps: swaying on the spot, stepping from side to side, spinning around."""

import random

import numpy as np

from lmm.data.sources.procedural.body import SIDE, Controls, hang, standing
from lmm.data.sources.procedural.gait import RAMP, Gait, locomotion, on_the_spot
from lmm.data.sources.procedural.moves import PACE
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import Style, outward
from lmm.data.sources.procedural.timing import Array, bump, clock, ease, envelope


def sway(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Dance on the spot: weight from side to side, arms and shoulders with it."""
    rate = 0.62 * PACE[act.speed] * style.pace
    cycles = rng.randint(2, 4)
    time = clock(min(cycles / rate + 0.6, 9.0))
    amount = envelope(time, 0.1, time[-1] - 0.1, 0.6)
    side = rng.choice((-1, 1)) * np.sin(2 * np.pi * rate * (time - 0.1)) * amount
    dip = amount * (1 - np.cos(4 * np.pi * rate * (time - 0.1))) / 2
    controls = standing(len(time))
    controls.toe[..., 0] += 0.06 * SIDE
    controls.root[:, 0] += 0.1 * side
    controls.root[:, 1] -= 0.035 + 0.035 * (1 - dip) * amount * style.bounce
    controls.turn[:, 2] = -0.1 * side
    controls.turn[:, 0] = 0.12 * side
    controls.spine[:, 1] = 0.2 * side
    controls.spine[:, 2] = -0.25 * side
    controls.head[:, 2] = -0.12 * side
    for arm in (0, 1):
        flex = amount * (0.55 + 0.45 * SIDE[arm] * side)
        controls.upper[:, arm], controls.fore[:, arm] = hang(flex, 0.25 + amount * 1.2, 0.3)
        controls.fore[:, arm, 0] -= 0.35 * side * SIDE[arm]
    _heels(controls, side)
    return controls


def step_touch(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Dance: a step to one side, the other foot closes; and back, with swinging arms."""
    beat = 0.52 / PACE[act.speed] / style.pace
    pairs = max(2, min(rng.randint(2, 4), int(8.4 / (4 * beat))))
    time = clock(pairs * 4 * beat + 0.5)
    u = np.clip((time - 0.25) / beat, 0, pairs * 4)
    start = rng.choice((-1, 1))
    controls = standing(len(time))
    for i in range(pairs * 2):
        way = start if i % 2 == 0 else -start
        foot = 0 if way > 0 else 1
        controls.toe[:, foot, 0] += way * 0.34 * ease((u - 2 * i) / 0.9)
        controls.toe[:, 1 - foot, 0] += way * 0.34 * ease((u - 2 * i - 1) / 0.9)
        controls.toe[:, foot, 1] += 0.06 * bump((u - 2 * i) / 0.9)
        controls.toe[:, 1 - foot, 1] += 0.06 * bump((u - 2 * i - 1) / 0.9)
        controls.root[:, 0] += way * 0.34 * ease((u - 2 * i) / 1.7)
    amount = envelope(time, 0.1, time[-1] - 0.1, 0.4)
    bounce = amount * (0.5 - 0.5 * np.cos(2 * np.pi * u)) * min(style.bounce, 1.4)
    controls.root[:, 1] -= 0.04 * amount + 0.035 * bounce
    controls.spine[:, 0] = 0.06 * bounce
    side = amount * np.sin(np.pi * u / 2) * start
    controls.spine[:, 2] = 0.18 * side
    controls.spine[:, 1] = -0.08 * side
    for arm in (0, 1):
        flex = amount * (0.35 - 0.5 * SIDE[arm] * side)
        controls.upper[:, arm], controls.fore[:, arm] = hang(flex, 0.25 + amount * (1.1 + 0.3 * bounce), 0.22)
    return controls


def spin(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """A quick full turn with the arms flung out."""
    steps = 8
    gait = Gait(rate=3.3, stride=0.2, heel=0.5, toes=0.0, lift=0.05, arms=0.0, bounce=0.01)
    controls = locomotion(on_the_spot(outward(act.side) * 2 * np.pi / (steps - RAMP)), gait, style, rng, steps=steps)
    controls = controls.hold(6, 6)
    seconds = (len(controls) - 1) / 20
    out = envelope(clock(seconds), 0.1, seconds - 0.1, 0.7)[:, None, None]
    controls.upper += out * (np.array([1.0, 0.1, 0.15]) - controls.upper)
    controls.fore += out * (np.array([1.0, 0.15, 0.3]) - controls.fore)
    return controls


def _heels(controls: Controls, side: Array) -> None:
    """The unloaded foot rises onto its toes."""
    for foot in (0, 1):
        controls.foot[:, foot, 1] = 0.45 * np.maximum(-side * SIDE[foot], 0) ** 1.5
