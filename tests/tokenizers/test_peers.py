"""Published checkpoints with random weights, and an independent forward pass written from the published description."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmm.batch import MotionBatch
from lmm.motion.representations import HumanML3DFeatures, KITFeatures
from lmm.tokenizers import MotionTokenizer, RVQTokenizer, VQTokenizer
from lmm.tokenizers.peers import import_tokenizer, read_peer
from lmm.training import load_module
from tests.toy import DATA, TRAINER, lmm, options

WIDTH, CODES = 16, 32
PEERS = {  # entry, prefix, levels, what else lies in the file
    "t2mgpt": ("net", "vqvae.", 0, {}),
    "momask": ("vq_model", "", 3, {"ep": 7}),
    "momask_old": ("net", "", 2, {}),
    "motiongpt": ("state_dict", "vae.", 0, {"epoch": 1, "optimizer_states": [], "callbacks": {}}),
}


def shapes(dim=263, width=WIDTH, latent=WIDTH, depth=3, stages=2, codes=CODES, levels=0) -> dict[str, tuple[int, ...]]:
    """Names and shapes as published, without prefix."""
    last = 2 + stages
    convolutions = {
        "encoder.model.0": (width, dim, 3),
        f"encoder.model.{last}": (latent, width, 3),
        "decoder.model.0": (width, latent, 3),
        f"decoder.model.{last}": (width, width, 3),
        f"decoder.model.{last + 2}": (dim, width, 3),
    }
    for stage in range(2, last):
        convolutions |= {f"encoder.model.{stage}.0": (width, width, 4), f"decoder.model.{stage}.2": (width, width, 3)}
        for where in (f"encoder.model.{stage}.1", f"decoder.model.{stage}.0"):
            for block in range(depth):
                convolutions[f"{where}.model.{block}.conv1"] = (width, width, 3)
                convolutions[f"{where}.model.{block}.conv2"] = (width, width, 1)
    out = {f"{name}.weight": shape for name, shape in convolutions.items()}
    out |= {f"{name}.bias": shape[:1] for name, shape in convolutions.items()}
    books = [f"quantizer.layers.{q}.codebook" for q in range(levels)] or ["quantizer.codebook"]
    return out | {name: (codes, latent) for name in books}


def random_weights(**sizes) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes(**sizes).items():
        scale = 0.05 if name.endswith("bias") else 1 / np.sqrt(np.prod(shape[1:])) if "model" in name else 0.5
        weights[name] = torch.randn(shape, generator=g) * float(scale)
    return weights


def save(folder: Path, kind: str, weights: dict[str, torch.Tensor], **more) -> Path:
    entry, prefix, _, rest = PEERS[kind]
    held = {f"{prefix}{name}": value for name, value in weights.items()} | more
    torch.save({entry: held, **rest}, folder / "net.pth")
    return folder / "net.pth"


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return statistics(tmp_path)


def statistics(folder: Path, dim: int = 263) -> dict[str, Path]:
    g = np.random.default_rng(0)
    files = {"mean": folder / f"mean{dim}.npy", "std": folder / f"std{dim}.npy"}
    np.save(files["mean"], g.normal(size=dim))
    np.save(files["std"], g.uniform(0.5, 2, size=dim))
    return files


def conv(weights, name, x, **how):
    return F.conv1d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **how)


def blocks(weights, name, x):
    for number, dilation in enumerate((9, 3, 1)):
        h = conv(weights, f"{name}.model.{number}.conv1", F.relu(x), padding=dilation, dilation=dilation)
        x = x + conv(weights, f"{name}.model.{number}.conv2", F.relu(h))
    return x


def published_encode(weights, x):
    """Normalized features (1, T, D) -> indices (1, t, Q)."""
    x = F.relu(conv(weights, "encoder.model.0", x.transpose(1, 2), padding=1))
    for stage in (2, 3):
        x = conv(weights, f"encoder.model.{stage}.0", x, stride=2, padding=1)
        x = blocks(weights, f"encoder.model.{stage}.1", x)
    rest, indices = conv(weights, "encoder.model.4", x, padding=1).transpose(1, 2), []
    for name in sorted(name for name in weights if name.startswith("quantizer")):
        codes = weights[name]
        indices.append(torch.cdist(rest, codes[None]).argmin(-1))
        rest = rest - codes[indices[-1]]
    return torch.stack(indices, -1)


def published_decode(weights, indices):
    """Indices (1, t, Q) -> normalized features (1, T, D)."""
    books = [weights[name] for name in sorted(name for name in weights if name.startswith("quantizer"))]
    x = sum(codes[i] for codes, i in zip(books, indices.unbind(-1), strict=True)).transpose(1, 2)
    x = F.relu(conv(weights, "decoder.model.0", x, padding=1))
    for stage in (2, 3):
        x = F.interpolate(blocks(weights, f"decoder.model.{stage}.0", x), scale_factor=2, mode="nearest")
        x = conv(weights, f"decoder.model.{stage}.2", x, padding=1)
    x = F.relu(conv(weights, "decoder.model.4", x, padding=1))
    return conv(weights, "decoder.model.6", x, padding=1).transpose(1, 2)


@pytest.mark.parametrize("dim", [263, 251])
@pytest.mark.parametrize("kind", PEERS)
def test_tokens_and_motions_are_the_published_ones(kind, dim, tmp_path):
    levels = PEERS[kind][2]
    weights, files = random_weights(levels=levels, dim=dim), statistics(tmp_path, dim)
    tokenizer = read_peer(save(tmp_path, kind, weights), **files)
    assert type(tokenizer) is (RVQTokenizer if levels else VQTokenizer) and not tokenizer.training
    assert type(tokenizer.representation) is {263: HumanML3DFeatures, 251: KITFeatures}[dim]
    assert tokenizer.representation.uniform_skeleton is False
    spec = tokenizer.token_spec
    assert (spec.codebook_size, spec.num_levels, spec.num_parts, spec.downsample) == (CODES, max(levels, 1), 1, 4)

    mean, std = (torch.from_numpy(np.load(files[name])).float() for name in ("mean", "std"))
    features = torch.randn(1, 96, dim, generator=torch.Generator().manual_seed(1)) * std + mean
    expected = published_encode(weights, (features - mean) / std)
    tokens = tokenizer.encode(features, torch.ones(1, 96, dtype=torch.bool))
    assert len(expected.unique()) > 5  # or equality would mean little
    assert torch.equal(tokens, expected)
    decoded = published_decode(weights, expected)
    assert decoded.std() > 0.05
    assert torch.allclose(tokenizer.representation.normalize(tokenizer.decode(tokens)), decoded, atol=1e-5)


def test_sizes_come_from_the_shapes(tmp_path, pair):
    weights = random_weights(width=8, latent=6, depth=2, stages=3, codes=5)
    tokenizer = read_peer(save(tmp_path, "t2mgpt", weights), **pair)
    assert tokenizer.downsample == 8 and tokenizer.quantizer.codebook.codes.shape == (5, 6)
    assert [len(stage) for stage in tokenizer.encoder.stages] == [3, 3, 3]


def test_a_codebook_that_levels_share_stays_one(tmp_path, pair):
    weights = random_weights(levels=3)
    for level in (1, 2):
        weights[f"quantizer.layers.{level}.codebook"] = weights["quantizer.layers.0.codebook"]
    tokenizer = read_peer(save(tmp_path, "momask", weights), **pair)
    assert len(tokenizer.quantizer.levels) == 1 and tokenizer.quantizer.num_levels == 3
    tokens = tokenizer.encode(features := torch.randn(1, 32, 263), torch.ones(1, 32, dtype=torch.bool))
    assert torch.equal(tokens, published_encode(weights, tokenizer.representation.normalize(features)))


def test_the_published_size(tmp_path, pair):
    flat = {name: torch.zeros(1).expand(s) for name, s in shapes(width=512, latent=512, codes=512, levels=6).items()}
    tokenizer = read_peer(save(tmp_path, "momask", flat), **pair)
    assert sum(p.numel() for p in tokenizer.parameters()) == 19_436_807
    assert tokenizer.token_spec.codes_per_step == 6 and tokenizer.quantizer.codebook_size == 512


@pytest.mark.parametrize("kind", PEERS)
def test_import_writes_what_every_command_reads(kind, tmp_path, pair, capsys):
    file = save(tmp_path, kind, random_weights(levels=PEERS[kind][2]))
    output = tmp_path / "sub" / "peer.ckpt"
    import_tokenizer(str(file), str(output), mean=str(pair["mean"]), std=str(pair["std"]))
    told = capsys.readouterr().out
    levels = max(PEERS[kind][2], 1)
    assert f"{CODES} codes, {levels} level" in told and "4 frames a step" in told
    assert f"lmm reconstruct clip.npy --model {output} -o pair.html" in told
    mine, theirs = load_module(output, MotionTokenizer), read_peer(file, **pair)
    assert type(mine) is type(theirs) and mine.token_spec == theirs.token_spec
    assert torch.equal(mine.representation.std, torch.from_numpy(np.load(pair["std"])).float())
    again = torch.load(output, weights_only=True)
    assert mine.state_dict().keys() == again["state_dict"].keys() and again["lmm_format"] == 1


def test_the_commands_work_on_it_and_training_goes_on_from_it(tmp_path, monkeypatch, pair):
    """`fit --ckpt_path` starts from the published weights and statistics, not from those of the config."""
    monkeypatch.chdir(tmp_path)
    import_tokenizer(
        str(save(tmp_path, "t2mgpt", random_weights())), "peer.ckpt", **{k: str(v) for k, v in pair.items()}
    )
    sizes = {"model.encoder.width": WIDTH, "model.decoder.width": WIDTH, "model.latent_dim": WIDTH}
    sizes |= {"model.quantizer.codebook_size": CODES, "model.optimization.lr": 1e-9}
    words = ["--config", "tokenizer_vq.yaml", "--ckpt_path", "peer.ckpt", *options(TRAINER, DATA, sizes)]
    for verb in ("predict", "fit"):
        lmm(monkeypatch, verb, *words)
    assert len(list(Path("runs/tokenizer_vq/tokens").glob("*"))) > 0
    before, after = (load_module(f, MotionTokenizer) for f in ("peer.ckpt", "runs/tokenizer_vq/checkpoints/last.ckpt"))
    assert torch.equal(before.representation.mean, after.representation.mean)
    assert torch.allclose(before.encoder.enter.weight, after.encoder.enter.weight, atol=1e-6)
    used = after.quantizer.codebook.counts > 8 * 0.99**4 + 1e-4
    assert 0 < used.sum() < CODES  # some codes were chosen; the others, and only they, are where they were
    moved = (before.quantizer.codebook.codes - after.quantizer.codebook.codes).abs().amax(-1) > 1e-5
    assert torch.equal(moved, used)


@pytest.mark.parametrize("kind", ["t2mgpt", "momask"])
def test_a_fine_tuning_step_does_not_wreck_the_codebook(kind, tmp_path, pair):
    """EMA by hand from counts of 8; no code is drawn anew, though most are not chosen in this batch."""
    tokenizer = read_peer(save(tmp_path, kind, random_weights(levels=PEERS[kind][2])), **pair).train()
    tokenizer.log = tokenizer.log_dict = lambda *_, **__: None
    tokenizer.quantizer.dropout = 0.0
    codebook = tokenizer.quantizer.levels[0] if kind == "momask" else tokenizer.quantizer.codebook
    before = codebook.codes.clone()
    mask = torch.ones(1, 16, dtype=torch.bool)
    features = tokenizer.representation.denormalize(torch.randn(1, 16, 263))
    latents = tokenizer.encoder(tokenizer.representation.normalize(features), mask).detach().flatten(0, 2)
    chosen = tokenizer.quantizer(latents[None, :, None], mask[:, ::4]).indices[0, :, 0, 0]
    expected = before.clone()
    for code in chosen.unique():
        mine = latents[chosen == code]
        expected[code] = (0.99 * 8 * before[code] + 0.01 * mine.sum(0)) / (0.99 * 8 + 0.01 * len(mine))
    loss = tokenizer.training_step(MotionBatch(features, mask, ["a"], [""]), 0)
    loss.backward()
    assert tokenizer.encoder.enter.weight.grad.abs().sum() > 0
    assert torch.allclose(codebook.codes, expected, atol=1e-6) and not torch.equal(codebook.codes, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.model.2.0.bias"), r"encoder\.model\.2\.0\.bias \(missing\)"),
        (lambda w: w.pop("quantizer.codebook"), r"quantizer\.codebook"),
        (lambda w: w.pop("encoder.model.4.weight"), r"encoder\.model\.4\.weight"),
        (lambda w: w.pop("decoder.model.3.0.model.1.conv2.weight"), r"conv2\.weight \(missing\)"),
        (lambda w: w.update({"encoder.model.2.1.model.0.norm1.weight": torch.ones(4)}), r"norm1\.weight \(unknown\)"),
        (lambda w: w.update({"decoder.model.6.bias": torch.ones(9)}), r"\(9,\) there, \(263,\) expected"),
        (lambda w: w.update({"decoder.model.6.bias": [1.0]}), r"decoder\.model\.6\.bias \(no tensor\)"),
        (lambda w: w["quantizer.codebook"].fill_(torch.nan), "NaN"),
        (lambda w: w.update({"encoder.model.0.weight": torch.ones(WIDTH, 272, 3)}), "reads 272 features"),
        (lambda w: w.update({"encoder.model.2.0.weight": torch.ones(WIDTH, WIDTH, 8)}), r"\(16, 16, 8\) there"),
    ],
)
def test_other_weights_are_refused(change, message, tmp_path, pair):
    weights = random_weights()
    change(weights)
    with pytest.raises(ValueError, match=message) as refused:
        read_peer(save(tmp_path, "t2mgpt", weights), **pair)
    assert str(tmp_path) in str(refused.value)


def test_motiongpt_brings_its_language_model_and_nothing_unknown(tmp_path, pair):
    more = {
        "lm.language_model.shared.weight": torch.ones(2),
        "metrics.TM2TMetrics.t2m_textencoder.hidden": torch.ones(2),
    }
    file = save(tmp_path, "motiongpt", random_weights(), **more)
    assert isinstance(read_peer(file, **pair), VQTokenizer)
    with pytest.raises(ValueError, match=r"denoiser\.weight \(unknown\)"):
        read_peer(save(tmp_path, "motiongpt", random_weights(), **{"denoiser.weight": torch.ones(2)}), **pair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trans": {"a": torch.ones(1)}}, "holds trans, and no tokenizer"),
        ({"net": {"vqvae.x": torch.ones(1)}}, "holds net, and no tokenizer"),
        (torch.ones(3), "holds a Tensor"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path, pair):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        read_peer(tmp_path / "x.pth", **pair)


def test_broken_files_and_outputs_are_refused(tmp_path, pair):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="cannot be read"):
        read_peer(tmp_path / "x.pth", **pair)
    with pytest.raises(ValueError, match="no such file"):
        read_peer(tmp_path / "none.pth", **pair)
    for output, message in (("x.html", r"ending must be \.ckpt"), ("x.ckpt", "would overwrite")):
        with pytest.raises(ValueError, match=message):
            import_tokenizer(str(tmp_path / "x.ckpt"), str(tmp_path / output), **{k: str(v) for k, v in pair.items()})


def foreign_classes(monkeypatch) -> types.ModuleType:
    """A stand-in for omegaconf: present while the file is written, absent when it is read."""
    module = types.ModuleType("foreign_config")
    exec(
        "import collections\n"
        "class DictConfig:\n"
        "    def __init__(self, **content):\n"
        "        self.content, self.cache = content, collections.defaultdict(dict, {'now': {1: 2}})\n"
        "class Runs:\n"
        "    def __init__(self, call, *arguments): self.call = (call, arguments)\n"
        "    def __reduce__(self): return self.call\n",
        module.__dict__,
    )
    for cls in (module.DictConfig, module.Runs):
        cls.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_pickled_configs_are_read_without_running_them(tmp_path, pair, monkeypatch):
    """MotionGPT's Lightning checkpoints hold omegaconf objects, which ``weights_only`` refuses by itself."""
    foreign, before = foreign_classes(monkeypatch), torch.serialization.get_safe_globals()
    config = foreign.DictConfig(TRAIN=foreign.DictConfig(STAGE="vae"), path=Path("a"), number=np.float64(2), kind=dict)
    trap = tmp_path / "trap"
    rest = {"hyper_parameters": {"cfg": config, "trap": foreign.Runs(exec, f"open({str(trap)!r}, 'w')")}}
    monkeypatch.setitem(PEERS, "lightning", ("state_dict", "vae.", 0, rest))
    weights = random_weights()
    file = save(tmp_path, "lightning", weights)
    monkeypatch.delitem(sys.modules, "foreign_config")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(file, weights_only=True)
    tokenizer = read_peer(file, **pair)
    assert torch.equal(tokenizer.decoder.leave.weight, weights["decoder.model.6.weight"])
    assert not trap.exists() and "foreign_config" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_pickles_that_want_the_system_are_refused(tmp_path, pair, monkeypatch):
    foreign, trap = foreign_classes(monkeypatch), tmp_path / "trap"
    rest = {"hyper_parameters": foreign.Runs(os.system, f"touch {trap}")}
    monkeypatch.setitem(PEERS, "trap", ("state_dict", "vae.", 0, rest))
    with pytest.raises(ValueError, match="save its weights alone"):
        read_peer(save(tmp_path, "trap", random_weights()), **pair)
    assert not trap.exists()


