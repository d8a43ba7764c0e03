import math

import pytest
import torch

from lmm.metrics.codebook import CodebookUsage, bit_shares, code_figures


def grid(*codes):
    """Indices "M 1 1" of one stream."""
    return torch.tensor(codes)[:, None, None]


def values(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def test_one_stream_by_hand():
    metric = CodebookUsage(8)
    metric.update(grid(0, 1, 2, -1))
    metric.update(grid(3, -1))
    found = values(metric)
    assert found == pytest.approx({"usage": 0.5, "perplexity": 4, "entropy": 2 / 3, "dead": 4})
    metric.update(grid(0, 0, 0, 0))  # now 5, 1, 1, 1 of 8
    entropy = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(1 / 8))
    assert values(metric)["perplexity"] == pytest.approx(math.exp(entropy))
    assert values(metric)["entropy"] == pytest.approx(entropy / math.log(8))


def test_each_stream_is_counted_by_itself():
    metric = CodebookUsage(4, parts=("arm", "leg"), num_levels=2)
    assert metric.streams == ["arm/level0", "arm/level1", "leg/level0", "leg/level1"]
    assert CodebookUsage(4, num_levels=2).streams == ["level0", "level1"]
    assert CodebookUsage(4, parts=("arm", "leg")).streams == ["arm", "leg"]
    assert CodebookUsage(4).streams == ["all"]
    # arm: level 0 always 0, level 1 all four; leg: level 0 two codes, level 1 dropped
    arm = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3]])
    leg = torch.tensor([[1, -1], [2, -1], [1, -1], [2, -1]])
    metric.update(torch.stack([arm, leg], dim=1))
    found = values(metric)
    assert {k: v for k, v in found.items() if k.startswith("usage/")} == pytest.approx(
        {"usage/arm/level0": 0.25, "usage/arm/level1": 1, "usage/leg/level0": 0.5, "usage/leg/level1": 0}
    )
    assert found["perplexity/arm/level1"] == pytest.approx(4) and found["perplexity/leg/level0"] == pytest.approx(2)
    assert math.isnan(found["perplexity/leg/level1"])
    p = torch.tensor([5, 3, 3, 1]) / 12  # together, as one codebook
    assert found["perplexity"] == pytest.approx(float(torch.exp(-(p * p.log()).sum()))) and found["usage"] == 1
    assert not any(name.startswith(("entropy/", "dead/", "bit_imbalance")) for name in found)


def test_bits_by_hand():
    counts = torch.tensor([[1, 0, 0, 3], [2, 2, 2, 2], [0, 4, 0, 4]])  # codes 00, 01, 10, 11
    assert bit_shares(counts).tolist() == [[0.75, 0.75], [0.5, 0.5], [1.0, 0.5]]
    metric = CodebookUsage(4, parts=("a", "b", "c"), bits=True)
    for part, row in enumerate(counts):
        indices = torch.full((int(row.sum()), 3, 1), -1)
        indices[:, part, 0] = torch.repeat_interleave(torch.arange(4), row)
        metric.update(indices)
    found = values(metric)
    assert [found[f"bit_imbalance/{part}"] for part in "abc"] == [0.25, 0.0, 0.25]
    assert found["bit_imbalance"] == pytest.approx(0.5 / 3)


def test_bit_shares_equal_unpacked_bits():
    codes = torch.randint(2**6, (1000,), generator=torch.Generator().manual_seed(0)) & 0b110111  # bit 3 is stuck
    expected = torch.stack([(codes >> bit & 1).float().mean() for bit in range(6)])
    assert torch.allclose(bit_shares(torch.bincount(codes, minlength=2**6)), expected) and expected[3] == 0


def test_figures_of_uniform_and_single_codes():
    found = code_figures(
        torch.stack([torch.full((512,), 7), torch.eye(512, dtype=torch.int64)[3], torch.zeros(512).long()])
    )
    assert found["perplexity"][:2].tolist() == pytest.approx([512, 1]) and found["perplexity"][2].isnan()
    assert found["entropy"][:2].tolist() == pytest.approx([1, 0]) and found["dead"].tolist() == [0, 511, 512]


def test_two_halves_make_a_whole_and_so_do_two_ranks():
    indices = torch.randint(-1, 64, (200, 3, 2), generator=torch.Generator().manual_seed(0))
    make = lambda: CodebookUsage(64, parts="abc", num_levels=2, bits=True)  # noqa: E731
    whole, halves, ranks = make(), make(), [make(), make()]
    whole.update(indices.unflatten(0, (20, 10)))
    for part, rank in ((indices[:50], ranks[0]), (indices[50:], ranks[1])):
        halves.update(part)
        rank.update(part)
    ranks[0].merge_state(ranks[1])
    assert values(halves) == values(whole) == values(ranks[0])
    assert torch.equal(whole.counts[1, 0], torch.bincount(indices[:, 1, 0][indices[:, 1, 0] >= 0], minlength=64))


def test_memory_is_bounded_at_the_largest_codebook():
    metric = CodebookUsage(2**18, parts=[f"part{i}" for i in range(5)], bits=True)
    metric.update(torch.full((4, 7, 5, 1), 2**18 - 1))
    assert metric.counts.numel() * metric.counts.element_size() == 5 * 2**18 * 8  # 10 MB
    assert metric.counts[:, 0, -1].tolist() == [28] * 5 and values(metric)["bit_imbalance"] == 0.5
