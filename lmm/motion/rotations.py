"""Rotations as quaternions, matrices and 6-D vectors; every function is batched over leading dimensions.

Quaternions are (w, x, y, z). The 6-D form (Zhou et al. 2019) is the first two *columns* of the rotation matrix,
column 0 then column 1, as HumanML3D stores it.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def quaternion_between(u: Float[Tensor, "*N 3"], v: Float[Tensor, "*M 3"]) -> Float[Tensor, "*K 4"]:
    """Shortest-arc rotation that takes the direction of ``u`` to the direction of ``v``.

    For exactly opposite directions the axis is any perpendicular to ``u``.
    """
    u, v = torch.broadcast_tensors(u, v)
    w = (u.square().sum(-1) * v.square().sum(-1)).sqrt() + (u * v).sum(-1)
    q = torch.cat([w[..., None], torch.linalg.cross(u, v)], dim=-1)
    norm = q.norm(dim=-1, keepdim=True)
    smallest = torch.nn.functional.one_hot(u.abs().argmin(-1), 3).to(u)  # an axis that is never parallel to u
    half_turn = torch.linalg.cross(u, smallest)
    half_turn = torch.cat([torch.zeros_like(w)[..., None], half_turn], dim=-1)
    half_turn = half_turn / half_turn.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
    return torch.where(norm > 1e-8, q / norm.clamp_min(1e-8), half_turn)


def quaternion_to_matrix(q: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Rotation matrices of unit quaternions."""
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(m: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 4"]:
    """Unit quaternions (w >= 0) of rotation matrices, by the best conditioned of the four classical formulas."""
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    square = torch.stack([m00 + m11 + m22, m00 - m11 - m22, m11 - m00 - m22, m22 - m00 - m11], dim=-1) + 1
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    candidates = torch.stack(
        [
            torch.stack([square[..., 0], a, b, c], dim=-1),
            torch.stack([a, square[..., 1], d, e], dim=-1),
            torch.stack([b, d, square[..., 2], f], dim=-1),
            torch.stack([c, e, f, square[..., 3]], dim=-1),
        ],
        dim=-2,
    )
    best = square.argmax(-1)[..., None, None].expand(*square.shape[:-1], 1, 4)
    q = candidates.gather(-2, best).squeeze(-2)
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def quaternion_slerp(
    a: Float[Tensor, "*N 4"], b: Float[Tensor, "*N 4"], part: Float[Tensor, "*M 1"]
) -> Float[Tensor, "*K 4"]:
    """The rotation ``part`` (0 to 1) of the shortest way from unit quaternion a to b (Shoemake 1985)."""
    dot = (a * b).sum(-1, keepdim=True)
    b, dot = torch.where(dot < 0, -b, b), dot.abs()
    angle = dot.clamp(max=1.0).acos()
    sine = angle.sin()
    near = sine < 1e-4  # the two are one to rounding: the straight line is the arc
    safe = torch.where(near, torch.ones_like(sine), sine)
    first = torch.where(near, 1 - part, ((1 - part) * angle).sin() / safe)
    second = torch.where(near, part, (part * angle).sin() / safe)
    return torch.nn.functional.normalize(first * a + second * b, dim=-1)


def matrix_to_rotation_6d(m: Float[Tensor, "*N 3 3"]) -> Float[Tensor, "*N 6"]:
    """First two columns of the matrix, one after the other."""
    return m[..., :2].transpose(-1, -2).flatten(-2)


def rotation_6d_to_matrix(r: Float[Tensor, "*N 6"]) -> Float[Tensor, "*N 3 3"]:
    """Gram-Schmidt of the two stored columns (Zhou et al. 2019, eq. 15)."""
    a, b = r[..., :3], r[..., 3:]
    x = torch.nn.functional.normalize(a, dim=-1)
    y = torch.nn.functional.normalize(b - (x * b).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def axis_angle_to_matrix(r: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle in radians)."""
    half = r.norm(dim=-1, keepdim=True) / 2
    return quaternion_to_matrix(torch.cat([half.cos(), r / 2 * torch.sinc(half / torch.pi)], dim=-1))
