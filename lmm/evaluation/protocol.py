"""Which captions, crops and order each repeat of a measurement uses.

"standard" is the protocol of Guo et al. (CVPR 2022), which the field's tables share: 20 repeats, each over the test
split in a new order, with one random caption of every clip and a random crop of it: of T frames u · (min(T, max) // u),
u the evaluator's unit and max its longest motion, or with probability 1/3 one unit less. Pools of 32; an incomplete
last one is left out. Mean ± 1.96 · std (ddof 0) / √repeats. "deterministic" draws nothing: first captions, all frames
from the first on, the order of the data, one repeat. It is for comparing versions of one's own, not for papers.

Draws depend on (seed, repeat, place of the clip in the split) alone, not on what is judged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

POOL = 32


@dataclass(frozen=True)
class Protocol:
    """How often to measure, and what is drawn.

    Args:
        name: "standard" or "deterministic".
        repeats: how many times; a deterministic protocol has one.
        seed: of all draws.
    """

    name: str = "standard"
    repeats: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in ("standard", "deterministic"):
            raise ValueError(f"there are the protocols standard and deterministic, not {self.name!r}")
        if self.repeats < 1 or (self.name == "deterministic" and self.repeats != 1):
            raise ValueError(f"{self.repeats} repeats: at least 1 are needed, and exactly 1 where nothing is drawn")

    @property
    def random(self) -> bool:
        """Whether anything is drawn."""
        return self.name == "standard"


class Pass(NamedTuple):
    """One pass over a split, in its order.

    Args:
        order: places of the split's clips, whole pools only.
        captions: of each of the split's clips, by place (not by order).
        starts: first frame of each clip.
        frames: frames from there on.
    """

    order: np.ndarray
    captions: np.ndarray
    starts: np.ndarray
    frames: np.ndarray


def draw_pass(
    protocol: Protocol,
    repeat: int,
    *,
    lengths: np.ndarray,
    num_captions: Sequence[int] | np.ndarray,
    unit: int,
    max_frames: int | None,
) -> Pass:
    """What one repeat looks at.

    Args:
        protocol: what is drawn.
        repeat: its number.
        lengths: frames of every clip of the split.
        num_captions: how many captions every clip has.
        unit: crops are multiples of so many frames.
        max_frames: longest crop.

    Raises:
        ValueError: a split with less than one pool, or a clip shorter than a unit.
    """
    count = len(lengths)
    if count < POOL:
        raise ValueError(f"the split has {count} clips; the figures need at least one pool of {POOL}")
    if (lengths < unit).any():
        raise ValueError(f"a clip of the split has {lengths.min()} frames, the evaluator needs {unit}; leave it out")
    frames = cropped(lengths, unit, max_frames)
    if not protocol.random:
        zeros = np.zeros(count, dtype=np.int64)
        return Pass(np.arange(count // POOL * POOL), zeros, zeros, frames)
    rng = np.random.default_rng([protocol.seed, repeat])
    order = rng.permutation(count)[: count // POOL * POOL]
    captions = (rng.random(count) * np.asarray(num_captions)).astype(np.int64)
    shorter = rng.random(count) < 1 / 3
    frames = np.where(shorter & (frames > unit), frames - unit, frames)
    starts = (rng.random(count) * (lengths - frames + 1)).astype(np.int64)
    return Pass(order, captions, starts, frames)


def cropped(lengths: np.ndarray, unit: int, max_frames: int | None) -> np.ndarray:
    """The longest whole units of so many frames."""
    longest = lengths if max_frames is None else np.minimum(lengths, max_frames)
    return longest // unit * unit


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval, as the field computes it; NaN of a single value."""
    mean = float(np.mean(values))
    return mean, float(1.96 * np.std(values) / math.sqrt(len(values))) if len(values) > 1 else math.nan
