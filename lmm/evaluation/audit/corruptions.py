"""Known damage to real motions, from slight to severe: a figure that is worth something ranks the strengths.

A corruption draws from a generator that is seeded by (seed, corruption, clip) and not by the strength, so that stronger
damage is more of the same damage: the same noise scaled, the same clips mirrored and some more.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmm.metrics.physics import feet
from lmm.motion.cleanup import contacts
from lmm.motion.kinematics import fit_rotations, world_rotations
from lmm.motion.motion import Motion
from lmm.motion.transforms import mirror, resample


@dataclass(frozen=True)
class Corruption:
    """One kind of damage.

    Args:
        name: what tables call it.
        unit: of the strengths.
        what: what is done to a clip, in a sentence.
        strengths: increasing; 0 (or 1 for a factor of time) would be no damage.
        apply: (motion, strength, generator) -> damaged motion; the very same object where this clip is spared.
    """

    name: str
    unit: str
    what: str
    strengths: tuple[float, ...]
    apply: Callable[[Motion, float, torch.Generator], Motion]

    def corrupt(self, motion: Motion, strength: float, *, seed: int, clip: int) -> Motion:
        """The damaged clip; ``clip`` is its number in the sample."""
        state = np.random.SeedSequence([seed, zlib.crc32(self.name.encode()), clip]).generate_state(1)
        return self.apply(motion, strength, torch.Generator().manual_seed(int(state[0])))


def add_noise(motion: Motion, millimetres: float, generator: torch.Generator) -> Motion:
    """Independent Gaussian noise on every coordinate of every joint in every frame.

    Rotations turn by what the fitted rotations turn (see `fit_rotations`): bones aim at the noisy joints.
    """
    noise = torch.randn(motion.joints.shape, generator=generator, dtype=torch.float64).to(motion.joints)
    joints = motion.joints + noise * (millimetres / 1000)
    if motion.rotations is None:
        return replace(motion, joints=joints)
    skeleton = motion.skeleton
    before, after = (world_rotations(fit_rotations(x, skeleton)[0], skeleton) for x in (motion.joints, joints))
    world = after @ before.transpose(-1, -2) @ world_rotations(motion.rotations, skeleton)
    above = world[..., list(skeleton.parents[1:]), :, :].transpose(-1, -2)
    rotations = torch.cat([world[..., :1, :, :], above @ world[..., 1:, :, :]], dim=-3)
    return replace(motion, joints=joints, rotations=rotations)


def speed_up(motion: Motion, factor: float, generator: torch.Generator) -> Motion:
    """The same movement in 1/factor of the time, at the same frame rate."""
    return resample(replace(motion, fps=motion.fps * factor), motion.fps)


def slow_down(motion: Motion, factor: float, generator: torch.Generator) -> Motion:
    """The same movement in ``factor`` times the time, at the same frame rate."""
    return speed_up(motion, 1 / factor, generator)


def mirror_some(motion: Motion, share: float, generator: torch.Generator) -> Motion:
    """Left and right exchanged in a share of the clips; the captions stay."""
    return mirror(motion) if torch.rand(1, generator=generator).item() < share else motion


def freeze(motion: Motion, share: float, generator: torch.Generator) -> Motion:
    """The last share of the clip stands still in the pose that it had when it stopped."""
    moving = max(round(motion.num_frames * (1 - share)), 1)
    return _frames(motion, torch.arange(motion.num_frames).clamp_max(moving - 1))


def skate(motion: Motion, speed: float, generator: torch.Generator) -> Motion:
    """The whole body slides in one direction, at ``speed`` m/s, whenever a foot is planted."""
    planted = torch.zeros(motion.num_frames)
    for foot in feet(motion.skeleton):
        for stretch in contacts(motion.joints[:, foot], motion.fps):
            planted[stretch] = 1.0
    angle = 2 * torch.pi * torch.rand(1, generator=generator)
    direction = torch.cat([angle.cos(), torch.zeros(1), angle.sin()])
    slide = (planted.cumsum(0) - planted[0])[:, None] * direction * (speed / motion.fps)
    return replace(motion, joints=motion.joints + slide[:, None].to(motion.joints))


def drop_frames(motion: Motion, share: float, generator: torch.Generator) -> Motion:
    """A share of the frames is lost, and the frame before each stays instead: the motion stutters."""
    kept = torch.rand(motion.num_frames, generator=generator) >= share
    kept[0] = True
    return _frames(motion, torch.where(kept, torch.arange(motion.num_frames), 0).cummax(0).values)


CORRUPTIONS = (
    Corruption(
        "joint noise", "mm", "Gaussian noise on every joint and frame (standard deviation of a coordinate)",
        (5.0, 10.0, 20.0, 50.0), add_noise,
    ),
    Corruption("sped up", "×", "the same movement in less time", (1.1, 1.25, 1.5, 2.0), speed_up),
    Corruption("slowed down", "×", "the same movement in more time", (1.1, 1.25, 1.5, 2.0), slow_down),
    Corruption(
        "mirrored", "of the clips", "left and right exchanged, the caption unchanged", (0.25, 0.5, 0.75, 1.0),
        mirror_some,
    ),
    Corruption("frozen", "of the clip", "the clip's last part stands still", (0.25, 0.5, 0.75, 1.0), freeze),
    Corruption("foot skating", "m/s", "the body slides while a foot is planted", (0.1, 0.25, 0.5, 1.0), skate),
    Corruption(
        "dropped frames", "of the frames", "lost frames are replaced by the one before", (0.1, 0.25, 0.5, 0.75),
        drop_frames,
    ),
)  # fmt: skip
SWAPPED = "swapped captions"
SWAPPED_UNIT, SWAPPED_WHAT = "of the pairs", "motions get one another's captions"
SWAPPED_STRENGTHS = (0.1, 0.25, 0.5, 1.0)


def swap_captions(count: int, share: float, *, seed: int) -> Int[Tensor, " N"]:
    """Which caption each of ``count`` motions gets: a share of them, the same and some more as it grows, rotates."""
    order = np.random.default_rng([seed, zlib.crc32(SWAPPED.encode())]).permutation(count)[: round(count * share)]
    given = np.arange(count)
    given[order] = np.roll(order, 1)
    return torch.from_numpy(given)


def _frames(motion: Motion, frames: Int[Tensor, " T"]) -> Motion:
    rotations: Float[Tensor, "T J 3 3"] | None = None if motion.rotations is None else motion.rotations[frames]
    return replace(motion, joints=motion.joints[frames], rotations=rotations)
