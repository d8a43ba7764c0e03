"""Language models that no single device holds: FSDP2 (Zhao et al. 2023), applied from outside the model.

Every decoder layer is a unit: its weights, gradients and moments lie in pieces on all devices and are gathered while it
runs. Embedding, head and last norm are one more unit, so tied tables stay tied::

    MotionLLM                 unit 0: embedding, last norm, head, with their motion rows
      decoder layer 1 ... L   unit 1 ... L

A checkpoint is that of one process, parameter names and optimizer included: a run may go on with any number of devices.
With ``save_distributed_checkpoint`` it is a folder to which every process writes its pieces; `consolidate` makes the
file of it. Both hold what trains alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from lmm.llm.checkpoint import check_parameters
from lmm.llm.embedding import MotionLLM

META = "meta.pt"  # Lightning's name for what is no tensor of model or optimizer


class FullyShardedStrategy(ModelParallelStrategy):
    """Shard a language model over all devices (`ModelParallelStrategy` with one dimension and our checkpoints).

    Every process reads the whole base model into the host's memory first. Reading a folder unpickles its index: load
    none from strangers.

    Args:
        cpu_offload: keep weights and moments in the host's memory and update them there: slow, and the way to train
            what the devices together cannot hold.
        save_distributed_checkpoint: write folders of pieces instead of one file that the first process gathers.
    """

    def __init__(self, *, cpu_offload: bool = False, save_distributed_checkpoint: bool = False) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint)
        self.cpu_offload = cpu_offload

    def setup_environment(self) -> None:
        """One dimension: all devices."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        if self.cpu_offload and self.root_device.type == "cuda":
            self._process_group_backend = "cpu:gloo,cuda:nccl"  # gradients are clipped where they lie
        super().setup_environment()

    def model_to_device(self) -> None:
        """Offloaded weights stay where they are, their buffers are on the device already."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.model is not None
        for name, child in self.model.named_children():
            if name != "llm":
                child.to(self.root_device)
        _update_properties(self.model, device=self.root_device)

    # ------------------------------------------------------------------------------------------ saving

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What trains, and all of what is not sharded: whole on the first process, or in pieces for a folder."""
        assert self.lightning_module is not None
        trained: dict[str, Any] = {name: p.detach() for name, p in _trained(self.lightning_module)}
        others = {
            f"{name}.{key}": value
            for name, child in self.lightning_module.named_children()
            if name != "llm"
            for key, value in child.state_dict().items()
        }
        return self._collect(trained) | others

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As of one process."""
        return self._collect(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def _collect(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Whole tensors in the host's memory, on the first process only; pieces stay pieces for a folder."""
        if self._save_distributed_checkpoint:
            return tree

        def whole(leaf: Any) -> Any:
            if not isinstance(leaf, DTensor):
                return leaf
            full = leaf.to(self.root_device).full_tensor()  # type: ignore[attr-defined]
            return full.cpu() if self.is_global_zero else None

        tree = tree_map(whole, tree)
        return tree if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Lightning's; in a folder, what is no tensor goes to its ``meta.pt``."""
        if self._save_distributed_checkpoint:
            states = checkpoint.get("optimizer_states", [])
            checkpoint["param_groups"] = [state["param_groups"] for state in states]
            checkpoint["optimizer_states"] = [{"state": state["state"]} for state in states]
        super().save_checkpoint(checkpoint, filepath, storage_options)

    # ------------------------------------------------------------------------------------------ loading

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load what trains and the optimizer from a file or a folder; returns the rest.

        Raises:
            ValueError: the checkpoint lacks a parameter or has one that does not fit.
        """
        path = Path(self.broadcast(checkpoint_path))
        assert self.lightning_module is not None
        own = dict(_trained(self.lightning_module))
        optimizers = [getattr(optimizer, "_optimizer", optimizer) for optimizer in self.optimizers]
        return (_load_folder if path.is_dir() else _load_file)(path, own, optimizers)


def shard(llm: MotionLLM, trainer: Trainer) -> None:
    """Cut a model into pieces for the devices of a trainer with a `FullyShardedStrategy`.

    Raises:
        ValueError: another strategy that leaves sharding to the model, a model that does not name its layers, or one
            with int8 weights.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, FullyShardedStrategy):
        raise ValueError(
            f"{type(strategy).__name__} leaves sharding to the model; use lmm.llm.sharding.FullyShardedStrategy "
            "(strategy/fsdp2.yaml)"
        )
    from bitsandbytes.nn import Linear8bitLt  # here, because importing it takes two seconds

    if any(isinstance(module, Linear8bitLt) for module in llm.modules()):
        raise ValueError("int8 weights lose their scales when they are sharded; use dtype nf4, or strategy/ddp.yaml")
    names = set(llm.llm._no_split_modules or ())
    layers = [module for module in llm.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(f"{type(llm.llm).__name__} does not say what its layers are; use strategy/ddp.yaml")
    options: dict[str, Any] = {"mesh": strategy.device_mesh["data_parallel"]}
    if trainer.precision == "bf16-mixed":  # else whole float32 layers would travel
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    if strategy.cpu_offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=strategy.root_device.type == "cuda")
    # Sampling takes as many passes as a motion has tokens, on every device another number, so nobody may wait for the
    # others: what one pass gathered stays.
    keep = trainer.state.fn == TrainerFn.PREDICTING
    for layer in reversed(layers):
        fully_shard(layer, reshard_after_forward=not keep, **options)
    fully_shard(llm, **options)
    if hasattr(llm, "nll"):
        register_fsdp_forward_method(llm, "nll")


