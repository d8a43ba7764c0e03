"""Losses against numpy, loops and torch.distributions; two ranks against one; what counts as the same caption."""

import itertools
import math
import os
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing
from transformers import BertModel

from lmm.evaluators.losses import InfoNCE, Margin, gaussian_kl
from lmm.evaluators.similarity import SentenceSimilarity, WordOverlap
from tests.evaluators.test_networks import make_bert

CAPTIONS = ["a man walks", "a man runs", "a man walks", "someone sits down", "jumping"]


@pytest.fixture
def latents():
    torch.manual_seed(0)
    return torch.randn(2, 5, 4)


def test_infonce_leaves_alike_pairs_out(latents):
    texts, motions = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in latents.double().numpy())
    total = 0.0
    for a, b in ((texts, motions), (motions, texts)):
        for i in range(5):
            others = [j for j in range(5) if j == i or CAPTIONS[j] != CAPTIONS[i]]
            total -= math.log(math.exp(a[i] @ b[i] / 0.2) / sum(math.exp(a[i] @ b[j] / 0.2) for j in others)) / 10
    loss = InfoNCE(temperature=0.2)
    assert float(loss(*latents, CAPTIONS)) == pytest.approx(total, rel=1e-5)
    assert float(loss(*latents, [str(i) for i in range(5)])) > total, "all others are pushed apart"
    assert torch.allclose(loss.points(latents[0]).norm(dim=1), torch.ones(5))
    with pytest.raises(ValueError, match="temperature must be positive"):
        InfoNCE(temperature=0.0)


def test_margin(latents):
    texts, motions = (x.double().numpy() for x in latents)
    right = np.mean([np.sum((texts[i] - motions[i]) ** 2) for i in range(5)])
    wrong = [
        max(0, 3 - np.linalg.norm(texts[i] - motions[j])) ** 2
        for i in range(5)
        for j in range(5)
        if CAPTIONS[i] != CAPTIONS[j]
    ]
    loss = Margin(margin=3.0)
    assert float(loss(*latents, CAPTIONS)) == pytest.approx(right + np.mean(wrong), rel=1e-5)
    same = latents[0].clone().requires_grad_()
    loss(same, same, CAPTIONS).backward()
    assert same.grad.isfinite().all() and torch.equal(loss.points(latents[0]), latents[0])


def test_kl_is_that_of_gaussians():
    torch.manual_seed(0)
    a, b, c, d = torch.randn(4, 3, 5)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(a, (b / 2).exp()), normal(c, (d / 2).exp())).mean()
    assert torch.allclose(gaussian_kl(a, b, c, d), expected, atol=1e-5)


def learn(latents, captions):
    texts, motions = (x.clone().requires_grad_() for x in latents)
    loss_function = InfoNCE()
    loss_function.similarity.update(captions)
    loss = loss_function(texts, motions, captions)
    loss.backward()
    return {"loss": loss.detach(), "gradient": torch.stack([texts.grad, motions.grad])} | loss_function.state_dict()


def work(rank, latents, captions, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29547"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(learn(latents[:, 2 * rank : 2 * rank + 2], captions[2 * rank : 2 * rank + 2]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_are_one_batch(latents, tmp_path):
    """DDP takes the mean of the ranks' gradients: a rank's own rows must weigh as much as there are ranks."""
    latents, captions = latents[:, :4], CAPTIONS[:4]
    context = torch.multiprocessing.start_processes(
        work, (latents, captions, tmp_path), nprocs=2, join=False, start_method="fork"
    )
    deadline = time.monotonic() + 60
    while not context.join(timeout=1):
        assert time.monotonic() < deadline, "the ranks wait for each other"
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = learn(latents, captions)
    assert torch.allclose(torch.cat([rank["gradient"] for rank in ranks], dim=1) / 2, alone["gradient"], atol=1e-6)
    for rank in ranks:
        assert torch.allclose(rank["loss"], alone["loss"], atol=1e-6)
        for name in ("similarity.num_texts", "similarity.num_with"):
            assert torch.equal(rank[name], alone[name])


def tf_idf_cosine(a, b, seen):
    """By names of terms instead of rows, with dictionaries."""

    def terms(text):
        found = text.lower().replace(".", "").replace(",", "").split()
        return found + list(itertools.pairwise(found))

    def vector(text):
        return {
            t: terms(text).count(t) * (math.log((1 + len(seen)) / (1 + sum(t in terms(s) for s in seen))) + 1)
            for t in terms(text)
        }

    x, y = vector(a), vector(b)
    dot = sum(x[t] * y.get(t, 0) for t in x)
    return dot / math.sqrt(sum(v * v for v in x.values()) * sum(v * v for v in y.values()))


def test_word_overlap_is_tf_idf():
    seen = ["a man walks, then jumps", "a man jumps, then walks", "a woman sits down", "A man walks, then jumps."]
    similarity = WordOverlap(num_terms=2**20)  # no two terms in one row
    assert similarity.alike(similarity(seen))[0].tolist() == [True, False, False, True], "before anything was counted"
    similarity.update(seen[:2])
    similarity.update(seen[2:])
    vectors = similarity(seen)
    cosines = vectors @ vectors.mT
    for i, a in enumerate(seen):
        for j, b in enumerate(seen):
            assert float(cosines[i, j]) == pytest.approx(tf_idf_cosine(a, b, seen), abs=1e-5)
    assert cosines[0, 1] < 0.8, "the order of what happens matters"
    left, right = similarity(["a man raises the left hand", "a man raises the right hand"])
    assert float(left @ right) < similarity.threshold
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        WordOverlap(threshold=1.0)


def test_sentence_similarity_is_the_cosine_of_mean_tokens(tmp_path):
    similarity = SentenceSimilarity(str(make_bert(tmp_path)), threshold=0.99)
    texts = ["a person walks left", "jumps", "a person walks left"]
    vectors = similarity(texts)
    states = [BertModel.from_pretrained(tmp_path).eval()(torch.tensor([ids])).last_hidden_state[0].mean(0)
              for ids in ([2, 3, 4, 5], [8])]  # fmt: skip
    cosine = torch.nn.functional.cosine_similarity(states[0], states[1], dim=0)
    assert torch.allclose(vectors[0] @ vectors[1], cosine, atol=1e-5)
    assert similarity.alike(vectors).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert not list(similarity.parameters()) and not similarity.state_dict()
