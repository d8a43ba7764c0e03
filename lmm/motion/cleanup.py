"""Feet that stand still: an optional clean-up of foot skating after generation, off unless asked for.

1. Contacts: a ball of the foot that is low and slow, with hysteresis (a stretch of nearly planted frames with at least
   one surely planted frame in it).
2. Targets: in each contact the ball of the foot stays at its mean position, never below the floor. The correction fades
   in and out over a few frames before and after the contact; between two contacts it crosses from one to the other.
3. Legs: hip, knee and ankle by analytic two-bone inverse kinematics (law of cosines). The foot is carried along without
   turning, the knee keeps its side. Bones never stretch: a leg reaches no further than its length; where that is too
   short for the ankle, the foot turns about its planted ball (the heel lifts), and where even that is too short the
   ball stays behind its target: some sliding remains rather than a longer leg.

Everything above the hips stays as it is to the bit, and so does every frame that is no contact and not near one. What
this cannot mend: a body that glides over the floor further than its legs reach, and feet below the floor in full swing.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.kinematics import world_rotations
from lmm.motion.motion import Motion
from lmm.motion.rotations import quaternion_between, quaternion_to_matrix
from lmm.motion.skeleton import Skeleton

_LEG = ("hip", "knee", "ankle", "foot")
_SURE = (0.05, 0.4)  # m above the floor and m/s below which a foot is surely planted
_MAYBE = (0.06, 0.5)  # the same, where it is planted if it surely was or will be without leaving this range
_SHORTEST = 0.1  # s; a shorter touch is no contact
_FARTHEST = 0.15  # m from the mean position; a foot that goes further slides on purpose and is left alone
_FADE = 0.15  # s before and after a contact
_REACH = 0.999  # of the leg's length; a straight knee has no side to bend to
_BIAS = 1e-3  # m; a knee that is bent by less bends in the foot's direction


def clean_up(motion: Motion, *, floor: float = 0.0) -> Motion:
    """Lock planted feet and solve the legs for them.

    Args:
        motion: joints "*B T J 3"; put it on the floor first, contacts are looked for there.
        floor: height of the floor in metres.

    Returns:
        A new motion. Where there are rotations, those of hips, knees and ankles follow, so that forward kinematics with
        the same offsets gives the new joints.

    Raises:
        ValueError: the skeleton has no legs of hip, knee, ankle and foot.
    """
    joints = motion.joints.double()
    rotations = None if motion.rotations is None else motion.rotations.double()
    for side in ("left", "right"):
        leg = _leg(motion.skeleton, side)
        before = joints
        shift = _shift(joints[..., leg[3], :], motion.fps, floor)
        turns = _solve(joints[..., leg, :], shift)
        joints = _carry(joints, turns, leg, motion.skeleton)
        moved = (shift != 0).any(-1)[..., None, None]
        joints = torch.where(moved, joints, before)
        if rotations is not None:
            turned = _turn(rotations, turns, leg, motion.skeleton)
            rotations = torch.where(moved[..., None], turned, rotations)
    if rotations is not None:
        rotations = rotations.to(motion.joints)
    return dataclasses.replace(motion, joints=joints.to(motion.joints), rotations=rotations)


def contacts(foot: Float[Tensor, "T 3"], fps: float, *, floor: float = 0.0) -> list[slice]:
    """When a joint stands on the floor, as stretches of frames.

    Args:
        foot: the joint's path in metres.
        fps: frames per second.
        floor: height of the floor.
    """
    if len(foot) < 2:
        return []
    speed = torch.gradient(foot, dim=0)[0].norm(dim=-1) * fps
    sure, maybe = ((foot[:, 1] - floor < height) & (speed < fast) for height, fast in (_SURE, _MAYBE))
    edges = torch.diff(torch.nn.functional.pad(maybe.int(), (1, 1))).nonzero().flatten().tolist()
    stretches = [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return [
        s
        for s in stretches
        if sure[s].any()
        and s.stop - s.start >= _SHORTEST * fps
        and (foot[s] - foot[s].mean(0)).norm(dim=-1).max() < _FARTHEST
    ]


def _shift(foot: Float[Tensor, "*B T 3"], fps: float, floor: float) -> Float[Tensor, "*B T 3"]:
    """How far each frame's foot has to go: to the contact's mean position, fading outside of contacts."""
    clips = [_shift_of_clip(clip, fps, floor) for clip in foot.reshape(-1, *foot.shape[-2:])]
    return torch.stack(clips).reshape(foot.shape) if clips else torch.zeros_like(foot)


def _shift_of_clip(foot: Float[Tensor, "T 3"], fps: float, floor: float) -> Float[Tensor, "T 3"]:
    shift = torch.zeros_like(foot)
    stretches = contacts(foot, fps, floor=floor)
    for s in stretches:
        place = foot[s].mean(0)
        place[1] = place[1].clamp_min(floor)
        shift[s] = place - foot[s]
    fade = max(round(_FADE * fps), 1)
    for number, s in enumerate(stretches):
        before = min(fade, s.start - (stretches[number - 1].stop if number else 0))
        after = min(fade, (stretches[number + 1].start if number + 1 < len(stretches) else len(foot)) - s.stop)
        shift[s.start - before : s.start] += _ramp(before, foot) * shift[s.start]
        shift[s.stop : s.stop + after] += _ramp(after, foot).flip(0) * shift[s.stop - 1]
    lowest = foot[:, 1].clamp_max(floor)  # fading pushes no foot into the floor that was not in it
    shift[:, 1] = torch.maximum(foot[:, 1] + shift[:, 1], lowest) - foot[:, 1]
    return shift


def _ramp(frames: int, like: Tensor) -> Float[Tensor, "F 1"]:
    """From 0 (left out) to 1 (left out) with no slope at the ends; it and its mirror add up to 1."""
    x = torch.arange(1, frames + 1, dtype=like.dtype, device=like.device)[:, None] / (frames + 1)
    return x * x * (3 - 2 * x)


def _solve(leg: Float[Tensor, "*B 4 3"], shift: Float[Tensor, "*B 3"]) -> list[Float[Tensor, "*B 3 3"]]:
    """Global turns of thigh, shin and foot that bring the ball of the foot to its target."""
    hip, knee, ankle, foot = leg.unbind(-2)
    thigh, shin, sole = knee - hip, ankle - knee, foot - ankle
    a, b, c = (bone.norm(dim=-1, keepdim=True) for bone in (thigh, shin, sole))
    reach = torch.maximum(_REACH * (a + b), (ankle - hip).norm(dim=-1, keepdim=True))
    target = ankle + shift
    far = (target - hip).norm(dim=-1, keepdim=True) > reach
    target = torch.where(far, _middle(hip, foot + shift, reach, c, target - hip), target)
    swing = _turning(ankle - hip, target - hip)
    side = (swing @ thigh[..., None]).squeeze(-1)
    axis = _unit(target - hip)
    side = side - (side * axis).sum(-1, keepdim=True) * axis + _BIAS * _unit(sole)
    new_knee = _middle(hip, target, a, b, side)
    new_thigh, new_shin = new_knee - hip, _unit(target - new_knee) * b
    new_sole = torch.where(far, foot + shift - hip - new_thigh - new_shin, sole)
    return [_turning(thigh, new_thigh), _turning(shin, new_shin), _turning(sole, new_sole)]


def _middle(
    start: Float[Tensor, "*B 3"],
    end: Float[Tensor, "*B 3"],
    a: Float[Tensor, "*B 1"],
    b: Float[Tensor, "*B 1"],
    side: Float[Tensor, "*B 3"],
) -> Float[Tensor, "*B 3"]:
    """The joint between two bones of lengths a and b from start towards end, bent to a side (law of cosines).

    Where the end is too far the bones lie on the line to it, where it is too near they fold.
    """
    axis = _unit(end - start)
    distance = (end - start).norm(dim=-1, keepdim=True).clamp_min(1e-9)
    along = ((a * a - b * b + distance * distance) / (2 * distance)).clamp(-a, a)
    across = (a * a - along * along).clamp_min(0).sqrt()
    return start + along * axis + across * _unit(side - (side * axis).sum(-1, keepdim=True) * axis)


def _carry(
    joints: Float[Tensor, "*B J 3"], turns: list[Float[Tensor, "*B 3 3"]], leg: list[int], skeleton: Skeleton
) -> Float[Tensor, "*B J 3"]:
    """Turn everything that hangs on the hip, the knee and the ankle: bones keep their lengths by construction."""
    new = list(joints.unbind(-2))
    holder: dict[int, int] = {leg[0]: 0}  # joint -> which of the turns carries its children
    for joint, parent in enumerate(skeleton.parents):
        if parent in holder:
            number = holder[parent]
            holder[joint] = leg.index(joint) if joint in leg[:3] else number
            offset = joints[..., joint, :] - joints[..., parent, :]
            new[joint] = new[parent] + (turns[number] @ offset[..., None]).squeeze(-1)
    return torch.stack(new, dim=-2)


def _turn(
    rotations: Float[Tensor, "*B J 3 3"], turns: list[Float[Tensor, "*B 3 3"]], leg: list[int], skeleton: Skeleton
) -> Float[Tensor, "*B J 3 3"]:
    """Local rotations after the global turns; only those of hip, knee and ankle change."""
    world = world_rotations(rotations, skeleton)
    new = rotations.clone()
    above = world[..., skeleton.parents[leg[0]], :, :]
    for joint, turn in zip(leg[:3], turns, strict=True):
        turned = turn @ world[..., joint, :, :]
        new[..., joint, :, :] = above.transpose(-1, -2) @ turned
        above = turned
    return new


def _leg(skeleton: Skeleton, side: str) -> list[int]:
    """Hip, knee, ankle and foot, each the parent of the next."""
    names = [f"{side}_{joint}" for joint in _LEG]
    if missing := [name for name in names if name not in skeleton.names]:
        raise ValueError(
            f"the skeleton has no {', '.join(missing)}, so its legs cannot be cleaned up; take the motion over to the "
            f"22 joints of HumanML3D first (it has {', '.join(skeleton.names)})"
        )
    leg = [skeleton.index(name) for name in names]
    if leg[0] == 0 or [skeleton.parents[joint] for joint in leg[1:]] != leg[:3]:
        raise ValueError(f"{' -> '.join(names)} is no chain in the skeleton, so its legs cannot be cleaned up")
    return leg


def _turning(u: Float[Tensor, "*B 3"], v: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The smallest turn from the direction of u to that of v."""
    return quaternion_to_matrix(quaternion_between(u, v))


def _unit(v: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3"]:
    return v / v.norm(dim=-1, keepdim=True).clamp_min(1e-12)
