import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from lmm.metrics.reconstruction import FIGURES, ReconstructionErrors, acceleration_errors, procrustes, table

NOISE = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=NOISE, dtype=torch.float64)


def errors(prediction, target, mask=None):
    metric = ReconstructionErrors()
    metric.update(prediction, target, torch.ones(target.shape[:-2], dtype=torch.bool) if mask is None else mask)
    return {name: float(value) for name, value in metric.compute().items()}


def turned(joints, angles=(30.0, 50.0, -70.0), scale=1.0, step=(0.0, 0.0, 0.0)):
    rotation = torch.tensor(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    return scale * joints @ rotation.T + torch.tensor(step, dtype=torch.float64)


def test_one_frame_of_four_is_off_by_a_decimetre():
    target = random(2, 3, 22, 3)
    prediction = target.clone()
    prediction[0, 0, :, 0] += 0.1
    prediction[1, 2, 5, 1] = 99.0  # not a real frame
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = errors(prediction, target, mask)
    assert found["mpjpe_mm"] == pytest.approx(100 / 4)
    assert found["mpjpe_root_mm"] == pytest.approx(0, abs=1e-9)
    assert found["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-9)
    assert found["accel_mm_frame2"] == pytest.approx(100)  # the only frame between two real ones: 0.1 - 2·0 + 0


def test_pa_mpjpe_forgives_turn_scale_and_place_but_no_reflection():
    target = random(4, 22, 3)
    found = errors(turned(target, scale=1.3, step=(5.0, -2.0, 1.0)), target)
    assert found["mpjpe_mm"] > 1000 and found["mpjpe_root_mm"] > 100
    assert found["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-6)
    assert errors(target * torch.tensor([-1.0, 1.0, 1.0]), target)["pa_mpjpe_mm"] > 100


@pytest.mark.parametrize("mirror", [1.0, -1.0])  # -1: the best orthogonal map is a reflection, which is not allowed
def test_procrustes_is_kabsch_with_the_best_scale(mirror):
    target = random(50, 22, 3)
    prediction = turned(target, scale=0.7) * torch.tensor([mirror, 1.0, 1.0]) + 0.3 * random(50, 22, 3)
    for p, t, found in zip(prediction, target, procrustes(prediction, target), strict=True):
        x, y = (p - p.mean(0)).numpy(), (t - t.mean(0)).numpy()
        x = Rotation.align_vectors(y, x)[0].apply(x)
        expected = torch.tensor((x * y).sum() / (x * x).sum() * x) + t.mean(0)
        assert torch.allclose(found, expected, atol=1e-6)
        assert (found - t).square().sum() <= (p - t).square().sum()


@pytest.mark.parametrize(("prediction", "target"), [("point", "body"), ("body", "point"), ("line", "body"),
                                                    ("body", "line"), ("plane", "plane"), ("line", "line"),
                                                    ("point", "point")])  # fmt: skip
def test_procrustes_of_flat_frames_is_finite_and_no_worse_than_moving(prediction, target):
    shapes = {"body": (1, 1, 1), "plane": (1, 0, 1), "line": (0, 1, 0), "point": (0, 0, 0)}
    p, t = (random(3, 22, 3) * torch.tensor(shapes[name]) + random(3, 1, 3) for name in (prediction, target))
    found = procrustes(p, t)
    centred = (p - p.mean(-2, keepdim=True), t - t.mean(-2, keepdim=True))
    assert torch.isfinite(found).all()
    assert ((found - t).square().sum() <= (centred[0] - centred[1]).square().sum() + 1e-12).all()
    if "point" in (prediction, target):
        assert torch.allclose(found, t.mean(-2, keepdim=True).expand_as(t))


def test_acceleration_error_of_a_parabola():
    time = torch.arange(10.0).double()[:, None, None]
    target = random(1, 22, 3) + time * random(1, 22, 3)  # no acceleration, another speed and place
    direction = torch.tensor([0.6, 0.0, 0.8])
    found = acceleration_errors(0.003 * time**2 * direction + random(1, 22, 3), target)
    assert found.shape == (8,)
    assert torch.allclose(found, torch.full((8,), 0.006, dtype=torch.float64))
    still, plain = target.expand(10, 22, 3).clone(), errors(target + 0.003 * time**2 * direction, target)
    assert plain["accel_mm_frame2"] == pytest.approx(6) and errors(still, target)["accel_mm_frame2"] == pytest.approx(0)


def test_acceleration_error_is_the_difference_of_vectors_not_of_norms():
    sway = 0.01 * (-1.0) ** torch.arange(9).double()[:, None, None] * torch.tensor([1.0, 0.0, 0.0]).double()
    target = torch.zeros(9, 22, 3).double() + sway
    assert errors(-target, target)["accel_mm_frame2"] == pytest.approx(80)  # both accelerate by 40 mm, in opposition


@pytest.mark.parametrize("beyond", [99.0, math.nan])
def test_what_lies_outside_the_mask_does_not_count(beyond):
    prediction, target = random(4, 12, 22, 3), random(4, 12, 22, 3)
    mask = torch.arange(12) < torch.tensor([12, 7, 2, 0])[:, None]
    mask[1, 3] = False  # a hole is no place for a second difference either
    found = errors(torch.where(mask[..., None, None], prediction, beyond), target, mask)
    p, t = prediction[mask], target[mask]
    assert found["mpjpe_mm"] == pytest.approx(1000 * float((p - t).norm(dim=-1).mean()))
    assert found["pa_mpjpe_mm"] == pytest.approx(1000 * float((procrustes(p, t) - t).norm(dim=-1).mean()))
    runs = [
        (prediction[row, part], target[row, part]) for row, part in ((0, slice(12)), (1, slice(3)), (1, slice(4, 7)))
    ]
    second = torch.cat([acceleration_errors(p, t) for p, t in runs])
    assert len(second) == 12 and found["accel_mm_frame2"] == pytest.approx(1000 * float(second.mean()))


def test_two_halves_make_a_whole_and_so_do_two_ranks():
    prediction, target = random(6, 9, 22, 3), random(6, 9, 22, 3)
    mask = torch.arange(9) < torch.tensor([9, 4, 2, 9, 1, 7])[:, None]
    whole, halves, ranks = ReconstructionErrors(), ReconstructionErrors(), [ReconstructionErrors() for _ in range(2)]
    whole.update(prediction, target, mask)
    for part, rank in ((slice(0, 2), ranks[0]), (slice(2, 6), ranks[1])):
        for metric in (halves, rank):
            metric.update(prediction[part], target[part], mask[part])
    ranks[0].merge_state(ranks[1])
    for name in FIGURES:
        assert float(halves.compute()[name]) == pytest.approx(float(whole.compute()[name]), rel=1e-6), name
        assert float(ranks[0].compute()[name]) == pytest.approx(float(whole.compute()[name]), rel=1e-6), name


def test_nothing_to_count_is_no_number():
    assert all(math.isnan(value) for value in ReconstructionErrors().compute().values())
    short = errors(random(1, 2, 22, 3), random(1, 2, 22, 3))
    assert math.isnan(short["accel_mm_frame2"]) and short["mpjpe_mm"] > 0


def test_the_table_has_every_row_once_and_fits_a_terminal():
    names = (*FIGURES, "skating_ratio", "jitter_m_s3", "acceleration_m_s2")
    figures = {name: torch.tensor(1234.5678) for name in names}
    figures |= {f"real_{name}": torch.tensor(7.0) for name in names[len(FIGURES) :]}
    figures |= {f"codebook_{name}{stream}": torch.tensor(0.25) for name in ("usage", "perplexity")
                for stream in ("", "/left_arm", "/right_leg/level0")}  # fmt: skip
    lines = table("test", figures, ["left_arm", "right_leg/level0"]).splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert text.count("MPJPE (mm)") == 2 and text.count("1235") == 7  # plain and PA
    assert [line.split()[-1] for line in lines if "1235" in line] == ["-"] * 4 + ["7"] * 3
    assert [line.split()[0] for line in lines if "25.00 %" in line] == ["all", "left_arm", "right_leg/level0"]
    assert "left_arm" not in table("test", figures, ["left_arm"])
