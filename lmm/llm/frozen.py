"""A frozen language model: nothing trains but the rows of the motion ids, in its embedding and in its head.

The least that can teach it motion, and what adapters have to beat: the layers that LoRA changes stay as they are.
"""

from typing import Literal

from transformers import PreTrainedModel

from lmm.llm.backbone import EmbeddedBackbone, load_llm
from lmm.llm.base import MotionLanguageModel
from lmm.llm.options import NewIds, Sequences
from lmm.llm.tasks import Task
from lmm.training import Optimization


class FrozenFinetune(MotionLanguageModel):
    """Motion rows train; a checkpoint holds them alone.

    Args:
        tokenizer: checkpoint of a motion tokenizer, or of a language model of ours (its motion tokenizer is taken).
        backbone: Hugging Face hub name or folder of the LLM, or an embedded one that is built where it is missing.
        optimization: learning rate and schedule.
        start: checkpoint of an earlier `FrozenFinetune` whose rows this one begins with (a second stage).
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the frozen weights; what trains is float32.
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

    def load_llm(self, source: str) -> PreTrainedModel:
        """Frozen."""
        return load_llm(source, self.dtype_of_llm).requires_grad_(False)
