"""Encoding a data set: every clip once on any number of ranks, taken up again after an interruption."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lmm.batch import TokenBatch, TokenSpec
from lmm.data.motions import MotionDataModule
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.tokens import TokenStore
from lmm.writers import TokenWriter
from tests.data.test_humanml3d import Flat, make_small
from tests.tokenizers.conftest import KINDS, tiny

SPEC = TokenSpec(32, num_levels=1, num_parts=2, downsample=4, fps=20.0, bit_order="none", fingerprint="f")


class Killed(Exception):
    pass


class Tokenizer(LightningModule):
    """Tokens are the digits of a feature; notes in a file what it was given, and fails after some batches."""

    def __init__(self, notes, spec=SPEC, fail_after=1000):
        super().__init__()
        self.notes, self.token_spec, self.fail_after = notes, spec, fail_after

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fail_after:
            raise Killed
        with open(f"{self.notes}.{self.global_rank}", "a") as notes:
            notes.writelines(f"{name}\n" for name in batch.ids)
        steps = (100 * batch.features[:, ::4, 1:3]).abs().long() % 32
        mask = batch.mask[:, ::4]
        return TokenBatch(steps.masked_fill(~mask[..., None], -1), mask, batch.ids, batch.texts)


class KilledWriter(TokenWriter):
    """A process that is killed has no last words."""

    def on_exception(self, trainer, pl_module, exception):
        pass


class Place:
    """A data set, and runs over it."""

    def __init__(self, folder):
        make_small(folder / "small")
        self.folder, self.parts, self.runs = folder, folder / "tokens.parts", 0

    def data(self, batch_size=2, representation=None, **arguments):
        source = HumanML3D(str(self.folder / "small"), **arguments)
        cache = str(self.folder / "cache")
        return MotionDataModule(source, representation or Flat(), batch_size=batch_size, cache=cache)

    def encode(
        self, *, writer=TokenWriter, seconds=0.0, fail_after=1000, spec=SPEC, data=None, model=None, **arguments
    ):
        """Encode everything, and return which clips each rank was given in this run."""
        self.runs += 1
        notes = self.folder / f"run{self.runs}"
        trainer = Trainer(
            **({"devices": 1} | arguments),
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            default_root_dir=self.folder,
            callbacks=[writer(str(self.folder / "tokens"), seconds=seconds)],
        )
        model = model or Tokenizer(notes, spec, fail_after)
        try:
            trainer.predict(model, data or self.data(), return_predictions=False)
        except Killed:
            assert fail_after < 1000
        return [file.read_text().split() for file in sorted(self.folder.glob(f"{notes.name}.*"))]

    def check(self, spec=SPEC):
        """The store is whole, in the order of the motions, and nothing else is left."""
        store, motions = TokenStore(self.folder / "tokens"), self.data().store
        assert store.spec == spec and store.ids == [motions.item(i).id for i in range(len(motions))]
        for row in range(len(store)):
            digits = (100 * motions.features(row)[::4, 1:3]).abs().long() % 32
            assert torch.equal(store.tokens(row), digits)
        assert not self.parts.exists() and not list(self.folder.glob("tokens.*"))
        return store


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("writer, seconds", [(TokenWriter, 1e9), (KilledWriter, 0.0)], ids=["error", "killed"])
def test_an_interrupted_run_is_taken_up_again(place, writer, seconds):
    (first,) = place.encode(writer=writer, seconds=seconds, fail_after=3)
    assert place.parts.exists() and not (place.folder / "tokens").exists()
    (second,) = place.encode(writer=writer, seconds=seconds, fail_after=2)
    (third,) = place.encode()
    assert sorted(first + second + third) == sorted(place.check().ids)
    (again,) = place.encode()
    assert len(again) == 18, "a store that is complete is written anew when asked for"


def test_a_kill_loses_what_was_not_saved(place):
    place.encode(writer=KilledWriter, seconds=1e9, fail_after=3)
    assert not list(place.parts.glob("*.i32"))
    assert len(place.encode()[0]) == 18
    place.check()


def test_a_part_that_was_not_completed_does_not_count(place):
    (first,) = place.encode(fail_after=2)
    for part in place.parts.glob("*-*.json"):
        part.unlink()
    (second,) = place.encode()
    assert len(first) < 18 == len(second)
    place.check()


def test_a_run_that_was_killed_before_joining_joins(place, monkeypatch):
    monkeypatch.setattr("lmm.writers.write_token_store", lambda *_, **__: (_ for _ in ()).throw(Killed))
    place.encode(fail_after=999)
    monkeypatch.undo()
    assert len(list(place.parts.glob("*.i32"))) >= 9
    (again,) = place.encode()
    assert len(again) == 1  # Lightning ends no run that had no batch
    place.check()


@pytest.mark.parametrize("other", ["tokenizer", "precision", "motions"])
def test_parts_of_another_making_are_not_taken_up(place, other):
    (first,) = place.encode(fail_after=4)
    assert first
    spec = TokenSpec(**{**vars(SPEC), "fingerprint": "g"}) if other == "tokenizer" else SPEC
    precision = {"precision": "bf16-mixed"} if other == "precision" else {}
    data = place.data(min_frames=41) if other == "motions" else None
    if other == "motions":
        (place.folder / "small" / "texts" / "a03.txt").write_text("another#x#0#0\n")
    assert len(place.encode(spec=spec, data=data, **precision)[0]) == 18
    assert TokenStore(place.folder / "tokens").spec == spec and not place.parts.exists()


@pytest.mark.parametrize("batch_size", [1, 64])
def test_ranks_share_what_is_left(place, batch_size):
    ddp = {"devices": 2, "strategy": "ddp_fork"}
    (first,) = place.encode(data=place.data(1), fail_after=5)
    shares = place.encode(data=place.data(batch_size), **ddp)
    assert len(first) == 5 and sorted(first + sum(shares, [])) == sorted(place.check().ids)
    assert abs(len(shares[0]) - len(shares[1])) <= 1  # 13 clips do not divide by two ranks
    assert len(place.encode(data=place.data(batch_size), **ddp)) == 2
    place.check()


def test_clips_of_one_length_are_not_one_rank_s_alone(place):
    one_step = TokenSpec(**{**vars(SPEC), "downsample": 512})
    shares = place.encode(data=place.data(64), spec=one_step, devices=2, strategy="ddp_fork")
    assert [len(share) for share in shares] == [9, 9]
    place.check(one_step)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_each_clip_alone(place, kind):
    tokenizer = tiny(kind)
    data = place.data(3, tokenizer.representation)
    place.encode(model=tokenizer, data=data)
    store = TokenStore(place.folder / "tokens")
    for row in range(len(store)):
        features = data.store.features(row)[None]
        alone = tokenizer.encode(features, torch.ones(features.shape[:2], dtype=torch.bool))[0]
        assert torch.equal(store.tokens(row), alone)


def test_data_that_show_what_they_like_are_written_as_shown(place):
    class Tests(MotionDataModule):
        def predict_dataloader(self):
            return self.test_dataloader()

    place.encode(fail_after=4)
    data = place.data()
    some = Tests(data.source, data.representation, batch_size=3, cache=str(data.cache))
    assert sorted(place.encode(data=some)[0]) == ["c0", "c1", "c2", "c3"]
    assert {"c0", "c1", "c2", "c3"} <= set(TokenStore(place.folder / "tokens").ids) and not place.parts.exists()


def test_what_could_not_be_written_is_refused_before_the_work(place):
    (place.folder / "tokens").mkdir()
    (place.folder / "tokens" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds something else"):
        place.encode()
    assert not list(place.folder.glob("run*"))
    with pytest.raises(ValueError, match="needs a MotionDataModule"):
        Trainer(logger=False, callbacks=[TokenWriter(str(place.folder / "t"))]).predict(Tokenizer(""), [1])


def test_foreign_files_among_the_parts_stay(place):
    place.encode(fail_after=1)
    (place.parts / "meta.json").write_text(json.dumps({}))
    (place.parts / "notes.txt").write_text("mine")
    assert len(place.encode()[0]) == 18
    assert [file.name for file in place.parts.iterdir()] == ["notes.txt"]
