"""The small form of a trained language model: what training added to a base model that others have already.

``adapter.safetensors``
    adapters, the input rows of motion, and their head rows where the base does not tie its weights
``motion_tokenizer.safetensors``
    the frozen motion tokenizer that the rows belong to
``lmm.json``
    what builds both, the manifest of the vocabulary (see `lmm.llm.checkpoint`), versions, sha256 of both files

Nothing in it is pickled, so nothing in it can run; nothing of the base is in it.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmm.batch import TokenSpec
from lmm.llm.base import MotionLanguageModel
from lmm.llm.checkpoint import check_manifest
from lmm.runs import environment
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import CHECKPOINT_FORMAT, build_module, find_class, load_module

ADAPTER, MOTION_TOKENIZER = "adapter.safetensors", "motion_tokenizer.safetensors"
ADAPTER_RECORD, EXPORT_RECORD = "lmm.json", "motion.json"


def save_adapter(model: MotionLanguageModel, folder: str | Path) -> None:
    """Write what training added to the base model.

    Args:
        model: its adapters not merged.
        folder: not there yet, or empty.

    Raises:
        ValueError: all of the model trains, its adapters are merged, or the folder is in use.
    """
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    write_adapter(checkpoint, folder)


def write_adapter(checkpoint: Mapping[str, Any], folder: str | Path) -> None:
    """`save_adapter` from the content of a checkpoint, for which the base model is not needed."""
    if not checkpoint["vocabulary"]["base_weights"]:
        raise ValueError(
            "all weights of this model were trained, so there is nothing smaller than the whole; export it without "
            "--adapter, or train adapters with `lmm fit --config llm_lora.yaml`"
        )
    with new_folder(folder) as new:
        digest = write_tensors(new / ADAPTER, checkpoint["state_dict"])
        inside = checkpoint["motion_tokenizer"]
        record = {
            "lmm_format": CHECKPOINT_FORMAT,
            "hyper_parameters": checkpoint["hyper_parameters"],
            "vocabulary": checkpoint["vocabulary"],
            "motion_tokenizer": {"hyper_parameters": inside["hyper_parameters"]},
            "sha256": {ADAPTER: digest, MOTION_TOKENIZER: write_tensors(new / MOTION_TOKENIZER, inside["state_dict"])},
            "versions": environment()["versions"],
        }
        write_record(new / ADAPTER_RECORD, record)


def load_adapter(folder: str | Path, backbone: str | None = None, **overrides: Any) -> MotionLanguageModel:
    """Put an adapter onto its base model: on the CPU, in evaluation mode; can be trained on.

    Args:
        folder: what `save_adapter` wrote.
        backbone: folder or hub name of the base model, where it is not where it was trained.
        **overrides: init arguments that replace those of the training.

    Raises:
        ValueError: no such folder, a file that is missing or damaged, or another base model, text tokenizer or motion
            tokenizer than the adapter was trained with.
    """
    folder = Path(folder)
    record = read_record(folder)
    if ADAPTER not in record["sha256"]:
        raise ValueError(
            f"{folder} is a merged export, made for other programs; give the checkpoint it was made from, or write "
            "the form that lmm reads with `lmm export MODEL -o FOLDER --adapter`"
        )
    try:
        cls = find_class(record["hyper_parameters"]["_class_path"])
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    if not issubclass(cls, MotionLanguageModel):
        raise ValueError(f"{folder} holds a {cls.__name__}, but a MotionLanguageModel is needed here")
    state = read_tensors(folder, ADAPTER, record)
    motion_tokenizer, arguments = read_motion_tokenizer(folder)
    overrides |= {"tokenizer": str(folder)} | ({} if backbone is None else {"backbone": backbone})
    model: MotionLanguageModel = build_module(record["hyper_parameters"], **overrides)  # type: ignore[assignment]
    model.motion_tokenizer, model._tokenizer_arguments = motion_tokenizer, arguments
    model._spec = motion_tokenizer.token_spec
    model.configure_model()
    check_manifest(model.manifest, record)
    model.load_state_dict(state)
    return model.eval()


def load_language_model(path: str | Path, backbone: str | None = None, **overrides: Any) -> MotionLanguageModel:
    """A trained language model in either form: a checkpoint or an adapter's folder; arguments as in `load_adapter`."""
    if Path(path).is_dir():
        return load_adapter(path, backbone, **overrides)
    overrides |= {} if backbone is None else {"backbone": backbone}
    return load_module(path, MotionLanguageModel, **overrides)  # type: ignore[type-abstract]


def read_motion_tokenizer(folder: str | Path) -> tuple[MotionTokenizer, dict[str, Any]]:
    """The frozen motion tokenizer of an adapter's folder or of an exported one, and the arguments that build it.

    Raises:
        ValueError: missing, damaged, or not the one that the rows of motion were trained with.
    """
    folder = Path(folder)
    record = read_record(folder)
    arguments = record["motion_tokenizer"]["hyper_parameters"]
    tokenizer: MotionTokenizer = build_module(arguments)  # type: ignore[assignment]
    tokenizer.load_state_dict(read_tensors(folder, MOTION_TOKENIZER, record))
    TokenSpec(**record["vocabulary"]["token_spec"]).check(tokenizer.token_spec, str(folder / MOTION_TOKENIZER))
    return tokenizer.eval().requires_grad_(False), arguments


# ------------------------------------------------------------------------------------------ files


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into that appears at ``path`` whole or not at all.

    Raises:
        ValueError: something is there already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is already there; give another folder or delete it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Plain values as JSON; anything else raises."""
    file.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """What an adapter's or an exported folder says about itself.

    Raises:
        ValueError: it says nothing, nothing that can be read, or something for a newer version.
    """
    file = next((folder / name for name in (ADAPTER_RECORD, EXPORT_RECORD) if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(
            f"{folder} has neither {ADAPTER_RECORD} nor {EXPORT_RECORD}, so `lmm export` did not write it; give a "
            "folder that it wrote, or a checkpoint (a sharded one: `lmm consolidate` first)"
        )
    try:
        record = json.loads(file.read_text())
        missing = {"lmm_format", "vocabulary", "motion_tokenizer", "sha256"} - set(record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy the folder again") from None
    if missing:
        raise ValueError(f"{file} lacks {', '.join(sorted(missing))}; copy the folder again")
    if record["lmm_format"] > CHECKPOINT_FORMAT:
        raise ValueError(f"{file} was written by a newer version of lmm; upgrade with `pip install -U lmm`")
    return record


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors and nothing else; the file's sha256."""
    # clones: tensors that share memory or lie in a mapped checkpoint cannot be written as they are
    save_file({k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, file)
    return _sha256(file)


def read_tensors(folder: Path, name: str, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a file that is, to the byte, the one that was written.

    Raises:
        ValueError: it is missing, cut off or changed.
    """
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{file} is missing; copy the folder again, whole")
    if _sha256(file) != record["sha256"].get(name):
        raise ValueError(f"{file} is not the file that was written (its sha256 differs); copy the folder again")
    return load_file(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
