"""Reading a data set for its checks: each file once, in several processes, and nothing of it ever raises.

What is found in a clip becomes a `Clip`; its arrays are not kept. Clips that no split list names are not read.
"""

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lmm.data.check.body import Body, measure, place
from lmm.data.check.files import ARRAYS, ENDINGS, Array, Recorded, read_array, read_motion
from lmm.data.check.layout import HUMANML3D, KIT, Layout
from lmm.data.check.text import Text, read_text

_CHUNK = 32  # clips a process takes at a time
# Fewer clips are read sooner than processes start (5 to 10 s): about 1,000 a second, 100 where there are motions.
_IN_PROCESS, _IN_PROCESS_MOTIONS = 10_000, 1_000
_UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048}
_FEATURES = {layout.name: layout.features(uniform_skeleton=False) for layout in (HUMANML3D, KIT)}
STATURE = (0.9, 2.3)  # metres; what a body may measure


class Clip(NamedTuple):
    """What was found in the files of a clip; None where that cannot be told.

    Args:
        arrays: folder -> its array, for the files that are there; of ``motions`` the joints of the layout.
        text: captions.
        body: measurements of the joints (of ``motions`` where there is no folder ``new_joints``, and decoded from the
            vectors where there is neither).
        drift: largest distance in metres between the joints and those decoded from the vectors.
        fps: of the frames that training reads.
        recorded: what else the file of ``motions`` says.
    """

    arrays: dict[str, Array]
    text: Text | None
    body: Body | None
    drift: float | None
    fps: float
    recorded: Recorded | None = None

    @property
    def frames(self) -> int | None:
        """Rows T that training reads: of the vectors, or of the joints (which give `HumanML3DFeatures` one less)."""
        kinds = ("new_joint_vecs", "new_joints", "motions")
        rows = [self.arrays[kind].shape[0] for kind in kinds if kind in self.arrays and not self.arrays[kind].problem]
        return rows[0] if rows else None

    @property
    def seconds(self) -> float | None:
        """Duration of these frames."""
        return None if self.frames is None else self.frames / self.fps

    def usable(self, kind: str) -> bool:
        """Whether the numbers of an array can be worked with."""
        return kind in self.arrays and not self.arrays[kind].problem and not self.arrays[kind].nan


class Plan(NamedTuple):
    """What a process must know to read clips."""

    folder: Path
    layout: Layout
    scale: float
    files: dict[str, frozenset[str]]
    train: frozenset[str]


class Sums(NamedTuple):
    """Rows, sums and sums of squares of the train split's vectors, float64 "D"."""

    rows: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]


def scan(folder: Path) -> dict[str, frozenset[str]]:
    """Ids of the files in each folder of the layout; a folder that is not there is left out."""
    found = {}
    for kind, ending in ENDINGS.items():
        if (folder / kind).is_dir():
            # os.walk is several times faster than Path.rglob on 10^5 files.
            names = (
                os.path.relpath(os.path.join(root, file), folder / kind) if root != str(folder / kind) else file
                for root, _, files in os.walk(folder / kind)
                for file in files
            )
            found[kind] = frozenset(name.removesuffix(ending) for name in names if name.endswith(ending))
    return found


def detect(folder: Path, files: dict[str, frozenset[str]]) -> tuple[Layout, str]:
    """Layout and unit of length, from the first readable files."""
    shapes, statures = [], []
    for kind in ARRAYS:
        for clip in sorted(files.get(kind, ()))[:20]:
            array, found = read_array(folder / kind / f"{clip}.npy")
            if array is None or found.problem or array.ndim < 2:
                continue
            shapes.append(array.shape[1:])
            for layout in (HUMANML3D, KIT):
                if array.shape[1:] == (layout.num_joints, 3) and len(array) > 1 and not found.nan:
                    statures.append(measure(array / layout.units, layout, layout.features.fps).stature)
    for clip in [] if statures else sorted(files.get("motions", ()))[:20]:
        joints, _, recorded = read_motion(folder / "motions" / f"{clip}.npz", HUMANML3D.features.skeleton)
        if joints is not None and recorded is not None:
            statures.append(measure(joints, HUMANML3D, recorded.fps).stature)
    kit = sum(shape in ((KIT.num_joints, 3), (KIT.dim,)) for shape in shapes) > len(shapes) / 2
    tall = float(np.median(statures)) if statures else 1.7
    unit = next((name for name, scale in _UNITS.items() if STATURE[0] <= tall * scale <= STATURE[1]), "metres")
    return (KIT if kit else HUMANML3D), unit


def scale_of(unit: str) -> float:
    """Metres in a unit that `detect` names."""
    return _UNITS[unit]


