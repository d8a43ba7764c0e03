"""What `lmm predict` leaves on disk: a token store, or one file per generated motion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lmm.batch import TokenBatch, TokenSpec
from lmm.data.motions import MotionDataModule
from lmm.data.tokens import write_token_store
from lmm.motion.motion import Motion


class TokenWriter(BasePredictionWriter):
    """Collects a tokenizer's `TokenBatch` predictions and writes them as one token store when all are there.

    Args:
        folder: the token store; an earlier one there is replaced.
    """

    def __init__(self, folder: str) -> None:
        super().__init__("batch")
        self.folder = Path(folder)
        self._items: dict[str, np.ndarray] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run; refuse before the work is done what could not be written after it."""
        self._items = {}
        _motions_key(trainer)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: TokenBatch,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the batch's tokens, without the padding."""
        tokens, mask = prediction.tokens.to("cpu", torch.int32).numpy(), prediction.mask.cpu().numpy()
        for name, steps, real in zip(prediction.ids, tokens, mask, strict=True):
            self._items[name] = steps[real]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every rank writes its part, the first joins them."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            self._part(trainer.global_rank),
            ids=np.array(list(self._items), dtype=np.str_),
            lengths=np.array([len(tokens) for tokens in self._items.values()], dtype=np.int64),
            tokens=np.concatenate(list(self._items.values()) or [np.zeros((0, 1), dtype=np.int32)]),
        )
        trainer.strategy.barrier("tokens written")
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            items = {name: tokens for part in parts for name, tokens in _read(part)}
            spec: TokenSpec = pl_module.token_spec  # type: ignore[assignment]
            write_token_store(self.folder, spec, items.items(), motions=_motions_key(trainer))
            for part in parts:
                part.unlink()
        trainer.strategy.barrier("tokens joined")

    def _part(self, rank: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}.part{rank}.npz")


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


def _motions_key(trainer: Trainer) -> str:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, MotionDataModule):
        raise ValueError("TokenWriter needs a MotionDataModule: the tokens are stored as those of its motions")
    return data.store.key


def _read(part: Path) -> list[tuple[str, torch.Tensor]]:
    with np.load(part, allow_pickle=False) as data:
        pieces = torch.from_numpy(data["tokens"]).split(data["lengths"].tolist())
        return list(zip(data["ids"].tolist(), pieces, strict=True))
