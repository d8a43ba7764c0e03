"""How alike two sentences are by their words alone, without any model: 1 - cosine of tf-idf vectors.

Words are stems without articles (`lmm.data.check.text.bag`); tf is a word's count, idf = ln((1 + n) / (1 + df)) + 1
over the n different captions of a corpus, vectors have length 1. 0: the same words, 1: no word in common.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmm.data.check.text import bag, words

_AT_ONCE = 2048  # captions whose vectors are dense at a time


class Wording:
    """Word statistics of a corpus.

    Args:
        corpus: captions; repetitions count once.
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        bags = {bag(text) for text in corpus}
        self.count = len(bags)
        self.frequency = Counter(word for words in bags for word in set(words))

    def vectors(self, texts: Sequence[str], vocabulary: dict[str, int]) -> Float[Tensor, "N V"]:
        """Unit vectors over a vocabulary; a sentence without any word is 0."""
        out = torch.zeros(len(texts), len(vocabulary))
        for row, text in enumerate(texts):
            for word, count in Counter(bag(text)).items():
                out[row, vocabulary[word]] = count * (math.log((1 + self.count) / (1 + self.frequency[word])) + 1)
        return torch.nn.functional.normalize(out, dim=-1)

    def distances(self, texts: Sequence[str], others: Sequence[str]) -> Float[Tensor, "N M"]:
        """1 - cosine of every pair."""
        vocabulary = {word: place for place, word in enumerate(sorted({w for t in (*texts, *others) for w in bag(t)}))}
        own = self.vectors(texts, vocabulary)
        parts = [own @ self.vectors(others[i : i + _AT_ONCE], vocabulary).T for i in range(0, len(others), _AT_ONCE)]
        return (1 - torch.cat(parts, dim=-1)).clamp_min(0)

    def nearest(self, texts: Sequence[str], others: Sequence[str]) -> Float[Tensor, " N"]:
        """Distance of each text to the nearest of the others, to 6 decimals."""
        different = list({bag(text): text for text in others}.values())
        parts = [different[i : i + _AT_ONCE] for i in range(0, len(different), _AT_ONCE)]
        nearest = torch.stack([self.distances(texts, part).amin(-1) for part in parts]).amin(0)
        return nearest.double().round(decimals=6)


def identical(texts: Sequence[str]) -> Bool[Tensor, "N N"]:
    """Which sentences have the same words in the same order; case and punctuation do not count."""
    numbers: dict[tuple[str, ...], int] = {}
    same = torch.tensor([numbers.setdefault(tuple(words(text)), len(numbers)) for text in texts])
    return same[:, None] == same


def leaked(texts: Sequence[str], train: Iterable[str]) -> Bool[Tensor, " N"]:
    """Which sentences are in train word for word; case and punctuation do not count."""
    known = {tuple(words(text)) for text in train}
    return torch.tensor([tuple(words(text)) in known for text in texts], dtype=torch.bool)
