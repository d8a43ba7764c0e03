"""Pictures of motions with PIL alone: a perspective camera, a floor, a shadow, limbs sorted by depth.

Left is blue, right is orange, the torso grey. Everything is drawn at twice its size and scaled down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from lmm.motion.motion import Motion
from lmm.render.figure import Figure, figure_of

_PAPER, _GRID, _INK, _SHADOW = (247, 246, 243), (205, 203, 197), (52, 57, 65), (150, 148, 144)
_COLOURS = ((98, 107, 120), (43, 123, 186), (232, 126, 52))  # middle, left, right
_SUPERSAMPLE = 2
_LIGHT = np.array([0.35, 1.0, 0.3])  # towards the lamp


@dataclass(frozen=True)
class Camera:
    """A pinhole that looks at ``target`` from a distance in metres; angles in degrees, azimuth 0 looks along -z."""

    target: tuple[float, float, float]
    distance: float
    size: tuple[int, int]  # width, height in pixels
    azimuth: float = 35.0
    elevation: float = 13.0

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels "N 2" and pixels a metre "N" (0 behind the camera) of points "N 3"."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        right = np.array([np.cos(a), 0, -np.sin(a)])
        towards = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
        relative = points - np.array(self.target)
        depth = self.distance - relative @ towards
        focal = 1.75 * self.size[1]
        scale = np.where(depth > 0.2, focal / np.maximum(depth, 0.2), 0.0)
        x = self.size[0] / 2 + (relative @ right) * scale
        y = self.size[1] / 2 - (relative @ np.cross(towards, right)) * scale
        return np.stack([x, y], axis=-1), scale


def stick_image(
    motions: Sequence[Motion], frames: Sequence[int], *, size: tuple[int, int] = (320, 320), caption: str = ""
) -> UInt8[np.ndarray, "H W 3"]:
    """Several bodies or several moments in one picture.

    Args:
        motions: joints "T J 3" each, drawn into the same scene.
        frames: which frames of every motion; the earlier of several are paler.
        size: width and height in pixels.
        caption: written at the top.
    """
    figures = [figure_of(motion) for motion in motions]
    poses = [(figure, min(frame, len(figure.points) - 1)) for figure in figures for frame in frames]
    focus = np.stack([figure.focus[frame] for figure, frame in poses])
    spread = float(np.linalg.norm(np.ptp(focus, axis=0)[[0, 2]]))
    middle = (focus.min(axis=0) + focus.max(axis=0)) / 2
    strengths = [0.35 + 0.65 * (i + 1) / len(frames) if len(frames) > 1 else 1.0 for i in range(len(frames))]
    return np.asarray(
        draw_scene(
            [(figure.points[f], figure) for figure, f in poses], middle, size, caption, spread, strengths * len(figures)
        )
    )


def strip(
    motions: Sequence[Motion], num_frames: int = 8, *, captions: Sequence[str] = (), cell: tuple[int, int] = (150, 190)
) -> UInt8[np.ndarray, "H W 3"]:
    """Rows are motions (say an original and its reconstruction), columns are times; the camera follows each body.

    Args:
        motions: joints "T J 3" each, at least one.
        num_frames: how many moments, evenly from each motion's first frame to its last.
        captions: one a row, or none.
        cell: width and height of one picture in pixels.
    """
    if not motions:
        raise ValueError("strip needs at least one motion")
    rows = []
    for index, motion in enumerate(motions):
        figure = figure_of(motion)
        labels = [captions[index] if captions and column == 0 else "" for column in range(num_frames)]
        times = np.linspace(0, motion.seconds - 1 / motion.fps, num_frames)
        frames = [figure.frame_at(float(time)) for time in times]
        cells = [draw_scene([(figure.points[f], figure)], figure.focus[f], cell) for f in frames]
        row = Image.fromarray(np.concatenate([np.asarray(picture) for picture in cells], axis=1))
        write_caption(row, labels[0])
        rows.append(np.asarray(row))
    return np.concatenate(rows, axis=0)


def draw_scene(
    poses: Sequence[tuple[Float32[np.ndarray, "P 3"], Figure]],
    focus: Float32[np.ndarray, " 3"],
    size: tuple[int, int],
    caption: str = "",
    spread: float = 0.0,
    strengths: Sequence[float] = (),
) -> Image.Image:
    """One picture: floor, shadows, bodies, caption.

    Args:
        poses: points of a figure at one moment, and the figure.
        focus: what the camera looks at; only x and z count.
        size: width and height in pixels.
        caption: written at the top.
        spread: metres of floor that have to fit besides one body.
        strengths: 1 for full colour, towards 0 for paper, one a pose; all 1 if empty.
    """
    height = max(figure.height for _, figure in poses)
    wide = (size[0] * _SUPERSAMPLE, size[1] * _SUPERSAMPLE)
    narrow = max(1.0, 0.85 * size[1] / size[0])
    camera = Camera(
        target=(float(focus[0]), 0.53 * height, float(focus[2])),
        distance=2.45 * height * narrow + 1.6 * spread,
        size=wide,
    )
    picture = Image.new("RGB", wide, _PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_floor(draw, camera, max(2.0, 1.4 * height + spread))
    for points, figure in poses:
        _draw_shadow(draw, camera, points, figure)
    capsules = []
    for index, (points, figure) in enumerate(poses):
        pixels, scale = camera.project(points)
        for (a, b), (ra, rb), side in zip(figure.bones, figure.radii, figure.sides, strict=True):
            radii = (float(ra * scale[a]), float(rb * scale[b]))
            colour = _blend(_PAPER, _COLOURS[side], strengths[index] if strengths else 1.0)
            capsules.append((float(scale[a] + scale[b]), pixels[a], pixels[b], radii, colour))
    for _, a, b, radii, colour in sorted(capsules, key=lambda capsule: capsule[0]):
        _draw_limb(draw, a, b, radii, colour)
    picture = picture.resize(size, Image.Resampling.BOX)
    write_caption(picture, caption)
    return picture


def write_caption(picture: Image.Image, caption: str) -> None:
    """Write a caption at the top, in as many lines as it needs, at most three."""
    if not caption:
        return
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(11, min(22, picture.width // 32)))
    lines, line = [], ""
    for word in " ".join(caption.split()).split(" "):
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font=font) > picture.width - 24:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    text = "\n".join(lines[:3]) + (" …" if len(lines) > 3 else "")
    draw.multiline_text((12, 9), text, fill=_INK, font=font, spacing=4)


def _draw_floor(draw: ImageDraw.ImageDraw, camera: Camera, reach: float) -> None:
    """Half-metre squares (doubled until they are few) that fade into the paper."""
    step = 0.5 * 2.0 ** np.ceil(np.log2(max(reach / 6, 1)))
    x0, z0 = (round(c / step) * step for c in (camera.target[0], camera.target[2]))
    ticks = np.arange(-np.ceil(reach / step), np.ceil(reach / step) + 1) * step
    for tick in ticks:
        for along_x in (True, False):
            other = np.full_like(ticks, tick)
            line = np.stack([ticks + x0, 0 * ticks, other + z0] if along_x else [other + x0, 0 * ticks, ticks + z0], -1)
            pixels, scale = camera.project(line)
            middle = (line[1:] + line[:-1]) / 2 - np.array(camera.target)
            fade = np.clip(1 - np.hypot(middle[:, 0], middle[:, 2]) / reach, 0, 1)
            for i in np.nonzero((fade > 0) & (scale[1:] > 0) & (scale[:-1] > 0))[0]:
                draw.line([*pixels[i], *pixels[i + 1]], fill=_blend(_PAPER, _GRID, float(fade[i])), width=_SUPERSAMPLE)


def _draw_shadow(draw: ImageDraw.ImageDraw, camera: Camera, points: np.ndarray, figure: Figure) -> None:
    flat = points - points[:, 1:2] * (_LIGHT / _LIGHT[1])
    flat[:, 1] = 0
    pixels, scale = camera.project(flat)
    flatten = np.sin(np.radians(camera.elevation)) ** 0.5
    tone = _blend(_PAPER, _SHADOW, 0.55)
    for (a, b), (ra, rb) in zip(figure.bones, figure.radii, strict=True):
        _capsule(draw, pixels[a], pixels[b], ra * scale[a] * flatten, rb * scale[b] * flatten, tone)


def _draw_limb(
    draw: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, radii: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    """Outline, body, and two lighter strokes towards the lamp, which make it round."""
    ra, rb = radii
    edge = 0.6 * _SUPERSAMPLE
    _capsule(draw, a, b, ra + edge, rb + edge, _blend(colour, (20, 22, 28), 0.45))
    for shrink, shift, light in ((1.0, 0.0, 0.0), (0.72, 0.2, 0.12), (0.36, 0.36, 0.28)):
        towards = np.array([0.45, -0.9]) * shift
        tone = _blend(colour, (255, 255, 255), light)
        _capsule(draw, a + towards * ra, b + towards * rb, shrink * ra, shrink * rb, tone)


def _capsule(
    draw: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, ra: float, rb: float, fill: tuple[int, int, int]
) -> None:
    """Two discs and what lies between them."""
    if ra <= 0 or rb <= 0:
        return
    along = b - a
    length = float(np.hypot(*along))
    if length > 1e-6:
        across = np.array([-along[1], along[0]]) / length
        corners = [a + across * ra, b + across * rb, b - across * rb, a - across * ra]
        draw.polygon([(float(x), float(y)) for x, y in corners], fill=fill)
    for (x, y), radius in ((a, ra), (b, rb)):
        draw.ellipse([float(x - radius), float(y - radius), float(x + radius), float(y + radius)], fill=fill)


def _blend(start: Sequence[int], end: Sequence[int], amount: float) -> tuple[int, int, int]:
    r, g, b = (round(s + (e - s) * amount) for s, e in zip(start, end, strict=True))
    return r, g, b