def consolidate(folder: str, output: str) -> None:
    """Make one file of a checkpoint that several processes wrote as a folder.

    Args:
        folder: the sharded checkpoint.
        output: -o FILE; a .ckpt file that every command reads.
    """
    path, file = Path(folder), Path(output)
    if not (path / META).is_file():
        raise ValueError(f"{path} is not a sharded checkpoint that `lmm fit` wrote")
    if file.exists():
        raise ValueError(f"{file} is already there; give another -o FILE or delete it first")
    tensors = {key: torch.empty(m.size, dtype=m.properties.dtype) for key, m in _stored(path).items()}
    dcp.load(tensors, checkpoint_id=path, no_dist=True)
    checkpoint = torch.load(path / META, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = _below("state_dict.", tensors)
    checkpoint["optimizer_states"] = [
        {"state": _by_parameter(_below(f"optimizer_{i}.state.", tensors)), "param_groups": groups}
        for i, groups in enumerate(checkpoint.pop("param_groups"))
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(file.name + ".new")
    torch.save(checkpoint, new)
    new.replace(file)
    print(file)


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def _load_file(path: Path, own: dict[str, nn.Parameter], optimizers: list[Optimizer]) -> dict[str, Any]:
    checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    weights, states = checkpoint.pop("state_dict"), checkpoint.pop("optimizer_states", [])
    check_parameters(own, set(own), weights)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(_cut(weights[name], parameter))
    for optimizer, state in zip(optimizers, states, strict=False):  # no optimizer where nothing is trained
        for values, parameter in _pair(state["state"], state["param_groups"], optimizer):
            values |= {key: _cut(value, parameter) for key, value in values.items() if _alike(value, parameter)}
        optimizer.load_state_dict(state)
    return checkpoint


def _load_folder(path: Path, own: dict[str, nn.Parameter], optimizers: list[Optimizer]) -> dict[str, Any]:
    stored = {key: torch.empty(m.size, dtype=m.properties.dtype, device="meta") for key, m in _stored(path).items()}
    check_parameters(own, set(own), _below("state_dict.", stored))
    checkpoint = torch.load(path / META, map_location="cpu", weights_only=True)
    target: dict[str, Any] = {"state_dict": {name: p.detach() for name, p in own.items()}}
    all_groups = checkpoint.pop("param_groups")
    for i, optimizer in enumerate(optimizers):
        state = _by_parameter(_below(f"optimizer_{i}.state.", stored))
        for values, parameter in _pair(state, all_groups[i], optimizer):
            for key, value in values.items():
                values[key] = torch.zeros_like(
                    parameter if _alike(value, parameter) else value, device=parameter.device
                )
        target[f"optimizer_{i}"] = {"state": state}
    dcp.load(target, checkpoint_id=path)  # in place
    for i, optimizer in enumerate(optimizers):
        optimizer.load_state_dict(target[f"optimizer_{i}"] | {"param_groups": all_groups[i]})
    return checkpoint


def _stored(folder: Path) -> dict[str, TensorStorageMetadata]:
    """What tensors a folder holds."""
    entries = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {key: entry for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _by_parameter(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """ "3.exp_avg" -> [3]["exp_avg"]."""
    nested: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        number, _, key = name.partition(".")
        nested.setdefault(int(number), {})[key] = value
    return nested


def _pair(
    state: dict[int, dict[str, Tensor]], groups: list[dict[str, Any]], optimizer: Optimizer
) -> Iterator[tuple[dict[str, Tensor], nn.Parameter]]:
    """Each saved state with the parameter that it is of: optimizers number them in their order."""
    numbers = [number for group in groups for number in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return ((state[number], p) for number, p in zip(numbers, parameters, strict=True) if number in state)


def _alike(value: Tensor, parameter: nn.Parameter) -> bool:
    return value.shape == parameter.shape


def _cut(whole: Tensor, parameter: nn.Parameter) -> Tensor:
    """The piece of a whole tensor that lies here, as the parameter's own pieces do."""
    assert isinstance(parameter, DTensor)
    return distribute_tensor(whole.to(parameter.dtype), parameter.device_mesh, parameter.placements).to(
        parameter.device
    )
