"""What the networks are made of: upsampling convolutions, padding, partitions; and that causal networks learn."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lmm.motion.representations import JointPositions
from lmm.tokenizers import MotionTokenizer
from lmm.tokenizers.networks import Conv2dDecoder, Conv2dEncoder, TransformerDecoder, TransformerEncoder
from lmm.tokenizers.networks.causal import Memory, UpConv1d, UpConv2d
from lmm.tokenizers.networks.padding import Padding
from lmm.tokenizers.networks.partition import Partition
from lmm.tokenizers.quantizers import ResidualQuantizer

from .conftest import batch, tiny

dimensions = pytest.mark.parametrize(("layer", "inside"), [(UpConv1d, (7,)), (UpConv2d, (4, 7))], ids=["1d", "2d"])


@dimensions
@pytest.mark.parametrize("causal", [False, True])
def test_upsampling_convolutions_are_nearest_upsampling_then_a_convolution(layer, inside, causal):
    torch.manual_seed(0)
    conv = layer(5, 3, 3, causal=causal).double()
    x = torch.randn(2, 5, *inside, dtype=torch.float64, requires_grad=True)
    doubled = F.pad(x.repeat_interleave(2, dim=-1), (2, 0) if causal else (1, 1))
    if x.ndim == 3:
        plain = F.conv1d(doubled, conv.weight, conv.bias)
    else:
        plain = F.conv2d(doubled, conv.weight, conv.bias, padding=(1, 0))
    found, weight = conv(x), torch.randn_like(plain)
    assert torch.allclose(found, plain, atol=1e-12)
    wanted = [x, conv.weight, conv.bias]
    ours, theirs = (torch.autograd.grad((y * weight).sum(), wanted) for y in (found, plain))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))
    if causal:
        memory = Memory()
        pieces = [conv(piece, memory) for piece in x.split([1, 4, 2], dim=-1)]
        assert torch.allclose(torch.cat(pieces, dim=-1), plain, atol=1e-12)


@dimensions
def test_padding_is_zero_at_every_frame_rate(layer, inside):
    mask = torch.arange(8) < torch.tensor([8, 4, 0])[:, None]
    padding = Padding(mask)
    for change, num_frames in ((None, 8), (padding.halve, 4), (padding.double, 8), (padding.double, 16)):
        if change:
            change()
        x = torch.randn(3, 5, *inside[:-1], num_frames).bfloat16()
        cleared = padding.clear(x)
        assert cleared.dtype == torch.bfloat16
        assert torch.equal(cleared[0], x[0]) and cleared[2].eq(0).all()
        half = num_frames // 2
        assert torch.equal(cleared[1, ..., :half], x[1, ..., :half]) and cleared[1, ..., half:].eq(0).all()


def test_padding_costs_nothing_where_all_frames_are_real():
    padding, x = Padding(torch.ones(2, 8, dtype=torch.bool)), torch.randn(2, 3, 8)
    assert padding.clear(x) is x
    padding.halve()
    padding.double()
    assert padding.clear(x) is x


@pytest.mark.parametrize("kind", ["vq", "lfq2d"])
@pytest.mark.parametrize("lengths", [(16, 16), (16, 9)], ids=["all real", "padded"])
def test_a_padded_batch_keeps_the_precision_of_the_convolutions(kind, lengths):
    """A mask in float32 would raise all that it is multiplied with."""
    tokenizer, clips, seen = tiny(kind), batch(lengths), []
    for module in tokenizer.modules():
        if type(module).__name__.startswith(("ResidualBlock", "TimeConv", "UpConv")):
            module.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer._reconstruct(clips.features, clips.mask)
    raised = [dtype for dtype in seen if dtype != torch.bfloat16]
    assert len(seen) > 20 and len(raised) <= 2  # what enters the encoder and, from the quantizer, the decoder


def test_a_partition_splits_and_joins():
    partition = Partition(JointPositions(), "limbs")
    features = torch.arange(66.0).expand(2, 3, 66)
    parts = partition.split(features)
    limbs = JointPositions().parts
    assert partition.names == list(limbs) and not partition.state_dict()
    assert [part[0, 0].long().tolist() for part in parts] == list(limbs.values())
    assert torch.equal(partition.join(parts), features)


@pytest.mark.parametrize(
    ("encoder", "decoder", "arguments"),
    [
        (TransformerEncoder, TransformerDecoder, {"width": 32, "depth": 1, "num_heads": 2}),
        (Conv2dEncoder, Conv2dDecoder, {"width": 16, "depth": 1, "parts": "halves"}),
    ],
    ids=["transformer", "conv2d"],
)
def test_a_causal_network_learns_sines(encoder, decoder, arguments):
    torch.manual_seed(0)
    representation = JointPositions()
    representation.set_statistics(torch.zeros(66), torch.ones(66))
    tokenizer = MotionTokenizer(
        representation,
        partial(encoder, **arguments, causal=True),
        partial(ResidualQuantizer, codebook_size=32, num_levels=2, dropout=0.0),
        partial(decoder, **arguments, causal=True),
        latent_dim=16,
    ).train()
    phase = torch.arange(32) / 16 + torch.rand(8, 1)  # two turns of eight clips, each begun elsewhere
    features = (2 * torch.pi * (phase[..., None] + torch.rand(66))).sin()
    mask = torch.ones(8, 32, dtype=torch.bool)
    optimizer, losses = torch.optim.AdamW(tokenizer.parameters(), lr=5e-3), []
    for _ in range(40):
        loss, terms, latents, steps, output, _ = tokenizer._reconstruct(features, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokenizer.quantizer.update(latents.detach(), output, steps)
        losses.append(float(terms["features"]))
    assert losses[-1] < 0.25 * losses[0]  # who decodes to the mean stays at the first loss
