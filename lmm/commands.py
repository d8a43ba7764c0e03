"""The short verbs: plain typed functions, each one a command. Everything heavy is imported inside."""

import os
from pathlib import Path

DEFAULT_MODEL = "runs/llm_lora/checkpoints/last.ckpt"
DRAWN, SAVED = (".html", ".mp4", ".gif", ".png"), (".npz", ".npy", ".bvh", ".glb", ".gltf")


def generate(
    texts: list[str],
    output: str,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seconds: float | None = None,
    clean_up: bool = False,
    backbone: str | None = None,
) -> None:
    """Make motions from sentences.

    Args:
        texts: one sentence, or several (each in quotes).
        output: -o FILE; .html (viewer, all samples side by side), .mp4, .gif, .png, or .npz, .npy, .bvh, .glb, .gltf
            (numbered if several).
        model: checkpoint of a language model that `lmm fit --config llm_*.yaml` wrote.
        seed: same seed, same motion.
        num_samples: motions for each sentence.
        temperature: 1 samples from the model's distribution, lower is more cautious, 0 takes the likeliest code.
        top_k: sample among the k likeliest codes only (0: all).
        top_p: sample among the likeliest codes that together have this probability (1: all).
        seconds: exact duration; left out, the model decides (between 1 and 9.8 seconds).
        clean_up: also give each motion with its planted feet held still, beside the one as it was generated.
        backbone: folder or hub name of the pretrained language model, where it is not where the checkpoint says.
    """
    from lmm.motion.cleanup import clean_up as hold_feet
    from lmm.motion.files import save_motion

    path = _output(output, DRAWN + SAVED)
    if not all(text.strip() for text in texts):
        raise ValueError("a sentence is empty; say what the person does")
    if num_samples < 1:
        raise ValueError(f"--num-samples must be at least 1, got {num_samples}")
    if not Path(model).is_file():
        raise ValueError(
            f"there is no language model at {model}; train one first with `lmm fit --config tokenizer_lfq2d.yaml` and "
            "`lmm fit --config llm_lora.yaml`, or give --model CHECKPOINT"
        )
    import torch
    from transformers.utils import logging

    from lmm.llm import MotionLanguageModel
    from lmm.render import draw
    from lmm.training import load_module

    logging.disable_progress_bar()
    overrides = {} if backbone is None else {"backbone": backbone}
    llm = load_module(model, MotionLanguageModel, **overrides)  # type: ignore[type-abstract]
    llm.prepare_for_generation()
    llm.to("cuda" if torch.cuda.is_available() else "cpu")
    motions = llm.generate(
        texts,
        seconds=seconds,
        num_samples=num_samples,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    flat = [(text, motion) for text, samples in zip(texts, motions, strict=True) for motion in samples]
    names = [path] if len(flat) == 1 else [path.with_stem(f"{path.stem}_{i}") for i in range(len(flat))]
    results = [(file, text, motion) for file, (text, motion) in zip(names, flat, strict=True)]
    if clean_up:
        results += [
            (file.with_stem(f"{file.stem}_clean"), f"{text} (feet cleaned up)", hold_feet(motion))
            for file, text, motion in results
        ]
    if path.suffix in DRAWN:
        draw(path, [motion for _, _, motion in results], [text for _, text, _ in results])
        print(path)
        return
    for file, text, motion in results:
        save_motion(file, motion, caption=text)
        print(file)


def reconstruct(
    file: str,
    output: str,
    model: str = "runs/tokenizer_lfq2d/checkpoints/last.ckpt",
    format: str | None = None,
) -> None:
    """Encode a motion to tokens, decode it again, and draw the original beside the reconstruction.

    Args:
        file: a motion file on the tokenizer's joints; another frame rate is resampled.
        output: -o FILE; .html (viewer), .mp4, .gif or .png (a strip of poses).
        model: checkpoint of a motion tokenizer.
        format: read the file as this format of `lmm data import` (bvh, asfamc, amass, ...): mapped to SMPL's joints.
    """
    from lmm.data.sources.raw import about_foreign, read_recording
    from lmm.data.sources.raw.joints import size_note
    from lmm.motion.files import load_motion
    from lmm.motion.transforms import resample, select

    path = _output(output, DRAWN)
    motion = load_motion(file) if format is None else read_recording(file, format).motion
    if note := size_note(motion, file):
        print(note)
    import torch

    from lmm.metrics.physics import physics
    from lmm.metrics.reconstruction import joint_errors
    from lmm.render import draw
    from lmm.tokenizers import MotionTokenizer
    from lmm.training import load_module

    tokenizer = load_module(model, MotionTokenizer)
    if motion.fps != tokenizer.representation.fps:
        print(f"resampled {motion.fps:g} to {tokenizer.representation.fps:g} fps")
        motion = resample(motion, tokenizer.representation.fps)
    try:
        features = tokenizer.representation.encode(select(motion, tokenizer.representation.skeleton))[None]
    except ValueError as why:
        raise about_foreign(file, motion, why) from why
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    tokens = tokenizer.encode(features, mask)
    pair = [tokenizer.representation.decode(f[0]) for f in (features, tokenizer.decode(tokens)[:, : mask.shape[1]])]
    error = float(joint_errors(pair[1].joints, pair[0].joints, align_root=True).mean()) * 1000
    captions = ["original", f"{tokens.numel()} tokens, {error:.0f} mm off (root-aligned MPJPE)"]
    draw(path, pair, captions)
    print(f"{output}: {captions[1]}")
    figures = [physics(m.joints, mask[0], skeleton=m.skeleton, fps=m.fps) for m in pair]
    print(f"{'':20}{'original':>14}{'reconstruction':>16}")
    for name, value in figures[0].items():
        print(f"{name:20}{value:14.4g}{figures[1][name]:16.4g}")


def render(files: list[str], output: str) -> None:
    """Draw motion files.

    Args:
        files: one or more motion files (.npz .npy .bvh .glb .gltf .amc), shown side by side.
        output: -o FILE; .html (viewer), .mp4, .gif or .png (a strip of poses).
    """
    from lmm.data.sources.raw.joints import size_note
    from lmm.motion.files import load_motion
    from lmm.render import render_files

    _output(output, DRAWN)
    for note in filter(None, (size_note(load_motion(file), file) for file in files)):
        print(note)
    render_files(files, output)
    print(output)


def data_demo(out: str, num_clips: int = 2000, seed: int = 0) -> None:
    """Write the embedded data set: procedural motions with captions, in HumanML3D's layout.

    Args:
        out: folder to make.
        num_clips: how many clips.
        seed: same seed, same clips.
    """
    from lmm.data.sources.procedural import generate as write

    if Path(out).exists():
        raise ValueError(f"{out} is already there; give another folder or delete it first")
    write(Path(out), num_clips, seed)
    print(out)


def _output(name: str, endings: tuple[str, ...]) -> Path:
    """The output's path, refused or with its folder made before any work is done."""
    path = Path(name)
    if path.suffix not in endings:
        raise ValueError(f"-o {name}: the ending must be one of {', '.join(endings)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"-o {name}: {path.parent.resolve()} is not writable")
    return path
