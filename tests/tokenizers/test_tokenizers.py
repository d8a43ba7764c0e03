import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from lmm.metrics.reconstruction import joint_errors, procrustes
from lmm.motion.representations import HumanML3DFeatures
from lmm.tokenizers import LFQ2DTokenizer, VQTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks import Conv1dDecoder, Conv1dEncoder, Conv2dDecoder, Conv2dEncoder
from lmm.tokenizers.quantizers import LookupFreeQuantizer, PartwiseQuantizer, ResidualQuantizer

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


@pytest.mark.parametrize("kind", ["rvq", "rvq2d"])
def test_residual_tokens_decode_at_any_depth(kind):
    tokenizer, clips = tiny(kind), batch()
    tokens, parts = tokenizer.encode(clips.features, clips.mask), tokenizer.encoder.num_parts
    steps = tokens[..., 0] >= 0
    whole = tokenizer.decode(tokens)
    assert torch.equal(tokenizer.decode(tokens, levels=3), whole)
    for levels in (1, 2):
        cut = tokens.unflatten(-1, (parts, 3)).clone()
        cut[..., levels:] = -1
        found = tokenizer.decode(tokens, levels=levels)
        assert torch.equal(tokenizer.decode(cut.flatten(2)), found)  # tokens that lack their last levels
        books = tokenizer.quantizer.levels
        latents = sum(book.codes[cut[..., level].clamp_min(0)] for level, book in enumerate(books) if level < levels)
        decoded = tokenizer.decoder(latents * steps[..., None, None], steps)
        assert torch.allclose(found, decoded * steps.repeat_interleave(4, 1)[..., None], atol=1e-5)
        assert not torch.allclose(found, whole)
    with pytest.raises(ValueError, match="has 3 levels, cannot decode 4"):
        tokenizer.decode(tokens, levels=4)
    with pytest.raises(ValueError, match="lacks a level"):
        tokenizer.decode(tokens.masked_fill(torch.arange(tokens.shape[-1]) % 3 == 1, -1))
    with pytest.raises(ValueError, match="in some parts only" if parts > 1 else "lacks a level"):
        tokenizer.decode(tokens.masked_fill(torch.arange(tokens.shape[-1]) == 0, -1))


def test_only_residual_levels_can_be_left_out():
    """Parts of one code (sub-codes of bits) mean nothing alone; a residual quantizer for each body part is residual."""
    tokenizer, clips = tiny("lfq2d"), batch((16,))
    tokenizer.quantizer = LookupFreeQuantizer(12, codebook_size=2**8, sub_codes=2)
    tokens = tokenizer.encode(clips.features, clips.mask)
    assert tokens.shape == (1, 4, 10) and torch.equal(tokenizer.decode(tokens, levels=2), tokenizer.decode(tokens))
    with pytest.raises(ValueError, match="2 levels of this LookupFreeQuantizer are parts of one code"):
        tokenizer.decode(tokens, levels=1)
    residual = lambda c: ResidualQuantizer(c, codebook_size=8, num_levels=2)  # noqa: E731
    tokenizer.quantizer = PartwiseQuantizer(12, num_parts=5, quantizer=residual).eval()
    tokens = tokenizer.encode(clips.features, clips.mask)
    assert not torch.allclose(tokenizer.decode(tokens, levels=1), tokenizer.decode(tokens))


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


def loader(*clips):
    """Batches as they are."""
    return DataLoader(list(clips), batch_size=None)


