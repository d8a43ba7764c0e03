"""What a language model's checkpoint holds beside weights, and the checks that keep strangers out.

``state_dict`` has the trained parameters only, ``motion_tokenizer`` the frozen tokenizer with the arguments that build
it, ``vocabulary`` the manifest: which LLM, which text tokenizer and which motion tokens the trained rows belong to.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmm.batch import TokenSpec
from lmm.llm.backbone import tokenizer_sha256, weights_sha256
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import build_module, find_class, load_module


def load_motion_tokenizer(file: str) -> tuple[MotionTokenizer, dict[str, Any]]:
    """A frozen motion tokenizer and the arguments that build it, from its checkpoint or a language model's.

    Raises:
        ValueError: no such file, with the command that makes one; or a checkpoint of another kind.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(
            f"there is no motion tokenizer at {path}; train one with `lmm fit --config tokenizer_lfq2d.yaml`, or set "
            "`tokenizer` to a checkpoint (a language model's own checkpoint carries its motion tokenizer too)"
        )
    inside = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get("motion_tokenizer")
    if inside is None:
        tokenizer = load_module(path, MotionTokenizer)
        arguments = dict(tokenizer.hparams)
    else:
        arguments = inside["hyper_parameters"]
        tokenizer = build_module(arguments)  # type: ignore[assignment]
        tokenizer.load_state_dict(inside["state_dict"])
    return tokenizer.eval().requires_grad_(False), arguments


def make_manifest(
    source: str,
    llm: PreTrainedModel,
    text_tokenizer: PreTrainedTokenizerBase,
    spec: TokenSpec,
    *,
    per_slot: bool = False,
) -> dict[str, Any]:
    """Plain values that say what a checkpoint's weights belong to.

    ``base_weights`` is empty where all of the LLM trains: then the checkpoint brings every weight itself.
    """
    embedding = llm.get_input_embeddings()
    frozen = any(not p.requires_grad for p in llm.parameters())
    return {
        "backbone": source,
        "base_vocabulary": embedding.num_embeddings,
        "text_tokenizer": tokenizer_sha256(text_tokenizer),
        "base_weights": weights_sha256(llm) if frozen else "",
        "token_spec": asdict(spec),
        "per_slot": per_slot,
    }


def check_manifest(mine: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint whose weights belong to other models than those loaded here.

    Raises:
        ValueError: naming what differs.
    """
    theirs = checkpoint.get("vocabulary")
    if theirs is None:
        raise ValueError("this is not a checkpoint of a motion language model")
    TokenSpec(**mine["token_spec"]).check(TokenSpec(**theirs["token_spec"]), "the checkpoint")
    if theirs.get("per_slot", False) != mine["per_slot"]:  # earlier versions had one range for all slots
        theirs_per_slot = bool(theirs.get("per_slot", False))
        raise ValueError(f"the checkpoint has new_ids.per_slot {theirs_per_slot}; set new_ids.per_slot to that")
    for key in ("base_vocabulary", "text_tokenizer", "base_weights"):
        if theirs[key] != mine[key]:
            raise ValueError(
                f"the checkpoint was trained on the language model {theirs['backbone']}, which differs from "
                f"{mine['backbone']} in {key} ({theirs[key]} there, {mine[key]} here); set `backbone` to it"
            )


def load_start(file: str, cls: type) -> dict[str, Any]:
    """The checkpoint of an earlier model of the same class, to begin with.

    Raises:
        ValueError: no such file, or a checkpoint of another class.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint at {path} to start from; set `start` to an earlier model's (a sharded folder: "
            "`lmm consolidate` first), or leave it out: the checkpoints of this run hold all that it began with"
        )
    checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    kind = checkpoint.get("hyper_parameters", {}).get("_class_path")
    if not kind or find_class(kind) is not cls:
        raise ValueError(f"{path} holds a {kind}; a {cls.__name__} can only start from a {cls.__name__}")
    return checkpoint


def check_parameters(own: Mapping[str, Tensor], trained: set[str], loaded: Mapping[str, Tensor]) -> None:
    """Refuse a state that lacks a trained parameter, or has one that we lack or that is of another shape.

    Raises:
        ValueError: naming the first few.
    """
    wrong = [f"{name} (missing)" for name in sorted(trained - set(loaded))]
    for name, value in loaded.items():
        if name not in own:
            wrong.append(f"{name} (unknown)")
        elif value.shape != own[name].shape:
            wrong.append(f"{name} ({tuple(value.shape)} there, {tuple(own[name].shape)} here)")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"the checkpoint does not fit this model: {'; '.join(wrong[:3])}{more}; "
            "build it with the arguments it was trained with"
        )
