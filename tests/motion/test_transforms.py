import math
from dataclasses import replace

import pytest
import torch

from lmm.motion.kinematics import fit_rotations
from lmm.motion.motion import Motion
from lmm.motion.representations.humanml3d import canonicalize, retarget
from lmm.motion.rotations import axis_angle_to_matrix, matrix_to_quaternion, quaternion_slerp
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import (
    crop,
    face_forward,
    mirror,
    put_on_floor,
    resample,
    rotate,
    select,
    to_uniform_skeleton,
)

LEGS = Skeleton(
    names=("pelvis", "left_hip", "right_hip", "left_knee", "right_knee"),
    parents=(-1, 0, 0, 1, 2),
    offsets=((0.0, 0.0, 0.0), (0.1, -0.1, 0.0), (-0.1, -0.1, 0.0), (0.0, -0.4, 0.0), (0.0, -0.4, 0.0)),
    parts={"body": (0, 1, 2, 3, 4)},
)


def posed(
    frames: int = 40, fps: float = 20.0, batch: tuple[int, ...] = (), skeleton: Skeleton = HUMANML3D_22
) -> Motion:
    """A smooth motion with rotations, in double precision."""
    torch.manual_seed(0)
    time = torch.linspace(0, 2, frames, dtype=torch.float64)[:, None, None]
    amplitude = torch.rand(*batch, 1, skeleton.num_joints, 3, dtype=torch.float64)
    rotations = axis_angle_to_matrix(amplitude * torch.sin(time + torch.arange(skeleton.num_joints)[:, None]))
    root = torch.cat([time[..., 0], 1 + 0 * time[..., 0], time[..., 0] ** 2], dim=-1).expand(*batch, frames, 3)
    return Motion(skeleton.forward_kinematics(rotations, root), fps, skeleton, rotations)


def consistent(motion: Motion) -> None:
    joints = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[..., 0, :])
    torch.testing.assert_close(joints, motion.joints, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fps", [10.0, 20.0, 30.0, 12.5, 59.94])
def test_resampled_frames_lie_at_their_times_and_keep_the_body(fps):
    motion = posed()
    out = resample(motion, fps)
    assert (out.fps, out.num_frames) == (fps, math.floor((39 / 20) * fps + 1e-6) + 1)
    consistent(out)
    # The root moves on t and t²: both are exact, the second but for the first and last interval.
    time = torch.arange(out.num_frames, dtype=torch.float64) / fps / (39 / 20) * 2
    torch.testing.assert_close(out.joints[:, 0, 0], time, atol=1e-6, rtol=0)
    inner = (time >= 2 / 39) & (time <= 2 - 2 / 39)
    torch.testing.assert_close(out.joints[inner, 0, 2], time[inner] ** 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.joints[:, 0, 2], time**2, atol=(2 / 39) ** 2 / 4, rtol=0)
    positions = resample(replace(motion, rotations=None), fps)
    assert positions.rotations is None
    torch.testing.assert_close(positions.joints, out.joints, atol=3e-3, rtol=0)


def test_resampling_misses_little_of_a_smooth_motion():
    """A motion posed at 90 frames against the same one posed at 30: the spline is far nearer than a line."""
    fine, coarse = posed(frames=178, fps=90.0), posed(frames=60, fps=30.0)
    torch.testing.assert_close(fine.joints[::3], coarse.joints)
    out = resample(coarse, 90.0)
    error = (out.joints - fine.joints).norm(dim=-1)
    linear = torch.lerp(coarse.joints[:-1], coarse.joints[1:], 1 / 3) - fine.joints[1::3]
    assert error[3:-3].max() < linear.norm(dim=-1).max() / 5  # the ends are only as good as linear


def test_every_second_frame_is_taken_as_it_is():
    motion = posed()
    assert torch.equal(resample(motion, 10.0).joints, motion.joints[::2])
    assert torch.equal(resample(motion, 10.0).rotations, motion.rotations[::2])


def test_bones_of_positions_keep_their_length():
    motion = replace(posed(), rotations=None)
    out = resample(motion, 33.0)
    for clip in (motion, out):
        bones = (clip.joints[:, 1:] - clip.joints[:, list(HUMANML3D_22.parents[1:])]).norm(dim=-1)
        torch.testing.assert_close(
            bones, HUMANML3D_22.rest[1:].norm(dim=-1).double().expand_as(bones), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e9, 0.9, 1001.0])
def test_absurd_frame_rates_are_refused(fps):
    with pytest.raises(ValueError, match="frame rate"):
        resample(posed(), fps)


def test_absurd_results_name_the_rate_they_come_from():
    motion = Motion(torch.zeros(1000, 22, 3), 1.0, HUMANML3D_22)
    with pytest.raises(ValueError, match=r"1000 frames at 1 fps would become 999001 at 1000 fps; .*that of the source"):
        resample(motion, 1000.0)


def test_one_frame_stays_one_frame():
    assert resample(crop(posed(), 0, 1), 30.0).num_frames == 1


