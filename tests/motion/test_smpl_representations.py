from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lmm.motion import HUMANML3D_22, Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.motionstreamer import MotionStreamer272
from lmm.motion.representations.smpl import SMPLD130, SMPLD135, SMPLD263, SMPLD268, heading, yaw_matrix
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.transforms import rotate

ALL = [SMPLD130, SMPLD135, SMPLD263, SMPLD268, MotionStreamer272]
EXACT = [SMPLD135, SMPLD263, SMPLD268, MotionStreamer272]  # all that keep the root's pitch and roll


def body(representation: MotionRepresentation, batch: tuple[int, ...] = (), tilt: float = 0.4, seed: int = 0) -> Motion:
    """40 frames of a body that moves all joints, leans by ``tilt`` radians each way and spins half a radian a frame."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(40) / 20
    phase, speed = (6 * torch.rand(*batch, 1, 22, 3, generator=generator) for _ in range(2))
    angles = 0.5 * torch.sin(time[:, None, None] * speed + phase)
    angles[..., 0, :] = angles[..., 0, :] * angles.new_tensor([2 * tilt, 0, 2 * tilt])
    rotations = axis_angle_to_matrix(angles)
    rotations[..., 0, :, :] = yaw_matrix(10 * time) @ rotations[..., 0, :, :]
    root = torch.stack([time.sin(), 0.9 + 0.1 * (5 * time).sin(), 1.2 * time], -1).expand(*batch, 40, 3)
    joints = HUMANML3D_22.forward_kinematics(rotations, root)
    return Motion(joints, representation.fps, HUMANML3D_22, rotations)


def first_frame(representation: MotionRepresentation, motion: Motion) -> Motion:
    """The motion where the representation puts it; written without the package's own transforms."""
    root = motion.rotations[..., 0, 0, :, :]
    if isinstance(representation, MotionStreamer272):
        angle = torch.atan2(root[..., 0, 2], root[..., 2, 2])
    else:
        angle = torch.atan2(root[..., 0, 2] - root[..., 2, 0], root[..., 0, 0] + root[..., 2, 2])
    back = axis_angle_to_matrix(torch.stack([0 * angle, -angle, 0 * angle], -1))
    origin = motion.joints[..., :1, :1, :].clone()
    origin[..., 1] = motion.joints[..., 1].amin(dim=(-1, -2))[..., None, None]
    rotations = motion.rotations.clone()
    rotations[..., 0, :, :] = back[..., None, :, :] @ rotations[..., 0, :, :]
    joints = (motion.joints - origin) @ back[..., None, :, :].transpose(-1, -2)
    return Motion(joints, motion.fps, motion.skeleton, rotations)


def geodesic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    chord = (a.double() - b.double()).square().sum((-1, -2)).sqrt()
    return 2 * (chord / 8**0.5).clamp(max=1).asin()


def assert_same(a: Motion, b: Motion) -> None:
    assert (a.joints - b.joints).norm(dim=-1).max() < 1e-4
    assert geodesic(a.rotations, b.rotations).max() < 1e-4


@pytest.mark.parametrize("cls", EXACT)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_round_trip(cls, batch):
    representation = cls()
    motion = body(representation, batch)
    features = representation.encode(motion)
    assert features.shape == (*batch, 40, representation.dim)
    back = representation.decode(features)
    assert back.fps == motion.fps
    assert_same(back, first_frame(representation, motion))
    if batch:
        alone = replace(motion, joints=motion.joints[1, 2], rotations=motion.rotations[1, 2])
        torch.testing.assert_close(features[1, 2], representation.encode(alone), atol=1e-5, rtol=0)


def test_d130_keeps_all_but_the_roots_lean():
    representation = SMPLD130()
    upright = body(representation, tilt=0.0)
    assert_same(representation.decode(representation.encode(upright)), first_frame(representation, upright))

    leaning = body(representation, tilt=0.4)
    expected = first_frame(representation, leaning)
    back = representation.decode(representation.encode(leaning))
    assert geodesic(back.rotations, expected.rotations)[:, 1:].max() < 1e-4
    assert (back.joints - expected.joints)[:, 0].norm(dim=-1).max() < 1e-4
    torch.testing.assert_close(back.rotations[:, 0, :, 1], torch.tensor([0.0, 1.0, 0.0]).expand(40, 3))
    assert geodesic(back.rotations, expected.rotations)[:, 0].max() > 0.3  # what is lost, is lost


@pytest.mark.parametrize("fps", [20.0, 30.0, 120.0])
def test_long_fast_and_at_other_frame_rates(fps):
    frames = 2000
    turn = 3.0 * torch.arange(frames).double()  # nearly half a turn in a frame
    rotations = torch.eye(3, dtype=torch.float64).repeat(frames, 22, 1, 1)
    rotations[:, 0] = yaw_matrix(turn)
    root = torch.stack([turn.cos(), torch.ones(frames).double(), 0.02 * turn], -1)
    joints = HUMANML3D_22.forward_kinematics(rotations, root)
    motion = Motion(joints.float(), fps, HUMANML3D_22, rotations.float())
    for cls in (SMPLD130, SMPLD135, SMPLD263, SMPLD268):
        representation = cls(fps)
        back, expected = representation.decode(representation.encode(motion)), first_frame(representation, motion)
        assert back.fps == fps
        assert (back.joints - expected.joints).norm(dim=-1).max() < 1e-3, cls


