"""Writing the procedural data set in the folder layout of HumanML3D.

Clip i is drawn from (seed, i) alone, so a larger data set begins with the smaller one. Its place in a block of 50
decides the split: 40 train, 3 val, 3 test and 4 unseen, whose plans contain a combination that `plan.held_out` keeps
from all others. Everything is written to a temporary folder next to the final one, which appears when it is complete.
"""

import json
import random
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmm.data.sources.procedural.captions import body_part_texts, clip_captions, text_line
from lmm.data.sources.procedural.perform import perform
from lmm.data.sources.procedural.plan import Plan, draw_plan

VERSION = 1  # raise it whenever the same seed gives other clips
BLOCK = 50
PLACES = {"val": (7, 22, 38), "test": (11, 27, 46), "unseen": (3, 16, 28, 41)}  # the other places are train
SPLITS = ("train", "val", "test", "unseen")


def split_of(index: int) -> str:
    """The split of clip ``index``."""
    return next((split for split, places in PLACES.items() if index % BLOCK in places), "train")


def make_clip(index: int, seed: int = 0) -> tuple[Plan, NDArray[np.float32], list[str]]:
    """Plan, joints "T 22 3" (metres, 20 fps) and three or four captions of clip ``index``."""
    rng = random.Random(f"{seed}/{index}")
    plan = draw_plan(rng, unseen=split_of(index) == "unseen")
    sentences = clip_captions(plan, rng, rng.choice((3, 4)))
    return plan, perform(plan, rng).astype(np.float32), sentences


def settings(num_clips: int, seed: int) -> dict[str, int]:
    """What ``generator.json`` says about a data set."""
    return {"num_clips": num_clips, "seed": seed, "version": VERSION}


def generate(folder: Path, num_clips: int = 2000, seed: int = 0) -> None:
    """Write ``num_clips`` clips with captions and split lists to ``folder``, which must not exist.

    Args:
        folder: gets ``new_joints/<id>.npy`` float32 "T 22 3", ``texts/<id>.txt``, one list per split, ``all.txt``,
            ``manifest.jsonl`` (plan, split and the texts of body, upper body and lower body) and ``generator.json``.
        num_clips: number of clips; 12 or more fill every split.
        seed: another seed, other clips.

    Raises:
        ValueError: the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists: delete it or name another folder for the procedural data set")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(unfinished, num_clips, seed)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write(folder: Path, num_clips: int, seed: int) -> None:
    (folder / "new_joints").mkdir()
    (folder / "texts").mkdir()
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for index in range(num_clips):
            name = f"{index:06d}"
            plan, joints, sentences = make_clip(index, seed)
            np.save(folder / "new_joints" / f"{name}.npy", joints)
            lines = "".join(text_line(sentence) + "\n" for sentence in sentences)
            (folder / "texts" / f"{name}.txt").write_text(lines, encoding="utf-8")
            lists[split_of(index)].append(name)
            action = f" {plan.link} ".join(act.kind for act in (plan.first, plan.second) if act)
            texts = {"body": sentences[0], **body_part_texts(plan)}
            entry = {
                "id": name,
                "action": action,
                "parameters": asdict(plan),
                "split": split_of(index),
                "frames": len(joints),
                "hierarchical": texts,
                "seed": seed,
            }
            manifest.write(json.dumps(entry) + "\n")
    lists["all"] = [f"{index:06d}" for index in range(num_clips)]
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "generator.json").write_text(json.dumps(settings(num_clips, seed), indent=2) + "\n")
