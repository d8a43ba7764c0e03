"""A run's folder: what it holds, that nothing in it is lost, and that one process at a time writes there.

``config.yaml`` everything that was set · ``environment.json`` versions and machine · ``metrics.jsonl`` one line a
validation · ``checkpoints/last.ckpt`` · ``events.*`` for TensorBoard. Starting anew in a folder that already holds a
run moves the old one aside to ``<folder>~1``, ``~2``, ...
"""

import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

PACKAGES = ("lmm", "torch", "lightning", "transformers", "peft", "bitsandbytes", "numpy", "jsonargparse")


def last_checkpoint(folder: str | Path) -> Path:
    """Where a run keeps its newest checkpoint."""
    return Path(folder) / "checkpoints" / "last.ckpt"


def claim(folder: Path, *, resume: bool) -> IO[str]:
    """Take a run's folder for this process; keep what is returned open for as long as it is used.

    Args:
        folder: the run's folder.
        resume: continue what is there; otherwise an earlier run is moved aside to ``<folder>~1``, ``~2``, ...

    Raises:
        ValueError: another process is writing there.
    """
    lock = folder / ".lock"
    if folder.is_dir():
        _locked(lock).close()
        if not resume and (folder / "config.yaml").exists():
            number = 1
            while (aside := folder.with_name(f"{folder.name}~{number}")).exists():
                number += 1
            folder.rename(aside)
            print(f"{folder} held an earlier run; it is now {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    return _locked(lock)


def _locked(lock: Path) -> IO[str]:
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise ValueError(
            f"process {owner} is training in {lock.parent}; wait for it, or give another --trainer.default_root_dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def environment() -> dict[str, Any]:
    """Versions and machine, for the manifest."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": " ".join(sys.argv),
    }


def _fingerprint(trainer: Trainer) -> str | None:
    """Of the motions in use."""
    store = getattr(getattr(trainer, "datamodule", None), "store", None)
    return store.key if store else None


class LastCheckpoint(Checkpoint):
    """Keep ``checkpoints/last.ckpt`` whole: written beside, then renamed. Ctrl-C ends training after the step, saved.

    Args:
        folder: the run's folder.
        every_n_steps: optimizer steps between saves; the end of training always saves.
    """

    def __init__(self, folder: str | Path, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ValueError(f"--save_every must be at least 1, got {every_n_steps}")
        self.path, self.every_n_steps, self._saved = last_checkpoint(folder), every_n_steps, -1
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first Ctrl-C asks the trainer to stop, the second stops at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            print("\nstopping after this step (Ctrl-C again: at once, unsaved)", flush=True)
            trainer.should_stop = True
            signal.signal(signal.SIGINT, self._before)

        self._before = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save when it is time."""
        if trainer.global_step % self.every_n_steps == 0 and trainer.global_step:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        self._save(trainer)
        signal.signal(signal.SIGINT, self._before)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._saved = trainer.global_step
        new = self.path.with_suffix(".new")
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            if self.path.is_dir():  # a sharded checkpoint
                shutil.rmtree(self.path)
            elif new.is_dir():  # and the run began with whole files
                self.path.unlink(missing_ok=True)
            os.replace(new, self.path)
        trainer.strategy.barrier()


class RunRecord(Callback):
    """Write ``environment.json`` at the start and a line of ``metrics.jsonl`` at every validation and at the end."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self._start, self._written = Path(folder), time.monotonic(), -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The machine, the versions and the data."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            record = environment() | {"data_fingerprint": _fingerprint(trainer)}
            (self.folder / "environment.json").write_text(json.dumps(record, indent=2) + "\n")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line a validation, in `lmm fit` and `lmm validate`."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The test figures and the checkpoint they belong to."""
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last training figures, where no validation came last."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or trainer.global_step == self._written:
            return
        self._written = trainer.global_step
        line: dict[str, Any] = {"stage": trainer.state.fn.value}  # type: ignore[union-attr]
        if trainer.state.fn == "fit":
            line |= {"step": trainer.global_step, "seconds": round(time.monotonic() - self._start, 1)}
        else:  # judged perhaps elsewhere, later and on other data than it was trained
            judged = getattr(getattr(trainer, "datamodule", None), "test_split", "test")
            line |= {"checkpoint": str(trainer.ckpt_path), "split": judged if line["stage"] == "test" else "val"}
            line |= {"data_fingerprint": _fingerprint(trainer), "versions": environment()["versions"]}
        line |= {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.folder.mkdir(parents=True, exist_ok=True)  # judged elsewhere than it was trained
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
