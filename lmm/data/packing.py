"""Packing: encode every clip of a source once and write the files that `lmm.data.store` reads.

Here the field's rules on length are applied, and here everything that is left out is counted. Clips are encoded and
appended one after the other; shards do not know of each other, so several processes could each write their own.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lmm.data.sources.base import Clip, MotionSource
from lmm.data.statistics import RunningStatistics
from lmm.motion.representations.base import MotionRepresentation

FORMAT = 1
SHARD_BYTES = 2**30


def store_key(source: MotionSource, representation: MotionRepresentation) -> str:
    """Digest of all that decides what a store holds: format, data, and the representation's class and settings.

    A representation's buffers count too, apart from the statistics.
    """
    made_of = (FORMAT, source.fingerprint(), type(representation).__module__, representation.settings)
    digest = hashlib.sha256(repr((*made_of, representation.fps, representation.blocks)).encode())
    for name, value in representation.state_dict().items():
        if name not in ("mean", "std"):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def pack(source: MotionSource, representation: MotionRepresentation, folder: Path, key: str) -> None:
    """Encode every clip once, in one pass over the source."""
    splits = source.splits()
    member: dict[str, list[int]] = {}
    for number, ids in enumerate(splits.values()):
        for clip in ids:
            member.setdefault(clip, []).append(number)
    train = list(splits).index("train") if "train" in splits else -1

    dropped: dict[str, list[str]] = defaultdict(list)  # reason -> ids
    statistics, clips, uncaptioned, detailed = RunningStatistics(representation.dim), 0, 0, 0
    index: list[tuple[int, int, int, int]] = []
    belongs: list[list[int]] = []
    shards = _ShardWriter(folder, representation.dim)
    with (folder / "items.jsonl").open("wb") as text:
        for clip in tqdm(
            source.clips(representation), f"packing {source.name}", len(member), unit="clip", disable=None
        ):
            features = _encode(clip, representation)
            if reason := _reason(len(features), *source.limits(clip.id)):
                dropped[f"clips {reason}"].append(clip.id)
                continue
            items = _items(clip, len(features), source, representation.fps, dropped)
            if not items:
                continue
            shard, row = shards.append(features)
            if train in member[clip.id]:
                statistics.update(features)
            for name, captions, start, length in items:
                index.append((shard, row + start, length, text.tell()))
                belongs.append(member[clip.id])
                # Details are about the whole clip; what they say need not be true of a stretch of it.
                details = [dict(clip.details)] if clip.details and name == clip.id else []
                text.write(json.dumps([name, *captions, *details], ensure_ascii=False).encode() + b"\n")
                detailed += len(details)
            clips += items[0][0] == clip.id
            uncaptioned += not all(captions[0] for _, captions, _, _ in items)
        items_bytes = text.tell()
    shards.close()
    counts = {reason: len(ids) for reason, ids in dropped.items()}
    if not index:
        raise ValueError(f"nothing of {source.name} was kept; dropped: {counts}; check min_frames and max_frames")

    in_split = np.zeros((len(splits), len(index)), dtype=bool)
    for item, numbers in enumerate(belongs):
        in_split[numbers, item] = True
    np.save(folder / "index.npy", np.array(index, dtype=np.int64))
    np.save(folder / "splits.npy", in_split)
    published = source.statistics(representation)
    if published or statistics.count:
        mean, std = published or statistics.result(representation)
        np.save(folder / "mean.npy", mean.float().numpy())
        np.save(folder / "std.npy", std.float().numpy())
    meta = {
        "format": FORMAT,
        "key": key,
        "source": source.name,
        "representation": type(representation).__name__,
        "dim": representation.dim,
        "fps": representation.fps,
        "fingerprint": source.fingerprint(),
        "splits": list(splits),
        "clips": clips,
        "sub_clips": len(index) - clips,
        "uncaptioned": uncaptioned,
        "detailed": detailed,
        "dropped": counts,
        "statistics": "published" if published else "computed from train" if statistics.count else None,
        "shards": shards.rows,
        "items_bytes": items_bytes,
    }
    (folder / "dropped.json").write_text(json.dumps(dropped, indent=2) + "\n")
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


@torch.no_grad()
def _encode(clip: Clip, representation: MotionRepresentation) -> Float[Tensor, "T D"]:
    features = representation.encode(clip.motion) if clip.motion is not None else clip.features
    assert features is not None, f"{clip.id} has neither motion nor features"
    if features.ndim != 2 or features.shape[1] != representation.dim:
        raise ValueError(f"clip {clip.id}: features {tuple(features.shape)}, expected (T, {representation.dim})")
    if not torch.isfinite(features).all():
        raise ValueError(
            f"clip {clip.id}: {type(representation).__name__} gives NaN or Inf for it; repair the clip or leave it out"
        )
    return features.float().contiguous()


def _items(
    clip: Clip, frames: int, source: MotionSource, fps: float, dropped: dict[str, list[str]]
) -> list[tuple[str, list[str], int, int]]:
    """(id, captions, first row, rows) of the items a clip gives, the clip first; adds the rest to ``dropped``."""
    items = []
    whole = [caption.text for caption in clip.captions if caption.start == caption.end == 0]
    if whole:
        items.append((clip.id, whole, 0, frames))
    else:
        dropped["clips without a caption for the whole clip"].append(clip.id)
    for line, caption in enumerate(clip.captions):
        if caption.start == caption.end == 0:
            continue
        name = f"{clip.id}__sub{line}"
        start, stop = int(caption.start * fps), min(int(caption.end * fps), frames)  # as the field rounds
        if reason := _reason(stop - start, *source.limits(clip.id)):
            dropped[f"sub-clips {reason}"].append(name)
        else:
            items.append((name, [caption.text], start, stop - start))
    return items


def _reason(frames: int, min_frames: int, max_frames: int | None) -> str:
    if frames < min_frames:
        return f"too short (under {min_frames} rows)"
    if max_frames is not None and frames >= max_frames:
        return f"too long ({max_frames} rows or more)"
    return ""


class _ShardWriter:
    """Appends clips to files of about ``SHARD_BYTES``; only the last one is open."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.rows: list[int] = []
        self._folder, self._limit = folder, max(SHARD_BYTES // (4 * dim), 1)
        self._file: Any = None

    def append(self, features: Float[Tensor, "T D"]) -> tuple[int, int]:
        """Shard and row the clip begins at."""
        if not self.rows or self.rows[-1] + len(features) > self._limit:
            self.close()
            self._file = (self._folder / f"features-{len(self.rows):05d}.f32").open("wb")
            self.rows.append(0)
        row = self.rows[-1]
        self._file.write(features.numpy().tobytes())
        self.rows[-1] += len(features)
        return len(self.rows) - 1, row

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
