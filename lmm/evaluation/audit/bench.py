"""One row of figures for any set of motions of the sample's clips, and how much a figure differs by chance.

Noise is 1.96 standard deviations, over 20 halvings of the real clips, of a figure's difference between the two halves
(of FID, which is a figure of two halves: of itself). Up to there a difference may as well be that of the clips' choice.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmm.data.check.text import sides
from lmm.evaluation.audit.figures import (
    R_PRECISION,
    draw_halves,
    draw_pools,
    frechet_distance,
    frechet_of_halves,
    rank_in_pools,
    retrieval,
)
from lmm.evaluation.clips import Sample, embed_motions, embed_texts
from lmm.evaluation.protocol import Protocol, draw_pass
from lmm.evaluators.base import Evaluator
from lmm.metrics.physics import FIGURES as PHYSICS
from lmm.metrics.physics import Physics
from lmm.motion.motion import Motion


@dataclass(frozen=True)
class Row:
    """Figures of one set of motions.

    Args:
        corruption: what was done to them.
        strength: of it.
        figures: of the evaluator, by name.
        physics: of the joints, by name.
        sided: R-precision of the texts that name a side and of the others; empty without texts of both kinds.
        halvings: FID of each halving.
        poolings: R-precision of each pooling.
    """

    corruption: str
    strength: float
    figures: dict[str, float]
    physics: dict[str, float]
    sided: dict[str, dict[str, float]] = field(default_factory=dict)
    halvings: list[float] = field(default_factory=list)
    poolings: dict[str, list[float]] = field(default_factory=dict)


class Bench:
    """What stays the same from row to row: real motions and their points, texts, pools and halves.

    Args:
        evaluator: what is audited.
        sample: the clips.
        seed: of pools, halves and crops.

    Raises:
        ValueError: too few clips.
    """

    def __init__(self, evaluator: Evaluator, sample: Sample, *, seed: int) -> None:
        self.evaluator, self.representation = evaluator, evaluator.representation
        self.pools, self.halves = draw_pools(len(sample.ids), seed=seed), draw_halves(len(sample.ids), seed=seed)
        self.motions = [self.representation.decode(rows) for rows in sample.features]
        self.counted = self.count(self.motions)
        self.real, self.texts = embed_motions(evaluator, sample.features), embed_texts(evaluator, sample.texts)
        self.cropped = embed_motions(evaluator, _crops(evaluator, sample, seed))
        self.sided = torch.tensor([bool(sides(text)) for text in sample.texts])

    def points(self, motions: list[Motion]) -> Float[Tensor, "N E"]:
        """Points of motions."""
        return embed_motions(self.evaluator, [self.representation.encode(motion) for motion in motions])

    def count(self, motions: list[Motion]) -> Float[Tensor, "N F 2"]:
        """Total and count of each physics figure, clip by clip: those of any set of clips add up."""
        metric, clips = Physics(self.representation.skeleton, self.representation.fps), []
        for motion in motions:
            metric.reset()
            metric.update(motion.joints, torch.ones(motion.num_frames, dtype=torch.bool))
            clips.append(torch.stack([metric.totals, metric.counts], dim=-1))
        return torch.stack(clips)

    def row(
        self,
        corruption: str,
        strength: float,
        motions: Float[Tensor, "N E"],
        counted: Float[Tensor, "N F 2"],
        given: Int[Tensor, " N"] | None = None,
    ) -> Row:
        """Figures of motions, by their points and their physics.

        Args:
            corruption: what was done to them.
            strength: of it.
            motions: points.
            counted: what `count` says.
            given: which clip's text each motion is given; its own where left out.
        """
        texts, sided = (self.texts, self.sided) if given is None else (self.texts[given], self.sided[given])
        rank = rank_in_pools(texts, motions, self.pools)
        halvings = frechet_of_halves(self.real, motions, self.halves)
        figures = {"fid": float(np.mean(halvings)), **retrieval(rank), "multimodal_distance": _distance(texts, motions)}
        figures["fid_same_clips"] = frechet_distance(self.real, motions)
        groups = {"side": sided, "no side": ~sided} if 0 < int(sided.sum()) < len(sided) else {}
        apart = {name: retrieval(rank[members[self.pools]]) for name, members in groups.items()}
        poolings = {name: [retrieval(r)[name] for r in rank] for name in R_PRECISION}
        return Row(corruption, float(strength), figures, _physics(counted), apart, halvings, poolings)

    def noise(self) -> dict[str, float]:
        """By how much each figure differs between two halves of the real clips, see above."""
        fids = np.array(frechet_of_halves(self.real, self.real, self.halves))
        apart: dict[str, list[float]] = {name: [] for name in (*R_PRECISION, "multimodal_distance", *PHYSICS)}
        for half in self.halves:
            a, b = self._figures_of(half), self._figures_of(~half)
            for name, values in apart.items():
                values.append(a[name] - b[name])
        noise = {name: 1.96 * float(np.sqrt(np.mean(np.square(values)))) for name, values in apart.items()}
        return {"fid": 1.96 * float(np.std(fids)), **noise}

    def _figures_of(self, half: Bool[Tensor, " N"]) -> dict[str, float]:
        texts, motions = self.texts[half], self.real[half]
        figures = retrieval(rank_in_pools(texts, motions, draw_pools(len(texts), seed=0)))
        return figures | {"multimodal_distance": _distance(texts, motions)} | _physics(self.counted[half])


def _distance(texts: Float[Tensor, "N E"], motions: Float[Tensor, "N E"]) -> float:
    return float((texts - motions).norm(dim=-1).mean())


def _physics(counted: Float[Tensor, "N F 2"]) -> dict[str, float]:
    total, count = counted.sum(0).unbind(-1)
    return dict(zip(PHYSICS, (total / count).tolist(), strict=True))


def _crops(evaluator: Evaluator, sample: Sample, seed: int) -> list[Float[Tensor, "_T D"]]:
    """The clips as a repeat of the standard protocol cuts them."""
    crops = draw_pass(
        Protocol(seed=seed),
        0,
        lengths=np.array([len(rows) for rows in sample.features]),
        num_captions=[len(captions) for captions in sample.captions],
        unit=evaluator.unit,
        max_frames=evaluator.max_frames,
    )
    windows = zip(sample.features, crops.starts.tolist(), crops.frames.tolist(), strict=True)
    return [rows[start : start + frames] for rows, start, frames in windows]
