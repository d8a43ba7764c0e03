"""BVH of any skeleton: mapped to the 22 joints by a joint map, which is recognised by the joints' names.

CMU (cgspeed), Bandai-Namco, LAFAN1, 100STYLE, Mixamo, SOMA and what was written here are known; a map for another
skeleton is a small YAML (see `lmm.motion.joint_map`). BVH does not say its unit: the body must come out as tall as a
body is.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.sources.raw.joints import posture_flags
from lmm.motion.bvh import read_bvh
from lmm.motion.joint_map import JointMap
from lmm.motion.motion import Motion

_SHORTEST, _TALLEST = 0.9, 2.3  # metres from the lowest joint of the T-pose to the highest
_SCALES = (0.01, 1.0, 0.001, 0.0254, 0.0254 / 0.45)  # cm, m, mm, inch, CMU's


class BVH(RawSource):
    """BVH files, ``.bvh`` and ``.bvh.gz``.

    Args:
        folder: the files, anywhere below; captions in ``<name>.txt`` beside them.
        map: a joint map's name or ``.yaml``; recognised by the joints' names if None.
        scale: metres per unit of the files, instead of the map's.
        up: the axis that points up, instead of the map's.
        skip_frames: frames to leave out at the start, instead of the map's.
        licence: tag for the manifest; that of a given ``map`` if None, unknown otherwise: names prove no origin.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.bvh", "*.bvh.gz")

    def __init__(
        self,
        folder: str,
        *,
        map: str | None = None,
        scale: float | None = None,
        up: Literal["y", "z"] | None = None,
        skip_frames: int | None = None,
        licence: str | None = None,
    ) -> None:
        super().__init__(folder)
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive (0.01 for centimetres), got {scale}")
        if up not in (None, "y", "z"):
            raise ValueError(f"up must be y or z, got {up!r}")
        if skip_frames is not None and skip_frames < 0:
            raise ValueError(f"skip_frames must not be negative, got {skip_frames}")
        self.map = None if map is None else JointMap.load(map)
        self.map_file = own_map(map)
        self.scale = scale
        self.up = up
        self.skip_frames = skip_frames
        self.licence = licence or (self.map.licence if self.map else "unknown")

    def depends(self, file: Path) -> list[Path]:
        """The file, its captions, and a joint map of one's own."""
        return [*super().depends(file), *self.map_file]

    def read(self, file: Path) -> Iterator[Recording]:
        """The motion of one file."""
        raw = read_bvh(file, scale=1.0, end_sites=True)
        joint_map = joint_map_for(file, raw, self.map)
        joint_map = replace(
            joint_map,
            scale=joint_map.scale if self.scale is None else self.scale,
            up=joint_map.up if self.up is None else self.up,
            skip_frames=joint_map.skip_frames if self.skip_frames is None else self.skip_frames,
        )
        yield mapped(self, file, raw, joint_map, joint_map.scale)


def own_map(name: str | None) -> list[Path]:
    """The file of a joint map that was given by its path; none for a packaged one."""
    own = name is not None and Path(name).suffix.lower() in (".yaml", ".yml")
    return [Path(name).expanduser()] if name is not None and own else []


def joint_map_for(file: Path, raw: Motion, given: JointMap | None) -> JointMap:
    """The given map, or the one that the joints' names tell.

    Raises:
        ValueError: no map fits.
    """
    if given is not None:
        return given
    try:
        return JointMap.detect(raw.skeleton)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def mapped(source: RawSource, file: Path, raw: Motion, joint_map: JointMap, scale: float) -> Recording:
    """A recording on the 22 joints; ``scale`` is what was or will be multiplied by, metres per unit of the file.

    Raises:
        ValueError: the map does not fit, or the body is not as tall as a body is.
    """
    try:
        motion = joint_map.apply(raw)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    tall = _height(motion)
    if not _SHORTEST < tall < _TALLEST:
        fitting = [other for other in _SCALES if _SHORTEST < tall * other / scale < _TALLEST]
        remedy = f"try --scale {fitting[0]:.6g}" if fitting else "give --scale, metres per unit of the file"
        raise ValueError(f"{file}: with {scale:.6g} m per unit the body would be {tall:.3g} m tall; {remedy}")
    flags = posture_flags(motion)
    if source.licence == "unknown" and joint_map.licence != "unknown":
        flags = (
            *flags,
            f"licence not given; recordings with {joint_map.name}'s joints are usually {joint_map.licence}",
        )
    return Recording(
        source.name(file),
        motion,
        source.captions(file),
        operations=_operations(joint_map, raw),
        flags=flags,
        source_frames=raw.num_frames,
    )


def _height(motion: Motion) -> float:
    """Metres from the lowest to the highest joint, standing: the bones' lengths, whatever the pose."""
    skeleton = motion.skeleton
    rest = skeleton.forward_kinematics(torch.eye(3).expand(skeleton.num_joints, 3, 3), torch.zeros(3))
    return float(rest[:, 1].max() - rest[:, 1].min())


def _operations(joint_map: JointMap, raw: Motion) -> tuple[str, ...]:
    """What a joint map did, for the manifest."""
    left_out = joint_map.unused(raw.skeleton)
    steps = [f"mapped to 22 joints by joint map {joint_map.name}, without rotations"]
    if left_out:
        steps.append(f"left out {len(left_out)} joints ({', '.join(left_out[:3])}{', ...' * (len(left_out) > 3)})")
    if joint_map.scale != 1:
        steps.append(f"multiplied by {joint_map.scale:.6g} to metres")
    if joint_map.up != "y":
        steps.append(f"turned from {joint_map.up} up to y up")
    if joint_map.skip_frames:
        steps.append(f"left out the first {joint_map.skip_frames} frames")
    steps += [f"gave the bone after {bone.after} its length back" for bone in joint_map.missing_bones]
    if joint_map.rigid:
        steps.append("gave all bones their length in the rest pose")
    return tuple(steps)
