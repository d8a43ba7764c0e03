"""Batches of motion for Lightning: random windows or whole clips to train on, whole clips to judge by and to encode.

An epoch shows every training item of at least ``window`` frames as often as the source's weight says (once, but in a
mixture); where its window begins and which of its captions goes with it depend on (seed, how often it was shown, item)
alone, so a resumed run sees the very batches of the uninterrupted one. Without a window items come whole, in batches of
similar length.
To encode a data set, its clips come in batches of one length: no step of padding is computed.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lmm.batch import MotionBatch
from lmm.data.loader import Key, ResumableLoader, draw, loading, resumable_loader, same_length_batches
from lmm.data.sources.base import MotionSource
from lmm.data.store import Item, MotionStore
from lmm.motion.representations.base import MotionRepresentation


class Encoding(NamedTuple):
    """Where the encoding of a data set stands: frames of a step, and the ids of the clips that are encoded already."""

    downsample: int
    done: Collection[str]


class MotionDataModule(LightningDataModule):
    """Motions of one source in one representation.

    Who encodes them may set ``encoding``; it is asked when `predict` begins, after the weights are loaded.

    Args:
        source: where the motions come from.
        representation: what features are made of them; the model is given the same object.
        window: frames T of a training window, shorter items are not trained on; None to train on whole items.
        batch_size: items in a batch, in training and elsewhere.
        num_workers: loading processes; reading the packed store is so cheap that 0 is often fastest.
        cache: folder for packed data; may be deleted at any time.
        seed: of the order, the windows and the captions drawn; None for ``seed_everything``, and 0 in plain Python.
        test_split: the split that ``test`` judges by, such as "unseen".
    """

    def __init__(
        self,
        source: MotionSource,
        representation: MotionRepresentation,
        *,
        window: int | None = 64,
        batch_size: int = 256,
        num_workers: int = 0,
        cache: str = "runs/cache",
        seed: int | None = None,
        test_split: str = "test",
    ) -> None:
        super().__init__()
        if (window is not None and window < 1) or batch_size < 1:
            raise ValueError(f"window and batch_size must be at least 1, got {window} and {batch_size}")
        self.source = source
        self.representation = representation
        self.window = window
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = Path(cache)
        self.seed = seed or 0
        self.test_split = test_split
        self.encoding: Callable[[], Encoding] | None = None
        self._store: MotionStore | None = None

    @property
    def store(self) -> MotionStore:
        """The packed motions, opened at first use."""
        if self._store is None:
            self._store = MotionStore.open(self.source, self.representation, self.cache)
        return self._store

    def prepare_data(self) -> None:
        """Make what the source can make, and pack it; in one process."""
        self.source.prepare()
        _ = self.store

    def setup(self, stage: str) -> None:
        """Open the store and, unless a checkpoint brought its own, give the representation its statistics."""
        if not self.representation.has_statistics:
            self.representation.set_statistics(*self.store.statistics())

    def train_dataloader(self) -> DataLoader:
        """Random windows, or whole items, of the split train, as `MotionBatch`."""
        indices = self.store.indices("train")
        lengths = self.store.lengths[indices]
        if self.window is None:
            return self._training(_Whole(self.store, indices, self.seed), indices, lengths)
        if not (lengths >= self.window).any():
            raise ValueError(
                f"no training item of {self.source.name} has {self.window} frames, the longest has {lengths.max()}; "
                "use a smaller window"
            )
        if short := int((lengths < self.window).sum()):
            rank_zero_info(f"{short} of {len(indices)} training items are shorter than the window of {self.window}")
        indices = indices[lengths >= self.window]
        return self._training(_Windows(self.store, indices, self.window, self.seed), indices)

    def val_dataloader(self) -> DataLoader:
        """Whole clips of the split val."""
        return self._evaluation(_Clips(self.store, self.store.indices("val")))

    def test_dataloader(self) -> DataLoader:
        """Whole clips of ``test_split``."""
        return self._evaluation(_Clips(self.store, self.store.indices(self.test_split)))

    def predict_dataloader(self) -> DataLoader:
        """Whole clips of all splits, each once, but for those that are encoded already.

        All clips of a batch have equally many steps, the longest come first. Every rank gets every n-th batch.
        """
        downsample, done = self.encoding() if self.encoding else Encoding(1, ())
        left = np.array([i for i in range(len(self.store)) if not done or self.store.item(i).id not in done], dtype=int)
        ranks = self._share.get("num_replicas", 1)
        if len(left) < ranks:  # Lightning wants a batch for every rank, and ends no run that had none
            left = np.arange(min(ranks, len(self.store)))
        steps = -(-self.store.lengths[left] // downsample)
        batches = same_length_batches(steps, max(min(self.batch_size, len(left) // ranks), 1))
        return DataLoader(_Batches(self.store, [left[batch] for batch in batches]), **loading(1, self.num_workers))

    @property
    def _share(self) -> dict[str, Any]:
        # The trainer knows how many ranks read different data, which under sharding is not the number of processes.
        return (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {}

    def _training(self, dataset: Dataset, indices: np.ndarray, lengths: np.ndarray | None = None) -> ResumableLoader:
        weights = None
        if type(self.source).weight is not MotionSource.weight:  # else all are 1, and no id has to be read to know it
            weights = np.array([self.source.weight(self.store.item(i).id) for i in indices.tolist()], dtype=float)
        return resumable_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            num_replicas=self._share.get("num_replicas", 1),
            rank=self._share.get("rank", 0),
            weights=weights,
            lengths=lengths,
        )

    def _evaluation(self, dataset: Dataset) -> DataLoader:
        return DataLoader(dataset, **loading(self.batch_size, self.num_workers))


class _Windows(Dataset):
    """Keys -> windows with one caption each."""

    def __init__(self, store: MotionStore, indices: np.ndarray, window: int, seed: int) -> None:
        self.store, self.indices, self.window, self.seed = store, indices, window, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key] | list[int]) -> MotionBatch:
        showings, indices = split_keys(keys, self.indices)
        starts = draw(self.seed, showings, indices, 0, self.store.lengths[indices] - self.window + 1)
        features = self.store.windows(indices, starts, self.window)
        items = [self.store.item(index) for index in indices.tolist()]
        texts = drawn_captions(items, self.seed, showings, indices)
        return MotionBatch(
            features, torch.ones(features.shape[:2], dtype=torch.bool), [item.id for item in items], texts
        )


class _Whole(Dataset):
    """Keys -> whole clips with one caption each."""

    def __init__(self, store: MotionStore, indices: np.ndarray, seed: int) -> None:
        self.store, self.indices, self.seed = store, indices, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key] | list[int]) -> MotionBatch:
        showings, indices = split_keys(keys, self.indices)
        items = [self.store.item(index) for index in indices.tolist()]
        return _whole_clips(self.store, indices)._replace(texts=drawn_captions(items, self.seed, showings, indices))


class _Clips(Dataset):
    """Whole clips with their first captions, the longest first: little padding, and memory runs out early if ever."""

    def __init__(self, store: MotionStore, indices: np.ndarray) -> None:
        self.store = store
        self.indices = indices[np.argsort(-store.lengths[indices], kind="stable")]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, positions: list[int]) -> MotionBatch:
        return _whole_clips(self.store, self.indices[positions])


class _Batches(Dataset):
    """Batches of whole clips, given as the clips' indices; an item of this data set is a batch."""

    def __init__(self, store: MotionStore, batches: list[np.ndarray]) -> None:
        self.store, self.batches = store, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitems__(self, positions: list[int]) -> MotionBatch:
        (position,) = positions
        return _whole_clips(self.store, self.batches[position])


def split_keys(keys: list[Key] | list[int], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Showings and item indices of a batch's keys; a bare number (``overfit_batches``) means showing 0."""
    pairs = np.array([key if isinstance(key, tuple) else (0, key) for key in keys], dtype=np.int64)
    return pairs[:, 0], indices[pairs[:, 1]]


def drawn_captions(items: list[Item], seed: int, showings: np.ndarray, indices: np.ndarray) -> list[str]:
    """One caption of each item, drawn anew whenever it is shown."""
    choices = draw(seed, showings, indices, 1, np.array([len(item.captions) for item in items]))
    return [item.captions[choice] for item, choice in zip(items, choices.tolist(), strict=True)]


def _whole_clips(store: MotionStore, indices: np.ndarray) -> MotionBatch:
    """Clips with their first captions, padded to the longest."""
    lengths = torch.from_numpy(store.lengths[indices])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    features = torch.zeros(*mask.shape, store.dim)
    for row, index in enumerate(indices.tolist()):
        clip = store.features(index)
        features[row, : len(clip)] = clip
    items = [store.item(index) for index in indices.tolist()]
    return MotionBatch(features, mask, [item.id for item in items], [item.captions[0] for item in items])
