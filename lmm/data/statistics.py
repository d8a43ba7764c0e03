"""Mean and standard deviation of features, streamed block by block in float64.

Blocks merge exactly (Chan, Golub & LeVeque 1983): with n = n₁ + n₂ and δ = μ₂ - μ₁,
μ = μ₁ + δ·n₂/n and M = M₁ + M₂ + δ²·n₁n₂/n, where M is the sum of squared deviations. So memory does not
grow with the data, and what several processes counted can be joined.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.motion.representations.base import MotionRepresentation

_STILL = 1e-6  # a block whose deviation is below this never moves; dividing by it would only amplify noise


class RunningStatistics:
    """Per-feature mean and (population) standard deviation of all rows seen.

    Args:
        dim: number of features D.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dtype=torch.float64)

    def update(self, features: Float[Tensor, "T D"]) -> None:
        """Take in rows of raw features."""
        rows = features.double()
        mean = rows.mean(dim=0)
        self._merge(len(rows), mean, (rows - mean).square().sum(dim=0))

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        delta = mean - self._mean
        self._squares += squares + delta.square() * (self.count * count / total)
        self._mean += delta * (count / total)
        self.count = total

    def result(self, representation: MotionRepresentation) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean, and the deviation averaged over each block of the representation (float32).

        A block that never moves gets deviation 1, so that it normalizes to zero instead of to noise.
        """
        std = representation.segment_std((self._squares / self.count).sqrt())
        return self._mean.float(), torch.where(std < _STILL, torch.ones_like(std), std).float()
