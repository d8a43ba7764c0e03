"""`lmm export`: a trained language model as an ordinary Hugging Face folder that knows nothing of `lmm`.

Adapters are merged, and the split embedding and head (see `lmm.llm.embedding`) become one matrix each::

    rows 0 ... V - 1    V                V + 1    V + 2 ...
    the base model's    <mot>            </mot>   <motion_id_0> <motion_id_1> ...
                        <motion_id_N>    ..N+1>   with MotionGPT's names: the same ids, other words

Beside model and text tokenizer lie the motion tokenizer and ``motion.json``, which says what belongs to what.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AddedToken, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from lmm.llm.adapter import (
    EXPORT_RECORD,
    MOTION_TOKENIZER,
    load_language_model,
    new_folder,
    read_record,
    write_adapter,
    write_record,
    write_tensors,
)
from lmm.llm.base import MotionLanguageModel
from lmm.llm.embedding import MotionEmbedding, MotionHead
from lmm.llm.vocabulary import MotionVocabulary
from lmm.runs import environment
from lmm.training import CHECKPOINT_FORMAT

_EXAMPLE = "a person walks forward"


def export(
    model: str,
    output: str,
    *,
    adapter: bool = False,
    motiongpt_names: bool = False,
    backbone: str | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
) -> None:
    """Write a trained language model as a folder that other programs load, or as a small one of what training added.

    Args:
        model: checkpoint of a language model that `lmm fit --config llm_*.yaml` wrote, or a folder of `--adapter`.
        output: -o FOLDER, not there yet or empty.
        adapter: write what training added to the base model and nothing else; `lmm` reads it wherever a base model is.
        motiongpt_names: spell the tokens as MotionGPT does, the markers <motion_id_N> and <motion_id_N+1>.
        backbone: folder or hub name of the pretrained language model, where it is not where the checkpoint says.
        dtype: of the weights written; left out, as trained (bfloat16 where the base was quantized).
    """
    if adapter:
        if motiongpt_names or backbone is not None or dtype is not None:
            raise ValueError("--adapter copies what training added; it takes no names, backbone or dtype")
        if Path(model).is_dir():
            raise ValueError(
                f"{model} is a folder: copy an adapter as it is, make a sharded checkpoint whole with `lmm consolidate`"
            )
        write_adapter(_read_checkpoint(Path(model)), output)
    else:
        logging.disable_progress_bar()
        with new_folder(output) as folder:
            loaded = load_language_model(model, backbone, **_plain_dtype(Path(model), dtype))
            _write_merged(loaded, folder, motiongpt_names=motiongpt_names)
    size = sum(file.stat().st_size for file in Path(output).iterdir())
    print(f"{output}: {size / 1e6:.1f} MB")


def _write_merged(model: MotionLanguageModel, folder: Path, *, motiongpt_names: bool) -> None:
    vocabulary, end = model.vocabulary, model.vocabulary.end
    names = token_names(vocabulary, motiongpt_names=motiongpt_names)
    tokenizer = model.prompts.tokenizer
    add_motion_tokens(tokenizer, names, vocabulary.base_size)
    tokenizer.save_pretrained(folder)
    written = AutoTokenizer.from_pretrained(folder)
    _check_ids(written, tokenizer.get_vocab(), names, vocabulary.base_size)  # what is read counts, not what was meant

    model.eval()
    model.merge()
    llm = join_rows(model.llm.llm)
    ends = llm.generation_config.eos_token_id  # type: ignore[union-attr]
    others = [ends] if isinstance(ends, int) else list(ends or [])
    llm.generation_config.eos_token_id = [*others, end]  # type: ignore[union-attr]
    llm.save_pretrained(folder)

    prompt = model.prompts.prompt(_EXAMPLE).tolist()
    text = written.decode(prompt, skip_special_tokens=False)
    spelled = written(text, add_special_tokens=False)["input_ids"] == prompt
    digest = write_tensors(folder / MOTION_TOKENIZER, model.motion_tokenizer.state_dict())
    record = {
        "lmm_format": CHECKPOINT_FORMAT,
        "vocabulary": model.manifest,
        "start": {"id": vocabulary.start, "name": names[0]},
        "end": {"id": end, "name": names[1]},
        "per_slot": vocabulary.per_slot,
        # of each slot of a step: id of code 0, and one past the last
        "slots": [list(vocabulary.slot_range(slot)) for slot in range(vocabulary.spec.codes_per_step)],
        "example": {"caption": _EXAMPLE, "prompt": text if spelled else None, "ids": prompt},
        "motion_tokenizer": {"hyper_parameters": model._tokenizer_arguments},
        "sha256": {MOTION_TOKENIZER: digest},
        "versions": environment()["versions"],
    }
    write_record(folder / EXPORT_RECORD, record)


def token_names(vocabulary: MotionVocabulary, *, motiongpt_names: bool = False) -> list[str]:
    """How the motion ids are spelled, in the order of the ids.

    Args:
        vocabulary: the ids.
        motiongpt_names: as MotionGPT (Jiang et al. 2023) spells them: N codes from 0, then start and end.

    Raises:
        ValueError: MotionGPT has no names for ids of several slots.
    """
    names = vocabulary.names
    if not motiongpt_names:
        return names
    if vocabulary.per_slot:
        raise ValueError("MotionGPT's names know one range of codes, this model has one for each slot; leave them out")
    size = vocabulary.spec.codebook_size
    return [f"<motion_id_{size}>", f"<motion_id_{size + 1}>", *names[2:]]


def add_motion_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str], base_size: int) -> None:
    """Add the motion tokens to a text tokenizer, under the ids from ``base_size`` on.

    Many models have more rows than their tokenizer has entries, and a tokenizer numbers what is added from its own
    last entry on: unused entries fill the gap.

    Raises:
        ValueError: the tokenizer cannot give them these ids.
    """
    old = tokenizer.get_vocab()
    unused = [f"<unused_id_{i}>" for i in range(max(old.values()) + 1, base_size)]
    # not special: those vanish where a program decodes without special tokens, and motion is what it came for
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in [*unused, *names]])
    _check_ids(tokenizer, old, names, base_size)


def join_rows(llm: PreTrainedModel) -> PreTrainedModel:
    """Make the split embedding and head of a `MotionLLM`'s model ordinary again, in place; tied ones stay tied.

    Raises:
        ValueError: the base is quantized.
    """
    if getattr(llm, "is_quantized", False):
        raise ValueError("the base model's own weights are quantized; name the plain model with --backbone")
    embedding, head = llm.get_input_embeddings(), llm.get_output_embeddings()
    assert isinstance(embedding, MotionEmbedding) and isinstance(head, MotionHead)
    tied = head.base.weight is embedding.base.weight
    embedding.base.weight = _joined(embedding.base.weight, embedding.motion)
    head.base.weight = embedding.base.weight if tied else _joined(head.base.weight, head.motion)
    size = len(embedding.base.weight)
    embedding.base.num_embeddings = head.base.out_features = size
    if head.base.bias is not None:  # motion rows have none
        head.base.bias = _joined(head.base.bias, head.base.bias.new_zeros(len(head.motion)))
    llm.set_input_embeddings(embedding.base)
    llm.set_output_embeddings(head.base)
    llm.config.get_text_config().vocab_size = size
    return llm


def _joined(base: torch.Tensor, motion: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(torch.cat([base.detach(), motion.detach().to(base)]), requires_grad=False)


def _check_ids(tokenizer: PreTrainedTokenizerBase, old: dict[str, int], names: Sequence[str], first: int) -> None:
    new = tokenizer.get_vocab()
    moved = next((name for name, i in old.items() if new.get(name) != i), None)
    wrong = next((name for i, name in enumerate(names, first) if new.get(name) != i), None)
    taken = len(set(new.values())) < len(new) and len(set(old.values())) == len(old)
    if moved is not None or wrong is not None or taken:
        example = moved if moved is not None else wrong
        raise ValueError(
            f"this model's text tokenizer ({len(old)} entries, {first} rows in the model) gives "
            f"{'some added token an id in use' if example is None else f'{example!r} the id {new.get(example)}'}, so "
            "no program could read the ids that were trained; write the form that lmm reads with --adapter"
        )


def _plain_dtype(model: Path, dtype: str | None) -> dict[str, str | None]:
    """What to load the base in, if not as it was trained: adapters are merged into plain weights only."""
    record = read_record(model) if model.is_dir() else _read_checkpoint(model)
    arguments = record.get("hyper_parameters", {})
    trained = arguments.get("dtype", "float32")
    if dtype is None and trained not in ("float32", "bfloat16"):
        dtype = arguments.get("compute_dtype") or "bfloat16"
    if dtype is None or dtype == trained:
        return {}
    return {"dtype": dtype} | ({"compute_dtype": None} if "compute_dtype" in arguments else {})


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no checkpoint at {path}; train one with `lmm fit --config llm_lora.yaml`")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that `lmm fit` wrote ({error})") from None
    if "vocabulary" not in content or "motion_tokenizer" not in content:
        raise ValueError(f"{path} is not a checkpoint of a motion language model; give what llm_*.yaml trained")
    return content
