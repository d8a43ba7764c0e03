"""Motion in, motion out: other frame rates, places, directions, sides and bodies.

Every function returns a new `Motion` and leaves joints and rotations consistent: forward kinematics of the result's
rotations, root and local translations gives its joints. Joints "*B T J 3" in metres, y up; time is the third dimension
from the end. Joints are found by name, so any skeleton with the field's names (``left_hip``, ...) will do.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lmm.motion.kinematics import fit_rotations, local_translations, world_rotations
from lmm.motion.motion import Motion
from lmm.motion.rotations import matrix_to_quaternion, quaternion_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

LOWEST_FPS, HIGHEST_FPS = 1.0, 1000.0  # of any motion in a file; beyond, somebody mistook a unit
_MAX_POSES = 20_000_000  # joints x frames that resampling may make


def check_fps(fps: float, of: str = "") -> float:
    """A motion's frame rate, from 1 to 1000 frames a second, as it is; ``of`` begins the message that refuses another.

    Raises:
        ValueError: it is no such rate.
    """
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise ValueError(f"{of}{fps:g} fps is no frame rate of a motion; expected {LOWEST_FPS:g} to {HIGHEST_FPS:g}")
    return fps


def resample(motion: Motion, fps: float) -> Motion:
    """The same motion at another frame rate, from its first frame on; nothing is extrapolated.

    Every n-th frame where the rates divide. Otherwise a Catmull-Rom spline goes through the frames: of local
    quaternions (fitted ones where the motion has none, so that bones keep their length) and of the root's path.

    Raises:
        ValueError: no frame rate of a motion, or a result that would be absurdly long.
    """
    check_fps(fps)
    ratio = motion.fps / fps
    count = int((motion.num_frames - 1) / ratio + 1e-6) + 1
    if count > motion.num_frames and count * motion.skeleton.num_joints > _MAX_POSES:
        raise ValueError(
            f"{motion.num_frames} frames at {motion.fps:g} fps would become {count} at {fps:g} fps; give a lower frame "
            "rate, or correct that of the source"
        )
    step = max(round(ratio), 1)
    if abs(ratio - step) < 1e-6 or motion.num_frames == 1:
        return replace(_frames(motion, slice(None, None, step)), fps=float(fps))
    rotations = motion.rotations
    if rotations is None:
        rotations, _ = fit_rotations(motion.joints, motion.skeleton)
    places = local_translations(motion.joints, rotations, motion.skeleton)
    time = torch.arange(count, dtype=torch.float64, device=motion.joints.device) * ratio
    turns = _spline(_continuous(matrix_to_quaternion(rotations)), time)
    rotations = quaternion_to_matrix(torch.nn.functional.normalize(turns, dim=-1))
    joints = _place(rotations, _spline(places, time), motion.skeleton)
    return Motion(joints, float(fps), motion.skeleton, None if motion.rotations is None else rotations)


def crop(motion: Motion, start: int, stop: int) -> Motion:
    """Frames ``start`` to ``stop`` (exclusive).

    Raises:
        ValueError: the motion does not have these frames.
    """
    if not 0 <= start < stop <= motion.num_frames:
        raise ValueError(f"frames {start} to {stop} of a motion with {motion.num_frames} frames do not exist")
    return _frames(motion, slice(start, stop))


def mirror(motion: Motion) -> Motion:
    """Left and right exchanged: x becomes -x, ``left_*`` joints become ``right_*``.

    Raises:
        ValueError: joints that do not come in pairs of ``left_`` and ``right_``.
    """
    names, skeleton = motion.skeleton.names, motion.skeleton
    other = [_other_side(name) for name in names]
    if set(other) != set(names) or other == list(names):
        raise ValueError(
            "only joints called left_* and right_* can be mirrored; map the skeleton to SMPL's names first"
        )
    order = [names.index(name) for name in other]
    if any((order[p] if j else -1) != skeleton.parents[order[j]] for j, p in enumerate(skeleton.parents)):
        raise ValueError("the two sides of the skeleton hang together differently, so it cannot be mirrored")
    flip = motion.joints.new_tensor([-1.0, 1.0, 1.0])
    rotations = motion.rotations
    if rotations is not None:  # M·R·M turns mirrored offsets as R turned the offsets
        rotations = rotations[..., order, :, :] * flip[:, None] * flip
    offsets = tuple((-x, y, z) for x, y, z in (skeleton.offsets[j] for j in order))
    return Motion(motion.joints[..., order, :] * flip, motion.fps, replace(skeleton, offsets=offsets), rotations)


def select(motion: Motion, skeleton: Skeleton) -> Motion:
    """The joints of a smaller skeleton, by name; the others are left out, their rotations taken over where needed.

    The result's rest offsets are the motion's own, its tree and parts those of ``skeleton``.

    Raises:
        ValueError: a joint is missing.
    """
    own = motion.skeleton
    if own.names == skeleton.names and own.parents == skeleton.parents:
        return motion
    if missing := [name for name in skeleton.names if name not in own.names]:
        raise ValueError(f"the motion has no {', '.join(missing[:4])}; it has {', '.join(own.names)}")
    order = [own.index(name) for name in skeleton.names]
    rest = own.forward_kinematics(torch.eye(3).expand(own.num_joints, 3, 3), torch.zeros(3))[order]
    offsets = [(0.0, 0.0, 0.0)] + [
        tuple((rest[j] - rest[p]).tolist()) for j, p in enumerate(skeleton.parents[1:], start=1)
    ]
    rotations = motion.rotations
    if rotations is not None:
        world = world_rotations(rotations, own)[..., order, :, :]
        parents = list(skeleton.parents[1:])
        local = world[..., parents, :, :].transpose(-1, -2) @ world[..., 1:, :, :]
        rotations = torch.cat([world[..., :1, :, :], local], dim=-3)
    smaller = replace(skeleton, offsets=tuple(offsets))
    return Motion(motion.joints[..., order, :], motion.fps, smaller, rotations)


def rotate(motion: Motion, matrix: Float[Tensor, "*B 3 3"]) -> Motion:
    """The whole motion turned about the origin; one matrix for all clips or one for each.

    Raises:
        ValueError: the matrix is not a rotation (a reflection would exchange left and right: see `mirror`).
    """
    matrix = matrix.to(motion.joints)
    square = matrix @ matrix.transpose(-1, -2) - torch.eye(3).to(matrix)
    if square.abs().max() > 1e-4 or (torch.linalg.det(matrix) < 0).any():
        raise ValueError("the matrix is not a rotation; a change of handedness is no turn of the body")
    joints = (matrix[..., None, None, :, :] @ motion.joints[..., None]).squeeze(-1)
    rotations = motion.rotations
    if rotations is not None:
        root = matrix[..., None, None, :, :] @ rotations[..., :1, :, :]
        rotations = torch.cat([root, rotations[..., 1:, :, :]], dim=-3)
    return replace(motion, joints=joints, rotations=rotations)


def put_on_floor(motion: Motion) -> Motion:
    """The lowest joint of the whole clip at height 0."""
    lowest = motion.joints[..., 1].amin(dim=(-1, -2))
    drop = torch.stack([torch.zeros_like(lowest), lowest, torch.zeros_like(lowest)], dim=-1)
    return replace(motion, joints=motion.joints - drop[..., None, None, :])


def face_forward(motion: Motion) -> Motion:
    """In frame 0 the root stands above the origin and the body faces +z (hips and shoulders say where it faces).

    Raises:
        ValueError: the body's left-right axis is vertical in frame 0, so that it faces nowhere.
    """
    first = {name: motion.joints[..., 0, motion.skeleton.index(name), :] for name in motion.skeleton.names}
    across = first["right_hip"] - first["left_hip"] + first["right_shoulder"] - first["left_shoulder"]
    x, z = across[..., 0], across[..., 2]
    length = torch.hypot(x, z)
    if (length < 1e-4).any():
        raise ValueError("the body lies on its side in the first frame, so it faces nowhere; cut the clip elsewhere")
    cos, sin, zero = -x / length, -z / length, torch.zeros_like(x)
    one = torch.ones_like(x)
    # Takes the horizontal part of across to -x: then forward = y cross across is +z.
    turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], dim=-1).unflatten(-1, (3, 3))
    origin = motion.joints[..., :1, :1, :] * motion.joints.new_tensor([1.0, 0.0, 1.0])
    return rotate(replace(motion, joints=motion.joints - origin), turn)


def to_uniform_skeleton(motion: Motion) -> Motion:
    """The body of `HUMANML3D_22`: bone directions stay, lengths are its own, the root path scales with the leg length.

    Where rotations are known they stay, and the body is posed by them; HumanML3D's own rule otherwise.

    Raises:
        ValueError: other joints than the 22 (see `select`), or a leg without length.
    """
    if motion.skeleton.names != HUMANML3D_22.names:
        raise ValueError("only the 22 joints of HUMANML3D_22 can take its body; select them first")
    target = HUMANML3D_22.rest.to(motion.joints)
    parents = list(HUMANML3D_22.parents[1:])
    bones = motion.joints[..., 1:, :] - motion.joints[..., parents, :]
    lengths = bones.norm(dim=-1)
    legs = [motion.skeleton.index(name) - 1 for name in ("right_knee", "right_ankle")]
    leg = lengths[..., 0, legs].sum(-1)
    if (lengths == 0).any():
        raise ValueError("a bone has no length in some frame, so it has no direction to keep")
    scale = target[1:].norm(dim=-1)[legs].sum() / leg
    root = motion.joints[..., 0, :] * scale[..., None, None]
    if motion.rotations is not None:
        joints = HUMANML3D_22.forward_kinematics(motion.rotations, root)
    else:
        bones = bones / lengths[..., None] * target[1:].norm(dim=-1)[:, None]
        placed = [root]
        for joint, parent in enumerate(parents, start=1):
            placed.append(placed[parent] + bones[..., joint - 1, :])
        joints = torch.stack(placed, dim=-2)
    return Motion(joints, motion.fps, HUMANML3D_22, motion.rotations)


def _frames(motion: Motion, frames: slice) -> Motion:
    rotations = None if motion.rotations is None else motion.rotations[..., frames, :, :, :]
    return replace(motion, joints=motion.joints[..., frames, :, :], rotations=rotations)


def _continuous(quaternions: Float[Tensor, "*B T J 4"]) -> Float[Tensor, "*B T J 4"]:
    """The same rotations, each with the sign that is nearer to the frame before."""
    flips = (quaternions[..., 1:, :, :] * quaternions[..., :-1, :, :]).sum(-1, keepdim=True) < 0
    signs = torch.where(flips, -1.0, 1.0).to(quaternions).cumprod(dim=-3)
    return torch.cat([quaternions[..., :1, :, :], quaternions[..., 1:, :, :] * signs], dim=-3)


def _spline(x: Float[Tensor, "*B T J C"], time: Float64[Tensor, " t"]) -> Float[Tensor, "*B t J C"]:
    """Catmull-Rom spline through the frames, at ``time`` in frames; beyond the ends it goes on straight."""
    last = x.shape[-3] - 1
    first, end = x[..., :1, :, :], x[..., -1:, :, :]
    x = torch.cat([2 * first - x[..., 1:2, :, :], x, 2 * end - x[..., -2:-1, :, :]], dim=-3)
    before = time.floor().clamp_max(last - 1)
    u = (time - before).to(x)[:, None, None]
    a, b, c, d = (x.index_select(-3, before.long() + k) for k in range(4))
    return b + u / 2 * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    return "left_" + name.removeprefix("right_") if name.startswith("right_") else name


def _place(
    rotations: Float[Tensor, "*B T J 3 3"], places: Float[Tensor, "*B T J 3"], skeleton: Skeleton
) -> Float[Tensor, "*B T J 3"]:
    """Forward kinematics where every joint has its own offset in every frame."""
    world = world_rotations(rotations, skeleton)
    joints = [places[..., 0, :]]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        joints.append(joints[parent] + (world[..., parent, :, :] @ places[..., joint, :, None]).squeeze(-1))
    return torch.stack(joints, dim=-2)
