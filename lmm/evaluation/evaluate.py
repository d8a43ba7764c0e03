"""``lmm evaluate``: folders of motions from any system beside the real row, by one evaluator and one protocol."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmm.command_line import find_config
from lmm.evaluation.clips import find_source
from lmm.evaluation.predictions import Predictions
from lmm.evaluation.protocol import Protocol, interval
from lmm.evaluation.report import Raw, markdown, summarize, write
from lmm.evaluation.scoring import DIVERSITY_PAIRS, REAL, Judge
from lmm.evaluators import Evaluator, load_evaluator
from lmm.metrics.frechet import sample_note
from lmm.runs import environment

STANDARD_REPEATS = 20


def evaluate(
    predictions: list[str] | None,
    output: str = "runs/evaluation",
    evaluator: str = "runs/evaluator/checkpoints/last.ckpt",
    data: str | None = None,
    split: str = "test",
    protocol: str = "standard",
    repeats: int | None = None,
    seed: int = 0,
    task: str | None = None,
    cache: str = "runs/cache",
) -> None:
    """Score folders of predicted motions beside real motion, and write raw values, a manifest and tables.

    Args:
        predictions: folders of one motion a clip, named by the clip's id; none for the real row alone. NAME=FOLDER
            names a row of the table.
        output: folder for raw.jsonl, results.json, table.md and table.tex; what was measured there before is kept.
        evaluator: checkpoint of `lmm fit --config evaluator.yaml`, or a YAML such as evaluator/guo_t2m.yaml.
        data: the real motions: a folder in HumanML3D's layout, or the config.yaml of a run on them; left out, the
            embedded data.
        split: of the data.
        protocol: standard (20 repeats with random captions and crops) or deterministic (one, with nothing drawn).
        repeats: another number of repeats, which is then not the standard protocol.
        seed: of captions, crops, order and pairs.
        task: what the predictions are, where they do not say it themselves: text_to_motion, reconstruction, prediction
            (the first 20 % of each clip were given) or in_between (the first and last 25 % were).
        cache: folder for packed data.
    """
    if repeats is None:
        repeats = STANDARD_REPEATS if protocol == "standard" else 1
    chosen = Protocol(protocol, repeats, seed)
    folders = [_named(word, task) for word in predictions or []]
    loaded = instrument(evaluator)
    source = find_source(data, loaded.representation)
    judge = Judge(loaded, source, split=split, protocol=chosen, cache=Path(cache))
    print(score(judge, folders, Path(output)))
    print(f"{output}: table.md, table.tex, results.json, raw.jsonl")


def instrument(where: str) -> Evaluator:
    """An evaluator by its checkpoint, or by a YAML's path or name."""
    return load_evaluator(find_config(where) if where.endswith(".yaml") else where)


def score(judge: Judge, folders: list[Predictions], output: Path) -> str:
    """Measure what is not known yet and write everything.

    Args:
        judge: what measures.
        folders: what is measured, beside the real row.
        output: folder of the results.

    Returns:
        The tables in Markdown.

    Raises:
        ValueError: two rows of one name, or predictions that are not whole.
    """
    names = [REAL, *(folder.record.name for folder in folders)]
    if len(set(names)) < len(names):
        raise ValueError(f"two rows have one name ({', '.join(names)}); name them: lmm evaluate NAME=FOLDER ...")
    raw, measured = Raw(output / "raw.jsonl"), _measured_with(judge)
    rows = {}
    for name, folder in zip(names, [None, *folders], strict=True):
        of = [measured, folder.fingerprint if folder else REAL]
        rows[name] = _repeats(judge, folder, name, raw, hashlib.sha256(json.dumps(of).encode()).hexdigest())
    title, notes = _title(judge, rows[REAL], folders), _notes(judge, folders)
    about = {folder.record.name: _about(folder) for folder in folders}
    manifest = {"measured_with": measured, "predictions": about, "environment": environment()}
    write(output, title, rows, notes, manifest)
    return markdown(title, summarize(rows), notes)


def _repeats(judge: Judge, folder: Predictions | None, name: str, raw: Raw, key: str) -> list[dict[str, float]]:
    count = judge.protocol.repeats
    known = [raw.get(key, repeat) for repeat in range(count)]
    left = [repeat for repeat, figures in enumerate(known) if figures is None]
    for repeat, figures in judge.system(folder, left) if folder else ((r, judge.real(r)) for r in left):
        raw.add(key, name, repeat, figures)
        known[repeat] = figures
        print(f"{name}: repeat {repeat + 1} of {count}", flush=True)
    return [figures for figures in known if figures is not None]


