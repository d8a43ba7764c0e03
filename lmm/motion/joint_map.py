"""From a foreign skeleton to the 22 joints of `HUMANML3D_22`, by a small YAML file.

Packaged maps stand in ``lmm/motion/joint_maps``; one of one's own is given by its path. Its keys:

    joints          for each of the 22 joints a point:
                      Hips                                                  that joint
                      {between: [Hips, Spine], at: 0.45}                    45 % of the way from one point to another
                      {between: [A, B], at: [0.5, 0.8, 0.8], axes: Spine1}  shares of the way along Spine1's own axes
                      {offset: [0, -0.05, 0.13], from: LeftFoot}            metres along LeftFoot's own axes
                    points may be nested; an End Site is called <parent>_end; namespaces (``mixamorig:``) are left out
    scale           metres per unit of the file (1)
    up              axis that points up, y or z (y)
    skip_frames     frames to leave out at the start, a T-pose (0)
    licence         tag for manifests (unknown)
    missing_bones   bones that the file has shrunk to nothing: [{after: joint, direction: [x, y, z], length_of: joint}]
                    moves all that hangs on ``after`` along its axes by the rest length of the bone to ``length_of``
    rigid           true: bones get the length of the file's rest pose; only where no rotation means a T-pose (false)

A map fits a skeleton that has all joints it names. Rotations are not carried over: joint frames differ between formats,
and only the T-pose's are SMPL's pose.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from lmm.motion.kinematics import world_rotations
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import rotate

MAPS = Path(__file__).parent / "joint_maps"
_Z_TO_Y = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))


@dataclass(frozen=True)
class Between:
    """Part of the way between two points; a share for each axis of the joint ``axes``, if it is given."""

    start: "Point"
    end: "Point"
    at: tuple[float, ...]
    axes: str | None = None


@dataclass(frozen=True)
class Offset:
    """Metres from a joint, along its own axes."""

    joint: str
    offset: tuple[float, float, float]


Point = str | Between | Offset


@dataclass(frozen=True)
class MissingBone:
    """See ``missing_bones`` above."""

    after: str
    direction: tuple[float, float, float]
    length_of: str


@dataclass(frozen=True)
class JointMap:
    """How to get `HUMANML3D_22` from one foreign skeleton; the arguments are the keys explained above."""

    name: str
    joints: Mapping[str, Point]
    scale: float = 1.0
    up: Literal["y", "z"] = "y"
    skip_frames: int = 0
    licence: str = "unknown"
    missing_bones: tuple[MissingBone, ...] = ()
    rigid: bool = False

    @classmethod
    def load(cls, name: str | Path) -> "JointMap":
        """A packaged map by its name, or one's own by its ``.yaml``.

        Raises:
            ValueError: there is no such map, or the file is not sound; the message names file and key.
        """
        own = Path(name).suffix.lower() in (".yaml", ".yml")
        file = Path(name).expanduser() if own else MAPS / f"{name}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in MAPS.glob("*.yaml")))
            raise ValueError(f"there is no joint map {str(name)!r}; known are {known}, or give a .yaml of your own")
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{file}: not readable YAML ({str(error)[:200]})") from None
        return _read_map(file, content)

    @classmethod
    def detect(cls, skeleton: Skeleton) -> "JointMap":
        """The packaged map that fits a skeleton.

        Raises:
            ValueError: none fits (the nearest are told, with what they miss), or several do.
        """
        maps = [cls.load(file) for file in sorted(MAPS.glob("*.yaml"))]
        fitting = [found for found in maps if not found.missing(skeleton)]
        if len(fitting) > 1:
            names = ", ".join(found.name for found in fitting)
            raise ValueError(f"several joint maps fit this skeleton: {names}; say which with --map")
        if fitting:
            return fitting[0]
        near = sorted(maps, key=lambda found: len(found.missing(skeleton)) / len(found.needed))[:3]
        told = "; ".join(f"{found.name} misses {', '.join(found.missing(skeleton)[:5])}" for found in near)
        remedy = "write one (lmm.motion.joint_map says how) and give it with --map"
        has = ", ".join(skeleton.names[:6])
        raise ValueError(f"no joint map fits this skeleton ({has}, ...): {remedy}; nearest: {told}")

    @property
    def needed(self) -> tuple[str, ...]:
        """All joints of the file that the map names."""
        points = [name for point in self.joints.values() for name in _names(point)]
        bones = [name for bone in self.missing_bones for name in (bone.after, bone.length_of)]
        return tuple(dict.fromkeys([*points, *bones]))

    def missing(self, skeleton: Skeleton) -> list[str]:
        """Joints that the map names and the skeleton does not have."""
        have = set(_plain(skeleton.names))
        return [name for name in self.needed if name not in have]

    def unused(self, skeleton: Skeleton) -> list[str]:
        """Joints of the skeleton that the map has no use for, but for its End Sites."""
        return [name for name in _plain(skeleton.names) if name not in self.needed and not name.endswith("_end")]

    def apply(self, motion: Motion) -> Motion:
        """The 22 joints of a motion in metres, y up.

        Args:
            motion: "T J 3" with rotations in its file's units, as `read_bvh` gives it with ``scale=1, end_sites=True``.

        Returns:
            Positions without rotations. The skeleton has HUMANML3D_22's rest directions and the clip's bone lengths.

        Raises:
            ValueError: joints are missing or ambiguous, or no frame is left.
        """
        skeleton, names = motion.skeleton, _plain(motion.skeleton.names)
        if missing := self.missing(skeleton):
            lacks, has = ", ".join(missing[:5]), ", ".join(names[:40])
            raise ValueError(f"joint map {self.name} needs {lacks}, which the skeleton does not have; it has {has}")
        if twice := [name for name in self.needed if names.count(name) > 1]:
            raise ValueError(f"the skeleton has two joints called {twice[0]!r}; rename one")
        if motion.rotations is None:
            raise ValueError(f"joint map {self.name} needs the rotations of the file's joints; read them as well")
        if motion.num_frames <= self.skip_frames:
            raise ValueError(f"of {motion.num_frames} frames the first {self.skip_frames} are left out: none is left")
        still = torch.eye(3).expand(1, skeleton.num_joints, 3, 3)
        rest = self._points(skeleton.forward_kinematics(still, torch.zeros(1, 3)), still, skeleton)
        world = world_rotations(motion.rotations, skeleton)
        joints = self._points(motion.joints, world, skeleton)[self.skip_frames :]
        if self.rigid:
            joints = _with_lengths(joints, _lengths(rest)[0])
            if not torch.isfinite(joints).all():
                raise ValueError(
                    f"joint map {self.name}: two joints of a bone are in one place, so it has no direction"
                )
        offsets = torch.nn.functional.normalize(HUMANML3D_22.rest, dim=-1)
        offsets[1:] *= _lengths(joints).median(dim=0).values[:, None]
        body = replace(HUMANML3D_22, offsets=tuple((x, y, z) for x, y, z in offsets.tolist()))
        mapped = Motion(joints, motion.fps, body)
        return mapped if self.up == "y" else rotate(mapped, torch.tensor(_Z_TO_Y))

    def _points(
        self, joints: Float[Tensor, "T J 3"], world: Float[Tensor, "T J 3 3"], skeleton: Skeleton
    ) -> Float[Tensor, "T 22 3"]:
        """All mapped points, in metres; ``world`` are the joints' orientations."""
        names = _plain(skeleton.names)
        joints = joints * self.scale
        for bone in self.missing_bones:
            after = names.index(bone.after)
            length = self.scale * skeleton.rest[names.index(bone.length_of)].norm()
            step = world[:, after] @ (length * torch.tensor(bone.direction))
            hangs = [False] * skeleton.num_joints
            for joint, parent in enumerate(skeleton.parents):
                hangs[joint] = joint > 0 and (parent == after or hangs[parent])
            joints = joints + step[:, None] * torch.tensor(hangs)[:, None]

        def place(point: Point) -> Float[Tensor, "T 3"]:
            if isinstance(point, str):
                return joints[:, names.index(point)]
            if isinstance(point, Offset):
                joint = names.index(point.joint)
                return joints[:, joint] + world[:, joint] @ torch.tensor(point.offset)
            start, way, at = place(point.start), place(point.end) - place(point.start), torch.tensor(point.at)
            if point.axes is None:
                return start + at * way
            axes = world[:, names.index(point.axes)]
            return start + (axes @ (at[:, None] * (axes.transpose(-1, -2) @ way[..., None]))).squeeze(-1)

        return torch.stack([place(self.joints[name]) for name in HUMANML3D_22.names], dim=1)


