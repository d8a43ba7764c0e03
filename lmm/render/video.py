"""Motions -> H.264 mp4 by ffmpeg (the extra ``viz``); several motions stand side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmm.motion.motion import Motion
from lmm.render.figure import figure_of
from lmm.render.stick import draw_scene


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
        raise ImportError('mp4 needs ffmpeg: pip install "lmm[viz]", or write .html instead') from error
    if not motions or len(captions) not in (0, len(motions)):
        raise ValueError(f"{file}: needs a motion and as many captions, got {len(motions)} and {len(captions)}")
    figures = [figure_of(motion) for motion in motions]
    columns = min(len(figures), max(1, round(1.3 * len(figures) ** 0.5)))
    rows = -(-len(figures) // columns)
    width, height = (side + side % 2 for side in size)  # H.264 wants even sides
    fps = motions[0].fps
    writer = imageio_ffmpeg.write_frames(
        str(file), (columns * width, rows * height), fps=fps, codec="libx264", quality=7, macro_block_size=2
    )
    writer.send(None)
    try:
        sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
        for index in range(round(max(motion.seconds for motion in motions) * fps)):
            for i, figure in enumerate(figures):
                frame = figure.frame_at(index / fps)
                caption = captions[i] if captions else ""
                picture = draw_scene([(figure.points[frame], figure)], figure.focus[frame], (width, height), caption)
                top, left = i // columns * height, i % columns * width
                sheet[top : top + height, left : left + width] = np.asarray(picture)
            writer.send(sheet.tobytes())
    finally:
        writer.close()
