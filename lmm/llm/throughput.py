"""Ids a second and model FLOP utilization (MFU, PaLM's appendix B) of a language model's training, as it goes.

FLOP of a step = ids · (4·body + 2·trained body) + labelled · (4·head + 2·trained head): twice the weights forward,
twice for the gradient of the activations and, where weights train, twice for theirs. Recomputed activations and
attention's own products are not counted, so the figure errs on the low side.
"""

import time
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from transformers import PreTrainedModel


class Work(NamedTuple):
    """What a step had to do on this rank: real ids read, and positions that the head scored."""

    ids: int
    labelled: int


class Throughput(Callback):
    """Log ``train/ids_per_s`` of all ranks and, where the device's peak is known, ``train/mfu``.

    The module says in ``work`` what its last step did. Time is wall time and includes loading and validation's end.

    Args:
        peak_tflops: of one device, where Lightning's table does not know it (every CPU).
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        if peak_tflops is not None and peak_tflops <= 0:
            raise ValueError(f"peak_tflops must be positive, got {peak_tflops}")
        self.peak = None if peak_tflops is None else peak_tflops * 1e12
        self._since: float | None = None
        self._ids = self._flop = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count weights once; look the device's peak up."""
        self._per_id, self._per_label = flop_per_id(pl_module.llm)  # type: ignore[arg-type]
        if self.peak is None:
            dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
            self.peak = get_available_flops(pl_module.device, dtype)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What validation took does not count."""
        self._since = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Add up; log as often as everything else is logged."""
        work: Work = pl_module.work  # type: ignore[assignment]
        if self._since is None:  # the first step of a stretch warms up and only sets the clock
            self._since, self._ids, self._flop = time.monotonic(), 0, 0
            return
        self._ids += work.ids
        self._flop += work.ids * self._per_id + work.labelled * self._per_label
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        seconds = time.monotonic() - self._since
        rate = self._ids / seconds
        pl_module.log("train/ids_per_s", rate, prog_bar=True, sync_dist=True, reduce_fx="sum")
        if self.peak:
            pl_module.log("train/mfu", self._flop / seconds / self.peak, prog_bar=True, sync_dist=True)
        self._since, self._ids, self._flop = time.monotonic(), 0, 0


def flop_per_id(llm: nn.Module) -> tuple[int, int]:
    """FLOP of a training step for each id that is read, and more for each one that is predicted.

    Args:
        llm: a `MotionLLM`; the tables of its embedding only look up, and 4-bit weights count as what they stand for.
    """
    inner: PreTrainedModel = llm.llm  # type: ignore[assignment]
    head = [p for p in inner.get_output_embeddings().parameters() if p.ndim > 1]
    tables = {id(p) for p in (*inner.get_input_embeddings().parameters(), *head)}
    return _flop([p for p in inner.parameters() if id(p) not in tables]), _flop(head)


def _flop(parameters: list[nn.Parameter]) -> int:
    return sum((6 if p.requires_grad else 4) * _size(p) for p in parameters)


def _size(parameter: nn.Parameter) -> int:
    packed = getattr(parameter, "quant_state", None)  # bitsandbytes: two 4-bit numbers a byte
    return parameter.numel() if packed is None else packed.shape.numel()