def test_slerp_goes_the_short_way_at_constant_speed():
    angle = torch.tensor([[0.0, 0.0, 1.2]])
    ends = [matrix_to_quaternion(axis_angle_to_matrix(k * angle)) for k in (0, 1)]
    for part in (0.0, 0.25, 0.5, 1.0):
        expected = matrix_to_quaternion(axis_angle_to_matrix(part * angle))
        for sign in (1, -1):  # q and -q are one rotation
            torch.testing.assert_close(quaternion_slerp(ends[0], sign * ends[1], torch.tensor([[part]])), expected)


def test_crop():
    motion = posed()
    assert torch.equal(crop(motion, 3, 7).joints, motion.joints[3:7])
    assert torch.equal(crop(motion, 3, 7).rotations, motion.rotations[3:7])
    with pytest.raises(ValueError, match="do not exist"):
        crop(motion, 3, 41)


@pytest.mark.parametrize("skeleton", [HUMANML3D_22, LEGS])
def test_mirror_swaps_the_sides_and_is_its_own_inverse(skeleton):
    motion = posed(skeleton=skeleton, batch=(2,))
    out = mirror(motion)
    left, right = skeleton.index("left_knee"), skeleton.index("right_knee")
    torch.testing.assert_close(out.joints[..., left, :], motion.joints[..., right, :] * torch.tensor([-1.0, 1, 1]))
    consistent(out)
    twice = mirror(out)
    assert torch.equal(twice.joints, motion.joints) and torch.equal(twice.rotations, motion.rotations)


def test_a_skeleton_without_sides_is_not_mirrored():
    tail = Skeleton(("a", "b"), (-1, 0), ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)), {"body": (0, 1)})
    with pytest.raises(ValueError, match="left_"):
        mirror(Motion(torch.zeros(2, 2, 3), 20.0, tail))


def test_select_composes_the_rotations_of_what_it_leaves_out():
    motion = posed()
    fewer = Skeleton(("pelvis", "left_knee", "left_foot"), (-1, 0, 1), ((0.0, 0.0, 0.0),) * 3, {"body": (0, 1, 2)})
    out = select(motion, fewer)
    torch.testing.assert_close(out.joints, motion.joints[:, [0, 4, 10]])
    world = motion.rotations[:, 0] @ motion.rotations[:, 1] @ motion.rotations[:, 4]
    torch.testing.assert_close(out.rotations[:, 0] @ out.rotations[:, 1], world)
    torch.testing.assert_close(torch.tensor(out.skeleton.offsets[2]), torch.tensor([0.0, -0.45, 0.13]))
    assert select(motion, HUMANML3D_22) is motion
    with pytest.raises(ValueError, match="has no tail"):
        select(motion, Skeleton(("pelvis", "tail"), (-1, 0), ((0.0, 0.0, 0.0),) * 2, {"body": (0, 1)}))


def test_rotate_turns_joints_and_root_alike():
    motion = posed(batch=(2,))
    turn = axis_angle_to_matrix(torch.tensor([[0.3, 1.0, -2.0], [0.0, 0.5, 0.0]], dtype=torch.float64))
    out = rotate(motion, turn)
    torch.testing.assert_close(out.joints[1, 5, 7], turn[1] @ motion.joints[1, 5, 7])
    consistent(out)
    with pytest.raises(ValueError, match="not a rotation"):
        rotate(motion, torch.diag(torch.tensor([-1.0, 1.0, 1.0])))


def test_placing_agrees_with_the_features_canonical_form():
    motion = rotate(posed(batch=(3,)), axis_angle_to_matrix(torch.tensor([0.0, 2.5, 0.0], dtype=torch.float64)))
    out = face_forward(put_on_floor(motion))
    torch.testing.assert_close(out.joints, canonicalize(motion.joints), atol=1e-6, rtol=0)
    consistent(out)
    side = torch.zeros(1, 22, 3)
    side[:, [2, 17], 1] = 1.0
    with pytest.raises(ValueError, match="faces nowhere"):
        face_forward(Motion(side, 20.0, HUMANML3D_22))


def test_the_uniform_skeleton_is_that_of_the_features():
    short = replace(HUMANML3D_22, offsets=tuple((0.8 * x, 0.8 * y, 0.8 * z) for x, y, z in HUMANML3D_22.offsets))
    motion = posed(skeleton=short)
    out = to_uniform_skeleton(motion)
    consistent(out)
    expected = retarget(motion.joints, HUMANML3D_22.rest)
    torch.testing.assert_close(out.joints, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(to_uniform_skeleton(replace(motion, rotations=None)).joints, expected, atol=1e-6, rtol=0)


def test_gradients_reach_the_joints_through_resampling():
    motion = posed(frames=6)
    joints = motion.joints.clone().requires_grad_()
    rotations, _ = fit_rotations(motion.joints, HUMANML3D_22)
    resample(Motion(joints, 20.0, HUMANML3D_22, rotations), 30.0).joints.square().sum().backward()
    assert torch.isfinite(joints.grad).all() and joints.grad.abs().sum() > 0
