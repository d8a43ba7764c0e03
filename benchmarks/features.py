"""Speed of HumanML3D's features: joints -> 263 and 263 -> joints, ours against the published procedure.

    python benchmarks/features.py [--quick] [--json FILE] [--clips N] [--repeats N]

The peer is HumanML3D's ``process_file`` and ``recover_from_ric`` written again step by step as published: one clip at a
time, two passes of inverse and one of forward kinematics, each a loop along the five chains over quaternion functions
that take numpy arrays to torch and back. Both sides run in one process on one thread and take turns (A B A B ...);
times are medians of CPU time. Before any timing the results are compared: at most 1e-4 apart, no foot contact differs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from lmm.data.sources.procedural.clips import make_clip
from lmm.motion import HUMANML3D_22, Motion
from lmm.motion.representations import HumanML3DFeatures

Array = NDArray[np.floating]
CHAINS = [[0, 2, 5, 8, 11], [0, 1, 4, 7, 10], [0, 3, 6, 9, 12, 15], [9, 14, 17, 19, 21], [9, 13, 16, 18, 20]]
X, Y, Z = np.eye(3)
DIRECTIONS = np.stack([0 * X, X, -X, Y, -Y, -Y, Y, -Y, -Y, Y, Z, Z, Y, X, -X, Z] + [-Y] * 6)
TARGET = DIRECTIONS * np.linalg.norm(np.array(HUMANML3D_22.offsets), axis=-1)[:, None]
LEFT_FOOT, RIGHT_FOOT = [7, 10], [8, 11]
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips and repeats: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows {name, peer, ours_s, peer_s, ratio} to this file")
    parser.add_argument("--clips", type=int, help="clips (default 160, quick 64)")
    parser.add_argument("--repeats", type=int, help="turns of either side (default 9, quick 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    num_clips = arguments.clips or (64 if arguments.quick else 160)
    repeats = arguments.repeats or (5 if arguments.quick else 9)
    clips = make_clips(num_clips)
    print(
        f"{num_clips} clips, {sum(map(len, clips)):,} frames of synthetic motion, float32; {torch.get_num_threads()} "
        f"thread of torch {torch.__version__}, {repeats} turns each, medians"
    )
    rows = [row for benchmark in (encoding, recovering) for row in benchmark(clips, repeats)]
    for row in rows:
        print(f"{row['name']:<44} ours {row['ours_s'] * 1e3:9.2f} ms  peer {row['peer_s'] * 1e3:9.2f} ms", end="")
        print(f"  {row['ratio']:6.1f}x  ({row['peer']})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def encoding(clips: list[Array], repeats: int) -> Iterator[dict[str, object]]:
    """Joints -> 263, in batches of 32 ragged clips and clip by clip."""
    representation = HumanML3DFeatures()
    motions = [Motion(torch.from_numpy(clip), 20.0, HUMANML3D_22) for clip in clips]

    def batched() -> list[torch.Tensor]:
        batches = [motions[i : i + BATCH] for i in range(0, len(motions), BATCH)]
        return [features for batch in batches for features in representation.encode_clips(batch)]

    def one_by_one() -> list[torch.Tensor]:
        return [representation.encode(motion) for motion in motions]

    def peer() -> list[Array]:
        return [process_file(clip) for clip in clips]

    for ours, name in ((batched, f"joints -> 263, batches of {BATCH}"), (one_by_one, "joints -> 263, clip by clip")):
        for mine, theirs in zip(ours(), peer(), strict=True):
            error = np.abs(mine.numpy() - theirs)
            assert error.max() <= 1e-4 and error[:, -4:].max() == 0, f"{name}: differs by {error.max():.1e}"
        yield measure(name, "process_file, rebuilt", ours, peer, repeats)


def recovering(clips: list[Array], repeats: int) -> Iterator[dict[str, object]]:
    """263 -> joints of a batch, as it is and through torch.compile."""
    representation = HumanML3DFeatures()
    padded = [Motion(torch.from_numpy(np.resize(clip, (197, 22, 3))), 20.0, HUMANML3D_22) for clip in clips]
    features = torch.stack([representation.encode(motion) for motion in padded])
    variants = {"263 -> joints, batched": representation.to_joints}
    compiled = torch.compile(representation.to_joints)
    try:
        compiled(features)
        variants["263 -> joints, batched, torch.compile"] = compiled
    except Exception as error:  # whatever the machine's compiler says
        print(f"skipped torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}")
    for name, ours in variants.items():
        error = (ours(features) - recover_from_ric(features)).abs().max()
        assert error <= 1e-4, f"{name}: differs by {error:.1e}"
        yield measure(
            name, "recover_from_ric, rebuilt", lambda f=ours: f(features),
            lambda: recover_from_ric(features), repeats,
        )  # fmt: skip


def measure(
    name: str, peer: str, ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> dict[str, object]:
    """One row: the two sides in turn, and the ratio of their median times."""
    times: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    with torch.inference_mode():
        for _ in range(repeats):
            for side, seconds in times.items():
                start = time.process_time()
                side()
                seconds.append(time.process_time() - start)
    mine, other = (statistics.median(seconds) for seconds in times.values())
    return {"name": name, "peer": peer, "ours_s": mine, "peer_s": other, "ratio": other / mine}


def make_clips(count: int) -> list[Array]:
    """Joints "T 22 3" of 41 to 200 frames: crops of procedural motion, turned, scaled and shaken."""
    rng, clips = np.random.default_rng(0), []
    for index in range(count):
        joints = make_clip(index, seed=0)[1]
        joints = np.concatenate(
            [joints, joints[-2::-1], joints[1:]]
        )  # there, back and there again: long enough to crop
        length = min(int(rng.integers(41, 201)), len(joints))
        start = int(rng.integers(len(joints) - length + 1))
        angle, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 1.2)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        joints = scale * joints[start : start + length] @ turn.T
        clips.append((joints + rng.normal(scale=2e-4, size=joints.shape)).astype(np.float32))
    return clips


# The published procedure. Quaternions are (w, x, y, z) in the last axis.


def process_file(joints: Array) -> Array:
    """Joints "T+1 22 3" -> features "T 263"."""
    joints = uniform_skeleton(joints)
    joints[..., 1] -= joints[..., 1].min()
    joints = joints - joints[0, 0] * [1, 0, 1]
    forward = np.cross([[0, 1, 0]], unit(joints[:1, 2] - joints[:1, 1] + joints[:1, 17] - joints[:1, 16]))
    joints = rotate(np.broadcast_to(between(unit(forward), Z[None]), (*joints.shape[:-1], 4)), joints)

    velocity = joints[1:] - joints[:-1]
    contacts = [(velocity[:, foot] ** 2).sum(-1) < 0.002 for foot in (LEFT_FOOT, RIGHT_FOOT)]
    local = inverse_kinematics(joints, (1, 2, 17, 16), smooth=True)  # hips swapped, as published
    facing = local[:, 0].copy()
    root_velocity = rotate(facing[1:], velocity[:, 0])
    yaw_velocity = np.arcsin(multiply(facing[1:], conjugate(facing[:-1]))[:, 2:3])
    centred = joints - joints[:, :1] * [1, 0, 1]
    positions = rotate(np.repeat(facing[:, None], 22, axis=1), centred)
    velocity = rotate(np.repeat(facing[:-1, None], 22, axis=1), velocity)
    rows = len(velocity)
    return np.concatenate(
        [
            yaw_velocity,
            root_velocity[:, [0, 2]],
            positions[:-1, 0, 1:2],
            positions[:-1, 1:].reshape(rows, -1),
            six_d(local)[:-1, 1:].reshape(rows, -1),
            velocity.reshape(rows, -1),
            *contacts,
        ],
        axis=-1,
    ).astype(np.float32)


def uniform_skeleton(joints: Array) -> Array:
    """The target's bone lengths by inverse and forward kinematics."""
    parents = HUMANML3D_22.parents
    source = np.zeros((22, 3))
    for joint in range(1, 22):
        source[joint] = DIRECTIONS[joint] * np.linalg.norm(joints[0, joint] - joints[0, parents[joint]])
    scale = (np.abs(TARGET[5]).max() + np.abs(TARGET[8]).max()) / (np.abs(source[5]).max() + np.abs(source[8]).max())
    local = inverse_kinematics(joints, (2, 1, 17, 16), smooth=False)
    out = np.zeros(joints.shape)
    out[:, 0] = joints[:, 0] * scale
    for chain in CHAINS:
        rotation = local[:, 0]
        for parent, joint in pairwise(chain):
            rotation = multiply(rotation, local[:, joint])
            out[:, joint] = rotate(rotation, np.repeat(TARGET[None, joint], len(joints), axis=0)) + out[:, parent]
    return out


