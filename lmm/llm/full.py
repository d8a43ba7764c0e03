"""Full tuning: every weight of the language model trains, as in the main results of arXiv 2410.03311.

With ``pretrained: false`` they start from random instead: what the paper compares pretrained models with.
"""

from typing import Literal

import torch
from transformers import PreTrainedModel

from lmm.llm.backbone import EmbeddedBackbone, load_llm, random_llm
from lmm.llm.base import MotionLanguageModel
from lmm.llm.options import NewIds, Sequences
from lmm.llm.tasks import Task
from lmm.training import Optimization


class FullFinetune(MotionLanguageModel):
    """All weights train; a checkpoint holds the whole LLM.

    Args:
        tokenizer: checkpoint of a motion tokenizer, or of a language model of ours (its motion tokenizer is taken).
        backbone: Hugging Face hub name or folder of the LLM, or an embedded one that is built where it is missing.
        optimization: learning rate and schedule.
        pretrained: start from the backbone's weights; false takes its architecture and text tokenizer alone.
        start: checkpoint of an earlier `FullFinetune` whose weights this one begins with (a second stage).
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the LLM's weights; in bfloat16 small updates round away: prefer float32 and `precision: bf16-mixed`.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        tasks: what is learned, see configs/tasks/; None for text to motion alone.
        new_ids: the ids of motion and the rows they begin with.
        sequences: how the samples of a batch are laid out and disturbed.
    """

    def __init__(
        self,
        tokenizer: str,
        backbone: str | EmbeddedBackbone,
        *,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        pretrained: bool = True,
        start: str | None = None,
        loss_on_text: bool = True,
        unconditional: float = 0.0,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        tasks: list[Task] | None = None,
        new_ids: NewIds = NewIds(),  # noqa: B008 - frozen
        sequences: Sequences = Sequences(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            tokenizer,
            backbone,
            optimization=optimization,
            loss_on_text=loss_on_text,
            unconditional=unconditional,
            dtype=dtype,
            gradient_checkpointing=gradient_checkpointing,
            start=start,
            tasks=tasks,
            new_ids=new_ids,
            sequences=sequences,
        )
        self.pretrained = pretrained
        self._arguments |= {"pretrained": pretrained}

    def load_llm(self, source: str) -> PreTrainedModel:
        """Everything trains."""
        if self.pretrained:
            return load_llm(source, self.dtype_of_llm)
        seed = torch.initial_seed()  # of `seed_everything`
        if self._trainer is not None:
            seed = self.trainer.strategy.broadcast(seed)
        return random_llm(source, self.dtype_of_llm, seed=seed)