def test_statistics_of_something_else(tmp_path, pair):
    file, kit = save(tmp_path, "t2mgpt", random_weights()), statistics(tmp_path, 251)
    with pytest.raises(ValueError, match=r"mean251.*must have shape \(263,\)"):
        read_peer(file, **kit)
    np.save(pair["std"], np.zeros(263))
    with pytest.raises(ValueError, match="not positive"):
        read_peer(file, **pair)
    with pytest.raises(ValueError, match="no readable"):
        read_peer(file, mean=pair["mean"], std=tmp_path / "none.npy")


def test_known_pairs_are_told_by_their_bytes(tmp_path, shared_data, capsys):
    file, folder = save(tmp_path, "t2mgpt", random_weights()), shared_data / "norm_stats"
    own, evaluator = (
        [str(folder / f"{pair}_{name}.npy") for name in ("mean", "std")] for pair in ("motiongpt3", "mdm_t2m")
    )
    import_tokenizer(str(file), str(tmp_path / "x.ckpt"), mean=evaluator[0], std=evaluator[1])
    assert "statistics: the evaluator's pair (t2m)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="HumanML3D's own pair, but T2M-GPT"):
        read_peer(file, mean=own[0], std=own[1])
    with pytest.raises(ValueError, match="exchanged"):
        read_peer(file, mean=evaluator[1], std=evaluator[0])
    with pytest.raises(ValueError, match="two files of one pair"):
        read_peer(file, mean=own[0], std=evaluator[1])
