"""A language model that learns motion: frozen motion tokenizer, pretrained LLM, one sequence of text and motion ids.

The loss is next-id cross-entropy over the labelled ids of ``[bos] instruction <mot> codes </mot>`` (arXiv 2410.03311,
section 4): L = -Σ_j log P(y_j | description, y_<j). Subclasses say how the LLM is loaded and what of it trains; what
trains is what a checkpoint holds, beside the motion tokenizer and a manifest of both vocabularies. Loading a checkpoint
needs the base LLM and nothing else. (Longer than most files here: learning, sampling and saving are one life.)
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.module import _IncompatibleKeys
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from lmm.batch import MotionBatch, TokenBatch, TokenSpec
from lmm.llm.backbone import EmbeddedBackbone, load_text_tokenizer
from lmm.llm.checkpoint import check_manifest, check_parameters, load_motion_tokenizer, make_manifest
from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate
from lmm.llm.prompts import Prompts, Sample
from lmm.llm.vocabulary import MotionVocabulary
from lmm.motion.motion import Motion
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import CHECKPOINT_FORMAT, Optimization

SHORTEST, LONGEST = 1.0, 9.8  # seconds of a motion whose duration nobody asked for (HumanML3D has up to 196 frames)


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
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # what the command line wrote; in plain Python see `_arguments`
        self._arguments: dict[str, Any] = {
            "tokenizer": tokenizer,
            "backbone": asdict(backbone) if isinstance(backbone, EmbeddedBackbone) else backbone,
            "optimization": asdict(optimization),
            "loss_on_text": loss_on_text,
            "unconditional": unconditional,
            "dtype": dtype,
            "gradient_checkpointing": gradient_checkpointing,
        }
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.optimization = optimization
        self.loss_on_text = loss_on_text
        self.unconditional = unconditional
        self.dtype_of_llm = getattr(torch, dtype)
        self.gradient_checkpointing = gradient_checkpointing
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
        """Load motion tokenizer, text tokenizer and LLM, once."""
        if hasattr(self, "llm"):
            return
        if self._trainer is None:  # nobody called it for us
            self.prepare_data()
        self._load_motion_tokenizer()
        text_tokenizer = load_text_tokenizer(self.source)
        llm = self.load_llm(self.source)
        if self.gradient_checkpointing:
            llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.manifest = make_manifest(self.source, llm, text_tokenizer, self._spec)
        self.vocabulary = MotionVocabulary(self.manifest["base_vocabulary"], self._spec)
        self.llm = MotionLLM(llm, self.vocabulary.num_new).train(self.training)  # it comes from disk in eval mode
        self.prompts = Prompts(
            text_tokenizer, self.vocabulary, loss_on_text=self.loss_on_text, unconditional=self.unconditional
        )

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
        """Next-id cross-entropy."""
        draw = int(torch.randint(2**31 - 1, ()))  # from the step's own seed (`StepSeed`), so that resuming repeats it
        return self._loss("train", batch, [f"{draw}/{name}" for name in batch.ids])

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """The same with the template of inference."""
        self._loss("val", batch, [None] * len(batch.ids))

    def test_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """The same on motions, encoded here."""
        tokens = self.motion_tokenizer.encode(batch.features, batch.mask)
        self._loss("test", TokenBatch(tokens, tokens[..., 0] >= 0, batch.ids, batch.texts), [None] * len(batch.ids))

    def predict_step(self, batch: MotionBatch, batch_idx: int) -> list[GeneratedMotion]:
        """One motion for each caption; the draw depends on the clip's id alone."""
        seeds = [_seed_of(f"0/{name}") for name in batch.ids]
        motions = self._sample(batch.texts, None, seeds, temperature=1.0, top_k=0, top_p=1.0)
        return [GeneratedMotion(*each) for each in zip(batch.ids, batch.texts, motions, strict=True)]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine on what trains."""
        return self.optimization.build(self)

    def _loss(self, stage: str, batch: TokenBatch, keys: list[str] | list[None]) -> Tensor:
        clips = [tokens[mask] for tokens, mask in zip(batch.tokens.cpu(), batch.mask.cpu(), strict=True)]
        samples = [self.prompts.sample(*each) for each in zip(batch.texts, clips, keys, strict=True)]
        ids, labelled = self._collate(samples)
        wanted = labelled.roll(-1, dims=1)  # the position before a labelled id predicts it; id 0 never is labelled
        logits = self.llm(ids, wanted)
        labels = ids[labelled]
        nll = functional.cross_entropy(logits, labels, reduction="none")
        is_motion = labels > self.vocabulary.start
        num_motion = int(is_motion.sum())
        self._log(f"{stage}/loss", nll.mean(), len(labels), prog_bar=True)
        self._log(f"{stage}/motion_nll", nll[is_motion].mean(), num_motion)
        accuracy = (logits.argmax(-1) == labels)[is_motion].float().mean()
        self._log(f"{stage}/token_accuracy", accuracy, num_motion, prog_bar=stage != "train")
        if num_motion < len(labels):
            self._log(f"{stage}/text_nll", nll[~is_motion].mean(), len(labels) - num_motion)
        return nll.mean()

    def _log(self, name: str, value: Tensor, weight: int, *, prog_bar: bool = False) -> None:
        # weighted by ids, so that an epoch's mean is the mean over ids
        self.log(name, value.detach(), batch_size=weight, prog_bar=prog_bar, sync_dist=not name.startswith("train/"))

    def _collate(self, samples: list[Sample]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """Pad on the right, where a causal model cannot look and the loss does not."""
        ids = pad_sequence([s.ids for s in samples], batch_first=True).to(self.device)
        labelled = pad_sequence([s.labelled for s in samples], batch_first=True).to(self.device)
        if self.llm.context is not None and ids.shape[1] > self.llm.context:
            raise ValueError(
                f"a caption and its motion take {ids.shape[1]} ids, the language model {self.llm.context}; "
                "limit the clips' length or choose a backbone with a longer context"
            )
        return ids, labelled

    # ------------------------------------------------------------------------------------------ generation

    def prepare_for_generation(self) -> None:
        """Make decoding as fast as it gets; the model cannot be trained or saved afterwards."""
        self.eval()

    def generate(
        self,
        texts: list[str],
        *,
        seconds: float | None = None,
        num_samples: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        batch_size: int = 32,
    ) -> list[list[Motion]]:
        """Motions of captions (an empty one asks for any motion).

        Args:
            texts: the captions.
            seconds: exact duration; None lets the model choose one between 1 and 9.8 seconds.
            num_samples: motions of each caption.
            seed: a motion depends on this, its caption and its number among that caption's, not on the other captions.
            temperature: 0 always takes the likeliest token.
            top_k: draw among so many likeliest tokens; 0 among all.
            top_p: draw among the likeliest tokens that hold this much probability.
            batch_size: motions sampled at a time.
        """
        made: Counter[str] = Counter()
        queries: list[tuple[str, int]] = []
        for text in texts:
            for _ in range(num_samples):
                queries.append((text, _seed_of(f"{seed}/{text}/{made[text]}")))
                made[text] += 1
        motions: list[Motion] = []
        for start in range(0, len(queries), batch_size):
            captions, seeds = zip(*queries[start : start + batch_size], strict=True)
            motions += self._sample(
                list(captions), seconds, list(seeds), temperature=temperature, top_k=top_k, top_p=top_p
            )
        return [motions[i * num_samples : (i + 1) * num_samples] for i in range(len(texts))]

    @torch.no_grad()
    def _sample(
        self, texts: list[str], seconds: float | None, seeds: list[int], *, temperature: float, top_k: int, top_p: float
    ) -> list[Motion]:
        spec = self.vocabulary.spec
        if seconds is None:
            fewest, most = math.ceil(SHORTEST * spec.steps_per_second), math.floor(LONGEST * spec.steps_per_second)
        else:
            frames = round(seconds * spec.fps)
            if frames < 1:
                raise ValueError(f"{seconds} seconds are less than a frame at {spec.fps:g} frames a second")
            fewest = most = -(-frames // spec.downsample)
        was_training = self.training
        self.eval()
        try:
            grids = generate(
                self.llm,
                self.vocabulary,
                prompts=[self.prompts.prompt(text) for text in texts],
                min_steps=[fewest] * len(texts),
                max_steps=[most] * len(texts),
                seeds=seeds,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )
            tokens = pad_sequence(grids, batch_first=True, padding_value=-1)
            features = self.motion_tokenizer.decode(tokens)
        finally:
            self.train(was_training)
        lengths = [len(grid) * spec.downsample if seconds is None else frames for grid in grids]
        return [self._motion(clip[:length]) for clip, length in zip(features, lengths, strict=True)]

    def _motion(self, features: Float[Tensor, "T D"]) -> Motion:
        motion = self.motion_tokenizer.representation.decode(features.float())
        rotations = None if motion.rotations is None else motion.rotations.cpu()
        return Motion(motion.joints.cpu(), motion.fps, motion.skeleton, rotations)

    # ------------------------------------------------------------------------------------------ checkpoints

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> "MotionLanguageModel":
        """Lightning's; the motion tokenizer comes from inside the checkpoint, wherever it once lay."""
        kwargs = {"tokenizer": str(checkpoint_path)} | kwargs
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains, the motion tokenizer and the manifest; the base LLM stays where it came from."""
        trained = self._trained()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["motion_tokenizer"] = {
            "hyper_parameters": self._tokenizer_arguments,
            "state_dict": self.motion_tokenizer.state_dict(),
        }
        checkpoint["vocabulary"] = self.manifest
        if "_instantiator" not in self.hparams:  # built in plain Python: live objects, which no safe load accepts
            checkpoint["hyper_parameters"] = {
                "_class_path": f"{type(self).__module__}.{type(self).__qualname__}",
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
                **self._arguments,
            }
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
        return {name for name, p in self.named_parameters() if p.requires_grad}


def _seed_of(key: str) -> int:
    """A seed from a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
