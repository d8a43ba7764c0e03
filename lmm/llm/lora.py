"""LoRA (Hu et al. 2021): W h + (alpha / rank) B A h with A, B trained, and the rows of motion trained with them.

Adapters go into the plain model before its embedding and head are split, so they can only land in the layers between:
the rows of text stay as they are to the bit, and a checkpoint holds adapters and motion rows. With ``dtype: nf4`` the
frozen W are kept in 4 bits (QLoRA, Dettmers et al. 2023), with ``int8`` in 8.
"""

from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from lmm.llm.backbone import EmbeddedBackbone, load_llm, load_quantized_llm
from lmm.llm.base import MotionLanguageModel
from lmm.llm.options import NewIds, Sequences
from lmm.llm.tasks import Task
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
        start: checkpoint of an earlier `LoRAFinetune` whose adapters and rows this one begins with (a second stage).
        loss_on_text: learn the instruction too, not only the motion.
        unconditional: fraction of training samples that lose their caption.
        dtype: of the frozen weights; what trains is float32. "nf4" and "int8" quantize the linear layers.
        compute_dtype: with "nf4" and "int8", of products and of what is not quantized; bfloat16 where left out.
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
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.05,
        target_modules: str | list[str] = "all-linear",
        start: str | None = None,
        loss_on_text: bool = True,
        unconditional: float = 0.0,
        dtype: Literal["float32", "bfloat16", "nf4", "int8"] = "float32",
        compute_dtype: Literal["float32", "bfloat16"] | None = None,
        gradient_checkpointing: bool = False,
        tasks: list[Task] | None = None,
        new_ids: NewIds = NewIds(),  # noqa: B008 - frozen
        sequences: Sequences = Sequences(),  # noqa: B008 - frozen
    ) -> None:
        quantized = dtype in ("nf4", "int8")
        if compute_dtype is not None and not quantized:
            raise ValueError(
                f"compute_dtype {compute_dtype} belongs to quantized weights, but dtype is {dtype} (perhaps a later "
                "--config says so): add --model.dtype=nf4, or leave compute_dtype out"
            )
        super().__init__(
            tokenizer,
            backbone,
            optimization=optimization,
            loss_on_text=loss_on_text,
            unconditional=unconditional,
            dtype=compute_dtype or "bfloat16" if quantized else dtype,  # type: ignore[arg-type]
            gradient_checkpointing=gradient_checkpointing,
            start=start,
            tasks=tasks,
            new_ids=new_ids,
            sequences=sequences,
        )
        self._arguments |= {"rank": rank, "alpha": alpha, "dropout": dropout, "target_modules": target_modules}
        self._arguments |= {"dtype": dtype, "compute_dtype": compute_dtype}
        self.storage: Any = dtype if quantized else None
        if isinstance(target_modules, str) and target_modules != "all-linear":
            raise ValueError(f'target_modules is a list of layer names or "all-linear", got {target_modules!r}')
        self.adapters = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": target_modules}
        self.merged = False

    def load_llm(self, source: str) -> PreTrainedModel:
        """Frozen, with float32 adapters."""
        from peft import LoraConfig, inject_adapter_in_model  # here, because importing it takes two seconds
        from peft.tuners.lora import LoraLayer

        if self.storage is None:
            llm = load_llm(source, self.dtype_of_llm)
        else:
            device = torch.device("cpu") if self._trainer is None else self.trainer.strategy.root_device
            llm = load_quantized_llm(source, self.storage, self.dtype_of_llm, device=device)
        llm.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(**self.adapters, task_type="CAUSAL_LM"), llm)  # type: ignore[arg-type]
        for end in (llm.get_input_embeddings(), llm.get_output_embeddings()):
            if isinstance(end, LoraLayer):
                raise ValueError("target_modules names the embedding or the head; their motion rows train already")
        for parameter in llm.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return llm

    @torch.no_grad()
    def merge(self) -> None:
        """Merge the adapters into the weights; quantized ones take ``compute_dtype`` again, and its memory.

        Merging into them as they are would round the adapters away.
        """
        from peft.tuners.lora import LoraLayer

        if self.merged:
            return
        for name, module in list(self.llm.named_modules()):
            if isinstance(module, LoraLayer):
                base: Any = module.get_base_layer()
                if _is_quantized(base):
                    plain = _dequantize(base, torch.float32)
                    plain.weight += sum(module.get_delta_weight(a) for a in module.active_adapters)  # type: ignore[attr-defined]
                    base = plain.to(self.dtype_of_llm)
                else:
                    module.merge(safe_merge=True)
                self.llm.set_submodule(name, base)
            elif _is_quantized(module) and not name.endswith(".base_layer"):
                self.llm.set_submodule(name, _dequantize(module, self.dtype_of_llm))
        self.merged = True

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adapters and motion rows."""
        if self.merged:
            raise ValueError(
                "the adapters are merged into the weights; save before merge() or prepare_for_generation()"
            )
        super().on_save_checkpoint(checkpoint)


def _is_quantized(layer: nn.Module) -> bool:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return isinstance(layer, Linear4bit | Linear8bitLt)


def _dequantize(layer: Any, dtype: torch.dtype) -> nn.Linear:
    """The linear layer that a quantized one stands for."""
    import bitsandbytes as bnb

    if isinstance(layer, bnb.nn.Linear4bit):
        weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)  # type: ignore[attr-defined]
    else:
        scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB  # they move there at first use
        weight = bnb.functional.int8_vectorwise_dequant(layer.weight.data, scales)
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
    return plain.train(layer.training)
