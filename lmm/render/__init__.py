"""Joints -> pictures, films and a viewer that is one HTML file; no third-party code in any of them but PIL and ffmpeg.

`strip` for TensorBoard, `write_mp4` for papers, `write_html` for looking; `render_files` is the command `lmm render`.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lmm.motion.files import load_caption, load_motion
from lmm.render.stick import stick_image, strip
from lmm.render.video import write_mp4
from lmm.render.viewer import write_html

__all__ = ["render_files", "stick_image", "strip", "write_html", "write_mp4"]


def render_files(inputs: Sequence[str], output: str) -> None:
    """Draw motion files; the output's extension says how.

    Args:
        inputs: ``.npz``, ``.npy`` or ``.bvh`` files. The caption of an ``.npz`` is written beside its motion, the
            file's name where there is none.
        output: ``.html`` (a viewer to turn, zoom and play), ``.mp4`` or ``.png`` (one row of moments a motion).

    Raises:
        ValueError: no input, an unknown extension, or a file that is no sound motion.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in (".html", ".mp4", ".png"):
        raise ValueError(f"{output}: unknown extension {suffix!r}; pictures are written as .html, .mp4 or .png")
    if not inputs:
        raise ValueError(f"{output}: nothing to draw; name at least one .npz, .npy or .bvh file")
    motions = [load_motion(file) for file in inputs]
    captions = [load_caption(file) or Path(file).stem for file in inputs]
    if suffix == ".html":
        write_html(output, motions, captions, title=Path(output).stem)
    elif suffix == ".mp4":
        write_mp4(output, motions, captions)
    else:
        Image.fromarray(strip(motions, captions=captions)).save(output)
