import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from lmm.motion import HUMANML3D_22, Motion
from lmm.motion.representations import HumanML3DFeatures, JointPositions
from lmm.motion.representations.humanml3d import canonicalize, retarget
from lmm.motion.rotations import axis_angle_to_matrix

OFFICIAL = ["humanml3d_012314", "humanml3d_fork_haytham918"]


def body(frames: int = 60, batch: tuple[int, ...] = (), seed: int = 0) -> torch.Tensor:
    """A body that walks along an arc and moves all its joints smoothly."""
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(frames) / 20
    phase, speed = (torch.rand(*batch, 1, 22, 3, generator=g) * 6 for _ in range(2))
    angles = 0.3 * torch.sin(time[:, None, None] * speed + phase)
    angles[..., 0, :] = angles[..., 0, :] * 0.2
    angles[..., 0, 1] = angles[..., 0, 1] + 0.8 * time
    root = torch.stack([time.sin(), 0.9 + 0.02 * (5 * time).sin(), 1.2 * time], -1).expand(*batch, frames, 3)
    return HUMANML3D_22.forward_kinematics(axis_angle_to_matrix(angles), root)


def motion(joints: torch.Tensor) -> Motion:
    return Motion(joints, 20.0, HUMANML3D_22)


@pytest.mark.parametrize("folder", OFFICIAL)
def test_official_vectors_both_ways(shared_data, folder):
    files = sorted((shared_data / "parity" / folder).glob("new_joint_vecs_*.npy"))
    assert files
    representation = HumanML3DFeatures(uniform_skeleton=False)
    # tolerances of the data's README; the last 80 rows lack the frame that the official smoothing saw
    tolerance = dict(root_yaw_velocity=8e-4, root_height=2.3e-4, velocities=6.5e-3, positions=1.1e-2, rotations=3.2e-2)
    for file in files:
        vectors = torch.from_numpy(np.load(file))
        joints = torch.from_numpy(np.load(str(file).replace("joint_vecs", "joints")))
        assert (representation.to_joints(vectors) - joints).abs().max() < 1e-6
        error = (representation.encode(motion(joints)) - vectors[:-1]).abs()
        for block, s in representation.slices.items():
            assert error[:, s].max() <= tolerance.get(block, 2.5e-3), (file.name, block)
            assert error[:-80, s].max() <= 1e-5, (file.name, block)
        assert torch.equal(
            representation.encode(motion(joints))[:, representation.slices["contacts"]], vectors[:-1, -4:]
        )


def reference_encoding(joints: np.ndarray) -> np.ndarray:
    """The published procedure written again, frame by frame, with scipy's rotations."""
    raw = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0]]
                   + [[0, -1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1]]
                   + [[0, -1, 0]] * 6, dtype=float)  # fmt: skip
    chains = [[0, 2, 5, 8, 11], [0, 1, 4, 7, 10], [0, 3, 6, 9, 12, 15], [9, 14, 17, 19, 21], [9, 13, 16, 18, 20]]

    def arc(u, v):
        q = np.append(np.cross(u, v), math.sqrt((u @ u) * (v @ v)) + u @ v)
        return Rotation.from_quat(q)

    across = joints[:, 1] - joints[:, 2] + joints[:, 17] - joints[:, 16]
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    forward = gaussian_filter1d(np.cross([[0, 1, 0]], across), 20, axis=0, mode="nearest")
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    facing = [Rotation.identity()] + [arc(f, np.array([0.0, 0, 1])) for f in forward[1:]]
    rows = []
    for t in range(len(joints) - 1):
        here, velocity = facing[t], joints[t + 1] - joints[t]
        local = joints[t] - joints[t, 0] * [1, 0, 1]
        rotations = np.zeros((22, 6))
        for chain in chains:
            parent = here
            for a, b in pairwise(chain):
                bone = joints[t, b] - joints[t, a]
                own = parent.inv() * arc(raw[b], bone / np.linalg.norm(bone))
                rotations[b] = own.as_matrix()[:, :2].T.reshape(-1)
                parent = parent * own
        turn = (facing[t + 1] * here.inv()).as_quat()
        still = (velocity[[7, 10, 8, 11]] ** 2).sum(-1) < 0.002
        root_velocity = facing[t + 1].apply(velocity[0])
        row = [[math.asin(turn[1] * np.sign(turn[3]))], root_velocity[[0, 2]], [joints[t, 0, 1]]]
        row += [here.apply(local)[1:].ravel(), rotations[1:].ravel(), here.apply(velocity).ravel(), still]
        rows.append(np.concatenate(row))
    return np.stack(rows)


