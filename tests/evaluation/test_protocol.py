"""Draws of the protocol: what they cover, how often, and that they depend on nothing else."""

import math

import numpy as np
import pytest

from lmm.evaluation.protocol import Protocol, draw_pass, interval

LENGTHS = np.array([40 + i % 160 for i in range(330)])
OPTIONS = {"lengths": LENGTHS, "num_captions": [1 + i % 4 for i in range(330)], "unit": 4, "max_frames": 196}


def test_a_standard_pass_draws_order_captions_and_crops():
    looks = [draw_pass(Protocol(), repeat, **OPTIONS) for repeat in range(20)]
    whole = np.minimum(LENGTHS, 196) // 4 * 4
    for look in looks:
        assert len(look.order) == 320 and len(set(look.order.tolist())) == 320
        assert (look.frames % 4 == 0).all() and (whole - look.frames <= 4).all() and (look.frames <= whole).all()
        assert (look.starts >= 0).all() and (look.starts + look.frames <= LENGTHS).all()
        assert (look.captions < OPTIONS["num_captions"]).all()
    shorter = np.mean([look.frames < whole for look in looks])
    assert abs(shorter - 1 / 3) < 0.02  # the coin ('single', 'single', 'double')
    drawn = np.stack([look.captions for look in looks])[:, np.array(OPTIONS["num_captions"]) == 4]
    assert np.abs(np.bincount(drawn.ravel(), minlength=4) / drawn.size - 0.25).max() < 0.04
    ends = np.stack([look.starts + look.frames == LENGTHS for look in looks])
    assert ends.any(0).mean() > 0.95  # the last frame is within reach
    assert (looks[0].order != looks[1].order).any() and (looks[0].starts != looks[1].starts).any()
    again = draw_pass(Protocol(), 7, **OPTIONS)
    assert all((a == b).all() for a, b in zip(again, looks[7], strict=True))
    other = draw_pass(Protocol(seed=1), 7, **OPTIONS)
    assert (other.order != again.order).any()


def test_a_deterministic_pass_draws_nothing():
    look = draw_pass(Protocol("deterministic", 1), 0, **OPTIONS)
    assert (look.order == np.arange(320)).all() and not look.captions.any() and not look.starts.any()
    assert (look.frames == np.minimum(LENGTHS, 196) // 4 * 4).all()


def test_intervals_are_the_field_s():
    values = [0.1, 0.2, 0.4]
    mean, width = interval(values)
    assert mean == pytest.approx(0.7 / 3)
    assert width == pytest.approx(1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / 3) / math.sqrt(3))
    assert math.isnan(interval([1.0])[1])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"lengths": LENGTHS[:31], "num_captions": [1] * 31}, "31 clips; the figures need"),
        ({"lengths": np.array([3] * 40), "num_captions": [1] * 40}, "3 frames, the evaluator needs 4"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        draw_pass(Protocol(), 0, **(OPTIONS | wrong))


@pytest.mark.parametrize("arguments", [("loose", 20), ("standard", 0), ("deterministic", 2)])
def test_there_are_two_protocols(arguments):
    with pytest.raises(ValueError):
        Protocol(*arguments)
