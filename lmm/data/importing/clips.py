"""What is done to every recording on its way in: resampled, cut, placed, mirrored, checked, written."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from lmm.data.sources.base import Caption
from lmm.data.sources.raw.base import Recording
from lmm.motion.files import save_motion
from lmm.motion.kinematics import fit_rotations
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import crop, face_forward, mirror, put_on_floor, resample, select, to_uniform_skeleton

_FIELD_FPS = 20.0
_ROUNDED = 0.1  # seconds by which a caption may end after its clip: annotators round, and features lose a frame
_SIDES = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
_SIDES |= {"counter-clockwise": "clockwise", "anticlockwise": "clockwise", "anti-clockwise": "clockwise"}
_SIDE = re.compile(rf"\b({'|'.join(sorted(_SIDES, key=len, reverse=True))})\b", re.IGNORECASE)


@dataclass(frozen=True)
class ImportOptions:
    """What is done to every recording after it was read, in this order.

    Args:
        fps: frame rate of the result.
        window: cut recordings longer than this many seconds into equal pieces no longer than it; None keeps them whole.
        uniform_skeleton: give every body the bone lengths of HUMANML3D_22 (22 joints only).
        fit_rotations: fit joint rotations where only positions are known (flagged as fitted).
        floor: put each clip's lowest joint at height 0.
        facing: let each clip start above the origin, facing +z.
        mirror: add a mirrored copy M<id> of each clip, left and right exchanged in its captions.
        split: shares of train, val and test, drawn by source file; a publisher's own split goes first.
        seed: of that draw.
    """

    fps: float = 20.0
    window: float | None = None
    uniform_skeleton: bool = False
    fit_rotations: bool = False
    floor: bool = True
    facing: bool = True
    mirror: bool = False
    split: tuple[float, float, float] = (0.85, 0.05, 0.10)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 1000:
            raise ValueError(f"fps must be between 1 and 1000, got {self.fps:g}")
        if self.window is not None and not self.window >= 2 / self.fps:
            raise ValueError(f"window is in seconds and must hold two frames, got {self.window:g}")
        if min(self.split) < 0 or abs(sum(self.split) - 1) > 1e-6:
            raise ValueError(f"split must be three shares that add up to 1, got {self.split}")


def clips_of(recording: Recording, options: ImportOptions) -> Iterator[Recording]:
    """A recording's clips: resampled, cut, placed, and mirrored."""
    motion, operations, flags = recording.motion, list(recording.operations), list(recording.flags)
    if motion.fps != options.fps:
        operations.append(f"resampled {motion.fps:g} to {options.fps:g} fps")
        motion = resample(motion, options.fps)
    if options.uniform_skeleton:
        if motion.skeleton.num_joints > HUMANML3D_22.num_joints:
            operations.append(
                f"left out the {motion.skeleton.num_joints - HUMANML3D_22.num_joints} joints beyond the 22"
            )
            motion = select(motion, HUMANML3D_22)
        operations.append("given the bone lengths of HUMANML3D_22")
        motion = to_uniform_skeleton(motion)
    if options.fit_rotations and motion.rotations is None:
        rotations, offsets = fit_rotations(motion.joints, motion.skeleton)
        skeleton = replace(motion.skeleton, offsets=tuple(map(tuple, offsets.tolist())))
        posed = skeleton.forward_kinematics(rotations, motion.joints[..., 0, :])
        error = 1000 * (posed - motion.joints).norm(dim=-1)
        motion = Motion(motion.joints, motion.fps, skeleton, rotations)
        operations.append(
            f"fitted rotations to positions ({error.mean():.1f} mm off in the mean, {error.max():.0f} at most)"
        )
        flags.append("rotations are fitted, not recorded")
        recording = replace(recording, extra=recording.extra | {"rotations_fitted": np.array(True)})
        if error.max() > 10:
            flags.append("fitted rotations miss joints by more than 1 cm: the body is not rigid where SMPL's is")
    count = 1 if options.window is None else max(ceil(motion.num_frames / round(options.window * options.fps)), 1)
    edges = np.linspace(0, motion.num_frames, count + 1).round().astype(int).tolist()
    pieces = list(pairwise(edges))
    spans = [(start / motion.fps, stop / motion.fps) for start, stop in pieces]
    if lost := [c.text for c in recording.captions if not any(_within(c, *span) for span in spans)]:
        flags.append("captions about a stretch that no clip holds are left out")
        operations.append(f"left out the captions {lost}")
    if count > 1 and any(c.start == c.end == 0 for c in recording.captions):
        flags.append("a caption of the whole recording stands at each of its pieces")
    for number, ((start, stop), span) in enumerate(zip(pieces, spans, strict=True)):
        piece, name, steps = crop(motion, start, stop), recording.id, list(operations)
        if count > 1:
            name, steps = f"{name}_{number:02d}", [*steps, f"cut to frames {start} to {stop}"]
        if options.floor:
            piece, steps = put_on_floor(piece), [*steps, "lowest joint put at height 0"]
        if options.facing:
            try:
                piece, steps = face_forward(piece), [*steps, "origin and facing of frame 0 set"]
            except ValueError as error:
                raise ValueError(f"{name}: {error} (or import with --facing false)") from None
        notes = [*flags, "shorter than 2 s"] if piece.seconds < 2 else flags
        captions = tuple(_shifted(caption, span[0]) for caption in recording.captions if _within(caption, *span))
        clip = replace(recording, id=name, motion=piece, captions=captions, operations=tuple(steps), flags=tuple(notes))
        yield clip
        if options.mirror:
            swapped = tuple(caption._replace(text=mirror_text(caption.text)) for caption in captions)
            yield replace(clip, id=f"M{name}", motion=mirror(piece), captions=swapped, operations=(*steps, "mirrored"))


