"""Files of text-to-motion's evaluator as they are published, with random weights and words of the published shapes."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.motion import published

WORDS = ["sos", "eos", "unk", *"a person walk forward and turn left slowly hand be the raise of to in".split()]
TEXTS = {
    "000001": "a person walks forward.#a/DET person/NOUN walk/VERB forward/ADV#0.0#0.0\n"
    "the person slowly turns to the left#the/DET person/NOUN slowly/ADV turn/VERB to/ADP the/DET left/NOUN#1.0#3.5\n",
    "000002": "a zebra raises a hand#a/DET zebra/NOUN raise/VERB a/DET hand/NOUN#nan#nan\nno tokens here\n",
    "000003": "nineteen#" + "a/DET " * 18 + "walk/VERB#0.0#0.0\n"
    "twenty#" + "a/DET " * 19 + "turn/VERB#0.0#0.0\n"
    "many#" + "person/NOUN " * 21 + "the/X and/CCONJ#0.0#0.0\n",
    "000004": "broken#a/DET/NOUN walk#0.0#0.0\n",
}


def shapes(channels: int = 259) -> dict[str, dict[str, tuple[int, ...]]]:
    """Networks -> names and shapes, as published."""

    def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def reader(inputs: int, width: int) -> dict[str, tuple[int, ...]]:
        out = {"hidden": (2, 1, width), **linear("input_emb", inputs, width)}
        for direction in ("", "_reverse"):
            for kind in ("ih", "hh"):
                out[f"gru.weight_{kind}_l0{direction}"] = (3 * width, width)
                out[f"gru.bias_{kind}_l0{direction}"] = (3 * width,)
        norm = {"output_net.1.weight": (width,), "output_net.1.bias": (width,)}
        return {**out, **linear("output_net.0", 2 * width, width), **norm, **linear("output_net.3", width, 512)}

    movement = {"main.0.weight": (512, channels, 4), "main.0.bias": (512,), "main.3.weight": (512, 512, 4),
                "main.3.bias": (512,), **linear("out_net", 512, 512)}  # fmt: skip
    text = {**linear("pos_emb", 15, 300), **reader(300, 512)}
    return {"movement_encoder": movement, "motion_encoder": reader(512, 1024), "text_encoder": text}


def weights(channels: int = 259) -> dict[str, dict[str, torch.Tensor]]:
    """Random numbers of a size that keeps every layer's output near one."""
    g = torch.Generator().manual_seed(0)
    out: dict[str, dict[str, torch.Tensor]] = {}
    for part, names in shapes(channels).items():
        out[part] = {}
        for name, shape in names.items():
            fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
            out[part][name] = (2 * torch.rand(shape, generator=g) - 1) * (1.7 * fan**-0.5)
    return out


def write(folder: Path, kind: str = "t2m", dim: int = 263) -> dict[str, str]:
    """All files below ``folder``, at the places that configs/evaluator/guo_<kind>.yaml names; arguments by name."""
    rng = np.random.default_rng(0)
    meta = folder / {"t2m": "checkpoints/t2m/Comp_v6_KLD01/meta", "kit": "checkpoints/kit/Comp_v6_KLD005/meta"}[kind]
    checkpoint = folder / f"checkpoints/{kind}/text_mot_match/model/finest.tar"
    texts = folder / {"t2m": "data/HumanML3D/texts", "kit": "data/KIT-ML/texts"}[kind]
    glove = folder / "glove"
    for place in (meta, checkpoint.parent, texts, glove):
        place.mkdir(parents=True, exist_ok=True)
    adam = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({**weights(dim - 4), "opt_text_encoder": adam, "epoch": 7, "iter": 100}, checkpoint)
    np.save(meta / "mean.npy", rng.normal(size=dim))
    np.save(meta / "std.npy", rng.uniform(0.01, 1, size=dim))
    words = [*WORDS, *(f"word{i}" for i in range(4199 - len(WORDS)))]
    np.save(glove / "our_vab_data.npy", rng.normal(size=(4199, 300)))
    rows = dict(zip(words, [0, 1, 2, *rng.permutation(np.arange(3, 4199)).tolist()], strict=True))
    for name, content in (("words", words), ("idx", rows)):
        (glove / f"our_vab_{name}.pkl").write_bytes(pickle.dumps(content))
    for clip, lines in TEXTS.items():
        (texts / f"{clip}.txt").write_text(lines, encoding="utf-8")
    files = {"checkpoint": checkpoint, "glove": glove, "texts": texts}
    return {name: str(path) for name, path in (files | {s: meta / f"{s}.npy" for s in ("mean", "std")}).items()}


def pass_for_published(patch: pytest.MonkeyPatch, mean: str, std: str, pair: str) -> None:
    """Let random statistics have the digests of a published pair."""
    for role, file in (("mean", mean), ("std", std)):
        patch.setitem(published._SHA256, hashlib.sha256(Path(file).read_bytes()).hexdigest(), (role, pair))
