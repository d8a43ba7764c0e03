"""A loader that resumes exactly where a checkpoint was written, and draws that depend on the position alone.

Lightning saves and restores loaders that have ``state_dict``. The position counts batches handed to the trainer, so
workers may read ahead. The loader owns the epoch: Lightning's own counter is off by one after a ``max_steps`` stop, so
the sampler ignores ``set_epoch``; and it is a ``DistributedSampler`` because Lightning replaces every other kind. Each
rank gets its share of the same shuffled epoch; where the clips do not divide evenly, the first few come twice.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

# (showing, index): all that a data set needs to draw a window or a caption. An item's showings are numbered through the
# epochs: 0, 1, 2, ... for an item that comes once an epoch.
Key = tuple[int, int]
_GOLDEN = 0.6180339887498949  # its multiples modulo 1 fill [0, 1) evenly, however many they are


class EpochSampler(DistributedSampler):
    """Shuffled keys of one rank; the loader sets ``epoch`` and ``start`` (clips already handed out).

    With ``weights`` item i comes weights[i] times an epoch, see `weighted_keys`. With ``lengths`` and ``batch_size``
    every batch holds clips of similar length, for little padding: within stretches of 32 batches the shuffled clips are
    sorted, and the order of the batches is shuffled again.
    """

    start = 0
    weights: np.ndarray | None = None
    lengths: np.ndarray | None = None
    batch_size = 1

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the loader owns the epoch."""

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        places = list(super().__iter__())
        if self.weights is None:
            keys = [(self.epoch, int(index)) for index in places]
        else:
            every = weighted_keys(self.weights, seed=self.seed, epoch=self.epoch)
            keys = [(showing, index) for showing, index in every[places].tolist()]
        if self.lengths is not None:
            keys = self._bucketed(keys, self.lengths)
        return iter(keys[self.start :])

    def _bucketed(self, keys: list[Key], lengths: np.ndarray) -> list[Key]:
        size, batches = self.batch_size, []
        for first in range(0, len(keys), 32 * size):
            stretch = sorted(keys[first : first + 32 * size], key=lambda key: -lengths[key[1]])
            batches += [stretch[i : i + size] for i in range(0, len(stretch), size)]
        whole = [batch for batch in batches if len(batch) == size]  # an incomplete batch can only come last
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(whole))
        rest = [batch for batch in batches if len(batch) < size]
        return [key for batch in [*(whole[i] for i in order), *rest] for key in batch]


