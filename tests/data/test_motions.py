"""The data module: windows to train on, whole padded clips elsewhere, statistics where they are missing."""

import pytest
import torch

from lmm.data.motions import Encoding, MotionDataModule
from lmm.data.sources.humanml3d import HumanML3D
from tests.data.test_humanml3d import Flat, small  # noqa: F401 - small is a fixture


def module(folder, tmp_path, **arguments):
    data = MotionDataModule(
        HumanML3D(str(folder)), Flat(), **({"batch_size": 4, "cache": str(tmp_path / "cache")} | arguments)
    )
    data.prepare_data()
    data.setup("fit")
    return data


def test_windows_are_consecutive_frames_drawn_anew(small, tmp_path):  # noqa: F811
    loader = module(small, tmp_path).train_dataloader()
    starts, texts = [], []
    for _ in range(4):
        batches = list(loader)
        assert sorted(i for b in batches for i in b.ids) == [f"a{i:02d}" for i in range(1, 11)]  # a00 is too short
        for batch in batches:
            assert (
                batch.features.shape[1:] == (64, 66) and batch.mask.all() and batch.mask.shape == (len(batch.ids), 64)
            )
            assert (batch.features[:, :, 0].diff(dim=1) == 1).all()
            assert all(text.endswith(name) for text, name in zip(batch.texts, batch.ids, strict=True))
        starts.append({i: int(f) for b in batches for i, f in zip(b.ids, b.features[:, 0, 0], strict=True)})
        texts += [t.split()[0] for b in batches for t in b.texts]
    assert len({s["a10"] for s in starts}) > 1 and set(texts) == {"first", "second"}


def test_whole_clips_are_padded_and_sorted(small, tmp_path):  # noqa: F811
    data = module(small, tmp_path)
    (batch,) = data.test_dataloader()
    assert batch.ids[0] == "c3" and batch.features.shape == (4, 198, 66)
    lengths = batch.mask.sum(dim=1)
    assert lengths.tolist() == sorted(lengths.tolist(), reverse=True)
    assert (batch.features[~batch.mask] == 0).all() and (batch.features[batch.mask].abs().sum(dim=1) > 0).all()
    assert batch.mask[0].all() and batch.texts[0] == "first of c3"
    assert sorted(next(iter(data.val_dataloader())).ids) == ["b0", "b1", "b2"]


def test_test_split_can_be_named_and_predict_covers_all(small, tmp_path):  # noqa: F811
    data = module(small, tmp_path, test_split="test_strict")
    assert [i for b in data.test_dataloader() for i in b.ids] == ["c3", "c1"]
    ids = [i for b in data.predict_dataloader() for i in b.ids]
    assert len(ids) == len(set(ids)) == 18
    with pytest.raises(ValueError, match="no split 'unseen'; it has"):
        module(small, tmp_path, test_split="unseen").test_dataloader()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_clips_to_encode_have_equally_many_steps_in_a_batch(small, tmp_path, num_workers):  # noqa: F811
    data = module(small, tmp_path, num_workers=num_workers)
    done = {"a03", "b1", "c3"}
    data.encoding = lambda: Encoding(32, done)
    batches = list(data.predict_dataloader())
    ids = [i for b in batches for i in b.ids]
    assert len(ids) == 15 and not done & set(ids) and max(len(b.ids) for b in batches) == 4
    rows = {data.store.item(i).id: i for i in range(len(data.store))}
    longest = 10**6
    for batch in batches:
        lengths = batch.mask.sum(dim=1)
        (steps,) = set((-(-lengths // 32)).tolist())
        assert steps <= longest and batch.features.shape[1] == lengths.max()
        longest = steps
        for name, text, clip, mask in zip(batch.ids, batch.texts, batch.features, batch.mask, strict=True):
            assert torch.equal(clip[mask], data.store.features(rows[name])) and text == f"first of {name}"


def test_statistics_are_set_unless_a_checkpoint_brought_them(small, tmp_path):  # noqa: F811
    data = module(small, tmp_path)
    assert torch.equal(data.representation.mean, data.store.statistics()[0])
    again = MotionDataModule(data.source, Flat(), cache=str(tmp_path / "cache"))
    again.representation.set_statistics(torch.zeros(66), torch.ones(66))
    again.setup("fit")
    assert (again.representation.mean == 0).all()


def test_a_window_too_long_is_refused(small, tmp_path):  # noqa: F811
    with pytest.raises(
        ValueError, match="no training item of small has 190 frames, the longest has 149; use a smaller"
    ):
        module(small, tmp_path, window=190).train_dataloader()
    with pytest.raises(ValueError, match="at least 1"):
        module(small, tmp_path, window=0)


def test_workers_give_the_same_batches(small, tmp_path):  # noqa: F811
    one = list(module(small, tmp_path).train_dataloader())
    two = list(module(small, tmp_path, num_workers=2).train_dataloader())
    assert all(torch.equal(a.features, b.features) and a.texts == b.texts for a, b in zip(one, two, strict=True))


def test_whole_items_are_trained_on_without_a_window(small, tmp_path):  # noqa: F811
    data = module(small, tmp_path, window=None)
    loader = data.train_dataloader()
    rows = {data.store.item(i).id: i for i in range(len(data.store))}
    texts = set()
    for _ in range(4):
        batches = list(loader)
        assert sorted(i for b in batches for i in b.ids) == [f"a{i:02d}" for i in range(11)], "the short one too"
        for batch in batches:
            assert batch.features.shape[1] == batch.mask.sum(1).max()
            for name, text, clip, mask in zip(batch.ids, batch.texts, batch.features, batch.mask, strict=True):
                assert torch.equal(clip[mask], data.store.features(rows[name])) and (clip[~mask] == 0).all()
                assert text.endswith(name)
                texts.add(text.split()[0])
    assert texts == {"first", "second"}, "one caption each, drawn anew"
    lengths = [sorted(b.mask.sum(1).tolist()) for b in batches]
    spans = [(low, high) for low, *_, high in (length for length in lengths if len(length) > 1)]
    assert all(a[1] <= b[0] or b[1] <= a[0] for a in spans for b in spans if a != b), "batches of similar length"


def test_whole_items_resume_where_they_stopped(small, tmp_path):  # noqa: F811
    loader = module(small, tmp_path, window=None).train_dataloader()
    seen = [batch for _ in range(3) for batch in loader]
    interrupted = module(small, tmp_path, window=None).train_dataloader()
    passing = iter(interrupted)
    for _ in range(2):
        next(passing)
    resumed = module(small, tmp_path, window=None).train_dataloader()
    resumed.load_state_dict(interrupted.state_dict())
    rest = [batch for _ in range(2) for batch in resumed]
    for mine, theirs in zip(rest, seen[2:], strict=False):
        assert mine.ids == theirs.ids and mine.texts == theirs.texts and torch.equal(mine.features, theirs.features)
    assert len(rest) >= 3