def _named(word: str, task: str | None) -> Predictions:
    name, equals, folder = word.rpartition("=")
    return Predictions(folder, name=name if equals else None, task=task)


def _measured_with(judge: Judge) -> dict[str, Any]:
    """Everything that a figure depends on, beside what is measured."""
    evaluator = judge.evaluator
    return {
        "evaluator": {"name": evaluator.name, "settings": evaluator.settings, "fingerprint": evaluator.fingerprint},
        "data": {"source": judge.store.meta["source"], "split": judge.split, "clips": len(judge.ids),
                 "fingerprint": judge.store.key},
        "protocol": asdict(judge.protocol),
    }  # fmt: skip


def _about(folder: Predictions) -> dict[str, Any]:
    return {"folder": str(folder.folder), "repeats": folder.num_repeats, "fingerprint": folder.fingerprint} | (
        folder.record._asdict()
    )


def _title(judge: Judge, real: list[dict[str, float]], folders: list[Predictions]) -> str:
    """Calls the figures those of the standard protocol only if real motion gets its published figures by them."""
    where = f"{judge.store.meta['source']}, split {judge.split}"
    if why := _departures(judge, real, folders):
        return f"{where}: not the standard protocol ({'; '.join(why)})"
    return f"{where}: standard protocol"


def _departures(judge: Judge, real: list[dict[str, float]], folders: list[Predictions]) -> list[str]:
    protocol, published = judge.protocol, judge.evaluator.published_real_row
    why = []
    if protocol.name != "standard":
        why.append("nothing is drawn")
    elif protocol.repeats != STANDARD_REPEATS:
        why.append(f"{protocol.repeats} repeats instead of {STANDARD_REPEATS}")
    why += [
        f"{folder.record.name} was generated for {folder.num_repeats} of {protocol.repeats} repeats"
        for folder in folders
        if folder.record.task == "text_to_motion" and folder.num_repeats < protocol.repeats
    ]
    if not published:
        why.append(f"there is no published real row for {judge.evaluator.name}")
    for name, (value, tolerance) in published.items():
        mean, _ = interval([figures[name] for figures in real])
        if abs(mean - value) > tolerance:
            why.append(f"the real row's {name} is {mean:.3f}, published {value:.3f} ± {tolerance:.3f}")
    return why


def _notes(judge: Judge, folders: list[Predictions]) -> list[str]:
    """What a reader of the table has to know."""
    protocol, evaluator, count = judge.protocol, judge.evaluator, len(judge.draw(1).order)
    ceiling = ", ".join(f"{value:.3f}" for value in judge.ceiling().tolist())
    notes = [
        f"evaluator: {evaluator.name}, fingerprint {evaluator.fingerprint[:12]}; data: {judge.store.key[:12]}",
        f"{protocol.name}: {protocol.repeats} repeats, mean ± 95 % interval; {count} of {len(judge.ids)} clips "
        f"in pools of 32; seed {protocol.seed}",
        f"identical captions in a pool leave at most R@1, 2, 3 of {ceiling}",
    ]
    if note := sample_note(count, evaluator.dim):
        notes.append(note)
    if count < DIVERSITY_PAIRS:
        notes.append(f"diversity of {count} pairs instead of {DIVERSITY_PAIRS}")
    if not protocol.random:
        notes.append("nothing is drawn: the real row is compared with itself, so its FID is 0")
    longest = evaluator.max_frames
    for folder in folders:
        record, about = folder.record, f"{folder.record.name}: {folder.record.task}"
        if record.task == "text_to_motion":
            about += f", length {record.length}"
        if record.task != "reconstruction" and folder.num_repeats < protocol.repeats:
            about += f"; generated for {folder.num_repeats} of {protocol.repeats} repeats, and used again in the others"
        if record.task != "reconstruction" and not folder.captions(0):
            about += "; does not say what was asked for: each clip's first caption is assumed"
        if folder.settings not in ("", evaluator.representation.settings):
            about += (
                f"; converted from {folder.settings} to {evaluator.representation.settings}, in which real motion is"
            )
            about += " given: errors hold what the two do differently to a body"
        notes.append(about)
    if folders and longest:
        notes.append(f"the evaluator sees the first {longest} frames of a longer motion")
    return notes
