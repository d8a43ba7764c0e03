"""Several samples in one row, so that little of a batch is padding.

Motions last between one and ten seconds: padded to the longest, up to half of a batch is nothing, and padded to a fixed
length far more. `pack` puts samples behind one another, the longest first, each into the first row that has room (first
fit decreasing: at most 11/9 of the fewest rows possible, plus one)::

    ids        a a a a a b b b | c c c d d d . .        segments   1 1 1 1 1 2 2 2 | 1 1 1 2 2 2 0 0
                                                        positions  0 1 2 3 4 0 1 2 | 0 1 2 0 1 2 0 0

`MotionLLM.nll` sees to it that no sample looks at another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmm.llm.prompts import Sample


class PackedBatch(NamedTuple):
    """Rows of samples behind one another; padding is id 0 in segment 0.

    ``segments`` number the samples of a row from 1 on, ``positions`` count each sample's ids from 0 on, ``weights`` are
    of each id in the loss, and ``labels`` are the ids to be predicted where ``labelled``: ``ids`` themselves unless a
    sample says otherwise.
    """

    ids: Int[Tensor, "B S"]
    labelled: Bool[Tensor, "B S"]
    positions: Int[Tensor, "B S"]
    segments: Int[Tensor, "B S"]
    weights: Float[Tensor, "B S"]
    labels: Int[Tensor, "B S"]

    @property
    def padding(self) -> float:
        """Share of the batch that is padding."""
        return float((self.segments == 0).float().mean())


def pack(samples: Sequence[Sample], length: int) -> PackedBatch:
    """Samples in as few rows as first fit decreasing finds; the same samples always give the same rows.

    Args:
        samples: at least one.
        length: most ids of a row; a batch is as wide as its fullest row.

    Raises:
        ValueError: no samples, or one that is longer than a row.
    """
    if not samples:
        raise ValueError("there are no samples to pack")
    longest = max(len(sample.ids) for sample in samples)
    if longest > length:
        raise ValueError(
            f"a sample has {longest} ids and a row takes {length}; pack into longer rows (up to the language model's "
            "context), or limit the clips' length"
        )
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.ids)):
        row = next((i for i, left in enumerate(room) if len(sample.ids) <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(sample)
        room[row] -= len(sample.ids)
    return _lay_out(rows)


def pad(samples: Sequence[Sample]) -> PackedBatch:
    """Every sample in a row of its own, in their order."""
    return _lay_out([[sample] for sample in samples])


def _lay_out(rows: list[list[Sample]]) -> PackedBatch:
    shape = (len(rows), max(sum(len(sample.ids) for sample in row) for row in rows))
    batch = PackedBatch(
        ids=torch.zeros(shape, dtype=torch.int64),
        labelled=torch.zeros(shape, dtype=torch.bool),
        positions=torch.zeros(shape, dtype=torch.int64),
        segments=torch.zeros(shape, dtype=torch.int64),
        weights=torch.zeros(shape),
        labels=torch.zeros(shape, dtype=torch.int64),
    )
    for i, row_samples in enumerate(rows):
        start = 0
        for number, sample in enumerate(row_samples, start=1):
            here = slice(start, start + len(sample.ids))
            batch.ids[i, here] = sample.ids
            batch.labelled[i, here] = sample.labelled
            batch.positions[i, here] = torch.arange(len(sample.ids))
            batch.segments[i, here] = number
            batch.weights[i, here] = sample.weight
            batch.labels[i, here] = sample.ids if sample.labels is None else sample.labels
            start = here.stop
    return batch
