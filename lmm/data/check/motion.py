"""Findings on bodies and their motion: sides, placement, size, bones, feet, stillness, leaps."""

from collections.abc import Callable

import numpy as np

from lmm.data.check.body import Body, mirror_shape
from lmm.data.check.dataset import DataSet
from lmm.data.check.reading import STATURE
from lmm.data.check.report import Finding, clips, some

_EXCHANGED = -0.2  # `Body.sides` below this: the mirror image of a body
_MIRROR = 0.05  # metres (root mean square over joints); M<id> further from the mirrored <id> is none
_FLOOR, _FACING, _ORIGIN = 0.02, 5.0, 0.02  # metres, degrees, metres
_STRETCH = 0.005  # metres; bones of motion capture are constant to well below this
_SAME_BONES = 0.005  # metres
_SKATE = 0.5  # m/s
_MOVED = 0.01  # metres
_JUMP = 12.0  # m/s; sprinters reach it
_AXES = ("+x", "+y", "+z", "-x", "-y", "-z")


def check_motion(data: DataSet) -> list[Finding]:
    """Findings on the measurements of every clip."""
    bodies = {clip: facts.body for clip, facts in data.clips.items() if facts.body is not None}
    if not bodies:
        return [Finding("motion", "note", "no joints to examine", "see the findings above")]
    placement = [_up(bodies, data), _size(bodies, data), _floor(bodies), _facing(bodies), _origin(bodies)]
    return [
        _sides(bodies, data),
        _mirrors(bodies, data),
        *placement,
        _bones(bodies),
        _skeleton(bodies),
        _feet(bodies),
        _frozen(bodies),
        _leaps(bodies),
    ]


def _sides(bodies: dict[str, Body], data: DataSet) -> Finding:
    sides = {clip: body.sides for clip, body in bodies.items()}
    exchanged = [clip for clip, side in sides.items() if side < _EXCHANGED]
    act = [clip for clip in sides if "humanact12" in data.sources.get(clip.removeprefix("M"), "").lower()]
    ids = {"exchanged": exchanged, "HumanAct12": act}
    figures = {"unclear": sum(abs(side) <= -_EXCHANGED for side in sides.values())}
    of_act = f"; {len(set(exchanged) & set(act)):,} of them among the {len(act):,} from HumanAct12" if act else ""
    if not exchanged:
        text = f"left is left of where toes and knees point in all {clips(len(sides))}"
        return Finding(
            "left and right", "ok", text + (f", {len(act):,} from HumanAct12" if act else ""), "", ids, figures
        )
    found = f"exchanged in {clips(len(exchanged))} of {len(sides):,} {some(exchanged)}{of_act}"
    remedy = (
        "the bodies are mirror images, and 'left' in a caption is their right: negate x or swap the joints' sides"
        if len(exchanged) > len(sides) / 2
        else "mirror these clips (lmm.motion.transforms.mirror, or swap the joints' sides), or leave them out"
    )
    return Finding("left and right", "error", found, remedy, ids, figures)


def _mirrors(bodies: dict[str, Body], data: DataSet) -> Finding:
    pairs = [clip for clip in bodies if f"M{clip}" in bodies]
    wrong = {}
    for clip in pairs:
        difference = mirror_shape(bodies[clip].shape, data.layout) - bodies[f"M{clip}"].shape
        distance = float(np.sqrt(np.square(difference).sum(-1).mean()))
        if distance > _MIRROR or bodies[clip].frames != bodies[f"M{clip}"].frames:
            wrong[f"M{clip}"] = distance
    if not wrong:
        text = f"{clips(len(pairs))} M<id> mirror their originals" if pairs else "no M<id>"
        return Finding("mirrored motion", "ok", text)
    found = (
        f"{clips(len(wrong))} M<id> do not mirror their originals {some(wrong)}; up to {max(wrong.values()):.2f} m off"
    )
    return Finding("mirrored motion", "warning", found, "make them again from <id>", {"clips": list(wrong)})


def _up(bodies: dict[str, Body], data: DataSet) -> Finding:
    axes = np.array([body.up[0] for body in bodies.values()])
    usual = int(np.bincount(axes, minlength=6).argmax())
    if usual != 1:
        share = float((axes == usual).mean())
        found = f"{_AXES[usual]} is up in {share:.0%} of the clips, not +y"
        return Finding("up", "error", found, "turn all clips so that y is up (lmm.motion.transforms.rotate)")
    other = [clip for clip, body in bodies.items() if body.up[0] != 1 and body.up[1] > 0.95]
    if not other:
        return Finding("up", "ok", "y")
    found = f"{clips(len(other))} never upright {some(other)}"
    remedy = "look at them (lmm render): lying or crawling is fine, otherwise y is not up"
    return Finding("up", "warning", found, remedy, {"clips": other})


def _size(bodies: dict[str, Body], data: DataSet) -> Finding:
    tall = {clip: body.stature for clip, body in bodies.items()}
    low, median, high = (float(np.quantile(list(tall.values()), q)) for q in (0, 0.5, 1))
    figures = {"min_m": low, "median_m": median, "max_m": high, "unit": data.unit}
    if data.unit != "metres":
        found = f"lengths are in {data.unit}; read so, bodies are {low:.2f} to {high:.2f} m tall"
        remedy = "convert new_joints (and make the vectors again): features are defined in metres"
        return Finding("body size", "error", found, remedy, figures=figures)
    odd = [clip for clip, height in tall.items() if not STATURE[0] <= height <= STATURE[1]]
    found = f"about {low:.2f} to {high:.2f} m tall, median {median:.2f} m"
    if not odd:
        return Finding("body size", "ok", found, figures=figures)
    remedy = "no human size: wrong unit, or a broken skeleton"
    return Finding("body size", "warning", f"{found}; {clips(len(odd))} {some(odd)}", remedy, {"clips": odd}, figures)


