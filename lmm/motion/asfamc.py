"""ASF/AMC: Acclaim's skeleton and motion files, as CMU's motion capture library and HDM05 ship them.

A bone turns about its start. With C its ``axis`` and M its angles of a frame, both Euler angles in the order that the
``axis`` names (XYZ is x first: Rz·Ry·Rx), its local rotation is C·M·C⁻¹, measured from the rest pose in which bones lie
along their ``direction``. So joints stand at the starts of bones, and a bone without children gets one more joint where
it ends, ``<bone>_end``. ``dof`` and ``order`` say which values an AMC gives, not how they multiply. Neither file knows
the frame rate (CMU: 120). Lengths are in inches times the file's ``length`` (CMU: 0.45).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from lmm.motion.bvh import read_unpacked
from lmm.motion.motion import Motion
from lmm.motion.skeleton import Skeleton
from lmm.motion.transforms import HIGHEST_FPS, LOWEST_FPS

_INCH = 0.0254  # metres
_MAX_BONES = 1000
_MAX_POSES = 20_000_000  # joints x frames
_LARGEST = 1e9  # no coordinate or angle is larger; keeps float32 finite
_AGAIN = "download the file again"
_TRANSLATIONS, _ROTATIONS = ("tx", "ty", "tz"), ("rx", "ry", "rz")


@dataclass(frozen=True)
class Bone:
    """What an ASF says of one bone: its end in metres from its start, C, the order of rotations, an AMC's values."""

    end: Float64[Tensor, "3"]
    axis: Float64[Tensor, "3 3"]
    order: str
    channels: tuple[str, ...]


@dataclass(frozen=True)
class AcclaimSkeleton:
    """What an ASF file says: the rest pose, its first joint called ``root``, and the bone that turns at each joint."""

    skeleton: Skeleton
    bones: tuple[Bone, ...]
    scale: float  # metres per unit of length
    degrees: bool  # angles are in degrees, not radians


def read_asf(file: str | Path, *, scale: float | None = None) -> AcclaimSkeleton:
    """Read a skeleton, ``.asf`` or ``.asf.gz``.

    Args:
        file: the file.
        scale: metres per unit of length, where the file's own ``length`` is wrong.

    Raises:
        ValueError: the file is not sound, or asks for what this reader does not know; the message says where.
    """
    path = Path(file)
    sections: dict[str, list[_Line]] = {}
    current: list[_Line] | None = None
    for line in _lines(path):
        if line.key.startswith(":"):
            current = sections.setdefault(line.key, [])
        elif current is None:
            raise line.error(f"expected a section such as :version, got {line.words[0][:40]!r}; this is no ASF file")
        else:
            current.append(line)
    if missing := [name for name in (":root", ":bonedata", ":hierarchy") if not sections.get(name)]:
        raise ValueError(f"{path}: has no {missing[0]} section; it is truncated, copy or download it again")
    length, degrees = 1.0, True
    for line in sections.get(":units", []):
        if line.key == "length":
            (length,) = line.numbers(1)
            if length <= 0:
                raise line.error("the length unit must be positive; it is 0.45 in CMU's files")
        elif line.key == "angle":
            degrees = line.degrees()
    metres = _INCH / length if scale is None else scale
    bones = {"root": _read_root(sections[":root"])}
    for block in _blocks(path, sections[":bonedata"]):
        name, bone = _read_bone(block, metres, degrees)
        if name in bones:
            raise block["name"].error(f"a second bone {name[:40]!r}; rename one")
        if len(bones) > _MAX_BONES:
            raise block["name"].error(f"more than {_MAX_BONES} bones; this is no body")
        bones[name] = bone
    skeleton = _assemble(path, bones, _read_hierarchy(sections[":hierarchy"], bones))
    leaf = Bone(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), "xyz", ())
    return AcclaimSkeleton(skeleton, tuple(bones.get(name, leaf) for name in skeleton.names), metres, degrees)


