"""Joints as rows "J 3 B T": the layout in which features are computed.

Frames come last, so that every operation runs over contiguous memory, a clip's joints are selected by copying whole
rows, and what belongs to a frame (a facing direction, an angle) applies to all joints by broadcasting.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmm.motion.skeleton import Skeleton

TINY = 1e-10  # metres; its cube, which gradients contain, is still a float32


def to_rows(joints: Float[Tensor, "B T J 3"]) -> Float[Tensor, "J 3 B T"]:
    """Joints as rows; ``rows.permute(2, 3, 0, 1)`` is the way back."""
    batch, frames, num_joints, _ = joints.shape
    return joints.reshape(batch * frames, -1).t().contiguous().view(num_joints, 3, batch, frames)


def bones_of(rows: Float[Tensor, "J 3 B T"], parents: Int[Tensor, " j"]) -> Float[Tensor, "j 3 B T"]:
    """Vectors from parent to joint, for joints 1 on."""
    return rows[1:] - rows.index_select(0, parents.to(rows.device))


def lengths_of(bones: Float[Tensor, "j 3 B T"]) -> Float[Tensor, "j B T"]:
    """Lengths of bones."""
    return square_of(bones, 1).sqrt()


def ancestors(skeleton: Skeleton) -> Int[Tensor, "R J"]:
    """For every joint the ones 1, 2, 4, ... steps above it, until there is none; J stands for none."""
    none = skeleton.num_joints
    above = torch.tensor([none, *skeleton.parents[1:], none])
    rounds = [above]
    while (above := above[above]).min() < none:
        rounds.append(above)
    return torch.stack(rounds)


def place(
    root: Float[Tensor, "3 B T"], bones: Float[Tensor, "j 3 B T"], jumps: Int[Tensor, "R _"]
) -> Float[Tensor, "J 3 B T"]:
    """Joints from the root and all bones; ``jumps`` are the skeleton's `ancestors`."""
    # A joint is the sum of its ancestors' bones: each round adds the sum that the joint so many steps above has so far.
    placed = torch.cat([root[None], bones, torch.zeros_like(bones[:1])])
    for above in jumps.to(bones.device).unbind(0):
        placed = placed + placed.index_select(0, above)
    return placed[:-1]


def set_lengths(
    root: Float[Tensor, "3 B T"],
    bones: Float[Tensor, "j 3 B T"],
    lengths: Float[Tensor, "j B T"],
    target: Float[Tensor, " J"],
    legs: tuple[int, int],
) -> tuple[Float[Tensor, "3 B T"], Float[Tensor, "j 3 B T"]]:
    """Root and bones: directions stay, lengths become ``target``, the root path scales with the legs of frame 0."""
    thigh, shin = legs
    scale = (target[thigh] + target[shin]) / (lengths[thigh - 1, :, :1] + lengths[shin - 1, :, :1])
    return root * scale, bones * (target[1:, None, None] / lengths)[:, None]


def turn_ahead(rows: Float[Tensor, "J 3 B T"], face: tuple[int, ...]) -> tuple[Float[Tensor, "B 1"], ...]:
    """Cosine and sine of the turn about y after which the body faces +z in frame 0."""
    across = across_body(rows[..., :1], face)
    x, z = across[0] - TINY, across[2]  # a body without any facing direction stays as it is
    length = torch.hypot(x, z)
    return -x / length, -z / length


def stand_at_origin(rows: Float[Tensor, "J 3 B T"], cos: Tensor, sin: Tensor) -> Float[Tensor, "J 3 B T"]:
    """Lowest point at height 0, the root of frame 0 above the origin, everything turned about it."""
    x, y, z = rows.unbind(1)
    x, z = turned(x - x[0, :, :1], z - z[0, :, :1], cos, sin)
    return torch.stack([x, y - y.amin(dim=(0, 2))[:, None], z], dim=1)


def across_body(
    rows: Float[Tensor, "J 3 B T"], face: tuple[int, ...], *, swapped: bool = False
) -> Float[Tensor, "3 B T"]:
    """A body's left-to-right axis by hips and shoulders, or with its hips swapped."""
    right_hip, left_hip, right_shoulder, left_shoulder = (rows[joint] for joint in face)
    hips = left_hip - right_hip if swapped else right_hip - left_hip
    return hips + right_shoulder - left_shoulder


