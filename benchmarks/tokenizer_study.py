"""The paper's claim about codebooks, put to the test: reconstruction and usage against the number of codes.

    python benchmarks/tokenizer_study.py --data FOLDER --out-of-domain FOLDER -o runs/tokenizer_study
    python benchmarks/tokenizer_study.py --quick                       # embedded data, two sizes, under five minutes

Six tokenizers (VQ, RVQ-6, FSQ, 1D-LFQ, 2D-LFQ, 2D-residual) at 2^8 ... 2^16 codes and several seeds see the same
windows for equally many steps; each cell is an `lmm fit` and four `lmm test` of the YAMLs in ``configs/``, whose words
its ``commands.txt`` holds. Judged by the whole clips of the data's own test split, of its split `unseen` where it has
one, and of the other data set's test split; usage is that of all training clips. Folders are in HumanML3D's layout.

A cell that is done is not run again, so an interrupted study goes on where it was; ``study.json``, ``study.md`` (means
over seeds ± 95 %) and ``study.svg`` are written anew after each cell.
"""

import argparse
import json
import math
import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student

import lmm.cli  # noqa: F401 - what a cell runs, imported once
from lmm.__main__ import main as lmm_main
from lmm.runs import environment
from lmm.tokenizers.quantizers.finite_scalar import PUBLISHED_LEVELS

FREE = ["--model", "lmm.tokenizers.MotionTokenizer"]  # any quantizer with any network
FSQ = ["--config", "tokenizer_vq.yaml", *FREE, "--model.quantizer", "FiniteScalarQuantizer"]
LFQ = ["--config", "tokenizer_vq.yaml", *FREE, "--model.quantizer", "LookupFreeQuantizer"]
PARTWISE = ["--config", "tokenizer_lfq2d.yaml", *FREE, "--model.quantizer", "PartwiseQuantizer"]
PART = "--model.quantizer.quantizer"
PARTS, LEVELS = 5, {"VQ": 1, "RVQ-6": 6, "FSQ": 1, "1D-LFQ": 1, "2D-LFQ": 1, "2D-residual": 2}
COLOURS = dict(zip(LEVELS, ("#0072B2", "#56B4E9", "#E69F00", "#CC79A7", "#D55E00", "#009E73"), strict=True))


