"""The clips that are judged, and an evaluator's points of them: float64 "N E", on the CPU."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float
from torch import Tensor

from lmm.command_line import find_config
from lmm.data.sources.base import MotionSource
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.sources.kit import KIT
from lmm.data.sources.motionstreamer import MotionStreamer
from lmm.data.sources.procedural import Procedural
from lmm.data.store import MotionStore
from lmm.evaluators.base import Evaluator
from lmm.motion.representations.base import MotionRepresentation

BATCH = 64


class Sample(NamedTuple):
    """Clips of a split: names, all captions and raw features of each, and how many the split has."""

    split: str
    ids: list[str]
    captions: list[list[str]]
    features: list[Float[Tensor, "_T D"]]
    available: int

    @property
    def texts(self) -> list[str]:
        """The first caption of each clip, as in deterministic evaluation."""
        return [captions[0] for captions in self.captions]


def find_source(data: str | None, representation: MotionRepresentation) -> MotionSource:
    """The data set of a folder, in the layout that the representation belongs to, or of a run; None: the embedded one.

    Args:
        data: a folder in HumanML3D's layout, or a YAML with ``data.init_args.source``: a run's config.yaml, or one such
            as data/kit.yaml.
        representation: of the evaluator.

    Raises:
        ValueError: there is no such folder, or no source in the YAML.
    """
    if data is None:
        return Procedural()
    if data.endswith(".yaml"):
        return _configured(find_config(data))
    if not Path(data).expanduser().is_dir():
        raise ValueError(f"--data {data}: there is no such folder; give a data set in HumanML3D's layout")
    own = [layout for layout in (KIT, MotionStreamer) if isinstance(representation, layout.vectors)]
    return own[0](data) if own else HumanML3D(data)


def _configured(file: str) -> MotionSource:
    from jsonargparse import ArgumentParser

    content = yaml.safe_load(Path(file).read_text())
    try:
        source = content["data"]["init_args"]["source"]
    except (TypeError, KeyError):
        raise ValueError(f"{file} has no data.init_args.source; give a run's config.yaml, or a folder") from None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--source", type=MotionSource)
    return parser.instantiate_classes(parser.parse_object({"source": source})).source


def read_sample(store: MotionStore, split: str, *, max_clips: int = 0, seed: int = 0) -> Sample:
    """Clips of a split, at most ``max_clips`` (0: all), drawn by the seed, in the store's order.

    Raises:
        ValueError: there is no such split, or a clip has no caption.
    """
    indices = store.indices(split)
    available = len(indices)
    if 0 < max_clips < available:
        indices = np.sort(np.random.default_rng([seed, available]).choice(indices, max_clips, replace=False))
    items = [store.item(index) for index in indices.tolist()]
    if bare := [item.id for item in items if not all(item.captions)]:
        raise ValueError(
            f"{len(bare)} clips of split {split!r} have no caption ({', '.join(bare[:3])}); an audit compares motions "
            "with their captions: write them into texts/, or name another split"
        )
    features = [store.features(index) for index in indices.tolist()]
    return Sample(split, [item.id for item in items], [item.captions for item in items], features, available)


def all_captions(store: MotionStore, split: str) -> list[str]:
    """Every caption of every clip of a split."""
    return [text for index in store.indices(split).tolist() for text in store.item(index).captions if text]


@torch.no_grad()
def embed_motions(evaluator: Evaluator, features: list[Float[Tensor, "_T D"]]) -> Float[Tensor, "N E"]:
    """Points of clips of any lengths; each is cut to a multiple of the evaluator's unit, and to its longest.

    Raises:
        ValueError: a clip is shorter than the unit.
    """
    frames = [usable_frames(evaluator, len(rows)) for rows in features]
    if min(frames) == 0:
        raise ValueError(
            f"{evaluator.name} reads motions of {evaluator.unit} rows or more, got {min(map(len, features))}"
        )
    points = torch.empty(len(features), evaluator.dim, dtype=torch.float64)
    order = sorted(range(len(features)), key=lambda i: -frames[i])
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        padded, mask = together([features[i][: frames[i]] for i in batch])
        points[batch] = evaluator.embed_motions(padded.to(evaluator.device), mask.to(evaluator.device)).double().cpu()
    return points


def together(features: list[Float[Tensor, "_T D"]]) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
    """Clips in one batch, zeros behind their ends, and where they are real."""
    lengths = torch.tensor([len(rows) for rows in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


@torch.no_grad()
def embed_texts(evaluator: Evaluator, texts: list[str]) -> Float[Tensor, "N E"]:
    """Points of sentences; each different one is read once."""
    different = list(dict.fromkeys(texts))
    batches = [different[first : first + BATCH] for first in range(0, len(different), BATCH)]
    points = torch.cat([evaluator.embed_texts(batch).double().cpu() for batch in batches])
    place = {text: row for row, text in enumerate(different)}
    return points[[place[text] for text in texts]]


def usable_frames(evaluator: Evaluator, rows: int) -> int:
    """How many of a clip's rows an evaluator reads."""
    return min(rows, evaluator.max_frames or rows) // evaluator.unit * evaluator.unit
