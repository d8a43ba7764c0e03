"""LoRA (Hu et al. 2021): W h + (alpha / rank) B A h with A, B trained, and the rows of motion trained with them.

Adapters go into the plain model before its embedding and head are split, so they can only land in the layers between:
the rows of text stay as they are to the bit, and a checkpoint holds adapters and motion rows.
"""

from typing import Literal

import peft
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from lmm.llm.backbone import EmbeddedBackbone, load_llm
from lmm.llm.base import MotionLanguageModel
from lmm.training import Optimization


class LoRAFinetune(MotionLanguageModel):
    """Adapters and motion rows train; the base LLM is frozen and not saved.

    More than eight arguments, so that a sweep over ``--model.rank`` stays one flat option.

    Args:
        tokenizer: checkpoint of a motion tokenizer, or of a language model of ours (its motion tokenizer is taken).
        backbone: Hugging Face hub name or folder of the LLM, or an embedded one that is built where it is missing.
        optimization: learning rate and schedule.
        rank: of the adapters.
        alpha: adapters are scaled by ``alpha / rank``.
        dropout: on the adapters' input.
        target_modules: names of the layers that get an adapter, or "all-linear" for every one but the head.
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the frozen weights; what trains is float32.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
    """

    def __init__(
        self,
        tokenizer: str,
        backbone: str | EmbeddedBackbone,
        *,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.05,
        target_modules: str | list[str] = "all-linear",
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
        self._arguments |= {"rank": rank, "alpha": alpha, "dropout": dropout, "target_modules": target_modules}
        if isinstance(target_modules, str) and target_modules != "all-linear":
            raise ValueError(f'target_modules is a list of layer names or "all-linear", got {target_modules!r}')
        self.config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )
        self.merged = False

    def load_llm(self, source: str) -> PreTrainedModel:
        """Frozen, with float32 adapters."""
        llm = load_llm(source, self.dtype_of_llm).requires_grad_(False)
        peft.inject_adapter_in_model(self.config, llm)
        for end in (llm.get_input_embeddings(), llm.get_output_embeddings()):
            if isinstance(end, LoraLayer):
                raise ValueError("target_modules names the embedding or the head; their motion rows train already")
        for parameter in llm.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return llm

    def prepare_for_generation(self) -> None:
        """Merge the adapters into the weights."""
        super().prepare_for_generation()
        if self.merged:
            return
        for name, module in list(self.llm.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge(safe_merge=True)
                self.llm.set_submodule(name, module.get_base_layer())
        self.merged = True

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adapters and motion rows."""
        if self.merged:
            raise ValueError("the adapters are merged into the weights; save before prepare_for_generation()")
        super().on_save_checkpoint(checkpoint)
