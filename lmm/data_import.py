"""`lmm data import FORMAT FOLDER -o OUT`: the command line of `lmm.data.importing`.

FORMAT is a module of `lmm.data.sources.raw` (its one `RawSource` is taken), or the import path of a class of your own.
Its arguments, those of `ImportOptions` and a few of this command are the options.
"""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lmm.command_line import flags_of, with_flags
from lmm.data.importing import ImportOptions, import_recordings
from lmm.data.sources.raw import find_format, formats


def data_import(words: list[str]) -> None:
    """Bring raw recordings into the layout that everything here trains from.

    Args:
        words: the command line behind ``lmm data import``.

    Raises:
        ValueError: no such format, or what `import_recordings` raises.
    """
    if not words or words[0].startswith("-"):
        print(_formats())
        return
    cls = find_format(words[0])
    parser = ArgumentParser(prog=f"lmm data import {words[0]}", description=(cls.__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=str, help="folder with the recordings")
    parser.add_argument("--output", "-o", type=str, required=True, help="folder to make, or to go on with")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, help="reading processes (0: none)")
    parser.add_argument("--strict", type=bool, default=False, help="fail if any file had to go to quarantine")
    own = parser.add_class_arguments(cls, skip={"folder"})
    options = parser.add_class_arguments(ImportOptions)
    flags = flags_of(cls) | flags_of(ImportOptions) | {"strict"}
    given = vars(parser.parse_args(with_flags(words[1:], flags)))
    arguments = {key: given[key] for key in own}
    source = cls(given["folder"], **arguments)
    settings = {"format": f"{cls.__module__}.{cls.__qualname__}", "folder": str(source.folder.resolve()), **arguments}
    chosen = ImportOptions(**{key: given[key] for key in options})
    try:
        manifest, quarantine = import_recordings(
            source, given["output"], chosen, settings=settings, num_workers=given["num_workers"]
        )
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    _tell(Path(given["output"]), manifest, quarantine)
    if quarantine and given["strict"]:
        raise ValueError(f"{len(quarantine)} files went to quarantine and --strict was given")


def _formats() -> str:
    width = max(map(len, formats()))
    usage = "usage: lmm data import FORMAT FOLDER -o OUT [options]    (lmm data import FORMAT --help lists them)"
    return "\n".join([usage, "", *(f"  {name:<{width}}  {line}" for name, line in formats().items())])


def _tell(out: Path, manifest: list[dict[str, Any]], quarantine: list[dict[str, str]]) -> None:
    """What an import did, and what to type next."""
    files = len({line["file"] for line in manifest})
    minutes = sum(line["frames"] / line["fps"] for line in manifest) / 60
    splits = Counter(line["split"] for line in manifest)
    print(
        f"{out}: {len(manifest)} clips ({minutes:.1f} min) from {files} files; "
        + ", ".join(f"{split} {count}" for split, count in splits.items())
    )
    for flag, count in Counter(flag for line in manifest for flag in line["flags"]).most_common():
        print(f"  {count} clips: {flag}")
    if quarantine:
        print(f"  {len(quarantine)} files could not be read; {out / 'quarantine.jsonl'} says why:")
        for line in quarantine[:5]:
            print(f"    {line['reason']}")
    fps = manifest[0]["fps"]
    short, long = (sum(line["frames"] < 41 for line in manifest), sum(line["frames"] > 200 for line in manifest))
    if short or long:
        print(
            f"  {short} clips under 41 frames and {long} over 200: training leaves them out by default (the source's "
            f"min_frames and max_frames); --window {int(1960 / fps) / 10:g} cuts the long ones"
        )
    rest = "" if all(line["captions"] for line in manifest) else " --data.source.require_captions false"
    if fps != 20:  # HumanML3D's features, which the recipes have, are defined at 20
        rest += f" --config representation/smpl_d135.yaml --data.representation.fps {fps:g}"
    print(
        f"next: lmm data check {out}\n"
        f"      lmm fit --config tokenizer_lfq2d.yaml --config data/folder.yaml --data.source.folder {out}{rest}"
    )
