"""What `lmm predict` leaves on disk: a token store, or one file per generated motion.

While a data set is encoded each rank saves its tokens in parts: ``<folder>.parts/<rank>-<time>.i32`` holds int32
(steps, K), and a ``.json`` of the same name, which completes it, the ids and steps of its clips. A run of the same
tokenizer, motions and precision goes on from the parts of an interrupted one, on any number of ranks; at the end the
first rank joins them in the order of the motions.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lmm.batch import TokenBatch, TokenSpec
from lmm.data.motions import Encoding, MotionDataModule
from lmm.data.tokens import check_token_folder, write_token_store
from lmm.motion.motion import Motion


class TokenWriter(Callback):
    """Saves a tokenizer's `TokenBatch` predictions as they come, and joins them to one token store at the end.

    Args:
        folder: the token store; an earlier one there is replaced when the new one is complete.
        seconds: between two parts of a rank. A killed process loses so much; an error or Ctrl-C loses nothing.
    """

    def __init__(self, folder: str, *, seconds: float = 30.0) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.seconds = seconds
        self._parts = _Parts(self.folder.with_name(self.folder.name + ".parts"))
        self._items: dict[str, np.ndarray] = {}
        self._saved = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before the work is done what could not be written after it, and tell the data who asks."""
        if stage == "predict":
            check_token_folder(self.folder)
            _motions(trainer).encoding = partial(self._begin, trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with data, too, that did not ask."""
        if _motions(trainer).encoding:
            self._begin(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: TokenBatch,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's tokens, without the padding; save them when it is time."""
        tokens, mask = outputs.tokens.to("cpu", torch.int32).numpy(), outputs.mask.cpu().numpy()
        self._items |= {name: steps[real] for name, steps, real in zip(outputs.ids, tokens, mask, strict=True)}
        if time.monotonic() - self._saved >= self.seconds:
            self._save(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every rank saves its last part, the first joins them all."""
        self._save(trainer)
        trainer.strategy.barrier("tokens saved")
        if trainer.is_global_zero:
            data = _motions(trainer)
            names = (data.store.item(index).id for index in range(len(data.store)))
            spec: TokenSpec = pl_module.token_spec  # type: ignore[assignment]
            items = self._parts.items(names, spec.codes_per_step)
            write_token_store(self.folder, spec, items, motions=data.store.key)
            self._parts.delete()
        trainer.strategy.barrier("tokens joined")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what is there; the next run goes on from it."""
        self._save(trainer)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> Encoding:
        """Called on every rank when the weights are loaded and nothing is encoded yet."""
        spec: TokenSpec = pl_module.token_spec  # type: ignore[assignment]
        data = _motions(trainer)
        data.encoding = None  # whoever asks for the clips later gets all of them
        self._items, self._saved = {}, time.monotonic()
        if trainer.is_global_zero:
            made_of = {"tokenizer": asdict(spec), "motions": data.store.key, "precision": str(trainer.precision)}
            self._parts.begin(made_of)
        trainer.strategy.barrier("parts begun")
        done = self._parts.index()
        trainer.strategy.barrier("parts read")
        if done:
            rank_zero_info(f"{len(done)} clips were encoded by a run that was interrupted; going on from there")
        return Encoding(spec.downsample, done)

    def _save(self, trainer: Trainer) -> None:
        if self._items:
            self._parts.append(trainer.global_rank, self._items)
            self._items, self._saved = {}, time.monotonic()


class MotionWriter(BasePredictionWriter):
    """Writes each (id, caption, Motion) of the predictions to ``<folder>/<id>.npz``.

    Args:
        folder: where to; files of the same ids are replaced.
    """

    def __init__(self, folder: str) -> None:
        super().__init__("batch")
        self.folder = Path(folder)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[tuple[str, str, Motion]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the batch's motions."""
        from lmm.motion.files import save_motion  # reads and writes many formats; only needed here

        for name, caption, motion in prediction:
            file = self.folder / f"{name}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            save_motion(file, motion, caption=caption)


class _Parts:
    """The folder of parts; ``meta.json`` says what they are made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._meta = folder / "meta.json"

    def begin(self, made_of: dict[str, Any]) -> None:
        """Keep the parts of a run that was of the same making, delete any others."""
        if self._meta.exists() and json.loads(self._meta.read_text()) == made_of:
            return
        if self.folder.exists():
            rank_zero_info(f"{self.folder} holds parts of another tokenizer, precision or data: starting anew")
            self.delete()
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self._meta, json.dumps(made_of).encode())

    def append(self, rank: int, items: dict[str, np.ndarray]) -> None:
        """Write a part; it counts when its ``.json`` is there."""
        name = f"{rank}-{time.time_ns()}"
        _write(self.folder / f"{name}.i32", np.concatenate(list(items.values())).tobytes())
        steps = {clip: len(tokens) for clip, tokens in items.items()}
        _write(self.folder / f"{name}.json", json.dumps(steps).encode())

    def index(self) -> dict[str, tuple[Path, int, int]]:
        """Clip -> file, first step, steps."""
        found = {}
        for file in sorted(self.folder.glob("*-*.json")):
            start = 0
            for clip, steps in json.loads(file.read_text()).items():
                found[clip] = file.with_suffix(".i32"), start, steps
                start += steps
        return found

    def items(self, names: Iterator[str], width: int) -> Iterator[tuple[str, Tensor]]:
        """Tokens of the clips that are there, in the order of ``names``."""
        found = self.index()
        for name in names:
            if name in found:
                file, start, steps = found[name]
                flat = np.fromfile(file, np.int32, count=steps * width, offset=4 * start * width)
                yield name, torch.from_numpy(flat.reshape(steps, width))

    def delete(self) -> None:
        """Remove the parts; what they are made of goes first, so that no half of them is ever taken up again."""
        self._meta.unlink(missing_ok=True)
        for file in self.folder.glob("*-*.*"):
            file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _motions(trainer: Trainer) -> MotionDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, MotionDataModule):
        raise ValueError("TokenWriter needs a MotionDataModule: the tokens are stored as those of its motions")
    return data


def _write(file: Path, content: bytes) -> None:
    """All of it or nothing."""
    writing = file.with_name(file.name + ".writing")
    with writing.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    writing.replace(file)
