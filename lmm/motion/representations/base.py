"""What every motion representation is: named feature blocks, a transform and its inverse, and statistics."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmm.motion.motion import Motion
from lmm.motion.skeleton import Skeleton


class MotionRepresentation(nn.Module, ABC):
    """Motion <-> features "B T D".

    Subclasses set ``skeleton``, ``fps``, ``blocks`` (name -> width, in the order of the features) and ``owners``, and
    write ``encode`` and ``decode``. Statistics live in the buffers ``mean`` and ``std``, so a checkpoint carries the
    pair it was trained with.
    """

    skeleton: ClassVar[Skeleton]
    fps: float
    blocks: ClassVar[dict[str, int]]
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((self.dim,), torch.nan))
        self.register_buffer("std", torch.full((self.dim,), torch.nan))

    @property
    def dim(self) -> int:
        """Number of features D."""
        return sum(self.blocks.values())

    @property
    def settings(self) -> str:
        """Class and arguments, which a subclass keeps under their names; equal settings make equal features."""
        arguments = (f"{name}={getattr(self, name)!r}" for name in inspect.signature(type(self)).parameters)
        return f"{type(self).__name__}({', '.join(arguments)})"

    @property
    def slices(self) -> dict[str, slice]:
        """Where each block lies among the features."""
        ends = torch.tensor(list(self.blocks.values())).cumsum(0).tolist()
        return {name: slice(end - width, end) for (name, width), end in zip(self.blocks.items(), ends, strict=True)}

    @property
    def owners(self) -> dict[str, Sequence[int]]:
        """Block -> the joints that share it equally, in its order; blocks that are not named belong to the root."""
        return {}

    @property
    def parts(self) -> dict[str, list[int]]:
        """Feature columns of the skeleton's limbs."""
        return self.partition("limbs")

    def partition(self, name: str) -> dict[str, list[int]]:
        """Feature columns of each part of a named partition; every column belongs to exactly one part.

        Args:
            name: "blocks" (each feature block), or a partition of the skeleton's joints (see `Skeleton.partition`).

        Raises:
            ValueError: there is no such partition.
        """
        if name == "blocks":
            return {block: list(range(self.dim))[columns] for block, columns in self.slices.items()}
        owner: list[int] = []
        for block, width in self.blocks.items():
            joints = self.owners.get(block, (0,))
            owner += [joint for joint in joints for _ in range(width // len(joints))]
        return {
            part: [column for column, joint in enumerate(owner) if joint in members]
            for part, members in self.skeleton.partition(name).items()
        }

    def columns(self, part: str) -> list[int]:
        """Feature columns that belong to a limb."""
        if part not in self.parts:
            raise ValueError(f"{type(self).__name__} has no part {part!r}; it has {', '.join(self.parts)}")
        return self.parts[part]

    def check(self, motion: Motion) -> None:
        """Refuse a motion that these features are not defined for.

        Raises:
            ValueError: another skeleton or frame rate.
        """
        name = type(self).__name__
        if motion.skeleton.names != self.skeleton.names:
            raise ValueError(f"{name} needs the joints {', '.join(self.skeleton.names)}; got {motion.skeleton.names}")
        if motion.fps != self.fps:
            raise ValueError(f"{name} is defined at {self.fps:g} fps, got {motion.fps:g}: resample first")

    @abstractmethod
    def encode(self, motion: Motion) -> Float[Tensor, "*B T D"]:
        """Features of a motion (raw, not normalized)."""

    @abstractmethod
    def decode(self, features: Float[Tensor, "*B T D"]) -> Motion:
        """Motion of raw features."""

    def to_joints(self, features: Float[Tensor, "*B T D"]) -> Float[Tensor, "*B T J 3"]:
        """Joint positions in metres of raw features."""
        return self.decode(features).joints

    def normalize(self, features: Float[Tensor, "*B T D"]) -> Float[Tensor, "*B T D"]:
        """Z-scores."""
        return (features - self.mean) / self.std

    def denormalize(self, features: Float[Tensor, "*B T D"]) -> Float[Tensor, "*B T D"]:
        """Inverse of `normalize`."""
        return features * self.std + self.mean

    @property
    def has_statistics(self) -> bool:
        """Whether `set_statistics` was called or a checkpoint was loaded."""
        return bool(torch.isfinite(self.mean).all())

    def require_statistics(self) -> None:
        """Refuse to go on without mean and standard deviation.

        Raises:
            ValueError: there are none.
        """
        if not self.has_statistics:
            raise ValueError(
                "the representation has no mean and standard deviation yet; train through a MotionDataModule (it "
                "computes them) or call representation.set_statistics(mean, std)"
            )

    def set_statistics(self, mean: Float[Tensor, " D"], std: Float[Tensor, " D"]) -> None:
        """Take the mean and standard deviation that `normalize` uses.

        Raises:
            ValueError: a wrong shape, NaN, or a standard deviation that is not positive.
        """
        for name, value in (("mean", mean), ("std", std)):
            if tuple(value.shape) != (self.dim,):
                raise ValueError(f"{name} must have shape ({self.dim},), got {tuple(value.shape)}")
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} contains NaN or Inf")
        if (std <= 0).any():
            raise ValueError(f"std is not positive at features {torch.nonzero(std <= 0).flatten().tolist()[:8]}")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def segment_std(self, std: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
        """Replace each feature's deviation by its block's average, as HumanML3D does."""
        return torch.cat([std[s].mean().expand(s.stop - s.start) for s in self.slices.values()])