def test_encoding_equals_an_independent_one():
    joints = canonicalize(body(90).double())
    mine = HumanML3DFeatures(uniform_skeleton=False).double().encode(motion(joints))
    np.testing.assert_allclose(mine.numpy(), reference_encoding(joints.numpy()), atol=1e-6)


@pytest.mark.parametrize("representation", [HumanML3DFeatures(uniform_skeleton=False), JointPositions()])
def test_round_trip_batched(representation):
    joints = canonicalize(body(60, (2, 3)))
    features = representation.encode(motion(joints))
    assert features.shape == (2, 3, features.shape[2], representation.dim)
    back = representation.to_joints(features)
    assert (back - joints[..., : back.shape[-3], :, :]).abs().max() < 1e-4
    assert torch.allclose(features[1, 2], representation.encode(motion(joints[1, 2])), atol=1e-5)


@pytest.mark.parametrize("representation", [HumanML3DFeatures(), JointPositions()])
def test_parts_are_a_partition_and_blocks_sum_up(representation):
    columns = sum((representation.columns(part) for part in representation.parts), [])
    assert sorted(columns) == list(range(representation.dim))
    with pytest.raises(ValueError, match="no part 'tail'"):
        representation.columns("tail")


def test_left_arm_columns_follow_the_left_arm():
    representation = HumanML3DFeatures(uniform_skeleton=False)
    joints = canonicalize(body(50))
    moved = joints.clone()
    moved[1:, [18, 20]] += torch.tensor([0.0, 0.05, 0.1])
    changed = (representation.encode(motion(joints)) - representation.encode(motion(moved))).abs().amax(0) > 1e-6
    assert set(changed.nonzero().flatten().tolist()) <= set(representation.columns("left_arm"))
    assert changed.sum() > 10


def test_retarget_sets_lengths_and_keeps_directions():
    joints = body(30) * 1.3
    out = retarget(joints, HUMANML3D_22.rest)
    parents = torch.tensor(HUMANML3D_22.parents[1:])
    bones, before = out[:, 1:] - out[:, parents], joints[:, 1:] - joints[:, parents]
    assert torch.allclose(bones.norm(dim=-1), HUMANML3D_22.rest[1:].norm(dim=-1).expand(30, 21), atol=1e-5)
    assert torch.allclose(
        torch.nn.functional.normalize(bones, dim=-1), torch.nn.functional.normalize(before, dim=-1), atol=1e-5
    )
    assert torch.allclose(out, joints / 1.3, atol=1e-4)


def test_encoding_does_not_depend_on_place_or_heading():
    joints, representation = body(50), HumanML3DFeatures()
    turned = joints @ axis_angle_to_matrix(torch.tensor([0.0, 2.0, 0.0])).T + torch.tensor([3.0, 1.0, -2.0])
    a, b = representation.encode(motion(joints)), representation.encode(motion(turned))
    assert torch.allclose(a, b, atol=5e-4)


def test_gradients_flow():
    joints = canonicalize(body(30)).requires_grad_()
    representation = HumanML3DFeatures()
    representation.to_joints(representation.encode(motion(joints))).square().sum().backward()
    assert torch.isfinite(joints.grad).all()


def test_statistics_are_checked():
    representation = JointPositions()
    assert not representation.has_statistics
    with pytest.raises(ValueError, match="shape"):
        representation.set_statistics(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        representation.set_statistics(torch.full((66,), torch.nan), torch.ones(66))
    with pytest.raises(ValueError, match="not positive"):
        representation.set_statistics(torch.zeros(66), torch.zeros(66))
    representation.set_statistics(torch.ones(66), torch.full((66,), 2.0))
    x = torch.randn(4, 66)
    assert torch.allclose(representation.denormalize(representation.normalize(x)), x, atol=1e-6)


def test_wrong_motions_are_refused():
    with pytest.raises(ValueError, match="20 fps"):
        HumanML3DFeatures().encode(Motion(body(10), 30.0, HUMANML3D_22))
    with pytest.raises(ValueError, match="2 frames"):
        HumanML3DFeatures().encode(motion(body(1)))
    with pytest.raises(ValueError, match="NaN"):
        motion(torch.full((5, 22, 3), torch.nan))
    with pytest.raises(ValueError, match="22, 3"):
        motion(torch.zeros(5, 21, 3))
