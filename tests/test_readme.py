"""Every command in the README is run, at toy size, in the order a reader would type it."""

import re
import shlex
from pathlib import Path

import pytest

from lmm.__main__ import VERBS
from lmm.data.sources.procedural import generate
from lmm.motion.files import load_motion, save_motion

from .test_configs import size_of
from .tokenizers.test_peers import random_weights, save, statistics
from .toy import lmm, options

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
COMMANDS = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_make_targets_are_there():
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.removeprefix('make ')}: install\n" in makefile
        else:
            assert command.startswith("lmm ")


def test_every_verb_is_shown():
    for verb in VERBS:  # make runs the demo; what several processes wrote is put together in llm/test_sharding.py
        assert verb in ("demo", "consolidate") or any(command.startswith(f"lmm {verb}") for command in COMMANDS), verb


def record(folder: Path) -> None:
    """BVH files with a sentence each, as a user might have them."""
    generate(Path("runs/procedural"), num_clips=48, seed=1)
    folder.mkdir()
    for file in sorted(Path("runs/procedural/new_joints").glob("*.npy")):
        save_motion(folder / f"{file.stem}.bvh", load_motion(file))
        sentence = (Path("runs/procedural/texts") / f"{file.stem}.txt").read_text().split("#")[0]
        (folder / f"{file.stem}.txt").write_text(f"{sentence}\n")


def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if command.startswith("make ") or "backbone/" in command:
            continue  # make is run by CI, other backbones by test_configs.py
        if words[0] == "fit":
            words += [o for o in size_of(words[2]) if "data/folder.yaml" not in words or "num_clips" not in o]
            if any(word in command for word in ("size/", "representation/", "data/", "LookupFree")):
                words += ["--trainer.default_root_dir=runs/extra"]
            if "LookupFree" in command:
                words = [w for w in words if "model.quantizer.codebook_size=" not in w]
        if words[:2] == ["data", "import"]:
            record(Path(words[3]))
            words += ["--num_workers=0"]
        if words[:2] == ["import", "tokenizer"]:
            save(Path(), "t2mgpt", random_weights()).rename(words[2])
            for name, file in statistics(Path()).items():
                file.replace(f"{name}.npy")
        if "evaluation.evaluator" in command:  # 48 clips have too few in test for a pool of 32
            words += ["--data.test_split=train", "--evaluation.repeats=2"]
        if words[0] == "evaluate":
            words = [word.replace("/test/", "/train/") for word in words] + ["--split=train", "--repeats=2"]
        if words[0] == "audit-evaluator":
            generate(Path("larger"), num_clips=100, seed=1)  # it takes two pools to audit
            words += ["--data=larger", "--splits=train", "--max-clips=64"]
        if words[:2] == ["data", "demo"]:
            words += options({"num_clips": 48})
        if words[-1].endswith(".mp4"):
            pytest.importorskip("imageio_ffmpeg")
        lmm(monkeypatch, *words)
    for made in ("walk.html", "pair.html", "both.html", "wave.bvh", "wave.mp4", "wave.glb", "walk_clean.npz"):
        assert Path(made).stat().st_size > 1000, made
    for made in ("audit/audit.html", "evaluation/table.md", "llm_lora/train/text_to_motion/scores/table.tex"):
        assert (Path("runs") / made).stat().st_size > 100, made
    assert Path("exported/model.safetensors").exists()
    assert (Path("exported") / "motion.json").exists()
