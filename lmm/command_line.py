"""Words of a command line: how they are spelled, what files they name, how a typed function is run by them.

Never imports torch.
"""

import difflib
import inspect
import os
from collections.abc import Callable, Collection
from pathlib import Path

DRAWN = (".html", ".mp4", ".gif", ".png")  # what a motion can be drawn as
SAVED = (".npz", ".npy", ".bvh", ".glb", ".gltf")  # and kept as


def call(function: Callable[..., None], words: list[str], name: str) -> None:
    """Run a typed function on command line words; arguments without a default are positional, except
    ``output`` and what the function takes by keyword only."""
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    doc = parse(function.__doc__ or "")
    told = {p.arg_name: p.description for p in doc.params}
    needed = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is not p.KEYWORD_ONLY and p.name != "output"
    ]
    parser = ArgumentParser(prog=name, description=doc.short_description)
    for parameter in needed:
        many = {list[str]: {"nargs": "+", "type": str}, list[str] | None: {"nargs": "*", "type": str}}.get(
            parameter.annotation, {"type": parameter.annotation}
        )
        parser.add_argument(parameter.name, help=told[parameter.name], **many)
    parser.add_function_arguments(function, skip={p.name for p in needed}, as_positional=False)
    function(**vars(parser.parse_args(with_flags(words, flags_of(function)))))


def plain_words(words: list[str]) -> list[str]:
    """Spell ``-o`` and the dashes in options as jsonargparse names them."""
    out = []
    for word in words:
        if word == "-o":
            word = "--output"
        elif word.startswith("--") and "-" in word[2:]:
            name, eq, value = word.partition("=")
            word = "--" + name[2:].replace("-", "_") + eq + value
        out.append(word)
    return out


def flags_of(function: Callable[..., object]) -> set[str]:
    """The parameters that are true or false."""
    return {name for name, parameter in inspect.signature(function).parameters.items() if parameter.annotation is bool}


def with_flags(words: list[str], flags: Collection[str]) -> list[str]:
    """Say ``true`` behind each flag that stands alone: ``--mirror`` is ``--mirror true``."""
    out = []
    for word, following in zip(words, [*words, "-"][1:], strict=True):
        out.append(word)
        if word.removeprefix("--") in flags and word.startswith("--") and following.lower() not in ("true", "false"):
            out.append("true")
    return out


def output_path(name: str, endings: tuple[str, ...]) -> Path:
    """The output's path, refused or with its folder made before any work is done."""
    path = Path(name)
    if path.suffix not in endings:
        raise ValueError(f"-o {name}: the ending must be one of {', '.join(endings)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"-o {name}: {path.parent.resolve()} is not writable")
    return path


def config_folders() -> list[Path]:
    """Where configs are looked up, nearest first."""
    package = Path(__file__).resolve().parent
    folders = [Path.cwd(), *map(Path, filter(None, os.environ.get("LMM_CONFIG_PATH", "").split(os.pathsep)))]
    folders += [Path.cwd() / "configs", package / "configs", package.parent / "configs"]
    return list(dict.fromkeys(folders))


def config_names() -> list[str]:
    """Names of the shipped configs."""
    shipped = next((f for f in config_folders()[::-1] if f.name == "configs" and f.is_dir()), None)
    return sorted(str(f.relative_to(shipped)) for f in shipped.rglob("*.yaml")) if shipped else []


def find_config(name: str) -> str:
    """Absolute path of a config given by path or by name, with or without ``.yaml``.

    Raises:
        ValueError: nothing of that name anywhere; close names are told.
    """
    for folder in config_folders():
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file():
                return str(candidate.resolve())
    near = difflib.get_close_matches(name, config_names(), n=3, cutoff=0.4)
    places = ", ".join(str(f) for f in config_folders() if f.is_dir())
    raise ValueError(f"no config {name!r} in {places}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def find_configs(words: list[str]) -> list[str]:
    """Replace the value of every ``-c``/``--config`` by the file it names."""
    out = list(words)
    for i, word in enumerate(words):
        if word in ("-c", "--config") and i + 1 < len(words):
            out[i + 1] = find_config(words[i + 1])
        elif word.startswith("--config="):
            out[i] = f"--config={find_config(word.removeprefix('--config='))}"
    return out
