"""The command line as a user meets it: every verb, resuming to the bit, swapping parts, and what goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback

import lmm.cli as lmm_cli
from lmm.command_line import find_config, with_flags
from lmm.motion.cleanup import clean_up
from lmm.motion.files import load_motion
from lmm.runs import LastCheckpoint, claim

from .toy import DATA, SMALL_1D, SMALL_2D, TRAINER, fit_llm, fit_tokenizer, lmm, options


def test_configs_are_found_here_then_in_configs_then_in_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMM_CONFIG_PATH", raising=False)
    shipped = find_config("tokenizer_vq")
    assert Path(shipped).parent.name == "configs" and shipped.endswith("tokenizer_vq.yaml")
    assert find_config("size/paper_vq.yaml").startswith(str(Path(shipped).parent))
    for folder in (tmp_path / "configs", tmp_path / "mine", tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer_vq.yaml").touch()
        if folder.name == "mine":
            monkeypatch.setenv("LMM_CONFIG_PATH", str(folder))
        assert find_config("tokenizer_vq") == str((folder / "tokenizer_vq.yaml").resolve())


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder in which a tokenizer and a language model were trained, for tests that only read it."""
    folder, patch = tmp_path_factory.mktemp("trained"), pytest.MonkeyPatch()
    patch.chdir(folder)
    fit_tokenizer(patch, "lfq2d")
    fit_llm(patch, "lora")
    patch.undo()
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A fresh folder with the demo data and the backbone, but no runs."""
    (tmp_path / "runs").mkdir()
    for name in ("data", "backbone", "cache"):
        (tmp_path / "runs" / name).symlink_to(trained / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def there(trained, monkeypatch):
    """The folder of trained models itself."""
    monkeypatch.chdir(trained)
    return trained


def test_help_and_the_short_verbs_import_no_torch():
    for words in (["--help"], ["generate", "--help"], ["--version"]):
        code = (
            f"import sys; sys.argv = ['lmm', *{words}]\n"
            "from lmm.__main__ import main\n"
            "try: main()\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'numpy', 'lightning'} & set(sys.modules)\nassert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "lmm" in done.stdout


def test_a_run_leaves_everything_and_says_what_is_next(there, capsys, monkeypatch):
    run = there / "runs/tokenizer_lfq2d"
    assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "tokens"} <= set(os.listdir(run))
    assert any(name.startswith("events.") for name in os.listdir(run))
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] and environment["data_fingerprint"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "fit"] == [2, 4]
    assert {"train/loss", "val/mpjpe_mm", "val/codebook_usage", "val/codebook_perplexity"} <= set(lines[-1])
    for checkpoint in there.glob("runs/*/checkpoints/last.ckpt"):
        torch.load(checkpoint, weights_only=True)


@pytest.mark.parametrize("kind", ["vq", "rvq"])
def test_tokenizers_fit_validate_test_predict(place, kind, monkeypatch, capsys):
    checkpoint = fit_tokenizer(monkeypatch, kind)
    said = capsys.readouterr().out
    assert str(checkpoint) in said and f"--model.tokenizer {checkpoint}" in said
    config = f"runs/tokenizer_{kind}/config.yaml"
    for verb in ("validate", "test", "predict"):
        lmm(monkeypatch, verb, "--config", config)
    stages = [json.loads(line) for line in Path(f"runs/tokenizer_{kind}/metrics.jsonl").read_text().splitlines()]
    assert "test/mpjpe_mm" in stages[-1] and "val/mpjpe_mm" in stages[-2]
    assert [(line["split"], line["checkpoint"]) for line in stages[-2:]] == [
        (s, str(checkpoint)) for s in ("val", "test")
    ]
    fitted = json.loads(Path(f"runs/tokenizer_{kind}/environment.json").read_text())
    assert all(line["data_fingerprint"] == fitted["data_fingerprint"] for line in stages[-2:])
    assert {"val/jitter_m_s3", "val/real_jitter_m_s3", "val/skating_ratio", "val/real_skating_ratio"} <= set(stages[-2])
    tokens = np.load(f"runs/tokenizer_{kind}/tokens/tokens.npy")
    assert tokens.shape[1] == {"vq": 1, "rvq": 6}[kind] and 0 <= tokens.min() and tokens.max() < 512


def test_language_model_verbs(there, monkeypatch, capsys):
    for verb in ("validate", "test", "predict"):
        lmm(monkeypatch, verb, "--config", "runs/llm_lora/config.yaml")
    lines = [json.loads(line) for line in Path("runs/llm_lora/metrics.jsonl").read_text().splitlines()]
    assert "test/token_accuracy" in lines[-1]
    asked = set(Path("runs/data/demo/test.txt").read_text().split())
    assert {file.stem for file in Path("runs/llm_lora/motions").glob("*.npz")} == asked


@pytest.mark.parametrize("ending", ["html", "npz", "bvh", "npy", "png", "mp4"])
def test_generate_writes_every_format(there, ending, tmp_path, monkeypatch, capsys):
    if ending == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / f"walk.{ending}"
    lmm(monkeypatch, "generate", "a person walks in a circle", "-o", out, "--seconds", "2", "--seed", "3")
    assert out.stat().st_size > 200 and str(out) in capsys.readouterr().out
    if ending == "npy":
        assert np.load(out).shape == (40, 22, 3)
        lmm(monkeypatch, "generate", "a person walks in a circle", "-o", tmp_path / "b.npy", "--seconds=2", "--seed=3")
        assert np.array_equal(np.load(out), np.load(tmp_path / "b.npy"))
        lmm(monkeypatch, "render", out, tmp_path / "b.npy", "-o", tmp_path / "both.html")
        lmm(monkeypatch, "generate", "one", "two", "--num-samples", "2", "--top-k", "5", "-o", tmp_path / "many.npy")
        assert sorted(p.name for p in tmp_path.glob("many*")) == [f"many_{i}.npy" for i in range(4)]


def test_cleaned_motions_stand_beside_the_generated_ones(there, tmp_path, monkeypatch, capsys):
    words = ("generate", "a person walks", "--seconds=2", "--seed=3", "-o", tmp_path / "walk.npz")
    lmm(monkeypatch, *words, "--clean-up=true")
    as_made, cleaned = (load_motion(tmp_path / name) for name in ("walk.npz", "walk_clean.npz"))
    assert torch.equal(cleaned.joints, clean_up(as_made).joints)
    lmm(monkeypatch, *words)
    assert torch.equal(load_motion(tmp_path / "walk.npz").joints, as_made.joints)


def test_reconstruct(there, tmp_path, monkeypatch, capsys):
    clip = next(Path("runs/data/demo/new_joints").glob("*.npy"))
    lmm(monkeypatch, "reconstruct", clip, "-o", tmp_path / "pair.html")
    assert "mm off" in capsys.readouterr().out and (tmp_path / "pair.html").exists()


@pytest.mark.parametrize("kind", ["vq", "rvq", "lfq2d", "llm_lora", "llm_full"])
def test_resuming_continues_to_the_bit(place, trained, kind, monkeypatch):
    if kind.startswith("llm"):
        (place / "runs/tokenizer_lfq2d").symlink_to(trained / "runs/tokenizer_lfq2d")
    halfway = place / "halfway.ckpt"
    save = LastCheckpoint._save

    def stash(self, trainer):
        save(self, trainer)
        if trainer.global_step == 7:
            shutil.copy(self.path, halfway)

    monkeypatch.setattr(LastCheckpoint, "_save", stash)
    more = {"trainer.max_steps": 14, "save_every": 7, "trainer.val_check_interval": 5}
    fit = (lambda **m: fit_llm(monkeypatch, kind.removeprefix("llm_"), **m)) if kind.startswith("llm") else (
        lambda **m: fit_tokenizer(monkeypatch, kind, **m))  # fmt: skip
    whole = torch.load(fit(**more), weights_only=True)
    torch.manual_seed(99)  # what happens outside the run must not matter
    resumed = torch.load(fit(**more, ckpt_path=halfway), weights_only=True)
    assert whole["global_step"] == resumed["global_step"] == 14
    _same(whole["state_dict"], resumed["state_dict"])
    _same(whole["optimizer_states"], resumed["optimizer_states"])
    assert whole["lr_schedulers"] == resumed["lr_schedulers"]


def _same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("kind", ["rvq", "llm_lora"])
def test_a_run_that_ended_goes_on_to_the_bit(place, trained, kind, monkeypatch):
    """Stopped by its own step limit in the middle of the second epoch, then continued with --ckpt_path last."""
    if kind.startswith("llm"):
        (place / "runs/tokenizer_lfq2d").symlink_to(trained / "runs/tokenizer_lfq2d")
        fit = lambda **m: fit_llm(monkeypatch, "lora", **m)  # noqa: E731
    else:
        fit = lambda **m: fit_tokenizer(monkeypatch, kind, **m)  # noqa: E731
    constant = {"model.optimization.final_lr": 1.0}  # the schedule's end depends on the step limit
    whole = torch.load(fit(**constant, **{"trainer.max_steps": 23}), weights_only=True)
    fit(**constant, **{"trainer.max_steps": 13})
    resumed = torch.load(fit(**constant, **{"trainer.max_steps": 23, "ckpt_path": "last"}), weights_only=True)
    _same(whole["state_dict"], resumed["state_dict"])


def test_where_a_run_began_is_not_where_it_is_judged(place, monkeypatch):
    fit_tokenizer(monkeypatch, "vq", **{"trainer.default_root_dir": "runs/first"})
    fit_tokenizer(monkeypatch, "vq", **{"trainer.max_steps": 6})
    fit_tokenizer(monkeypatch, "vq", **{"ckpt_path": "runs/first/checkpoints/last.ckpt", "trainer.max_steps": 8})
    assert torch.load("runs/tokenizer_vq~1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    lmm(monkeypatch, "validate", "--config", "runs/tokenizer_vq/config.yaml")
    line = json.loads(Path("runs/tokenizer_vq/metrics.jsonl").read_text().splitlines()[-1])
    assert line["checkpoint"] == "runs/tokenizer_vq/checkpoints/last.ckpt"


def test_a_start_that_fails_leaves_the_earlier_run_in_place(place, monkeypatch):
    fit_tokenizer(monkeypatch, "vq")
    for wrong in ({"data.window": 500}, {"data.source": "HumanML3D", "data.source.folder": "nowhere"}):
        with pytest.raises(ValueError):
            fit_tokenizer(monkeypatch, "vq", **wrong)
    fit_tokenizer(monkeypatch, "vq", **{"trainer.fast_dev_run": True})
    assert Path("runs/tokenizer_vq/checkpoints/last.ckpt").exists() and not Path("runs/tokenizer_vq~1").exists()


def test_one_process_at_a_time_in_a_folder(tmp_path):
    held = claim(tmp_path / "run", resume=False)
    with pytest.raises(ValueError, match=f"process {os.getpid()} is training in"):
        claim(tmp_path / "run", resume=True)
    held.close()
    claim(tmp_path / "run", resume=True).close()


def test_ctrl_c_ends_after_the_step_and_saves(place, monkeypatch, capsys):
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(lmm_cli, "StepSeed", lambda seed: Interrupt())
    checkpoint = fit_tokenizer(monkeypatch, "vq")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2
    assert "stopping after this step" in capsys.readouterr().out


def test_ckpt_path_last_resumes_and_a_new_run_moves_the_old_one_aside(place, monkeypatch, capsys):
    checkpoint = fit_tokenizer(monkeypatch, "vq")
    fit_tokenizer(monkeypatch, "vq", **{"trainer.max_steps": 6, "ckpt_path": "last"})
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 6
    assert not Path("runs/tokenizer_vq~1").exists()
    fit_tokenizer(monkeypatch, "vq")
    assert torch.load("runs/tokenizer_vq~1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert "runs/tokenizer_vq~1" in capsys.readouterr().out


@pytest.mark.parametrize("more, seed", [({}, 5), ({"data.seed": 2}, 2)])
def test_one_seed_for_all_unless_the_data_has_its_own(place, more, seed, monkeypatch):
    fit_tokenizer(monkeypatch, "vq", seed_everything=5, **more)
    config = yaml.safe_load(Path("runs/tokenizer_vq/config.yaml").read_text())
    assert (config["seed_everything"], config["data"]["init_args"]["seed"]) == (5, seed)


def test_the_command_line_wins_over_the_checkpoint(place, monkeypatch):
    fit_tokenizer(monkeypatch, "vq")
    fit_tokenizer(monkeypatch, "vq", **{"ckpt_path": "last", "trainer.max_steps": 5, "model.optimization.lr": 0.5})
    hyper_parameters = torch.load("runs/tokenizer_vq/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert hyper_parameters["optimization"]["lr"] == 0.5


SWAPS = {
    "quantizer": ["--config", "tokenizer_vq.yaml", *options(SMALL_1D), "--model", "lmm.tokenizers.MotionTokenizer",
                  "--model.quantizer=LookupFreeQuantizer", "--model.quantizer.codebook_size=256"],
    "network": ["--config", "tokenizer_vq.yaml", "--model.encoder=Conv2dEncoder", "--model.decoder=Conv2dDecoder",
                "--model.encoder.width=8", "--model.decoder.width=8", "--model.latent_dim=8"],
    "representation": ["--config", "tokenizer_lfq2d.yaml", *options(SMALL_2D), "--data.representation=JointPositions",
                       "--model.loss.block_weights={}"],
    "tokenizer": ["--config", "tokenizer_lfq2d.yaml", *options(SMALL_2D), "--model.latent_dim=6",
                  "--model.quantizer.codebook_size=64"],
    "finite scalar": ["--config", "tokenizer_vq.yaml", *options(SMALL_1D), "--model", "lmm.tokenizers.MotionTokenizer",
                      "--model.quantizer=FiniteScalarQuantizer", "--model.quantizer.levels=[8,5,5]"],
    "transformer": ["--config", "tokenizer_rvq.yaml", "--model.encoder=TransformerEncoder", "--model.latent_dim=8",
                    "--model.decoder=TransformerDecoder", "--model.encoder.width=8", "--model.encoder.num_heads=2",
                    "--model.decoder.width=8", "--model.decoder.num_heads=2"],
    "partition": ["--config", "tokenizer_lfq2d.yaml", *options(SMALL_2D), "--model.encoder.parts=halves",
                  "--model.decoder.parts=halves", "--model.latent_dim=6", "--model.quantizer.codebook_size=64",
                  "--model.quantizer.sub_codes=2"],
}  # fmt: skip


@pytest.mark.parametrize("part", SWAPS)
def test_one_line_swaps(place, part, monkeypatch):
    run = {"trainer.default_root_dir": "runs/swapped"}
    lmm(monkeypatch, "fit", *SWAPS[part], *options(TRAINER, DATA, run))
    lmm(monkeypatch, "predict", "--config", "runs/swapped/config.yaml")
    spec = json.loads(Path("runs/swapped/tokens/spec.json").read_text())
    expected = {"quantizer": (256, 1), "network": (512, 5), "representation": (1024, 5), "tokenizer": (64, 5)}
    expected |= {"finite scalar": (200, 1), "transformer": (512, 1), "partition": (8, 2)}
    assert (spec["codebook_size"], spec["num_parts"]) == expected[part]


def test_a_wrong_part_is_refused_when_the_yaml_is_parsed(place, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        fit_tokenizer(monkeypatch, "vq", **{"model.quantizer": "ResidualQuantizer"})
    assert "quantizer" in capsys.readouterr().err


class TestWhatGoesWrong:
    """Each refusal names the thing and the remedy, before anything long starts."""

    def test_unknown_config(self, place, monkeypatch):
        with pytest.raises(ValueError, match=r"no config 'tokenizer_vqq'.*did you mean tokenizer_vq\.yaml"):
            lmm(monkeypatch, "fit", "--config", "tokenizer_vqq")

    def test_missing_folder(self, place, monkeypatch):
        with pytest.raises(ValueError, match="nowhere"):
            lmm(monkeypatch, "fit", "--config", "tokenizer_vq.yaml", "--config", "data/humanml3d.yaml",
                "--data.source.folder", "nowhere", *options(TRAINER, SMALL_1D))  # fmt: skip

    def test_no_tokenizer_yet(self, place, monkeypatch):
        with pytest.raises(ValueError, match=r"tokenizer_lfq2d/checkpoints/last\.ckpt"):
            fit_llm(monkeypatch, "lora")

    def test_no_checkpoint_to_resume(self, place, monkeypatch):
        with pytest.raises(ValueError, match="train first"):
            fit_tokenizer(monkeypatch, "vq", ckpt_path="last")
        with pytest.raises(ValueError, match="no such file"):
            fit_tokenizer(monkeypatch, "vq", ckpt_path="elsewhere.ckpt")

    def test_checkpoint_of_another_kind(self, there, monkeypatch):
        tokenizer, llm = "runs/tokenizer_lfq2d/checkpoints/last.ckpt", "runs/llm_lora/checkpoints/last.ckpt"
        with pytest.raises(ValueError, match=r"LFQ2DTokenizer, but the config asks for .*VQTokenizer"):
            lmm(monkeypatch, "validate", "--config", "tokenizer_vq.yaml", "--ckpt_path", tokenizer, *options(DATA))
        with pytest.raises(ValueError, match="holds a LFQ2DTokenizer, but a MotionLanguageModel is needed"):
            lmm(monkeypatch, "generate", "a person", "-o", "x.html", "--model", tokenizer)
        with pytest.raises(ValueError, match="holds a LoRAFinetune, but a MotionTokenizer is needed"):
            clip = next(Path("runs/data/demo/new_joints").glob("*.npy"))
            lmm(monkeypatch, "reconstruct", clip, "-o", "x.html", "--model", llm)

    def test_no_checkpoint_at_all(self, place, monkeypatch):
        Path("junk.ckpt").write_bytes(b"this is no checkpoint")
        with pytest.raises(ValueError, match="not a checkpoint"):
            lmm(monkeypatch, "generate", "a person", "-o", "x.html", "--model", "junk.ckpt")
        with pytest.raises(ValueError, match="lmm fit --config llm_lora"):
            lmm(monkeypatch, "generate", "a person", "-o", "x.html")

    def test_pickles_from_strangers_are_not_run(self, place, monkeypatch):
        class Bomb:
            def __reduce__(self):
                return Path("boom").touch, ()

        torch.save({"hyper_parameters": {"_class_path": "lmm.tokenizers.VQTokenizer"}, "x": Bomb()}, "bomb.ckpt")
        with pytest.raises(ValueError, match="not a checkpoint"):
            lmm(monkeypatch, "generate", "a person", "-o", "x.html", "--model", "bomb.ckpt")
        assert not Path("boom").exists()

    def test_tokens_of_another_tokenizer(self, trained, place, monkeypatch):
        shutil.copytree(trained / "runs/tokenizer_lfq2d", "runs/tokenizer_lfq2d")
        fit_tokenizer(monkeypatch, "lfq2d", **{"trainer.default_root_dir": "runs/other", "seed_everything": 1})
        with pytest.raises(ValueError, match="come from another tokenizer"):
            fit_llm(monkeypatch, "lora", **{"model.tokenizer": "runs/other/checkpoints/last.ckpt"})

    def test_features_of_another_kind(self, trained, place, monkeypatch):
        (place / "runs/tokenizer_lfq2d").symlink_to(trained / "runs/tokenizer_lfq2d")
        with pytest.raises(ValueError, match=r"uniform_skeleton=True.*the data gives.*uniform_skeleton=False"):
            fit_llm(monkeypatch, "lora", **{"data.representation.uniform_skeleton": False})

    def test_weights_of_another_size(self, place, monkeypatch):
        fit_tokenizer(monkeypatch, "vq")
        with pytest.raises(ValueError, match="does not fit the model that is configured"):
            fit_tokenizer(monkeypatch, "vq", **{"ckpt_path": "last", "model.encoder.width": 16})

    def test_a_backbone_folder_of_another_model(self, trained, place, monkeypatch):
        (place / "runs/tokenizer_lfq2d").symlink_to(trained / "runs/tokenizer_lfq2d")
        with pytest.raises(ValueError, match="holds another language model"):
            fit_llm(monkeypatch, "lora", **{"model.backbone.hidden_size": 128})

    def test_windows_longer_than_every_clip(self, place, monkeypatch):
        with pytest.raises(ValueError, match="window"):
            fit_tokenizer(monkeypatch, "vq", **{"data.window": 500})

    def test_tokenizer_on_token_data(self, place, monkeypatch):
        with pytest.raises(ValueError, match="take a MotionDataModule"):
            lmm(monkeypatch, "fit", "--config", "tokenizer_vq.yaml", *options(TRAINER, SMALL_1D),
                "--data=lmm.data.TokenDataModule", "--data.tokens=runs/tokens")  # fmt: skip

    def test_generate_arguments(self, there, monkeypatch):
        for words, message in (
            (["a", "-o", "x.wav"], "ending"),
            ([" ", "-o", "x.html"], "empty"),
            (["a", "-o", "x.html", "--seconds", "0"], "less than a frame"),
            (["a", "-o", "x.html", "--seconds", "900"], "context"),
            (["a", "-o", "x.html", "--temperature=-1"], "temperature"),
            (["a", "-o", "x.html", "--num-samples=0"], "num-samples"),
        ):
            with pytest.raises(ValueError, match=message):
                lmm(monkeypatch, "generate", *words)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ([], []),
        (["--mirror"], ["--mirror", "true"]),
        (["a", "--mirror", "--fps", "20"], ["a", "--mirror", "true", "--fps", "20"]),
        (["--mirror", "false", "mirror"], ["--mirror", "false", "mirror"]),
    ],
)
def test_a_flag_may_stand_alone(typed, read):
    assert with_flags(typed, {"mirror"}) == read


def test_unknown_verb(monkeypatch):
    with pytest.raises(SystemExit, match="did you mean `lmm generate`"):
        lmm(monkeypatch, "genrate", "x")
