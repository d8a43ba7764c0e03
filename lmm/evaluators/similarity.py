"""Which captions say the same: pairs in a batch that are not to be pushed apart (TMR, Petrovich et al. 2023, 3.2).

Sentences become vectors of length 1; those whose cosine exceeds a threshold are alike, identical ones always are.
"""

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.evaluators.networks.sentence import FrozenSentences
from lmm.evaluators.networks.words import stable_hash, words
from lmm.training import sum_over_ranks


class TextSimilarity(nn.Module, ABC):
    """Captions -> vectors of length 1.

    Args:
        threshold: captions with a greater cosine are alike; below 1, so that identical ones are.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        self.threshold = threshold

    @abstractmethod
    def forward(self, texts: list[str]) -> Float[Tensor, "B F"]:
        """Vectors of length 1."""

    def update(self, texts: list[str]) -> None:
        """Learn from the captions of a training batch, once each."""

    def alike(self, vectors: Float[Tensor, "N F"]) -> Bool[Tensor, "N N"]:
        """Pairs that say the same."""
        return vectors @ vectors.mT > self.threshold


class WordOverlap(TextSimilarity):
    """tf-idf of words and of pairs of words in a row, hashed: needs no download.

    A term's weight is its count times ln((1 + n) / (1 + n_term)) + 1, where n captions were seen in training so far and
    n_term of them had it; the counts are buffers. Pairs of words tell "walks, then jumps" from "jumps, then walks".

    Args:
        threshold: see `TextSimilarity`.
        num_terms: F.
    """

    num_texts: Tensor
    num_with: Tensor

    def __init__(self, threshold: float = 0.95, *, num_terms: int = 8192) -> None:
        super().__init__(threshold)
        self.register_buffer("num_texts", torch.zeros((), dtype=torch.float64))
        self.register_buffer("num_with", torch.zeros(num_terms, dtype=torch.float64))

    def forward(self, texts: list[str]) -> Float[Tensor, "B F"]:
        """tf-idf vectors."""
        idf = ((1 + self.num_texts) / (1 + self.num_with)).log() + 1
        return F.normalize(self._counts(texts) * idf.float(), dim=-1)

    def update(self, texts: list[str]) -> None:
        """Count the captions of all ranks."""
        seen = torch.cat([(self._counts(texts) > 0).sum(0), torch.tensor([len(texts)], device=self.num_with.device)])
        seen = sum_over_ranks(seen.double())
        self.num_with += seen[:-1]
        self.num_texts += seen[-1]

    def _counts(self, texts: list[str]) -> Float[Tensor, "B F"]:
        counts = torch.zeros(len(texts), len(self.num_with))
        for row, text in enumerate(texts):
            found = words(text)
            for term in [*found, *(f"{a} {b}" for a, b in pairwise(found))]:
                counts[row, stable_hash(term, len(self.num_with))] += 1
        return counts.to(self.num_with.device)


class SentenceSimilarity(TextSimilarity):
    """Cosine of a frozen Hugging Face encoder's sentence vectors.

    TMR takes "sentence-transformers/all-mpnet-base-v2" and 0.8, which in its code is the cosine mapped to [0, 1]: a
    cosine of 0.6.

    Args:
        source: hub name or folder.
        threshold: see `TextSimilarity`.
    """

    where: Tensor

    def __init__(self, source: str, threshold: float = 0.6) -> None:
        super().__init__(threshold)
        self._sentences = (FrozenSentences(source),)  # in a tuple, because it trains nothing and is saved nowhere
        self.register_buffer("where", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def forward(self, texts: list[str]) -> Float[Tensor, "B F"]:
        """Sentence vectors."""
        (sentences,) = self._sentences
        sentences.to(self.where.device)
        return F.normalize(sentences.mean(texts), dim=-1)
