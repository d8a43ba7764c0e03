import dataclasses
import math

import numpy as np
import pytest
import torch

from lmm.metrics.physics import FIGURES, Physics, feet, physics
from lmm.motion.skeleton import HUMANML3D_22

FEET = [HUMANML3D_22.index("left_foot"), HUMANML3D_22.index("right_foot")]


def standing(frames, height=0.0):
    """The rest pose with its lowest joint at a height."""
    rest = HUMANML3D_22.forward_kinematics(torch.eye(3).expand(22, 3, 3), torch.zeros(3))
    rest[:, 1] += height - rest[:, 1].min()
    return rest.expand(frames, 22, 3).clone()


def moving(path, fps=20.0, height=0.0):
    """The rest pose carried along a path: a function of the time in seconds that returns (T, 3)."""
    time = torch.arange(round(4 * fps) + 1).double() / fps
    return standing(len(time), height).double() + path(time)[:, None]


def along_x(distance):
    return torch.stack([distance, torch.zeros_like(distance), torch.zeros_like(distance)], dim=-1)


def figures(joints, fps=20.0, **more):
    found = physics(joints, torch.ones(joints.shape[:-2], dtype=torch.bool), skeleton=HUMANML3D_22, fps=fps, **more)
    return {name: float(value) for name, value in found.items()}


def test_standing_still_is_perfect():
    found = figures(standing(30))
    assert list(found) == list(FIGURES)
    assert all(value == pytest.approx(0, abs=1e-4) for value in found.values()), found


@pytest.mark.parametrize("fps", [12.5, 20.0, 30.0, 60.0, 120.0])
def test_sliding_at_known_speed(fps):
    slow, fast = (figures(moving(lambda time, v=v: along_x(v * time), fps), fps) for v in (0.4, 5.0))
    assert slow["skating_m_s"] == pytest.approx(0.4, rel=1e-4)
    assert fast["skating_m_s"] == pytest.approx(5, rel=1e-4)
    assert slow["skating_ratio"] == 0 and fast["skating_ratio"] == 1
    assert fast["jitter_m_s3"] == pytest.approx(0, abs=0.01)  # constant speed has no derivatives
    assert figures(moving(lambda time: along_x(5 * time), fps, height=0.06), fps)["skating_ratio"] == 0


@pytest.mark.parametrize("fps", [30.0, 60.0, 120.0])
def test_a_slide_of_one_second_is_a_quarter_at_any_fps(fps):
    def path(time):
        return along_x(3 * (time - 1).clamp(0, 1))  # 1 of 4 seconds; 3 m/s, so that the window's ends do not matter

    assert figures(moving(path, fps), fps)["skating_ratio"] == pytest.approx(0.25, abs=0.01)
    assert figures(moving(path, fps), fps)["skating_m_s"] == pytest.approx(0.75, rel=1e-3)


def test_skating_ratio_is_the_published_one():
    """Against the definition written out in NumPy for 20 fps (a zero-padded mean over 5 steps)."""
    generator = torch.Generator().manual_seed(0)
    joints = standing(80)[None].repeat(6, 1, 1, 1)
    wander = torch.randn(6, 80, 2, 3, generator=generator) * torch.tensor([0.02, 0.01, 0.02])
    joints[:, :, FEET] += wander.cumsum(1)
    expected = []
    for clip in joints.numpy()[:, :, FEET]:
        speed = np.linalg.norm(np.diff(clip[..., [0, 2]], axis=0), axis=-1) * 20
        average = np.stack([np.convolve(s, np.ones(5) / 5, mode="same") for s in speed.T], axis=-1)
        contact = (clip[:-1, :, 1] < 0.05) & (clip[1:, :, 1] < 0.05)
        expected.append((contact & (speed > 0.5) & (average > 0.5)).any(-1).mean())
    found = physics(joints, torch.ones(6, 80, dtype=torch.bool), skeleton=HUMANML3D_22, fps=20.0)["skating_ratio"]
    assert 0.1 < np.mean(expected) < 0.9
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("floor", [0.0, -0.3])
def test_floating_and_penetration(floor):
    joints = torch.cat([standing(10, floor + 0.2), standing(20, floor), standing(10, floor - 0.01)])
    found = figures(joints, floor=floor)
    assert found["floating_ratio"] == 10 / 40 and found["penetration_ratio"] == 10 / 40
    assert found["floating_cm"] == pytest.approx(20 / 4, rel=1e-4)
    assert found["penetration_mm"] == pytest.approx(10 / 4, rel=1e-4)