def inverse_kinematics(joints: Array, face: tuple[int, int, int, int], smooth: bool) -> Array:
    """Local rotations "T 22 4" along the chains; the root's is the facing direction's."""
    right_hip, left_hip, right_shoulder, left_shoulder = face
    across = joints[:, right_hip] - joints[:, left_hip] + joints[:, right_shoulder] - joints[:, left_shoulder]
    forward = np.cross([[0, 1, 0]], unit(across))
    if smooth:
        forward = gaussian_filter1d(forward, 20, axis=0, mode="nearest")
    facing = between(unit(forward), np.repeat(Z[None], len(joints), axis=0))
    if smooth:
        facing[0] = [1, 0, 0, 0]
    local = np.zeros((*joints.shape[:-1], 4))
    local[:, 0] = facing
    for chain in CHAINS:
        rotation = facing
        for parent, joint in pairwise(chain):
            reference = np.repeat(DIRECTIONS[None, joint], len(joints), axis=0)
            arc = between(reference, unit(joints[:, joint] - joints[:, parent]))
            local[:, joint] = multiply(conjugate(rotation), arc)
            rotation = multiply(rotation, local[:, joint])
    return local


def recover_from_ric(features: torch.Tensor) -> torch.Tensor:
    """Features "B T 263" -> joints "B T 22 3", by full quaternions."""
    angle = torch.zeros_like(features[..., 0])
    angle[..., 1:] = features[..., :-1, 0]
    angle = angle.cumsum(-1)
    facing = torch.zeros(*angle.shape, 4)
    facing[..., 0], facing[..., 2] = angle.cos(), angle.sin()
    back = facing * torch.tensor([1.0, -1.0, -1.0, -1.0])
    root = torch.zeros(*angle.shape, 3)
    root[..., 1:, [0, 2]] = features[..., :-1, 1:3]
    root = rotate_torch(back, root).cumsum(-2)
    root[..., 1] = features[..., 3]
    local = features[..., 4:67].reshape(*angle.shape, 21, 3)
    others = rotate_torch(back[..., None, :].expand(*local.shape[:-1], 4), local)
    others[..., 0] += root[..., 0:1]
    others[..., 2] += root[..., 2:3]
    return torch.cat([root[..., None, :], others], dim=-2)


