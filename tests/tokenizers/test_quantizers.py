import itertools
import math

import pytest
import torch

from lmm.tokenizers.quantizers import LookupFreeQuantizer, ResidualQuantizer, VectorQuantizer

MAKE = {
    "vector": lambda c: VectorQuantizer(c, codebook_size=8),
    "residual": lambda c: ResidualQuantizer(c, codebook_size=8, num_levels=3),
    "lookup-free": lambda c: LookupFreeQuantizer(c, codebook_size=2**5),
    "lookup-free, projected": lambda c: LookupFreeQuantizer(c + 2, codebook_size=2**5),
}


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def everything(z: torch.Tensor) -> torch.Tensor:
    return torch.ones(z.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("name", MAKE)
def test_shapes_decode_and_straight_through(name):
    quantizer = MAKE[name](5).eval()
    z = latents(2, 6, 3, 5 if "projected" not in name else 7).requires_grad_()
    output = quantizer(z, everything(z))
    assert output.latents.shape == z.shape
    assert output.indices.shape == (2, 6, 3, quantizer.num_levels)
    assert 0 <= output.indices.min() and output.indices.max() < quantizer.codebook_size
    assert torch.allclose(quantizer.decode(output.indices), output.latents, atol=1e-5)
    output.latents.sum().backward()
    if "projected" not in name:
        assert torch.allclose(z.grad, torch.ones_like(z))  # the gradient passes as through the identity
    else:
        assert (z.grad.abs() > 0).any()


@pytest.mark.parametrize("name", MAKE)
def test_padding_changes_nothing(name):
    quantizer = MAKE[name](5).eval()
    z = latents(2, 6, 3, 5 if "projected" not in name else 7)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    wild = torch.where(mask[..., None, None], z, torch.full_like(z, 1e4))
    a, b = quantizer(z, mask), quantizer(wild, mask)
    assert torch.equal(a.indices[mask], b.indices[mask]) and a.loss == b.loss
    for key in a.terms:
        assert a.terms[key] == b.terms[key]


def test_vector_is_the_brute_force_nearest():
    quantizer = VectorQuantizer(5, codebook_size=50)
    z = latents(3, 7, 2, 5)
    distances = (z[..., None, :] - quantizer.codebook.codes).square().sum(-1)
    assert torch.equal(quantizer(z, everything(z)).indices[..., 0], distances.argmin(-1))


def test_residual_levels_are_greedy():
    quantizer = ResidualQuantizer(5, codebook_size=20, num_levels=4).eval()
    z = latents(3, 7, 1, 5)
    output, rest = quantizer(z, everything(z)), z.clone()
    for level, codebook in enumerate(quantizer.levels):
        nearest = (rest[..., None, :] - codebook.codes).square().sum(-1).argmin(-1)
        assert torch.equal(output.indices[..., level], nearest)
        rest = rest - codebook.codes[nearest]
    prefix = output.indices.clone()
    prefix[..., 2:] = -1
    two = sum(c.codes[output.indices[..., i]] for i, c in enumerate(list(quantizer.levels)[:2]))
    assert torch.allclose(quantizer.decode(prefix), two, atol=1e-6)


def test_quantize_dropout_drops_a_tail_of_levels():
    quantizer = ResidualQuantizer(5, codebook_size=8, num_levels=4, dropout=1.0)
    z, depths = latents(2, 4, 1, 5), set()
    for seed in range(40):
        torch.manual_seed(seed)
        used = (quantizer(z, everything(z)).indices >= 0).flatten(0, 2)
        assert (used == used[0]).all() and used[0].int().diff().max() <= 0  # a prefix, the same for the batch
        depths.add(int(used[0].sum()))
    assert depths == {1, 2, 3, 4}
    assert (quantizer.eval()(z, everything(z)).indices >= 0).all()


def test_ema_is_the_published_update():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, codebook_size=3, decay=0.9, reset_threshold=0.0)
    codebook = quantizer.codebook
    codebook.started.fill_(True)
    before, z = codebook.codes.clone(), latents(4, 8, 1, 4)
    quantizer.update(z, quantizer(z, everything(z)), everything(z))
    one_hot = torch.nn.functional.one_hot((z.reshape(-1, 1, 4) - before).square().sum(-1).argmin(-1), 3).float()
    counts = 0.9 * torch.ones(3) + 0.1 * one_hot.sum(0)
    sums = 0.9 * before + 0.1 * one_hot.T @ z.reshape(-1, 4)
    assert torch.allclose(codebook.codes, sums / counts[:, None], atol=1e-6)