def read_clips(plan: Plan, ids: list[str], num_workers: int | None) -> tuple[dict[str, Clip], Sums]:
    """Facts of all clips and sums of the train split's vectors.

    Args:
        plan: what to read and how.
        ids: clips to read.
        num_workers: processes; 0 reads in this one, None takes one a core where there are clips enough.
    """
    if num_workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_workers = 0 if len(ids) < (_IN_PROCESS_MOTIONS if "motions" in plan.files else _IN_PROCESS) else cores
    chunks = [ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK)]
    clips: dict[str, Clip] = {}
    sums = Sums(0, np.zeros(plan.layout.dim), np.zeros(plan.layout.dim))
    with tqdm(total=len(ids), desc="reading", unit="clip", disable=None) as bar:
        for found, part in _each(partial(_read_chunk, plan), chunks, num_workers):
            clips.update(found)
            sums = Sums(sums.rows + part.rows, sums.total + part.total, sums.squares + part.squares)
            bar.update(len(found))
    return {clip: clips[clip] for clip in ids}, sums


def load(folder: Path, kind: str, clip: str) -> NDArray[np.float32]:
    """An array that was found usable."""
    array, _ = read_array(folder / kind / f"{clip}.npy")
    assert array is not None, f"{kind}/{clip} was readable before"
    return array


def _each(work: partial, chunks: list[list[str]], num_workers: int) -> Iterator[tuple[dict[str, Clip], Sums]]:
    if not num_workers:
        yield from map(work, chunks)
        return
    with multiprocessing.get_context("spawn").Pool(num_workers, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap_unordered(work, chunks)


def _read_chunk(plan: Plan, ids: list[str]) -> tuple[dict[str, Clip], Sums]:
    clips, count = {}, 0
    total, squares = np.zeros(plan.layout.dim), np.zeros(plan.layout.dim)
    for clip in ids:
        clips[clip], vectors = _read(plan, clip)
        if vectors is not None and clip in plan.train:
            rows = vectors.astype(np.float64)
            count, total, squares = count + len(rows), total + rows.sum(0), squares + np.einsum("td,td->d", rows, rows)
    return clips, Sums(count, total, squares)


@torch.no_grad()
@np.errstate(over="ignore", invalid="ignore")  # senseless numbers are findings
def _read(plan: Plan, clip: str) -> tuple[Clip, NDArray[np.float32] | None]:
    layout = plan.layout
    found: dict[str, Array] = {}
    arrays: dict[str, NDArray[np.float32]] = {}
    for kind, shape in zip(ARRAYS, ((layout.num_joints, 3), (layout.dim,)), strict=True):
        if clip in plan.files.get(kind, ()):
            array, facts = read_array(plan.folder / kind / f"{clip}.npy")
            if array is not None and (array.shape[1:] != shape or len(array) < 2):
                want = ", ".join(map(str, shape))
                facts = facts._replace(problem=f"shape {facts.shape}, expected (T, {want}) with T at least 2", nan=0)
            found[kind] = facts
            if array is not None and not facts.problem and not facts.nan:
                arrays[kind] = array
    own, recorded = None, None
    if clip in plan.files.get("motions", ()):
        file = plan.folder / "motions" / f"{clip}.npz"
        own, found["motions"], recorded = read_motion(file, layout.features.skeleton)
    joints, vectors = arrays.get("new_joints"), arrays.get("new_joint_vecs")
    fps, decoded, drift = layout.features.fps, None, None
    if vectors is not None:
        decoded = _FEATURES[layout.name].to_joints(torch.from_numpy(vectors)).numpy()
    if joints is not None:
        joints = joints / layout.units
        if own is not None and recorded is not None and len(own) == len(joints):
            recorded = recorded._replace(apart=float(np.abs(own - joints).max()))
    elif "new_joints" not in plan.files and recorded is not None:
        joints, fps = own, recorded.fps
    if joints is not None:
        joints = joints * np.float32(plan.scale)
        if decoded is not None:
            rows = min(len(joints), len(decoded))
            off = place(joints, layout)[:rows] - decoded[:rows]
            off[..., 1] -= off[..., 1].mean()  # the floor may be that of a frame which only the vectors saw
            drift = float(np.linalg.norm(off, axis=-1).max())
    elif not {"new_joints", "motions"} & plan.files.keys():
        joints = decoded
    text = read_text(plan.folder / "texts" / f"{clip}.txt") if clip in plan.files.get("texts", ()) else None
    body = None if joints is None else measure(joints, layout, fps)
    return Clip(found, text, body, drift, layout.features.fps if "new_joint_vecs" in found else fps, recorded), vectors