@pytest.mark.parametrize("fps", [20.0, 60.0])
def test_contacts_mean_the_same_speed_at_every_frame_rate(fps):
    speed = torch.linspace(0, 2, 50)  # metres per second, of a stiff body that is pulled along
    root = torch.stack([0 * speed, 0 * speed + 1, speed.cumsum(0) / fps], -1)
    rotations = torch.eye(3).expand(50, 22, 3, 3)
    motion = Motion(HUMANML3D_22.forward_kinematics(rotations, root), fps, HUMANML3D_22, rotations)
    representation = SMPLD268(fps)
    contacts = representation.encode(motion)[:-1, representation.slices["contacts"]]
    assert torch.equal(contacts.bool(), (speed[1:, None] < 0.8944).expand(-1, 4))


def reference(motion: Motion) -> dict[str, np.ndarray]:
    """Every block of the four layouts, frame by frame with scipy's rotations, for rows 0 to T-2."""
    joints, matrices = motion.joints.double().numpy(), motion.rotations.double().numpy()
    yaw = [Rotation.from_matrix(m).as_quat() for m in matrices[:, 0]]  # the twist about y of swing and twist
    yaw = [Rotation.from_quat([0, q[1], 0, q[3]]) for q in yaw]
    rows: dict[str, list[np.ndarray]] = {}
    for t in range(len(joints) - 1):
        inverse, step = yaw[t].inv(), joints[t + 1] - joints[t]
        local = inverse.apply(joints[t] - joints[t, 0] * [1, 0, 1])
        for name, value in {
            "root_rotation": matrices[t, 0, :, :2].T,
            "world_velocity": step[0, [0, 2]],
            "root_height": joints[t, 0, 1],
            "root_yaw_velocity": (yaw[t + 1] * inverse).as_rotvec()[1],
            "heading_velocity": inverse.apply(step[0])[[0, 2]],
            "rotations": matrices[t, 1:, :, :2].swapaxes(-1, -2),
            "positions": local[1:],
            "velocities": inverse.apply(step),
            "contacts": (step[[7, 10, 8, 11]] ** 2).sum(-1) < 0.002,
        }.items():
            rows.setdefault(name, []).append(np.ravel(value).astype(float))
    return {name: np.stack(row) for name, row in rows.items()}


@pytest.mark.parametrize("cls", [SMPLD130, SMPLD135, SMPLD263, SMPLD268])
def test_blocks_equal_an_independent_encoding(cls):
    representation = cls()
    motion = body(representation)
    features = representation.encode(motion)
    expected = reference(first_frame(representation, motion))
    expected["root_velocity"] = expected["world_velocity" if cls in (SMPLD135, SMPLD268) else "heading_velocity"]
    for name, s in representation.slices.items():
        np.testing.assert_allclose(features[:-1, s].numpy(), expected[name], atol=2e-5, err_msg=name)
    velocity = representation.slices["root_velocity"]
    if cls in (SMPLD135, SMPLD268):
        torch.testing.assert_close(features[-1, velocity], features[-2, velocity])


def test_motionstreamer_equals_the_published_sample(shared_data):
    folder = shared_data / "parity" / "motionstreamer_272"
    published = torch.from_numpy(np.load(folder / "rep272_000000.npy")).float()
    joints = torch.from_numpy(np.load(folder / "joints55_facez_000000.npy"))[:, :22]
    smpl = torch.from_numpy(np.load(folder / "smpl85_facez_000000.npy"))
    motion = Motion(joints, 30.0, HUMANML3D_22, axis_angle_to_matrix(smpl[:, :66].reshape(-1, 22, 3)))
    representation = MotionStreamer272()
    assert (representation.encode(motion) - published).abs().max() < 1e-6
    back, expected = representation.decode(published), first_frame(representation, motion)
    assert (back.joints - expected.joints).abs().max() < 1e-6
    assert geodesic(back.rotations, expected.rotations).max() < 2e-6


def test_motionstreamers_published_deviations_are_one_number_a_block(shared_data):
    std = torch.from_numpy(np.load(shared_data / "parity" / "motionstreamer_272" / "Std272.npy"))
    torch.testing.assert_close(MotionStreamer272().segment_std(std), std)


