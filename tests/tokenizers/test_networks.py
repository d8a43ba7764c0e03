"""Every network, looking ahead or causal: what a step may depend on, padding, streams, gradients, sizes."""

from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from lmm.motion.representations import HumanML3DFeatures
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.skeleton import HUMANML3D_22
from lmm.tokenizers import MotionTokenizer
from lmm.tokenizers.networks import (
    Conv1dDecoder,
    Conv1dEncoder,
    Conv2dDecoder,
    Conv2dEncoder,
    Stream,
    TransformerDecoder,
    TransformerEncoder,
)
from lmm.tokenizers.networks.partition import part_columns
from lmm.tokenizers.quantizers import ResidualQuantizer

LATENT = 6
SMALL = {"width": 16, "depth": 2, "num_heads": 2}
NETWORKS = {
    "conv1d": (Conv1dEncoder, Conv1dDecoder, {"width": 8, "depth": 2}),
    "conv2d": (Conv2dEncoder, Conv2dDecoder, {"width": 8, "depth": 1}),
    "transformer": (TransformerEncoder, TransformerDecoder, SMALL),
    "transformer2d": (TransformerEncoder, TransformerDecoder, SMALL | {"parts": "sides"}),
}


class Sides(MotionRepresentation):
    """Twelve features of three interleaved parts."""

    skeleton, fps = HUMANML3D_22, 20.0
    blocks: ClassVar = {"positions": 12}
    parts: ClassVar = {"left": [0, 3, 6, 9], "middle": [1, 4], "right": [2, 5, 7, 8, 10, 11]}

    def partition(self, name):
        everything = list(range(12))
        return {"sides": self.parts, "whole": {"body": everything}, "holes": {"all": everything, "none": []}}[name]

    def encode(self, motion):
        raise NotImplementedError

    decode = encode


def build(name, causal=False, **arguments):
    encoder, decoder, small = NETWORKS[name]
    torch.manual_seed(0)
    return tuple(cls(Sides(), LATENT, **small | arguments, causal=causal).eval() for cls in (encoder, decoder))


def frames(num_clips, num_frames, seed=1):
    features = torch.randn(num_clips, num_frames, 12, generator=torch.Generator().manual_seed(seed))
    return features, torch.ones(num_clips, num_frames, dtype=torch.bool)


def steps(num_clips, num_steps, decoder, seed=2):
    shape = (num_clips, num_steps, decoder.num_parts, LATENT)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)), torch.ones(shape[:2], dtype=torch.bool)


network = pytest.mark.parametrize("name", NETWORKS)
causality = pytest.mark.parametrize("causal", [False, True])


@network
@causality
def test_a_step_sees_to_its_own_last_frame_and_no_further_if_causal(name, causal):
    encoder, _ = build(name, causal)
    features, mask = frames(2, 48)
    moved = features.clone()
    moved[:, 23] += 1.0  # the last frame of step 5
    changed = (encoder(features, mask) != encoder(moved, mask)).any(-1).any(-1)
    assert changed[:, 5].all() and changed[:, 6].all()
    assert changed[:, :5].any() == (not causal)


@network
@causality
def test_frames_see_to_their_own_step_and_no_further_if_causal(name, causal):
    _, decoder = build(name, causal)
    latents, mask = steps(2, 12, decoder)
    moved = latents.clone()
    moved[:, 6] += 1.0
    changed = (decoder(latents, mask) != decoder(moved, mask)).any(-1)
    assert changed[:, 24:32].all()  # the first frame of its own step already
    assert changed[:, :24].any() == (not causal)


@pytest.mark.parametrize("name", ["conv2d", "transformer2d"])
def test_causal_time_leaves_the_parts_symmetric(name):
    encoder, _ = build(name, causal=True)
    features, mask = frames(1, 16)
    for part in range(3):
        moved = features.clone()
        moved[..., list(Sides.parts.values())[part]] += 1.0
        changed = (encoder(features, mask) != encoder(moved, mask)).any(-1).any(1)[0]
        assert changed.tolist() == [True] * 3  # two convolutions reach from one end of three parts to the other


