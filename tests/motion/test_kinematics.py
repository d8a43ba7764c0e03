import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmm.motion import HUMANML3D_22, Skeleton
from lmm.motion.kinematics import fit_rotations, local_translations, world_rotations
from lmm.motion.rotations import axis_angle_to_matrix

FEW = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**31)


def random_skeleton(generator: torch.Generator, joints: int) -> Skeleton:
    parents = [-1] + [int(torch.randint(0, j, (1,), generator=generator)) for j in range(1, joints)]
    offsets = torch.randn(joints, 3, generator=generator).double()
    parts = {"all": tuple(range(joints))}
    return Skeleton(tuple(map(str, range(joints))), tuple(parents), tuple(map(tuple, offsets.tolist())), parts)


def random_pose(generator: torch.Generator, frames: int, joints: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations of any angle up to ``size`` and root positions, float64."""
    angles = size * torch.randn(frames, joints, 3, generator=generator).double()
    return axis_angle_to_matrix(angles), torch.randn(frames, 3, generator=generator).double()


def geodesic_degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    chord = (a.double() - b.double()).square().sum((-1, -2)).sqrt()
    return torch.rad2deg(2 * (chord / 8**0.5).clamp(max=1).asin())


def assert_rotations(matrices: torch.Tensor) -> None:
    eye = torch.eye(3).to(matrices).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.transpose(-1, -2), eye, atol=1e-6, rtol=0)
    assert (torch.linalg.det(matrices) > 0).all()


@FEW
@given(seed=seeds, joints=st.integers(2, 12))
def test_forward_kinematics_is_a_chain_of_homogeneous_transforms(seed, joints):
    generator = torch.Generator().manual_seed(seed)
    skeleton = random_skeleton(generator, joints)
    rotations, root = random_pose(generator, 2, joints, 2.0)
    mine = skeleton.forward_kinematics(rotations, root)
    for frame in range(2):
        chain: list[np.ndarray] = []
        for joint, parent in enumerate(skeleton.parents):
            step = np.eye(4)
            step[:3, :3] = rotations[frame, joint].numpy()
            step[:3, 3] = skeleton.offsets[joint] if joint else root[frame].numpy()
            chain.append(chain[parent] @ step if joint else step)
        expected = np.stack([transform[:3, 3] for transform in chain])
        # offsets are kept as float32
        np.testing.assert_allclose(mine[frame].numpy(), expected, atol=1e-5)
        world = np.stack([transform[:3, :3] for transform in chain])
        np.testing.assert_allclose(world_rotations(rotations, skeleton)[frame].numpy(), world, atol=1e-12)


@FEW
@given(seed=seeds, joints=st.integers(2, 12))
def test_local_translations_undo_forward_kinematics(seed, joints):
    generator = torch.Generator().manual_seed(seed)
    skeleton = random_skeleton(generator, joints)
    rotations, root = random_pose(generator, 3, joints, 2.0)
    places = local_translations(skeleton.forward_kinematics(rotations, root), rotations, skeleton)
    torch.testing.assert_close(places[:, 0], root)
    torch.testing.assert_close(places[:, 1:], skeleton.rest[1:].double().expand(3, -1, 3), atol=1e-5, rtol=0)


@FEW
@given(seed=seeds, size=st.floats(0, 1.5), stretch=st.floats(0.5, 2))
def test_fitted_rotations_give_any_rigid_body_back(seed, size, stretch):
    generator = torch.Generator().manual_seed(seed)
    rotations, root = random_pose(generator, 10, 22, size)
    body = stretch * HUMANML3D_22.rest.double() + 0.02 * torch.randn(22, 3, generator=generator).double()
    joints = HUMANML3D_22.forward_kinematics(rotations, root, offsets=body)
    fitted, offsets = fit_rotations(joints, HUMANML3D_22)
    assert_rotations(fitted)
    back = HUMANML3D_22.forward_kinematics(fitted, root, offsets=offsets)
    assert (back - joints).norm(dim=-1).max() < 1e-5


@FEW
@given(seed=seeds, angles=st.tuples(*[st.floats(-3, 3)] * 3))
def test_turning_the_world_turns_only_the_root(seed, angles):
    generator = torch.Generator().manual_seed(seed)
    rotations, root = random_pose(generator, 10, 22, 0.4)
    joints = HUMANML3D_22.forward_kinematics(rotations, root)
    turn = axis_angle_to_matrix(torch.tensor(angles, dtype=torch.float64))
    still, _ = fit_rotations(joints, HUMANML3D_22)
    turned, _ = fit_rotations(joints @ turn.T, HUMANML3D_22)
    assert geodesic_degrees(turned[:, 0], turn @ still[:, 0]).max() < 1e-3
    assert geodesic_degrees(turned[:, 1:], still[:, 1:]).max() < 1e-3


def test_a_body_at_rest_has_no_rotations():
    rest = HUMANML3D_22.forward_kinematics(torch.eye(3).expand(4, 22, 3, 3), torch.zeros(4, 3))
    rotations, offsets = fit_rotations(rest, HUMANML3D_22)
    assert geodesic_degrees(rotations, torch.eye(3).expand(4, 22, 3, 3)).max() < 1e-3
    torch.testing.assert_close(offsets, HUMANML3D_22.rest, atol=1e-6, rtol=0)


def test_the_fit_has_finite_gradients():
    rotations, root = random_pose(torch.Generator().manual_seed(0), 10, 22, 0.5)
    joints = HUMANML3D_22.forward_kinematics(rotations, root).requires_grad_()
    fitted, offsets = fit_rotations(joints, HUMANML3D_22)
    weights = torch.randn(fitted.shape, generator=torch.Generator().manual_seed(1)).double()
    ((fitted * weights).sum() + offsets.square().sum()).backward()
    assert torch.isfinite(joints.grad).all()
    assert joints.grad.abs().max() > 0


@pytest.mark.parametrize(("own_body", "degrees"), [(False, 15.6), (True, 8.5)])
def test_the_fit_is_as_near_to_smpl_as_documented(shared_data, own_body, degrees):
    folder = shared_data / "parity" / "motionstreamer_272"
    joints = torch.from_numpy(np.load(folder / "joints55_facez_000000.npy"))[:, :22]
    smpl = torch.from_numpy(np.load(folder / "smpl85_facez_000000.npy"))[:, :66].reshape(-1, 22, 3)
    truth = axis_angle_to_matrix(smpl)
    skeleton = HUMANML3D_22
    if own_body:
        rest = local_translations(joints, truth, skeleton).mean(0)
        rest[0] = 0
        skeleton = Skeleton(skeleton.names, skeleton.parents, tuple(map(tuple, rest.tolist())), skeleton.parts)
    fitted, offsets = fit_rotations(joints, skeleton)
    back = skeleton.forward_kinematics(fitted, joints[:, 0], offsets=offsets)
    assert (back - joints).norm(dim=-1).max() < 1e-5
    assert geodesic_degrees(fitted, truth).mean() == pytest.approx(degrees, abs=0.1)
