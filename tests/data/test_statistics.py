"""Streamed statistics against numpy."""

import numpy as np
import torch

from lmm.data.statistics import RunningStatistics
from tests.data.test_humanml3d import Flat


def test_streaming_equals_numpy_also_far_from_zero():
    rows = np.random.default_rng(0).normal(1000.0, 0.01, size=(500, 66))
    statistics = RunningStatistics(66)
    for part in np.split(rows, [1, 7, 300]):
        statistics.update(torch.from_numpy(part))
    mean, std = statistics.result(Flat())
    deviation = rows.std(axis=0)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(std[:3], deviation[:3].mean(), rtol=1e-6)
    np.testing.assert_allclose(std[3:], deviation[3:].mean(), rtol=1e-6)


def test_a_block_that_never_moves_normalizes_to_zero():
    rows = torch.randn(50, 66)
    rows[:, :3] = 0.25
    statistics = RunningStatistics(66)
    statistics.update(rows)
    representation = Flat()
    representation.set_statistics(*statistics.result(representation))
    assert (representation.normalize(rows)[:, :3] == 0).all()
