"""``lmm demo``: the whole chain on the embedded data, as the ordinary commands a person would type, and a report.

Every step is a command that is printed before it runs. What it leaves in the folder: ``report.md``, ``metrics.json``,
``reconstruction.html`` (original beside reconstruction), ``generated.html`` and one ``.html``, ``.npz`` and ``.bvh`` a
prompt, the three runs with their checkpoints, and ``evaluation/`` with the table of figures beside real motion.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPTS = (
    "a person walks forward.",
    "a person waves with the right hand.",
    "a person squats down low.",
    "a person jumps up.",
    "a person walks one round to the left.",
    "a person does a kick to the front with the right leg.",
)
SEED = 0
TEMPERATURE = "0.3"
REPEATS = 3
CLIPS = 4000  # more than the default 2,000, so that the language model sees each sentence's words in more motions


def demo(out: str = "runs/demo", minutes: float = 12.0) -> None:
    """Run the whole chain on the embedded data and write a report: data, tokenizer, language model, motions, figures.

    Args:
        out: where everything is left; `report.md` tells what was run.
        minutes: most that the three trainings may take together; a fast machine ends earlier.
    """
    folder, start = Path(out), time.monotonic()
    steps: list[dict[str, Any]] = []
    tokenizer, llm, evaluator = folder / "tokenizer", folder / "llm", folder / "evaluator"
    data = ["--data.source.folder", str(folder / "data"), "--data.source.num_clips", str(CLIPS)]
    data += ["--data.cache", str(folder / "cache")]
    backbone = ["--model.backbone.folder", str(folder / "backbone")]
    limit, shorter = _limit(minutes * 3 / 8), _limit(minutes / 4)
    token_checkpoint, model, judge = (run / "checkpoints/last.ckpt" for run in (tokenizer, llm, evaluator))
    judged = ["--evaluation.evaluator", str(judge), "--evaluation.repeats", str(REPEATS)]

    def step(*words: str) -> None:
        command = ["lmm", *words]
        print(f"\n$ {shlex.join(command)}", flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", *command], check=False)
        if done.returncode:
            sys.exit(f"lmm demo: the command above failed ({done.returncode}); repeat it by hand to see more")
        steps.append({"command": shlex.join(command), "seconds": round(time.monotonic() - began, 1)})

    if not (folder / "data").exists():
        step("data", "demo", str(folder / "data"), "--num-clips", str(CLIPS))
    step("fit", "--config", "tokenizer_lfq2d.yaml", "--trainer.default_root_dir", str(tokenizer), *data, *limit)
    step("fit", "--config", "evaluator.yaml", "--trainer.default_root_dir", str(evaluator), *data, *shorter)
    step("test", "--config", str(tokenizer / "config.yaml"), *judged)
    step("fit", "--config", "llm_full.yaml", "--trainer.default_root_dir", str(llm), *data, *limit,
         *backbone, "--model.tokenizer", str(token_checkpoint), "--data.tokens", str(tokenizer / "tokens"))  # fmt: skip
    step("test", "--config", str(llm / "config.yaml"), *judged, "--evaluation.temperature", TEMPERATURE)
    made = [
        f"tokenizer={tokenizer / 'test/reconstruction/predictions'}",
        f"LLM={llm / 'test/text_to_motion/predictions'}",
    ]
    step("evaluate", *made, "--data", str(llm / "config.yaml"), "--evaluator", str(judge), "--repeats", str(REPEATS),
         "-o", str(folder / "evaluation"))  # fmt: skip
    original = _clip(folder / "data")
    step("reconstruct", str(original), "--model", str(token_checkpoint), "-o", str(folder / "reconstruction.html"))
    sampling = ["--model", str(model), "--seed", str(SEED), "--temperature", TEMPERATURE]
    for ending in ("html", "npz", "bvh"):  # the same seed: the same motions
        step("generate", *PROMPTS, *sampling, "-o", str(folder / f"generated.{ending}"))
    report(folder, steps, time.monotonic() - start)


def report(folder: Path, steps: list[dict[str, Any]], seconds: float) -> None:
    """Write ``metrics.json`` and ``report.md`` from what the runs recorded."""
    figures = {stage: _figures(folder / stage) for stage in ("tokenizer", "llm")}
    metrics = {"seconds": round(seconds, 1), "steps": steps, **figures}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    tokenizer, llm = figures["tokenizer"], figures["llm"]
    rows = [
        ("tokenizer: MPJPE, root aligned (test)", f"{tokenizer['test/mpjpe_root_mm']:.1f} mm"),
        ("tokenizer: MPJPE (test)", f"{tokenizer['test/mpjpe_mm']:.1f} mm"),
        ("tokenizer: share of the codebook used (test)", f"{100 * tokenizer['test/codebook_usage']:.1f} %"),
        ("tokenizer: codebook perplexity (test)", f"{tokenizer['test/codebook_perplexity']:.0f} codes"),
        (
            "tokenizer: training",
            _speed(tokenizer),
        ),
        ("language model: motion token accuracy (test)", f"{100 * llm['test/token_accuracy']:.1f} %"),
        ("language model: nats a motion token (test)", f"{llm['test/motion_nll']:.2f}"),
        ("language model: training", _speed(llm)),
        ("the whole chain", f"{seconds / 60:.1f} minutes"),
    ]
    environment = json.loads((folder / "llm/environment.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    lines = ["# Demo report", "", "| figure | value |", "|---|---|", *[f"| {name} | {value} |" for name, value in rows]]
    lines += [
        "",
        "Real motions have an MPJPE of 0 by definition; they are beside the reconstruction in the viewer.",
        "",
        "## Beside real motion",
        "",
        *(folder / "evaluation/table.md").read_text().splitlines()[2:],
        "",
    ]
    lines += ["Look at: `generated.html` (one motion a prompt), `reconstruction.html`, `generated_*.bvh`.", ""]
    lines += ["## What was run", "", "```"]
    lines += [f"{entry['command']}    # {entry['seconds']} s" for entry in steps]
    lines += ["```", "", "## Prompts", "", *[f"{i}. {prompt}" for i, prompt in enumerate(PROMPTS)], ""]
    lines += [f"Seed {SEED}; {environment['platform']}, {environment['cpus']} cores; {versions}.", ""]
    (folder / "report.md").write_text("\n".join(lines))
    print(f"\n{folder / 'report.md'}\n" + "\n".join(f"  {name}: {value}" for name, value in rows))


def _figures(run: Path) -> dict[str, float]:
    """Last recorded value of every figure of a run, and its speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    merged = {name: value for line in lines for name, value in line.items() if isinstance(value, int | float)}
    fits = [line for line in lines if line["stage"] == "fit"]
    # where time ran out before the first validation, the start counts too
    first, last = fits[0] if len(fits) > 1 else {"seconds": 0.0, "step": 0}, fits[-1]
    speed = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    merged |= {"steps": last["step"], "seconds_per_step": speed}
    for name in ("step", "seconds"):
        merged.pop(name, None)
    return merged


def _limit(minutes: float) -> list[str]:
    seconds = round(minutes * 60)
    return ["--trainer.max_time", f"00:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"]  # days:h:min:s


def _speed(figures: dict[str, float]) -> str:
    return f"{figures['steps']} steps, {figures['seconds_per_step']:.3f} s each, validation included"


def _clip(data: Path) -> Path:
    """A clip of the test split to reconstruct."""
    return data / "new_joints" / f"{(data / 'test.txt').read_text().split()[0]}.npy"