@pytest.mark.parametrize(("cls", "dim"), zip(ALL, [130, 135, 263, 268, 272], strict=True))
def test_parts_are_a_partition_and_the_left_arm_owns_its_columns(cls, dim):
    representation = cls()
    assert representation.dim == dim
    assert sorted(sum((representation.columns(part) for part in representation.parts), [])) == list(range(dim))
    motion = body(representation)
    bent = motion.rotations.clone()
    bent[:, [16, 18]] = bent[:, [16, 18]] @ axis_angle_to_matrix(torch.tensor([0.0, 0.1, 0.1]))
    moved = Motion(HUMANML3D_22.forward_kinematics(bent, motion.joints[:, 0]), motion.fps, HUMANML3D_22, bent)
    changed = (representation.encode(motion) - representation.encode(moved)).abs().amax(0) > 1e-5
    assert set(changed.nonzero().flatten().tolist()) <= set(representation.columns("left_arm"))
    assert changed.sum() > 10


@pytest.mark.parametrize("cls", ALL)
def test_encoding_does_not_depend_on_place_or_heading(cls):
    representation = cls()
    motion = body(representation)
    turned = rotate(motion, yaw_matrix(torch.tensor(2.0)))
    turned = replace(turned, joints=turned.joints + torch.tensor([3.0, 1.0, -2.0]))
    torch.testing.assert_close(representation.encode(motion), representation.encode(turned), atol=2e-5, rtol=0)


@pytest.mark.parametrize("cls", ALL)
def test_gradients_are_finite_and_padding_decodes(cls):
    representation = cls()
    motion = body(representation, (2,))
    joints, rotations = motion.joints.clone().requires_grad_(), motion.rotations.clone().requires_grad_()
    features = representation.encode(Motion(joints, motion.fps, HUMANML3D_22, rotations))
    features.retain_grad()
    representation.to_joints(features).square().sum().backward()
    for leaf in (joints, rotations, features):
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0
    padding = torch.zeros(1, 5, representation.dim, requires_grad=True)  # what a tokenizer's decoder leaves there
    representation.to_joints(padding).sum().backward()
    assert torch.isfinite(padding.grad).all()


def test_a_root_head_down_has_no_heading_and_finite_gradients():
    down = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0])).round().requires_grad_()
    angle = heading(down)
    angle.backward()
    assert angle == 0
    assert torch.isfinite(down.grad).all()


@settings(max_examples=30, deadline=None)
@given(vector=st.tuples(*[st.floats(-3, 3)] * 3))
def test_heading_is_the_nearest_yaw(vector):
    rotation = axis_angle_to_matrix(torch.tensor(vector, dtype=torch.float64))
    every = yaw_matrix(torch.linspace(-torch.pi, torch.pi, 721, dtype=torch.float64))
    assert geodesic(yaw_matrix(heading(rotation)), rotation) <= geodesic(every, rotation).min() + 1e-9


@pytest.mark.parametrize("cls", ALL)
def test_positions_alone_are_refused_unless_the_fit_is_asked_for(cls):
    motion = replace(body(cls(), tilt=0.0), rotations=None)
    with pytest.raises(ValueError, match="give fit_rotations=True"):
        cls().encode(motion)
    representation = cls(fit_rotations=True)
    assert "fit_rotations=True" in representation.settings
    back = representation.decode(representation.encode(motion))
    bones = [torch.cdist(joints[:, 1:], joints[:, 1:]) for joints in (back.joints, motion.joints)]
    torch.testing.assert_close(*bones, atol=1e-4, rtol=0)  # the same poses, wherever they stand


@pytest.mark.parametrize("cls", [SMPLD130, SMPLD135, SMPLD263, SMPLD268])
def test_uniform_skeleton_is_one_body_for_all(cls):
    motion = body(cls())
    giant = replace(HUMANML3D_22, offsets=tuple((2 * x, 2 * y, 2 * z) for x, y, z in HUMANML3D_22.offsets))
    larger = replace(motion, joints=2 * motion.joints, skeleton=giant)
    torch.testing.assert_close(cls().encode(larger), cls().encode(motion), atol=1e-5, rtol=0)
    own = cls(uniform_skeleton=False)
    torch.testing.assert_close(
        own.encode(larger)[:, own.slices["root_height"]], 2 * own.encode(motion)[:, own.slices["root_height"]]
    )
    torch.testing.assert_close(own.encode(motion), cls().encode(motion), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", ALL)
def test_wrong_motions_are_refused(cls):
    representation = cls()
    motion = body(representation)
    with pytest.raises(ValueError, match="fps"):
        representation.encode(replace(motion, fps=25.0))
    with pytest.raises(ValueError, match="NaN"):
        representation.encode(replace(motion, rotations=motion.rotations * torch.nan))
    names = tuple(f"joint_{j}" for j in range(22))
    with pytest.raises(ValueError, match="needs the joints"):
        representation.encode(replace(motion, skeleton=replace(HUMANML3D_22, names=names)))


def test_what_has_no_velocity_or_frame_rate_is_refused():
    motion = body(SMPLD135())
    with pytest.raises(ValueError, match="2 frames"):
        SMPLD135().encode(replace(motion, joints=motion.joints[:1], rotations=motion.rotations[:1]))
    with pytest.raises(ValueError, match="positive"):
        SMPLD135(0.0)