def _floor(bodies: dict[str, Body]) -> Finding:
    return _within(
        "floor",
        bodies,
        lambda body: body.floor,
        _FLOOR,
        lambda low, high: f"lowest joint of a clip at {low * 100:.1f} to {high * 100:.1f} cm",
        "put_on_floor of lmm.motion.transforms; our representations do so themselves, other code may not",
    )


def _facing(bodies: dict[str, Body]) -> Finding:
    return _within(
        "facing",
        bodies,
        lambda body: body.facing,
        _FACING,
        lambda low, high: f"{low:.1f} to {high:.1f} degrees off +z in frame 0",
        "face_forward of lmm.motion.transforms; our representations do so themselves, other code may not",
    )


def _origin(bodies: dict[str, Body]) -> Finding:
    return _within(
        "origin",
        bodies,
        lambda body: body.origin,
        _ORIGIN,
        lambda low, high: f"root starts {low * 100:.1f} to {high * 100:.1f} cm from the origin",
        "face_forward of lmm.motion.transforms; our representations do so themselves, other code may not",
    )


def _bones(bodies: dict[str, Body]) -> Finding:
    return _within(
        "bone lengths",
        bodies,
        lambda body: body.stretch,
        _STRETCH,
        lambda low, high: f"vary over time by up to {high * 1000:.2f} mm (standard deviation)",
        "limbs stretch: pose estimates, or joints averaged over frames; fit a skeleton before training on them",
    )


def _skeleton(bodies: dict[str, Body]) -> Finding:
    lengths = np.stack([body.bones for body in bodies.values()])
    off = np.abs(lengths - np.median(lengths, axis=0)).max(axis=1)
    other = [clip for clip, value in zip(bodies, off, strict=True) if value > _SAME_BONES]
    figures = {"largest_difference_m": float(off.max())}
    if not other:
        return Finding(
            "skeleton", "ok", f"one for all clips (bones equal to {off.max() * 1000:.1f} mm)", figures=figures
        )
    found = (
        f"bones of {clips(len(other))} differ from the median by {_SAME_BONES * 1000:.0f} to {off.max() * 1000:.0f} mm"
    )
    remedy = "HumanML3DFeatures gives all one body (uniform_skeleton: true); leave that on for this data"
    return Finding("skeleton", "note", found, remedy, {"clips": other}, figures)


def _feet(bodies: dict[str, Body]) -> Finding:
    skate = {clip: body.skate for clip, body in bodies.items() if np.isfinite(body.skate)}
    if not skate:
        return Finding("foot skating", "note", "no toe is ever planted")
    median, high = (float(np.quantile(list(skate.values()), q)) for q in (0.5, 0.95))
    fast = [clip for clip, speed in skate.items() if speed > _SKATE]
    found = f"the planted toe moves at {median:.3f} m/s (median), {high:.3f} (95 %)"
    figures = {"median_m_s": median, "p95_m_s": high}
    if not fast:
        return Finding("foot skating", "ok", found, figures=figures)
    remedy = "slides and skates are fine; otherwise look at these clips"
    return Finding(
        "foot skating", "note", f"{found}; {clips(len(fast))} over {_SKATE} m/s {some(fast)}", remedy, {"clips": fast}
    )


def _frozen(bodies: dict[str, Body]) -> Finding:
    still = [clip for clip, body in bodies.items() if body.moved < _MOVED]
    if not still:
        return Finding("frozen clips", "ok", "none")
    found = f"nothing moves by {_MOVED * 100:.0f} cm in {clips(len(still))} {some(still)}"
    return Finding("frozen clips", "warning", found, "leave them out (the source's argument skip)", {"clips": still})


def _leaps(bodies: dict[str, Body]) -> Finding:
    fast = {clip: body.jump for clip, body in bodies.items() if body.jump > _JUMP}
    if not fast:
        top = max(body.jump for body in bodies.values())
        return Finding("teleports", "ok", f"none; the root moves at up to {top:.1f} m/s")
    found = (
        f"the root jumps at {min(fast.values()):.0f} to {max(fast.values()):.0f} m/s in {clips(len(fast))} {some(fast)}"
    )
    return Finding("teleports", "warning", found, "cut the clips there, or leave them out", {"clips": list(fast)})


def _within(
    name: str,
    bodies: dict[str, Body],
    value: Callable[[Body], float],
    limit: float,
    tell: Callable[[float, float], str],
    remedy: str,
) -> Finding:
    """A finding on one number a clip that should lie within ``limit`` of 0."""
    values = {clip: value(body) for clip, body in bodies.items()}
    low, high = min(values.values()), max(values.values())
    off = [clip for clip, number in values.items() if abs(number) > limit]
    if not off:
        return Finding(name, "ok", tell(low, high), figures={"min": low, "max": high})
    found = f"{tell(low, high)}; {clips(len(off))} off {some(off)}"
    return Finding(name, "warning", found, remedy, {"clips": off}, {"min": low, "max": high})
