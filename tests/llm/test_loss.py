"""Chunked linear cross-entropy against `torch.nn.functional.cross_entropy` over all logits."""

import pytest
import torch
from torch.nn import functional

from lmm.llm.loss import linear_cross_entropy

N, WIDTH, TEXT, MOTION = 37, 16, 50, 1100  # more motion rows than a block of the product


def make(dtype=torch.float64, *, bias=False, frozen=()):
    draw = torch.Generator().manual_seed(1)

    def tensor(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    hidden = tensor(N, WIDTH).requires_grad_()
    tables = [(tensor(TEXT, WIDTH), tensor(TEXT) if bias else None), (tensor(MOTION, WIDTH), None)]
    for i, table in enumerate(tables):
        for part in table:
            if part is not None:
                part.requires_grad_(i not in frozen)
    labels = torch.randint(0, TEXT + MOTION, (N,), generator=draw)
    return hidden, tables, labels


def plain(hidden, tables, labels, *, weights=None, scale=1.0, cap=None):
    """All logits at once; the weighted mean by hand."""
    logits = torch.cat([functional.linear(hidden, *table) for table in tables], -1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    nll = functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.ones_like(nll) if weights is None else weights.to(nll)
    return (nll * weights).sum() / weights.sum(), nll, logits.argmax(-1) == labels


def leaves(hidden, tables):
    return [hidden, *(p for table in tables for p in table if p is not None and p.requires_grad)]


@pytest.mark.parametrize("chunk", [None, 1, 5, 37, 100])
@pytest.mark.parametrize(
    "options, bias, frozen",
    [
        ({}, False, ()),
        ({"scale": 0.3, "cap": 2.0}, True, ()),
        ({"scale": 0.5}, True, (0,)),
        ({"cap": 1.0}, False, (1,)),
        ({"weights": torch.arange(N) / 7.0}, False, (0, 1)),
    ],
    ids=["plain", "scaled, capped, bias", "scaled, text frozen", "capped, motion frozen", "weighted, all frozen"],
)
def test_value_and_gradients_are_those_of_all_logits(options, bias, frozen, chunk):
    parts = make(bias=bias, frozen=frozen)
    expected, nll, correct = plain(*parts, **options)
    losses = linear_cross_entropy(*parts, **options, chunk=chunk)
    assert torch.allclose(losses.loss, expected, rtol=1e-12, atol=0)
    assert torch.allclose(losses.nll, nll, rtol=1e-12, atol=1e-12)
    assert torch.equal(losses.correct, correct) and torch.equal(losses.labels, parts[2])
    assert not losses.nll.requires_grad
    inputs = leaves(*parts[:2])
    assert len(inputs) == 1 + (0 not in frozen) * (1 + bias) + (1 not in frozen)
    wanted = torch.autograd.grad(expected * 3, inputs)
    found = torch.autograd.grad(losses.loss * 3, inputs)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


def test_float32_is_close_and_a_tied_table_adds_up():
    hidden, tables, labels = make(torch.float32)
    table = tables[0][0].detach()[:, :WIDTH].clone().requires_grad_()
    ids = torch.arange(N) % TEXT
    results = []
    for loss in (lambda h, t: plain(h, t, labels)[0], lambda h, t: linear_cross_entropy(h, t, labels, chunk=10).loss):
        embedded = functional.embedding(ids, table) + hidden
        value = loss(embedded, [(table, None), tables[1]])
        results.append((value, *torch.autograd.grad(value, [table, hidden, tables[1][0]])))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16 weights"])
def test_bfloat16_has_float32_statistics(autocast):
    hidden, tables, labels = make(torch.float32 if autocast else torch.bfloat16)
    tables[1] = (tables[1][0].detach().float().requires_grad_(), None)  # rows that train beside a bfloat16 base
    exact = plain(hidden.double(), [(t.double(), None) for t, _ in tables], labels)[0]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = linear_cross_entropy(hidden, tables, labels, chunk=10)
    assert losses.loss.dtype == losses.nll.dtype == torch.float32
    assert torch.allclose(losses.loss.double(), exact, rtol=2e-2)
    inputs = leaves(hidden, tables)
    found, wanted = torch.autograd.grad(losses.loss, inputs), torch.autograd.grad(exact, inputs)
    for leaf, a, b in zip(inputs, found, wanted, strict=True):
        assert a.dtype == leaf.dtype
        assert (a.double() - b.double()).norm() < 2e-2 * b.double().norm()


def test_extreme_logits_stay_finite():
    hidden, tables, labels = make(torch.float32)
    far = hidden.detach() * 1e4
    losses = linear_cross_entropy(far.requires_grad_(), tables, labels)
    assert torch.allclose(losses.nll, plain(far, tables, labels)[1])
    assert losses.nll.isfinite().all() and torch.autograd.grad(losses.loss, far)[0].isfinite().all()


def test_no_gradient_is_made_where_none_is_asked_for(monkeypatch):
    hidden, tables, labels = make()
    with torch.no_grad():
        monkeypatch.setattr(torch, "zeros_like", lambda *_, **__: pytest.fail("a table's gradient was made"))
        losses = linear_cross_entropy(hidden, tables, labels)
    assert not losses.loss.requires_grad


def test_a_second_backward_pass_raises():
    hidden, tables, labels = make()
    loss = linear_cross_entropy(hidden, tables, labels).loss
    torch.autograd.grad(loss, hidden, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, hidden)


def test_logits_of_all_positions_never_exist(monkeypatch):
    """No tensor of the forward or backward pass is larger than a chunk's logits or a table."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                each.numel() for each in (out if isinstance(out, tuple | list) else [out]) if hasattr(each, "numel")
            )
            return out

    hidden, tables, labels = make()
    with Record():
        linear_cross_entropy(hidden, tables, labels, chunk=4).loss.backward()
    assert max(sizes) <= max(4 * (TEXT + MOTION), MOTION * WIDTH) < N * (TEXT + MOTION)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": torch.zeros(0, dtype=torch.int64), "hidden": torch.zeros(0, WIDTH)}, "nothing to predict"),
        ({"labels": torch.full((N,), TEXT + MOTION)}, "labels go from 1150"),
        ({"labels": torch.full((N,), -100)}, "labels go from -100"),
        ({"weights": torch.zeros(N)}, "weights"),
        ({"weights": -torch.ones(N)}, "weights"),
    ],
)
def test_what_cannot_be_computed_raises(change, message):
    hidden, tables, labels = make(torch.float32)
    arguments = {"hidden": hidden, "tables": tables, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**arguments)


def test_packed_weights_of_a_quantized_head_raise():
    hidden, _, labels = make(torch.float32)
    with pytest.raises((ValueError, TypeError), match=r"quantized|tables"):  # shape checks of tests come first
        linear_cross_entropy(hidden, [(torch.zeros(TEXT * WIDTH // 2, 1, dtype=torch.uint8), None)], labels)
