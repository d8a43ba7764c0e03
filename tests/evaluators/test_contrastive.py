"""The training shell and the frozen evaluator that is read from its checkpoint, through the command line."""

import json

import pytest
import torch
from transformers import BertModel

from lmm.batch import MotionBatch
from lmm.data.motions import MotionDataModule
from lmm.data.sources import Procedural
from lmm.evaluators.contrastive import ContrastiveModel, cut
from lmm.evaluators.learned import LearnedEvaluator
from lmm.evaluators.networks import MotionTransformer, MotionTransformerDecoder, TextTransformer
from lmm.motion.representations import HumanML3DFeatures
from lmm.training import load_module
from tests.evaluators.test_networks import make_bert
from tests.toy import lmm, options

SIZES = {"motion_encoder.width": 16, "text_encoder.width": 16, "motion_decoder.width": 16, "latent_dim": 8}
SMALL = {f"model.{name}": value for name, value in SIZES.items()} | {
    "data.source.num_clips": 48, "data.batch_size": 8, "trainer.max_steps": 12, "trainer.val_check_interval": 6,
    "trainer.enable_progress_bar": False, "trainer.enable_model_summary": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, patch = tmp_path_factory.mktemp("evaluator"), pytest.MonkeyPatch()
    patch.chdir(folder)
    lmm(patch, "fit", "--config", "evaluator.yaml", *options(SMALL, {"save_every": 5}))
    yield folder
    patch.undo()


@pytest.fixture
def evaluator(place):
    return LearnedEvaluator("runs/evaluator/checkpoints/last.ckpt")


def clips(split="val"):
    data = MotionDataModule(Procedural(num_clips=48), HumanML3DFeatures(), batch_size=8)
    data.setup("test")
    indices = data.store.indices(split)
    return [(data.store.features(i), data.store.item(i)) for i in indices.tolist()]


def test_cut():
    features = torch.arange(1.0, 31.0).expand(3, 30)[..., None]
    mask = torch.arange(30) < torch.tensor([[30], [7], [22]])
    kept, there = cut(features, mask, unit=4)
    assert there.sum(1).tolist() == [28, 4, 20] and kept.shape == (3, 28, 1) and kept[1].sum() == 1 + 2 + 3 + 4
    kept, there = cut(features, mask, unit=4, max_frames=18)
    assert there.sum(1).tolist() == [16, 4, 16] and kept[0, :, 0].tolist() == list(range(1, 17))
    starts = set()
    for seed in range(60):
        torch.manual_seed(seed)
        kept, there = cut(features, mask, unit=4, max_frames=18, draw=True)
        assert (kept[0, :, 0].diff() == 1).all() and kept[1, 0, 0] == 1
        assert int(kept[2].max()) <= 22, "never beyond a motion's end"
        starts.add(int(kept[0, 0, 0]))
    assert starts == set(range(1, 14))
    with pytest.raises(ValueError, match="less than 8 frames"):
        cut(features, mask, unit=8)


def test_what_a_run_leaves(place, capsys, monkeypatch):
    lines = [json.loads(line) for line in open("runs/evaluator/metrics.jsonl")]
    assert [line["step"] for line in lines] == [6, 12]
    for name in ("loss", "contrastive", "reconstruction", "kl", "latent", "r_precision_top1", "recall_top3_ceiling",
                 "median_rank", "motion_to_text_recall_top1"):  # fmt: skip
        assert f"val/{name}" in lines[-1]
    lmm(monkeypatch, "test", "--config", "runs/evaluator/config.yaml")
    printed = capsys.readouterr().out
    assert "threshold, motion→text" in printed
    assert "text→motion" in printed and "median rank" in printed and "test/loss" not in printed
    with pytest.raises(ValueError, match="an evaluator predicts nothing"):
        lmm(monkeypatch, "predict", "--config", "runs/evaluator/config.yaml")


def test_resuming_continues_to_the_bit(place, monkeypatch):
    for name, more in (
        ("halfway", {"trainer.max_steps": 5}),
        ("resumed", {"ckpt_path": "runs/halfway/checkpoints/last.ckpt"}),
    ):
        constant = {"model.optimization.warmup_steps": 0, "model.optimization.final_lr": 1.0}
        folder = {"trainer.default_root_dir": f"runs/{name}"}
        lmm(monkeypatch, "fit", "--config", "evaluator.yaml", *options(SMALL, constant, folder, more))
    lmm(
        monkeypatch,
        "fit",
        "--config",
        "evaluator.yaml",
        *options(SMALL, constant, {"trainer.default_root_dir": "runs/w"}),
    )
    whole, resumed = (torch.load(f"runs/{n}/checkpoints/last.ckpt", weights_only=True) for n in ("w", "resumed"))
    assert whole["global_step"] == resumed["global_step"] == 12
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


def test_the_frozen_evaluator(evaluator):
    assert (evaluator.name, evaluator.dim, evaluator.unit, evaluator.max_frames) == (
        "evaluator (HumanML3DFeatures)", 8, 4, 196,
    )  # fmt: skip
    assert not evaluator.train().training and not any(p.requires_grad for p in evaluator.parameters())
    some = clips()[:3]
    longest = max(len(features) for features, _ in some)
    padded = torch.full((3, longest, 263), 7.0)
    for row, (features, _) in enumerate(some):
        padded[row, : len(features)] = features
    mask = torch.arange(longest) < torch.tensor([[len(features)] for features, _ in some])
    together = evaluator.embed_motions(padded, mask)
    assert together.shape == (3, 8) and torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-6)
    for row, (features, _) in enumerate(some):
        whole = len(features) // 4 * 4  # the last frames beyond a whole unit are not read
        alone = evaluator.embed_motions(features[None, :whole], torch.ones(1, whole, dtype=torch.bool))
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    texts = evaluator.embed_texts([item.captions[0] for _, item in some])
    assert torch.allclose(texts.norm(dim=1), torch.ones(3), atol=1e-6)


