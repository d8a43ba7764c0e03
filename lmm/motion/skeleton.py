"""What a skeleton is, forward kinematics on it, and the 22-joint body of the field (SMPL order, HumanML3D).

Axes: x to the body's left, y up, z forward; metres.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints.

    Args:
        names: joint names, the root first.
        parents: index of each joint's parent, -1 for the root; a parent always stands before its children.
        offsets: rest offset of each joint from its parent in metres, (x, y, z).
        parts: named, disjoint groups of joints that together cover the body.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: tuple[tuple[float, float, float], ...]
    parts: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.parents) == len(self.offsets):
            raise ValueError("names, parents and offsets of a skeleton must be equally long")
        if self.parents[0] != -1 or any(not 0 <= p < j for j, p in enumerate(self.parents) if j):
            raise ValueError("a skeleton's root comes first and every parent before its children")
        if sorted(j for joints in self.parts.values() for j in joints) != list(range(len(self.names))):
            raise ValueError("a skeleton's parts must cover every joint exactly once")

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.names)

    @cached_property
    def rest(self) -> Float[Tensor, "J 3"]:
        """Rest offsets as a tensor."""
        return torch.tensor(self.offsets)

    def partition(self, name: str) -> dict[str, tuple[int, ...]]:
        """Disjoint groups of joints that together cover the body.

        Args:
            name: "whole" (one group), "halves" (lower: root and legs; upper: the rest), "limbs" (``parts``), "six" (the
                root by itself, and the limbs; ParCo, Zou et al. 2024) or "joints" (each by itself).

        Raises:
            ValueError: there is no such partition, or the skeleton's parts are no legs ("halves").
        """
        everything = tuple(range(self.num_joints))
        lower = {0, *(joint for part, joints in self.parts.items() if part.endswith("leg") for joint in joints)}
        limbs = {part: tuple(joint for joint in joints if joint) for part, joints in self.parts.items()}
        known: dict[str, dict[str, tuple[int, ...]]] = {
            "whole": {"body": everything},
            "halves": {"lower": tuple(sorted(lower)), "upper": tuple(j for j in everything if j not in lower)},
            "limbs": dict(self.parts),
            "six": {"root": (0,), **{part: joints for part, joints in limbs.items() if joints}},
            "joints": {joint: (number,) for number, joint in enumerate(self.names)},
        }
        if name not in known:
            raise ValueError(f"there is no partition {name!r} of a skeleton; there are {', '.join(known)}")
        if name == "halves" and len(lower) == 1:
            raise ValueError(f"this skeleton has no legs among its parts ({', '.join(self.parts)}), so no halves")
        return known[name]

    def index(self, name: str) -> int:
        """Index of the joint called ``name``."""
        return self.names.index(name)

    def forward_kinematics(
        self,
        rotations: Float[Tensor, "*B J 3 3"],
        root: Float[Tensor, "*B 3"],
        *,
        offsets: Float[Tensor, "J 3"] | None = None,
    ) -> Float[Tensor, "*B J 3"]:
        """Joint positions from local rotations (the root's is global) and the root's position."""
        rest = (self.rest if offsets is None else offsets).to(rotations)
        world, positions = [rotations[..., 0, :, :]], [root]
        for joint, parent in enumerate(self.parents[1:], start=1):
            positions.append(positions[parent] + world[parent] @ rest[joint])
            world.append(world[parent] @ rotations[..., joint, :, :])
        return torch.stack(positions, dim=-2)


# Rest offsets are ours: an adult of 1.70 m with rounded anthropometric lengths, standing with arms out (T-pose).
_BODY = [
    # name, parent, offset
    ("pelvis", -1, (0.0, 0.0, 0.0)),
    ("left_hip", 0, (0.08, -0.08, 0.0)),
    ("right_hip", 0, (-0.08, -0.08, 0.0)),
    ("spine1", 0, (0.0, 0.12, 0.0)),
    ("left_knee", 1, (0.0, -0.39, 0.0)),
    ("right_knee", 2, (0.0, -0.39, 0.0)),
    ("spine2", 3, (0.0, 0.13, 0.0)),
    ("left_ankle", 4, (0.0, -0.40, 0.0)),
    ("right_ankle", 5, (0.0, -0.40, 0.0)),
    ("spine3", 6, (0.0, 0.06, 0.0)),
    ("left_foot", 7, (0.0, -0.05, 0.13)),
    ("right_foot", 8, (0.0, -0.05, 0.13)),
    ("neck", 9, (0.0, 0.21, 0.0)),
    ("left_collar", 9, (0.07, 0.12, 0.0)),
    ("right_collar", 9, (-0.07, 0.12, 0.0)),
    ("head", 12, (0.0, 0.10, 0.03)),
    ("left_shoulder", 13, (0.11, 0.03, 0.0)),
    ("right_shoulder", 14, (-0.11, 0.03, 0.0)),
    ("left_elbow", 16, (0.26, 0.0, 0.0)),
    ("right_elbow", 17, (-0.26, 0.0, 0.0)),
    ("left_wrist", 18, (0.25, 0.0, 0.0)),
    ("right_wrist", 19, (-0.25, 0.0, 0.0)),
]

HUMANML3D_22 = Skeleton(
    names=tuple(name for name, _, _ in _BODY),
    parents=tuple(parent for _, parent, _ in _BODY),
    offsets=tuple(offset for _, _, offset in _BODY),
    parts={
        "torso": (0, 3, 6, 9, 12, 15),
        "left_arm": (13, 16, 18, 20),
        "right_arm": (14, 17, 19, 21),
        "left_leg": (1, 4, 7, 10),
        "right_leg": (2, 5, 8, 11),
    },
)


def file_skeleton(
    names: list[str],
    parents: list[int],
    offsets: list[list[float]],
    parts: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Skeleton, list[int]]:
    """A file's skeleton (one part ``body`` if it names none), and the order in which to take its joints.

    Joints that are called as HumanML3D's and hang together so get its order and parts.
    """
    known = HUMANML3D_22
    order = list(range(len(names)))
    parts = {"body": tuple(order)} if parts is None else dict(parts)
    if set(names) == set(known.names) and len(names) == known.num_joints:
        same = [names.index(name) for name in known.names]
        if all(parents[same[j]] == (same[p] if j else -1) for j, p in enumerate(known.parents)):
            order, parts = same, dict(known.parts)
            names, parents = list(known.names), list(known.parents)
    rest = [(float(x), float(y), float(z)) for x, y, z in (offsets[joint] for joint in order)]
    return Skeleton(names=tuple(names), parents=tuple(parents), offsets=tuple(rest), parts=parts), order
