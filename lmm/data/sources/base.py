"""What every source of motions is: split lists, clips with captions, and a fingerprint.

A source gives whole recordings. Which of them become items is decided once, when `lmm.data.store` packs them: a clip
outside ``min_frames``/``max_frames`` is dropped and counted, and a caption about a stretch of time becomes an item.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation


class Caption(NamedTuple):
    """A sentence about a stretch of a clip; ``start`` and ``end`` in seconds, both 0 for the whole clip."""

    text: str
    start: float = 0.0
    end: float = 0.0


class Clip(NamedTuple):
    """One recording as a source gives it: a motion, or features that were made elsewhere.

    ``details`` are texts about the whole clip by name: body, upper_body, lower_body, left_arm, ...
    """

    id: str
    motion: Motion | None
    features: Float[Tensor, "T D"] | None
    captions: list[Caption]
    details: Mapping[str, str] = MappingProxyType({})


class MotionSource(ABC):
    """Where motions come from. Reading errors are ``ValueError``s that name the file and the remedy.

    Subclasses set ``name`` (it begins the name of the packed folder). Items with fewer than ``min_frames`` or not
    fewer than ``max_frames`` rows of features are dropped when the source is packed.
    """

    name: str
    min_frames: int = 1
    max_frames: int | None = None

    def prepare(self) -> None:  # noqa: B027 - most sources have nothing to prepare
        """Make the data if it is not there and this source can; runs once, before anything is read."""

    @abstractmethod
    def splits(self) -> dict[str, list[str]]:
        """Clip ids of each split (train, val, test and any other the source has); splits may overlap."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes whenever the files or the source's settings do; cheap enough for every start."""

    @abstractmethod
    def clips(self, representation: MotionRepresentation) -> Iterator[Clip]:
        """Every clip of every split once, in a fixed order."""

    def weight(self, id: str) -> float:
        """How many times an epoch shows an item (a clip, or its ``<id>__sub<k>``); decides nothing about packing."""
        return 1.0

    def limits(self, id: str) -> tuple[int, int | None]:
        """``min_frames`` and ``max_frames`` of a clip."""
        return self.min_frames, self.max_frames

    def statistics(self, representation: MotionRepresentation) -> tuple[Tensor, Tensor] | None:
        """Published mean and standard deviation for the representation, where the source ships them."""
        return None
