"""BVH: the animation format that every 3D program reads; ours out, anybody's in.

Writing: y up, OFFSETs and positions in centimetres (metres x 100), rotations Z·Y·X in degrees. The rest pose (all
rotations zero) is the skeleton's T-pose with the body's own bone lengths; each leaf gets an End Site half as long as
its bone.
Reading: any tree, any channel order, channels on any node. Position channels replace the OFFSET of their axis, as
Blender and MotionBuilder have it. Rotations multiply in the order of their channels. ``.bvh.gz`` is unpacked.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from lmm.motion.kinematics import joint_tracks
from lmm.motion.motion import Motion
from lmm.motion.skeleton import Skeleton, file_skeleton
from lmm.motion.transforms import HIGHEST_FPS, LOWEST_FPS

_MAX_BYTES = 2**30
_MAX_UNPACKED = 2**28  # of a .gz, whose own size says nothing
_MAX_JOINTS = 1000
_MAX_POSES = 20_000_000  # joints x frames: 100 joints for half an hour at 100 fps
_LARGEST = 1e9  # no coordinate or angle is larger; keeps float32 finite


def write_bvh(file: str | Path, motion: Motion, *, rigid: bool = False) -> None:
    """Write one motion as BVH.

    Uses ``motion.rotations`` where they are known, `fit_rotations` otherwise. A joint that does not keep its place in
    its parent's frame (bones that stretch, foreign files with travelling hips) gets position channels, so that the
    file always gives the joints back.

    Args:
        file: where to write.
        motion: joints "T J 3" in metres.
        rigid: give no joint but the root position channels, as many retargeting tools expect; the joints are then
            only as near as constant bone lengths allow.

    Raises:
        ValueError: a batch, or rotations that are none.
    """
    skeleton, tracks = motion.skeleton, joint_tracks(file, motion, rigid=rigid)
    angles = _matrix_to_zyx(tracks.rotations)
    order = _depth_first(skeleton.parents)
    columns = [part for j in order for part in [100 * tracks.places[:, j]] * tracks.moving[j] + [angles[:, j]]]
    lines = ["HIERARCHY", *_hierarchy(skeleton, order, 100 * tracks.rest, tracks.moving), "MOTION"]
    lines += [f"Frames: {motion.num_frames}", f"Frame Time: {1 / motion.fps:.8f}"]
    with open(file, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
        np.savetxt(out, torch.cat(columns, dim=-1).numpy(), fmt="%.6f")


def read_bvh(file: str | Path, *, scale: float = 0.01, end_sites: bool = False) -> Motion:
    """Read one BVH file.

    Args:
        file: the file.
        scale: metres per unit of the file; 0.01 for centimetres. (BVH does not say: check the body's height.)
        end_sites: keep each End Site as a joint called ``<parent>_end``; they are dropped otherwise.

    Returns:
        Joints and local rotations on the file's own skeleton, with one part ``body``; on HumanML3D's names, order and
        parts if the joints are called so and hang together so. ``skeleton.offsets`` are the file's OFFSETs, or the
        mean over time where position channels replace them.

    Raises:
        ValueError: the file is not sound BVH; the message says where and what to do.
    """
    path = Path(file)
    lines = read_unpacked(path).decode("utf-8-sig", errors="replace").splitlines()
    nodes, start = _parse_hierarchy(path, lines)
    nodes = [node for node in nodes if end_sites or not node.is_end]
    numbers = {id(node): index for index, node in enumerate(nodes)}
    parents = [-1 if node.parent is None else numbers[id(node.parent)] for node in nodes]
    values, fps = _parse_motion(path, lines, start, sum(len(node.channels) for node in nodes), len(nodes))

    places, turns, column = [], [], 0
    for node in nodes:
        own = values[:, column : column + len(node.channels)]
        column += len(node.channels)
        place = torch.tensor(node.offset, dtype=torch.float64).repeat(len(values), 1)
        turn = torch.eye(3, dtype=torch.float64).expand(len(values), 3, 3)
        for channel, value in zip(node.channels, own.unbind(-1), strict=True):
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                place[:, axis] = value
            else:
                turn = turn @ _axis_rotation(axis, value.deg2rad())
        places.append(place * scale)
        turns.append(turn)
    world, joints = [turns[0]], [places[0]]
    for index, parent in enumerate(parents[1:], start=1):
        joints.append(joints[parent] + (world[parent] @ places[index][..., None]).squeeze(-1))
        world.append(world[parent] @ turns[index])
    offsets = torch.stack(places).mean(dim=1)
    offsets[0] = torch.tensor(nodes[0].offset, dtype=torch.float64) * scale
    skeleton, order = file_skeleton([node.name for node in nodes], parents, offsets.tolist())
    positions, rotations = torch.stack(joints, dim=1)[:, order].float(), torch.stack(turns, dim=1)[:, order].float()
    return Motion(joints=positions, fps=fps, skeleton=skeleton, rotations=rotations)


def read_unpacked(path: Path) -> bytes:
    """The file's bytes, those of a .gz unpacked.

    Raises:
        ValueError: no sound .gz, or so large that it is no motion.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; cut it into shorter files")
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as packed:
            text = packed.read(_MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a sound .gz ({error}); copy it again") from error
    if len(text) > _MAX_UNPACKED:
        raise ValueError(f"{path}: larger than {_MAX_UNPACKED >> 20} MiB unpacked; cut it into shorter files")
    return text


@dataclass
class _Node:
    """One joint (or End Site) of the hierarchy."""

    name: str
    parent: "_Node | None"
    is_end: bool = False
    offset: list[float] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)


def _parse_hierarchy(path: Path, lines: list[str]) -> tuple[list[_Node], int]:
    """All nodes, parents before children, and the number of the line that says MOTION (from 0)."""
    if not lines or not any(line.strip() for line in lines):
        raise ValueError(f"{path}: the file is empty; export the motion again")
    nodes: list[_Node] = []
    stack: list[_Node] = []  # open braces; no recursion, so no nesting can exhaust the interpreter
    pending: _Node | None = None  # declared, its brace not open yet
    begun = False
    for number, line in enumerate(lines):
        where = f"{path}:{number + 1}"
        for words in (part.split() for part in re.split(r"([{}])", line)):
            if not words:
                continue
            key = words[0].upper()
            if not begun:
                if key != "HIERARCHY":
                    raise ValueError(f"{where}: expected HIERARCHY, got {line.strip()[:40]!r}; this is not a BVH file")
                begun = True
            elif pending is not None and key != "{":
                raise ValueError(
                    f"{where}: expected '{{' after {pending.name!r}, got {words[0][:40]!r}; export the file again"
                )
            elif key == "{":
                if pending is None:
                    raise ValueError(f"{where}: '{{' that belongs to no ROOT, JOINT or End Site; remove it")
                stack.append(pending)
                pending = None
            elif key == "}":
                if not stack:
                    raise ValueError(f"{where}: '}}' without '{{'; remove it")
                closed = stack.pop()
                if not closed.offset:
                    raise ValueError(
                        f"{where}: {closed.name!r} has no OFFSET; add 'OFFSET 0 0 0' or export the file again"
                    )
            elif key in ("ROOT", "JOINT", "END"):
                if key == "ROOT" and nodes:
                    raise ValueError(f"{where}: a second ROOT; export one character a file")
                if key != "ROOT" and (not stack or stack[-1].is_end):
                    raise ValueError(f"{where}: {words[0]} outside of a joint's braces; put it inside its parent")
                parent = stack[-1] if stack else None
                name = f"{parent.name}_end" if key == "END" and parent else "_".join(words[1:])
                if not name:
                    raise ValueError(f"{where}: {words[0]} has no name; give it one")
                pending = _Node(name, parent, is_end=key == "END")
                nodes.append(pending)
                if len(nodes) > _MAX_JOINTS:
                    raise ValueError(f"{where}: more than {_MAX_JOINTS} joints; this is no body")
            elif key == "OFFSET" and stack:
                if len(words) != 4:
                    raise ValueError(f"{where}: OFFSET needs 3 numbers, got {len(words) - 1}; export the file again")
                stack[-1].offset = [_number(where, word) for word in words[1:]]
            elif key == "CHANNELS" and stack and not stack[-1].is_end:
                channels = [word[:1].upper() + word[1:].lower() for word in words[2:]]
                if not words[1:] or words[1] != str(len(channels)) or len(set(channels)) != len(channels):
                    raise ValueError(
                        f"{where}: CHANNELS needs their number and that many different names; correct the line"
                    )
                unknown = [c for c in channels if c not in {a + b for a in "XYZ" for b in ("position", "rotation")}]
                if unknown:
                    raise ValueError(
                        f"{where}: unknown channel {unknown[0][:40]!r}; known are X, Y, Z with position or rotation"
                    )
                stack[-1].channels = channels
            elif key == "MOTION":
                if stack or not nodes:
                    raise ValueError(
                        f"{where}: MOTION before the hierarchy is complete: a '}}' or the ROOT is missing; export again"
                    )
                return nodes, number
            else:
                raise ValueError(f"{where}: unexpected {words[0][:40]!r} in the hierarchy; export the file again")
    raise ValueError(f"{path}:{len(lines)}: the file ends without MOTION; it is truncated, copy or export it again")


def _parse_motion(
    path: Path, lines: list[str], start: int, width: int, num_joints: int
) -> tuple[Float64[Tensor, "T W"], float]:
    """The channels' values and the frame rate; ``start`` is the line that says MOTION."""
    filled = [number for number in range(start + 1, len(lines)) if lines[number].strip()]
    header: list[float] = []
    for number, key in zip(filled, ("Frames:", "Frame Time:"), strict=False):
        words = lines[number].strip()
        if not words.lower().startswith(key.lower()):
            raise ValueError(f"{path}:{number + 1}: expected '{key}', got {words[:40]!r}; export the file again")
        header.append(_number(f"{path}:{number + 1}", words[len(key) :].strip()))
    if len(header) < 2:
        raise ValueError(f"{path}:{len(lines)}: the file ends before 'Frame Time:'; it is truncated, copy it again")
    declared, frame_time = header
    rate, filled = filled[1], filled[2:]
    fps = 1 / frame_time if frame_time > 0 else 0.0
    # Files round the frame time (.0083333): 120.0005 means 120, 29.97 does not mean 30.
    fps = float(round(fps)) if round(fps) and abs(fps / round(fps) - 1) < 5e-4 else fps
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise ValueError(
            f"{path}:{rate + 1}: Frame Time is {frame_time:g}; expected {1 / HIGHEST_FPS:g} to {1 / LOWEST_FPS:g} "
            "seconds a frame: correct that line"
        )
    if width == 0:
        raise ValueError(f"{path}: no joint has CHANNELS, so nothing moves; export the animation with the skeleton")
    if declared != len(filled) or not filled:
        raise ValueError(
            f"{path}: declares {declared:g} frames and holds {len(filled)}; the file is truncated or its Frames line "
            "wrong: copy it again or correct that line"
        )
    if len(filled) * num_joints > _MAX_POSES:
        raise ValueError(f"{path}: {len(filled)} frames of {num_joints} joints are too many; cut it into shorter files")
    for number in filled:
        if (found := len(lines[number].split())) != width:
            raise ValueError(
                f"{path}:{number + 1}: {found} values where the hierarchy has {width} channels; the file is "
                "truncated or its CHANNELS are wrong: export it again"
            )
    try:
        values = np.loadtxt([lines[number] for number in filled], dtype=np.float64, ndmin=2, comments=None)
        sound = bool((np.abs(values) < _LARGEST).all())  # False for NaN
    except ValueError:
        sound = False
    if not sound:  # slowly, for the message
        for number in filled:
            for word in lines[number].split():
                _number(f"{path}:{number + 1}", word)
        raise ValueError(f"{path}: the MOTION block holds something that is not a number; export the file again")
    return torch.from_numpy(values), fps


def _number(where: str, word: str) -> float:
    """One finite number."""
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{where}: {word[:40]!r} is not a number; export the file again") from None
    if not abs(value) < _LARGEST:
        raise ValueError(
            f"{where}: {word[:40]!r} is NaN, infinite or absurdly large; clean the motion and export again"
        )
    return value


def _depth_first(parents: tuple[int, ...]) -> list[int]:
    """Joints in the order in which BVH nests them."""
    order, stack = [], [0]
    while stack:
        order.append(stack.pop())
        stack += [child for child in reversed(range(len(parents))) if parents[child] == order[-1]]
    return order


def _hierarchy(skeleton: Skeleton, order: list[int], rest: Float64[Tensor, "J 3"], moving: list[bool]) -> Iterator[str]:
    """The HIERARCHY's lines; ``rest`` in centimetres."""
    depth = [0] * skeleton.num_joints
    for joint, following in zip(order, [*order[1:], 0], strict=True):
        if joint:
            depth[joint] = depth[skeleton.parents[joint]] + 1
        tabs = "\t" * depth[joint]
        yield f"{tabs}{'JOINT' if joint else 'ROOT'} {'_'.join(skeleton.names[joint].split())}"
        yield f"{tabs}{{"
        yield "{}\tOFFSET {:.6f} {:.6f} {:.6f}".format(tabs, *rest[joint].tolist())
        position = "Xposition Yposition Zposition " if moving[joint] else ""
        yield f"{tabs}\tCHANNELS {6 if moving[joint] else 3} {position}Zrotation Yrotation Xrotation"
        if joint not in skeleton.parents:
            end = "OFFSET {:.6f} {:.6f} {:.6f}".format(*(rest[joint] / 2).tolist())
            yield from (f"{tabs}\tEnd Site", f"{tabs}\t{{", f"{tabs}\t\t{end}", f"{tabs}\t}}")
        up_to = depth[skeleton.parents[following]] + 1 if following else 0
        yield from ("\t" * level + "}" for level in range(depth[joint], up_to - 1, -1))


def _axis_rotation(axis: int, angle: Float64[Tensor, " T"]) -> Float64[Tensor, "T 3 3"]:
    """Rotation about x, y or z (0, 1, 2) by radians."""
    matrix = torch.zeros(len(angle), 3, 3, dtype=angle.dtype)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i] = matrix[:, j, j] = angle.cos()
    matrix[:, j, i] = angle.sin()
    matrix[:, i, j] = -angle.sin()
    return matrix


def _matrix_to_zyx(m: Float64[Tensor, "*N 3 3"]) -> Float64[Tensor, "*N 3"]:
    """Degrees (z, y, x) with m = Z·Y·X; x = 0 where y is ±90° and only z ± x is defined."""
    flat = torch.hypot(m[..., 0, 0], m[..., 1, 0])
    locked = flat < 1e-7
    z = torch.where(locked, torch.atan2(-m[..., 0, 1], m[..., 1, 1]), torch.atan2(m[..., 1, 0], m[..., 0, 0]))
    y = torch.atan2(-m[..., 2, 0], flat)
    x = torch.where(locked, 0.0, torch.atan2(m[..., 2, 1], m[..., 2, 2]))
    return torch.stack([z, y, x], dim=-1).rad2deg()
