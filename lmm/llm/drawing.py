"""Drawing one id from logits by a given uniform number: temperature, top-k and top-p (Holtzman et al. 2020)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Drawing(NamedTuple):
    """How ids are drawn.

    Args:
        temperature: divides the logits; 0 takes the likeliest id.
        top_k: draw among so many likeliest ids; 0 among all.
        top_p: draw among the likeliest ids that hold this much probability.
        guidance: scale of classifier-free guidance; 1 is none and costs nothing, more follows the text more.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def check(self) -> None:
        """Refuse what nothing can be drawn with.

        Raises:
            ValueError: naming the values.
        """
        if not (self.temperature == 0 or self.temperature >= 1e-3) or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "need a temperature of 0 or at least 0.001, top_k >= 0 and 0 < top_p <= 1, got "
                f"{self.temperature}, {self.top_k} and {self.top_p}"
            )
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is a scale of at least 0, and 1 for none; got {self.guidance}")

    def draw(self, logits: Float[Tensor, "B R"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """One column of each row, by a number in [0, 1)."""
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[1]:
            logits = logits.masked_fill(logits < logits.topk(self.top_k).values[:, -1:], -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p  # the first is never outside
            probabilities = probabilities.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
        # Inverse of the distribution function, in float64: a float32 draw below 1 times the total stays below the
        # total, and the first entry above it has a probability above zero.
        cumulative = probabilities.double().cumsum(-1)
        threshold = uniform.double()[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def uniform_numbers(seeds: list[int], count: int) -> Float[Tensor, "B n"]:
    """``count`` numbers in [0, 1) from each seed; the first ones do not depend on ``count``."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
