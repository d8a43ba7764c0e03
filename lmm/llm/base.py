"""A language model that learns motion: frozen motion tokenizer, pretrained LLM, one sequence of text and motion ids.

The loss is next-id cross-entropy over the labelled ids of ``[bos] instruction <mot> codes </mot>`` (arXiv 2410.03311,
section 4): L = -Σ_j log P(y_j | description, y_<j). Subclasses say how the LLM is loaded and what of it trains; what
trains is what a checkpoint holds, beside the motion tokenizer and a manifest of both vocabularies. Loading a checkpoint
needs the base LLM and nothing else. (Longer than most files here: learning, sampling and saving are one life.)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.module import _IncompatibleKeys
from transformers import PreTrainedModel

from lmm.batch import MotionBatch, TokenBatch, TokenSpec
from lmm.llm.backbone import EmbeddedBackbone, load_text_tokenizer
from lmm.llm.checkpoint import check_manifest, check_parameters, load_motion_tokenizer, load_start, make_manifest
from lmm.llm.embedding import MotionLLM
from lmm.llm.options import NewIds, Sequences, plain
from lmm.llm.packed import pack as lay_out
from lmm.llm.packing import PackedBatch, pack, pad
from lmm.llm.prompts import Prompts
from lmm.llm.sampler import MotionSampler, seed_of
from lmm.llm.sharding import shard
from lmm.llm.tasks import Task, TextToMotion
from lmm.llm.throughput import Work
from lmm.llm.vocabulary import MotionVocabulary
from lmm.motion.motion import Motion
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import CHECKPOINT_FORMAT, Optimization, mean_over_ranks


class GeneratedMotion:
    """What `predict` gives for one clip of the data; unpacks as ``id, text, motion``.

    No tuple and no dataclass: Lightning takes those apart to move tensors, and a `Motion` cannot be.
    """

    def __init__(self, id: str, text: str, motion: Motion) -> None:
        self.id, self.text, self.motion = id, text, motion

    def __iter__(self) -> Iterator[Any]:
        return iter((self.id, self.text, self.motion))


class MotionLanguageModel(LightningModule, ABC):
    """A causal language model over text and motion.

    Args:
        tokenizer: checkpoint of a motion tokenizer, or of a language model of ours (its motion tokenizer is taken).
        backbone: Hugging Face hub name or folder of the LLM, or an embedded one that is built where it is missing.
        optimization: learning rate and schedule.
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the LLM's weights.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        start: checkpoint of an earlier model of the same class whose trained weights this one begins with.
        tasks: what is learned; None for text to motion alone.
        new_ids: the ids of motion and the rows they begin with.
        sequences: how the samples of a batch are laid out and disturbed.
    """

    llm: MotionLLM
    motion_tokenizer: MotionTokenizer
    vocabulary: MotionVocabulary
    prompts: Prompts

    def __init__(
        self,
        tokenizer: str,
        backbone: str | EmbeddedBackbone,
        *,
        optimization: Optimization,
        loss_on_text: bool,
        unconditional: float,
        dtype: Literal["float32", "bfloat16"],
        gradient_checkpointing: bool,
        start: str | None = None,
        tasks: list[Task] | None = None,
        new_ids: NewIds = NewIds(),  # noqa: B008 - frozen
        sequences: Sequences = Sequences(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # what the command line wrote; in plain Python see `_arguments`
        self._arguments: dict[str, Any] = {
            "tokenizer": tokenizer,
            "backbone": plain(backbone),
            "optimization": plain(optimization),
            "loss_on_text": loss_on_text,
            "unconditional": unconditional,
            "dtype": dtype,
            "gradient_checkpointing": gradient_checkpointing,
            "start": start,
            "tasks": None if tasks is None else [task.plain() for task in tasks],
            "new_ids": plain(new_ids),
            "sequences": plain(sequences),
        }
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.optimization = optimization
        self.loss_on_text = loss_on_text
        self.unconditional = unconditional
        self.dtype_of_llm = getattr(torch, dtype)
        self.gradient_checkpointing = gradient_checkpointing
        self.start = start
        self.tasks = [TextToMotion()] if tasks is None else tasks
        self.new_ids = new_ids
        self.sequences = sequences
        if sequences.motion_rows and (loss_on_text or any(task.answers_in_words for task in self.tasks)):
            raise ValueError(
                "sequences.motion_rows compares motion with motion only: set loss_on_text to false and leave out tasks "
                "that answer in words, or set motion_rows to false"
            )
        self.work = Work(0, 0)
        self._for_generation = False
        self.strict_loading = False  # of Lightning; `load_state_dict` has our own, stricter where it matters

    @abstractmethod
    def load_llm(self, source: str) -> PreTrainedModel:
        """The pretrained model with everything frozen that is not to be trained."""

    # ------------------------------------------------------------------------------------------ building

    @property
    def source(self) -> str:
        """Folder or hub name of the base LLM."""
        return self.backbone.folder if isinstance(self.backbone, EmbeddedBackbone) else self.backbone

    def prepare_data(self) -> None:
        """Build an embedded backbone that is missing (Lightning calls this on one process only)."""
        if isinstance(self.backbone, EmbeddedBackbone):
            self.backbone.build()

    def configure_model(self) -> None:
        """Load motion tokenizer, text tokenizer and LLM, once, and shard the LLM where the strategy does."""
        if not hasattr(self, "llm"):
            self._build()
        if self.device_mesh is not None and not isinstance(self.llm, FSDPModule):
            shard(self.llm, self.trainer)

    def _build(self) -> None:
        if self._trainer is None:  # nobody called it for us
            self.prepare_data()
        self._load_motion_tokenizer()
        text_tokenizer = load_text_tokenizer(self.source)
        llm = self.load_llm(self.source)
        if self.gradient_checkpointing:
            llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        per_slot = self.new_ids.per_slot
        self.manifest = make_manifest(self.source, llm, text_tokenizer, self._spec, per_slot=per_slot)
        self.vocabulary = MotionVocabulary(self.manifest["base_vocabulary"], self._spec, per_slot=per_slot)
        rows = partial(self.new_ids.rows, vocabulary=self.vocabulary)
        # it comes from disk in eval mode
        self.llm = MotionLLM(llm, self.vocabulary.num_new, draw=rows).train(self.training)
        head: Any = llm.get_output_embeddings()
        embedding: Any = llm.get_input_embeddings()
        if self.sequences.motion_rows and head.base.weight is not embedding.base.weight:
            head.base.requires_grad_(False)  # no loss looks at it, and DDP refuses what has no gradient
        self.prompts = Prompts(
            text_tokenizer,
            self.vocabulary,
            tasks=self.tasks,
            loss_on_text=self.loss_on_text,
            unconditional=self.unconditional,
            drop_tokens=self.sequences.drop_tokens,
            replace_tokens=self.sequences.replace_tokens,
        )
        if self.start is not None:
            earlier = load_start(self.start, type(self))
            check_manifest(self.manifest, earlier)
            self.load_state_dict(earlier["state_dict"])

    def check_tokens(self, spec: TokenSpec, where: str) -> None:
        """Refuse token files that another motion tokenizer wrote.

        Args:
            spec: what lies beside the token files.
            where: the folder, for the message.
        """
        self._load_motion_tokenizer()
        self._spec.check(spec, where)

    def train(self, mode: bool = True) -> "MotionLanguageModel":
        """Like any module's, but nothing wakes the motion tokenizer."""
        super().train(mode)
        if hasattr(self, "motion_tokenizer"):
            self.motion_tokenizer.eval()
        return self

    def _load_motion_tokenizer(self) -> None:
        if not hasattr(self, "motion_tokenizer"):
            self.motion_tokenizer, self._tokenizer_arguments = load_motion_tokenizer(self.tokenizer)
            self._spec = self.motion_tokenizer.token_spec  # once: it hashes all weights

    # ------------------------------------------------------------------------------------------ training

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Next-id cross-entropy: the weighted mean over the labelled ids of all ranks."""
        draw = int(torch.randint(2**31 - 1, ()))  # from the step's own seed (`StepSeed`), so that resuming repeats it
        loss, weight = self._loss("train", batch, [f"{draw}/{name}" for name in batch.ids])
        # ranks have unequally many labels, and a strategy takes the plain mean of their gradients
        return loss * (weight / mean_over_ranks(weight))

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """The same with the template of inference."""
        self._loss("val", batch, [None] * len(batch.ids))

    def test_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """The same on motions, encoded here."""
        tokens = self.motion_tokenizer.encode(batch.features, batch.mask)
        self._loss("test", TokenBatch(tokens, tokens[..., 0] >= 0, batch.ids, batch.texts), [None] * len(batch.ids))

    def predict_step(self, batch: MotionBatch, batch_idx: int) -> list[GeneratedMotion]:
        """One motion for each caption; the draw depends on the clip's id alone."""
        motions = self.sampler.motions(batch.texts, [seed_of(f"0/{name}") for name in batch.ids])
        return [GeneratedMotion(*each) for each in zip(batch.ids, batch.texts, motions, strict=True)]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine on what trains."""
        return self.optimization.build(self)

    def _loss(self, stage: str, batch: TokenBatch, keys: list[str] | list[None]) -> tuple[Tensor, Tensor]:
        """The loss, and the sum of its labels' weights."""
        clips = [tokens[mask] for tokens, mask in zip(batch.tokens.cpu(), batch.mask.cpu(), strict=True)]
        details: list[Any] = batch.details or [None] * len(batch.ids)
        samples = [
            self.prompts.sample(text, clip, key, details=detail)
            for text, clip, key, detail in zip(batch.texts, clips, keys, details, strict=True)
        ]
        rows = pack(samples, self.sequences.row_length) if self.sequences.row_length else pad(samples)
        if self.llm.context is not None and rows.ids.shape[1] > self.llm.context:
            raise ValueError(
                f"a row takes {rows.ids.shape[1]} ids, the language model {self.llm.context}; limit the clips' length "
                "or sequences.row_length, or choose a backbone with a longer context"
            )
        self.work = Work(int((rows.segments > 0).sum()), int(rows.labelled.sum()))
        rows = PackedBatch(*(each.to(self.device) for each in rows))
        losses = self.llm.nll(
            rows.ids,
            rows.labelled,
            labels=rows.labels,
            segments=rows.segments if self.sequences.row_length else None,
            weights=rows.weights,
            motion_rows=self.sequences.motion_rows,
        )
        is_motion = losses.labels > self.vocabulary.start
        self._log(f"{stage}/loss", losses.loss, torch.ones_like(is_motion), prog_bar=True)
        # A batch may lack either kind; a figure that is shared by all ranks must be logged by all of them all the same.
        if is_motion.any() or stage != "train":
            self._log(f"{stage}/motion_nll", losses.nll, is_motion)
            self._log(f"{stage}/token_accuracy", losses.correct.float(), is_motion, prog_bar=stage != "train")
        if self.loss_on_text or any(task.answers_in_words for task in self.tasks):
            self._log(f"{stage}/text_nll", losses.nll, ~is_motion)
        return losses.loss, rows.weights[rows.labelled].sum()

    def _log(self, name: str, values: Tensor, where: Bool[Tensor, " n"], *, prog_bar: bool = False) -> None:
        # weighted by ids, so that an epoch's mean is the mean over ids
        weight = int(where.sum())
        value = values.detach() if values.ndim == 0 else values[where].sum() / max(weight, 1)
        self.log(name, value, batch_size=weight, prog_bar=prog_bar, sync_dist=not name.startswith("train/"))

    # ------------------------------------------------------------------------------------------ generation

    @property
    def sampler(self) -> MotionSampler:
        """Everything that the model can be asked for."""
        return MotionSampler(self.llm, self.vocabulary, self.prompts, self.motion_tokenizer)

    def generate(self, texts: list[str], **options: Any) -> list[list[Motion]]:
        """Motions of captions; options are those of `MotionSampler.text_to_motion`."""
        return self.sampler.text_to_motion(texts, **options)

    def merge(self) -> None:
        """Make ordinary weights of what was added to them."""

    def prepare_for_generation(self) -> None:
        """Make decoding as fast as it gets; the model cannot be trained, saved or moved afterwards."""
        self.eval()
        self.merge()
        lay_out(self.llm)
        self._for_generation = True

    # ------------------------------------------------------------------------------------------ checkpoints

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> "MotionLanguageModel":
        """Lightning's; the motion tokenizer comes from inside the checkpoint, wherever it once lay."""
        kwargs = {"tokenizer": str(checkpoint_path)} | kwargs
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains, the motion tokenizer and the manifest; the base LLM stays where it came from."""
        if self._for_generation:
            raise ValueError("the weights are laid out for decoding; save before prepare_for_generation()")
        whole, trained = checkpoint["state_dict"], self._trained()
        checkpoint["state_dict"] = {k: v for k, v in whole.items() if k in trained}
        frozen = "motion_tokenizer."  # from there, because a strategy may have it in pieces here
        checkpoint["motion_tokenizer"] = {
            "hyper_parameters": self._tokenizer_arguments,
            "state_dict": {k.removeprefix(frozen): v for k, v in whole.items() if k.startswith(frozen)},
        }
        checkpoint["vocabulary"] = self.manifest
        if "_instantiator" not in self.hparams:  # built in plain Python: live objects, which no safe load accepts
            checkpoint["hyper_parameters"] = {
                "_class_path": f"{type(self).__module__}.{type(self).__qualname__}",
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
                **self._arguments,
            }
        if "start" in checkpoint["hyper_parameters"]:  # what began there is in here
            checkpoint["hyper_parameters"] = dict(checkpoint["hyper_parameters"]) | {"start": None}
        checkpoint["lmm_format"] = CHECKPOINT_FORMAT

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base LLM, text tokenizer or motion tokenizer."""
        check_manifest(self.manifest, checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what a checkpoint holds; a key that trains and is missing, or that we lack, raises however strict."""
        check_parameters(self.state_dict(), self._trained(), state_dict)
        super().load_state_dict(state_dict, strict=False, assign=assign)
        return _IncompatibleKeys([], [])

    def _trained(self) -> set[str]:
        """Names of the parameters that train, a shared one under its first name."""
        wrapped = "_fsdp_wrapped_module."  # what FSDP1 puts into names, and takes out of a checkpoint's
        return {name.replace(wrapped, "") for name, p in self.named_parameters() if p.requires_grad}
