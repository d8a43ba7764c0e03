"""Codes, latents, losses and gradients are those of vector-quantize-pytorch, for each method that it has."""

import pytest
import torch

from lmm.tokenizers.quantizers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

from .test_quantizers import everything, latents

vqp = pytest.importorskip("vector_quantize_pytorch")


def of_package(peer, z, loss=lambda loss: loss.mean()):
    """Codes, latents, loss, and the gradients of latents and of loss, of vector-quantize-pytorch."""
    x = z.clone().requires_grad_()
    latents, codes, *losses = peer(x)
    total = loss(losses[0]) if losses else torch.zeros((), requires_grad=True)
    gradients = [torch.autograd.grad((latents * z.cos()).sum(), x, retain_graph=True)[0]]
    gradients += [torch.autograd.grad(total, x)[0]] if losses else []
    return codes, latents, total, gradients


def of_ours(quantizer, z):
    x = z[:, :, None].clone().requires_grad_()
    output = quantizer(x, everything(x))
    gradients = [torch.autograd.grad((output.latents * x.detach().cos()).sum(), x, retain_graph=True)[0]]
    gradients += [torch.autograd.grad(output.loss, x)[0]] if output.loss.requires_grad else []
    quantizer.update(x.detach(), output, everything(x))
    return output.indices[:, :, 0], output.latents[:, :, 0], output.loss, [g[:, :, 0] for g in gradients]


def assert_same(ours, theirs, scales=(1.0, 1.0)):
    assert torch.equal(ours[0].squeeze(-1), theirs[0].long())
    assert torch.allclose(ours[1], theirs[1], atol=1e-5) and torch.allclose(ours[2], theirs[2], atol=1e-5)
    for mine, other, scale in zip(ours[3], theirs[3], scales, strict=False):
        assert torch.allclose(mine, other * scale, atol=1e-5)


@pytest.mark.parametrize("cosine, learned", [(False, False), (True, False), (False, True)])  # it has not both
def test_vector_equals_vector_quantize_pytorch(cosine, learned):
    quantizer = VectorQuantizer(
        6, codebook_size=32, decay=0.8, commitment_weight=1.0, reset_threshold=0.0, cosine=cosine, learned=learned
    )
    quantizer.codebook.started.fill_(True)
    peer = vqp.VectorQuantize(
        6,
        32,
        decay=0.8,
        use_cosine_sim=cosine,
        rotation_trick=False,
        learnable_codebook=learned,
        ema_update=not learned,
    )
    with torch.no_grad():
        peer._codebook.embed.copy_(quantizer.codebook.codes)
        peer._codebook.embed_avg.copy_(quantizer.codebook.codes)
    z = latents(4, 20, 6)
    theirs, ours = of_package(peer, z), of_ours(quantizer, z)
    assert_same(ours, (*theirs[:2], theirs[2] * (2 if learned else 1), *theirs[3:]))  # ours counts both losses
    used = ours[0].unique()  # the package smooths counts by 1e-5
    assert torch.allclose(quantizer.codebook.codes[used], peer.codebook[used], atol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
def test_residual_equals_vector_quantize_pytorch(shared):
    quantizer = ResidualQuantizer(6, codebook_size=16, num_levels=3, dropout=0.0, commitment_weight=1.0, shared=shared)
    peer = vqp.ResidualVQ(dim=6, num_quantizers=3, codebook_size=16, rotation_trick=False, shared_codebook=shared)
    for ours, theirs in zip(quantizer.codebooks, peer.layers, strict=True):
        theirs.codebook = ours.codes.clone()
    z = latents(4, 20, 6)
    # the package lets the gradient through at every level, so that it arrives three times
    assert_same(of_ours(quantizer, z), of_package(peer, z), scales=(1 / 3, 1.0))


@pytest.mark.parametrize("bits", [4, 10])
@pytest.mark.parametrize("spherical", [False, True])
def test_binary_equals_vector_quantize_pytorch(bits, spherical):
    make = BinarySphericalQuantizer if spherical else LookupFreeQuantizer
    quantizer = make(bits, codebook_size=2**bits, bit_order="msb", temperature=0.5, commitment_weight=0.25)
    peer = vqp.LFQ(
        dim=bits, codebook_size=2**bits, entropy_loss_weight=0.1, commitment_loss_weight=0.25, spherical=spherical
    )
    z = latents(4, 50, bits) * 0.3
    forward = lambda x: peer(x, inv_temperature=2.0)  # noqa: E731
    ours, theirs = of_ours(quantizer, z), of_package(forward, z)
    assert torch.equal(ours[0].squeeze(-1), theirs[0].long()) and torch.allclose(ours[1], theirs[1], atol=1e-5)
    tolerance = 1e-5 if bits == 4 else 2e-3  # the package cuts log p at p = 1e-5
    assert torch.allclose(ours[2], theirs[2], atol=tolerance)
    for mine, other in zip(ours[3], theirs[3], strict=True):
        assert torch.allclose(mine, other, atol=tolerance / 10)


def test_finite_scalar_equals_vector_quantize_pytorch():
    for levels in ([8, 8, 8, 5, 5, 5], [7, 5, 4, 3]):
        z = 2 * latents(4, 500, len(levels))
        ours = of_ours(FiniteScalarQuantizer(len(levels), levels=levels), z)
        assert_same(ours, of_package(vqp.FSQ(levels), z))