@pytest.mark.parametrize("fps", [20.0, 120.0])
def test_derivatives_of_a_polynomial(fps):
    cubic = figures(moving(lambda time: along_x(2 * time**3), fps), fps)
    square = figures(moving(lambda time: along_x(2 * time**2), fps), fps)
    assert cubic["jitter_m_s3"] == pytest.approx(12, rel=1e-3)
    assert square["acceleration_m_s2"] == pytest.approx(4, rel=1e-3)
    assert square["jitter_m_s3"] == pytest.approx(0, abs=1e-3)


def test_a_stretching_bone():
    joints = standing(40)
    joints[::2, 20] += torch.tensor([0.02, 0.0, 0.0])  # one of 21 bones alternates between two lengths, 20 mm apart
    assert figures(joints)["bone_length_std_mm"] == pytest.approx(10 / 21, rel=1e-3)


def noisy(clips, frames):
    generator = torch.Generator().manual_seed(1)
    return standing(frames, 0.01) + 0.03 * torch.randn(clips, frames, 22, 3, generator=generator)


@pytest.mark.parametrize("beyond", [99.0, math.nan])
def test_what_lies_outside_the_mask_does_not_count(beyond):
    joints, lengths = noisy(5, 24), [24, 17, 5, 1, 0]
    mask = torch.arange(24) < torch.tensor(lengths)[:, None]
    padded = torch.where(mask[..., None, None], joints, beyond)
    together = physics(padded, mask, skeleton=HUMANML3D_22, fps=20.0)
    for clip, length in enumerate(lengths):
        alone = figures(joints[clip, :length])
        for name in FIGURES:
            assert float(together[name][clip]) == pytest.approx(alone[name], rel=1e-6, nan_ok=True), (name, length)
    middle = torch.zeros(24, dtype=torch.bool)
    middle[6:15] = True
    found = physics(torch.where(middle[:, None, None], joints[0], beyond), middle, skeleton=HUMANML3D_22, fps=20.0)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(figures(joints[0, 6:15]))
    assert math.isnan(together["jitter_m_s3"][3]) and not math.isnan(together["floating_cm"][3])


def test_two_halves_make_a_whole():
    joints = noisy(6, 30)
    mask = torch.arange(30) < torch.tensor([30, 9, 20, 30, 2, 12])[:, None]
    whole, halves, per_clip = Physics(HUMANML3D_22, 20.0), Physics(HUMANML3D_22, 20.0), Physics(HUMANML3D_22, 20.0)
    whole.update(joints, mask)
    for part in (slice(0, 2), slice(2, 6)):
        halves.update(joints[part], mask[part])
    for name, value in whole.compute().items():
        assert float(halves.compute()[name]) == pytest.approx(float(value), rel=1e-6), name
    per_clip.update(joints[0], mask[0])
    assert {name: float(value) for name, value in per_clip.compute().items()} == pytest.approx(figures(joints[0]))


def test_feet_are_found_by_name():
    assert feet(HUMANML3D_22) == FEET == [10, 11]
    named = [name.replace("foot", "toes") for name in HUMANML3D_22.names]
    assert feet(dataclasses.replace(HUMANML3D_22, names=tuple(named))) == FEET
    nameless = dataclasses.replace(HUMANML3D_22, names=tuple(f"joint{j}" for j in range(22)))
    with pytest.raises(ValueError, match=r"has no left_toe or .* rename its joints"):
        Physics(nameless, 20.0)