@network
@pytest.mark.parametrize("chunks", [[1] * 40, [3, 1, 20, 16]], ids=["steps", "chunks"])
def test_a_stream_gives_what_the_whole_clip_gives(name, chunks):
    encoder, decoder = build(name, causal=True)
    features, mask = frames(2, 160)
    latents = encoder(features, mask)
    whole = decoder(latents, mask[:, ::4])
    for net, given, expected in ((encoder, features, latents), (decoder, latents, whole)):
        stream = Stream(net)
        size = 4 if net is encoder else 1
        got = torch.cat([stream(chunk) for chunk in given.split([size * n for n in chunks], dim=1)], dim=1)
        assert got.shape == expected.shape and (got - expected).abs().max() < 1e-5


@network
def test_a_stream_remembers_no_more_than_it_needs(name):
    _, decoder = build(name, causal=True)
    stream, sizes = Stream(decoder), []
    for _ in range(40):
        stream(steps(1, 1, decoder)[0])
        sizes.append(sum(x.numel() for x in stream.memory.values()))
    assert 0 < sizes[0] <= sizes[20] == sizes[39]


def test_what_cannot_stream_is_refused():
    _, decoder = build("conv1d")
    with pytest.raises(ValueError, match="causal=true"):
        Stream(decoder)
    stream = Stream(build("conv1d", causal=True)[0])
    with pytest.raises(ValueError, match="whole steps of 4 frames, got 6"):
        stream(torch.zeros(1, 6, 12))


