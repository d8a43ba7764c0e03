"""Published tokenizers as ours: T2M-GPT, MoMask and stage 1 of MotionGPT, read by a table of names.

All three are one network, T2M-GPT's (`lmm.tokenizers.networks.conv1d`); T2M-GPT and MotionGPT have one codebook, MoMask
one a level. Sizes are read from the shapes. Not in the files are the activation and the dilations (the published ones
are taken), the statistics (their own pair must be given), and the EMA state, which begins anew: every code counts as if
`COUNT` latents a batch had chosen it. So a code that a batch does not choose stays where it is, one that n latents
choose moves by about n/800 of the way to their mean, and one that no batch chooses is replaced after about 200.
"""

import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor

from lmm.motion.arrays import Stub, read_npy
from lmm.motion.published import HUMANML3D, published_pair
from lmm.motion.representations import HumanML3DFeatures, KITFeatures
from lmm.tokenizers.base import MotionTokenizer
from lmm.tokenizers.quantizers.codebook import Codebook
from lmm.tokenizers.rvq import RVQTokenizer
from lmm.tokenizers.vq import VQTokenizer
from lmm.training import CHECKPOINT_FORMAT, build_module

COUNT = 8.0  # latents that choose a code in a published batch: 256 windows of 16 steps, 512 codes


class _Peer(NamedTuple):
    """Where a checkpoint keeps a tokenizer: in which entry, under which prefix, beside which other modules."""

    name: str
    entry: str
    prefix: str = ""
    others: tuple[str, ...] = ()


_PEERS = (
    _Peer("T2M-GPT", "net", "vqvae."),
    _Peer("MoMask", "vq_model"),
    _Peer("MoMask", "net"),
    _Peer("MotionGPT", "state_dict", "vae.", ("lm.", "metrics.", "_losses.")),
)