def read_amc(file: str | Path, asf: AcclaimSkeleton | str | Path | None = None, *, fps: float = 120.0) -> Motion:
    """Read a motion, ``.amc`` or ``.amc.gz``.

    Args:
        file: the file.
        asf: its skeleton; looked for in the same folder if None (see `find_asf`).
        fps: frames per second, which the file does not say.

    Returns:
        Joints and local rotations; ``skeleton.forward_kinematics`` of the rotations gives the joints.

    Raises:
        ValueError: the file is not sound; the message says where and what to do.
    """
    path = Path(file)
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise ValueError(
            f"{path}: cannot have {fps:g} frames per second, only {LOWEST_FPS:g} to {HIGHEST_FPS:g}; CMU's recordings "
            "have 120"
        )
    acclaim = asf if isinstance(asf, AcclaimSkeleton) else read_asf(find_asf(path) if asf is None else asf)
    values, degrees = _read_frames(path, acclaim)
    root, turns, column = torch.zeros(len(values), 3, dtype=torch.float64), [], 0
    for bone in acclaim.bones:
        own = dict(zip(bone.channels, values[:, column : column + len(bone.channels)].unbind(-1), strict=True))
        column += len(bone.channels)
        for index, name in enumerate(_TRANSLATIONS):
            if name in own:
                root[:, index] = own[name] * acclaim.scale
        angles = [own.get(f"r{letter}", torch.zeros(len(values), dtype=torch.float64)) for letter in bone.order]
        turns.append(bone.axis @ _euler(bone.order, torch.stack(angles, dim=-1), degrees) @ bone.axis.T)
    rotations = torch.stack(turns, dim=1)
    joints = acclaim.skeleton.forward_kinematics(rotations, root)
    return Motion(joints.float(), float(fps), acclaim.skeleton, rotations.float())


def find_asf(file: str | Path) -> Path:
    """The skeleton of an AMC in its folder: of the same name, of its subject (02_01.amc: 02.asf), or the only one.

    Raises:
        ValueError: there is none, or it is not clear which.
    """
    path = Path(file)
    stem = _stem(path)
    subject = stem.rpartition("_")[0] or stem
    found = sorted(p for p in path.parent.iterdir() if re.search(r"\.asf(\.gz)?$", p.name, re.IGNORECASE))
    named = [p for name in (stem, subject) for p in found if _stem(p) == name]
    if not named and len(found) != 1:
        have = f"there are {', '.join(p.name for p in found[:4])}" if found else "there is no .asf at all"
        raise ValueError(f"{path}: no skeleton {subject}.asf in its folder ({have}); put the subject's .asf beside it")
    return (named or found)[0]


@dataclass(frozen=True)
class _Line:
    """The words of a line, and where it stands."""

    path: Path
    number: int
    words: list[str]

    @property
    def key(self) -> str:
        return self.words[0].lower()

    def error(self, message: str) -> ValueError:
        return ValueError(f"{self.path}:{self.number}: {message}")

    def numbers(self, count: int) -> list[float]:
        """The numbers behind the key; at least ``count``."""
        if len(self.words) <= count:
            raise self.error(f"{self.words[0]} needs {count} numbers, got {len(self.words) - 1}; {_AGAIN}")
        try:
            values = [float(word) for word in self.words[1 : count + 1]]
        except ValueError:
            raise self.error(f"{self.words[0]} needs {count} numbers, got {' '.join(self.words[1:])[:40]!r}") from None
        if not all(abs(value) < _LARGEST for value in values):
            raise self.error("NaN, infinite or absurdly large; clean the file")
        return values

    def degrees(self) -> bool:
        """Whether the last word, the unit of angles, means degrees."""
        unit = self.words[-1].lower().lstrip(":")
        if unit[:3] not in ("deg", "rad"):
            raise self.error(f"unknown unit of angles {unit[:40]!r}; known are deg and rad")
        return unit.startswith("deg")

    def order(self) -> str:
        """The last word, an order of rotations such as xyz."""
        order = self.words[-1].lower()
        if sorted(order) != ["x", "y", "z"]:
            raise self.error(f"{order[:40]!r} is no order of rotations; correct it (CMU's files say XYZ)")
        return order

    def channels(self, known: set[str]) -> tuple[str, ...]:
        """The words behind the key, values of an AMC."""
        channels = tuple(word.lower() for word in self.words[1:])
        if set(channels) - known or len(set(channels)) != len(channels):
            found = " ".join(channels)[:40]
            raise self.error(f"{self.key} {found}: only {', '.join(sorted(known))}, each once, are supported here")
        return channels


