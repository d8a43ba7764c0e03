"""Full and LoRA tuning: what trains, what is saved, what loading refuses, and that resuming changes nothing."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

from lmm.batch import MotionBatch, TokenBatch
from lmm.llm.base import MotionLanguageModel
from lmm.llm.drawing import Drawing
from lmm.llm.full import FullFinetune
from lmm.llm.generation import generate
from lmm.llm.lora import LoRAFinetune
from lmm.llm.options import Sequences
from lmm.motion.motion import Motion
from lmm.training import Optimization, StepSeed, load_module
from tests.llm.conftest import checkpoint_of, make_batch

FAST = Optimization(lr=1e-3, warmup_steps=0, final_lr=1.0)


def make_model(kind: str, tokenizer: str, backbone: str, **options) -> MotionLanguageModel:
    if kind == "full":
        return FullFinetune(tokenizer, backbone, optimization=FAST, **options)
    return LoRAFinetune(tokenizer, backbone, optimization=FAST, rank=4, dropout=0.1, **options)


def fit(
    model: LightningModule, steps: int, batches: list[TokenBatch] | None = None, callbacks: tuple = (), **options
) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(0), *callbacks],
    )
    batches = batches or [make_batch()] * 4
    trainer.fit(model, DataLoader(batches, batch_size=None), **options)
    return trainer


def same(a: Motion, b: Motion) -> bool:
    return a.num_frames == b.num_frames and torch.allclose(a.joints, b.joints, atol=1e-5)


@pytest.mark.parametrize("backbone", ["gpt2", "llama", "llama-tied"])
def test_lora_trains_and_saves_only_what_is_new(backbones, tokenizer_file, backbone, tmp_path):
    model = make_model("lora", tokenizer_file, backbones[backbone])
    model.configure_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = fit(model, 2)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    tables = {name for name in before if name.endswith(".motion")}
    assert len(tables) == (2 if backbone == "llama" else 1)
    assert moved == {name for name in before if "lora_" in name} | tables
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = checkpoint_of(tmp_path / "a.ckpt")
    assert set(saved["state_dict"]) == moved
    assert sum(v.numel() for v in saved["state_dict"].values()) < sum(p.numel() for p in model.llm.parameters()) / 2
    assert saved["vocabulary"]["backbone"] == backbones[backbone]
    assert saved["hyper_parameters"]["optimization"]["lr"] == 1e-3


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_a_loaded_model_generates_the_same_with_no_tokenizer_file(backbones, tokenizer_file, kind, backbone, tmp_path):
    tokenizer = tmp_path / "tokenizer.ckpt"
    tokenizer.write_bytes(Path(tokenizer_file).read_bytes())
    model = make_model(kind, str(tokenizer), backbones[backbone])
    fit(model, 2).save_checkpoint(tmp_path / "a.ckpt")
    texts = ["a person hops", "a person turns", ""]
    expected = model.generate(texts, seconds=1.1, num_samples=2)
    assert model.training and not model.motion_tokenizer.training
    tokenizer.unlink()
    loaded = load_module(tmp_path / "a.ckpt", MotionLanguageModel)
    assert type(loaded) is type(model)
    if kind == "full":  # what a loaded model saves can be loaded again
        loaded.trainer = Trainer(logger=False, accelerator="cpu", enable_model_summary=False)
        loaded.trainer.strategy.connect(loaded)
        loaded.trainer.save_checkpoint(tmp_path / "b.ckpt")
        load_module(tmp_path / "b.ckpt", FullFinetune)
    else:
        with pytest.raises(ValueError, match="holds a LoRAFinetune"):
            load_module(tmp_path / "a.ckpt", FullFinetune)
    for prepared in (False, True):
        if prepared:
            loaded.prepare_for_generation()
            assert not any("lora" in name for name, _ in loaded.named_parameters())
        again = loaded.generate(texts, seconds=1.1, num_samples=2)
        for mine, theirs in zip(chain(*expected), chain(*again), strict=True):
            assert mine.num_frames == 22 and same(mine, theirs)
    with pytest.raises(ValueError, match=r"merged|laid out"):
        loaded.on_save_checkpoint({})


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_resuming_repeats_the_uninterrupted_run(backbones, tokenizer_file, kind, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="two", every_n_train_steps=2)
    straight = make_model(kind, tokenizer_file, backbones["gpt2"])  # dropout everywhere
    fit(straight, 3, callbacks=[saver])
    torch.manual_seed(1)
    resumed = make_model(kind, tokenizer_file, backbones["gpt2"])
    fit(resumed, 3, ckpt_path=tmp_path / "two.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoints_of_strangers_are_refused(backbones, tokenizer_file, tmp_path):
    fit(make_model("lora", tokenizer_file, backbones["llama"]), 1).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"base_weights.*set `backbone`"):
        load_module(tmp_path / "a.ckpt", LoRAFinetune, backbone=backbones["gpt2"])
    with pytest.raises(ValueError, match="does not fit this model"):
        load_module(tmp_path / "a.ckpt", LoRAFinetune, target_modules=["q_proj"])
    saved = checkpoint_of(tmp_path / "a.ckpt")
    del saved["state_dict"][next(iter(saved["state_dict"]))]
    torch.save(saved, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="missing"):
        load_module(tmp_path / "b.ckpt", LoRAFinetune)
    saved = checkpoint_of(tmp_path / "a.ckpt")
    saved["vocabulary"]["token_spec"]["fingerprint"] = "0" * 64
    torch.save(saved, tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match="another tokenizer"):
        fit(make_model("lora", tokenizer_file, backbones["llama"]), 2, ckpt_path=tmp_path / "c.ckpt")


def test_tokens_of_strangers_are_refused(backbones, tokenizer_file):
    model = make_model("full", tokenizer_file, backbones["llama"])
    model.configure_model()
    spec = model.vocabulary.spec
    model.check_tokens(spec, "here")
    with pytest.raises(ValueError, match=r"tokens in somewhere come from another tokenizer \(fingerprint"):
        make_model("full", tokenizer_file, "nowhere").check_tokens(replace(spec, fingerprint="0"), "somewhere")


def test_what_is_missing_is_named(tokenizer_file, tmp_path):
    with pytest.raises(ValueError, match=r"no motion tokenizer at nowhere.ckpt.*lmm fit --config tokenizer_lfq2d.yaml"):
        make_model("full", "nowhere.ckpt", "nowhere").configure_model()
    with pytest.raises(ValueError, match=r"no language model at '.*nowhere'.*EmbeddedBackbone"):
        make_model("full", tokenizer_file, str(tmp_path / "nowhere")).configure_model()
    with pytest.raises(ValueError, match="all-linear"):
        LoRAFinetune("a", "b", target_modules="q_proj")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_cannot_touch_embedding_or_head(backbones, tokenizer_file, target):
    model = LoRAFinetune(tokenizer_file, backbones["llama"], target_modules=["q_proj", target])
    with pytest.raises(ValueError, match="embedding or the head"):
        model.configure_model()


def test_loss_is_the_cross_entropy_of_the_plain_forward_pass(backbones, tokenizer_file):
    batch = make_batch()
    model = make_model("full", tokenizer_file, backbones["llama"], gradient_checkpointing=True)
    model.configure_model()
    model.train()
    logged = {}
    model.log = lambda name, value, **_: logged.update({name: float(value)})
    loss, weight = model._loss("train", batch, [None] * 4)
    total, count, motion = 0.0, 0, []
    for text, tokens, mask in zip(batch.texts, batch.tokens, batch.mask, strict=True):
        ids = model.prompts.sample(text, tokens[mask], None).ids
        nll = torch.nn.functional.cross_entropy(model.llm.llm(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        total, count = total + float(nll.sum()), count + len(nll)
        motion += nll[-(int(mask.sum()) * 2 + 1) :].tolist()
    assert float(loss.detach()) == pytest.approx(total / count, abs=1e-5) == pytest.approx(logged["train/loss"])
    assert weight == count
    assert logged["train/motion_nll"] == pytest.approx(sum(motion) / len(motion), abs=1e-5)
    assert set(logged) == {"train/loss", "train/motion_nll", "train/text_nll", "train/token_accuracy"}
    loss.backward()
    assert all(p.grad is not None for p in model.llm.parameters())
    assert all(p.grad is None for p in model.motion_tokenizer.parameters())


def test_too_long_a_sample_is_refused(backbones, tokenizer_file):
    model = make_model("full", tokenizer_file, backbones["gpt2"])
    model.configure_model()
    with pytest.raises(ValueError, match=r"the language model 256.*limit the clips"):
        model._loss("train", make_batch(steps=(130, 130)), [None] * 4)


def test_overfits_and_gives_the_tokens_back(backbones, tokenizer_file):
    batch = make_batch(8, steps=(3, 5))
    model = FullFinetune(
        tokenizer_file, backbones["llama"], loss_on_text=False, optimization=Optimization(lr=3e-3, warmup_steps=5)
    )
    model.configure_model()
    # the template of inference
    model.training_step = lambda batch, batch_idx: model._loss("train", batch, [None] * 8)[0]
    fit(model, 150, [batch] * 150)
    model.eval()
    prompts = [model.prompts.prompt(text) for text in batch.texts]
    grids = generate(
        model.llm,
        model.vocabulary,
        prompts=prompts,
        min_steps=[1] * 8,
        max_steps=[20] * 8,
        seeds=[0] * 8,
        temperature=0.0,
    )
    for tokens, mask, grid in zip(batch.tokens, batch.mask, grids, strict=True):
        assert torch.equal(tokens[mask], grid)


def test_validate_test_and_predict(backbones, tokenizer_file):
    model = make_model("full", tokenizer_file, backbones["llama"])
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(model, DataLoader([make_batch(), make_batch(seed=1)], batch_size=None), verbose=False)
    assert {"val/loss", "val/motion_nll", "val/text_nll", "val/token_accuracy"} <= set(trainer.callback_metrics)
    lengths = torch.tensor([24, 13])
    mask = torch.arange(24) < lengths[:, None]
    features = torch.randn(2, 24, 66) * 0.1 * mask[..., None]
    motions = DataLoader([MotionBatch(features, mask, ["a", "b"], ["hops", "turns"])], batch_size=None)
    trainer.test(model, motions, verbose=False)
    assert {"test/loss", "test/motion_nll", "test/token_accuracy"} <= set(trainer.callback_metrics)
    (predictions,) = trainer.predict(model, motions)
    assert [(p.id, p.text) for p in predictions] == [("a", "hops"), ("b", "turns")]
    assert all(20 <= p.motion.num_frames <= 196 for p in predictions)


def test_generate_depends_on_caption_and_seed_alone(backbones, tokenizer_file):
    model = make_model("full", tokenizer_file, backbones["gpt2"])
    model.configure_model()
    (a, b), (c, _) = model.generate(["hops", "a person turns"], num_samples=2, seconds=2.0, seed=3)
    assert same(model.generate(["hops"], seconds=2.0, seed=3)[0][0], a)
    assert same(model.generate(["x", "hops"], seconds=2.0, seed=3, batch_size=1)[1][0], a)
    assert not same(a, b) and not same(a, c)
    assert not same(model.generate(["hops"], seconds=2.0, seed=4)[0][0], a)
    free = model.generate(["hops"] * 4, drawing=Drawing(temperature=2.0))
    assert all(20 <= motion.num_frames <= 196 for (motion,) in free)
    with pytest.raises(ValueError, match=r"0\.0 seconds"):
        model.generate(["hops"], seconds=0.0)


def test_the_command_line_builds_it_and_its_checkpoint_loads(backbones, tokenizer_file, tmp_path):
    model = ["--model=lmm.llm.lora.LoRAFinetune", f"--model.tokenizer={tokenizer_file}"]
    folder = tmp_path / "embedded"
    backbone = "{folder: " + str(folder) + ", hidden_size: 64, num_layers: 1, vocab_size: 400}"
    options = [
        f"--model.backbone={backbone}",
        "--model.backbone.steps=7",
        "--model.rank=2",
        "--model.optimization.lr=0.01",
    ]
    cli = LightningCLI(
        LightningModule,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        run=False,
        save_config_callback=None,
        args=[*model, *options, "--trainer.accelerator=cpu", "--trainer.logger=false"],
    )
    assert cli.model.optimization.lr == 0.01 and (cli.model.backbone.hidden_size, cli.model.backbone.steps) == (64, 7)
    fit(cli.model, 1).save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_module(tmp_path / "a.ckpt", LoRAFinetune)
    assert loaded.optimization.lr == 0.01 and loaded.adapters["r"] == 2 and loaded.backbone == cli.model.backbone


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_bfloat16(backbones, tokenizer_file, kind, tmp_path):
    model = make_model(kind, tokenizer_file, backbones["llama"], dtype="bfloat16")
    fit(model, 2).save_checkpoint(tmp_path / "a.ckpt")
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained == {torch.float32 if kind == "lora" else torch.bfloat16}
    assert {p.dtype for p in model.motion_tokenizer.parameters()} == {torch.float32}
    loaded = load_module(tmp_path / "a.ckpt", MotionLanguageModel)
    assert same(loaded.generate(["hops"], seconds=1.0)[0][0], model.generate(["hops"], seconds=1.0)[0][0])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_second_stage_starts_from_the_first(backbones, tokenizer_file, kind, tmp_path):
    first = make_model(kind, tokenizer_file, backbones["llama"])
    fit(first, 2).save_checkpoint(tmp_path / "first.ckpt")
    second = make_model(kind, tokenizer_file, backbones["llama"], start=str(tmp_path / "first.ckpt"))
    second.configure_model()
    trained = {name for name, p in first.named_parameters() if p.requires_grad}
    for name in trained:
        assert torch.equal(second.get_parameter(name), first.get_parameter(name)), name
    trainer = fit(second, 1)
    assert trainer.global_step == 1  # not 3: neither the step nor the optimizer is taken
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    (tmp_path / "first.ckpt").unlink()
    loaded = load_module(tmp_path / "second.ckpt", MotionLanguageModel)  # needs the first no more
    for name in trained:
        assert torch.equal(loaded.get_parameter(name), second.get_parameter(name)), name
    with pytest.raises(ValueError, match=r"no checkpoint at .*first.ckpt to start from"):
        make_model(kind, tokenizer_file, backbones["llama"], start=str(tmp_path / "first.ckpt")).configure_model()


def test_a_second_stage_starts_from_its_like_alone(backbones, tokenizer_file, tmp_path):
    start = str(tmp_path / "first.ckpt")
    fit(make_model("lora", tokenizer_file, backbones["llama"]), 1).save_checkpoint(start)
    for kind, backbone, options, message in (
        ("full", "llama", {}, "a FullFinetune can only start from a FullFinetune"),
        ("lora", "gpt2", {}, "base_weights|base_vocabulary"),
        ("lora", "llama", {"target_modules": ["q_proj"]}, "does not fit this model"),
    ):
        with pytest.raises(ValueError, match=message):
            make_model(kind, tokenizer_file, backbones[backbone], start=start, **options).configure_model()
    with pytest.raises(ValueError, match="can only start from"):
        make_model("lora", tokenizer_file, backbones["llama"], start=tokenizer_file).configure_model()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpoints_of_before_load(backbones, tokenizer_file, kind, tmp_path):
    """Those that lack the arguments that came later."""
    model = make_model(kind, tokenizer_file, backbones["llama"])
    fit(model, 1).save_checkpoint(tmp_path / "a.ckpt")
    saved = checkpoint_of(tmp_path / "a.ckpt")
    for name in {"start", "pretrained", "compute_dtype"} & set(saved["hyper_parameters"]):
        del saved["hyper_parameters"][name]
    del saved["hyper_parameters"]["optimization"]["optimizer"]
    torch.save(saved, tmp_path / "old.ckpt")
    loaded = load_module(tmp_path / "old.ckpt", MotionLanguageModel)
    assert same(loaded.generate(["hops"], seconds=1.0)[0][0], model.generate(["hops"], seconds=1.0)[0][0])


def test_random_weights_follow_the_seed_and_the_config(backbones, tokenizer_file):
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = FullFinetune(tokenizer_file, backbones["gpt2"], pretrained=False)
        torch.rand(5)  # whatever else was drawn before
        model.configure_model()
        assert (model.llm.llm.config.n_embd, model.llm.llm.config.n_layer) == (64, 2)
        return model.llm.llm.get_parameter("transformer.h.1.mlp.c_fc.weight").detach()

    one, again, other = build(3), build(3), build(4)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert float(one.std()) == pytest.approx(0.02, rel=0.1)  # GPT-2's


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_optimizers_with_8_bits_train_and_resume(backbones, tokenizer_file, optimizer, tmp_path):
    def build() -> MotionLanguageModel:
        return FullFinetune(tokenizer_file, backbones["llama"], optimization=replace(FAST, optimizer=optimizer))

    saver = ModelCheckpoint(tmp_path, filename="two", every_n_train_steps=2)
    straight, resumed = build(), build()
    trainer = fit(straight, 3, callbacks=[saver])
    states = trainer.optimizers[0].state.values()
    assert {s["state1"].dtype for s in states if s["state1"].numel() >= 4096} == {torch.uint8}
    fit(resumed, 3, ckpt_path=tmp_path / "two.ckpt")
    for name, value in straight.llm.named_parameters():
        assert torch.equal(value, resumed.llm.get_parameter(name)), name


def test_motion_among_motion_alone(backbones, tokenizer_file):
    options = {"loss_on_text": False, "sequences": Sequences(motion_rows=True)}
    model = make_model("full", tokenizer_file, backbones["llama"], **options)
    fit(model, 1)
    head = model.llm.llm.get_output_embeddings()
    assert not head.base.weight.requires_grad and head.motion.requires_grad
    batch, rows = make_batch(), []
    model.log = lambda *_, **__: None
    loss, _ = model._loss("train", batch, [None] * 4)
    for text, tokens, mask in zip(batch.texts, batch.tokens, batch.mask, strict=True):
        sample = model.prompts.sample(text, tokens[mask], None)
        logits = model.llm.llm(sample.ids[None]).logits[0, :-1, model.vocabulary.base_size :]
        labels = (sample.ids - model.vocabulary.base_size)[1:]
        rows.append(
            torch.nn.functional.cross_entropy(logits, labels.clamp_min(0), reduction="none")[sample.labelled[1:]]
        )
    assert float(loss.detach()) == pytest.approx(float(torch.cat(rows).mean()), abs=1e-5)
    with pytest.raises(ValueError, match=r"loss_on_text to false"):
        make_model("full", tokenizer_file, backbones["llama"], sequences=Sequences(motion_rows=True))