@network
@causality
def test_padding_changes_nothing(name, causal):
    encoder, decoder = build(name, causal)
    lengths = [40, 24, 96, 4, 0]
    features, _ = frames(5, 96)  # garbage beyond each clip's end
    mask = torch.arange(96) < torch.tensor(lengths)[:, None]
    latents = encoder(features, mask)
    garbage = torch.where(mask[:, ::4, None, None], latents, 9.0)
    decoded = decoder(garbage, mask[:, ::4])
    assert latents[~mask[:, ::4]].eq(0).all() and decoded[~mask].eq(0).all()  # also a clip that is all padding
    for row, length in enumerate(lengths[:-1]):
        alone = encoder(features[row : row + 1, :length], mask[row : row + 1, :length])
        assert (alone[0] - latents[row, : length // 4]).abs().max() < 1e-5
        again = decoder(alone, mask[row : row + 1, :length:4])
        assert (again[0] - decoded[row, :length]).abs().max() < 1e-5


@network
@causality
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_parameter(name, causal, precision):
    encoder, decoder = (net.train() for net in build(name, causal))
    features, _ = frames(3, 32)
    mask = torch.arange(32) < torch.tensor([32, 16, 0])[:, None]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        latents = encoder(features, mask)
        decoded = decoder(latents, mask[:, ::4])
    assert latents.shape == (3, 8, encoder.num_parts, LATENT) and decoded.shape == features.shape
    F.mse_loss(decoded.float()[mask], features[mask]).backward()
    for net in (encoder, decoder):
        for parameter_name, parameter in net.named_parameters():
            assert parameter.grad.isfinite().all() and parameter.grad.any(), parameter_name
    exact = decoder(encoder(features, mask), mask[:, ::4])
    assert (decoded - exact).abs().max() < (1e-6 if precision == torch.float32 else 0.1)


@network
@causality
def test_a_network_is_swapped_in_one_line(name, causal):
    encoder, decoder, small = NETWORKS[name]
    representation = Sides()
    representation.set_statistics(torch.zeros(12), torch.ones(12))
    tokenizer = MotionTokenizer(
        representation,
        lambda r, c: encoder(r, c, **small, causal=causal),
        lambda c: ResidualQuantizer(c, num_levels=2, codebook_size=16),
        lambda r, c: decoder(r, c, **small, causal=causal),
        latent_dim=LATENT,
    )
    features, _ = frames(2, 19)
    mask = torch.arange(19) < torch.tensor([19, 7])[:, None]
    tokens = tokenizer.encode(features, mask)
    assert tokens.shape == (2, 5, 2 * tokenizer.encoder.num_parts)
    assert (tokens[..., 0] >= 0).sum(1).tolist() == [5, 2]
    assert tokenizer.decode(tokens).shape == (2, 20, 12)


@pytest.mark.parametrize(
    ("encoder", "decoder", "arguments", "count"),
    [
        (Conv1dEncoder, Conv1dDecoder, {}, 19_436_807),  # T2M-GPT
        (Conv1dEncoder, Conv1dDecoder, {"causal": True}, 19_436_807),
        (TransformerEncoder, TransformerDecoder, {"parts": ["body"]}, 20_511_260),
    ],
)
def test_sizes_at_the_published_width(encoder, decoder, arguments, count, monkeypatch):
    monkeypatch.setattr(HumanML3DFeatures, "parts", {"body": list(range(263))})
    nets = [cls(HumanML3DFeatures(), 512, **arguments) for cls in (encoder, decoder)]
    assert sum(p.numel() for net in nets for p in net.parameters()) == count


@causality
def test_conv1d_is_t2m_gpts_network(causal):
    """Against the network written out on its state dict."""
    encoder, decoder = build("conv1d", causal, depth=3)

    def conv(x, w, name, dilation=1, stride=1):
        kernel = w[f"{name}.weight"].shape[-1]
        total = dilation * (kernel - 1) + 1 - stride
        x = F.pad(x, (total, 0) if causal else (total // 2, total // 2))
        return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, dilation=dilation)

    def residual(x, w, stage, first):
        for i, dilation in enumerate((9, 3, 1)):
            inside = conv(x.relu(), w, f"stages.{stage}.{first + i}.spread", dilation)
            x = x + conv(inside.relu(), w, f"stages.{stage}.{first + i}.mix")
        return x

    features, mask = frames(2, 64)
    w = encoder.state_dict()
    x = conv(features.mT, w, "enter").relu()
    for stage in range(2):
        x = residual(conv(x, w, f"stages.{stage}.0", stride=2), w, stage, 1)
    latents = conv(x, w, "leave").mT
    assert torch.allclose(latents, encoder(features, mask)[:, :, 0], atol=1e-6)
    w = decoder.state_dict()
    x = conv(latents.mT, w, "enter").relu()
    for stage in range(2):
        x = conv(F.interpolate(residual(x, w, stage, 0), scale_factor=2), w, f"stages.{stage}.3")
    decoded = conv(conv(x, w, "middle").relu(), w, "leave").mT
    assert torch.allclose(decoded, decoder(latents[:, :, None], mask[:, ::4]), atol=1e-6)


@causality
@pytest.mark.parametrize("downsample", [1, 3, 8])
def test_a_transformer_takes_any_downsampling_and_length(causal, downsample):
    encoder, decoder = build("transformer2d", causal, downsample=downsample)
    features, mask = frames(1, 600)
    latents = encoder(features, mask)
    assert latents.shape == (1, 600 // downsample, 3, LATENT)
    assert decoder(latents, mask[:, ::downsample]).shape == features.shape


@causality
def test_late_steps_of_a_transformer_are_as_exact_as_early_ones(causal):
    """One layer sees 16 steps: the last of 1500 steps depends on those, and on no position but relative ones."""
    encoder, _ = build("transformer", causal, depth=1)
    features, mask = frames(1, 6000)
    last = encoder(features[:, -64:], mask[:, -64:])[0, -1]
    assert (encoder(features, mask)[0, -1] - last).abs().max() < 1e-5
    farther = encoder(features[:, -60:], mask[:, -60:])[0, -1]
    assert (farther - last).abs().max() > 1e-5


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match="multiple of twice num_heads"):
        build("transformer", num_heads=5)


@pytest.mark.parametrize("name", ["conv2d", "transformer2d"])
@pytest.mark.parametrize(
    ("parts", "sizes"),
    [(None, [4, 2, 6]), ("sides", [4, 2, 6]), ("whole", [12]), (["right", "left", "middle"], [6, 4, 2])],
)
def test_parts_by_name_or_by_partition(name, parts, sizes):
    columns = list(part_columns(Sides(), parts).values())
    assert [len(c) for c in columns] == sizes
    encoder, decoder = build(name, parts=parts)
    features, mask = frames(1, 8)
    latents = encoder(features, mask)
    assert latents.shape == (1, 2, len(sizes), LATENT)
    torch.nn.init.zeros_(encoder.embed[0].weight)  # the first part is blind: its columns, and no others, are not seen
    before = encoder(features, mask)
    for column in range(12):
        moved = features.clone()
        moved[..., column] += 1.0
        assert torch.equal(encoder(moved, mask), before) == (column in columns[0])
    for part, leave in enumerate(decoder.leave):
        torch.nn.init.zeros_(leave.weight)
        torch.nn.init.constant_(leave.bias, part)
    decoded = decoder(latents, mask[:, ::4])
    assert all(decoded[..., c].eq(part).all() for part, c in enumerate(columns))  # each in its own columns


@pytest.mark.parametrize(("parts", "message"), [(["left"], "cover every feature"), ("holes", "without features")])
def test_bad_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        part_columns(Sides(), parts)
