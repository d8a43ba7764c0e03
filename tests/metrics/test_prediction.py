import math

import pytest
import torch

from lmm.metrics.length import LengthError
from lmm.metrics.prediction import DisplacementErrors, displacement

NOISE = torch.Generator().manual_seed(0)


def test_by_hand():
    target = torch.zeros(2, 5, 22, 3)
    prediction = target.clone()
    prediction[0, 2, 0, 0], prediction[0, 3, :, 1], prediction[0, 4] = 0.3, 0.1, math.nan  # the last is padding
    prediction[1, 1, 4] = torch.tensor([0.0, 3.0, 4.0])  # given: does not count
    prediction[1, 2:, 7, 2] = torch.tensor([1.0, 2.0, 6.0])
    missing = torch.tensor([[False, False, True, True, False], [False, False, True, True, True]])
    found = displacement(prediction, target, missing)
    assert found.ade.tolist() == pytest.approx([(0.3 + 0.1 * math.sqrt(22)) / 2, 3.0])
    assert found.fde.tolist() == pytest.approx([0.1 * math.sqrt(22), 6.0])
    metric = DisplacementErrors()
    metric.update(prediction, target, missing)
    figures = metric.compute()
    assert float(figures["ade_m"]) == pytest.approx(float(found.ade.mean()), rel=1e-6)
    assert float(figures["fde_m"]) == pytest.approx(float(found.fde.mean()), rel=1e-6)


def test_in_between_ends_with_the_missing_stretch():
    target = torch.zeros(8, 22, 3)
    prediction = torch.arange(8.0)[:, None, None] * torch.tensor([1.0, 0, 0]) * torch.ones(8, 22, 1)
    missing = torch.arange(8).float().sub(3.5).abs() < 2  # 2, 3, 4, 5
    found = displacement(prediction, target, missing)
    assert float(found.fde) == pytest.approx(5 * math.sqrt(22)) and float(found.ade) == pytest.approx(
        3.5 * math.sqrt(22)
    )


def test_best_of_several_predictions():
    target, missing = torch.randn(3, 6, 4, 3, generator=NOISE), torch.ones(3, 6, dtype=torch.bool)
    samples = target + torch.randn(5, 3, 6, 4, 3, generator=NOISE)
    found = displacement(samples, target, missing)
    each = torch.stack([displacement(sample, target, missing).ade for sample in samples])
    assert found.ade.shape == found.fde.shape == (5, 3) and torch.equal(found.ade.amin(0), each.amin(0))


def test_every_clip_counts_alike_and_batches_add_up():
    target = torch.zeros(4, 9, 22, 3)
    prediction = torch.randn(4, 9, 22, 3, generator=NOISE)
    missing = torch.arange(9) < torch.tensor([9, 1, 4, 6])[:, None]
    whole, ranks = DisplacementErrors(), [DisplacementErrors() for _ in range(2)]
    whole.update(prediction, target, missing)
    for rank, rows in zip(ranks, (slice(0, 1), slice(1, 4)), strict=True):
        rank.update(prediction[rows], target[rows], missing[rows])
    ranks[0].merge_state(ranks[1])
    expected = [
        float(prediction[i, : int(m.sum())].double().flatten(1).norm(dim=1).mean()) for i, m in enumerate(missing)
    ]
    for metric in (whole, ranks[0]):
        assert float(metric.compute()["ade_m"]) == pytest.approx(sum(expected) / 4, rel=1e-6)
    assert math.isnan(float(DisplacementErrors().compute()["ade_m"]))


def test_nothing_missing():
    with pytest.raises(ValueError, match="nothing is missing of 1 clips"):
        displacement(torch.zeros(2, 3, 4, 3), torch.zeros(2, 3, 4, 3), torch.tensor([[True] * 3, [False] * 3]))


def test_length_error_and_its_sign():
    metric, other = LengthError(20.0), LengthError(20.0)
    metric.update(torch.tensor([40, 60]), torch.tensor([60, 60]))
    other.update(torch.tensor([196]), torch.tensor([186]))
    metric.merge_state(other)
    figures = metric.compute()
    assert float(figures["length_error_s"]) == pytest.approx((1 + 0 + 0.5) / 3)
    assert float(figures["length_bias_s"]) == pytest.approx((-1 + 0 + 0.5) / 3)
    assert math.isnan(float(LengthError(20.0).compute()["length_error_s"]))
