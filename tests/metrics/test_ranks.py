"""Two gloo ranks, one of which may have been given nothing, and one process come to the same figures."""

import os
import time

import pytest
import torch
import torch.multiprocessing

from lmm.metrics.diversity import Diversity, MultiModality
from lmm.metrics.frechet import FrechetDistance
from lmm.metrics.length import LengthError
from lmm.metrics.matching import MatchingScore
from lmm.metrics.prediction import DisplacementErrors

COUNT, DIM = 130, 8


def figures(rows):
    """All figures of these rows of the data, one by one in batches of 24, in a sampler's order."""
    noise = torch.Generator().manual_seed(0)
    texts = torch.randn(COUNT, DIM, generator=noise)
    motions = texts + torch.randn(COUNT, DIM, generator=noise)
    many = torch.randn(COUNT, 12, DIM, generator=noise)
    joints = torch.randn(2, COUNT, 6, 4, 3, generator=noise)
    lengths = torch.randint(40, 196, (2, COUNT), generator=noise)
    metrics = [
        MatchingScore(DIM), Diversity(DIM, pairs=100), FrechetDistance(DIM), MultiModality(generations=12),
        DisplacementErrors(), LengthError(20.0),
    ]  # fmt: skip
    matching, diversity, frechet, multimodality, displacement, length = metrics
    for batch in rows.split(24) if len(rows) else ():
        matching.update(texts[batch], motions[batch], batch)
        diversity.update(motions[batch], batch)
        frechet.update(texts[batch], real=True)
        frechet.update(motions[batch], real=False)
        multimodality.update(many[batch])
        displacement.update(joints[0, batch], joints[1, batch], torch.ones(len(batch), 6, dtype=torch.bool))
        length.update(lengths[0, batch], lengths[1, batch])
    return [metric.compute() for metric in metrics]


def work(rank, shares, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29547"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(figures(shares[rank]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shares", ["interleaved", "uneven", "empty"])
def test_two_ranks_are_one(shares, tmp_path):
    everything = torch.arange(COUNT)
    split = {
        "interleaved": (everything[::2], everything[1::2].flip(0)),
        "uneven": (everything[100:], everything[:100]),
        "empty": (everything, everything[:0]),
    }[shares]
    context = torch.multiprocessing.start_processes(work, (split, tmp_path), nprocs=2, join=False, start_method="fork")
    deadline = time.monotonic() + 60
    while not context.join(timeout=1):
        assert time.monotonic() < deadline, "the ranks wait for each other"
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = figures(everything)
    for one, other, whole in zip(a, b, alone, strict=True):
        names = whole if isinstance(whole, dict) else [""]
        for name in names:
            x, y, z = (float(figure[name] if name else figure) for figure in (one, other, whole))
            assert x == y and x == pytest.approx(z, rel=1e-6), name
    assert torch.equal(a[0]["r_precision_1"], alone[0]["r_precision_1"]) and torch.equal(a[1], alone[1])