def _lines(path: Path) -> Iterator[_Line]:
    """The lines that say something."""
    text = read_unpacked(path).decode("utf-8-sig", errors="replace")
    lines = (_Line(path, n, line.partition("#")[0].split()) for n, line in enumerate(text.splitlines(), start=1))
    return (line for line in lines if line.words)


def _read_root(lines: list[_Line]) -> Bone:
    order = "xyz"
    channels: tuple[str, ...] = ()
    for line in lines:
        if line.key == "order":
            channels = line.channels({*_TRANSLATIONS, *_ROTATIONS})
        elif line.key == "axis":
            order = line.order()
        elif line.key in ("position", "orientation") and any(line.numbers(3)):
            raise line.error(f"a root with its own {line.key} is not supported; only 0 0 0, as CMU's files have, is")
    return Bone(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), order, channels)


def _blocks(path: Path, lines: list[_Line]) -> Iterator[dict[str, _Line]]:
    """The lines between each begin and end, by their keys."""
    block: dict[str, _Line] | None = None
    for line in lines:
        if line.key == "begin":
            block = {}
        elif block is None:
            raise line.error(f"{line.words[0][:40]!r} outside of begin and end; {_AGAIN}")
        elif line.key != "end":
            block[line.key] = line
        elif missing := [key for key in ("name", "direction", "length", "axis") if key not in block]:
            raise line.error(f"a bone without {missing[0]}; {_AGAIN}")
        else:
            yield block
            block = None
    if block is not None:
        raise ValueError(f"{path}: its last bone has no end; the file is truncated, {_AGAIN}")


def _read_bone(block: dict[str, _Line], metres: float, degrees: bool) -> tuple[str, Bone]:
    direction = torch.tensor(block["direction"].numbers(3), dtype=torch.float64)
    (length,) = block["length"].numbers(1)
    angles, order = torch.tensor(block["axis"].numbers(3), dtype=torch.float64), block["axis"].order()
    axis = _euler(order, angles[["xyz".index(letter) for letter in order]], degrees)
    channels = block["dof"].channels(set(_ROTATIONS)) if "dof" in block else ()
    end = torch.nn.functional.normalize(direction, dim=0) * length * metres
    return block["name"].words[-1], Bone(end, axis, order, channels)


def _read_hierarchy(lines: list[_Line], bones: dict[str, Bone]) -> dict[str, list[str]]:
    """The children of each bone."""
    children: dict[str, list[str]] = {}
    seen = {"root"}
    for line in lines:
        if line.key not in ("begin", "end") and len(line.words) > 1:
            for name in line.words:
                if name not in bones:
                    raise line.error(f"{name[:40]!r} is not in :bonedata; correct the hierarchy")
            for child in line.words[1:]:
                if child in seen:
                    raise line.error(f"{child[:40]!r} has two parents; correct the hierarchy")
                seen.add(child)
            children.setdefault(line.words[0], []).extend(line.words[1:])
    return children


