"""Motion while it is still being made: each step of tokens is decoded as soon as it is complete.

A causal decoder's frames never change once they are known (`lmm.tokenizers.networks.causal`), so the pieces are what
the finished tokens decode to. Features hold the root's velocity: where a frame stands in the world is a sum over all
frames before it. So each piece is cut from the motion so far, which costs little beside the language model.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmm.motion.motion import Motion
from lmm.motion.transforms import crop
from lmm.tokenizers.base import MotionTokenizer


class MotionPiece(NamedTuple):
    """The next frames: raw features, and the motion in the place where the piece before it ended."""

    features: Float[Tensor, "n D"]
    motion: Motion


class MotionStream(Iterator[MotionPiece]):
    """Pieces of one motion, each as soon as its tokens are known.

    >>> for features, motion in stream: ...
    >>> stream.time_to_first_frame, stream.real_time_factor

    Args:
        tokenizer: turns tokens into motion; its decoder must be causal.
        steps: the motion's tokens, step by step.
        frames: of the motion, if its last step is not to be shown whole.

    Raises:
        ValueError: the decoder looks ahead.
    """

    def __init__(
        self, tokenizer: MotionTokenizer, steps: Iterator[Int[Tensor, "1 K"]], *, frames: int | None = None
    ) -> None:
        self.tokenizer, self.steps, self.frames = tokenizer, steps, frames
        self.decoder = tokenizer.decoder_stream()
        self.features: Tensor | None = None
        self.busy_seconds = 0.0  # spent in here, not where the pieces are used
        self.time_to_first_frame: float | None = None

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for each second of motion so far; below 1 a viewer never waits.

        Raises:
            ValueError: there is no frame yet.
        """
        if self.features is None:
            raise ValueError("there is no frame yet; iterate first")
        return self.busy_seconds * self.tokenizer.representation.fps / len(self.features)

    @torch.no_grad()
    def __next__(self) -> MotionPiece:
        """The frames of the next step."""
        start = time.perf_counter()
        codes = next(self.steps)
        tokenizer = self.tokenizer
        indices = codes.unflatten(-1, (tokenizer.encoder.num_parts, tokenizer.quantizer.num_levels))
        latents = tokenizer.quantizer.decode(indices[None])
        new = tokenizer.representation.denormalize(self.decoder(latents))[0].float()
        seen = 0 if self.features is None else len(self.features)
        self.features = (new if self.features is None else torch.cat([self.features, new]))[: self.frames]
        motion = crop(to_motion(tokenizer, self.features), seen, len(self.features))
        self.busy_seconds += time.perf_counter() - start
        if self.time_to_first_frame is None:
            self.time_to_first_frame = self.busy_seconds
        return MotionPiece(self.features[seen:], motion)


def to_motion(tokenizer: MotionTokenizer, features: Float[Tensor, "T D"]) -> Motion:
    """The motion of raw features, on the CPU."""
    motion = tokenizer.representation.decode(features.float())
    rotations = None if motion.rotations is None else motion.rotations.cpu()
    return Motion(motion.joints.cpu(), motion.fps, motion.skeleton, rotations)
