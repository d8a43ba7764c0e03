"""How good captions of motions are: BLEU 1 to 4, ROUGE-L, CIDEr and BERTScore against three references of each.

* BLEU (Papineni et al. 2002): of the corpus, without smoothing; the reference nearest in length counts.
* ROUGE-L (Lin 2004): F1 of the best reference, mean over captions, as MotionGPT; TM2T's tool (nlg-eval) weighs recall
  by β = 1.2 and takes precision and recall from different references.
* CIDEr (Vedantam et al. 2015): CIDEr-D as the COCO tool computes it, n = 1 to 4, σ = 6, times 10; papers print percent
  of that. How rare an n-gram is comes from the references of the captions judged, so it means something for a whole
  test set only. Written here, since the COCO tool brings 100 MB of Java archives and pycocotools.
* BERTScore: `lmm.metrics.bertscore`.

The COCO tool splits words with Stanford's PTBTokenizer (Java); here words are lower-cased and split at blanks and
punctuation, alike in captions and references (`words`). *Raw* references are what people wrote (MotionGPT),
*processed* ones are lemmatised (TM2T): figures of the two cannot be compared, so the kind is asked for and given back.
Sentences are no tensors, so this is a function: gather what all ranks wrote, then score it once.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torchmetrics.functional.text import bleu_score, rouge_score

from lmm.metrics.bertscore import BERTScore

WORDS = "lower case, split at blanks and punctuation"  # what `words` does, for tables
NUM_REFERENCES = 3
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'[^\W_]+")


class CaptionScores(NamedTuple):
    """The figures, and what they were measured against."""

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider: float
    bertscore_f1: float | None
    references: Literal["raw", "processed"]
    num_references: int
    words: str


def caption_scores(
    generated: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    kind: Literal["raw", "processed"],
    num_references: int = NUM_REFERENCES,
    bertscore: BERTScore | None = None,
) -> CaptionScores:
    """All figures over a test set.

    Args:
        generated: one caption of each motion; an empty one scores 0.
        references: captions of each motion that people wrote; cropped to ``num_references``, or repeated from the
            first, as the field does.
        kind: whether the references are as written or lemmatised.
        num_references: references of each caption.
        bertscore: the model to compare by, or None for no BERTScore.

    Raises:
        ValueError: not as many lists of references as captions, fewer than two captions, a motion without reference.
    """
    if len(generated) != len(references):
        raise ValueError(f"{len(generated)} captions, but references of {len(references)} motions; give one each")
    references = [repeated(captions, num_references) for captions in references]
    candidates = [words(caption) for caption in generated]
    targets = [[words(caption) for caption in captions] for captions in references]
    lines = [" ".join(candidate) for candidate in candidates]
    target_lines = [[" ".join(target) for target in group] for group in targets]
    bleu = [float(bleu_score(lines, target_lines, n_gram=n)) for n in (1, 2, 3, 4)]
    rouge = rouge_score(lines, target_lines, "best", normalizer=str, tokenizer=str.split, rouge_keys="rougeL")
    return CaptionScores(
        bleu_1=bleu[0],
        bleu_2=bleu[1],
        bleu_3=bleu[2],
        bleu_4=bleu[3],
        rouge_l=float(rouge["rougeL_fmeasure"]),
        cider=math.fsum(cider(candidates, targets)) / len(candidates),
        bertscore_f1=float(bertscore(generated, references)[:, 2].mean()) if bertscore else None,
        references=kind,
        num_references=num_references,
        words=WORDS,
    )


def words(caption: str) -> list[str]:
    """Lower-case words without punctuation; "person's" is two, "counter-clockwise" one."""
    return _WORD.findall(caption.lower())


def repeated(captions: Sequence[str], count: int) -> list[str]:
    """The first ``count`` captions; where there are fewer, again from the first.

    Raises:
        ValueError: no caption.
    """
    if not captions:
        raise ValueError("a motion has no reference caption; leave it out")
    return [captions[i % len(captions)] for i in range(count)]


def cider(
    generated: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], *, sigma: float = 6.0
) -> list[float]:
    """CIDEr-D of each caption, between 0 and 10.

    For every n: clipped tf-idf vectors of n-grams, Σ min(g, r) r / (|g| |r|), times exp(-Δ² / 2σ²), Δ the difference in
    words; mean over references and n, times 10. An n-gram's idf is the logarithm of the number of motions over the
    number of those that have it in a reference.

    Args:
        generated: words of each caption.
        references: words of each motion's references.
        sigma: words that a caption may be longer or shorter.

    Raises:
        ValueError: fewer than two motions, so that no n-gram is rarer than another.
    """
    if len(references) < 2:
        raise ValueError("CIDEr weighs n-grams by how few motions have them in a reference; give at least 2 motions")
    spread = Counter(gram for group in references for gram in {gram for target in group for gram in _grams(target)})
    scores = []
    for candidate, group in zip(generated, references, strict=True):
        vectors = _tf_idf(candidate, spread, len(references))
        total = 0.0
        for target in group:
            near = math.exp(-((len(candidate) - len(target)) ** 2) / (2 * sigma**2))
            pairs = zip(vectors, _tf_idf(target, spread, len(references)), strict=True)
            total += near * sum(_clipped_cosine(g, r) for g, r in pairs) / len(vectors)
        scores.append(10 * total / len(group))
    return scores


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    """All n-grams, n = 1 to 4."""
    return [tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1)]


def _tf_idf(words: Sequence[str], spread: Counter[tuple[str, ...]], motions: int) -> list[dict[tuple[str, ...], float]]:
    """For every n, count times idf of each n-gram; one that no reference has is as rare as one of a single motion."""
    vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(4)]
    for gram, count in Counter(_grams(words)).items():
        vectors[len(gram) - 1][gram] = count * math.log(motions / max(spread[gram], 1))
    return vectors


def _clipped_cosine(generated: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
    common = sum(
        min(value, reference[gram]) * reference[gram] for gram, value in generated.items() if gram in reference
    )
    norms = math.sqrt(sum(v * v for v in generated.values()) * sum(v * v for v in reference.values()))
    return common / norms if norms else 0.0
