import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lmm.tokenizers.quantizers import (
    BinarySphericalQuantizer,
    EntropyOptions,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    PartwiseQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

MAKE = {
    "vector": partial(VectorQuantizer, 5, codebook_size=8),
    "vector, learned": partial(VectorQuantizer, 5, codebook_size=8, learned=True),
    "vector, cosine": partial(VectorQuantizer, 5, codebook_size=8, cosine=True),
    "vector, learned cosine": partial(VectorQuantizer, 5, codebook_size=8, cosine=True, learned=True),
    "vector, k-means": partial(VectorQuantizer, 5, codebook_size=8, kmeans_steps=3),
    "residual": partial(ResidualQuantizer, 5, codebook_size=8, num_levels=3),
    "residual, shared": partial(ResidualQuantizer, 5, codebook_size=8, num_levels=3, shared=True),
    "lookup-free": partial(LookupFreeQuantizer, 5, codebook_size=2**5),
    "lookup-free, msb": partial(LookupFreeQuantizer, 5, codebook_size=2**5, bit_order="msb"),
    "lookup-free, projected": partial(LookupFreeQuantizer, 5, codebook_size=2**6),
    "lookup-free, sub-codes": partial(LookupFreeQuantizer, 5, codebook_size=2**6, sub_codes=3),
    "lookup-free, annealed": partial(
        LookupFreeQuantizer, 5, codebook_size=2**5, entropy=EntropyOptions(start_factor=3.0, annealing_updates=4)
    ),
    "spherical": partial(BinarySphericalQuantizer, 5, codebook_size=2**5),
    "finite scalar": partial(FiniteScalarQuantizer, 5, levels=[8, 5, 5, 6, 3]),
    "finite scalar, projected": partial(FiniteScalarQuantizer, 5, nominal_size=256),
    "partwise": partial(PartwiseQuantizer, 5, num_parts=3, quantizer=lambda c: VectorQuantizer(c, codebook_size=8)),
}
IDENTITY = {name for name in MAKE if name.split(",")[0] in ("vector", "residual", "lookup-free", "partwise")} - {
    "lookup-free, projected", "lookup-free, sub-codes", "vector, cosine", "vector, learned cosine"
}  # fmt: skip


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def everything(z: torch.Tensor) -> torch.Tensor:
    return torch.ones(z.shape[:2], dtype=torch.bool)


def train(quantizer, batches, seed=0):
    """One update for each batch, with draws as StepSeed gives them."""
    for number, z in enumerate(batches, start=seed):
        torch.manual_seed(number)
        quantizer.update(z, quantizer(z, everything(z)), everything(z))


@pytest.mark.parametrize("name", MAKE)
def test_shapes_decode_and_straight_through(name):
    quantizer = MAKE[name]().eval()
    z = latents(2, 6, 3, 5).requires_grad_()
    output = quantizer(z, everything(z))
    assert output.latents.shape == z.shape
    assert output.indices.shape == (2, 6, 3, quantizer.num_levels)
    assert 0 <= output.indices.min() and output.indices.max() < quantizer.codebook_size
    assert torch.allclose(quantizer.decode(output.indices), output.latents, atol=1e-6)
    output.latents.sum().backward()
    if name in IDENTITY:
        assert torch.allclose(z.grad, torch.ones_like(z))  # the gradient passes as through the identity
        assert torch.equal(quantizer.decode(output.indices), output.latents)
    else:
        assert (z.grad.abs() > 0).any()


@pytest.mark.parametrize("name", MAKE)
def test_padding_changes_nothing(name):
    quantizer = MAKE[name]().eval()
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    outputs = []
    for elsewhere in (0.0, 1e4, math.inf):
        z = torch.where(mask[..., None, None], latents(2, 6, 3, 5), elsewhere).requires_grad_()
        output = quantizer(z, mask)
        if output.loss.requires_grad:
            output.loss.backward()
            assert not z.grad[~mask].any() or math.isinf(elsewhere)
            outputs.append((output, z.grad[mask]))
        else:
            outputs.append((output, torch.zeros(())))
    (a, gradient), *others = outputs
    for b, other in others:
        assert torch.equal(a.indices[mask], b.indices[mask]) and a.loss == b.loss and torch.equal(gradient, other)
        assert all(a.terms[key] == b.terms[key] for key in a.terms)


@pytest.mark.parametrize("name", MAKE)
def test_training_goes_on_exactly_from_its_state(name):
    batches = latents(6, 4, 8, 3, 5)
    one = MAKE[name]()
    train(one, batches[:3])
    two = MAKE[name]()
    two.load_state_dict(one.state_dict())
    for quantizer in (one, two):
        train(quantizer, batches[3:], seed=3)
    torch.manual_seed(0)
    a = one(batches[0], everything(batches[0]))
    torch.manual_seed(0)
    b = two(batches[0], everything(batches[0]))
    assert torch.equal(a.latents, b.latents) and torch.equal(a.loss, b.loss)
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_equal_and_extreme_latents_give_numbers(name, value):
    quantizer = MAKE[name]()
    z = torch.full((2, 8, 3, 5), value).requires_grad_()
    for _ in range(3):
        output = quantizer(z, everything(z))
        if output.loss.requires_grad:
            (output.loss + output.latents.mean()).backward()
            assert z.grad.isfinite().all()
        quantizer.update(z.detach(), output, everything(z))
        assert output.latents.isfinite().all() and output.loss.isfinite()
    assert all(state.isfinite().all() for state in quantizer.state_dict().values())


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


@pytest.mark.parametrize("name", MAKE)
def test_forward_is_pure(name):
    quantizer = MAKE[name]()
    state = {k: v.clone() for k, v in quantizer.state_dict().items()}
    z = latents(2, 6, 3, 5)
    quantizer(z, everything(z))
    assert all(torch.equal(v, state[k]) for k, v in quantizer.state_dict().items())


def test_kmeans_start_is_where_lloyds_algorithm_goes():
    centres = 10 * latents(6, 4)
    z = (centres[torch.arange(240) % 6] + 0.1 * latents(240, 4, seed=1)).view(4, 60, 1, 4)
    errors = {}
    for steps in (0, 20):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(4, codebook_size=24, kmeans_steps=steps)
        quantizer.update(z, quantizer(z, everything(z)), everything(z))
        codes, flat = quantizer.codebook.codes, z.view(-1, 4)
        chosen = torch.cdist(flat, codes).argmin(1)
        errors[steps] = (flat - codes[chosen]).square().mean()
        if steps:  # each code is the mean of its own latents
            for code in chosen.unique():
                assert torch.allclose(codes[code], flat[chosen == code].mean(0), atol=1e-4)
    assert errors[20] < errors[0]


def test_learned_codes_follow_the_gradient_of_both_losses():
    quantizer = VectorQuantizer(4, codebook_size=6, learned=True, commitment_weight=0.25)
    z = latents(2, 8, 2, 4).requires_grad_()
    mask = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
    output = quantizer(z, mask)
    chosen = quantizer.codebook.codes[output.indices.squeeze(-1)]
    expected = F.mse_loss(chosen[mask], z[mask].detach()) + 0.25 * F.mse_loss(z[mask], chosen[mask].detach())
    assert torch.allclose(output.loss, expected)
    both = (z, quantizer.codebook.codes)
    for mine, theirs in zip(torch.autograd.grad(output.loss, both), torch.autograd.grad(expected, both), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-7)


def test_a_shared_codebook_learns_from_every_level():
    quantizer = MAKE["residual, shared"]()
    assert len({id(book) for book in quantizer.codebooks}) == 1 and len(quantizer.codebooks) == 3
    quantizer.eval().codebooks[0].started.fill_(True)
    z = latents(2, 8, 3, 5)
    output = quantizer(z, everything(z))
    quantizer.update(z, output, everything(z))
    counts = torch.bincount(output.indices.flatten(), minlength=8).float()
    assert torch.allclose(quantizer.codebooks[0].counts, 0.99 + 0.01 * counts)


def test_residual_decodes_at_any_depth():
    quantizer = ResidualQuantizer(5, codebook_size=8, num_levels=4).eval()
    z = latents(2, 6, 3, 5)
    indices = quantizer(z, everything(z)).indices
    for depth in (1, 2, 4):
        dropped = indices.clone()
        dropped[..., depth:] = -1
        assert torch.equal(quantizer.decode(dropped), quantizer.decode(indices[..., :depth]))
    with pytest.raises(ValueError, match="levels"):
        quantizer.decode(torch.zeros(1, 1, 1, 5, dtype=torch.long))


def test_parts_have_codebooks_of_their_own():
    quantizer = MAKE["partwise"]()
    z = latents(4, 8, 3, 5)
    train(quantizer, z[None].repeat(3, 1, 1, 1, 1))
    output = quantizer(z, everything(z))
    for number, part in enumerate(quantizer.parts):
        own = part(z[:, :, number : number + 1], everything(z))
        assert torch.equal(own.indices[:, :, 0], output.indices[:, :, number])
    with pytest.raises(ValueError, match="parts"):
        quantizer(z[:, :, :2], everything(z))


@pytest.mark.parametrize("name", MAKE)
def test_autocast_does_not_reach_the_quantizer(name):
    quantizer, other = MAKE[name]().eval(), MAKE[name]().eval()
    other.load_state_dict(quantizer.state_dict())
    z = latents(2, 6, 3, 5).bfloat16()
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = quantizer(z, everything(z))
            torch.manual_seed(0)
            quantizer.update(z, output, everything(z))
        assert output.latents.dtype == output.loss.dtype == torch.float32
        expected = other(z.float(), everything(z))
        torch.manual_seed(0)
        other.update(z.float(), expected, everything(z))
        assert torch.equal(output.indices, expected.indices)
        for key, value in quantizer.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]) and value.dtype != torch.bfloat16