def rotate_torch(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, shape, v = q.contiguous().view(-1, 4), v.shape, v.contiguous().view(-1, 3)
    once = torch.cross(q[:, 1:], v, dim=1)
    return (v + 2 * (q[:, :1] * once + torch.cross(q[:, 1:], once, dim=1))).view(shape)


def unit(v: Array) -> Array:
    return v / np.sqrt((v**2).sum(-1))[..., None]


# As published, every quaternion function takes its arrays to torch in float32 and back.


def to_torch(a: Array, width: int) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(a)).float().view(-1, width)


def between(u: Array, v: Array) -> Array:
    a, b = to_torch(u, 3), to_torch(v, 3)
    w = (a.square().sum(-1, keepdim=True) * b.square().sum(-1, keepdim=True)).sqrt() + (a * b).sum(-1, keepdim=True)
    q = torch.cat([w, torch.cross(a, b, dim=1)], dim=-1)
    return (q / q.norm(dim=-1, keepdim=True)).numpy()


def conjugate(q: Array) -> Array:
    return (to_torch(q, 4) * torch.tensor([1.0, -1.0, -1.0, -1.0])).numpy()


def multiply(a: Array, b: Array) -> Array:
    terms = torch.bmm(to_torch(a, 4)[:, :, None], to_torch(b, 4)[:, None])  # all 16 products a_i b_j
    w = terms[:, 0, 0] - terms[:, 1, 1] - terms[:, 2, 2] - terms[:, 3, 3]
    x = terms[:, 0, 1] + terms[:, 1, 0] + terms[:, 2, 3] - terms[:, 3, 2]
    y = terms[:, 0, 2] - terms[:, 1, 3] + terms[:, 2, 0] + terms[:, 3, 1]
    z = terms[:, 0, 3] + terms[:, 1, 2] - terms[:, 2, 1] + terms[:, 3, 0]
    return torch.stack([w, x, y, z], dim=1).numpy()


def rotate(q: Array, v: Array) -> Array:
    return rotate_torch(to_torch(q, 4), to_torch(v, 3)).view(v.shape).numpy()


def six_d(q: Array) -> Array:
    """First two columns of the rotation matrices."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    second = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    return np.stack(first + second, axis=-1)


if __name__ == "__main__":
    main()