def test_what_it_cannot_read(evaluator):
    for length, message in ((3, "less than 4 frames"), (200, "at most 196 frames, got 200; cut them first")):
        with pytest.raises(ValueError, match=message):
            evaluator.embed_motions(torch.zeros(1, length, 263), torch.ones(1, length, dtype=torch.bool))
    with pytest.raises(ValueError, match="has no word"):
        evaluator.embed_texts([""])
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        LearnedEvaluator("runs/nothing.ckpt")


def test_the_fingerprint_covers_weights_statistics_and_settings(place, evaluator):
    first = evaluator.fingerprint
    assert first == LearnedEvaluator("runs/evaluator/checkpoints/last.ckpt").fingerprint
    for change in (lambda e: e.model.text_encoder.words.rows.weight[0, 0].add_(1),
                   lambda e: e.representation.mean[3].add_(1),
                   lambda e: setattr(e, "max_frames", 100),
                   lambda e: setattr(e.model.motion_encoder, "num_heads", 2)):  # fmt: skip
        other = LearnedEvaluator("runs/evaluator/checkpoints/last.ckpt")
        change(other)
        assert other.fingerprint != first
    assert "MotionTransformer(num_heads=4, downsample=4)" in evaluator.settings and "InfoNCE" in evaluator.settings


def test_with_a_sentence_encoder(place, monkeypatch):
    """The checkpoint is read with the same base alone, which it does not hold."""
    folder = make_bert(place / "bert")
    lmm(monkeypatch, "fit", "--config", "evaluator.yaml", "--config", "evaluator_parts/sentence_encoder.yaml",
        *options({k: v for k, v in SMALL.items() if "text_encoder" not in k}),
        *options({"model.text_encoder.source": folder, "trainer.default_root_dir": "runs/bert"}))  # fmt: skip
    file = "runs/bert/checkpoints/last.ckpt"
    kept = torch.load(file, weights_only=True)["state_dict"]
    assert not any("language" in name for name in kept) and "text_encoder.base_sha256" in kept
    evaluator = LearnedEvaluator(file)
    assert evaluator.embed_texts(["a person walks", "jumps"]).shape == (2, 8)
    base = BertModel.from_pretrained(folder)
    torch.nn.init.normal_(base.encoder.layer[0].output.dense.bias)
    base.save_pretrained(folder)
    with pytest.raises(ValueError, match="trained on other weights than those of"):
        LearnedEvaluator(file)


