"""The loader: every clip once an epoch, and a resumed run that sees exactly what the uninterrupted one saw."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

from lmm.data.loader import draw, resumable_loader, same_length_batches, weighted_keys
from lmm.data.motions import MotionDataModule
from lmm.data.sources.humanml3d import HumanML3D
from tests.data.test_humanml3d import Flat, make_small, small  # noqa: F401 - small is a fixture


class Keys(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitems__(self, keys):
        return keys


@pytest.mark.parametrize(("count", "world"), [(23, 1), (24, 2), (23, 2)])
def test_ranks_share_an_epoch(count, world):
    loaders = [
        resumable_loader(Keys(count), batch_size=5, seed=0, num_workers=0, num_replicas=world, rank=rank)
        for rank in range(world)
    ]
    orders = []
    for epoch in range(3):
        keys = [key for loader in loaders for batch in loader for key in batch]
        assert {key[0] for key in keys} == {epoch}
        times = Counter(key[1] for key in keys)
        assert set(times) == set(range(count)) and sum(times.values()) == -(-count // world) * world
        orders.append([key[1] for key in keys])
    assert orders[0] != orders[1] != orders[2]


def test_batches_of_similar_length_still_show_everything_once_and_resume():
    lengths = np.random.default_rng(0).integers(10, 50, 403)

    def loader():
        return resumable_loader(Keys(403), batch_size=4, seed=3, num_workers=0, lengths=lengths)

    def spread(batches):
        return float(np.mean([np.ptp(lengths[[i for _, i in batch]]) for batch in batches]))

    first = loader()
    epochs = [list(first) for _ in range(2)]
    for epoch in epochs:
        assert sorted(i for batch in epoch for _, i in batch) == list(range(403))
    assert spread(epochs[0]) < 0.2 * spread(resumable_loader(Keys(403), batch_size=4, seed=3, num_workers=0))
    means = [lengths[[i for _, i in batch]].mean() for batch in epochs[0]]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4  # short and long batches alternate
    assert epochs[0] != epochs[1]
    again = loader()
    again.load_state_dict({"epoch": 1, "clips": 40})
    assert list(again) == epochs[1][10:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_position_counts_batches_handed_out(num_workers):
    def loader():
        return resumable_loader(Keys(23), batch_size=5, seed=1, num_workers=num_workers)

    whole, straight = loader(), []
    for _ in range(3):
        straight += list(whole)
    for done in (0, 1, 4, 5, 7) if num_workers == 0 else (4, 7):
        first, batches = loader(), []
        while len(batches) < done:
            for batch in first:
                batches.append(batch)
                if len(batches) == done:
                    break
        second = loader()
        second.load_state_dict(first.state_dict())
        batches += list(second) + list(second) + list(second)
        assert batches[:15] == straight, f"after {done}"


def test_what_a_pass_leaves_comes_first_in_the_next_and_batch_size_may_change():
    loader = resumable_loader(Keys(20), batch_size=5, seed=1, num_workers=0)
    epochs = list(loader) + list(loader)
    again = resumable_loader(Keys(20), batch_size=5, seed=1, num_workers=0)
    assert [next(iter(again)), *again] == epochs[:5]
    state = again.state_dict()
    assert state == {"epoch": 1, "clips": 5}
    other = resumable_loader(Keys(20), batch_size=1, seed=1, num_workers=0)
    other.load_state_dict(state)
    assert [batch[0] for batch in other] == [key for batch in epochs[5:] for key in batch]


WEIGHTS = np.repeat([1.0, 2.0, 0.5, 0.1, 2.75, 0.0], [100, 40, 61, 80, 20, 10])  # sum to 273.5


@pytest.mark.parametrize(("world", "bucketed"), [(1, False), (1, True), (2, True)])
def test_weight_1_everywhere_changes_nothing(world, bucketed):
    lengths = np.random.default_rng(0).integers(10, 50, 403)
    for rank in range(world):
        arguments = dict(batch_size=4, seed=3, num_workers=0, num_replicas=world, rank=rank)
        arguments["lengths"] = lengths if bucketed else None
        plain = resumable_loader(Keys(403), **arguments)
        weighted = resumable_loader(Keys(403), weights=np.ones(403), **arguments)
        for epoch in range(3):
            batches = list(plain)
            assert batches == list(weighted)
            if not bucketed and world == 1:  # the order that every run so far has had
                order = torch.randperm(403, generator=torch.Generator().manual_seed(3 + epoch)).tolist()
                assert [key for batch in batches for key in batch] == [(epoch, index) for index in order]


def test_an_epoch_shows_items_as_often_as_they_weigh():
    epochs = [weighted_keys(WEIGHTS, seed=5, epoch=epoch) for epoch in range(60)]
    assert {len(keys) for keys in epochs} == {274}
    times = np.stack([np.bincount(keys[:, 1], minlength=len(WEIGHTS)) for keys in epochs])
    assert (times >= np.floor(WEIGHTS)).all() and (times <= np.ceil(WEIGHTS)).all()
    assert (times[:, WEIGHTS == 2] == 2).all() and (times[:, WEIGHTS == 0] == 0).all()
    assert abs(times.mean(axis=0) - WEIGHTS).max() < 0.05
    for weight, longest in ((0.5, 2), (0.1, 17)):  # epochs between two showings: independent draws would leave dozens
        gaps = [np.diff(np.flatnonzero(column)).max() for column in times[:, weight == WEIGHTS].T]
        assert max(gaps) <= longest + 1
    for item in (0, 120, 150, 290):  # of weights 1, 2, 0.5 and 2.75: another window, another caption every time
        showings = np.concatenate([keys[keys[:, 1] == item, 0] for keys in epochs])
        assert len(set(showings.tolist())) == len(showings)
    assert (weighted_keys(WEIGHTS, seed=5, epoch=7) == epochs[7]).all()
    assert not np.array_equal(times[3], np.bincount(weighted_keys(WEIGHTS, seed=6, epoch=3)[:, 1], minlength=311))


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("world", [1, 2])
def test_ranks_share_a_weighted_epoch_and_resume(world, bucketed):
    lengths = np.random.default_rng(0).integers(10, 50, len(WEIGHTS)) if bucketed else None

    def loader(rank):
        return resumable_loader(
            Keys(len(WEIGHTS)), batch_size=6, seed=2, num_workers=0, num_replicas=world, rank=rank, weights=WEIGHTS,
            lengths=lengths,
        )  # fmt: skip

    loaders = [loader(rank) for rank in range(world)]
    epochs = [[list(each) for each in loaders] for _ in range(3)]
    for epoch, ranks in enumerate(epochs):
        keys = [key for batches in ranks for batch in batches for key in batch]
        assert sorted(keys) == sorted(map(tuple, weighted_keys(WEIGHTS, seed=2, epoch=epoch).tolist()))
        assert len(set(keys)) == 274
    assert [keys for batches in epochs[0][0] for keys in batches] != sorted(k for b in epochs[0][0] for k in b)
    for rank in range(world):
        again = loader(rank)
        again.load_state_dict({"epoch": 1, "clips": 10 * 6 * world})
        assert list(again) == epochs[1][rank][10:] and list(again) == epochs[2][rank]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -0.5], "not negative"),
        ([1.0, np.nan], "finite"),
        ([np.inf, 1.0], "finite"),
        ([0.0, 0.0], "weigh 0 tog"),
        ([1.0, 0.2], r"weigh 1\.2 together.*never be shown"),
        ([0.2, 0.0], r"weigh 0\.2 together"),
    ],
)
def test_weights_that_make_no_epoch_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        resumable_loader(Keys(2), batch_size=1, seed=0, num_workers=0, weights=np.array(weights))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_batches_of_one_length(size):
    lengths = np.random.default_rng(0).integers(10, 20, 403)
    batches = same_length_batches(lengths, size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(403))
    assert all(len(set(lengths[batch])) == 1 and len(batch) <= size for batch in batches)
    assert len(batches) == sum(-(-count // size) for count in Counter(lengths.tolist()).values())
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


def test_draws_are_uniform_and_depend_on_all_four():
    n = np.arange(20_000)
    values = draw(3, np.zeros_like(n), n, 0, np.full(20_000, 10))
    assert abs(np.bincount(values) / 2000 - 1).max() < 0.1
    for other in (
        draw(4, 0 * n, n, 0, 0 * n + 10),
        draw(3, 0 * n + 1, n, 0, 0 * n + 10),
        draw(3, 0 * n, n, 1, 0 * n + 10),
    ):
        assert abs((other == values).mean() - 0.1) < 0.01
    assert (draw(3, 0 * n, n, 0, 1 + n % 7) < 1 + n % 7).all()


class Recorder(LightningModule):
    """Writes down a digest of every batch it is trained on."""

    def __init__(self, file):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.file = file

    def training_step(self, batch, batch_idx):
        digest = hashlib.sha256(batch.features.numpy().tobytes()).hexdigest()[:16]
        with open(f"{self.file}.{self.global_rank}", "a") as file:
            file.write(f"{digest} {batch.ids} {batch.texts}\n")
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


def train(tmp_path, name, *, steps, callbacks=(), ckpt_path=None, num_workers=0, folder=None, **arguments):
    """Train, and return the batches seen by each rank."""
    data = MotionDataModule(
        HumanML3D(str(folder or tmp_path / "small")),
        Flat(),
        batch_size=2,
        num_workers=num_workers,
        cache=str(tmp_path / "cache"),
    )
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **({"devices": 1} | arguments),
    )
    try:
        trainer.fit(Recorder(tmp_path / name), data, ckpt_path=ckpt_path)
    finally:
        seen = [file.read_text().splitlines() for file in sorted(tmp_path.glob(f"{name}.[0-9]"))]
    return trainer, seen


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_run_resumes_exactly(small, tmp_path, num_workers):  # noqa: F811
    keep = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    ends = ModelCheckpoint(tmp_path / "ends", save_on_train_epoch_end=True, save_top_k=-1, filename="{step}")
    _, (straight,) = train(tmp_path, "straight", steps=13, callbacks=[keep, ends], num_workers=num_workers)
    assert len(straight) == 13  # 10 clips, 5 batches an epoch
    assert len(set(straight)) == 13
    # In the middle of an epoch, at the boundary (before and after its end was noticed), in the second epoch.
    for file in ("ckpt/step=2", "ckpt/step=5", "ends/step=5", "ckpt/step=8") if num_workers == 0 else ("ckpt/step=7",):
        name = file.replace("/", "-")
        _, (rest,) = train(tmp_path, name, steps=13, ckpt_path=tmp_path / f"{file}.ckpt", num_workers=num_workers)
        assert rest == straight[int(file[-1]) :], file


def test_a_crash_and_a_max_steps_stop_resume_exactly(small, tmp_path):  # noqa: F811
    _, (straight,) = train(tmp_path, "straight", steps=13)
    keep = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    with pytest.raises(Killed):
        train(tmp_path, "crash", steps=13, callbacks=[keep, Kill(7)])
    _, (rest,) = train(tmp_path, "again", steps=13, ckpt_path=tmp_path / "ckpt" / "step=6.ckpt")
    assert rest == straight[6:]
    for stop in (4, 5, 6, 10):
        trainer, _ = train(tmp_path, f"stop{stop}", steps=stop)
        trainer.save_checkpoint(tmp_path / "stop.ckpt")
        _, (rest,) = train(tmp_path, f"on{stop}", steps=13, ckpt_path=tmp_path / "stop.ckpt")
        assert rest == straight[stop:]


def test_two_ranks_resume_exactly(tmp_path):
    make_small(tmp_path / "small")
    ddp = {"devices": 2, "strategy": "ddp_fork"}
    keep = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    _, straight = train(tmp_path, "straight", steps=7, callbacks=[keep], **ddp)
    for epoch in (0, 3):  # batches of 2 + 2 + 1 clips on each of two ranks
        ids = [name for rank in straight for line in rank[epoch : epoch + 3] for name in re.findall(r"'(a\d\d)'", line)]
        assert sorted(ids) == [f"a{i:02d}" for i in range(1, 11)]
    _, rest = train(tmp_path, "rest", steps=7, ckpt_path=tmp_path / "ckpt" / "step=4.ckpt", **ddp)
    assert rest == [seen[4:] for seen in straight]


def test_overfit_batches_repeats_the_same_windows(small, tmp_path):  # noqa: F811
    _, (seen,) = train(tmp_path, "overfit", steps=6, overfit_batches=2)
    assert seen[:2] == seen[2:4] == seen[4:6] and seen[0] != seen[1]


def test_limited_epochs_see_all_data(small, tmp_path):  # noqa: F811
    _, (seen,) = train(tmp_path, "limited", steps=6, limit_train_batches=2)
    assert seen == train(tmp_path, "whole", steps=6)[1][0]
