"""An evaluator that works, made without training: motion statistics, and what a caption's words predict of them."""

import re

import numpy as np
import torch

from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.sources.procedural import generate
from lmm.data.store import MotionStore
from lmm.evaluators.base import Evaluator
from lmm.motion.representations import JointPositions


class WordsAndStatistics(Evaluator):
    """Motion: mean, deviation and mean step of each feature, projected. Text: ridge regression from its words."""

    def __init__(self, name, store, *, seed=0, dim=24):
        super().__init__(name, JointPositions(), dim=dim, unit=4, max_frames=196)
        train = store.indices("train").tolist()
        raw = torch.stack([self._raw(store.features(i)[None], torch.ones(1, int(store.lengths[i]), dtype=torch.bool))[0]
                           for i in train])  # fmt: skip
        texts = [store.item(i).captions[0] for i in train]
        self.words = {w: i for i, w in enumerate(sorted({w for text in texts for w in self._split(text)}))}
        projection = torch.randn(raw.shape[1], dim, generator=torch.Generator().manual_seed(seed)) / raw.shape[1] ** 0.5
        self.register_buffer("mean", raw.mean(0))
        self.register_buffer("std", raw.std(0).clamp_min(1e-3))
        self.register_buffer("projection", projection)
        x, y = self._bags(texts), (raw - self.mean) / self.std @ projection
        self.register_buffer("weights", torch.linalg.solve(x.T @ x + 0.3 * torch.eye(x.shape[1]), x.T @ y))
        self.freeze()

    @property
    def device(self):
        return self.mean.device

    def embed_motions(self, features, mask):
        return (self._raw(features, mask) - self.mean) / self.std @ self.projection

    def embed_texts(self, texts):
        return self._bags(texts) @ self.weights

    def _bags(self, texts):
        out = torch.zeros(len(texts), len(self.words) + 1)
        out[:, -1] = 1
        for row, text in enumerate(texts):
            for word in self._split(text):
                if word in self.words:
                    out[row, self.words[word]] += 1
        return out

    @staticmethod
    def _split(text):
        return re.findall(r"[a-z]+", text.lower())

    @staticmethod
    def _raw(features, mask):
        weight, count = mask[..., None].float(), mask.sum(1)[:, None]
        mean = (features * weight).sum(1) / count
        deviation = (((features - mean[:, None]) * weight) ** 2).sum(1) / count
        steps = (features.diff(dim=1).abs() * weight[:, 1:]).sum(1) / (count - 1)
        return torch.cat([mean, deviation.clamp_min(1e-12).sqrt(), steps], dim=-1)


class OnePoint(WordsAndStatistics):
    """Everything is the same to it."""

    def embed_motions(self, features, mask):
        return torch.zeros(len(features), self.dim)

    def embed_texts(self, texts):
        return torch.zeros(len(texts), self.dim)


class ReadsPadding(WordsAndStatistics):
    """As MotionGPT's: what lies beyond a clip's end counts, up to the longest clip of the batch."""

    def embed_motions(self, features, mask):
        return super().embed_motions(features, torch.ones_like(mask))


def toy_store(folder, *, clips=200, test=80):
    """Procedural clips, many of them in test."""
    data = folder / "toy"
    generate(data, clips, seed=1)
    names = [f"{i:06d}" for i in range(clips)]
    rng = np.random.default_rng(0)
    chosen = set(rng.permutation(names[1:])[:test].tolist())
    lists = {
        "test": sorted(chosen),
        "train": [name for name in names if name not in chosen | {"000000"}],
        "val": ["000000"],
        "unseen": [],
    }
    lists["unseen"] = lists["test"][:40]
    for name, ids in lists.items():
        (data / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
    return MotionStore.open(HumanML3D(str(data)), JointPositions(), folder / "cache")
