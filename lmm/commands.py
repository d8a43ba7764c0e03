"""The short verbs: plain typed functions, each one a command. Everything heavy is imported inside."""

from pathlib import Path

from lmm.command_line import DRAWN, output_path


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

    path = output_path(output, DRAWN)
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

    output_path(output, DRAWN)
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
