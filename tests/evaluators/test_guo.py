"""The published evaluator against a recomputation in plain numpy, on random weights of the published shapes."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.evaluators import GuoEvaluator
from lmm.motion import published
from lmm.motion.representations import HumanML3DFeatures, KITFeatures

from .published import WORDS, pass_for_published, shapes, write

CAPTIONS = ["nineteen", "a person walks forward.", "many", "a zebra raises a hand", "twenty",
            "the person slowly turns to the left"]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    return write(tmp_path_factory.mktemp("guo"))


def build(files: dict[str, str], **more) -> GuoEvaluator:
    return GuoEvaluator(**files, **({"unpublished_statistics": True} | more))


@pytest.fixture(scope="module")
def evaluator(files) -> GuoEvaluator:
    return build(files)


@pytest.fixture(scope="module")
def parts(files) -> dict[str, dict[str, np.ndarray]]:
    return networks(files)


def networks(files: dict[str, str]) -> dict[str, dict[str, np.ndarray]]:
    held = torch.load(files["checkpoint"], weights_only=True)
    return {part: {name: x.double().numpy() for name, x in held[part].items()} for part in shapes()}


def batch(lengths: list[int], dim: int = 263) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(sum(lengths))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = torch.randn(*mask.shape, dim, generator=g)
    return torch.where(mask[..., None], features, torch.nan), mask  # nothing of the padding may be read


def leaky(x):
    return np.maximum(x, 0) + 0.2 * np.minimum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def convolve(w, name, x):
    """Kernel 4, stride 2, padding 1, one output frame at a time."""
    padded = np.concatenate([np.zeros_like(x[:1]), x, np.zeros_like(x[:1])])
    outputs = [np.einsum("kc,ock->o", padded[i : i + 4], w[f"{name}.weight"]) for i in range(0, len(padded) - 3, 2)]
    return np.array(outputs) + w[f"{name}.bias"]


def gru(w, x, suffix, h):
    """Last state of one direction, gates written out."""
    for row in x:
        a = w[f"gru.weight_ih_l0{suffix}"] @ row + w[f"gru.bias_ih_l0{suffix}"]
        b = w[f"gru.weight_hh_l0{suffix}"] @ h + w[f"gru.bias_hh_l0{suffix}"]
        (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
        r, z = sigmoid(ar + br), sigmoid(az + bz)
        n = np.tanh(an + r * bn)
        h = (1 - z) * n + z * h
    return h


def read(w, x):
    """Steps (S, C) -> point (512,)."""
    x = linear(w, "input_emb", x)
    last = [gru(w, x, "", w["hidden"][0, 0]), gru(w, x[::-1], "_reverse", w["hidden"][1, 0])]
    h = linear(w, "output_net.0", np.concatenate(last))
    h = (h - h.mean()) / np.sqrt(h.var() + 1e-5) * w["output_net.1.weight"] + w["output_net.1.bias"]
    return linear(w, "output_net.3", leaky(h))


def motion_point(parts, files, clip, padded_to=196, steps=None):
    """One clip (T, D) of raw features, T a multiple of 4."""
    mean, std = np.load(files["mean"]), np.load(files["std"])
    x = np.zeros((padded_to, len(mean)))
    x[: len(clip)] = (clip.double().numpy() - mean) / std
    w = parts["movement_encoder"]
    x = leaky(convolve(w, "main.3", leaky(convolve(w, "main.0", x[:, :-4]))))
    movements = linear(w, "out_net", x)
    return read(parts["motion_encoder"], movements[: len(clip) // 4 if steps is None else steps])


def test_motions_in_a_batch_and_alone(evaluator, parts, files):
    lengths = [60, 196, 40, 43, 4, 192]  # 43: its last 3 frames are not read
    features, mask = batch(lengths)
    together = evaluator.embed_motions(features, mask)
    assert together.shape == (6, 512) and together.dtype == torch.float32 and not together.requires_grad
    for row, length in enumerate(lengths):
        whole = length // 4 * 4
        expected = motion_point(parts, files, features[row, :whole])
        np.testing.assert_allclose(together[row].numpy(), expected, atol=1e-5)
        alone = evaluator.embed_motions(features[row : row + 1, :length], mask[row : row + 1, :length])[0]
        np.testing.assert_allclose(alone.numpy(), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.3


def test_another_reading_of_the_padding_or_the_lengths_would_show(evaluator, parts, files):
    features, mask = batch([60])
    found = evaluator.embed_motions(features, mask)[0].numpy()
    for wrong in (dict(steps=60 // 4 // 4), dict(padded_to=60), dict(steps=49)):  # /4 twice; no zeros; no packing
        assert np.abs(motion_point(parts, files, features[0], **wrong) - found).max() > 1e-3, wrong


def test_motiongpt_reads_the_padding_of_the_batch(files, parts):
    compat = build(files, motiongpt_compat=True)
    features, mask = batch([60, 100, 42])
    wider = torch.nn.functional.pad(features, (0, 0, 0, 30), value=7.0), torch.nn.functional.pad(mask, (0, 30))
    for given in ((features, mask), wider):  # the longest motion counts, not how the batch is stored
        found = compat.embed_motions(*given).numpy()
        for row, length in enumerate([60, 100, 40]):
            expected = motion_point(parts, files, features[row, :length], padded_to=100, steps=25)
            np.testing.assert_allclose(found[row], expected, atol=1e-5)
    alone = compat.embed_motions(features[:1, :60], mask[:1, :60])[0].numpy()
    np.testing.assert_allclose(alone, motion_point(parts, files, features[0, :60], padded_to=60), atol=1e-5)
    assert np.abs(alone - found[0]).max() > 1e-3


def test_motions_of_other_lengths_are_refused(evaluator):
    for length in (3, 197, 199):
        features, mask = batch([60, length])
        with pytest.raises(ValueError, match=f"4 to 196 frames, got one of {length}"):
            evaluator.embed_motions(features, mask)


def text_point(parts, files, tokens: list[str]):
    folder = Path(files["glove"])
    vectors = np.load(folder / "our_vab_data.npy")
    rows = pickle.loads((folder / "our_vab_idx.pkl").read_bytes())
    order = "VERB NOUN DET ADP NUM AUX PRON ADJ ADV Loc Body Obj Act Desc OTHER".split()
    special = {"walk": "Act", "forward": "Loc", "turn": "Act", "left": "Loc", "slowly": "Desc", "hand": "Body",
               "raise": "Act"}  # fmt: skip
    w, x = parts["text_encoder"], []
    for token in tokens:
        word, tag = token.split("/")
        known = word in rows
        kind = special.get(word, tag) if known else "OTHER"
        one_hot = np.eye(15)[order.index(kind) if kind in order else 14]
        x.append(vectors[rows[word if known else "unk"]] + linear(w, "pos_emb", one_hot))
    return read(w, np.array(x))


def test_captions(evaluator, parts, files):
    sentences = {
        "a person walks forward.": "a/DET person/NOUN walk/VERB forward/ADV",
        "the person slowly turns to the left": "the/DET person/NOUN slowly/ADV turn/VERB to/ADP the/DET left/NOUN",
        "a zebra raises a hand": "a/DET zebra/NOUN raise/VERB a/DET hand/NOUN",
        "nineteen": "a/DET " * 18 + "walk/VERB",
        "twenty": "a/DET " * 19 + "turn/VERB",
        "many": "person/NOUN " * 20,
    }
    together = evaluator.embed_texts(CAPTIONS).numpy()
    assert together.shape == (6, 512)
    for row, caption in enumerate(CAPTIONS):
        expected = text_point(parts, files, ["sos/OTHER", *sentences[caption].split(), "eos/OTHER"])
        np.testing.assert_allclose(together[row], expected, atol=1e-5)
        np.testing.assert_allclose(evaluator.embed_texts([f" {caption} "]).numpy()[0], expected, atol=1e-5)
    assert "zebra" not in WORDS and np.abs(expected).max() > 0.3
    with pytest.raises(ValueError, match=r"1 of 2 sentences, such as 'a person flies'.*a/DET person/NOUN walk/VERB"):
        evaluator.embed_texts(["many", "a person flies"])


def test_precision_is_float32_whatever_the_program_around_says(evaluator):
    features, mask = batch([60, 100])
    expected = evaluator.embed_motions(features, mask), evaluator.embed_texts(CAPTIONS)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(evaluator.embed_motions(features, mask), expected[0])
            assert torch.equal(evaluator.embed_texts(CAPTIONS), expected[1])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_instrument_does_not_learn(evaluator):
    assert not any(p.requires_grad for p in evaluator.parameters())
    assert not evaluator.train().training and not evaluator.movement_encoder.main[1].training
    assert (evaluator.dim, evaluator.unit, evaluator.max_frames) == (512, 4, 196)


def test_fingerprint_names_files_and_mode_but_no_place(files, evaluator, tmp_path):
    compat = build(files, motiongpt_compat=True)
    assert evaluator.fingerprint == build(files, name="x").fingerprint != compat.fingerprint
    assert published.sha256(Path(files["std"])) in evaluator.settings and files["std"] not in evaluator.settings
    glove = Path(shutil.copytree(files["glove"], tmp_path / "glove"))
    vectors = np.load(glove / "our_vab_data.npy")
    vectors[5, 5] += 1
    np.save(glove / "our_vab_data.npy", vectors)
    assert build(files | {"glove": str(glove)}).settings != evaluator.settings


def test_kit(tmp_path):
    files = write(tmp_path, "kit", dim=251)
    evaluator = build(files, representation=KITFeatures())
    parts = networks(files)
    features, mask = batch([24], dim=251)
    expected = motion_point(parts, files, features[0])
    np.testing.assert_allclose(evaluator.embed_motions(features, mask)[0].numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"mean.npy must hold 263 numbers"):
        build(files)


def test_statistics_are_known_by_their_bytes(files, shared_data, monkeypatch):
    stats = shared_data / "norm_stats"
    right = {"mean": str(stats / "mdm_t2m_mean.npy"), "std": str(stats / "mdm_t2m_std.npy")}
    evaluator = GuoEvaluator(**files | right)  # known: no flag is needed
    assert torch.equal(evaluator.mean, torch.from_numpy(np.load(right["mean"])))
    training = {
        "mean": str(shared_data / "humanml3d_lists/Mean.npy"),
        "std": str(shared_data / "humanml3d_lists/Std.npy"),
    }
    for flag in (False, True):
        with pytest.raises(ValueError, match=r"are HumanML3D's own pair; .*Comp_v6_KLD01"):
            GuoEvaluator(**files | training, unpublished_statistics=flag)
        with pytest.raises(ValueError, match=r"is from .*; give two files of one pair"):
            GuoEvaluator(**files | right | {"std": training["std"]}, unpublished_statistics=flag)
        with pytest.raises(ValueError, match="exchanged"):
            GuoEvaluator(**files | {"mean": right["std"], "std": right["mean"]}, unpublished_statistics=flag)
    with pytest.raises(ValueError, match=r"evaluator's pair \(t2m\); the evaluator of KITFeatures reads .*KIT"):
        GuoEvaluator(**files | right, representation=KITFeatures())
    half = files | {"mean": right["mean"]}
    for unknown in (files, half):
        with pytest.raises(ValueError, match=r"none of the published pairs; .*unpublished_statistics: true"):
            GuoEvaluator(**unknown)


def test_other_files_are_refused(files, tmp_path, monkeypatch):
    held = torch.load(files["checkpoint"], weights_only=True)
    path = str(tmp_path / "finest.tar")

    def refused(content, match):
        torch.save(content, path)
        with pytest.raises(ValueError, match=match):
            build(files | {"checkpoint": path})

    hidden = held["text_encoder"] | {"hidden": torch.zeros(2, 1, 256)}
    refused(held | {"text_encoder": hidden}, r"text_encoder.hidden is \(2, 1, 256\), expected \(2, 1, 512\)")
    less = {name: x for name, x in held["motion_encoder"].items() if name != "gru.bias_hh_l0_reverse"}
    refused(held | {"motion_encoder": less}, r"motion_encoder.gru.bias_hh_l0_reverse is not there")
    refused(
        held | {"motion_encoder": held["motion_encoder"] | {"extra": torch.zeros(1)}}, r"extra is \(1,\), expected not"
    )
    refused({"net": {}}, r"movement_encoder.main.0.weight is not there")
    for nothing in ([1], {"movement_encoder": [1]}, {"movement_encoder": {"main.0.weight": 1}}):
        refused(nothing, r"movement_encoder.main.0.weight is not there")
    refused({"movement_encoder": Path("x")}, "pickled in it")
    kit = held["movement_encoder"] | {"main.0.weight": torch.zeros(512, 247, 4)}
    refused(held | {"movement_encoder": kit}, r"\(512, 247, 4\), expected \(512, 259, 4\) for HumanML3DFeatures")
    for name in ("checkpoint", "mean", "std", "glove"):
        with pytest.raises(ValueError, match=r"nowhere.*: there is no such file"):
            build(files | {name: "nowhere"})
    with pytest.raises(ValueError, match=r"texts: nowhere holds no .txt"):
        build(files | {"texts": "nowhere"})
    with pytest.raises(ValueError, match="fixed: false"):
        build(files, representation=HumanML3DFeatures(fixed=True))
    zero = np.load(files["std"])
    zero[7] = 0
    np.save(tmp_path / "std.npy", zero)
    with pytest.raises(ValueError, match="263 positive numbers"):
        build(files | {"std": str(tmp_path / "std.npy")})


def test_a_random_pair_passes_for_the_published_one_in_tests(files, monkeypatch):
    pass_for_published(monkeypatch, files["mean"], files["std"], published.EVALUATOR_T2M)
    GuoEvaluator(**files)


def test_torchs_old_file_format(files, evaluator, tmp_path):
    held = torch.load(files["checkpoint"], weights_only=True)
    torch.save(held, tmp_path / "old.tar", _use_new_zipfile_serialization=False)
    assert build(files | {"checkpoint": str(tmp_path / "old.tar")}).fingerprint == evaluator.fingerprint


def test_only_the_published_evaluator_has_a_published_real_row(files, monkeypatch):
    assert build(files).published_real_row == {}
    pass_for_published(monkeypatch, files["mean"], files["std"], published.EVALUATOR_T2M)
    assert GuoEvaluator(**files).published_real_row["r_precision_1"][0] == 0.511
    assert GuoEvaluator(**files, motiongpt_compat=True).published_real_row == {}