def make(decoder=True, **more):
    torch.manual_seed(0)
    representation = HumanML3DFeatures()
    representation.set_statistics(torch.zeros(263), torch.ones(263))
    return ContrastiveModel(
        representation,
        lambda r, out: MotionTransformer(r, out, width=16, depth=1, dropout=0.0),
        lambda out: TextTransformer(out, width=16, depth=1, dropout=0.0),
        (lambda r, dim: MotionTransformerDecoder(r, dim, width=16, depth=1, dropout=0.0)) if decoder else None,
        latent_dim=8,
        **more,
    )


def test_the_loss_is_the_weighted_sum_of_tmrs_terms():
    model = make().eval()
    mask = torch.arange(24) < torch.tensor([[24], [11]])
    batch = MotionBatch(torch.randn(2, 24, 263) * mask[..., None], mask, ["a", "b"], ["walks", "jumps twice"])
    loss, terms = model._losses(batch, draw=False)
    w = model.weights
    expected = sum(getattr(w, name) * float(value) for name, value in terms.items())
    assert float(loss) == pytest.approx(expected) and (w.contrastive, w.reconstruction, w.kl, w.latent) == (
        0.1, 1.0, 1e-5, 1e-5,
    )  # fmt: skip
    text, motion = model.text_encoder(batch.texts)[:, :8], model.motion_encoder(batch.features[:, :24], mask & (
        torch.arange(24) < torch.tensor([[24], [8]])))[:, :8]  # fmt: skip
    total = 0.0
    for latent in (text, motion):
        frames = []
        for row, length in enumerate((24, 8)):  # each alone: smooth L1 over real frames only
            made = model.motion_decoder(latent[row : row + 1], torch.ones(1, length, dtype=torch.bool))
            error = (made[0] - batch.features[row, :length]).abs()
            frames.append(torch.where(error < 1, error**2 / 2, error - 0.5))
        total += float(torch.cat(frames).mean())
    assert float(terms["reconstruction"]) == pytest.approx(total, rel=1e-4)
    drawn, _ = model._losses(batch, draw=True)
    assert drawn != model._losses(batch, draw=True)[0], "latents are drawn in training"


def test_without_a_decoder_only_the_contrast_is_left():
    model = make(decoder=False)
    batch = MotionBatch(torch.randn(2, 24, 263), torch.ones(2, 24, dtype=torch.bool), ["a", "b"], ["walks", "jumps"])
    loss, terms = model._losses(batch, draw=True)
    assert set(terms) == {"contrastive"} and float(loss) == pytest.approx(0.1 * float(terms["contrastive"]))
    assert model.text_encoder(["walks"]).shape == (1, 8)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(ValueError, match="max_frames must be at least"):
        make(max_frames=3)


def test_it_learns_which_words_go_with_which_motion():
    """Three kinds of motion, told by a level of the features; the wordings differ, "left" and "right" do not mix."""
    model = make(decoder=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    kinds = {"raises the left arm": 1.0, "raises the right arm": -1.0, "jumps up": 3.0}

    def batch(seed):
        generator = torch.Generator().manual_seed(seed)
        features = 0.3 * torch.randn(3, 16, 263, generator=generator)
        features[..., :20] += torch.tensor(list(kinds.values()))[:, None, None]
        who = ("a person", "someone", "the figure")[seed % 3]
        mask = torch.ones(3, 16, dtype=torch.bool)
        return MotionBatch(features, mask, list(kinds), [f"{who} {kind}" for kind in kinds])

    for step in range(60):
        loss, _ = model._losses(batch(step), draw=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    unseen = batch(1000)
    distances = torch.cdist(model.embed_texts(unseen.texts), model.embed_motions(unseen.features, unseen.mask))
    assert distances.argmin(1).tolist() == [0, 1, 2]


def test_a_checkpoint_of_something_else_is_refused(place, monkeypatch):
    assert isinstance(load_module("runs/evaluator/checkpoints/last.ckpt", ContrastiveModel), ContrastiveModel)
    checkpoint = torch.load("runs/evaluator/checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["_class_path"] = "lmm.tokenizers.VQTokenizer"
    torch.save(checkpoint, "other.ckpt")
    with pytest.raises(ValueError, match="holds a VQTokenizer, but a ContrastiveModel is needed"):
        LearnedEvaluator("other.ckpt")
