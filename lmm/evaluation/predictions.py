"""Folders of predicted motions, from any system: one file a clip of the data, named by the clip's id.

::

    PREDICTIONS/
      predictions.json              what made them; `lmm test` writes it, other systems need not
      repeat_00/<id>.npy            a motion; without such folders the files lie in PREDICTIONS itself: one repeat
      repeat_00/captions.json       {id: what was asked for}; or <id>.json with "caption"
      multimodality/<id>/00.npy     further motions of the same caption

A file is ``.npy`` (raw features (T, D), or joints (T, J, 3) in metres), or any motion file that `lmm convert` reads. A
third party's ``.npy`` features must be those of the evaluator; ``predictions.json`` names ours, so that another
evaluator's are computed from them (of T frames T - 1, where features hold velocities).
"""

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion import representations
from lmm.motion.files import load_caption, load_motion
from lmm.motion.motion import Motion
from lmm.motion.representations import MotionRepresentation
from lmm.motion.transforms import resample, select

FORMAT = 1
TASKS = ("text_to_motion", "reconstruction", "prediction", "in_between")
_RECORD, _CAPTIONS, _MANY = "predictions.json", "captions.json", "multimodality"
_SUFFIXES = (".npy", ".npz", ".bvh", ".bvh.gz", ".glb", ".gltf", ".amc")


class Record(NamedTuple):
    """What made a folder of predictions.

    Args:
        name: of the system, in tables.
        task: one of `TASKS`: what a prediction is to be compared with.
        length: who chose a motion's duration: "predicted" by the system, or "ground_truth".
        representation: class and arguments of what the ``.npy`` features are; None for the evaluator's.
        made_by: everything else that is worth keeping: checkpoint, seeds, sampling.
    """

    name: str
    task: str = "text_to_motion"
    length: str = "unstated"
    representation: dict[str, Any] | None = None
    made_by: Mapping[str, Any] = {}