def mirror_text(text: str) -> str:
    """A caption for the mirrored motion: left and right, clockwise and counterclockwise exchanged, case kept."""

    def other(found: re.Match[str]) -> str:
        word = found.group(0)
        swapped = _SIDES[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE.sub(other, text)


def refuse(clip: Recording) -> None:
    """What could not be written, or not be read again."""
    if not re.fullmatch(r"[\w-][\w.-]*", clip.id):
        raise ValueError(f"{clip.id!r} cannot be the name of a clip; use letters, digits, _, - and .")
    for caption in clip.captions:
        if "#" in caption.text or "\n" in caption.text:
            raise ValueError(f"caption {caption.text!r} of {clip.id} contains # or a line break; reword it")


def write_clip(clip: Recording, out: Path) -> None:
    """All files of one clip, below ``out``."""
    caption = clip.captions[0].text if clip.captions else ""
    _replace(out / "motions" / f"{clip.id}.npz", lambda file: save_motion(file, clip.motion, caption, extra=clip.extra))
    if clip.motion.fps == _FIELD_FPS:
        joints = select(clip.motion, HUMANML3D_22).joints.float().numpy()
        _replace(out / "new_joints" / f"{clip.id}.npy", lambda file: np.save(file, joints, allow_pickle=False))
    if clip.captions:
        lines = "".join(f"{text}##{start!r}#{end!r}\n" for text, start, end in clip.captions)
        _replace(out / "texts" / f"{clip.id}.txt", lambda file: file.write_text(lines, encoding="utf-8"))


def _within(caption: Caption, start: float, stop: float) -> bool:
    """Whether a caption is about the whole recording, or about a stretch that lies between two times."""
    return caption.start == caption.end == 0 or (start <= caption.start and caption.end <= stop + _ROUNDED)


def _shifted(caption: Caption, start: float) -> Caption:
    """A caption with its times counted from ``start``."""
    if caption.start == caption.end == 0:
        return caption
    return caption._replace(start=round(caption.start - start, 3), end=round(caption.end - start, 3))


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside and rename, so that a killed import leaves no half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{os.getpid()}{file.suffix}")
    write(beside)
    beside.replace(file)
