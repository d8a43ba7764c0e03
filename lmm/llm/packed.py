"""Linear layers laid out for decoding on a CPU.

A decoding step multiplies few rows by every weight of the model, so it lasts as long as reading the weights does.
oneDNN and MKL read them up to twice as fast from layouts of their own as from plain rows; `pack` puts them there once.
Layers that are given the same input (query, key and value; gate and up) become one product. Results differ from those
of the plain layers by rounding alone. Packed weights are opaque: the model cannot be trained, saved or moved any more.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lmm.llm.decoding import WIDE
from lmm.llm.embedding import MotionHead, MotionLLM


def pack(llm: MotionLLM) -> None:
    """Lay out a model's linear layers and motion rows for decoding, in place, and let bfloat16 attend in float32.

    What cannot be packed stays as it is: layers that are not on the CPU or of a dtype that oneDNN lacks on this
    machine, quantized layers, and a head that shares its weight with the embedding. Packing twice changes nothing.
    """
    for names in _same_input(llm):
        whole = PackedLinear([llm.llm.get_submodule(name) for name in names])  # type: ignore[misc]
        for index, name in enumerate(names):
            llm.llm.set_submodule(name, whole if len(names) == 1 else Share(whole, index))
    head, config = llm.llm.get_output_embeddings(), llm.llm.config
    if type(head) is not MotionHead or not can_pack(head.base.weight):
        return
    llm.llm.set_output_embeddings(PackedHead(head))
    narrow = head.base.weight.dtype != torch.float32
    if narrow and config._attn_implementation == "sdpa" and llm.llm._supports_attention_backend:
        llm.llm.set_attn_implementation(WIDE)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN has a layout for this weight on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or bool(bf16)


class PackedMatrix:
    """A matrix in the layout of the library that multiplies by it fastest: oneDNN's, and for one float32 row MKL's too.

    MKL reads its layout half as fast again in that case (and only in that), at the price of a second copy; it is made
    when one row first comes.

    Args:
        weight: "O I".
    """

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.for_one_row: Tensor | None = None
        self.shape = weight.new_empty(1).expand(weight.shape)  # MKL asks the matrix for its shape alone

    def __call__(self, x: Float[Tensor, "*B I"], bias: Float[Tensor, " O"] | None) -> Float[Tensor, "*B O"]:
        """W x + b."""
        if x.numel() > x.shape[-1] or x.dtype != torch.float32 or not torch.backends.mkl.is_available():
            return torch.ops.mkldnn._linear_pointwise(x, self.blocks, bias, "none", [], "")
        if self.for_one_row is None:
            self.for_one_row = torch.ops.mkl._mkl_reorder_linear_weight(self.blocks.to_dense(), 1)
        return torch.ops.mkl._mkl_linear(x, self.for_one_row, self.shape, bias, 1)


class PackedLinear(nn.Module):
    """Linear layers of one input; the output has theirs side by side.

    Args:
        layers: `nn.Linear` or GPT-2's `Conv1D`.
    """

    def __init__(self, layers: list[nn.Linear | Conv1D]) -> None:
        super().__init__()
        weights = [layer.weight.detach() if type(layer) is nn.Linear else layer.weight.detach().T for layer in layers]
        biases = [layer.bias for layer in layers]
        self.sizes = [len(weight) for weight in weights]
        self.matrix, self.bias = PackedMatrix(torch.cat(weights)), None
        if any(bias is not None for bias in biases):
            filled = [w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases, strict=True)]
            self.bias = torch.cat(filled)
        self.seen: Tensor | None = None
        self.outputs: tuple[Tensor, ...] = ()

    @property
    def weight(self) -> Tensor:
        """Opaque (models look at its dtype and device)."""
        return self.matrix.blocks

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """W x + b."""
        return self.matrix(x, self.bias)

    def one(self, x: Float[Tensor, "*B I"], index: int) -> Float[Tensor, "*B o"]:
        """The output of one of the layers; those of the others are kept until the last of them is asked for."""
        if self.seen is not x:
            self.seen, self.outputs = x, self(x).split(self.sizes, dim=-1)
        output = self.outputs[index]
        if index == len(self.sizes) - 1:
            self.seen, self.outputs = None, ()
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        probe = torch.empty(0, dtype=self.weight.dtype)
        if fn(probe).device != probe.device or fn(probe).dtype != probe.dtype:
            raise ValueError(
                "weights that are laid out for decoding on the CPU cannot move or change their dtype; move the model "
                "first and call prepare_for_generation() then"
            )
        return self


class Share(nn.Module):
    """One of the layers of a `PackedLinear`, in the place where it was.

    Args:
        whole: the layers side by side.
        index: which of them this is, in the order of their calls.
    """

    def __init__(self, whole: PackedLinear, index: int) -> None:
        super().__init__()
        self.whole, self.index = whole, index

    @property
    def weight(self) -> Tensor:
        """Of all layers."""
        return self.whole.weight

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B o"]:
        """W x + b."""
        return self.whole.one(x, self.index)


class PackedHead(MotionHead):
    """A head whose motion rows are packed, each range when it is first asked for.

    Args:
        head: the head as it was, its text rows perhaps packed already.
    """

    def __init__(self, head: MotionHead) -> None:
        nn.Module.__init__(self)
        self.base, self.motion = head.base, head.motion
        self.packed: dict[tuple[int, int], PackedMatrix] = {}

    def motion_logits(self, hidden: Float[Tensor, "*B H"], rows: list[tuple[int, int]]) -> Float[Tensor, "*B R"]:
        """As `MotionHead.motion_logits`."""
        return torch.cat([self._logits(hidden, *each) for each in rows], dim=-1)

    def _logits(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        if (start, stop) not in self.packed:
            self.packed[start, stop] = PackedMatrix(self.motion[start:stop].detach().to(hidden.dtype))
        return self.packed[start, stop](hidden, None)


@torch.no_grad()
def _same_input(llm: MotionLLM) -> list[list[str]]:
    """Names of the layers to pack; those that one pass gives the very same tensor stand together, in order of calls."""
    embedding = llm.llm.get_input_embeddings().weight
    names = {
        layer: name
        for name, layer in llm.llm.named_modules()
        if type(layer) in (nn.Linear, Conv1D)  # subclasses (quantized) compute otherwise
        and layer.weight is not embedding
        and can_pack(layer.weight)
    }
    groups: dict[Any, list[str]] = {}
    alive: list[Tensor] = []  # so that no two inputs have one id

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x, name = inputs[0], names[layer]
        alive.append(x)
        parent = name.rpartition(".")[0]
        groups.setdefault((parent, id(x), x._version), []).append(name)

    hooks = [layer.register_forward_pre_hook(note) for layer in names]
    try:
        llm(torch.zeros(1, 1, dtype=torch.int64), None, mask=torch.ones(1, 1, dtype=torch.bool))
    finally:
        for hook in hooks:
            hook.remove()
    called = {name for group in groups.values() for name in group}
    return [*groups.values(), *([name] for name in names.values() if name not in called)]
