"""Full tuning: every weight of the language model trains, as in the main results of arXiv 2410.03311."""

from typing import Literal

from transformers import PreTrainedModel

from lmm.llm.backbone import EmbeddedBackbone, load_llm
from lmm.llm.base import MotionLanguageModel
from lmm.training import Optimization


class FullFinetune(MotionLanguageModel):
    """All weights train; a checkpoint holds the whole LLM.

    Args:
        tokenizer: checkpoint of a motion tokenizer, or of a language model of ours (its motion tokenizer is taken).
        backbone: Hugging Face hub name or folder of the LLM, or an embedded one that is built where it is missing.
        optimization: learning rate and schedule.
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the LLM's weights; in bfloat16 small updates round away: prefer float32 and `precision: bf16-mixed`.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
    """

    def __init__(
        self,
        tokenizer: str,
        backbone: str | EmbeddedBackbone,
        *,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        loss_on_text: bool = True,
        unconditional: float = 0.0,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            tokenizer,
            backbone,
            optimization=optimization,
            loss_on_text=loss_on_text,
            unconditional=unconditional,
            dtype=dtype,
            gradient_checkpointing=gradient_checkpointing,
        )

    def load_llm(self, source: str) -> PreTrainedModel:
        """Everything trains."""
        return load_llm(source, self.dtype_of_llm)