def _plain(names: tuple[str, ...]) -> list[str]:
    """Names without their namespace, ``mixamorig:`` and the like."""
    return [re.sub(r"^(.*:|mixamorig\d*_?)", "", name) for name in names]


def _names(point: Point) -> list[str]:
    """The joints that a point is made of."""
    if isinstance(point, str):
        return [point]
    if isinstance(point, Offset):
        return [point.joint]
    return [*_names(point.start), *_names(point.end), *([] if point.axes is None else [point.axes])]


def _lengths(joints: Float[Tensor, "T 22 3"]) -> Float[Tensor, "T 21"]:
    return (joints[:, 1:] - joints[:, list(HUMANML3D_22.parents[1:])]).norm(dim=-1)


def _with_lengths(joints: Float[Tensor, "T 22 3"], lengths: Float[Tensor, "21"]) -> Float[Tensor, "T 22 3"]:
    """Every bone of the given length, aimed from where its start came to be at where its end was."""
    placed = [joints[:, 0]]
    for joint, parent in enumerate(HUMANML3D_22.parents[1:], start=1):
        bone = joints[:, joint] - placed[parent]
        placed.append(placed[parent] + bone / bone.norm(dim=-1, keepdim=True) * lengths[joint - 1])
    return torch.stack(placed, dim=1)


