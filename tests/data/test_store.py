"""The packed store: built once, mapped into memory, rebuilt when its source changes, safe among processes."""

import json
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch

from lmm.data import packing
from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.store import MotionStore
from tests.data.test_humanml3d import Flat, open_store, small  # noqa: F401 - small is a fixture


def joints(folder, clip):
    return torch.from_numpy(np.load(folder / "new_joints" / f"{clip}.npy"))[:-1].flatten(1)


def test_features_splits_and_captions_are_the_sources(small, tmp_path):  # noqa: F811
    store = open_store(small, tmp_path / "cache")
    assert len(store) == 18
    for index in range(len(store)):
        item = store.item(index)
        assert torch.equal(store.features(index), joints(small, item.id))
        assert item.captions == [f"first of {item.id}", f"second of {item.id}"]
        assert store.lengths[index] == len(store.features(index))
    for split, ids in HumanML3D(str(small)).splits().items():
        assert sorted(store.item(i).id for i in store.indices(split).tolist()) == sorted(ids)
    with pytest.raises(ValueError, match="no split 'unseen'; it has test, test_strict, train, val"):
        store.indices("unseen")


def test_windows_across_shards(small, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(packing, "SHARD_BYTES", 4 * 66 * 300)
    store = open_store(small, tmp_path / "cache")
    assert len(store.meta["shards"]) > 3 and max(store.meta["shards"]) <= 300
    indices = np.array([17, 3, 3, 8, 1])
    starts = np.minimum([0, 5, 20, 11, 9999], store.lengths[indices] - 48)
    batch = store.windows(indices, starts, 48)
    for row, (index, start) in enumerate(zip(indices.tolist(), starts.tolist(), strict=True)):
        assert torch.equal(batch[row], store.features(index)[start : start + 48])


def test_nothing_is_read_before_it_is_used(small, tmp_path):  # noqa: F811
    store = open_store(small, tmp_path / "cache")
    assert "_shards" not in vars(store) and "_text" not in vars(store)
    frames = store.features(2)
    assert frames.data_ptr() == store._shards[0].data_ptr() + 4 * 66 * int(store.lengths[:2].sum())
    maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else "features-00000.f32"
    assert "features-00000.f32" in maps
    assert len(pickle.dumps(store)) < 500  # a worker opens it again


def test_statistics_are_those_of_train(small, tmp_path):  # noqa: F811
    store = open_store(small, tmp_path / "cache")
    rows = torch.cat([joints(small, f"a{i:02d}") for i in range(11)]).double().numpy()
    mean, std = store.statistics()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std[:3], rows.std(axis=0)[:3].mean(), rtol=1e-5)
    assert store.meta["statistics"] == "computed from train"
    (small / "train.txt").unlink()
    with pytest.raises(ValueError, match="no split 'train' to compute"):
        open_store(small, tmp_path / "cache").statistics()


def test_published_statistics_win(small, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(HumanML3D, "statistics", lambda self, r: (torch.zeros(r.dim), torch.full((r.dim,), 2.0)))
    store = open_store(small, tmp_path / "cache")
    assert store.statistics()[1].tolist() == [2.0] * 66 and store.meta["statistics"] == "published"


def test_packed_once_and_again_when_something_changes(small, tmp_path):  # noqa: F811
    cache = tmp_path / "cache"
    first = open_store(small, cache)
    written = (first.folder / "meta.json").stat().st_mtime_ns
    assert (open_store(small, cache).folder / "meta.json").stat().st_mtime_ns == written
    assert open_store(small, cache, Flat(scale=2.0)).key != first.key
    assert open_store(small, cache, Flat()).key == first.key
    np.save(small / "new_joints" / "a03.npy", np.ones((77, 22, 3), dtype=np.float32))
    second = open_store(small, cache)
    assert second.key != first.key and second.lengths[3] == 76 and (second.features(3) == 1).all()
    assert (first.features(3) != 1).any()  # a run that uses the old one is not disturbed


@pytest.mark.parametrize("damage", ["shard", "index", "meta", "version", "items"])
def test_a_damaged_store_is_refused_and_packed_again(small, tmp_path, damage):  # noqa: F811
    folder = open_store(small, tmp_path / "cache").folder
    if damage == "version":
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | {"format": 0}))
    else:
        file = {"shard": "features-00000.f32", "index": "index.npy", "meta": "meta.json", "items": "items.jsonl"}[
            damage
        ]
        (folder / file).write_bytes((folder / file).read_bytes()[:50])
    with pytest.raises(ValueError, match=r"not a usable motion store .*delete it"):
        MotionStore(folder)
    store = open_store(small, tmp_path / "cache")
    assert len(store) == 18 and torch.equal(store.features(3), joints(small, store.item(3).id))


def test_an_empty_result_says_why(small, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match=r"nothing of small was kept.*too short.*18.*min_frames"):
        open_store(small, tmp_path / "cache", min_frames=300, max_frames=400)
    (small / "val.txt").write_text("b0\n")
    store = open_store(small, tmp_path / "cache", max_frames=150)
    with pytest.raises(ValueError, match=r"nothing of split 'val' of small was kept: kept .* too long"):
        store.indices("val")


def _open_and_log(folder, cache, log, start):
    def pack(*arguments):
        log.put("packed")
        original(*arguments)

    from lmm.data import store

    original, store.pack = store.pack, pack
    start.wait()
    log.put(len(open_store(folder, cache)))


def test_two_processes_at_once_pack_once(small, tmp_path):  # noqa: F811
    context = multiprocessing.get_context("fork")  # spawn holds too, but imports torch twice: 20 s
    log, start = context.Queue(), context.Barrier(2)
    processes = [context.Process(target=_open_and_log, args=(small, tmp_path / "cache", log, start)) for _ in range(2)]
    for process in processes:
        process.start()
    seen = [log.get(timeout=60) for _ in range(3)]
    for process in processes:
        process.join()
    assert sorted(seen, key=str) == [18, 18, "packed"] and all(process.exitcode == 0 for process in processes)
    assert not list((tmp_path / "cache").glob("*.building"))