def _assemble(path: Path, bones: dict[str, Bone], children: dict[str, list[str]]) -> Skeleton:
    """Joints, parents first, from bones and who hangs on whom."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[tuple[float, float, float]] = []
    stack = [("root", -1, (0.0, 0.0, 0.0))]
    while stack:
        name, parent, offset = stack.pop()
        below = children.get(name) or [f"{name}_end"] * (name in bones)
        if name not in children and f"{name}_end" in bones:
            raise ValueError(f"{path}: a bone is called {name}_end, as the end of {name!r} is; rename it")
        if name in bones:
            x, y, z = bones[name].end.tolist()
            stack += [(child, len(names), (x, y, z)) for child in reversed(below)]
        names.append(name)
        parents.append(parent)
        offsets.append(offset)
    if lost := [name for name in bones if name not in names]:
        raise ValueError(f"{path}: {lost[0]!r} hangs on nothing; add it to :hierarchy")
    return Skeleton(tuple(names), tuple(parents), tuple(offsets), {"body": tuple(range(len(names)))})


def _read_frames(path: Path, acclaim: AcclaimSkeleton) -> tuple[Float64[Tensor, "T C"], bool]:
    """All values, bone after bone, and whether angles are degrees."""
    names, degrees = acclaim.skeleton.names, acclaim.degrees
    wanted = {name: len(bone.channels) for name, bone in zip(names, acclaim.bones, strict=True) if bone.channels}
    frames: list[tuple[_Line, dict[str, list[str]]]] = []
    for line in _lines(path):
        name, count = line.words[0], len(line.words) - 1
        if name.startswith(":"):
            degrees = line.degrees() if line.key in (":degrees", ":radians") else degrees
        elif count == 0:
            follows = not frames or name == str(int(frames[-1][0].key) + 1)
            if not (name.isascii() and name.isdecimal() and len(name) < 10 and follows):
                raise line.error(f"expected the number of the next frame, got {name[:40]!r}; {_AGAIN}")
            if len(frames) * len(names) > _MAX_POSES:
                raise line.error(f"more than {len(frames)} frames; cut the file into shorter ones")
            frames.append((line, {}))
        elif not frames:
            raise line.error(f"{name[:40]!r} before the first frame's number; this is no AMC file")
        elif count != wanted.get(name, -1):
            has = f"has {wanted[name]}" if name in wanted else "has none or does not know it"
            raise line.error(f"{count} values for {name[:40]!r}, the skeleton {has}; is it the right .asf?")
        elif name in frames[-1][1]:
            raise line.error(f"{name!r} twice in frame {frames[-1][0].key}; {_AGAIN}")
        else:
            frames[-1][1][name] = line.words[1:]
    if not frames:
        raise ValueError(f"{path}: holds no frame; it is empty or truncated, {_AGAIN}")
    for line, frame in frames:
        if len(frame) < len(wanted):
            missing = ", ".join([name for name in wanted if name not in frame][:4])
            raise line.error(f"frame {line.key} has no {missing}; the file is truncated or its .asf another")
    try:
        rows = [[word for name in wanted for word in frame[name]] for _, frame in frames]
        values = np.array(rows, dtype=np.float64)
        sound = bool((np.abs(values) < _LARGEST).all())  # False for NaN
    except ValueError:
        sound = False
    if not sound:  # slowly, for the message
        for line in _lines(path):
            line.numbers(0 if line.key.startswith(":") else len(line.words) - 1)
        raise ValueError(f"{path}: holds something that is not a number; {_AGAIN}")
    return torch.from_numpy(values), degrees


def _euler(order: str, angles: Float64[Tensor, "*N 3"], degrees: bool) -> Float64[Tensor, "*N 3 3"]:
    """Rotations about the axes of ``order``, the first applied first; angles in the same order."""
    angles = angles.deg2rad() if degrees else angles
    matrix = torch.eye(3, dtype=angles.dtype).expand(*angles.shape[:-1], 3, 3)
    for letter, angle in zip(order, angles.unbind(-1), strict=True):
        axis = "xyz".index(letter)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.zeros_like(matrix)
        turn[..., axis, axis] = 1
        turn[..., i, i] = turn[..., j, j] = angle.cos()
        turn[..., j, i] = angle.sin()
        turn[..., i, j] = -angle.sin()
        matrix = turn @ matrix
    return matrix


def _stem(path: Path) -> str:
    return re.sub(r"\.(asf|amc)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
