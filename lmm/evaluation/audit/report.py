"""The whole audit of one evaluator on one data set."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.data.store import MotionStore
from lmm.evaluation.audit.agreement import Agreement
from lmm.evaluation.audit.bench import Bench
from lmm.evaluation.audit.duplicates import SplitFigures, split_figures
from lmm.evaluation.audit.novelty import Novelty, measure_novelty
from lmm.evaluation.audit.response import Response, measure_response
from lmm.evaluation.clips import Sample, all_captions, embed_motions, embed_texts, read_sample
from lmm.evaluators.base import Evaluator

ALONE = 16  # clips and captions that are embedded by themselves, too
SAME = 1e-3  # of the spread: points closer than this are one point


@dataclass(frozen=True)
class Instrument:
    """What should be 0, in parts of the points' mean distance from their centre.

    Args:
        motions_alone: how far a motion's point moves, at most, when it is embedded alone and not in a batch.
        texts_alone: the same of texts.
        merged: share of the different captions that lie on another one's point.
    """

    motions_alone: float
    texts_alone: float
    merged: float


@dataclass(frozen=True)
class EvaluatorAudit:
    """All that was measured of an evaluator: ``response`` on the clips of ``split``, the rest on all splits."""

    name: str
    where: str
    fingerprint: str
    settings: str
    dim: int
    unit: int
    max_frames: int | None
    data_key: str
    split: str
    clips: int
    instrument: Instrument
    response: Response
    splits: list[SplitFigures]
    novelty: list[Novelty]


@dataclass(frozen=True)
class Audit:
    """Audits of some evaluators on one data set: everything that ``audit.json`` holds."""

    data: dict[str, Any]
    asked: dict[str, Any]
    evaluators: list[EvaluatorAudit]
    agreement: dict[str, list[Agreement]]
    seconds: float
    environment: dict[str, Any]


def audit(
    evaluator: Evaluator,
    where: str,
    store: MotionStore,
    splits: list[str],
    train_split: str | None,
    *,
    max_clips: int,
    seed: int,
) -> EvaluatorAudit:
    """Measure an evaluator.

    Args:
        evaluator: what is measured.
        where: its file.
        store: the data set in the evaluator's representation.
        splits: those that are judged; damaged motions are those of the first.
        train_split: what novelty and leaks are measured against; None: neither is.
        max_clips: of each split, 0 for all.
        seed: of everything that is drawn.

    Raises:
        ValueError: no such split, or one that is too small or without captions.
    """
    samples = [read_sample(store, split, max_clips=max_clips, seed=seed) for split in splits]
    train = None if train_split is None else all_captions(store, train_split)
    texts = [embed_texts(evaluator, sample.texts) for sample in samples]
    motions = [embed_motions(evaluator, sample.features) for sample in samples]
    novelty: list[Novelty] = []
    if train:
        captions = [text for sample in samples for text in sample.texts]
        novelty = measure_novelty(evaluator, captions, torch.cat(texts), torch.cat(motions), train, seed=seed)
    return EvaluatorAudit(
        name=evaluator.name,
        where=where,
        fingerprint=evaluator.fingerprint,
        settings=evaluator.settings,
        dim=evaluator.dim,
        unit=evaluator.unit,
        max_frames=evaluator.max_frames,
        data_key=store.key,
        split=samples[0].split,
        clips=len(samples[0].ids),
        instrument=examine(evaluator, samples[0], texts[0], motions[0]),
        response=measure_response(Bench(evaluator, samples[0], seed=seed), seed=seed),
        splits=[
            split_figures(sample, t, m, train, seed=seed) for sample, t, m in zip(samples, texts, motions, strict=True)
        ],
        novelty=novelty,
    )


def examine(
    evaluator: Evaluator, sample: Sample, texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"]
) -> Instrument:
    """Embed the shortest clips and some captions once more, alone, and compare with their points in batches."""
    shortest = sorted(range(len(sample.ids)), key=lambda i: len(sample.features[i]))[:ALONE]
    alone = torch.cat([embed_motions(evaluator, [sample.features[i]]) for i in shortest])
    spoken = torch.cat([embed_texts(evaluator, [text]) for text in sample.texts[:ALONE]])
    different = {text: place for place, text in enumerate(sample.texts)}
    points = texts[list(different.values())]
    nearest = torch.cdist(points, points).fill_diagonal_(float("inf")).amin(-1)
    return Instrument(
        motions_alone=float((alone - motions[shortest]).norm(dim=-1).max()) / _spread(motions),
        texts_alone=float((spoken - texts[:ALONE]).norm(dim=-1).max()) / _spread(texts),
        merged=float((nearest < SAME * _spread(texts)).double().mean()),
    )


def _spread(points: Float[Tensor, "N E"]) -> float:
    """Mean distance from the centre; the smallest positive number where all points are one."""
    return max(float((points - points.mean(0)).norm(dim=-1).mean()), 1e-300)
