import pytest
import torch

from lmm.motion.representations import HumanML3DFeatures
from lmm.tokenizers import LFQ2DTokenizer, VQTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks import Conv1dDecoder, Conv1dEncoder, Conv2dDecoder, Conv2dEncoder

from .conftest import batch, tiny


def test_the_published_parameter_counts():
    representation = HumanML3DFeatures()
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    assert count(Conv1dEncoder(representation, 512), Conv1dDecoder(representation, 512)) == 19_436_807
    paper = [c(representation, 14, width=816) for c in (Conv2dEncoder, Conv2dDecoder)]
    assert abs(count(*paper) - 108.35e6) < 0.5e6  # the paper's budget; its layers are not published


def test_encode_decode_shapes_and_spec(kind):
    tokenizer, clips = tiny(kind), batch()
    tokens = tokenizer.encode(clips.features, clips.mask)
    spec = tokenizer.token_spec
    assert tokens.shape == (4, 16, spec.codes_per_step) and tokens.dtype == torch.int64
    assert (tokens[..., 0] >= 0).sum(1).tolist() == [10, 6, 16, 1]  # ceil(T / 4)
    assert tokens.max() < spec.codebook_size == 16
    features = tokenizer.decode(tokens)
    assert features.shape == (4, 64, 66)
    assert features[1, 24:].abs().sum() == 0 and features[1, :24].abs().sum(-1).min() > 0


def test_padding_never_changes_a_code_or_a_frame(kind):
    tokenizer, clips = tiny(kind), batch()
    tokens = tokenizer.encode(clips.features, clips.mask)
    together = tokenizer.decode(tokens)
    for row, length in enumerate(clips.mask.sum(1).tolist()):
        mask = torch.ones(1, length, dtype=torch.bool)
        alone = tokenizer.encode(clips.features[row : row + 1, :length], mask)
        steps = alone.shape[1]
        assert torch.equal(alone[0], tokens[row, :steps])
        assert torch.allclose(tokenizer.decode(alone)[0], together[row, : 4 * steps], atol=1e-5)


def test_grid_order_is_part_then_level():
    tokenizer, clips = tiny("rvq2d"), batch((32,))
    tokens = tokenizer.encode(clips.features, clips.mask)
    indices = tokenizer.quantizer(tokenizer.encoder(clips.features, clips.mask), clips.mask[:, ::4]).indices
    assert indices.shape == (1, 8, 5, 3)
    assert torch.equal(tokens[0, 2, 3 * 3 + 1], indices[0, 2, 3, 1])


def test_parts_reach_their_columns():
    """The 2-D grid's rows follow `representation.columns`: with no mixing, an arm's cell sees the arm only."""
    tokenizer = tiny("lfq2d")
    for module in tokenizer.encoder.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] == 3:
            module.weight.data[:, :, [0, 2]] = 0  # neighbours of a part in the grid
    representation, clips = tokenizer.representation, batch((32,))
    moved = clips.features.clone()
    moved[..., representation.columns("left_arm")] += 3
    before, after = (tokenizer.encoder(f, clips.mask) for f in (clips.features, moved))
    changed = (before - after).abs().amax((0, 1, 3)) > 1e-6
    assert changed.tolist() == [part == "left_arm" for part in representation.parts]


def test_fingerprint_follows_weights_and_statistics(kind):
    a, b = tiny(kind), tiny(kind)
    assert a.token_spec == b.token_spec
    b.representation.std.mul_(2)
    assert a.token_spec.fingerprint != b.token_spec.fingerprint
    with pytest.raises(ValueError, match="another tokenizer"):
        a.token_spec.check(b.token_spec, "runs/x/tokens")


def test_bad_tokens_are_refused():
    tokenizer = tiny("vq")
    with pytest.raises(ValueError, match=r"\[0, 16\)"):
        tokenizer.decode(torch.full((1, 4, 1), 16))
    with pytest.raises(ValueError, match="1 codes a step"):
        tokenizer.decode(torch.zeros(1, 4, 5, dtype=torch.long))


def test_mismatched_parts_are_refused():
    representation = HumanML3DFeatures()
    with pytest.raises(ValueError, match="disagree on num_parts"):
        VQTokenizer(
            representation,
            lambda r, c: Conv2dEncoder(r, c, width=8),
            decoder=lambda r, c: Conv1dDecoder(r, c, width=8),
            latent_dim=8,
        )
    with pytest.raises(ValueError, match="cover every feature"):
        Conv2dEncoder(representation, 4, parts=["left_arm", "right_arm"])
    with pytest.raises(ValueError, match="no block hands"):
        ReconstructionLoss(representation, {"hands": 1.0})


def test_no_statistics_no_training():
    tokenizer = LFQ2DTokenizer(HumanML3DFeatures(), lambda r, c: Conv2dEncoder(r, c, width=8, depth=1),
                               decoder=lambda r, c: Conv2dDecoder(r, c, width=8, depth=1))  # fmt: skip
    with pytest.raises(ValueError, match="no mean and standard deviation"):
        tokenizer.setup("fit")


def test_a_tokenizer_learns_to_repeat_a_batch(kind):
    torch.manual_seed(0)
    tokenizer, clips = tiny(kind, codebook_size=64).train(), batch((16, 16, 16, 16))
    simple = torch.randn(4, 4, 2).repeat_interleave(4, 1) @ torch.randn(2, 66)  # two numbers a step
    clips = clips._replace(features=simple)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        loss, terms, latents, steps, output, _ = tokenizer._reconstruct(clips.features, clips.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokenizer.quantizer.update(latents.detach(), output, steps)
        losses.append(float(terms["features"]))
    assert losses[-1] < 0.6 * losses[0]
