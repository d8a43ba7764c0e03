"""``lmm audit-evaluator``: the command line, and the three files it leaves."""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmm.data.store import MotionStore
from lmm.evaluation.audit import plots
from lmm.evaluation.audit.agreement import Agreement, rank_agreement
from lmm.evaluation.audit.figures import FIGURES
from lmm.evaluation.audit.page import markdown, page
from lmm.evaluation.audit.report import Audit, EvaluatorAudit, audit
from lmm.evaluation.audit.response import UNDAMAGED
from lmm.evaluation.clips import find_source
from lmm.evaluation.evaluate import instrument
from lmm.runs import environment


def audit_evaluator(
    evaluators: list[str],
    output: str = "runs/audit",
    data: str | None = None,
    splits: str | None = None,
    train_split: str = "train",
    max_clips: int = 300,
    seed: int = 0,
    cache: str = "runs/cache",
) -> None:
    """Measure evaluators before they measure: what they see, what they do not, where they cannot be trusted.

    Args:
        evaluators: one or several; a checkpoint of `lmm fit --config evaluator.yaml`, or a YAML such as
            evaluator/guo_t2m.yaml.
        output: -o FOLDER for audit.html (one page), audit.md (its tables) and audit.json (every value).
        data: a folder in HumanML3D's layout, or the config.yaml of a run on it; left out, the embedded data.
        splits: what is judged, with commas, such as test,unseen; damaged motions are those of the first. Left
            out: test, and unseen where the data has it.
        train_split: what the evaluators were trained on: new texts and leaks are measured against it.
        max_clips: clips of each split, drawn by the seed (0: all).
        seed: same seed, same figures.
        cache: folder for packed data; may be deleted at any time.
    """
    start = time.monotonic()
    plots.require()
    folder = Path(output)
    if folder.suffix or folder.is_file():
        raise ValueError(f"-o {output} names a file; an audit writes a folder")
    if max_clips < 0:
        raise ValueError(f"--max-clips must be 0 (all) or more, got {max_clips}")
    loaded = [instrument(where) for where in evaluators]
    asked = {"data": data, "splits": splits, "train_split": train_split, "max_clips": max_clips, "seed": seed}
    done = []
    for where, evaluator in zip(evaluators, loaded, strict=True):
        source = find_source(data, evaluator.representation)
        source.prepare()
        store = MotionStore.open(source, evaluator.representation, Path(cache))
        names = choose_splits(store, splits)
        train = train_split if train_split in store.meta["splits"] else None
        done.append(audit(evaluator, where, store, names, train, max_clips=max_clips, seed=seed))
        about = {"name": source.name, "fingerprint": source.fingerprint(), "splits": names, "train_split": train}
    write(Audit(about, asked, done, agreement_of(done), round(time.monotonic() - start, 1), environment()), folder)
    for each in done:
        seen = [k for k in each.response.corruptions if each.response.seen_by(k)]
        print(f"{each.name}: sees {', '.join(seen) or 'nothing'}; R-precision@1 of real motions on {each.split} "
              f"{each.splits[0].plain['r_precision_1'][0]:.3f}")  # fmt: skip
    print(folder / "audit.html")


def choose_splits(store: MotionStore, splits: str | None) -> list[str]:
    """Those that were asked for, else test and, where there is one, unseen."""
    if splits:
        return [name.strip() for name in splits.split(",") if name.strip()]
    return ["test", *[name for name in ("unseen",) if name in store.meta["splits"]]]


def agreement_of(audits: list[EvaluatorAudit]) -> dict[str, list[Agreement]]:
    """How alike the evaluators rank the damaged motions, by figure; nothing of a single evaluator."""
    if len(audits) < 2:
        return {}
    names = [a.name for a in audits]
    called = [a.name if names.count(a.name) == 1 else f"{a.name}, {a.where}" for a in audits]
    rows = {
        name: [row for row in a.response.rows if row.corruption not in UNDAMAGED]
        for name, a in zip(called, audits, strict=True)
    }
    return {
        figure: rank_agreement({name: [row.figures[figure] for row in damaged] for name, damaged in rows.items()})
        for figure in FIGURES
    }


def write(made: Audit, folder: Path) -> None:
    """``audit.json``, ``audit.md`` and ``audit.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(asdict(made)), indent=1, ensure_ascii=False)
    (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
    (folder / "audit.md").write_text(markdown(made), encoding="utf-8")
    (folder / "audit.html").write_text(page(made), encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
