"""What the whole body or the legs do: one function per move, from an `Act` to `Controls`.

Every move but standing up begins, and every move but sitting down, kneeling and mid-gait clips ends, in relaxed
standing, so that moves can follow each other.
"""

import random
from collections.abc import Callable

import numpy as np

from lmm.data.sources.procedural.body import SIDE, STAND, Controls, standing
from lmm.data.sources.procedural.gait import RAMP, Gait, arc, corner, locomotion, on_the_spot, straight
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import Style, outward, step_side
from lmm.data.sources.procedural.timing import Array, bump, clock, ease, envelope, keys

PACE = {"slow": 0.78, "": 1.0, "fast": 1.25}
Move = Callable[[Act, Style, random.Random, bool], Controls]


def walk(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Forward or backward in a straight line."""
    backward = act.way == "backward"
    step = {"slow": 0.48, "": 0.62, "fast": 0.74}[act.speed] * style.stride * (0.72 if backward else 1)
    rate = {"slow": 1.4, "": 1.85, "fast": 2.25}[act.speed] * (0.9 if backward else 1)
    gait = Gait(
        rate=rate, stride=step, heel=0.25 if backward else 0.65, toes=0.0 if backward else 0.22, arms=0.6 * step
    )
    steady = not whole and rng.random() < 0.4
    steps = _steps(rng, rate * style.pace, 2.4 if whole else 3.6, 3.2 if whole else 7.5)
    path = straight(step, np.pi if backward else 0.0)
    return locomotion(path, gait, style, rng, steps=steps, starts=not steady, stops=not steady)


def walk_around(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Once around a circle, or around a corner."""
    rate = {"slow": 1.55, "": 1.85, "fast": 2.2}[act.speed]
    if act.way == "circle":
        steps = _steps(rng, rate * style.pace, 4.0 if whole else 5.0, 4.8 if whole else 7.0)
        step = 0.58 * style.stride if steps < 10 else 0.62 * style.stride
        path = arc(step, outward(act.side) * 2 * np.pi / (steps - RAMP))
    else:
        step = {"slow": 0.5, "": 0.6, "fast": 0.7}[act.speed] * style.stride
        steps = _steps(rng, rate * style.pace, 4.0, 4.6 if whole else 6.5)
        path = corner(step, steps - 1, outward(act.side) * rng.uniform(1.3, 1.75))
    return locomotion(path, Gait(rate=rate, stride=step), style, rng, steps=steps)


def run(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Straight or once around a circle."""
    step = {"slow": 0.75, "": 0.95, "fast": 1.2}[act.speed] * style.stride
    rate = {"slow": 2.55, "": 2.75, "fast": 3.0}[act.speed]
    lean = {"slow": 0.07, "": 0.12, "fast": 0.2}[act.speed]
    swing = {"slow": 0.6, "": 0.64, "fast": 0.69}[act.speed]
    gait = Gait(
        rate=rate, stride=step, swing=swing, lift=0.16 + 0.1 * step, heel=1.0, toes=0.1, width=0.05, sink=0.045,
        arms=0.75 + 0.25 * step, elbow=1.35, lean=lean,
    )  # fmt: skip
    if act.way == "circle":
        steps = _steps(rng, rate * style.pace, 4.2, 6.0)
        return locomotion(arc(step, outward(act.side) * 2 * np.pi / (steps - RAMP)), gait, style, rng, steps=steps)
    steady = not whole and rng.random() < 0.4
    steps = _steps(rng, rate * style.pace, 2.4 if whole else 3.0, 3.0 if whole else 5.5)
    return locomotion(straight(step), gait, style, rng, steps=steps, starts=not steady, stops=not steady)


def sidestep(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Sideways, the feet never crossing."""
    step = {"slow": 0.2, "": 0.26, "fast": 0.3}[act.speed]
    rate = 2.0 * PACE[act.speed]
    gait = Gait(
        rate=rate, stride=step, heel=0.2, toes=0.0, width=0.07 + step / 2, lift=0.06, sink=0.03, arms=0.05, elbow=0.6
    )
    path = straight(step, outward(act.side) * np.pi / 2)
    steps = 2 * round(_steps(rng, rate * style.pace, 2.4 if whole else 3.0, 3.0 if whole else 6.0) / 2)
    return locomotion(path, gait, style, rng, steps=steps, first=step_side(act.side))


def turn(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """A quarter, half or full turn on the spot."""
    angle = {"quarter": np.pi / 2, "half": np.pi, "full": 2 * np.pi}[act.way]
    steps = {"quarter": 3, "half": 5, "full": 8}[act.way] + (act.speed == "slow")
    gait = Gait(rate=1.9 * PACE[act.speed], stride=0.2, heel=0.3, toes=0.0, lift=0.06, arms=0.08, bounce=0.006)
    path = on_the_spot(outward(act.side) * angle / (steps - RAMP))
    return locomotion(path, gait, style, rng, steps=steps).hold(4, 8)


def march(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """High knees and straight, wide arm swings."""
    forward = act.way == "forward"
    gait = Gait(
        rate=1.85 * PACE[act.speed], stride=0.5 if forward else 0.15, swing=0.42, lift=0.06, knee=0.3, heel=0.5,
        toes=0.0, arms=0.85, elbow=0.35, bounce=0.012,
    )  # fmt: skip
    steps = _steps(rng, gait.rate * style.pace, 2.6 if whole else 3.2, 3.4 if whole else 7.0)
    return locomotion(straight(0.48 * style.stride) if forward else on_the_spot(), gait, style, rng, steps=steps)


def sneak(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Bent over, on tiptoe, with slow high steps and the hands held before the chest."""
    backward = act.way == "backward"
    step = 0.3 if backward else 0.42
    gait = Gait(
        rate=1.15 * PACE[act.speed], stride=0.5, swing=0.42, lift=0.05, knee=0.13, heel=0.55, toes=0.0, width=0.08,
        sink=0.1, arms=0.12, elbow=1.7, lean=0.42,
    )  # fmt: skip
    steps = _steps(rng, gait.rate * style.pace, 3.4 if whole else 4.2, 4.4 if whole else 8.0)
    controls = locomotion(straight(step, np.pi * backward), gait, style, rng, steps=steps)
    tiptoe = envelope(clock((len(controls) - 1) / 20), 0.1, (len(controls) - 1) / 20 - 0.1, 0.6)
    controls.foot[..., 1] = np.maximum(controls.foot[..., 1], 0.5 * tiptoe[:, None])
    controls.head[:, 0] -= 0.35 * tiptoe
    return controls


def crouch(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Walk with deeply bent knees and the trunk leaning forward."""
    gait = Gait(
        rate=1.6 * PACE[act.speed], stride=0.45, lift=0.06, heel=0.45, toes=0.05, width=0.1, sink=0.27, bounce=0.012,
        arms=0.25, elbow=1.1, lean=0.6,
    )  # fmt: skip
    steps = _steps(rng, gait.rate * style.pace, 3.0 if whole else 4.0, 4.0 if whole else 7.0)
    controls = locomotion(straight(0.45 * style.stride), gait, style, rng, steps=steps)
    controls.head[:, 0] -= 0.6 * controls.spine[:, 0]
    return controls


def squat(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Down and up with the arms stretched forward."""
    depth = 0.43 if act.way == "deep" else 0.27
    period = rng.uniform(1.9, 2.3) / PACE[act.speed] / style.pace
    time = clock(act.count * period + 0.5)
    u = np.clip((time - 0.25) / period, 0, act.count - 1e-9) % 1.0
    down = ease(u / 0.48) * ease((1 - u) / 0.48)
    controls = standing(len(time))
    ratio = depth / 0.43
    controls.root[:, 1] -= depth * down
    controls.root[:, 2] -= 0.17 * ratio * down
    controls.turn[:, 1] = 0.25 * ratio * down
    controls.spine[:, 0] = 0.5 * ratio * down
    controls.head[:, 0] = -0.45 * ratio * down
    controls.foot[..., 2] = 0.35 * down[:, None]
    _blend_arms(controls, down, (0.1, 0.65, 0.8), (0.0, 0.65, 0.8))  # level in spite of the leaning chest
    return controls


def sit(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Down onto a chair that is not drawn, hands to the thighs, and remain."""
    pace = PACE[act.speed] * style.pace
    lower = rng.uniform(1.3, 1.6) / pace
    total = 0.3 + lower + (0.5 if whole else rng.uniform(1.0, 2.5))
    return _seat(clock(total), 0.3, lower, down=True)


def stand_up(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """From the chair to standing."""
    pace = PACE[act.speed] * style.pace
    rest = 0.6 if whole else rng.uniform(0.6, 1.8)
    rise = rng.uniform(1.2, 1.5) / pace
    return _seat(clock(rest + rise + (0.3 if whole else 0.8)), rest, rise, down=False)


def lunge(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """A long step forward, down, and back."""
    foot, pace = step_side(act.side), PACE[act.speed] * style.pace
    period = 2.6 / pace
    time = clock(act.count * period + 0.5)
    u = np.clip((time - 0.25) / period, 0, act.count - 1e-9) % 1.0
    out, low = ease(u / 0.26) * ease((1 - u) / 0.26), ease((u - 0.12) / 0.3) * ease((0.88 - u) / 0.3)
    controls = standing(len(time))
    controls.root[:, 2] = 0.36 * ease(u / 0.32) * ease((1 - u) / 0.32)
    controls.root[:, 1] -= 0.12 * out + 0.22 * low
    controls.toe[:, foot, 2] += 0.72 * out
    stepping = bump(u / 0.26) + bump((1 - u) / 0.26)
    controls.toe[:, foot, 1] = 0.08 * stepping
    controls.root[:, 0] -= 0.04 * SIDE[foot] * stepping
    controls.spine[:, 0] = 0.12 * out
    _blend_arms(controls, out, (0.45, -0.6, 0.1), (-0.55, -0.25, 0.5))
    return controls


def kneel(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """One knee to the ground, and remain for a while."""
    foot, pace = step_side(act.side), PACE[act.speed] * style.pace
    back, down = 0.7 / pace, 1.0 / pace
    stay = rng.uniform(0.8, 1.6)
    marks = np.cumsum([0.25, back, down, stay, down, back, 0.25]).tolist()
    time = clock(marks[-1])
    away = keys(time, marks[:6], [0, 1, 1, 1, 1, 0])
    low = keys(time, [marks[0] + 0.5 * back, marks[2], marks[3], marks[4] + 0.5 * back], [0, 1, 1, 0])
    controls = standing(len(time))
    controls.toe[:, foot, 2] -= 0.76 * away
    stepping = bump((time - marks[0]) / back) + bump((time - marks[4]) / back)
    controls.toe[:, foot, 1] = 0.06 * stepping
    controls.root[:, 2] = -0.28 * away - 0.08 * low
    controls.root[:, 1] = STAND - 0.1 * away - (STAND - 0.1 - 0.525) * low
    controls.foot[:, foot, 1] = 0.5 * away + 0.75 * low
    controls.spine[:, 0] = 0.1 * low + 0.3 * bump(low)
    _blend_arms(controls, low, (0.12, -0.85, 0.4), (-0.25, -0.45, 0.9), sides=(1 - foot,))
    return controls


def balance(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Stand on one leg (``side``), the other knee raised, the arms held out."""
    support = step_side(act.side)
    other, seconds = 1 - support, rng.uniform(3.5, 5.5)
    time = clock(seconds)
    shift, up = envelope(time, 0.1, seconds - 0.1, 0.7), envelope(time, 0.55, seconds - 0.55, 0.7)
    controls = standing(len(time))
    controls.root[:, 0] += SIDE[support] * (0.075 * shift + 0.012 * up * np.sin(5 * time))
    controls.toe[:, other] += up[:, None] * [-0.03 * SIDE[other], 0.42, 0.12]
    controls.foot[:, other, 1] = 0.35 * up
    controls.spine[:, 1] = 0.05 * up * np.sin(4.1 * time + rng.random())
    for side in (0, 1):
        tilt = 0.12 * np.sin(4.4 * time + side)
        target = np.stack([np.ones_like(tilt), tilt, np.full_like(tilt, 0.15)], -1)
        controls.upper[:, side] += up[:, None] * (target - controls.upper[:, side])
        controls.fore[:, side] += up[:, None] * (target - controls.fore[:, side])
    return controls


def _steps(rng: random.Random, rate: float, shortest: float, longest: float) -> int:
    """A number of steps that lasts between ``shortest`` and ``longest`` seconds."""
    return max(4, round(rng.uniform(shortest, longest) * rate))


def _seat(time: Array, start: float, length: float, down: bool) -> Controls:
    u = (time - start) / length
    seated = ease(u) if down else 1 - ease(u)
    controls = standing(len(time))
    controls.root[:, 1] += seated * (0.52 - STAND)
    back = ease(u / 0.85) if down else 1 - ease((u - 0.15) / 0.85)
    controls.root[:, 2] -= 0.36 * back
    controls.toe[..., 0] += 0.02 * SIDE
    middle = bump(u)
    controls.turn[:, 1] = 0.3 * middle - 0.08 * seated
    controls.spine[:, 0] = 0.55 * middle + 0.1 * seated
    controls.head[:, 0] = -0.3 * middle
    _blend_arms(controls, seated, (0.08, -0.9, 0.42), (-0.12, -0.28, 0.95))
    return controls


def _blend_arms(
    controls: Controls,
    weight: Array,
    upper: tuple[float, float, float],
    fore: tuple[float, float, float],
    sides: tuple[int, ...] = (0, 1),
) -> None:
    for side in sides:
        controls.upper[:, side] += weight[:, None] * (np.array(upper) - controls.upper[:, side])
        controls.fore[:, side] += weight[:, None] * (np.array(fore) - controls.fore[:, side])
