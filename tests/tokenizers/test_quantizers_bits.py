"""Quantizers without a codebook: indices, entropies against brute force, levels."""

import itertools
import math

import pytest
import torch

from lmm.tokenizers.quantizers import EntropyOptions, FiniteScalarQuantizer, LookupFreeQuantizer
from lmm.tokenizers.quantizers.entropy import BitEntropy

from .test_quantizers import MAKE, everything, latents


def test_lookup_free_bits_and_index_order():
    quantizer = LookupFreeQuantizer(4, codebook_size=16)
    z = torch.tensor([[0.3, -1.0, 0.0, 2.0]]).view(1, 1, 1, 4)
    output = quantizer(z, everything(z))
    assert output.latents.flatten().tolist() == [1.0, -1.0, -1.0, 1.0]  # zero maps to -1
    assert output.indices.item() == 1 + 8  # Σ 2^(i-1)·1{z_i > 0}: the first channel is the lowest bit
    codes = quantizer.decode(torch.arange(16).view(1, 16, 1, 1))
    assert torch.equal(quantizer(codes, everything(codes)).indices.flatten(), torch.arange(16))


def test_bit_orders_and_sub_codes_spell_the_same_bits():
    z = latents(3, 7, 2, 6)
    bits = (z > 0).long()
    whole = LookupFreeQuantizer(6, codebook_size=64, bit_order="msb")
    assert whole.bit_order == "msb"
    assert torch.equal(whole(z, everything(z)).indices[..., 0], bits @ torch.tensor([32, 16, 8, 4, 2, 1]))
    for order, places in (("lsb", [1, 2, 4]), ("msb", [4, 2, 1])):
        two = LookupFreeQuantizer(6, codebook_size=64, bit_order=order, sub_codes=2)
        assert (two.num_levels, two.codebook_size) == (2, 8)
        expected = bits.unflatten(-1, (2, 3)) @ torch.tensor(places)  # the first sub-code holds the first channels
        output = two(z, everything(z))
        assert torch.equal(output.indices, expected)
        assert torch.equal(two.decode(expected), bits * 2.0 - 1)
        assert output.terms == whole(z, everything(z)).terms  # the loss is that of all 2^6 codes


def softmax_entropies(z: torch.Tensor, codes: torch.Tensor, temperature: float):
    p = torch.softmax(2 * z @ codes.T / temperature, -1)
    return -(p * p.log()).sum(-1).mean(), -(p.mean(0) * p.mean(0).log()).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("scale", [1.0, 11**-0.5])
def test_entropies_equal_the_softmax_over_all_codes(bits, scale):
    z = (latents(700, bits).double() * 0.4).requires_grad_()
    sample, batch = BitEntropy(EntropyOptions())(z * (4 * scale / 0.7))
    codes = torch.tensor(list(itertools.product([-scale, scale], repeat=bits)), dtype=torch.float64)
    expected_sample, expected_batch = softmax_entropies(z, codes, 0.7)
    assert torch.allclose(sample, expected_sample, atol=1e-9) and torch.allclose(batch, expected_batch, atol=1e-9)
    for mine, theirs in ((sample, expected_sample), (batch, expected_batch)):
        mine, theirs = (
            torch.autograd.grad(mine, z, retain_graph=True)[0],
            torch.autograd.grad(theirs, z, retain_graph=True)[0],
        )
        assert torch.allclose(mine, theirs, rtol=1e-7, atol=1e-12)


def test_entropy_by_groups_is_the_sum_of_their_marginals():
    z = 10 * latents(300, 6).double()
    z[:, 3:] = z[:, :3]  # the groups are copies of each other: the sum counts everything twice
    _, grouped = BitEntropy(EntropyOptions(groups=2))(z)
    _, first = BitEntropy(EntropyOptions())(z[:, :3])
    _, exact = BitEntropy(EntropyOptions())(z)
    assert torch.allclose(grouped, 2 * first, atol=1e-9) and grouped > exact + 0.1


def test_entropy_of_a_draw_of_latents():
    entropy, z = BitEntropy(EntropyOptions(marginal_samples=2000)), latents(4000, 8)
    exact = entropy.eval()(z)
    torch.manual_seed(0)
    drawn = entropy.train()(z)
    assert drawn[0] == exact[0] and 0 < abs(drawn[1] - exact[1]) < 0.02
    few = BitEntropy(EntropyOptions(marginal_samples=4000))(z)
    assert few == exact  # not more than there are


def test_entropy_weight_comes_down_in_a_line():
    quantizer = MAKE["lookup-free, annealed"]()
    factors = []
    for z in latents(6, 1, 8, 1, 5):
        factors.append(float(quantizer.entropy.factor()))
        output = quantizer(z, everything(z))
        entropy = 0.1 * (output.terms["sample_entropy"] - output.terms["batch_entropy"])
        assert torch.allclose(output.loss, 0.25 * output.terms["commitment"] + factors[-1] * entropy)
        quantizer.update(z, output, everything(z))
    assert factors == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
    assert "entropy.updates" in quantizer.state_dict()
    assert not MAKE["lookup-free"]().state_dict()  # nothing that checkpoints of before would lack


@pytest.mark.parametrize("bits", [18, 20])
def test_entropy_at_large_codebooks_and_extreme_latents(bits):
    entropy = BitEntropy(EntropyOptions())
    _, batch = entropy(torch.zeros(3000, bits))
    assert math.isclose(float(batch), bits * math.log(2), rel_tol=1e-5)
    z = torch.full((64, bits), 4e6).requires_grad_()
    sample, batch = entropy(z)
    (sample - batch).backward()
    assert torch.isfinite(z.grad).all() and float(sample) == 0 and float(batch) == 0


def test_codebooks_that_are_not_bits_are_refused():
    for size in (1000, 1, 2**21):
        with pytest.raises(ValueError, match="power of two"):
            LookupFreeQuantizer(4, codebook_size=size)
    with pytest.raises(ValueError, match="divide"):
        LookupFreeQuantizer(4, codebook_size=2**14, sub_codes=3)


@pytest.mark.parametrize(
    "levels, size", [(None, 64000), ([8, 8, 8, 6, 5], 15360), ([7, 5, 5, 5, 5], 4375), ([8, 6, 5], 240)]
)
def test_finite_scalar_codes_are_a_bijection_of_the_published_numbers(levels, size):
    quantizer = FiniteScalarQuantizer(len(levels or "888555"), levels=levels)
    assert quantizer.codebook_size == size
    indices = torch.arange(size).view(1, -1, 1, 1)
    codes = quantizer.decode(indices)
    assert codes.flatten(0, 2).unique(dim=0).shape[0] == size and codes.abs().max() <= 1
    assert torch.equal(codes[0, 1, 0, 1:], codes[0, 0, 0, 1:])  # the first channel is fastest
    wide = torch.atanh((codes * quantizer.middle + quantizer.offset) / quantizer.reach) - quantizer.shift
    assert torch.equal(quantizer(wide, everything(wide)).indices, indices)


@pytest.mark.parametrize(
    "arguments", [{"nominal_size": 1000}, {"levels": [8, 2]}, {"levels": []}, {"levels": [4096] * 3}]
)
def test_levels_that_do_not_work_are_refused(arguments):
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(4, **arguments)
