"""Several data sets as one, each shown as often as its weight says.

The members are packed into one store, with statistics of their common train split; the clip ``000021`` of the member
``cmu`` is ``cmu/000021``. Weights are applied while training only: another weight packs and encodes nothing again.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from lmm.data.sources.base import Clip, MotionSource
from lmm.motion.representations.base import MotionRepresentation


@dataclass(frozen=True)
class Member:
    """A data set of a mixture.

    Args:
        source: where its motions come from.
        weight: how many times an epoch shows each of its training items: 2.0 twice, 0.5 in every second epoch on
            average, 0 never (its other splits count nevertheless).
    """

    source: MotionSource
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight {self.weight} of {self.source.name}: how many times an epoch shows a clip, >= 0")


class Mixture(MotionSource):
    """The union of data sets, split by split; each member keeps its own rules (lengths, captions, ids to skip).

    All members must fit the one representation: its joints and its frame rate. Published statistics are not used.

    Args:
        members: the data sets by name, which begins the ids of its clips. Their order makes no difference.
    """

    def __init__(self, members: dict[str, Member]) -> None:
        if not members:
            raise ValueError("a mixture needs members: {name: {source: ..., weight: ...}}")
        if wrong := [name for name in members if not name or "/" in name or name.startswith(".")]:
            raise ValueError(
                f"{wrong[0]!r} cannot be a member's name: it begins ids, so no '/' in it, no '.' before it"
            )
        self.members = dict(sorted(members.items()))
        self.name = "+".join(self.members)[:100]  # begins the name of a folder, and those have an end

    def prepare(self) -> None:
        """Every member makes what it can make."""
        for member in self.members.values():
            member.source.prepare()

    def splits(self) -> dict[str, list[str]]:
        """The members' lists of the same name, one after the other."""
        splits: dict[str, list[str]] = {}
        for name, member in self.members.items():
            for split, ids in member.source.splits().items():
                splits.setdefault(split, []).extend(f"{name}/{clip}" for clip in ids)
        return splits

    def fingerprint(self) -> str:
        """Digest of the members' names and fingerprints; weights are no part of it."""
        members = [
            (name, type(member.source).__name__, member.source.fingerprint()) for name, member in self.members.items()
        ]
        return hashlib.sha256(repr(members).encode()).hexdigest()

    def clips(self, representation: MotionRepresentation) -> Iterator[Clip]:
        """The clips of each member in turn."""
        for name, member in self.members.items():
            for clip in member.source.clips(representation):
                yield clip._replace(id=f"{name}/{clip.id}")

    def weight(self, id: str) -> float:
        """The member's weight; of mixtures within mixtures, the product."""
        member, clip = self._find(id)
        return member.weight * member.source.weight(clip)

    def limits(self, id: str) -> tuple[int, int | None]:
        """The member's rule on length."""
        member, clip = self._find(id)
        return member.source.limits(clip)

    def _find(self, id: str) -> tuple[Member, str]:
        name, _, clip = id.partition("/")
        return self.members[name], clip
