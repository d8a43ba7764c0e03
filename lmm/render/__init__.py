"""Joints -> pictures, films and a viewer that is one HTML file; no third-party code in any of them but PIL and ffmpeg.

`strip` for TensorBoard, `write_mp4` for papers, `write_gif` for pages, `write_html` for looking; `draw` chooses by the
file's extension.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lmm.motion.files import load_caption, load_motion
from lmm.motion.motion import Motion
from lmm.render.stick import stick_image, strip
from lmm.render.video import write_gif, write_mp4
from lmm.render.viewer import write_html

__all__ = ["draw", "render_files", "stick_image", "strip", "write_gif", "write_html", "write_mp4"]


def draw(output: str | Path, motions: Sequence[Motion], captions: Sequence[str]) -> None:
    """Draw motions side by side, a caption each.

    Args:
        output: ``.html`` (a viewer to turn, zoom and play), ``.mp4``, ``.gif`` or ``.png`` (a row of moments a motion).
        motions: joints "T J 3" each.
        captions: one a motion.

    Raises:
        ValueError: an unknown extension.
    """
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix == ".html":
        write_html(path, list(motions), list(captions), title=captions[0] if len(motions) == 1 else path.stem)
    elif suffix == ".mp4":
        write_mp4(path, list(motions), list(captions))
    elif suffix == ".gif":
        write_gif(path, list(motions), list(captions))
    elif suffix == ".png":
        Image.fromarray(strip(motions, captions=captions)).save(path)
    else:
        raise ValueError(f"{output}: unknown extension {suffix!r}; pictures are written as .html, .mp4, .gif or .png")


def render_files(inputs: Sequence[str], output: str) -> None:
    """Draw motion files; the output's extension says how (see `draw`).

    Args:
        inputs: motion files of any format (see `load_motion`). The caption that a file keeps is written beside its
            motion, the file's name where there is none.
        output: the picture.

    Raises:
        ValueError: no input, an unknown extension, or a file that is no sound motion.
    """
    if not inputs:
        raise ValueError(f"{output}: nothing to draw; name at least one motion file")
    motions = [load_motion(file) for file in inputs]
    draw(output, motions, [load_caption(file) or Path(file).stem for file in inputs])
