"""Motions -> H.264 mp4 by ffmpeg (the extra ``viz``) or GIF by PIL; several motions stand side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lmm.motion.motion import Motion
from lmm.render.figure import figure_of
from lmm.render.stick import draw_scene

_GIF_FPS = 50.0  # browsers slow down what claims to be faster


def write_mp4(
    file: str | Path, motions: Sequence[Motion], captions: Sequence[str] = (), *, size: tuple[int, int] = (480, 480)
) -> None:
    """Film motions at the first one's frame rate until the longest ends; the camera follows each root smoothly.

    Args:
        file: where to write.
        motions: joints "T J 3" each.
        captions: one a motion, or none.
        size: width and height of one motion's picture in pixels.

    Raises:
        ImportError: imageio-ffmpeg is missing.
        ValueError: no motion, or captions that do not fit.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError('mp4 needs ffmpeg: pip install "lmm[viz]", or write .gif or .html instead') from error
    _check(file, motions, captions)
    fps = motions[0].fps
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)  # H.264 wants even sides
    writer = None
    try:
        for sheet in _sheets(motions, captions, even, fps):
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(file), sheet.shape[1::-1], fps=fps, codec="libx264", quality=7, macro_block_size=2
                )
                writer.send(None)
            writer.send(sheet.tobytes())
    finally:
        if writer is not None:
            writer.close()


def write_gif(
    file: str | Path, motions: Sequence[Motion], captions: Sequence[str] = (), *, size: tuple[int, int] = (320, 320)
) -> None:
    """Film motions as an endless GIF, at the first one's frame rate or the next fraction of it up to 50 a second.

    GIF counts hundredths of a second: single frames last up to half of one too long or too short, the film does not.

    Args:
        file: where to write.
        motions: joints "T J 3" each.
        captions: one a motion, or none.
        size: width and height of one motion's picture in pixels.

    Raises:
        ValueError: no motion, or captions that do not fit.
    """
    _check(file, motions, captions)
    fps = motions[0].fps / np.ceil(motions[0].fps / _GIF_FPS)
    frames: list[Image.Image] = []
    for sheet in _sheets(motions, captions, size, fps):
        picture = Image.fromarray(sheet)
        if frames:  # one palette for the film, or its colours flicker
            frames.append(picture.quantize(palette=frames[0], dither=Image.Dither.NONE))
        else:
            frames.append(picture.quantize(256))
    ends = np.round(100 / fps * np.arange(len(frames) + 1)).astype(int)
    durations = (10 * np.diff(ends)).tolist()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _check(file: str | Path, motions: Sequence[Motion], captions: Sequence[str]) -> None:
    if not motions or len(captions) not in (0, len(motions)):
        raise ValueError(f"{file}: needs a motion and as many captions, got {len(motions)} and {len(captions)}")


def _sheets(
    motions: Sequence[Motion], captions: Sequence[str], size: tuple[int, int], fps: float
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The pictures of a film, until the longest motion ends; the same array each time."""
    figures = [figure_of(motion) for motion in motions]
    columns = min(len(figures), max(1, round(1.3 * len(figures) ** 0.5)))
    rows = -(-len(figures) // columns)
    width, height = size
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index in range(max(1, round(max(motion.seconds for motion in motions) * fps))):
        for i, figure in enumerate(figures):
            frame = figure.frame_at(index / fps)
            caption = captions[i] if captions else ""
            picture = draw_scene([(figure.points[frame], figure)], figure.focus[frame], size, caption)
            top, left = i // columns * height, i % columns * width
            sheet[top : top + height, left : left + width] = np.asarray(picture)
        yield sheet