def import_tokenizer(file: str, output: str, *, mean: str, std: str) -> None:
    """Turn a published tokenizer (T2M-GPT, MoMask, MotionGPT) into a checkpoint that every command here reads.

    Args:
        file: T2M-GPT's net_last.pth, MoMask's net_best_fid.tar of the rvq, a MotionGPT checkpoint.
        output: -o FILE.ckpt
        mean: the mean.npy that the tokenizer was trained with (in its meta folder; not HumanML3D's own Mean.npy).
        std: the std.npy beside it.
    """
    path = Path(output)
    if path.suffix != ".ckpt":
        raise ValueError(f"-o {output}: the ending must be .ckpt")
    if path.resolve() == Path(file).resolve():
        raise ValueError(f"-o {output}: would overwrite the published file; give another name")
    peer, tokenizer = _read(Path(file), Path(mean), Path(std))
    path.parent.mkdir(parents=True, exist_ok=True)
    # As Lightning saves before the first step: `lmm fit --ckpt_path` then starts from these weights.
    state = {"epoch": 0, "global_step": 0, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    made_by = {"pytorch-lightning_version": lightning.__version__, "lmm_format": CHECKPOINT_FORMAT}
    arguments = {"hparams_name": "kwargs", "hyper_parameters": dict(tokenizer.hparams)}
    torch.save(state | made_by | arguments | {"state_dict": tokenizer.state_dict()}, path)

    representation, spec = tokenizer.representation, tokenizer.token_spec
    parameters = sum(p.numel() for p in tokenizer.parameters())
    data = "data/kit.yaml" if isinstance(representation, KITFeatures) else "data/humanml3d.yaml"
    print(
        f"{path}: {peer.name}'s tokenizer of {representation.dim} features\n"
        f"  {parameters:,} parameters, {spec.codebook_size} codes, {spec.num_levels} level"
        f"{'s' if spec.num_levels > 1 else ''}, {spec.downsample} frames a step\n"
        f"  statistics: {published_pair(Path(mean), Path(std)) or 'a pair that is not among the published ones'}\n"
        f"next: lmm reconstruct clip.npy --model {path} -o pair.html\n"
        f"      lmm fit --config llm_lora.yaml --config {data} --model.tokenizer {path} "
        f"--data.tokens {path.with_suffix('') / 'tokens'}"
    )


def read_peer(file: str | Path, *, mean: str | Path, std: str | Path) -> MotionTokenizer:
    """A published tokenizer with the statistics it was trained in; its tokens and motions are the published ones.

    Nothing that is pickled in the file is run. A clip whose length is no multiple of the downsampling is completed by
    its last frame, as everywhere here; published code cuts it.

    Args:
        file: the checkpoint as it was published.
        mean: ``.npy`` (D,) of the features' mean.
        std: ``.npy`` (D,) of the features' standard deviation.

    Returns:
        A `VQTokenizer` (one codebook) or an `RVQTokenizer`, in evaluation mode.

    Raises:
        ValueError: a file that cannot be read safely, none of the three, weights that are missing, unknown or of other
            shapes than the network's, or statistics of something else.
    """
    return _read(Path(file), Path(mean), Path(std))[1]


def _read(path: Path, mean: Path, std: Path) -> tuple[_Peer, MotionTokenizer]:
    peer, weights = _recognize(_load(path), path)
    arguments, names = _layout(peer, weights, path)
    tokenizer = build_module(arguments)
    assert isinstance(tokenizer, MotionTokenizer)
    own = tokenizer.state_dict()
    wrong = [f"{peer.prefix}{theirs} (missing)" for theirs in names.values() if theirs not in weights]
    wrong += [f"{peer.prefix}{theirs} (unknown)" for theirs in sorted(set(weights) - set(names.values()))]
    for mine, theirs in names.items():
        if theirs in weights and weights[theirs].shape != own[mine].shape:
            there, here = tuple(weights[theirs].shape), tuple(own[mine].shape)
            wrong.append(f"{peer.prefix}{theirs} ({there} there, {here} expected)")
        elif theirs in weights and not torch.isfinite(weights[theirs]).all():
            wrong.append(f"{peer.prefix}{theirs} (contains NaN or Inf)")
    _refuse(wrong, peer, path)
    tokenizer.load_state_dict({mine: weights[theirs] for mine, theirs in names.items()}, strict=False)
    for codebook in tokenizer.quantizer.modules():
        if isinstance(codebook, Codebook):
            codebook.sums.copy_(COUNT * codebook.codes)
            codebook.counts.fill_(COUNT)
            codebook.started.fill_(True)
    _set_statistics(tokenizer, peer, mean, std)
    return peer, tokenizer.eval()


def _load(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary; objects of foreign classes (configs, paths) come as stubs that run nothing."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    zipped = zipfile.is_zipfile(path)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        stubs: list[Any] = [(_items if name == "collections.defaultdict" else Stub, name) for name in foreign]
        with torch.serialization.safe_globals(stubs):
            checkpoint = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it holds a {type(checkpoint).__name__}")
        return checkpoint
    except Exception as error:
        told = [line for line in str(error).splitlines() if line.strip() and "torch.load" not in line]
        raise ValueError(
            f"{path} cannot be read without running what is pickled in it ({told[0] if told else error}). Where you "
            "trust it, save its weights alone: checkpoint = torch.load(FILE, weights_only=False); "
            "torch.save({'state_dict': checkpoint['state_dict']}, 'weights.ckpt')"
        ) from None


def _items(*_: Any) -> OrderedDict[Any, Any]:
    """In place of a defaultdict, whose factory would be called."""
    return OrderedDict()


def _recognize(checkpoint: dict[str, Any], path: Path) -> tuple[_Peer, dict[str, Tensor]]:
    """Whose tokenizer a checkpoint holds, and its weights by their names without the prefix."""
    for peer in _PEERS:
        held = checkpoint.get(peer.entry)
        if not isinstance(held, dict) or not any(str(k).startswith(f"{peer.prefix}encoder.model.") for k in held):
            continue
        names = [name for name in held if not (peer.others and str(name).startswith(peer.others))]
        wrong = [f"{name} (unknown)" for name in names if not str(name).startswith(peer.prefix)]
        wrong += [f"{name} (no tensor)" for name in names if not isinstance(held[name], Tensor)]
        _refuse(wrong, peer, path)
        return peer, {name.removeprefix(peer.prefix): held[name] for name in names}
    entries = "; ".join(f"{peer.name}: {peer.prefix}encoder.model.* in {peer.entry!r}" for peer in _PEERS)
    raise ValueError(
        f"{path} holds {', '.join(map(str, checkpoint)) or 'nothing'}, and no tokenizer known here ({entries}); "
        "give the tokenizer's own checkpoint, not that of a transformer that was trained on its tokens"
    )


def _layout(peer: _Peer, weights: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments that build a tokenizer of these sizes, and for each of its tensors the published name."""
    num_stages = _count(weights, r"encoder\.model\.(\d+)\.\d+\.") - 2
    depth = _count(weights, r"encoder\.model\.\d+\.1\.model\.(\d+)\.")
    num_levels = _count(weights, r"quantizer\.layers\.(\d+)\.")
    books = [f"quantizer.layers.{q}.codebook" for q in range(num_levels)] or ["quantizer.codebook"]
    shared = num_levels > 1 and all(b in weights and torch.equal(weights[b], weights[books[0]]) for b in books)
    for book in books[1:] if shared else []:
        del weights[book]  # one codebook, written once for each level
    ours = "quantizer.levels.{}.codes" if num_levels else "quantizer.codebook.codes"
    codes = {ours.format(q): book for q, book in enumerate(books) if book in weights or not shared}
    names = _names(max(num_stages, 0), depth) | codes
    sizes = {names["encoder.enter.weight"]: 3, names["encoder.leave.weight"]: 3, next(iter(codes.values())): 2}
    tensors = [weights[name] for name, dims in sizes.items() if name in weights and weights[name].dim() == dims]
    if len(tensors) < len(sizes):
        wrong = [f"{peer.prefix}{name} ({dims} dimensions are needed)" for name, dims in sizes.items()]
        _refuse([f"one is missing or of another shape: {', '.join(wrong)}"], peer, path)
    (width, dim, _), (latent_dim, _, _), (codebook_size, _) = (tensor.shape for tensor in tensors)
    known = {sum(cls.blocks.values()): cls.__name__ for cls in (HumanML3DFeatures, KITFeatures)}
    if dim not in known:
        told = " and ".join(f"{size} ({name})" for size, name in known.items())
        raise ValueError(f"{path} reads {dim} features; only {told} can be imported")
    network = {"width": width, "depth": depth, "num_stages": num_stages, "dilation_growth": 3}
    learning = {"codebook_size": codebook_size, "decay": 0.99, "commitment_weight": 0.02, "reset_threshold": 1.0}
    kind, quantizer = VQTokenizer.__name__, _part("tokenizers.quantizers.VectorQuantizer", **learning)
    if num_levels:
        learning |= {"num_levels": num_levels, "dropout": 0.2, "shared": shared}
        kind, quantizer = RVQTokenizer.__name__, _part("tokenizers.quantizers.ResidualQuantizer", **learning)
    optimization = {"lr": 2e-4, "weight_decay": 0.0, "betas": [0.9, 0.99], "warmup_steps": 1000, "final_lr": 0.05}
    arguments = {
        "_class_path": f"lmm.tokenizers.{kind}",
        "representation": _part(f"motion.representations.{known[dim]}", uniform_skeleton=False, fixed=False),
        "encoder": _part("tokenizers.networks.Conv1dEncoder", **network),
        "quantizer": quantizer,
        "decoder": _part("tokenizers.networks.Conv1dDecoder", **network),
        "loss": _part("tokenizers.losses.ReconstructionLoss", block_weights={"positions": 0.5}),
        "latent_dim": latent_dim,
        "optimization": optimization,
    }
    return arguments, names


def _part(name: str, **init_args: Any) -> dict[str, Any]:
    """How a checkpoint's plain values name a part."""
    return {"class_path": f"lmm.{name}", "init_args": init_args}


def _names(num_stages: int, depth: int) -> dict[str, str]:
    """Our name -> the published one, of every weight and bias of encoder and decoder."""
    last = 2 + num_stages  # numbers 0 and 1: first convolution, ReLU
    layers = {
        "encoder.enter": "encoder.model.0",
        "encoder.leave": f"encoder.model.{last}",
        "decoder.enter": "decoder.model.0",
        "decoder.middle": f"decoder.model.{last}",
        "decoder.leave": f"decoder.model.{last + 2}",
    }
    for s in range(num_stages):
        layers[f"encoder.stages.{s}.0"] = f"encoder.model.{2 + s}.0"
        layers[f"decoder.stages.{s}.{depth}"] = f"decoder.model.{2 + s}.2"
        for i in range(depth):
            for mine, theirs in (("spread", "conv1"), ("mix", "conv2")):
                layers[f"encoder.stages.{s}.{1 + i}.{mine}"] = f"encoder.model.{2 + s}.1.model.{i}.{theirs}"
                layers[f"decoder.stages.{s}.{i}.{mine}"] = f"decoder.model.{2 + s}.0.model.{i}.{theirs}"
    return {f"{mine}.{kind}": f"{layers[mine]}.{kind}" for mine in layers for kind in ("weight", "bias")}


def _count(weights: dict[str, Tensor], pattern: str) -> int:
    """One more than the largest number that the pattern finds in a name."""
    return 1 + max((int(found[1]) for name in weights if (found := re.match(pattern, name))), default=-1)


def _refuse(wrong: list[str], peer: _Peer, path: Path) -> None:
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(
            f"{path} is no tokenizer of {peer.name} as it is published: {'; '.join(wrong[:4])}{more}; "
            "only its convolutions without normalization and its EMA codebooks can be imported"
        )


def _set_statistics(tokenizer: MotionTokenizer, peer: _Peer, mean: Path, std: Path) -> None:
    pair = [torch.from_numpy(read_npy(file).astype(np.float64)) for file in (mean, std)]
    if published_pair(mean, std) == HUMANML3D:
        warnings.warn(
            f"{mean} and {std} are {HUMANML3D}, but {peer.name} was published in the evaluator's statistics, whose "
            "deviations of root and contacts are 25 times smaller: unless you trained it yourself otherwise, give the "
            "pair in its meta folder",
            stacklevel=3,
        )
    try:
        tokenizer.representation.set_statistics(*pair)
    except ValueError as error:
        raise ValueError(f"{mean}, {std}: {error}; give the pair that the tokenizer was trained with") from None