class Predictions:
    """Reads a folder of predictions.

    Args:
        folder: see the module's docstring.
        name: in tables, where the folder's own record does not say better.
        task: the same.

    Raises:
        ValueError: no such folder, nothing in it, or a record of another version.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None, task: str | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(
                f"{self.folder} is not a folder of predictions; `lmm test --evaluation.evaluator` makes one"
            )
        self.record = self._read_record(name, task)
        repeats = sorted(path for path in self.folder.glob("repeat_*") if path.is_dir())
        self._folders = repeats or [self.folder]
        self._files = [_files(folder) for folder in self._folders]
        if not self._files[0]:
            raise ValueError(f"{self._folders[0]} holds no motion ({', '.join(_SUFFIXES)}), named by the clips' ids")

    @property
    def num_repeats(self) -> int:
        """Repeats that were generated anew."""
        return len(self._folders)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all names, sizes and times: changes whenever the folder does."""
        digest = hashlib.sha256(json.dumps(self.record._asdict(), sort_keys=True).encode())
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            stat = file.stat()
            digest.update(f"{file.relative_to(self.folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of the clips that some repeat has no prediction of."""
        return [name for name in ids if any(name not in files for files in self._files)]

    def motion(self, repeat: int, name: str, representation: MotionRepresentation) -> Float[Tensor, "T D"]:
        """Features of a prediction, in a representation.

        Raises:
            ValueError: a file that cannot be read, NaN, or a motion that the representation is not defined for.
        """
        return self._features(self._files[repeat % self.num_repeats][name], representation)

    def captions(self, repeat: int) -> dict[str, str]:
        """What was asked for, by id; empty where the folder does not say."""
        folder = self._folders[repeat % self.num_repeats]
        if (folder / _CAPTIONS).is_file():
            return _read_json(folder / _CAPTIONS)
        found = {}
        for name, file in self._files[repeat % self.num_repeats].items():
            beside = folder / f"{name}.json"
            if beside.is_file() and isinstance(text := _read_json(beside).get("caption"), str):
                found[name] = text
            elif file.suffix in (".npz", ".glb", ".gltf") and (text := load_caption(file)):
                found[name] = text
        return found

    def many(self, representation: MotionRepresentation) -> dict[str, list[Float[Tensor, "_T D"]]]:
        """Clip -> several motions of its caption; empty where there are none."""
        folders = sorted(
            path for path in (self.folder / _MANY).glob("**/*") if path.is_dir() and _files(path, deep=False)
        )
        return {
            str(folder.relative_to(self.folder / _MANY)): [
                self._features(file, representation) for _, file in sorted(_files(folder, deep=False).items())
            ]
            for folder in folders
        }

    def _features(self, file: Path, representation: MotionRepresentation) -> Tensor:
        if file.suffix == ".npy":
            array = _array(file)
            if array.ndim == 2:
                return self._from_features(file, array, representation)
            if array.shape[1:] != (representation.skeleton.num_joints, 3):
                raise ValueError(
                    f"{file} has shape {tuple(array.shape)}; the evaluator wants joints "
                    f"(T, {representation.skeleton.num_joints}, 3) in metres or features (T, {representation.dim})"
                )
            motion = Motion(array, fps=representation.fps, skeleton=representation.skeleton)
        else:
            motion = load_motion(file)
        return _encode(file, motion, representation)

    def _from_features(self, file: Path, array: Tensor, representation: MotionRepresentation) -> Tensor:
        mine = representation if self._own is None else self._own
        if array.shape[1] != mine.dim:
            raise ValueError(
                f"{file} has {array.shape[1]} features a frame, {mine.settings} has {mine.dim}; give joints (T, J, 3), "
                "or say what the features are in predictions.json"
            )
        same = mine is representation or self.settings == representation.settings
        return array if same else _encode(file, mine.decode(array), representation)

    @cached_property
    def _own(self) -> MotionRepresentation | None:
        own = self.record.representation
        return None if own is None else build_representation(own, self.folder / _RECORD)

    @cached_property
    def settings(self) -> str:
        """Of the representation that the features are of; empty where the folder does not say."""
        return self._own.settings if self._own else ""

    def _read_record(self, name: str | None, task: str | None) -> Record:
        file = self.folder / _RECORD
        written = dict(_read_json(file)) if file.is_file() else {"format": FORMAT}
        if written.pop("format", None) != FORMAT:
            raise ValueError(f"{file} is of another version of lmm; this one reads format {FORMAT}")
        written = {"name": self.folder.name} | written
        written |= {key: value for key, value in {"name": name, "task": task}.items() if value is not None}
        try:
            record = Record(**written)
        except TypeError as error:
            raise ValueError(f"{file} is not a record of predictions ({error})") from None
        if record.task not in TASKS:
            raise ValueError(f"{file}: the task {record.task!r} is none of {', '.join(TASKS)}")
        return record


class PredictionWriter:
    """Writes a folder, clip by clip; what is there already is kept, so that an interrupted run goes on.

    Args:
        folder: where to.
        record: what makes the predictions; a folder of another making is refused.

    Raises:
        ValueError: the folder holds predictions of another making.
    """

    def __init__(self, folder: str | Path, record: Record) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _RECORD
        content = json.dumps({"format": FORMAT} | record._asdict(), indent=2) + "\n"
        if file.is_file() and file.read_text(encoding="utf-8") != content:
            raise ValueError(
                f"{self.folder} holds predictions that were made otherwise (compare predictions.json); delete it, or "
                "give another --trainer.default_root_dir"
            )
        _keep(file, content)

    def place(self, name: str, *, repeat: int | None = None, sample: int = 0) -> Path:
        """File of a prediction: of a repeat, or one of several for the same caption."""
        if repeat is not None:
            return self.folder / f"repeat_{repeat:02d}" / f"{name}.npy"
        return self.folder / _MANY / name / f"{sample:02d}.npy"

    def write(self, file: Path, features: Float[Tensor, "T D"]) -> None:
        """All of it or nothing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        writing = file.with_suffix(".writing")
        with writing.open("wb") as out:
            np.save(out, features.detach().float().cpu().numpy())
        writing.replace(file)

    def captions(self, repeat: int, texts: Mapping[str, str]) -> None:
        """What a repeat was asked for."""
        folder = self.folder / f"repeat_{repeat:02d}"
        folder.mkdir(exist_ok=True)
        _keep(folder / _CAPTIONS, json.dumps(dict(texts), indent=1, ensure_ascii=False) + "\n")


def describe_representation(representation: MotionRepresentation) -> dict[str, Any]:
    """Class and arguments, as `build_representation` takes them."""
    arguments = {name: getattr(representation, name) for name in inspect.signature(type(representation)).parameters}
    return {"class_path": type(representation).__name__, "init_args": arguments}


def build_representation(description: Mapping[str, Any], where: str | Path) -> MotionRepresentation:
    """A representation of this package; raises ValueError for another class, or arguments that it does not take."""
    cls = getattr(representations, str(description.get("class_path")), None)
    if not (isinstance(cls, type) and issubclass(cls, MotionRepresentation)):
        raise ValueError(f"{where}: {description.get('class_path')!r} is no representation of lmm's")
    try:
        return cls(**description.get("init_args", {}))
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _encode(file: Path, motion: Motion, representation: MotionRepresentation) -> Tensor:
    try:
        features = representation.encode(select(resample(motion, representation.fps), representation.skeleton))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not torch.isfinite(features).all():
        raise ValueError(f"{file}: its features are not finite; the motion is broken")
    return features


def _array(file: Path) -> Tensor:
    try:
        array = torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"{file} is not a readable array ({error})") from None
    if array.ndim not in (2, 3) or not len(array):
        raise ValueError(f"{file} has shape {tuple(array.shape)}, expected joints (T, J, 3) or features (T, D)")
    if not torch.isfinite(array).all():
        raise ValueError(f"{file} contains NaN or Inf; generate it again")
    return array


def _keep(file: Path, content: str) -> None:
    """A file with this content; one that has it already stays as old as it is."""
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        file.write_text(content, encoding="utf-8")


def _files(folder: Path, *, deep: bool = True) -> dict[str, Path]:
    """Id -> file. Ids may hold slashes."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*") if deep else folder.glob("*")):
        suffix = next((suffix for suffix in _SUFFIXES if file.name.endswith(suffix)), None)
        name = str(file.relative_to(folder))
        if suffix is None or not file.is_file() or name.startswith(f"{_MANY}/"):
            continue
        name = name[: -len(suffix)]
        if name in found:
            raise ValueError(f"{folder} holds two motions of {name}: {found[name].name} and {file.name}; keep one")
        found[name] = file
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold an object: id -> value")
    return content
