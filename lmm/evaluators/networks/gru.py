"""Recurrent encoders in the manner of Guo et al. (CVPR 2022), whose evaluator most published figures come from.

Motion: two convolutions of kernel 4 and stride 2, then a bidirectional GRU. Text: word vectors, then a bidirectional
GRU; hashed words stand in the place of GloVe and parts of speech, so nothing is downloaded. The last states of both
directions are the result.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from lmm.evaluators.networks.parts import MotionEncoder, TextEncoder
from lmm.evaluators.networks.words import HashedWords
from lmm.motion.representations.base import MotionRepresentation


class MotionGRU(MotionEncoder):
    """Features "B T D" -> "B O".

    Args:
        representation: gives the number of features.
        out_dim: O.
        width: channels of a movement (4 frames); the GRU has twice as many.
        dropout: fraction of activations dropped in training.
    """

    downsample = 4

    def __init__(
        self, representation: MotionRepresentation, out_dim: int, *, width: int = 512, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.first = nn.Conv1d(representation.dim, width, 4, stride=2, padding=1)
        self.second = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.states = LastStates(width, 2 * width, out_dim)

    def forward(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B O"]:
        """O numbers of normalized features."""
        x = features.mT * mask[:, None]
        x = F.leaky_relu(self.dropout(self.first(x)), 0.2) * mask[:, None, ::2]
        x = F.leaky_relu(self.dropout(self.second(x)), 0.2)
        return self.states(x.mT, mask[:, ::4].sum(1))


class TextGRU(TextEncoder):
    """Sentences -> "B O".

    Args:
        out_dim: O.
        width: channels of a word, and of the GRU.
        num_rows: rows of the table of words and n-grams.
    """

    def __init__(self, out_dim: int, *, width: int = 512, num_rows: int = 16384) -> None:
        super().__init__()
        self.words = HashedWords(width, num_rows)
        self.states = LastStates(width, width, out_dim)

    def forward(self, texts: list[str]) -> Float[Tensor, "B O"]:
        """O numbers of each sentence."""
        x, mask = self.words(texts)
        return self.states(x, mask.sum(1))


class LastStates(nn.Module):
    """A bidirectional GRU's last states, then two layers. Sequences are packed: padding is never read."""

    def __init__(self, width: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.leave = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, out_dim)
        )

    def forward(self, x: Float[Tensor, "B L W"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B O"]:
        """O numbers of each sequence."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (forth, back) = self.gru(packed)
        return self.leave(torch.cat([forth, back], dim=-1))
