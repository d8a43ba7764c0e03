"""Moves that leave the ground or swing a leg: jumps, hops, jumping jacks, kicks.

In the air the pelvis is on a parabola of 9.81 m/s²; take-off and landing are constant accelerations over the depth of
the crouch, so that position and speed join without a break.
"""

import random

import numpy as np

from lmm.data.sources.procedural.body import SIDE, STAND, Controls, hang, standing
from lmm.data.sources.procedural.gait import GRAVITY
from lmm.data.sources.procedural.moves import PACE
from lmm.data.sources.procedural.plan import Act
from lmm.data.sources.procedural.styles import Style, outward, step_side
from lmm.data.sources.procedural.timing import Array, bump, clock, ease, envelope, hermite, keys

OFF = STAND + 0.045  # pelvis height at which the toes leave and touch the ground


def jump(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Both feet: up, forward, backward or sideways."""
    if act.name == "jump aside":
        direction, distance = (outward(act.side), 0.0), rng.uniform(0.35, 0.55)
    else:
        direction = {"up": (0.0, 0.0), "forward": (0.0, 1.0), "backward": (0.0, -1.0)}[act.way]
        distance = rng.uniform(0.5, 0.8) if act.way == "forward" else rng.uniform(0.3, 0.45)
    height = rng.uniform(0.24, 0.38) if act.way == "up" else rng.uniform(0.16, 0.24)
    time, marks, controls = _bounds(act.count, height * min(style.bounce, 1.25) ** 0.5, crouch=0.27, pause=0.25)
    travel, fly = np.zeros_like(time), np.zeros_like(time)
    for start, takeoff, landing, end in marks:
        fly += ease((time - takeoff) / (landing - takeoff))
        speed, air = 0.8 * distance / (landing - takeoff), 0.1 * distance  # the last fifth is leaning before and after
        knots = [0, air, distance - air, distance]
        travel += hermite(time, [start, takeoff, landing, end], knots, [0, speed, speed, 0])
    for axis, way in ((0, direction[0]), (2, direction[1])):
        controls.root[:, axis] += way * travel
        controls.toe[..., axis] += (way * distance * fly)[:, None]
    swing = np.zeros_like(time)
    press = (STAND - np.minimum(controls.root[:, 1], STAND)) / 0.27
    for _, takeoff, landing, _ in marks:
        swing += keys(
            time, [takeoff - 0.75, takeoff - 0.33, takeoff + 0.1, landing + 0.05, landing + 0.5], [0, -1, 1, 0.5, 0]
        )
    controls.spine[:, 0] += 0.75 * press
    controls.turn[:, 1] += 0.2 * press
    controls.head[:, 0] -= 0.4 * press
    flex = np.where(swing < 0, 1.0, 1.7 if act.way in ("up", "forward") else 1.0) * swing
    controls.upper, controls.fore = hang(np.stack([flex, flex], 1), np.stack([0.35 + 0.3 * abs(swing)] * 2, 1), 0.2)
    return controls


def hop(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """On one leg (``side``), in place or forward."""
    foot = step_side(act.side)
    step = 0.0 if act.way == "in place" else rng.uniform(0.22, 0.34)
    time, marks, controls = _bounds(act.count, rng.uniform(0.07, 0.12), crouch=0.13, pause=0.0, before=0.7)
    last = time[-1]
    up = envelope(time, 0.15, last - 0.1, 0.5)
    shift = envelope(time, 0.0, last, 0.5)
    travel = np.zeros_like(time)
    for _, takeoff, landing, _ in marks:
        travel += step * ease((time - takeoff) / (landing - takeoff))
    root = np.zeros_like(time)
    for start, _, _, end in marks:
        root += step * ease((time - start) / (end - start))
    controls.root[:, 2] += root
    controls.toe[..., 2] += travel[:, None]
    controls.root[:, 0] += 0.075 * shift * SIDE[foot]
    other = 1 - foot
    lift = controls.root[:, 1] - STAND
    controls.toe[:, other, 1] = np.maximum(0, up * (0.3 + np.maximum(lift, -0.1)))
    controls.toe[:, other, 2] += up * (-0.22) + (root - travel) * up
    controls.foot[:, other, 1] = 0.95 * up
    flap = np.maximum(-lift, 0) / 0.13
    flex = np.stack([0.35 * up - 0.5 * flap] * 2, 1)
    controls.upper, controls.fore = hang(flex, np.stack([0.25 + 0.9 * up] * 2, 1), 0.25)
    controls.spine[:, 0] += 0.12 * up + 0.2 * flap
    controls.spine[:, 1] += 0.05 * SIDE[foot] * up
    return controls


def jumping_jacks(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Feet apart and arms overhead, and back, ``count`` times."""
    crouch = (0.03 if act.speed == "fast" else 0.055) / style.pace**2
    time, marks, controls = _bounds(2 * act.count, 0.05, crouch=crouch, pause=0.0)
    apart = np.zeros_like(time)
    arms = np.zeros_like(time)
    for i, (start, takeoff, landing, end) in enumerate(marks):
        sign = 1 if i % 2 == 0 else -1
        apart += sign * ease((time - takeoff) / (landing - takeoff))
        arms += sign * ease((time - start - 0.03) / (end - start - 0.03))
    controls.toe[..., 0] += 0.23 * apart[:, None] * SIDE
    controls.root[:, 1] -= 0.04 * apart
    angle = arms * (np.pi - 0.32) + 0.1
    arm = np.stack([np.sin(angle), -np.cos(angle), np.full_like(angle, 0.1)], axis=-1)
    lower = np.stack([np.sin(angle + 0.15), -np.cos(angle + 0.15), np.full_like(angle, 0.2)], axis=-1)
    controls.upper = np.stack([arm, arm], axis=1)
    controls.fore = np.stack([lower, lower], axis=1)
    return controls


def kick(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    """Knee up, leg out, knee up, foot down; to the front, high, or to the side."""
    foot, pace = step_side(act.side), PACE[act.speed] * style.pace
    period = max(rng.uniform(1.5, 1.8) / pace, 1.25)
    marks = [0.3 + i * period for i in range(act.count)]
    time = clock(marks[-1] + period + 0.5)
    controls = standing(len(time))
    height = {"front": rng.uniform(0.5, 0.7), "high": rng.uniform(0.95, 1.1), "side": rng.uniform(0.55, 0.75)}[act.way]
    leg, out, up = np.zeros((len(time), 3)), np.zeros_like(time), np.zeros_like(time)
    rest, chamber, strike = (
        np.zeros(3),
        np.array([-0.02, 0.36, 0.12]),
        np.array([-0.06, height, 0.72 - 0.25 * max(height - 0.6, 0)]),
    )
    if act.way == "side":
        chamber, strike = np.array([0.1, 0.38, 0.05]), np.array([0.63, height, 0.05])
    for start in marks:
        at = [start, start + 0.32 * period, start + 0.48 * period, start + 0.6 * period, start + 0.95 * period]
        leg += keys(time, at, np.array([rest, chamber, strike, chamber, rest]))
        out += keys(time, at, [0, 0.1, 1, 0.1, 0])
        up += keys(time, at, [0, 1, 1, 1, 0])
    leg[:, 0] *= SIDE[foot]
    controls.toe[:, foot] += leg
    controls.foot[:, foot, 1] = 0.5 * up - 0.9 * out * (act.way != "side")
    shift = envelope(time, 0.0, time[-1], 0.35)
    controls.root[:, 0] -= SIDE[foot] * 0.075 * shift
    controls.root[:, 1] -= 0.03 * up
    if act.way == "side":
        controls.turn[:, 2] = SIDE[foot] * 0.3 * out
        controls.root[:, 0] -= SIDE[foot] * 0.05 * out
        controls.spine[:, 1] = SIDE[foot] * 0.1 * out
        controls.foot[:, foot, 0] += SIDE[foot] * 0.2 * out
    else:
        controls.turn[:, 1] = -0.22 * out * height / 0.7
        controls.spine[:, 0] = 0.12 * out + 0.05 * up
        controls.root[:, 2] -= 0.04 * out
        controls.turn[:, 0] = -SIDE[foot] * 0.18 * out
    for side, flex in ((foot, 0.5 * up - 1.0 * out), (1 - foot, 0.5 * up + 0.3 * out)):
        arm = hang(flex, 0.25 + 1.2 * up - 0.6 * out, 0.35)
        controls.upper[:, side], controls.fore[:, side] = arm
    return controls


def _bounds(
    count: int, height: float, *, crouch: float, pause: float, before: float = 0.3
) -> tuple[Array, list[tuple[float, float, float, float]], Controls]:
    """Standing controls whose pelvis makes ``count`` jumps, with the feet leaving the ground.

    Returns the times, (start, take-off, landing, end) of each jump in seconds, and the controls.
    """
    speed = np.sqrt(2 * GRAVITY * height)
    flight, low = 2 * speed / GRAVITY, STAND - crouch
    push = 2 * (OFF - low) / speed
    sink = 0.25 + 0.5 * crouch
    time_now, marks = before, []
    times, heights, speeds = [0.0, before], [STAND, STAND], [0.0, 0.0]
    for i in range(count):
        start = time_now
        if i == 0 or pause:
            time_now += sink if i == 0 else 0.6 * sink
            times, heights, speeds = [*times, time_now], [*heights, low], [*speeds, 0.0]
        takeoff = time_now + push
        landing, bottom = takeoff + flight, takeoff + flight + push
        times += [takeoff, landing, bottom]
        heights += [OFF, OFF, low]
        speeds += [speed, -speed, 0.0]
        time_now, end = bottom, bottom
        if pause and i < count - 1:
            time_now = end = bottom + pause + 0.15
            times, heights, speeds = [*times, time_now], [*heights, STAND - 0.4 * crouch], [*speeds, 0.0]
        marks.append((start, takeoff, landing, end))
    times, heights, speeds = [*times, time_now + 0.6], [*heights, STAND], [*speeds, 0.0]
    time = clock(time_now + 0.6 + 0.4)
    controls = standing(len(time))
    y = hermite(time, times, heights, speeds)
    air, pitch = np.zeros_like(time), np.zeros_like(time)
    for _, takeoff, landing, _ in marks:
        u = (time - takeoff) / flight
        parabola = GRAVITY / 2 * (time - takeoff) * (landing - time)
        y = np.where((u > 0) & (u < 1), OFF + parabola, y)
        air = np.where((u > 0) & (u < 1), parabola + 0.03 * bump(u), air)
        pitch += keys(time, [takeoff - 0.6 * push, takeoff, landing, landing + 0.5 * push], [0, 0.75, 0.55, 0])
    controls.root[:, 1] = y
    controls.toe[..., 1] = air[:, None]
    controls.foot[..., 1] = pitch[:, None]
    return time, marks, controls
