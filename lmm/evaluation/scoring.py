"""Every figure of every system, repeat by repeat, beside real motion.

In repeat r the real clips of pass r are the reference of the Fréchet distance, and all rows are judged on pass r + 1:
the real row with its crops and captions (so its FID is that of two draws of real motion, not 0), a reconstruction with
the same, a generated motion whole, with the caption that it was made from. Pools are those of pass r + 1 in every row.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lmm.data.sources.base import MotionSource
from lmm.data.store import MotionStore
from lmm.evaluation.clips import BATCH, embed_motions, embed_texts, together
from lmm.evaluation.predictions import Predictions
from lmm.evaluation.protocol import Pass, Protocol, draw_pass
from lmm.evaluators.base import Evaluator
from lmm.metrics.diversity import diversity, multimodality
from lmm.metrics.frechet import Gaussian, frechet_distance, gaussian
from lmm.metrics.length import LengthError
from lmm.metrics.matching import caption_ceiling, r_precision
from lmm.metrics.physics import Physics
from lmm.metrics.prediction import DisplacementErrors
from lmm.metrics.reconstruction import ReconstructionErrors

DIVERSITY_PAIRS, MULTIMODALITY_PAIRS = 300, 10
GIVEN = {"prediction": (0.2, 0.0), "in_between": (0.25, 0.25)}  # shares of a motion that are given: beginning and end
REAL = "real"
MetricType = TypeVar("MetricType", bound=Metric)


class Judge:
    """One evaluator, one split, one protocol.

    Args:
        evaluator: the instrument.
        source: of the real motions and their captions.
        split: which of them.
        protocol: how they are looked at.
        cache: folder of packed motions.

    Raises:
        ValueError: no such split, too few clips for a pool, or clips without captions.
    """

    def __init__(
        self, evaluator: Evaluator, source: MotionSource, *, split: str, protocol: Protocol, cache: Path
    ) -> None:
        self.evaluator, self.protocol, self.split = evaluator, protocol, split
        source.prepare()
        self.store = MotionStore.open(source, evaluator.representation, cache)
        self.indices = self.store.indices(split)
        items = [self.store.item(index) for index in self.indices.tolist()]
        self.ids = [item.id for item in items]
        self.captions = [item.captions for item in items]
        if bare := [item.id for item in items if not all(item.captions)]:
            raise ValueError(
                f"{len(bare)} clips of split {split!r} have no caption ({', '.join(bare[:3])}), as R-precision needs; "
                "write them into texts/, or judge by another split"
            )
        self.lengths = self.store.lengths[self.indices].astype(np.int64)
        self._points: dict[int, tuple[Tensor, Tensor]] = {}
        self._references: dict[int, Gaussian] = {}
        self.draw(0)

    def draw(self, number: int) -> Pass:
        """A pass; all are the same where nothing is drawn."""
        return draw_pass(
            self.protocol,
            number if self.protocol.random else 0,
            lengths=self.lengths,
            num_captions=[len(captions) for captions in self.captions],
            unit=self.evaluator.unit,
            max_frames=self.evaluator.max_frames,
        )

    def texts(self, look: Pass) -> list[str]:
        """Captions of a pass, in its order."""
        return [self.captions[place][look.captions[place]] for place in look.order.tolist()]

    def ceiling(self) -> Float[Tensor, " 3"]:
        """The best R-precision that identical captions in a pool leave possible, mean over the repeats."""
        passes = [self.draw(repeat + 1) for repeat in range(self.protocol.repeats)]
        return torch.stack([caption_ceiling(self.texts(look)) for look in passes]).mean(0)

    def real(self, repeat: int) -> dict[str, float]:
        """Figures of real motion."""
        self._reference(repeat)  # before the next pass, so that each is embedded once
        texts, motions = self._real_points(repeat + 1)
        return self._figures(texts, motions, repeat) | self._real_physics

    def system(self, predictions: Predictions, repeats: Sequence[int]) -> Iterator[tuple[int, dict[str, float]]]:
        """Figures of predictions, repeat by repeat.

        Raises:
            ValueError: a clip of the split has no prediction, or one that cannot be read.
        """
        yield from _System(self, predictions).figures(repeats)

    def _real_points(self, number: int) -> tuple[Tensor, Tensor]:
        """Texts and motions of a pass, in its order; a pass is the judged one once and then the reference once."""
        number = number if self.protocol.random else 0
        if number not in self._points:
            self._points = {key: points for key, points in self._points.items() if key == number - 1}
            look = self.draw(number)
            crops = [
                self.store.features(int(self.indices[place]))[look.starts[place] :][: look.frames[place]]
                for place in look.order.tolist()
            ]
            self._points[number] = embed_texts(self.evaluator, self.texts(look)), embed_motions(self.evaluator, crops)
        return self._points[number]

    def _reference(self, repeat: int) -> Gaussian:
        if repeat not in self._references:  # kept for all rows: embedding is what takes the time
            self._references[repeat] = gaussian(self._real_points(repeat)[1])
        return self._references[repeat]

    def _figures(self, texts: Tensor, motions: Tensor, repeat: int) -> dict[str, float]:
        """What an evaluator says of pairs, whole pools of them."""
        matching = r_precision(texts, motions)
        pairs = min(DIVERSITY_PAIRS, len(motions))
        return {
            **{f"r_precision_{k}": float(matching.text_to_motion[k - 1]) for k in (1, 2, 3)},
            "fid": float(frechet_distance(self._reference(repeat), gaussian(motions))),
            "multimodal_distance": float(matching.distance),
            "diversity": float(diversity(motions, pairs=pairs, seed=self.protocol.seed * 1000 + repeat)),
        }

    @cached_property
    def _real_physics(self) -> dict[str, float]:
        return self.physics([self.store.features(int(index)) for index in self.indices])

    def physics(self, features: list[Tensor]) -> dict[str, float]:
        """Of whole motions."""
        representation = self.evaluator.representation
        metric = _alone(Physics(representation.skeleton, representation.fps))
        features = sorted(features, key=len)  # little padding
        for first in range(0, len(features), BATCH):
            padded, mask = together(features[first : first + BATCH])
            metric.update(representation.to_joints(padded.to(self.evaluator.device)).cpu(), mask)
        return {name: float(value) for name, value in metric.compute().items()}


class _System:
    """Predictions beside the real clips."""

    def __init__(self, judge: Judge, predictions: Predictions) -> None:
        self.judge, self.predictions = judge, predictions
        if missing := predictions.missing(judge.ids):
            raise ValueError(
                f"{predictions.folder} lacks {len(missing)} of the {len(judge.ids)} clips of split {judge.split!r} "
                f"({', '.join(missing[:3])}); generate them: figures over a part of a split are those of another split"
            )
        self.representation = judge.evaluator.representation
        self._many: Tensor | None = None

    def figures(self, repeats: Sequence[int]) -> Iterator[tuple[int, dict[str, float]]]:
        """One repeat after another; what was generated once is embedded once."""
        made: dict[int, tuple[list[Tensor], dict[str, float]]] = {}
        judge = self.judge
        for repeat in repeats:
            which = repeat % self.predictions.num_repeats
            if which not in made:
                if self.predictions.num_repeats >= judge.protocol.repeats:
                    made.clear()  # it does not come again
                features = [self.predictions.motion(which, name, self.representation) for name in judge.ids]
                made[which] = features, judge.physics(features) | self._compare(features)
            features, once = made[which]
            look = judge.draw(repeat + 1)
            texts, motions = self._points(features, look, which)
            yield repeat, judge._figures(texts, motions, repeat) | self._multimodality(repeat) | once

    def _points(self, features: list[Tensor], look: Pass, which: int) -> tuple[Tensor, Tensor]:
        places = look.order.tolist()
        if self.predictions.record.task == "reconstruction":
            crops = [features[place][look.starts[place] :][: look.frames[place]] for place in places]
            texts = self.judge.texts(look)
        else:
            crops = [features[place] for place in places]
            assumed = {name: captions[0] for name, captions in zip(self.judge.ids, self.judge.captions, strict=True)}
            asked = assumed | self.predictions.captions(which)
            texts = [asked[self.judge.ids[place]] for place in places]
        return embed_texts(self.judge.evaluator, texts), embed_motions(self.judge.evaluator, crops)

    def _multimodality(self, repeat: int) -> dict[str, float]:
        if self._many is None:
            many = self.predictions.many(self.representation)
            counts = {len(motions) for motions in many.values()}
            if len(counts) > 1:
                raise ValueError(
                    f"{self.predictions.folder}/multimodality has {sorted(counts)} motions a caption: one number"
                )
            points = [embed_motions(self.judge.evaluator, motions) for motions in many.values()]
            self._many = torch.stack(points) if points else torch.empty(0)
        if not len(self._many):
            return {}
        seed = self.judge.protocol.seed * 1000 + repeat
        return {"multimodality": float(multimodality(self._many, pairs=MULTIMODALITY_PAIRS, seed=seed))}

    def _compare(self, features: list[Tensor]) -> dict[str, float]:
        """Figures that compare a prediction with its own clip: lengths, joints, what was to be predicted."""
        judge, task = self.judge, self.predictions.record.task
        if task == "text_to_motion":
            lengths = _alone(LengthError(self.representation.fps))
            lengths.update(torch.tensor([len(rows) for rows in features]), torch.from_numpy(judge.lengths))
            return {name: float(value) for name, value in lengths.compute().items()}
        errors = _alone(ReconstructionErrors() if task == "reconstruction" else DisplacementErrors())
        for name, index, rows in zip(judge.ids, judge.indices.tolist(), features, strict=True):
            real = judge.store.features(index)
            if not -1 <= len(rows) - len(real) <= 0:  # joints of T frames give T - 1 rows of velocities
                raise ValueError(
                    f"{self.predictions.folder}: {name} has {len(rows)} frames, the clip {len(real)}; a {task} has as "
                    "many as the clip"
                )
            predicted, target = (self.representation.to_joints(each[: len(rows)]) for each in (rows, real))
            errors.update(predicted[None], target[None], _missing(task, len(real))[None, : len(rows)])
        return {name: float(value) for name, value in errors.compute().items()}


def _alone(metric: MetricType) -> MetricType:
    """One process scores, whatever others there are: they are not to be waited for."""
    metric.distributed_available_fn = lambda: False
    return metric


def _missing(task: str, frames: int) -> Tensor:
    """True where a frame counts: all of a reconstruction, what was not given of the others."""
    first, last = GIVEN.get(task, (0.0, 0.0))
    place = torch.arange(frames)
    return (place >= int(first * frames)) & (place < frames - int(last * frames))
