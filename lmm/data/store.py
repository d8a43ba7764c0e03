"""Packed features of one (source, representation): memory-mapped shards and an index, built on first use.

::

    <cache>/<source>-<representation>-<key>/
      meta.json                what was packed, how much was dropped and why, where the statistics come from
      dropped.json             ids of what was dropped, by reason
      features-00000.f32 ...   rows of D float32; a clip never spans two shards
      index.npy                int64 (items, 4): shard, first row, rows T, first byte of the item in items.jsonl
      splits.npy               bool (splits, items), in the order of meta.json's "splits"
      items.jsonl              one line an item: [id, caption, ...], and {name: text} last where there are details
      mean.npy std.npy         float32 (D,)

The key digests the source's fingerprint and the representation's settings, so changed data are packed again beside the
old; the cache may be deleted at any time. Opening reads the index only; a window reads its own rows only. An item is a
clip, or ``<id>__sub<k>``: the rows of a clip that the caption in line k (from 0) of its text is about.
"""

import fcntl
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lmm.data.packing import FORMAT, pack, store_key
from lmm.data.sources.base import MotionSource
from lmm.motion.representations.base import MotionRepresentation


class Item(NamedTuple):
    """Name of an item, its captions, and texts about the body and its parts by name (empty where there are none)."""

    id: str
    captions: list[str]
    details: dict[str, str]


class MotionStore:
    """Read access to a packed folder. Use `open`, which packs first where that is needed.

    Args:
        folder: a folder that `open` made.

    Raises:
        ValueError: the folder is damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
            if self.meta["format"] != FORMAT:
                raise ValueError(f"format {self.meta['format']}, this version reads {FORMAT}")
            self.dim: int = self.meta["dim"]
            self.key: str = self.meta["key"]
            self._index = np.load(folder / "index.npy", allow_pickle=False)
            self._splits = np.load(folder / "splits.npy", allow_pickle=False)
            sizes = [(folder / name).stat().st_size for name in self._shard_names]
            if sizes != [4 * self.dim * rows for rows in self.meta["shards"]]:
                raise ValueError("a shard is cut short")
            if (folder / "items.jsonl").stat().st_size != self.meta["items_bytes"]:
                raise ValueError("items.jsonl is cut short")
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise ValueError(
                f"{folder} is not a usable motion store ({error}); delete it, it is packed again on next use"
            ) from None

    def __reduce__(self) -> tuple[type["MotionStore"], tuple[Path]]:
        return type(self), (self.folder,)  # a worker opens the files itself instead of receiving their contents

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def open(cls, source: MotionSource, representation: MotionRepresentation, cache: Path) -> "MotionStore":
        """The packed form of ``source`` under ``cache``; packs it first if it is not there, is damaged or outdated.

        Any number of processes may call this at once: one packs, the others wait and read.
        """
        key = store_key(source, representation)
        folder = Path(cache) / f"{source.name}-{type(representation).__name__}-{key[:16]}"
        if (folder / "meta.json").exists():
            try:
                return cls(folder)
            except ValueError as error:
                rank_zero_warn(f"{error}. Packing it again now.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(folder.name + ".lock")):
            try:
                return cls(folder)  # another process was faster
            except ValueError:
                # Renamed when complete: a killed process leaves no half a store, only this folder, removed here.
                building = folder.with_name(folder.name + ".building")
                shutil.rmtree(building, ignore_errors=True)
                building.mkdir()
                try:
                    pack(source, representation, building, key)
                    shutil.rmtree(folder, ignore_errors=True)
                    building.rename(folder)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
            store = cls(folder)
            rank_zero_info(f"{folder}: {store.report()}")
            return store

    @property
    def lengths(self) -> np.ndarray:
        """Rows T of every item, (items,)."""
        return self._index[:, 2]

    def indices(self, split: str) -> np.ndarray:
        """Indices of the items in a split, in packing order.

        Raises:
            ValueError: there is no such split, or nothing of it was kept.
        """
        names = self.meta["splits"]
        if split not in names:
            raise ValueError(f"{self.meta['source']} has no split {split!r}; it has {', '.join(names)}")
        found = np.flatnonzero(self._splits[names.index(split)])
        if not len(found):
            raise ValueError(f"nothing of split {split!r} of {self.meta['source']} was kept: {self.report()}")
        return found

    def item(self, index: int) -> Item:
        """Id and texts of an item."""
        start = int(self._index[index, 3])
        end = int(self._index[index + 1, 3]) if index + 1 < len(self) else len(self._text)
        name, *texts = json.loads(self._text[start:end].decode())
        details = texts.pop() if isinstance(texts[-1], dict) else {}
        return Item(name, texts, details)

    def features(self, index: int) -> Float[Tensor, "T D"]:
        """All rows of an item: a view of the mapped file, nothing is read until it is used."""
        shard, row, length = self._index[index, :3].tolist()
        return self._shards[shard][row : row + length]

    def windows(self, indices: np.ndarray, starts: np.ndarray, window: int) -> Float[Tensor, "B T D"]:
        """Copies of ``window`` rows of each item, from ``starts`` on; only these rows are read."""
        shards = self._index[indices, 0]
        rows = torch.from_numpy(self._index[indices, 1] + starts)
        batch = torch.empty(len(indices), window, self.dim)
        for shard in np.unique(shards):
            mine = torch.from_numpy(np.flatnonzero(shards == shard))
            frames = self._shards[shard]
            # Every window of the shard as one row of a view whose rows overlap: one gather instead of B slices.
            view = frames.as_strided((len(frames) - window + 1, window * self.dim), (self.dim, 1))
            if len(mine) == len(indices):
                torch.index_select(view, 0, rows, out=batch.view(len(indices), -1))
            else:
                batch[mine] = view.index_select(0, rows[mine]).view(-1, window, self.dim)
        return batch

    def statistics(self) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean and standard deviation: the source's published ones, else those of the train split."""
        if self.meta["statistics"] is None:
            raise ValueError(f"{self.meta['source']} has no split 'train' to compute mean and deviation from; add one")
        mean, std = (np.load(self.folder / f"{name}.npy", allow_pickle=False) for name in ("mean", "std"))
        return torch.from_numpy(mean), torch.from_numpy(std)

    def report(self) -> str:
        """What was kept and what was dropped, in a sentence."""
        dropped = ", ".join(f"{n} {reason}" for reason, n in self.meta["dropped"].items()) or "nothing"
        return f"kept {self.meta['clips']} clips and {self.meta['sub_clips']} sub-clips; dropped: {dropped}"

    @property
    def _shard_names(self) -> list[str]:
        return [f"features-{shard:05d}.f32" for shard in range(len(self.meta["shards"]))]

    @cached_property
    def _shards(self) -> list[Float[Tensor, "R D"]]:
        # Mode "c" because torch warns about read-only memory; nothing is ever written, so no page is copied.
        maps = [np.memmap(self.folder / name, np.float32, "c").reshape(-1, self.dim) for name in self._shard_names]
        return [torch.from_numpy(array) for array in maps]

    @cached_property
    def _text(self) -> mmap.mmap:
        with (self.folder / "items.jsonl").open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Hold the file's lock; it falls with the process, however that ends."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
