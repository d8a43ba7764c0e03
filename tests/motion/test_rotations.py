import numpy as np
import torch
from scipy.spatial.transform import Rotation

from lmm.motion import rotations as R

G = torch.Generator().manual_seed(0)


def quaternions(n: int = 50) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 4, generator=G, dtype=torch.float64), dim=-1)


def scipy_of(q: torch.Tensor) -> Rotation:
    return Rotation.from_quat(q[:, [1, 2, 3, 0]].numpy())


def test_against_scipy():
    a, v = quaternions(), torch.randn(50, 3, generator=G, dtype=torch.float64)
    np.testing.assert_allclose(R.quaternion_to_matrix(a), scipy_of(a).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(R.axis_angle_to_matrix(v), Rotation.from_rotvec(v.numpy()).as_matrix(), atol=1e-12)


def test_round_trips():
    q = quaternions()
    m = R.quaternion_to_matrix(q)
    assert torch.allclose(R.quaternion_to_matrix(R.matrix_to_quaternion(m)), m, atol=1e-12)
    assert torch.allclose(R.rotation_6d_to_matrix(R.matrix_to_rotation_6d(m)), m, atol=1e-12)
    assert torch.equal(R.matrix_to_rotation_6d(m)[:, :3], m[:, :, 0])  # column 0 first


def test_shortest_arc_also_for_opposite_directions():
    u, v = torch.randn(2, 50, 3, generator=G, dtype=torch.float64)
    u[:3] = torch.eye(3, dtype=torch.float64)
    v[:3] = -u[:3]
    turned = (R.quaternion_to_matrix(R.quaternion_between(u, v)) @ u[..., None]).squeeze(-1)
    assert torch.allclose(
        torch.nn.functional.normalize(turned, dim=-1), torch.nn.functional.normalize(v, dim=-1), atol=1e-7
    )


def test_zero_rotation_vector():
    assert torch.allclose(R.axis_angle_to_matrix(torch.zeros(3)), torch.eye(3))
