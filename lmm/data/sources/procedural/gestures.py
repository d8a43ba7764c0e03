"""What the arms do, on top of standing, sitting or walking: one function per gesture.

A gesture gets the controls of its stretch of the clip and changes them in place; it starts and ends with what was
there, weighted by a smooth envelope. The number of repetitions is `Act.count`, or what fits the stretch if that is 0.
"""

import random
from collections.abc import Callable

import numpy as np

from lmm.data.sources.procedural.body import Controls, reach
from lmm.data.sources.procedural.course import PACE, RISE, arms_of, blend_arm, course
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import SIDE, Style, step_side
from lmm.data.sources.procedural.timing import Array, bump, clock, ease, envelope, keys

BEATS = {"wave": 0.5, "clap": 0.48, "punch": 0.8, "bow": 2.2, "drink": 2.4, "circle arms": 1.0, "nod": 0.55}
Gesture = Callable[[Controls, Act, Style, random.Random], None]


def seconds(act: Act, style: Style, rng: random.Random) -> float:
    """How long a gesture takes by itself."""
    pace = PACE[act.speed] * style.pace
    if act.name in BEATS:
        count = act.count or rng.randint(4, 7)
        return max(2.0, 2 * RISE + 0.3 + count * BEATS[act.name] / pace)
    return {"throw": 2.4, "stretch": 4.2, "raise": 2.6, "box": 4.0, "look around": 4.0}.get(act.name, 3.2) / pace