class ResumableLoader(DataLoader):
    """``DataLoader`` over an `EpochSampler` that continues mid-epoch; make it with `resumable_loader`.

    A pass (one ``iter``) hands out as many batches as an epoch has, or the rest of it after a restart. What a pass
    leaves that ends early (``limit_train_batches``, or Lightning's one-batch epoch after restarting at an epoch's end)
    comes first in the next pass: the order of batches never depends on how they are counted into passes.
    """

    _epoch = 0
    _done = 0  # batches of the epoch handed out
    _restored = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not isinstance(self.sampler, EpochSampler):  # Lightning put its own in, for overfit_batches
            yield from super().__iter__()
            return
        assert self.batch_size is not None
        left = len(self) - self._done * self._restored
        self._restored = False
        while left > 0:
            self.sampler.epoch, self.sampler.start = self._epoch, self._done * self.batch_size
            for batch in super().__iter__():
                # Counted before it is handed out: Lightning never asks for the end of an epoch it knows the length of.
                self._done += 1
                if self._done == len(self):
                    self._epoch, self._done = self._epoch + 1, 0
                left -= 1
                yield batch
                if left == 0:
                    break

    def state_dict(self) -> dict[str, int]:
        """Position in the training data: the epoch, and its clips that all ranks together have handed out."""
        return {"epoch": self._epoch, "clips": self._done * self._stride}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a position; with another batch size or world size, from the nearest batch before it."""
        self._epoch, self._done = state["epoch"], min(state["clips"] // self._stride, len(self) - 1)
        self._restored = True

    @property
    def _stride(self) -> int:
        assert self.batch_size is not None
        return self.batch_size * getattr(self.sampler, "num_replicas", 1)


def resumable_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    num_replicas: int = 1,
    rank: int = 0,
    weights: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
) -> ResumableLoader:
    """Training loader of one rank over a data set whose ``__getitems__`` makes a batch of keys.

    Args:
        dataset: what makes the batches.
        batch_size: clips in a batch.
        seed: of the order.
        num_workers: loading processes.
        num_replicas: ranks that share an epoch.
        rank: of this process.
        weights: how many times an epoch shows every item; once where there are none.
        lengths: of every item; batches are then made of clips of similar length.

    Raises:
        ValueError: weights that `weighted_keys` refuses.
    """
    count = len(dataset) if weights is None else len(weighted_keys(weights, seed=seed, epoch=0))  # type: ignore[arg-type]
    sampler = EpochSampler(range(count), num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
    sampler.weights, sampler.lengths, sampler.batch_size = weights, lengths, batch_size
    return ResumableLoader(dataset, sampler=sampler, **loading(batch_size, num_workers))


def weighted_keys(weights: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Keys of an epoch in which item i comes weights[i] times: int64 (M, 2) with M = round(Σ weights).

    The whole part of a weight is exact. The fractions are laid end to end on a circle, in an order that the seed alone
    decides, and hit at equidistant points (systematic sampling). Every epoch moves the points on by the golden section
    of their distance, so that an item's showings are spread evenly over the epochs, and every epoch has equally many.

    Raises:
        ValueError: weights that are negative or not finite, or so small together that their items would never be shown.
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("the weight of an item is how many times an epoch shows it: finite, and not negative")
    times = np.floor(weights).astype(np.int64)
    rng = np.random.default_rng([seed, 1])
    order, offset = rng.permutation(len(weights)), rng.random()
    ends = (weights - times)[order].cumsum()
    if count := round(float(weights.sum())) - int(times.sum()):
        points = (np.arange(count) + (offset + epoch * _GOLDEN) % 1) * (ends[-1] / count)
        np.add.at(times, order[np.searchsorted(ends, points % ends[-1], side="right")], 1)
    elif not times.any() or (weights[times == 0] > 0).any():
        raise ValueError(
            f"the {len(weights)} training items weigh {weights.sum():g} together, of which an epoch shows the rounded "
            "number: those that weigh less than 1 would never be shown; give greater weights"
        )
    repeats = np.arange(times.sum()) - np.repeat(times.cumsum() - times, times)
    showings = np.repeat(epoch * np.ceil(weights).astype(np.int64), times) + repeats
    return np.stack([showings, np.repeat(np.arange(len(weights)), times)], axis=1)


def loading(batch_size: int, num_workers: int) -> dict[str, Any]:
    """Arguments of every loader here: data sets make whole batches, and no loader touches torch's own random state."""
    return {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "collate_fn": as_is,
        "generator": torch.Generator().manual_seed(0),
    }


def same_length_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions in batches of at most ``batch_size`` that have one length each; the longest come first."""
    order = np.argsort(-lengths, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    return [batch for group in groups for batch in np.array_split(group, -(-len(group) // batch_size))]


def as_is(batch: Any) -> Any:
    """Collate nothing."""
    return batch


def draw(seed: int, showings: np.ndarray, indices: np.ndarray, stream: int, below: np.ndarray) -> np.ndarray:
    """Integers in [0, below) that depend on (seed, showing, index, stream) alone: SplitMix64 of the four numbers."""
    state = np.zeros(len(indices), dtype=np.uint64)
    for number in (np.uint64(seed % 2**64), np.uint64(stream), showings.astype(np.uint64), indices.astype(np.uint64)):
        state = _mix(state + number)
    return (state % below.astype(np.uint64)).astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
