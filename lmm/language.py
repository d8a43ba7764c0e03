"""The verbs of language models: generate, describe. Everything heavy is imported inside."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmm.command_line import DRAWN, SAVED, output_path

if TYPE_CHECKING:
    from lmm.llm import MotionLanguageModel
    from lmm.motion.motion import Motion

DEFAULT_MODEL = "runs/llm_lora/checkpoints/last.ckpt"
FRAMES = ".jsonl"
SETTINGS: dict[str, Callable[[str], Any]] = {  # what a line of `--interactive` may change
    "seconds": lambda word: None if word == "any" else float(word),
    "seed": int,
    "num_samples": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "guidance": float,
}


def generate(
    texts: list[str] | None,
    output: str,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance: float = 1.0,
    seconds: float | None = None,
    clean_up: bool = False,
    interactive: bool = False,
    backbone: str | None = None,
) -> None:
    """Make motions from sentences.

    Args:
        texts: one sentence, or several (each in quotes); none with --interactive.
        output: -o FILE; .html (viewer, all samples side by side), .mp4, .gif, .png, or .npz, .npy, .bvh, .glb, .gltf
            (numbered if several); .jsonl or - writes each frame's joints as soon as its tokens are known.
        model: checkpoint of a language model that `lmm fit --config llm_*.yaml` wrote, or a folder of
            `lmm export --adapter`.
        seed: same seed, same motion.
        num_samples: motions for each sentence.
        temperature: 1 samples from the model's distribution, lower is more cautious, 0 takes the likeliest code.
        top_k: sample among the k likeliest codes only (0: all).
        top_p: sample among the likeliest codes that together have this probability (1: all).
        guidance: more than 1 follows the sentence more than the model does by itself (classifier-free guidance; for
            models trained with `unconditional`).
        seconds: exact duration; left out, the model decides (between 1 and 9.8 seconds).
        clean_up: also give each motion with its planted feet held still, beside the one as it was generated.
        interactive: keep the model loaded and read sentences line by line; `:seconds 4` changes a setting.
        backbone: folder or hub name of the pretrained language model, where it is not where the checkpoint says.
    """
    live = output == "-" or output.endswith(FRAMES)
    path = Path(output) if output == "-" else output_path(output, (*DRAWN, *SAVED, FRAMES))
    settings = {
        "seconds": seconds,
        "seed": seed,
        "num_samples": num_samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "guidance": guidance,
    }
    if interactive and (texts or live):
        raise ValueError("--interactive asks for the sentences itself and writes whole files: leave sentences out")
    if not interactive:
        _check_texts(texts)
    if live and (len(texts or ()) > 1 or num_samples > 1 or clean_up):
        raise ValueError(f"-o {output} takes one motion as it comes: one sentence, one sample, no --clean-up")
    _check(settings)
    llm = load(model, backbone, prepare=True)
    if live:
        _write_frames(llm, (texts or [""])[0], path, settings)
    elif interactive:
        _converse(llm, path, settings, clean_up)
    else:
        _write(_motions(llm, texts or [], settings), path, clean_up)


def describe(
    files: list[str],
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    format: str | None = None,
    backbone: str | None = None,
) -> None:
    """Say what motions show, one line a file, by a model that was trained to (tasks/align.yaml).

    Args:
        files: motion files (.npz .npy .bvh .glb .gltf .amc) on the tokenizer's joints; another frame rate is resampled.
        model: checkpoint of a language model whose tasks hold MotionToText, or a folder of `lmm export --adapter`.
        seed: same seed, same words, where the temperature is not 0.
        temperature: 0 takes the likeliest words.
        top_k: sample among the k likeliest words only (0: all).
        top_p: sample among the likeliest words that together have this probability (1: all).
        format: read the files as this format of `lmm data import`: mapped to SMPL's joints.
        backbone: folder or hub name of the pretrained language model, where it is not where the checkpoint says.
    """
    from lmm.data.sources.raw import about_foreign, read_recording
    from lmm.motion.files import load_motion
    from lmm.motion.transforms import resample, select

    motions = [load_motion(file) if format is None else read_recording(file, format).motion for file in files]
    llm = load(model, backbone)
    from lmm.llm.drawing import Drawing
    from lmm.llm.tasks import MotionToText

    if not any(isinstance(task, MotionToText) for task in llm.tasks):
        raise ValueError(
            f"{model} was not trained to describe motions: train one with `lmm fit --config llm_lora.yaml --config "
            "tasks/align.yaml`"
        )
    representation = llm.motion_tokenizer.representation
    ready = []
    for file, motion in zip(files, motions, strict=True):
        try:
            ready.append(select(resample(motion, representation.fps), representation.skeleton))
        except ValueError as why:
            raise about_foreign(file, motion, why) from why
    drawing = Drawing(temperature, top_k, top_p)
    for file, text in zip(files, llm.sampler.describe(ready, seed=seed, drawing=drawing), strict=True):
        print(f"{file}: {text}" if len(files) > 1 else text)


def load(model: str, backbone: str | None, *, prepare: bool = False) -> "MotionLanguageModel":
    """A language model on the device there is, made fast if nothing but generation follows.

    Raises:
        ValueError: there is none at that place, with what to do.
    """
    if not Path(model).exists():
        raise ValueError(
            f"there is no language model at {model}; train one first with `lmm fit --config tokenizer_lfq2d.yaml` and "
            "`lmm fit --config llm_lora.yaml`, or give --model CHECKPOINT"
        )
    import torch
    from transformers.utils import logging

    from lmm.llm.adapter import load_language_model

    logging.disable_progress_bar()
    llm = load_language_model(model, backbone).to("cuda" if torch.cuda.is_available() else "cpu")
    if prepare:
        llm.prepare_for_generation()
    return llm


def _motions(llm: "MotionLanguageModel", texts: list[str], settings: dict[str, Any]) -> Iterator[tuple[str, "Motion"]]:
    from lmm.llm.drawing import Drawing

    drawing = Drawing(**{name: settings[name] for name in Drawing._fields})
    options = {name: settings[name] for name in ("seconds", "seed", "num_samples")}
    for text, samples in zip(texts, llm.generate(texts, drawing=drawing, **options), strict=True):
        yield from ((text, motion) for motion in samples)


def _write(made: Iterator[tuple[str, "Motion"]], path: Path, clean_up: bool) -> None:
    """One drawing of all, or a numbered file each."""
    from lmm.motion.cleanup import clean_up as hold_feet
    from lmm.motion.files import save_motion
    from lmm.render import draw

    flat = list(made)
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


def _write_frames(llm: "MotionLanguageModel", text: str, path: Path, settings: dict[str, Any]) -> None:
    """A line of joints (x, y, z in metres) a frame, flushed with every step of tokens."""
    from lmm.llm.drawing import Drawing

    drawing = Drawing(**{name: settings[name] for name in Drawing._fields})
    stream = llm.sampler.stream(text, seconds=settings["seconds"], seed=settings["seed"], drawing=drawing)
    file, frame = sys.stdout if str(path) == "-" else path.open("w"), 0
    try:
        for _, motion in stream:
            for joints in motion.joints.tolist():
                rounded = [[round(value, 5) for value in joint] for joint in joints]
                file.write(json.dumps({"seconds": round(frame / motion.fps, 4), "joints": rounded}) + "\n")
                frame += 1
            file.flush()
    finally:
        if file is not sys.stdout:
            file.close()
    first = f"{stream.time_to_first_frame or 0:.2f} s to the first frame"
    print(f"{path}: {frame} frames; {first}, real-time factor {stream.real_time_factor:.2f}", file=sys.stderr)


def _converse(llm: "MotionLanguageModel", path: Path, settings: dict[str, Any], clean_up: bool) -> None:
    """Sentences from standard input until it ends or a line is empty; each becomes the next numbered file."""
    print(f"a sentence a line, an empty one ends; settings: {' '.join(f':{name} VALUE' for name in SETTINGS)}")
    number = 0
    while line := _ask().strip():
        try:
            if line.startswith(":"):
                name, _, word = line[1:].partition(" ")
                if name not in SETTINGS:
                    raise ValueError(f"there is no setting {name!r}; there are {', '.join(SETTINGS)}")
                changed = settings | {name: SETTINGS[name](word.strip())}
                _check(changed)
                settings = changed
                print("  ".join(f"{name} {value}" for name, value in settings.items()))
            else:
                _write(_motions(llm, [line], settings), path.with_stem(f"{path.stem}_{number}"), clean_up)
                number += 1
        except ValueError as error:  # the model stays loaded whatever was typed
            print(error)


def _ask() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


def _check_texts(texts: list[str] | None) -> None:
    if not texts:
        raise ValueError('say what the person does: lmm generate "a person waves" -o wave.html')
    if not all(text.strip() for text in texts):
        raise ValueError("a sentence is empty; say what the person does")


def _check(settings: dict[str, Any]) -> None:
    if settings["num_samples"] < 1:
        raise ValueError(f"--num-samples must be at least 1, got {settings['num_samples']}")