def trainer(**more):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", **quiet | {"logger": False, "max_steps": 3, "log_every_n_steps": 1} | more)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and short epochs
@pytest.mark.parametrize("kind", ["vq", "rvq", "lfq2d"])
def test_bf16_keeps_losses_statistics_and_codebooks_in_fp32(kind):
    tokenizer, losses, widths = tiny(kind).train(), [], []
    layer = next(m for m in tokenizer.decoder.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d))
    layer.register_forward_hook(lambda _, inputs, output: widths.append(output.dtype))
    tokenizer.loss.register_forward_hook(lambda _, inputs, output: losses.append(output[0]))
    update, inside = tokenizer.quantizer.update, []
    tokenizer.quantizer.update = lambda *given: (inside.append(torch.is_autocast_enabled("cpu")), update(*given))
    clips = batch((16, 16, 12, 16))
    clipped, clip = [], tokenizer.configure_gradient_clipping
    tokenizer.configure_gradient_clipping = lambda *given, **more: (clip(*given, **more), clipped.append(length()))
    length = lambda: float(torch.stack([p.grad.norm() for p in tokenizer.parameters() if p.grad is not None]).norm())  # noqa: E731
    run = trainer(precision="bf16-mixed", num_sanity_val_steps=0, gradient_clip_val=1e-3)
    run.fit(tokenizer, loader(clips, clips, clips), loader(clips))
    assert clipped == pytest.approx([1e-3] * 3, rel=1e-2)
    assert set(widths) == {torch.bfloat16} and inside == [False] * 3
    assert len(losses) == 4  # three steps and a validation
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses)
    assert all(torch.isfinite(value) for name, value in run.callback_metrics.items() if "skating" not in name)
    state = tokenizer.quantizer.state_dict() | tokenizer.representation.state_dict()
    floats = [v for v in state.values() if v.is_floating_point()]
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in floats)
    if kind != "lfq2d":
        fresh = tiny(kind).quantizer.state_dict()
        assert any(not torch.equal(v, fresh[k]) for k, v in tokenizer.quantizer.state_dict().items() if "codes" in k)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["vq", "rvq2d", "lfq2d"])
def test_figures_of_a_test_run_and_their_table(kind, capsys):
    tokenizer, clips, run = tiny(kind), batch(), trainer()
    halves = [clips._replace(features=clips.features[s], mask=clips.mask[s], ids=clips.ids[s], texts=clips.texts[s])
              for s in (slice(0, 1), slice(1, 4))]  # fmt: skip
    (found,) = run.test(tokenizer, loader(*halves))
    printed = capsys.readouterr().out
    whole = tokenizer.decode(tokens := tokenizer.encode(clips.features, clips.mask))
    predicted, target = (
        tokenizer.representation.to_joints(x).double()[clips.mask]
        for x in (whole[:, : clips.mask.shape[1]], clips.features)
    )
    assert found["test/mpjpe_mm"] == pytest.approx(1000 * float(joint_errors(predicted, target).mean()), rel=1e-4)
    nearest = joint_errors(procrustes(predicted, target), target).mean()
    assert found["test/pa_mpjpe_mm"] == pytest.approx(1000 * float(nearest), rel=1e-4)
    assert found["test/codebook_usage"] == pytest.approx(len(tokens[tokens >= 0].unique()) / 16)
    streams = tokenizer.codebook.streams if kind != "vq" else []
    for column, stream in enumerate(streams):
        codes = tokens[..., column][tokens[..., column] >= 0]
        assert found[f"test/codebook_usage/{stream}"] == pytest.approx(len(codes.unique()) / 16)
    assert len([name for name in found if "codebook_usage" in name]) == 1 + len(streams)
    assert ("test/codebook_bit_imbalance" in found) == (kind == "lfq2d")
    assert printed.count("MPJPE (mm)") == 2 and "test/mpjpe_mm" not in printed  # one table, ours
    assert [line.split()[0] for line in printed.split("codebook")[1].splitlines()[1:]] == ["all", *streams]
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.filterwarnings("ignore")
def test_fit_prints_no_table_and_counts_codes_in_tensorboard(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tokenizer, clips = tiny("rvq2d").train(), batch((16, 16))
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    run = trainer(logger=logger, num_sanity_val_steps=0, max_epochs=1)
    run.fit(tokenizer, loader(clips), loader(clips))
    run.validate(tokenizer, loader(clips), verbose=False)
    assert "MPJPE" not in capsys.readouterr().out
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    assert set(events.Tags()["histograms"]) == {f"val/code_counts/{stream}" for stream in tokenizer.codebook.streams}
    first, _ = events.Histograms(f"val/code_counts/{tokenizer.codebook.streams[0]}")  # of `fit`, of `validate`
    assert first.histogram_value.num == 16 and first.histogram_value.sum == 8  # 16 codes; two clips of four steps
