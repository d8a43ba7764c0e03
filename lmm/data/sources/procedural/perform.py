"""From a `Plan` to the joints of a clip: acts in a row or on top of each other, then the mood's posture."""

import random

from lmm.data.sources.procedural import dances, gestures, jumps, moves, trunk
from lmm.data.sources.procedural.body import Controls, solve, standing
from lmm.data.sources.procedural.plan import Act, Plan
from lmm.data.sources.procedural.styles import STYLES, Style, apply_posture
from lmm.data.sources.procedural.timing import Array, blur

MIN_FRAMES, MAX_FRAMES = 44, 196

MOVES: dict[str, moves.Move] = {
    "walk": moves.walk,
    "walk around": moves.walk_around,
    "run": moves.run,
    "run around": moves.run,
    "sidestep": moves.sidestep,
    "turn": moves.turn,
    "march": moves.march,
    "sneak": moves.sneak,
    "crouch": moves.crouch,
    "jump": jumps.jump,
    "jump aside": jumps.jump,
    "hop": jumps.hop,
    "jumping jacks": jumps.jumping_jacks,
    "squat": moves.squat,
    "sit": moves.sit,
    "stand up": moves.stand_up,
    "kick": jumps.kick,
    "lunge": moves.lunge,
    "kneel": moves.kneel,
    "balance": moves.balance,
    "sway": dances.sway,
    "step touch": dances.step_touch,
    "spin": dances.spin,
}

GESTURES: dict[str, gestures.Gesture] = {
    "wave": gestures.wave,
    "clap": gestures.clap,
    "punch": gestures.punch,
    "box": gestures.box,
    "raise": gestures.raise_arms,
    "stretch": trunk.stretch,
    "bow": trunk.bow,
    "throw": gestures.throw,
    "point": gestures.point,
    "salute": gestures.salute,
    "cross arms": gestures.cross_arms,
    "hands on hips": gestures.hands_on_hips,
    "drink": gestures.drink,
    "circle arms": gestures.circle_arms,
    "nod": trunk.nod,
    "shake head": trunk.shake_head,
    "look around": trunk.look_around,
}


def perform(plan: Plan, rng: random.Random) -> Array:
    """Joints "T 22 3" in metres at 20 fps of one performance of a plan; 44 to 196 frames.

    The body's size (0.93 to 1.07) and everything that the plan leaves open is drawn from ``rng``.
    """
    style = STYLES[plan.style]
    controls = _act(plan.first, style, rng, whole=plan.second is not None)
    if plan.second and plan.link == "with":
        _gesture(controls, plan.second, style, rng, len(controls))
    elif plan.second and plan.second.name in MOVES:
        controls = controls.then(_act(plan.second, style, rng, whole=True))
    elif plan.second:
        frames = round(20 * gestures.seconds(plan.second, style, rng))
        controls = controls.hold(after=frames)
        _gesture(controls, plan.second, style, rng, frames)
    if len(controls) < MIN_FRAMES:
        controls = controls.hold(after=MIN_FRAMES - len(controls))
    if len(controls) > MAX_FRAMES:  # a few slow double acts; never one that jumps, whose flight has to last
        controls = controls.resampled(MAX_FRAMES)
    apply_posture(controls, style, rng)
    for channel in (controls.turn, controls.spine, controls.head, controls.upper, controls.fore):
        channel[:] = blur(channel, 1.0)
    return solve(controls, rng.uniform(0.93, 1.07))


def _act(act: Act, style: Style, rng: random.Random, whole: bool) -> Controls:
    if act.name in MOVES:
        return MOVES[act.name](act, style, rng, whole)
    controls = standing(round(20 * gestures.seconds(act, style, rng)) + 1)
    GESTURES[act.name](controls, act, style, rng)
    return controls


def _gesture(controls: Controls, act: Act, style: Style, rng: random.Random, frames: int) -> None:
    """Perform a gesture over the last ``frames`` frames of existing controls."""
    part = Controls(*(getattr(controls, name)[-frames:] for name in Controls.__dataclass_fields__))  # views
    GESTURES[act.name](part, act, style, rng)
