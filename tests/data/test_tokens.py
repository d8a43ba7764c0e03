"""Tokens on disk: written by a predict run, read in batches, refused where they do not fit."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lmm.batch import TokenBatch, TokenSpec
from lmm.data.motions import MotionDataModule
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.tokens import TokenDataModule, TokenStore, write_token_store
from lmm.writers import MotionWriter, TokenWriter
from tests.data.test_humanml3d import Flat, make_small, small  # noqa: F401 - small is a fixture

SPEC = TokenSpec(32, num_levels=1, num_parts=2, downsample=4, fps=20.0, bit_order="none", fingerprint="f")


class Tokenizer(LightningModule):
    """Tokens that tell the clip's frame numbers."""

    token_spec = SPEC

    def predict_step(self, batch, batch_idx):
        steps = batch.features[:, : batch.features.shape[1] // 4 * 4 : 4, :2].abs().long() % 32
        mask = batch.mask[:, 3::4]
        return TokenBatch(steps.masked_fill(~mask[..., None], -1), mask, batch.ids, batch.texts)


def predict(tmp_path, callback, model=None, data=None, **arguments):
    data = data or MotionDataModule(HumanML3D(str(tmp_path / "small")), Flat(), batch_size=4, cache=str(tmp_path / "c"))
    trainer = Trainer(
        **({"devices": 1} | arguments),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
    )
    trainer.predict(model or Tokenizer(), data, return_predictions=False)
    return data


def tokens_of(tmp_path, **arguments):
    arguments = {"batch_size": 4, "cache": str(tmp_path / "c")} | arguments
    return TokenDataModule(HumanML3D(str(tmp_path / "small")), Flat(), str(tmp_path / "tokens"), **arguments)


@pytest.fixture
def written(small, tmp_path):  # noqa: F811
    predict(tmp_path, TokenWriter(str(tmp_path / "tokens")))
    return tmp_path / "tokens"


def check_store(folder):
    store = TokenStore(folder)
    assert len(store) == 18 and store.spec == SPEC and not list(folder.parent.glob("tokens.*"))
    row = store.ids.index("c3")
    assert store.tokens(row).shape == (49, 2) and store.tokens(row).dtype == torch.int64
    assert store.tokens(row)[:, 0].tolist() == [4 * i % 32 for i in range(49)]
    assert isinstance(store._tokens, np.memmap) and store._tokens.dtype == np.int32


def test_predict_writes_a_token_store(written):
    check_store(written)


def test_two_ranks_write_one_store(tmp_path):
    make_small(tmp_path / "small")
    predict(tmp_path, TokenWriter(str(tmp_path / "tokens")), devices=2, strategy="ddp_fork")
    check_store(tmp_path / "tokens")


def test_batches(written, tmp_path):
    data = tokens_of(tmp_path)
    assert data.tokens_ready() and data.token_spec == SPEC
    data.setup("fit")
    loader = data.train_dataloader()
    texts = set()
    for _ in range(3):
        batches = list(loader)
        assert sorted(i for b in batches for i in b.ids) == [f"a{i:02d}" for i in range(11)]
        for batch in batches:
            assert (batch.tokens[~batch.mask] == -1).all() and (batch.tokens[batch.mask] >= 0).all()
            assert batch.mask.sum(dim=1).max() == batch.tokens.shape[1]
        texts |= {t for b in batches for t in b.texts if t.endswith("a05")}
    assert texts == {"first of a05", "second of a05"}
    (batch,) = data.val_dataloader()
    assert batch.ids == ["b2", "b1", "b0"] and batch.texts[0] == "first of b2"
    assert next(iter(data.test_dataloader())).features.shape == (4, 198, 66)


def test_tokens_that_do_not_fit_are_refused(written, tmp_path):
    data = tokens_of(tmp_path)
    (tmp_path / "small" / "texts" / "a03.txt").write_text("another#x#0#0\n")
    other = tokens_of(tmp_path)
    assert not other.tokens_ready()
    with pytest.raises(ValueError, match=r"made from other motions.*lmm predict"):
        other.setup("fit")
    write_token_store(written, SPEC, [("a01", torch.zeros(5, 2, dtype=torch.int64))], motions=data.store.key)
    with pytest.raises(ValueError, match="holds 1 of 18 items; write the tokens"):
        tokens_of(tmp_path).setup("fit")


def test_clips_without_captions_come_where_they_are_wanted(small, tmp_path):  # noqa: F811
    for name in ("a03", "b1", "c3"):
        (small / "texts" / f"{name}.txt").unlink()
    source = HumanML3D(str(small), require_captions=False)
    predict(tmp_path, TokenWriter(str(tmp_path / "tokens")), data=MotionDataModule(source, Flat(), cache=str(tmp_path)))
    arguments = dict(batch_size=4, cache=str(tmp_path))
    with pytest.raises(ValueError, match=r"3 clips of small have no caption.*--data\.require_captions false"):
        TokenDataModule(source, Flat(), str(tmp_path / "tokens"), **arguments).setup("fit")
    data = TokenDataModule(source, Flat(), str(tmp_path / "tokens"), **arguments, require_captions=False)
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        texts = {name: text for batch in loader for name, text in zip(batch.ids, batch.texts, strict=True)}
        assert all(bool(text) != (name in ("a03", "b1", "c3")) for name, text in texts.items())
        assert "" in texts.values()


@pytest.mark.parametrize("file", ["meta.json", "spec.json", "ids.json", "index.npy", "tokens.npy"])
def test_damaged_or_missing_tokens_are_refused(written, tmp_path, file):
    (written / file).write_bytes((written / file).read_bytes()[:40])
    if file == "meta.json":
        (written / file).write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match=r"damaged or outdated .*lmm predict"):
        TokenStore(written)
    assert not tokens_of(tmp_path).tokens_ready()
    missing = TokenDataModule(HumanML3D(str(tmp_path / "small")), Flat(), str(tmp_path / "none"))
    for use in (lambda: missing.token_spec, lambda: TokenStore(tmp_path / "none")):
        with pytest.raises(ValueError, match=r"there are no tokens in .*lmm predict.*tokenizer_lfq2d\.yaml"):
            use()


