"""Transformers of an evaluator: motion and text -> one vector, and one vector -> motion.

As the encoders and decoder of TMR (Petrovich et al., ICCV 2023; after ACTOR, Petrovich et al., ICCV 2021), made light:
``downsample`` frames are one cell (a quarter of the length is a sixteenth of the attention), the result is the mean
over the cells instead of extra tokens, and the decoder adds the latent to every cell, which is what attending to a
single latent amounts to.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lmm.evaluators.networks.parts import MotionDecoder, MotionEncoder, TextEncoder, Trunk, masked_mean
from lmm.evaluators.networks.words import HashedWords
from lmm.motion.representations.base import MotionRepresentation


class MotionTransformer(MotionEncoder):
    """Features "B T D" -> "B O".

    Args:
        representation: gives the number of features.
        out_dim: O.
        width: W, channels of a cell.
        depth: transformer blocks.
        num_heads: attention heads; they share the width.
        downsample: frames of a cell.
        dropout: fraction of activations dropped in training.
    """

    def __init__(
        self,
        representation: MotionRepresentation,
        out_dim: int,
        *,
        width: int = 256,
        depth: int = 4,
        num_heads: int = 4,
        downsample: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.downsample, self.num_heads = downsample, num_heads
        self.enter = nn.Linear(downsample * representation.dim, width)
        self.trunk = Trunk(width, depth, num_heads, dropout)
        self.leave = nn.Linear(width, out_dim)

    def forward(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B O"]:
        """O numbers of normalized features."""
        cells = mask[:, :: self.downsample]
        x = self.enter(features.masked_fill(~mask[..., None], 0).unflatten(1, (-1, self.downsample)).flatten(2))
        return self.leave(masked_mean(self.trunk(x, cells), cells))


class MotionTransformerDecoder(MotionDecoder):
    """Latents "B E" -> features "B T D"; arguments as `MotionTransformer`, called with E."""

    def __init__(
        self,
        representation: MotionRepresentation,
        latent_dim: int,
        *,
        width: int = 256,
        depth: int = 4,
        num_heads: int = 4,
        downsample: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.downsample, self.num_heads = downsample, num_heads
        self.enter = nn.Linear(latent_dim, width)
        self.trunk = Trunk(width, depth, num_heads, dropout)
        self.leave = nn.Linear(width, downsample * representation.dim)

    def forward(self, latents: Float[Tensor, "B E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Features of as many frames as ``mask`` has."""
        cells = mask[:, :: self.downsample]
        x = self.enter(latents)[:, None].expand(-1, cells.shape[1], -1)
        return self.leave(self.trunk(x, cells)).unflatten(-1, (self.downsample, -1)).flatten(1, 2)


class TextTransformer(TextEncoder):
    """Sentences -> "B O", from hashed words (see `lmm.evaluators.networks.words`): needs no download.

    Args:
        out_dim: O.
        width: W, channels of a word.
        depth: transformer blocks.
        num_heads: attention heads; they share the width.
        num_rows: rows of the table of words and n-grams.
        dropout: fraction of activations dropped in training.
    """

    def __init__(
        self,
        out_dim: int,
        *,
        width: int = 256,
        depth: int = 2,
        num_heads: int = 4,
        num_rows: int = 16384,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.words = HashedWords(width, num_rows)
        self.trunk = Trunk(width, depth, num_heads, dropout)
        self.leave = nn.Linear(width, out_dim)

    def forward(self, texts: list[str]) -> Float[Tensor, "B O"]:
        """O numbers of each sentence."""
        x, mask = self.words(texts)
        return self.leave(masked_mean(self.trunk(x, mask), mask))
