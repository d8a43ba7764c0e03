"""Training that every model shares: AdamW with warm-up and cosine decay, randomness keyed to the step, safe loading."""

import copy
import importlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import instantiate_module
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

Module = TypeVar("Module", bound=LightningModule)


@dataclass(frozen=True)
class Optimization:
    """AdamW, linear warm-up, then a cosine to ``final_lr`` times the peak at the trainer's last step.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled weight decay.
        betas: Adam's moment decays.
        warmup_steps: optimizer steps of linear warm-up.
        final_lr: fraction of ``lr`` left at the last step (1 keeps it constant).
        optimizer: "adamw_8bit" keeps the moments in 8 bits (Dettmers et al. 2021: 2 bytes a weight instead of 8),
            "paged_adamw_8bit" lets them move to the host's memory besides when the GPU's is full.
    """

    lr: float = 2e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 100
    final_lr: float = 0.05
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"

    def build(self, module: LightningModule) -> Any:
        """What ``configure_optimizers`` returns: only parameters that require a gradient are optimized."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = self._adamw(parameters)
        total = max(int(module.trainer.estimated_stepping_batches), 1)

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            progress = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
            return self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2

        schedule = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _adamw(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        settings: dict[str, Any] = {"lr": self.lr, "betas": self.betas, "weight_decay": self.weight_decay}
        if self.optimizer == "adamw":
            optimizer = AdamW(parameters, **settings, fused=True)
            # A fused optimizer offers to unscale gradients itself, but clipping under mixed precision must come first.
            optimizer._step_supports_amp_scaling = False
            return optimizer
        from bitsandbytes import optim  # here, because importing it takes a second
        from torch.distributed.tensor import DTensor

        if any(isinstance(p, DTensor) for p in parameters):
            raise ValueError(
                f"optimizer {self.optimizer} cannot update sharded weights; use `optimizer: adamw`, whose moments are "
                "sharded too, or a strategy that keeps whole weights (strategy/ddp.yaml)"
            )
        classes = {"adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit}
        return classes[self.optimizer](parameters, **settings)


class StepSeed(Callback):
    """Seed torch before every training batch from (seed, batches seen, rank).

    Dropout, codebook resets and every other draw then depend on the position in training alone, so a resumed run
    repeats the uninterrupted one to the bit with no random state in the checkpoint.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed for this batch."""
        seen = trainer.fit_loop.epoch_loop.batch_progress.total.started  # type: ignore[attr-defined]
        torch.manual_seed((self.seed * 1_000_003 + seen) * 4_099 + trainer.global_rank)


CHECKPOINT_FORMAT = 1  # raised when a checkpoint of this version can no longer be read by the one before


def build_module(hyper_parameters: dict[str, Any], **overrides: Any) -> LightningModule:
    """Module of a checkpoint's ``hyper_parameters``, without weights.

    Nothing but this package is imported, whatever the checkpoint asks for. The module keeps the plain
    ``hyper_parameters``, so that what it saves can be loaded again.

    Raises:
        ValueError: the checkpoint names no class of ours.
    """
    cls = find_class(hyper_parameters["_class_path"])
    arguments = {k: v for k, v in hyper_parameters.items() if k != "_instantiator"} | overrides
    instantiator = "lightning.pytorch.cli.instantiate_module"
    with _given_hyperparameters_context(hparams=copy.deepcopy(arguments), instantiator=instantiator):
        return instantiate_module(cls, arguments)


def load_module(path: str | Path, expected: type[Module], **overrides: Any) -> Module:
    """Read any checkpoint of ours: safely (no pickle), the right class, on the CPU, in evaluation mode.

    Args:
        path: a ``.ckpt`` file.
        expected: class that the checkpoint must hold (or a base of it).
        **overrides: init arguments that replace the checkpoint's.

    Raises:
        ValueError: no such file, a sharded folder, not a checkpoint of ours, another kind, or a newer format.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; if it is a sharded checkpoint: `lmm consolidate {path} -o FILE` first")
    if not path.is_file():
        raise ValueError(f"there is no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        hyper_parameters = checkpoint["hyper_parameters"]
        name = hyper_parameters["_class_path"]
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that `lmm fit` wrote ({error})") from None
    try:
        cls = find_class(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if checkpoint.get("lmm_format", CHECKPOINT_FORMAT) > CHECKPOINT_FORMAT:
        raise ValueError(f"{path} was written by a newer version of lmm; upgrade with `pip install -U lmm`")
    if not issubclass(cls, expected):
        raise ValueError(f"{path} holds a {cls.__name__}, but a {expected.__name__} is needed here")
    module = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True, **overrides)
    kept = copy.deepcopy({k: v for k, v in hyper_parameters.items()} | overrides)
    # Lightning leaves live objects here, which no later load accepts.
    module._hparams = module._to_hparams_dict(kept)  # type: ignore[assignment]
    module._hparams_initial = copy.deepcopy(module._hparams)  # type: ignore[assignment]
    return module.eval()


def find_class(name: str) -> type[LightningModule]:
    """The model class of a dotted name, if it is this package's or of a module that is imported already.

    Raises:
        ValueError: anything else; a checkpoint must not decide what is imported.
    """
    module, _, cls = name.rpartition(".")
    if not (name.startswith("lmm.") or module in sys.modules):
        raise ValueError(f"it holds a {name!r}, which is none of lmm's; if it is yours, set LMM_IMPORT={module}")
    found = getattr(importlib.import_module(module), cls, None)
    if not (isinstance(found, type) and issubclass(found, LightningModule)):
        raise ValueError(f"it holds a {name!r}, which this version of lmm does not have")
    return found


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Sum of a statistic over all processes (no gradient)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(x)
    return x


def mean_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Mean over all processes, with the gradient of the local term.

    DDP averages gradients over ranks, so a rank's own share enters with its full weight.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(x) / torch.distributed.get_world_size()
    return x


def broadcast(x: torch.Tensor) -> torch.Tensor:
    """Rank 0's value everywhere."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        x = x.contiguous()
        torch.distributed.broadcast(x, src=0)
    return x
