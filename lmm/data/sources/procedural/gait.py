"""Everything that goes on two feet: a stepping pattern along a path.

Time enters only through a phase φ counted in steps. Step k swings its foot over φ in [k + 1/2 - w, k + 1/2 + w], the
foot being k even or odd; w < 1/2 walks (both feet down in between), w > 1/2 runs (both in the air). A path gives
position and heading for each φ, a foot lands where the pelvis will be one step later, and stays there until its next
swing: planted feet do not slide, whatever the path. Arms, trunk and the pelvis' rise and fall follow the same φ.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmm.data.sources.procedural.body import (
    REACH,
    SIDE,
    STANCE,
    STAND,
    TOE_AHEAD,
    TOE_OUT,
    Controls,
    hang,
    standing,
)
from lmm.data.sources.procedural.styles import Style
from lmm.data.sources.procedural.timing import Array, bump, clock, ease

GRAVITY = 9.81
RAMP = 1.2  # steps over which one gets going or stops; each costs half of it in distance
Path = Callable[[Array], tuple[Array, Array, Array]]  # φ -> x, z, heading


@dataclass(frozen=True)
class Gait:
    """A stepping pattern.

    Args:
        rate: steps per second.
        stride: length of one step in metres (for the pelvis' height; the path says where one goes).
        swing: w, half the length of a swing in steps.
        lift: height of the swinging toes in metres.
        knee: extra lift that brings the knee up high (marching).
        heel: heel lift at push-off, radians.
        toes: toes up before landing, radians.
        width: distance of the feet from the path in metres.
        sink: lower the pelvis by this, metres.
        bounce: rise and fall of the pelvis, metres.
        arms: arm swing, radians; elbow: bend of the elbows, radians.
        lean: forward bend of the spine, radians.
    """

    rate: float = 1.9
    stride: float = 0.62
    swing: float = 0.38
    lift: float = 0.05
    knee: float = 0.0
    heel: float = 0.65
    toes: float = 0.2
    width: float = 0.075
    sink: float = 0.0
    bounce: float = 0.018
    arms: float = 0.42
    elbow: float = 0.3
    lean: float = 0.02


def straight(step: float, angle: float = 0.0) -> Path:
    """Along a straight line, ``angle`` radians left of the (constant) heading +z."""
    return lambda phase: (step * np.sin(angle) * phase, step * np.cos(angle) * phase, np.zeros_like(phase))


def arc(step: float, turn: float) -> Path:
    """Along a circle: ``turn`` radians of heading (to the left) per step."""
    radius = step / turn
    return lambda phase: (radius * (1 - np.cos(turn * phase)), radius * np.sin(turn * phase), turn * phase)


def corner(step: float, steps: int, turn: float) -> Path:
    """Straight on, around a corner of ``turn`` radians in the middle of ``steps`` steps, and straight on."""
    grid = np.linspace(-steps, 2 * steps, 60 * steps + 1)
    heading = turn * ease((grid / steps - 0.32) / 0.36)
    delta = grid[1] - grid[0]
    x, z = (np.concatenate([[0], np.cumsum(f(heading)[:-1] + f(heading)[1:]) * delta / 2]) for f in (np.sin, np.cos))
    x, z = step * (x - np.interp(0, grid, x)), step * (z - np.interp(0, grid, z))
    return lambda phase: (np.interp(phase, grid, x), np.interp(phase, grid, z), np.interp(phase, grid, heading))


def on_the_spot(turn: float = 0.0) -> Path:
    """Without getting anywhere, turning ``turn`` radians to the left per step."""
    return lambda phase: (np.zeros_like(phase), np.zeros_like(phase), turn * phase)


def locomotion(
    path: Path,
    gait: Gait,
    style: Style,
    rng: random.Random,
    *,
    steps: int,
    starts: bool = True,
    stops: bool = True,
    first: int | None = None,
) -> Controls:
    """Step along a path, from standing to standing unless ``starts`` or ``stops`` say otherwise (then in mid-gait).

    The foot ``first`` (0 left, 1 right, None either) takes the first of the ``steps``.
    """
    rate = gait.rate * style.pace * rng.uniform(0.95, 1.05)
    first = rng.randrange(2) if first is None else first
    lead = SIDE[first]
    margin = 0.35 + max(gait.swing - 0.4, 0)
    begin, end = (-margin if starts else 1.0), steps + (margin if stops else -1.0)
    phase, tempo = _phase(rate, begin, end, starts, stops)
    low, high = (0.0 if starts else -np.inf), (float(steps) if stops else np.inf)

    def place(at: Array) -> tuple[Array, Array, Array]:
        return path(_along(at, low, high))

    controls = standing(len(phase))
    amount = tempo * ease((phase - low) / 0.8) * ease((high - phase) / 0.8)  # of sway, swing and bob
    x, z, heading = place(phase)
    wave, half = np.sin(np.pi * (phase - 0.5)) * lead, np.cos(np.pi * (phase - 0.5)) * lead
    sideways = -0.024 * amount * half
    controls.root[:, 0] = x + sideways * np.cos(heading)
    controls.root[:, 2] = z - sideways * np.sin(heading)
    controls.root[:, 1] = _height(phase, amount, gait, style, rate)
    controls.turn[:, 0] = heading - 0.11 * wave * amount * min(gait.arms / 0.4, 1)
    controls.turn[:, 2] = -0.035 * half * amount
    controls.spine[:, 0] = gait.lean * amount
    controls.spine[:, 1] = 0.03 * half * amount
    controls.spine[:, 2] = 0.22 * wave * amount * min(gait.arms / 0.4, 1.4)
    controls.head[:, 1] = -0.10 * wave * amount * min(gait.arms / 0.4, 1)
    flex = -SIDE * (wave * amount)[:, None] * gait.arms * style.swing
    elbow = 0.25 + amount[:, None] * (gait.elbow - 0.25 + style.elbow + 0.5 * np.maximum(flex, -0.2))
    controls.upper, controls.fore = hang(0.7 * flex + 0.04, np.broadcast_to(elbow, flex.shape))
    for foot in (0, 1):
        _feet(controls, foot, foot ^ first, phase, place, gait, low, high)
    return controls


def _phase(rate: float, begin: float, end: float, starts: bool, stops: bool) -> tuple[Array, Array]:
    """Phase over time and the tempo (0..1) at which it runs, with half a second to get going and to stop."""
    ramp = 0.5
    seconds = (end - begin) / rate + (ramp / 2) * (starts + stops)
    time = clock(seconds)
    fine = np.linspace(0, time[-1], 10 * len(time))
    tempo = np.ones_like(fine)
    tempo *= ease((fine + 0.02) / ramp) if starts else 1
    tempo *= ease((time[-1] + 0.02 - fine) / ramp) if stops else 1
    done = np.concatenate([[0], np.cumsum((tempo[1:] + tempo[:-1]) / 2)])
    phase = begin + (end - begin) * done / done[-1]
    return np.interp(time, fine, phase), np.interp(time, fine, tempo)


def _along(phase: Array, low: float, high: float) -> Array:
    """How far along the path, in step lengths: the first and last steps are short, beyond them nothing moves."""
    phase = np.clip(phase, low, high)
    steps = phase
    if np.isfinite(low):
        steps = steps - RAMP / 2 + np.maximum(low + RAMP - phase, 0) ** 2 / (2 * RAMP)
    if np.isfinite(high):
        steps = steps - np.maximum(phase + RAMP - high, 0) ** 2 / (2 * RAMP)
    return steps


def _height(phase: Array, amount: Array, gait: Gait, style: Style, rate: float) -> Array:
    if gait.swing <= 0.5:  # over the standing leg highest, between the steps lowest
        lowest = 0.13 + np.sqrt(REACH**2 - min((0.44 * gait.stride) ** 2, 0.2))
        base = min(lowest + gait.bounce, STAND - 0.012) - gait.sink
        return STAND + amount * (base - STAND + gait.bounce * style.bounce * np.cos(2 * np.pi * (phase - 0.5)))
    flight = (2 * gait.swing - 1) / rate  # seconds in the air, centred at whole φ
    stance = 1 / rate - flight
    offset = (phase - np.round(phase)) / rate
    airborne = GRAVITY / 2 * (flight**2 / 4 - offset**2)
    u = (abs(offset) - flight / 2) / stance
    pressed = -(GRAVITY * flight / 2) * stance / np.pi * np.sin(np.pi * np.clip(u, 0, 1))
    curve = np.where(abs(offset) < flight / 2, airborne, pressed)
    return STAND + amount * (curve + 0.005 - gait.sink)


def _feet(
    controls: Controls, foot: int, parity: int, phase: Array, place: Path, gait: Gait, low: float, high: float
) -> None:
    """Toe path and foot angles of one foot, which swings in the steps of its parity."""
    w = gait.swing
    k = parity + 2 * np.round((phase - 0.5 - parity) / 2)
    if np.isfinite(high):
        k = np.clip(k, parity, parity + 2 * ((high - 1 - parity) // 2))
    elif np.isfinite(low):
        k = np.maximum(k, parity)
    u = (phase - (k + 0.5 - w)) / (2 * w)
    before = np.where(k < 2, low, k - 0.5) if np.isfinite(low) else k - 0.5
    old, new = _foothold(before, foot, place, gait, low, high), _foothold(k + 1.5, foot, place, gait, low, high)
    through = np.clip(u, 0, 1)
    if w <= 0.5:  # a foot that came to rest long before it lands would be out of the leg's reach
        s = 0.5 * ease(u) + 0.5 * through**2 * (3 - 2 * through)
    else:
        s = through - 0.7 * np.sin(2 * np.pi * through) / (2 * np.pi)
    moved = np.clip(np.hypot(new[0] - old[0], new[1] - old[1]) / 0.3 + abs(new[2] - old[2]), 0.3, 1)  # small step: low
    if gait.knee:
        moved = np.ones_like(moved)
    off = gait.heel * moved * np.where(u < 0, ease(1 + 2 * w * u / 0.42), 1 - ease(u / 0.75))
    if np.isfinite(low):  # nobody stands with a lifted heel before the first step
        off = np.where((k == parity) & (u < 0), off * ease((phase - low + 0.3) / 0.3), off)
    up = gait.toes * moved * bump((u - 0.5) / 0.5)
    controls.toe[:, foot, 0] = old[0] + s * (new[0] - old[0])
    controls.toe[:, foot, 2] = old[1] + s * (new[1] - old[1])
    controls.toe[:, foot, 1] = (gait.lift + gait.knee) * moved * bump(through**0.85) + 0.14 * np.sin(up)
    controls.foot[:, foot, 0] = old[2] + s * (new[2] - old[2]) + 0.6 * TOE_OUT * SIDE[foot]
    controls.foot[:, foot, 1] = off - up


def _foothold(at: Array, foot: int, place: Path, gait: Gait, low: float, high: float) -> tuple[Array, Array, Array]:
    """Where the toes stand after the step whose stance has its middle at phase ``at``: x, z, heading."""
    x, z, heading = place(at - max(gait.swing - 0.5, 0) * 0.6)  # runners land below rather than before the body
    walking = ease((at - low) / 1.0) * ease((high - at) / 1.0)  # feet come together where one stands
    aside = SIDE[foot] * (STANCE + walking * (gait.width - STANCE))
    sin, cos = np.sin(heading), np.cos(heading)
    return x + aside * cos + TOE_AHEAD * sin, z - aside * sin + TOE_AHEAD * cos, heading