def _read_map(file: Path, content: object) -> JointMap:
    """A map from a file's content; every error names file and key."""
    known = set(JointMap.__dataclass_fields__) - {"name"}
    given = _keys(f"{file}", content, {"joints"}, known)
    names = set(HUMANML3D_22.names)
    joints = _keys(f"{file}: joints", given.pop("joints"), names, names)
    points = {name: _read_point(f"{file}: joints.{name}", value) for name, value in joints.items()}
    checks = {
        "scale": lambda v: _is_number(v) and v > 0,
        "up": lambda v: v in ("y", "z"),
        "skip_frames": lambda v: type(v) is int and v >= 0,
        "licence": lambda v: isinstance(v, str),
        "missing_bones": lambda v: isinstance(v, list),
        "rigid": lambda v: isinstance(v, bool),
    }
    for key, value in given.items():
        if not checks[key](value):
            raise ValueError(f"{file}: {key}: {str(value)[:40]!r} is not a value for it; see lmm.motion.joint_map")
    bones = []
    for number, value in enumerate(given.pop("missing_bones", [])):
        where, keys = f"{file}: missing_bones[{number}]", {"after", "direction", "length_of"}
        bone = _keys(where, value, keys, keys)
        along = _three(f"{where}.direction", bone["direction"])
        bones.append(MissingBone(str(bone["after"]), along, str(bone["length_of"])))
    given["scale"] = float(given.get("scale", 1))
    return JointMap(file.stem, points, missing_bones=tuple(bones), **given)


def _read_point(where: str, value: object, depth: int = 0) -> Point:
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, dict) or depth > 8:
        raise ValueError(f"{where}: expected a joint, {{between, at}} or {{offset, from}}, got {str(value)[:40]!r}")
    if "offset" in value:
        keys = _keys(where, value, {"offset", "from"}, {"offset", "from"})
        return Offset(str(keys["from"]), _three(f"{where}.offset", keys["offset"]))
    keys = _keys(where, value, {"between", "at"}, {"between", "at", "axes"})
    between, at, axes = keys["between"], keys["at"], keys.get("axes")
    if not isinstance(between, list) or len(between) != 2:
        raise ValueError(f"{where}.between: expected two points in brackets, got {str(between)[:40]!r}")
    if (axes is None) != _is_number(at) or not isinstance(axes, str | None):
        raise ValueError(f"{where}.at: expected one number, or three together with axes, got {str(at)[:40]!r}")
    start, end = (_read_point(f"{where}.between", point, depth + 1) for point in between)
    share = (float(at),) if axes is None else _three(f"{where}.at", at)
    return Between(start, end, share, axes)


def _keys(where: str, value: object, required: set[str], known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected keys ({', '.join(sorted(known)[:5])}, ...), got {str(value)[:40]!r}")
    if unknown := sorted(str(key) for key in value.keys() - known):
        raise ValueError(f"{where}: unknown key {unknown[0][:40]!r}; known are {', '.join(sorted(known))}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{where}: {', '.join(missing)} is missing; see lmm.motion.joint_map")
    return dict(value)


def _three(where: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(_is_number(number) for number in value):
        raise ValueError(f"{where}: expected three numbers in brackets, got {str(value)[:40]!r}")
    x, y, z = map(float, value)
    return x, y, z


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # type: ignore[arg-type]
