"""Motions -> one standalone HTML file: our own canvas code, no network, no third-party script.

The template ``viewer.html`` takes ``viewer.css``, ``scene.js``, ``page.js`` and the motions as JSON; positions are
int16 with one scale a motion (a fifth of a millimetre for a six-metre walk), base64. Captions travel as JSON and become
text nodes, so nothing in them is ever markup.
"""

import base64
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lmm.motion.motion import Motion
from lmm.render.figure import figure_of


def write_html(file: str | Path, motions: Sequence[Motion], captions: Sequence[str] = (), title: str = "") -> None:
    """Write the viewer. Open it with ``#frame=30`` to see that frame, paused.

    Args:
        file: where to write.
        motions: joints "T J 3" each; shown side by side, or together in one scene.
        captions: one a motion, or none.
        title: the page's heading.

    Raises:
        ValueError: no motion, or captions that do not fit.
    """
    if not motions or len(captions) not in (0, len(motions)):
        raise ValueError(f"{file}: needs a motion and as many captions, got {len(motions)} and {len(captions)}")
    data = [_motion_data(motion, captions[i] if captions else "") for i, motion in enumerate(motions)]
    room = resources.files("lmm.render")
    parts = {
        "title": html.escape(title or "Motions"),
        "style": room.joinpath("viewer.css").read_text(encoding="utf-8"),
        "scene": room.joinpath("scene.js").read_text(encoding="utf-8"),
        "page": room.joinpath("page.js").read_text(encoding="utf-8"),
        "data": json.dumps(data).replace("<", "\\u003c"),  # "</script>" in a caption must not end the element
    }
    template = room.joinpath("viewer.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)  # one pass: data is never a template
    Path(file).write_text(page, encoding="utf-8")


def _motion_data(motion: Motion, caption: str) -> dict[str, Any]:
    """What the page needs of one motion."""
    figure = figure_of(motion)
    return {
        "caption": caption,
        "fps": figure.fps,
        "height": round(figure.height, 4),
        "names": list(motion.skeleton.names),
        "numPoints": figure.points.shape[1],
        "points": _pack(figure.points),
        "focus": _pack(figure.focus),
        "bones": figure.bones.tolist(),
        "radii": figure.radii.astype(float).round(4).tolist(),
        "sides": figure.sides.tolist(),
    }


def _pack(array: np.ndarray) -> dict[str, Any]:
    """Little-endian int16 in base64 and the metres of one step."""
    step = max(float(np.abs(array).max()), 1e-6) / 32767
    return {"step": step, "data": base64.b64encode((array / step).round().astype("<i2").tobytes()).decode("ascii")}