def forward_of(across: Float[Tensor, "3 B T"]) -> Float[Tensor, "2 B T"]:
    """Horizontal forward direction (x, z) of a left-to-right axis; shorter when the body leans sideways."""
    return torch.stack([across[2], -across[0]]) / square_of(across, 0).clamp_min(1e-16).sqrt()


def smooth(forward: Float[Tensor, "C B T"]) -> Float[Tensor, "C B T"]:
    """Gaussian filter along time with repeated ends, as one product with a banded matrix."""
    frames, radius = forward.shape[-1], len(_GAUSSIAN) // 2
    padded = torch.nn.functional.pad(forward, (radius, radius), mode="replicate")
    band = torch.nn.functional.pad(_GAUSSIAN.to(forward), (frames - 1, frames - 1)).unfold(0, frames + 2 * radius, 1)
    with torch.autocast(forward.device.type, enabled=False):  # half precision would show in every feature
        return (padded @ band.t()).flip(-1)  # the band's rows begin with the last frame


def turned(x: Tensor, z: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation about y of vectors (x, ., z), by the angle with this cosine and sine."""
    return torch.addcmul(cos * x, sin, z), torch.addcmul(cos * z, sin, x, value=-1)


def square_of(vectors: Tensor, dim: int) -> Tensor:
    """Squared length of vectors along ``dim``; faster than a reduction over a dimension that is not the last."""
    x, y, z = vectors.unbind(dim)
    return torch.addcmul(torch.addcmul(x * x, y, y), z, z)


def columns_of(a: Float[Tensor, "j 4 B T"], b: Float[Tensor, "j 4 B T"]) -> Float[Tensor, "j 6 B T"]:
    """First two matrix columns of conj(a)·b, where that is √2 times a unit quaternion."""
    aw, ax, ay, az = a.unbind(1)
    bw, bx, by, bz = b.unbind(1)

    def combine(*terms: tuple[int, Tensor, Tensor]) -> Tensor:
        (_, first, second), *others = terms
        total = first * second
        for sign, first, second in others:
            total = torch.addcmul(total, first, second, value=sign)
        return total

    w = combine((1, aw, bw), (1, ax, bx), (1, ay, by), (1, az, bz))
    x = combine((1, aw, bx), (-1, ax, bw), (-1, ay, bz), (1, az, by))
    y = combine((1, aw, by), (1, ax, bz), (-1, ay, bw), (-1, az, bx))
    z = combine((1, aw, bz), (-1, ax, by), (1, ay, bx), (-1, az, bw))
    first = [1 - combine((1, y, y), (1, z, z)), combine((1, x, y), (1, w, z)), combine((1, x, z), (-1, w, y))]
    second = [combine((1, x, y), (-1, w, z)), 1 - combine((1, x, x), (1, z, z)), combine((1, y, z), (1, w, x))]
    return torch.stack(first + second, dim=1)


def products_with(reference: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """How to read u·v and u×v off the components of v, where u is ±x, ±y or ±z.

    Returns:
        for each bone and product, which of the 3j rows of v it is, and the factor "4j 1 1" (±1 or 0); and
        a tiny vector perpendicular to u, which decides the axis of an exact half turn and nothing else, "j 3 1 1".
    """
    signs = torch.tensor([1.0 if axis[0] == "+" else -1.0 for axis in reference])
    u = signs[:, None] * torch.eye(3)[["xyz".index(axis[1]) for axis in reference]]
    unit = torch.eye(3).expand(len(reference), 3, 3)
    cross = torch.linalg.cross(u[:, None], unit).transpose(1, 2)  # u×v = cross @ v
    products = torch.cat([u[:, None], cross], dim=1)  # "j 4 3": one component each, or none
    component = products.abs().argmax(-1)
    pick = component + 3 * torch.arange(len(reference))[:, None]
    half_turn = torch.linalg.cross(u, torch.eye(3)[u.abs().argmin(-1)])
    return pick.flatten(), products.sum(-1).view(-1, 1, 1), TINY * half_turn[..., None, None]


def _gaussian(sigma: float = 20.0, radius: int = 80) -> Float[Tensor, " K"]:
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return kernel / kernel.sum()


_GAUSSIAN = _gaussian()