def test_dead_codes_become_latents_of_the_batch():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, codebook_size=64, decay=0.5, reset_threshold=0.5)
    z = latents(8, 8, 1, 4) + 10
    for _ in range(6):
        quantizer.update(z, quantizer(z, everything(z)), everything(z))
    nearest = torch.cdist(quantizer.codebook.codes, z.reshape(-1, 4)).amin(1)
    assert nearest.max() < 2.0  # nothing is left where the random start was
    assert quantizer(z, everything(z)).indices.unique().numel() > 32


def test_forward_is_pure():
    for make in MAKE.values():
        quantizer = make(5)
        state = {k: v.clone() for k, v in quantizer.state_dict().items()}
        z = latents(2, 6, 3, getattr(quantizer.down, "in_features", 5) if hasattr(quantizer, "down") else 5)
        quantizer(z, everything(z))
        assert all(torch.equal(v, state[k]) for k, v in quantizer.state_dict().items())


def test_lookup_free_bits_and_index_order():
    quantizer = LookupFreeQuantizer(4, codebook_size=16)
    z = torch.tensor([[0.3, -1.0, 0.0, 2.0]]).view(1, 1, 1, 4)
    output = quantizer(z, everything(z))
    assert output.latents.flatten().tolist() == [1.0, -1.0, -1.0, 1.0]  # zero maps to -1
    assert output.indices.item() == 1 + 8  # Σ 2^(i-1)·1{z_i > 0}: the first channel is the lowest bit
    codes = quantizer.decode(torch.arange(16).view(1, 16, 1, 1))
    assert torch.equal(quantizer(codes, everything(codes)).indices.flatten(), torch.arange(16))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_lookup_free_entropies_equal_the_softmax_over_all_codes(bits):
    quantizer = LookupFreeQuantizer(bits, codebook_size=2**bits, temperature=0.7).double()
    z = (latents(40, bits).double() * 0.5).requires_grad_()
    sample, batch = quantizer.entropies(z)
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)), dtype=torch.float64)
    p = torch.softmax(2 * z @ codes.T / 0.7, -1)
    expected_sample = -(p * p.log()).sum(-1).mean()
    expected_batch = -(p.mean(0) * p.mean(0).log()).sum()
    assert torch.allclose(sample, expected_sample, atol=1e-9) and torch.allclose(batch, expected_batch, atol=1e-9)
    mine = torch.autograd.grad(sample - batch, z)[0]
    theirs = torch.autograd.grad(expected_sample - expected_batch, z)[0]
    assert torch.allclose(mine, theirs, atol=1e-7)


def test_lookup_free_entropy_at_large_codebooks_and_extreme_latents():
    quantizer = LookupFreeQuantizer(18, codebook_size=2**18)
    _, batch = quantizer.entropies(torch.zeros(3000, 18))
    assert math.isclose(float(batch), 18 * math.log(2), rel_tol=1e-5)
    z = torch.full((64, 18), 1e6).requires_grad_()
    sample, batch = quantizer.entropies(z)
    (sample - batch).backward()
    assert torch.isfinite(z.grad).all() and float(sample) == 0 and float(batch) == 0


def test_codebook_sizes_that_are_no_power_of_two_are_refused():
    with pytest.raises(ValueError, match="power of two"):
        LookupFreeQuantizer(4, codebook_size=1000)


@pytest.mark.parametrize("name", MAKE)
def test_autocast_does_not_reach_the_quantizer(name):
    quantizer = MAKE[name](5).eval()
    z = latents(2, 6, 3, 5 if "projected" not in name else 7).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = quantizer(z, everything(z))
    assert output.latents.dtype == output.loss.dtype == torch.float32
    assert torch.equal(output.indices, quantizer(z.float(), everything(z)).indices)