def words(kind: str, bits: int, width: int) -> list[str]:
    """What `lmm fit` is told of a tokenizer with about 2^bits codes."""
    size, flat = ["--model.quantizer.codebook_size", str(2**bits)], ["--model.latent_dim", "32"]
    # The YAMLs' own: an unused code's running count falls from 1 to this in 300 steps at decay 0.99. One that is scaled
    # down with the number of codes is never reached in a short training, and large codebooks then look collapsed.
    reset = "0.05"
    table = [*size, "--model.quantizer.reset_threshold", reset, *flat]
    entropy = ["--model.quantizer.commitment_weight", "0.25", "--model.quantizer.entropy_weight", "0.1"]
    chosen = {
        "VQ": lambda: ["--config", "tokenizer_vq.yaml", *table],
        "RVQ-6": lambda: ["--config", "tokenizer_rvq.yaml", *table],
        "FSQ": lambda: [*FSQ, "--model.quantizer.nominal_size", str(2**bits), *flat],
        "1D-LFQ": lambda: [*LFQ, *size, *entropy, "--model.latent_dim", str(bits)],
        "2D-LFQ": lambda: ["--config", "tokenizer_lfq2d.yaml", *size, *entropy, "--model.latent_dim", str(bits)],
        "2D-residual": lambda: [
            *PARTWISE, "--model.quantizer.num_parts", str(PARTS), PART, "ResidualQuantizer",
            f"{PART}.num_levels", "2", f"{PART}.codebook_size", str(2**bits), f"{PART}.reset_threshold", reset, *flat,
        ],
    }[kind]()  # fmt: skip
    narrow = width // 2 if kind.startswith("2D") else width  # five parts are five times the work
    return [*chosen, "--model.encoder.width", str(narrow), "--model.decoder.width", str(narrow)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data set to train on; default the embedded data")
    parser.add_argument("--out-of-domain", help="data set to judge by as well; default the embedded data, other draws")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/tokenizer_study"), help="folder of all runs")
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each cell")
    parser.add_argument("--width", type=int, default=160, help="channels of the 1-D networks; 2-D ones have half")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 10, 12, 14, 16], help="log2 of the codes")
    parser.add_argument("--kinds", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--quick", action="store_true", help="20 steps of 2^8 and 2^10 codes, one seed, width 32")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.width, arguments.bits, arguments.seeds = 20, 32, arguments.bits[:2], 1
    if missing := [b for b in arguments.bits if 2**b not in PUBLISHED_LEVELS]:
        parser.error(f"FSQ has no published levels for 2^{missing[0]}; choose among {sorted(PUBLISHED_LEVELS)} codes")
    # large codebooks last: what takes longest does not hold up the rest
    cells = [(k, b, s) for b in sorted(arguments.bits) for s in range(arguments.seeds) for k in arguments.kinds]
    left = [cell for cell in cells if not (folder_of(arguments, *cell) / "result.json").exists()]
    print(f"{len(cells)} cells, {len(cells) - len(left)} done before; 1 thread each, {arguments.jobs} at a time")
    arguments.out.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")  # what is imported here is imported once
    with fork.Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for number, failure in enumerate(pool.imap(run, [(arguments, *cell) for cell in left]), 1):
            if failure:
                sys.exit(f"{failure}; the rest is not run. The same command goes on from here.")
            rows = report(arguments.out, arguments, cells)
            print(f"  {number}/{len(left)}: {rows[-1]['name']} done", flush=True)
    rows = report(arguments.out, arguments, cells)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print((arguments.out / "study.md").read_text())


def folder_of(arguments: argparse.Namespace, kind: str, bits: int, seed: int) -> Path:
    """Of one cell."""
    return arguments.out / f"{kind}_2^{bits}_seed{seed}"


def run(task: tuple[argparse.Namespace, str, int, int]) -> str:
    """Train and judge one tokenizer; what went wrong, if anything did."""
    arguments, kind, bits, seed = task
    folder, began = folder_of(*task), time.monotonic()
    torch.set_num_threads(1)

    def source(where: str | None, number: int) -> list[str]:
        if where:
            return ["--config", "data/folder.yaml", "--data.source.folder", where]
        made = str(arguments.out / f"embedded{number}")
        clips = "200" if arguments.quick else "2000"
        return ["--data.source.folder", made, "--data.source.num_clips", clips, "--data.source.seed", str(number)]

    cache = ["--data.cache", str(arguments.out / "cache")]
    model = words(kind, bits, arguments.width)
    first, rest = model[:2], model[2:]  # its YAML comes before the overlay, what is typed after it
    inside, outside = (source(arguments.data, 0), source(arguments.out_of_domain, 1))
    seeds = ["--seed_everything", str(seed)]
    root = "--trainer.default_root_dir"
    quiet = ["--trainer.enable_progress_bar", "false"]
    fit = [*first, *inside, *rest, *cache, *seeds, *quiet, root, str(folder / "run")]
    fit += ["--trainer.max_steps", str(arguments.steps), "--trainer.limit_val_batches", "0"]
    fit += ["--trainer.num_sanity_val_steps", "0", "--save_every", str(arguments.steps)]
    commands = {"fit": ["fit", *fit]}
    tests = {"test": (inside, "test"), "train": (inside, "train"), "out_of_domain": (outside, "test")}
    if arguments.data and (Path(arguments.data) / "unseen.txt").exists():
        tests["unseen"] = (inside, "unseen")
    checkpoint = ["--ckpt_path", str(folder / "run" / "checkpoints" / "last.ckpt")]
    for name, (data, split) in tests.items():
        command = ["test", *first, *data, *rest, *cache, *seeds, *quiet, "--data.test_split", split, *checkpoint]
        commands[name] = [*command, root, str(folder / name)]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [shlex.join(["lmm", *command]) for command in commands.values()]
    (folder / "commands.txt").write_text("\n".join(lines) + "\n")
    result: dict[str, Any] = {"kind": kind, "bits": bits, "seed": seed, "steps": arguments.steps}
    log = (folder / "log.txt").open("w")
    for stream in (1, 2):  # this process ends with the cell; loggers hold on to what stderr was at their import
        os.dup2(log.fileno(), stream)
    for name, command in commands.items():
        try:
            figures = _lmm(command, folder / ("run" if name == "fit" else name))
        except (Exception, SystemExit) as error:
            return f"{kind} at 2^{bits}, seed {seed}: {name} failed ({error}); see {folder / 'log.txt'}"
        if name != "fit":
            result[name] = figures
    result |= {"seconds": round(time.monotonic() - began, 1), "environment": environment()}
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return ""


def _lmm(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command of `lmm` in this process; the last line of its ``metrics.jsonl``."""
    sys.argv = ["lmm", *command]
    lmm_main()
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {name.removeprefix("test/"): value for name, value in line.items() if isinstance(value, float)}


def report(out: Path, arguments: argparse.Namespace, cells: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """Means over the seeds that are done: rows, a table and the figure."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        file = folder_of(arguments, *cell) / "result.json"
        if file.exists():
            result = json.loads(file.read_text())
            if result["steps"] != arguments.steps:
                sys.exit(f"{file} was trained for {result['steps']} steps, not {arguments.steps}; name another folder")
            found[cell[:2]].append(result)
    rows = [row_of(kind, bits, results) for (kind, bits), results in found.items()]
    record = {"settings": {k: str(v) for k, v in vars(arguments).items()}, "rows": rows}
    (out / "study.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "study.md").write_text(table(rows, arguments))
    figure(rows, out / "study.svg")
    return rows


def row_of(kind: str, bits: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One tokenizer at one size: mean and half of the 95 % interval over seeds."""
    slots = LEVELS[kind] * (PARTS if kind.startswith("2D") else 1)
    codes = math.prod(PUBLISHED_LEVELS[2**bits]) if kind == "FSQ" else 2**bits
    row = {"name": f"{kind} 2^{bits}", "kind": kind, "bits": bits, "codes": codes, "seeds": len(results)}
    row |= {"codes_a_step": slots, "bits_a_step": round(slots * math.log2(codes), 1)}
    for split in ("test", "unseen", "out_of_domain"):
        for figure in ("mpjpe_mm", "mpjpe_root_mm"):
            if split in results[0]:
                row[f"{split}_{figure}"] = interval([result[split][figure] for result in results])
    row["usage"] = interval([usage_of(kind, result["train"]) for result in results])
    row["perplexity"] = interval([result["train"]["codebook_perplexity"] for result in results])
    row["seconds"] = round(statistics.mean(result["seconds"] for result in results))
    return row


def usage_of(kind: str, figures: dict[str, float]) -> float:
    """Share of a codebook's codes that the training clips use; the mean over codebooks where there are several."""
    apart = [v for k, v in figures.items() if k.startswith("codebook_usage/")]
    return statistics.mean(apart) if apart and kind != "2D-LFQ" else figures["codebook_usage"]  # whose parts share one


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval (Student's t) of the mean; NaN where there is one value."""
    if len(values) < 2:
        return values[0], math.nan
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), float(half)


def table(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Markdown."""

    def cell(value: tuple[float, float] | None, scale: float = 1.0, digits: int = 1) -> str:
        if value is None:
            return "-"
        mean, half = value
        return f"{mean * scale:.{digits}f}" + ("" if math.isnan(half) else f" ± {half * scale:.{digits}f}")

    lines = [
        f"{arguments.steps} steps of 32 windows of 64 frames, width {arguments.width} (2-D: {arguments.width // 2}), "
        f"{arguments.seeds} seed(s); MPJPE in mm with the root aligned / of whole clips as they are.",
        "",
        "| tokenizer | codes | bits a step | test | unseen | out of domain | usage % | perplexity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = list(LEVELS)
    for row in sorted(rows, key=lambda r: (order.index(r["kind"]), r["bits"])):
        errors = [
            f"{cell(row.get(f'{s}_mpjpe_root_mm'))} / {cell(row.get(f'{s}_mpjpe_mm'), digits=0)}"
            for s in ("test", "unseen", "out_of_domain")
        ]
        lines.append(
            f"| {row['kind']} | {row['codes']} | {row['bits_a_step']} | {' | '.join(errors)} | "
            f"{cell(row['usage'], 100)} | {cell(row['perplexity'], digits=0)} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, Any]], file: Path) -> None:
    """Errors and usage against the number of codes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lmm"  # the same rows make the same file
    from matplotlib import pyplot

    panels = {
        "test_mpjpe_root_mm": "in domain: MPJPE, root aligned (mm)",
        "out_of_domain_mpjpe_root_mm": "out of domain: MPJPE, root aligned (mm)",
        "usage": "codes used by the training clips (%)",
    }
    drawing, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        for kind, colour in COLOURS.items():
            own = sorted((row for row in rows if row["kind"] == kind and key in row), key=lambda row: row["bits"])
            if own:
                scale = 100 if key == "usage" else 1
                means = [row[key][0] * scale for row in own]
                halves = [0.0 if math.isnan(row[key][1]) else row[key][1] * scale for row in own]
                axis.errorbar([r["bits"] for r in own], means, halves, marker="o", capsize=3, color=colour, label=kind)
        axis.set(xlabel="log2 of the number of codes", title=title, xticks=sorted({row["bits"] for row in rows}))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    drawing.savefig(file, metadata={"Date": None})
    pyplot.close(drawing)


if __name__ == "__main__":
    main()
