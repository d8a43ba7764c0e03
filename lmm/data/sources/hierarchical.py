"""Texts about the whole body and its parts (hierarchical texts): a JSON object a line, beside the captions.

::

    {"id": "000021", "hierarchical": {"body": "a person waves.", "upper_body": "the right hand waves.", ...}}

Names are free; the field's are body, upper_body and lower_body (arXiv 2410.03311). An empty text, of a part that does
nothing, is as good as none. Other keys of a line are ignored.
"""

import json
from collections.abc import Collection
from pathlib import Path


def read_hierarchical(file: Path, clips: Collection[str]) -> dict[str, dict[str, str]]:
    """Texts by name of every clip that the file has texts of, be it in ``clips`` or not.

    Raises:
        ValueError: the file is missing, not UTF-8 or has nothing about any of ``clips``; or a line is no object with
            an id, has an id again, or holds anything else than texts under "hierarchical". It names file and line.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    clip, texts = _line(line, f"{file}:{number}")
                    if clip in found:
                        raise ValueError(f"{file}:{number} is about {clip} again; keep one line an id")
                    found[clip] = texts
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error}); name a file of the data set, or leave it out") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not utf-8 text; save it as utf-8") from None
    if not any(found.get(clip) for clip in clips):
        raise ValueError(
            f'{file} has hierarchical texts of none of the {len(clips)} clips; its lines are {{"id": ..., '
            '"hierarchical": {"body": ..., "upper_body": ...}}'
        )
    return found


def _line(line: str, where: str) -> tuple[str, dict[str, str]]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}); repair or delete the line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError(f'{where} is not an object with the "id" of a clip; repair or delete the line')
    texts = entry.get("hierarchical", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(
            f'{where}: "hierarchical" of {entry["id"]} is not {{name: text}}; repair it, or delete the line'
        )
    return entry["id"], {name: text.strip() for name, text in texts.items() if text.strip()}
