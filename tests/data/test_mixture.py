"""Data sets joined by weight: ids, splits, rules and statistics of the union, and how often each is shown."""

from collections import Counter

import numpy as np
import pytest
import torch

from lmm.data.motions import MotionDataModule
from lmm.data.packing import store_key
from lmm.data.sources import HumanML3D, Member, Mixture, Procedural
from lmm.data.store import MotionStore
from lmm.data.tokens import TokenDataModule
from lmm.writers import TokenWriter
from tests.data.test_humanml3d import Flat, make_folder, small  # noqa: F401 - small is a fixture
from tests.data.test_tokens import predict


@pytest.fixture
def other(tmp_path):
    frames = {"a03": 90, "x1": 45, "x2": 150, "y": 100}
    return make_folder(tmp_path / "other", frames, {"train": ["a03", "x1", "x2"], "unseen": ["y"]})


def mixture(small, other, weight=2.5, **arguments):  # noqa: F811
    second = HumanML3D(str(other), **arguments)
    return Mixture({"one": Member(HumanML3D(str(small))), "another": Member(second, weight)})


def test_the_union(small, other, tmp_path):  # noqa: F811
    source = mixture(small, other, min_frames=60, max_frames=120)
    splits = source.splits()
    assert splits["train"] == ["another/a03", "another/x1", "another/x2", *(f"one/a{i:02d}" for i in range(11))]
    assert splits["unseen"] == ["another/y"] and splits["val"] == ["one/b0", "one/b1", "one/b2"]
    store = MotionStore.open(source, Flat(), tmp_path / "cache")
    ids = [store.item(i).id for i in range(len(store))]
    assert len(ids) == 20 and not {"another/x1", "another/x2"} & set(ids) and "one/c3" in ids  # rules of their own
    assert store.meta["dropped"] == {"clips too short (under 60 rows)": 1, "clips too long (120 rows or more)": 1}
    assert store.item(ids.index("another/a03")).captions == ["first of a03", "second of a03"]
    alone = MotionStore.open(HumanML3D(str(other)), Flat(), tmp_path / "cache")
    assert torch.equal(store.features(ids.index("another/a03")), alone.features(0))
    rows = torch.cat([store.features(i) for i in store.indices("train").tolist()]).double().numpy()
    np.testing.assert_allclose(store.statistics()[0], rows.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_what_packs_again_and_what_does_not(small, other):  # noqa: F811
    key = store_key(mixture(small, other), Flat())
    assert key == store_key(mixture(small, other, weight=0.1), Flat())
    members = mixture(small, other).members
    assert key == store_key(Mixture(dict(reversed(members.items()))), Flat())
    assert key != store_key(Mixture({"one": members["one"]}), Flat())
    assert key != store_key(Mixture({"one": members["one"], "second": members["another"]}), Flat())
    assert key != store_key(mixture(small, other, min_frames=41), Flat())
    (other / "texts" / "y.txt").write_text("another caption\n")
    assert key != store_key(mixture(small, other), Flat())


def test_windows_come_as_often_as_they_weigh(small, other, tmp_path):  # noqa: F811
    data = MotionDataModule(mixture(small, other), Flat(), window=40, batch_size=4, cache=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup("fit")
    loader, windows, total = data.train_dataloader(), {}, Counter()
    for _ in range(4):
        batches = list(loader)
        times = Counter(name for batch in batches for name in batch.ids)
        assert times.total() == round(11 + 3 * 2.5) and {times[f"one/a{i:02d}"] for i in range(11)} == {1}
        assert {times[f"another/{name}"] for name in ("a03", "x1", "x2")} <= {2, 3}
        total += times
        for batch in batches:
            for name, clip, text in zip(batch.ids, batch.features, batch.texts, strict=True):
                windows.setdefault(name, []).append((int(clip[0, 0]), text))
    assert abs(sum(n for name, n in total.items() if name.startswith("another/")) - 4 * 7.5) <= 2
    assert len(set(windows["another/x2"])) > 8  # of 10 showings, from 110 windows with two captions


def test_tokens_come_as_often_as_they_weigh(small, other, tmp_path):  # noqa: F811
    source, folder = mixture(small, other), str(tmp_path / "tokens")
    predict(tmp_path, TokenWriter(folder), data=MotionDataModule(source, Flat(), cache=str(tmp_path / "c")))
    arguments = dict(batch_size=4, cache=str(tmp_path / "c"))
    for weight, times in ((2.0, 2), (1.0, 1), (0.0, 0)):  # the tokens serve whatever the weights are
        data = TokenDataModule(mixture(small, other, weight), Flat(), folder, **arguments)
        data.setup("fit")
        shown = Counter(name for batch in data.train_dataloader() for name in batch.ids)
        assert {name: shown[name] for name in ("another/a03", "another/x1", "one/a00")} == {
            "another/a03": times,
            "another/x1": times,
            "one/a00": 1,
        }


def test_weights_of_mixtures_within_mixtures_multiply(small, other):  # noqa: F811
    inner = mixture(small, other, weight=3.0)
    outer = Mixture({"both": Member(inner, 0.5), "x": Member(HumanML3D(str(other), min_frames=7))})
    assert outer.weight("both/another/a03__sub1") == 1.5 and outer.weight("both/one/a01") == 0.5
    assert outer.weight("x/y") == 1.0 and outer.limits("x/y") == (7, 200)


def test_members_are_prepared_and_named(tmp_path):
    source = Mixture(
        {"a": Member(Procedural(str(tmp_path / "a"), 12)), "b": Member(Procedural(str(tmp_path / "b"), 12, 1))}
    )
    source.prepare()
    assert (tmp_path / "a" / "train.txt").exists() and len(source.splits()["train"]) == 18
    member = source.members["a"]
    for members, message in (
        ({}, "a mixture needs members"),
        ({"a/b": member}, "'a/b' cannot be"),
        ({"": member}, "'' cannot"),
        ({"..": member}, "cannot be"),
    ):
        with pytest.raises(ValueError, match=message):
            Mixture(members)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"weight .* of a: how many times"):
            Member(member.source, weight)
