import math
import random

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from lmm.metrics.bertscore import BERTScore
from lmm.metrics.captions import CaptionScores, caption_scores, cider, repeated, words

WORDS = "a person walks forward then turns left and sits down on the chair man waves his right hand slowly".split()


def sentences(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]


def captions(count=20):
    flat = sentences(3 * count, seed=1)
    return sentences(count), [flat[3 * i : 3 * i + 3] for i in range(count)]


def test_words():
    assert words("A person's LEFT arm, then (slowly) counter-clockwise... 3 times!") == [
        "a", "person", "'s", "left", "arm", "then", "slowly", "counter-clockwise", "3", "times"]  # fmt: skip
    assert words("walks_to - the door--") == ["walks", "to", "the", "door"] and words(" .") == []


def test_three_references():
    assert repeated(["a", "b", "c", "d"], 3) == ["a", "b", "c"]
    assert repeated(["a", "b"], 3) == ["a", "b", "a"] and repeated(["a"], 3) == ["a", "a", "a"]
    with pytest.raises(ValueError, match="no reference"):
        repeated([], 3)


def test_bleu_and_rouge_by_hand():
    generated = ["The person walks.", "a man sits down"]
    references = [["the person runs fast"], ["a man sits down"]]
    found = caption_scores(generated, references, kind="raw", num_references=1)
    penalty = math.exp(1 - 8 / 7)  # 7 words against 8
    assert found.bleu_1 == pytest.approx(penalty * 6 / 7, rel=1e-6)
    assert found.bleu_2 == pytest.approx(penalty * math.sqrt(6 / 7 * 4 / 5), rel=1e-6)
    assert found.bleu_4 == pytest.approx(penalty * (6 / 7 * 4 / 5 * 2 / 3 * 1) ** 0.25, rel=1e-6)
    first = 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)  # F1 of the subsequence "the person"
    assert found.rouge_l == pytest.approx((first + 1) / 2)
    assert found.bertscore_f1 is None and found.references == "raw" and found.num_references == 1
    assert caption_scores(generated, references, kind="processed").references == "processed"


def test_the_best_reference_counts():
    near = [["far away things", "the person walks"], ["a man sits down", "x y"]]
    found = caption_scores(["the person walks", "a man sits down"], near, kind="raw", num_references=2)
    assert [found.bleu_1, found.bleu_3, found.bleu_4, found.rouge_l] == pytest.approx([1] * 4)


def dense_cider(generated, references):
    """CIDEr-D by dense tf-idf vectors."""
    scores = np.zeros(len(generated))
    for n in range(1, 5):
        grams = lambda text: [tuple(text.split()[i : i + n]) for i in range(len(text.split()) - n + 1)]  # noqa: B023, E731
        vocabulary = sorted({g for group in [*references, generated] for text in group for g in grams(text)})
        column = {gram: i for i, gram in enumerate(vocabulary)}

        def counts(text, grams=grams, column=column):
            vector = np.zeros(len(column))
            np.add.at(vector, [column[gram] for gram in grams(text)], 1)
            return vector

        frequency = sum((np.sum([counts(text) for text in group], axis=0) > 0).astype(float) for group in references)
        idf = np.log(len(references)) - np.log(np.maximum(frequency, 1))
        for i, (text, group) in enumerate(zip(generated, references, strict=True)):
            for reference in group:
                g, r = counts(text) * idf, counts(reference) * idf
                norm = np.linalg.norm(g) * np.linalg.norm(r)
                delta = len(text.split()) - len(reference.split())
                if norm:
                    scores[i] += np.minimum(g, r) @ r / norm * np.exp(-(delta**2) / 72) / len(group)
    return 10 * scores / 4


def test_cider_is_the_dense_computation():
    generated, references = captions()
    generated[3], generated[4], generated[5] = references[3][1], " ".join([references[4][0]] * 2), ""
    found = cider([words(text) for text in generated], [[words(text) for text in group] for group in references])
    assert found == pytest.approx(dense_cider(generated, references).tolist(), abs=1e-12)
    assert found[5] == 0 and max(found) < 10


def test_cider_by_hand():
    generated, references = [["walk"], ["a"]], [[["walk"]], [["a", "run"]]]
    near = math.exp(-1 / 72)  # one word too short; "a" and "run" are equally rare, so the cosine is 1/√2
    assert cider(generated, references) == pytest.approx([10 / 4, 10 / 4 * near / math.sqrt(2)])
    with pytest.raises(ValueError, match="at least 2 motions"):
        cider(generated[:1], references[:1])


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match="2 captions, but references of 1"):
        caption_scores(["a", "b"], [["a"]], kind="raw")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT with random weights."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=5 + len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=40)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def one_by_one(folder, generated, references):
    """The paper's equations, pair by pair, each sentence through the model alone."""
    tokenizer, model = BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    flat = [text for group in references for text in group]
    ids = {text: tokenizer(text)["input_ids"] for text in {*generated, *flat}}
    idf = {i: -math.log((sum(i in ids[text] for text in flat) + 1) / (len(flat) + 1)) for i in range(5 + len(WORDS))}
    states = {}
    for text in ids:
        with torch.no_grad():
            hidden = model(torch.tensor([ids[text]]), output_hidden_states=True).hidden_states[2][0].double()
        states[text] = (hidden / hidden.norm(dim=-1, keepdim=True)).numpy()

    def side(a, b):
        best = (states[a] @ states[b].T).max(1)
        weights = np.array([idf[i] for i in ids[a]])
        return float(best @ weights / weights.sum()) if weights.sum() else 0.0

    scores = []
    for text, group in zip(generated, references, strict=True):
        pairs = [(side(text, other), side(other, text)) for other in group]
        rows = [(p, r, 2 * p * r / (p + r) if p + r else 0.0) for p, r in pairs]
        scores.append(np.max(rows, axis=0))
    return np.array(scores)


def test_bertscore_is_the_papers_whatever_the_batch(folder):
    generated, references = captions(12)
    generated[4] = references[4][2]
    expected = one_by_one(folder, generated, references)
    for batch_size in (64, 5):
        found = BERTScore(folder, layer=2, baseline=None, batch_size=batch_size)(generated, references)
        assert np.allclose(found, expected, atol=1e-5)
    assert found[4].tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    scaled = BERTScore(folder, layer=2, baseline=(0.5, 0.4, 0.3))(generated, references)
    assert np.allclose(scaled, (expected - [0.5, 0.4, 0.3]) / [0.5, 0.6, 0.7], atol=1e-5)
    scores = caption_scores(generated, references, kind="raw", bertscore=BERTScore(folder, layer=2, baseline=None))
    assert isinstance(scores, CaptionScores)
    assert scores.bertscore_f1 == pytest.approx(expected[:, 2].mean(), abs=1e-5)


def test_bertscore_of_an_empty_caption_is_nought(folder):
    generated, references = captions(4)
    generated[1] = ""
    found = BERTScore(folder, layer=2, baseline=None)(generated, references)
    assert found[1].tolist() == [0, 0, 0] and torch.isfinite(found).all() and (found[0] > 0).all()


def test_bertscore_says_what_is_missing(folder, tmp_path):
    with pytest.raises(ValueError, match="3 layers, there is no layer 17"):
        BERTScore(folder)
    with pytest.raises(ValueError, match="give its folder"):
        BERTScore(str(tmp_path))