def wave(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The hand beside the head, the forearm swinging like a wiper."""
    _, w, beat = course(controls, act, 0.5 / PACE[act.speed] / style.pace)
    swing = np.sin(2 * np.pi * beat) * w
    high = rng.random() < 0.3
    upper = (0.6, 0.75, 0.3) if high else (0.8, 0.2, 0.4)
    for side in arms_of(act):
        fore = np.stack([0.12 + 0.62 * swing, np.full_like(swing, 0.95), np.full_like(swing, 0.12)], axis=-1)
        blend_arm(controls, side, w, np.array(upper) + 0.06 * swing[:, None] * [1, 0, 0], fore)
        controls.spine[:, 1] -= 0.03 * w * SIDE[side] * (act.side != "both")


def clap(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The palms meet before the chest or over the head; one clap per beat."""
    _, w, beat = course(controls, act, 0.48 / PACE[act.speed] / style.pace)
    apart = 0.02 + 0.13 * (0.5 + 0.5 * np.cos(2 * np.pi * beat)) ** 1.2
    if act.way == "chest":
        target = np.stack([apart, np.full_like(apart, 0.03), np.full_like(apart, 0.33)], axis=-1)
        upper, fore = reach(target, (0.55, -1.0, -0.1))
    else:
        target = np.stack([1.4 * apart - 0.03, np.full_like(apart, 0.58), np.full_like(apart, 0.12)], axis=-1)
        upper, fore = reach(target, (1.0, 0.0, 0.35))
    for side in (0, 1):
        blend_arm(controls, side, w, upper, fore)


def punch(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """From a guard the fist shoots forward (or up), the shoulder with it."""
    _, w, beat = course(controls, act, 0.8 / PACE[act.speed] / style.pace)
    out = _stab(beat)
    arm = step_side(act.side)
    _guard(controls, w)
    _strike(controls, arm, w * out, up=act.way == "up")


def box(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Left and right punches in turn."""
    _, w, beat = course(controls, act, 0.62 / PACE[act.speed] / style.pace)
    first, number = rng.randrange(2), np.floor(beat)
    _guard(controls, w)
    for arm in (0, 1):
        _strike(controls, arm, w * _stab(beat) * ((number + arm + first) % 2 == 0), up=False)
    controls.root[:, 1] -= 0.03 * w * (1 + 0.5 * np.sin(2 * np.pi * beat))


def raise_arms(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Straight arms overhead, out to the sides or forward, held for a moment."""
    _, w, _ = course(controls, act, 1.0, rise=0.85 / PACE[act.speed])
    goal = {"up": (0.22, 1.0, 0.08), "aside": (1.0, 0.03, 0.05), "front": (-0.02, 0.03, 1.0)}[act.way]
    via = {"up": (0.9, 0.1, 0.5), "aside": (0.8, -0.5, 0.2), "front": (0.1, -0.6, 0.7)}[act.way]
    for side in arms_of(act):
        path = (1 - w)[:, None] * controls.upper[:, side] + w[:, None] * goal + 0.8 * bump(w)[:, None] * via
        fore = (1 - w)[:, None] * controls.fore[:, side] + w[:, None] * goal + 0.6 * bump(w)[:, None] * via
        controls.upper[:, side], controls.fore[:, side] = path, fore


def throw(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Wind up, hurl, follow through; over the shoulder or from below."""
    time = clock((len(controls) - 1) / 20)
    arm, s, end = step_side(act.side), SIDE[step_side(act.side)], float(time[-1])
    at = [float(u * end) for u in (0.08, 0.27, 0.44, 0.52, 0.61, 0.71, 0.97)]
    rest_u, rest_f = controls.upper[0, arm], controls.fore[0, arm]
    if act.way == "over":
        upper = [
            rest_u,
            (0.75, -0.5, 0.1),
            (0.85, 0.25, -0.35),
            (0.75, 0.5, 0.25),
            (0.15, 0.2, 1.0),
            (-0.35, -0.65, 0.75),
            rest_u,
        ]
        fore = [
            rest_f,
            (0.55, 0.2, 0.8),
            (0.15, 0.95, -0.3),
            (0.3, 0.85, -0.45),
            (0.0, 0.25, 1.0),
            (-0.5, -0.55, 0.85),
            rest_f,
        ]
        other = (0.4, -0.1, 0.9)
    else:
        upper = [
            rest_u,
            (0.12, -0.9, -0.25),
            (0.12, -0.75, -0.65),
            (0.12, -0.95, -0.1),
            (0.05, -0.35, 0.95),
            (0.0, 0.3, 1.0),
            rest_u,
        ]
        fore = [
            rest_f,
            (0.1, -0.95, -0.1),
            (0.1, -0.8, -0.55),
            (0.05, -0.97, 0.1),
            (0.0, -0.15, 1.0),
            (0.0, 0.55, 0.9),
            rest_f,
        ]
        other = (0.35, -0.8, 0.4)
    controls.upper[:, arm], controls.fore[:, arm] = keys(time, at, upper), keys(time, at, fore)
    wind, release = keys(time, at, [0, 0.5, 1, 0.6, -0.7, -1, 0]), keys(time, at, [0, 0, 0, 0.2, 0.8, 1, 0])
    controls.spine[:, 2] -= s * 0.55 * wind * (act.way == "over") + s * 0.15 * wind
    controls.spine[:, 0] += 0.4 * release - 0.12 * np.maximum(wind, 0)
    controls.root[:, 2] += 0.06 * release - 0.05 * np.maximum(wind, 0)
    controls.root[:, 1] -= 0.02 * release
    controls.head[:, 0] -= 0.3 * release
    blend_arm(controls, 1 - arm, np.maximum(wind, 0), other, other)


def point(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """A straight arm and a look in the same direction."""
    _, w, _ = course(controls, act, 1.0)
    goal = {"front": (0.0, 0.1, 1.0), "aside": (1.0, 0.08, 0.1), "up": (0.2, 0.85, 0.6)}[act.way]
    for side in arms_of(act):
        blend_arm(controls, side, w, goal, goal)
        controls.head[:, 1] += SIDE[side] * 0.9 * w * (act.way == "aside")
    controls.head[:, 0] -= 0.5 * w * (act.way == "up")


def salute(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The hand to the brow, elbow out, back straight."""
    _, w, _ = course(controls, act, 1.0, rise=0.4)
    upper, fore = reach(np.array([[0.11, 0.36, 0.15]]), (1.0, 0.1, 0.2))
    for side in arms_of(act):
        blend_arm(controls, side, w, upper, fore)
    controls.spine[:, 0] -= 0.06 * w


def cross_arms(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Forearms over each other before the chest."""
    _, w, _ = course(controls, act, 1.0, rise=0.7)
    for side, depth in ((0, 0.24), (1, 0.19)):
        target = np.array([[-0.1, 0.0 + 0.04 * side, depth]])
        blend_arm(controls, side, w, *reach(target, (0.6, -1.0, 0.1)))


def hands_on_hips(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Hands to the waist, elbows out."""
    _, w, _ = course(controls, act, 1.0, rise=0.6)
    upper, fore = reach(np.array([[0.15, -0.27, 0.05]]), (1.0, 0.0, -0.35))
    for side in (0, 1):
        blend_arm(controls, side, w, upper, fore)


def drink(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """The hand brings a cup to the mouth, the head tips back a little."""
    time = clock((len(controls) - 1) / 20)
    count = act.count or 1
    u = np.clip((time - 0.2) / (time[-1] - 0.4), 0, 1 - 1e-9) * count
    sip = ease((u - np.floor(u)) / 0.35) * ease((1 - u + np.floor(u)) / 0.35)
    held = envelope(time, 0.1, float(time[-1]) - 0.1, 0.6)
    low, high = np.array([0.1, -0.05, 0.28]), np.array([0.03, 0.25, 0.17])
    upper, fore = reach(low + sip[:, None] * (high - low), (0.7, -1.0, 0.0))
    for side in arms_of(act):
        blend_arm(controls, side, held, upper, fore)
    controls.head[:, 0] -= 0.35 * bump(sip / 2) * sip


def circle_arms(controls: Controls, act: Act, style: Style, rng: random.Random) -> None:
    """Straight arms draw big circles beside the body."""
    time, _, beat = course(controls, act, 1.0 / PACE[act.speed] / style.pace, rise=0.3)
    w = envelope(time, 0.05, float(time[-1]) - 0.05, 0.5)
    angle = 2 * np.pi * beat * (1 if act.way == "backward" else -1)  # from hanging: forward and up, or back and up
    arm = np.stack([0.3 + 0.25 * bump((1 - np.cos(angle)) / 2), -np.cos(angle), np.sin(angle)], axis=-1)
    for side in arms_of(act):
        blend_arm(controls, side, w, arm, arm + np.array([-0.08, 0.0, 0.12]))


def _stab(beat: Array) -> Array:
    """Out fast and back once per beat."""
    u = beat - np.floor(beat)
    return ease(u / 0.3) * ease((1 - u) / 0.5)


def _guard(controls: Controls, weight: Array) -> None:
    upper, fore = reach(np.array([[0.07, 0.16, 0.25]]), (0.5, -1.0, 0.0))
    for side in (0, 1):
        blend_arm(controls, side, weight, upper, fore)
    controls.root[:, 1] -= 0.03 * weight
    controls.spine[:, 0] += 0.08 * weight


def _strike(controls: Controls, arm: int, out: Array, up: bool) -> None:
    goal = (0.05, 1.0, 0.35) if up else (-0.12, 0.03, 1.0)
    blend_arm(controls, arm, out, goal, goal)
    controls.spine[:, 2] -= SIDE[arm] * 0.4 * out
    controls.head[:, 1] += SIDE[arm] * 0.3 * out
    controls.spine[:, 0] += 0.06 * out * (not up)
