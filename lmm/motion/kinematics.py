"""From joint positions to local rotations and rest offsets: what animation formats and rotation features need.

Positions do not say everything: the twist of a bone with one child about its own axis is free. It is taken from the
parent (no twist is invented); joints with several children are fixed by all of them (Kabsch). Rest lengths are the
clip's median bone lengths; rest directions are the skeleton's, corrected where the clip's body differs from it, so
that a rigid clip comes back from forward kinematics exactly.

How near this comes to SMPL's pose parameters, over an AMASS clip of 43 s, as mean geodesic error of a local rotation:
15.6 degrees on `HUMANML3D_22`, 8.5 with the body's own rest offsets. Worst are upper arms (36) and forearms (28), whose
twist is not in the positions, and the upper spine (32), whose rest direction differs. The plane of a bent elbow would
gain 5 and 4 degrees on these arms, but loses up to 18 on CMU walks whose arms hang nearly straight; the knee's makes 20
degrees of the thighs' 8, because SMPL's legs bow at rest. So no hinges are assumed.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.rotations import matrix_to_quaternion, quaternion_between, quaternion_to_matrix
from lmm.motion.skeleton import Skeleton

_SHORTEST = 1e-6  # metres; shorter bones have no direction
_RIGID = 1e-4  # metres; a joint that moves more than this in its parent's frame needs position channels
_INHERIT = 1e-7  # weight of the parent's orientation in the Kabsch fit: decides only what the children leave free


def fit_rotations(
    joints: Float[Tensor, "*B T J 3"], skeleton: Skeleton
) -> tuple[Float[Tensor, "*B T J 3 3"], Float[Tensor, "J 3"]]:
    """Local rotations and rest offsets that give the joints back.

    ``skeleton.forward_kinematics(rotations, joints[..., 0, :], offsets=offsets)`` equals ``joints`` where the bones
    are rigid; elsewhere every bone gets its median length and aims at where the clip has its end. All clips of a
    batch are taken as one body.

    Args:
        joints: global positions in metres.
        skeleton: the tree, and the rest pose that rotations are measured from.

    Returns:
        Rotation matrices (the root's is global; leaves have the identity) and offsets in metres.
    """
    points = joints.double()
    children: list[list[int]] = [[] for _ in skeleton.parents]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        children[parent].append(joint)
    bones = points[..., 1:, :] - points[..., list(skeleton.parents[1:]), :]
    lengths = bones.norm(dim=-1).flatten(0, -2).median(dim=0).values
    lengths = torch.cat([lengths.new_zeros(1), lengths])
    offsets = list((_directions(skeleton.rest.to(points)) * lengths[:, None]).unbind())

    identity = torch.eye(3, dtype=points.dtype, device=points.device).expand(*points.shape[:-2], 3, 3)
    world: list[Tensor] = []
    placed = [points[..., 0, :]]  # where forward kinematics puts the joint: bones aim at the clip from there
    for joint, parent in enumerate(skeleton.parents):
        inherited = identity
        if joint:
            inherited = world[parent]
            placed.append(placed[parent] + inherited @ offsets[joint])
        own = [child for child in children[joint] if lengths[child] > _SHORTEST]
        aims = points[..., own, :] - placed[joint][..., None, :]
        if not own:
            world.append(inherited)
        elif len(own) == 1:
            arc = quaternion_between(inherited @ offsets[own[0]], aims[..., 0, :])
            present = aims.norm(dim=-1)[..., None] > _SHORTEST
            world.append(torch.where(present, quaternion_to_matrix(arc), identity) @ inherited)
        else:
            rest = torch.stack([offsets[child] for child in own])
            for _ in range(2):  # the first round fits the skeleton's directions, the second the clip's own
                seen = aims @ _kabsch(rest, aims, inherited)  # rows: the children in the joint's own frame
                rest = _directions(seen.flatten(0, -3).mean(dim=0)) * lengths[own, None]
            for child, offset in zip(own, rest, strict=True):
                offsets[child] = offset
            world.append(_kabsch(rest, aims, inherited))
    local = [world[0]] + [world[p].transpose(-1, -2) @ world[j] for j, p in enumerate(skeleton.parents) if j]
    return torch.stack(local, dim=-3).to(joints), torch.stack(offsets).to(joints)


def world_rotations(rotations: Float[Tensor, "*B J 3 3"], skeleton: Skeleton) -> Float[Tensor, "*B J 3 3"]:
    """Global orientations of all joints from local rotations."""
    world = [rotations[..., 0, :, :]]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        world.append(world[parent] @ rotations[..., joint, :, :])
    return torch.stack(world, dim=-3)


def local_translations(
    joints: Float[Tensor, "*B J 3"], rotations: Float[Tensor, "*B J 3 3"], skeleton: Skeleton
) -> Float[Tensor, "*B J 3"]:
    """Each joint's position in its parent's frame (the root's is global); constant in time for a rigid body.

    Args:
        joints: global positions in metres.
        rotations: local rotations.
        skeleton: the tree.
    """
    parents = list(skeleton.parents[1:])
    world = world_rotations(rotations, skeleton)[..., parents, :, :]
    bones = joints[..., 1:, :] - joints[..., parents, :]
    return torch.cat([joints[..., :1, :], (world.transpose(-1, -2) @ bones[..., None]).squeeze(-1)], dim=-2)


@dataclass(frozen=True)
class JointTracks:
    """A motion as animation formats keep it: every joint turns in its parent's frame, some travel there too.

    Args:
        rotations: local rotations (the root's is global).
        places: each joint's position in its parent's frame, metres (the root's is global).
        rest: where the joints rest in their parent's frame; the root at 0.
        moving: the joints that need positions over time; the root always does.
    """

    rotations: Float64[Tensor, "T J 3 3"]
    places: Float64[Tensor, "T J 3"]
    rest: Float64[Tensor, "J 3"]
    moving: list[bool]


def joint_tracks(file: str | Path, motion: Motion, *, rigid: bool = False) -> JointTracks:
    """The tracks of one motion, its own rotations or fitted ones; ``rigid`` lets only the root travel.

    Raises:
        ValueError: a batch, or rotations that are none; ``file`` is named.
    """
    if motion.joints.ndim != 3 or not motion.num_frames:
        raise ValueError(f"{file}: holds one motion (T, J, 3), got {tuple(motion.joints.shape)}; write one file each")
    joints = motion.joints.detach().cpu().double()
    if motion.rotations is None:
        rotations, rest = fit_rotations(joints, motion.skeleton)
    else:
        rotations = motion.rotations.detach().cpu().double()
        defect = (rotations.transpose(-1, -2) @ rotations - torch.eye(3, dtype=torch.float64)).abs().amax()
        if not (defect < 0.01 and (torch.linalg.det(rotations) > 0).all()):
            raise ValueError(f"{file}: the motion's rotations are no rotation matrices; correct them or leave them out")
        rotations = quaternion_to_matrix(matrix_to_quaternion(rotations))  # exact ones: places make up for the rest
    places = local_translations(joints, rotations, motion.skeleton)
    if motion.rotations is not None:
        rest = places.mean(dim=0)
    rest[0] = 0
    moving = (places - rest).norm(dim=-1).amax(dim=0) > (float("inf") if rigid else _RIGID)
    moving[0] = True
    return JointTracks(rotations, places, rest, moving.tolist())


def _directions(vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Unit vectors; up where there is no direction."""
    norm = vectors.norm(dim=-1, keepdim=True)
    return torch.where(norm > _SHORTEST, vectors / norm.clamp_min(_SHORTEST), vectors.new_tensor([0.0, 1.0, 0.0]))


def _kabsch(
    rest: Float[Tensor, "C 3"], seen: Float[Tensor, "*N C 3"], inherited: Float[Tensor, "*N 3 3"]
) -> Float[Tensor, "*N 3 3"]:
    """Rotation that takes the rest vectors nearest to the seen ones (least squares, weighted by bone length)."""
    covariance = seen.transpose(-1, -2) @ rest + _INHERIT * rest.square().sum() * inherited
    u, _, vh = torch.linalg.svd(covariance)
    sign = torch.linalg.det(u @ vh).sign()
    signs = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    return u * signs[..., None, :] @ vh
