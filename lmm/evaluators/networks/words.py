"""Words as vectors with no vocabulary file and no download: hashed words and character n-grams.

A word's vector is the mean of rows of one table: the row of the word, and those of its n-grams of 3 to 5 characters
between "<" and ">" (fastText, Bojanowski et al., TACL 2017). A row is crc32 modulo the number of rows, the same on
every machine. So a word that was never seen lies near those it shares letters with. Case does not count. A word is a
run of letters and digits, apostrophes and hyphens inside it included; all other characters only separate words.
"""

import re
import zlib
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


class HashedWords(nn.Module):
    """Sentences -> vectors of their words "B L W" and which of them are real.

    Args:
        width: W, channels of a word.
        num_rows: rows of the table; words and n-grams that share one cannot be told apart by it.
    """

    def __init__(self, width: int, num_rows: int) -> None:
        super().__init__()
        self.rows = nn.EmbeddingBag(num_rows, width, mode="mean")

    def forward(self, texts: list[str]) -> tuple[Float[Tensor, "B L W"], Bool[Tensor, "B L"]]:
        """Padded to the longest sentence.

        Raises:
            ValueError: a sentence without a word.
        """
        device = self.rows.weight.device
        sentences = [words(text) for text in texts]
        empty = [text for text, found in zip(texts, sentences, strict=True) if not found]
        if empty:
            raise ValueError(f"{empty[0]!r} has no word to embed; give every motion a caption, or leave it out")
        bags = [word_rows(word, self.rows.num_embeddings) for sentence in sentences for word in sentence]
        ends = torch.tensor([len(bag) for bag in bags]).cumsum(0)
        flat = torch.tensor([row for bag in bags for row in bag], device=device)
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(device)
        vectors = self.rows(flat, torch.cat([ends.new_zeros(1), ends[:-1]]).to(device))
        return vectors.new_zeros(*mask.shape, vectors.shape[1]).masked_scatter(mask[..., None], vectors), mask


def words(text: str) -> list[str]:
    """Words of a sentence in lower case, in order."""
    return _WORD.findall(text.lower())


def stable_hash(text: str, below: int) -> int:
    """crc32 modulo ``below``: the same on every machine and in every process."""
    return zlib.crc32(text.encode()) % below


@lru_cache(maxsize=65536)
def word_rows(word: str, num_rows: int) -> tuple[int, ...]:
    """Rows of a word: its own, then those of its n-grams."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    return tuple(stable_hash(piece, num_rows) for piece in [f"word {word}", *grams])