def test_writing_checks_what_it_is_given(tmp_path):
    good = torch.zeros(5, 2, dtype=torch.int64)
    for items, message in (
        ([("a", good[:, :1])], r"tokens of a have shape \(5, 1\), expected \(t, 2\)"),
        ([("a", good[:0])], "shape"),
        ([("a", good + 32)], r"outside \[0, 32\)"),
        ([("a", good - 1)], r"outside \[0, 32\)"),
        ([("a", good), ("a", good)], "each once"),
        ([], "must be items"),
    ):
        with pytest.raises(ValueError, match=message):
            write_token_store(tmp_path / "t", SPEC, items, motions="k")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds something else"):
        write_token_store(tmp_path / "mine", SPEC, [("a", good)], motions="k")
    assert (tmp_path / "mine" / "thesis.tex").exists() and not (tmp_path / "t").exists()


def test_motion_writer(small, tmp_path):  # noqa: F811
    files = pytest.importorskip("lmm.motion.files")

    class Generator(LightningModule):
        def predict_step(self, batch, batch_idx):
            motions = [Flat().decode(f[m]) for f, m in zip(batch.features, batch.mask, strict=True)]
            return list(zip(batch.ids, batch.texts, motions, strict=True))

    predict(tmp_path, MotionWriter(str(tmp_path / "out")), Generator())
    assert len(list((tmp_path / "out").glob("*.npz"))) == 18
    motion = files.load_motion(tmp_path / "out" / "c3.npz")
    assert motion.joints.shape == (198, 22, 3)
