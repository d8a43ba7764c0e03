"""The source for HumanML3D's layout: what it reads, what it refuses and how it says so."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from lmm.data.sources.humanml3d import HumanML3D
from lmm.data.store import MotionStore
from lmm.data.tokens import TokenDataModule
from lmm.motion.files import save_motion
from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.skeleton import HUMANML3D_22, Skeleton


class Flat(MotionRepresentation):
    """Joints as they are; one row less than frames, like HumanML3D's."""

    skeleton = HUMANML3D_22
    fps = 20.0
    blocks: ClassVar[dict[str, int]] = {"root": 3, "joints": 63}

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    @property
    def parts(self):
        return {"body": list(range(66))}

    def encode(self, motion):
        return motion.joints[:-1].flatten(-2) * self.scale

    def decode(self, features):
        return Motion(features.unflatten(-1, (22, 3)) / self.scale, self.fps, self.skeleton)


def make_folder(folder: Path, frames: dict[str, int], splits: dict[str, list[str]], **texts: str) -> Path:
    """A data set in HumanML3D's layout: clip id -> joint frames; joints hold the frame number, plus noise."""
    (folder / "new_joints").mkdir(parents=True)
    (folder / "texts").mkdir()
    rng = np.random.default_rng(0)
    for clip, count in frames.items():
        joints = rng.normal(size=(count, 22, 3)).astype(np.float32)
        joints[:, 0, 0] = np.arange(count)
        np.save(folder / "new_joints" / f"{clip}.npy", joints)
        text = texts.get(clip, f"first of {clip}#a/DET#0.0#0.0\nsecond of {clip}#a/DET#nan#nan\n")
        (folder / "texts" / f"{clip}.txt").write_text(text, encoding="utf-8")
    for name, ids in splits.items():
        (folder / f"{name}.txt").write_text("".join(f"{clip}\n" for clip in ids))
    return folder


def make_small(folder: Path) -> Path:
    """11 training clips (one too short for a window of 64), 3 to validate, 4 to test; frames differ."""
    splits = {
        "train": [f"a{i:02d}" for i in range(11)],
        "val": ["b0", "b1", "b2"],
        "test": ["c0", "c1", "c2", "c3"],
        "test_strict": ["c1", "c3"],
        "all": ["a00", "b0", "c0"],
    }
    names = splits["train"] + splits["val"] + splits["test"]
    frames = {name: 80 + 7 * i for i, name in enumerate(names)}
    return make_folder(folder, frames | {"a00": 50, "c3": 199}, splits)


@pytest.fixture
def small(tmp_path):
    return make_small(tmp_path / "small")


def open_store(folder, cache, representation=None, **arguments):
    return MotionStore.open(HumanML3D(str(folder), **arguments), representation or Flat(), cache)


def test_splits_may_overlap_and_unions_are_none(small):
    splits = HumanML3D(str(small)).splits()
    assert sorted(splits) == ["test", "test_strict", "train", "val"]
    assert splits["test_strict"] == ["c1", "c3"]
    assert "a03" not in HumanML3D(str(small), skip=["a03"]).splits()["train"]


def test_joints_are_read_at_20_fps(small):
    clips = list(HumanML3D(str(small)).clips(Flat()))
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips) and len(clips) == 18
    assert clips[0].motion.fps == 20 and clips[0].motion.num_frames == 50 and clips[0].features is None
    assert [tuple(caption) for caption in clips[0].captions] == [("first of a00", 0, 0), ("second of a00", 0, 0)]


def test_published_vectors_and_statistics_serve_their_representation_only(small):
    (small / "new_joint_vecs").mkdir()
    for file in (small / "new_joints").iterdir():
        vectors = np.random.default_rng(1).normal(size=(60, 263)).astype(np.float32)
        np.save(small / "new_joint_vecs" / file.name, vectors)
    np.save(small / "Mean.npy", np.arange(263, dtype=np.float64))
    np.save(small / "Std.npy", np.ones(263, dtype=np.float32))
    source, official = HumanML3D(str(small)), HumanML3DFeatures()
    clip = next(source.clips(official))
    assert clip.motion is None and clip.features.shape == (60, 263)
    mean, _ = source.statistics(official)
    assert mean.dtype == torch.float32 and mean[7] == 7
    assert next(source.clips(Flat())).features is None and source.statistics(Flat()) is None


def test_fingerprint_follows_files_and_arguments(small):
    before = HumanML3D(str(small)).fingerprint()
    assert HumanML3D(str(small)).fingerprint() == before
    assert HumanML3D(str(small), min_frames=20).fingerprint() != before
    assert HumanML3D(str(small), skip=["a03"]).fingerprint() != before
    (small / "texts" / "a03.txt").write_text("a longer caption than before, by far#x#0#0\n")
    assert HumanML3D(str(small)).fingerprint() != before


def test_captions_with_times_become_items(tmp_path):
    text = "whole#x#0.0#0.0\nmiddle é#x#1.0#4.0\nblink#x#1.0#1.5\nover the end#x#2.0#99.0\nback#x#3.0#1.0\n"
    folder = make_folder(
        tmp_path / "d", {"a": 120, "b": 90}, {"train": ["a", "b"], "x": ["b"]}, a=text, b="part#x#0#3\n"
    )
    store = open_store(folder, tmp_path / "cache")
    items = {store.item(i).id: (store.item(i).captions, store.features(i)) for i in range(len(store))}
    assert list(items) == ["a", "a__sub1", "a__sub3", "b__sub0"]
    assert items["a"][0] == ["whole"] and len(items["a"][1]) == 119
    assert items["a__sub1"][0] == ["middle é"] and items["a__sub1"][1][:, 0].tolist() == list(range(20, 80))
    assert items["a__sub3"][1][:, 0].tolist() == list(range(40, 119))
    assert store.indices("x").tolist() == [3] and len(items["b__sub0"][1]) == 60
    assert store.meta["dropped"] == {
        "sub-clips too short (under 40 rows)": 2,
        "clips without a caption for the whole clip": 1,
    }
    assert (store.meta["clips"], store.meta["sub_clips"]) == (1, 3)


def test_the_rule_on_length(tmp_path):
    frames = {"at39": 40, "at40": 41, "at199": 200, "at200": 201}
    folder = make_folder(tmp_path / "d", frames, {"train": list(frames)})
    store = open_store(folder, tmp_path / "cache")
    assert [store.item(i).id for i in range(len(store))] == ["at199", "at40"]
    assert store.meta["dropped"] == {
        "clips too long (200 rows or more)": 1,
        "clips too short (under 40 rows)": 1,
    }
    assert '"at39"' in (store.folder / "dropped.json").read_text()
    assert len(open_store(folder, tmp_path / "cache", min_frames=1, max_frames=1000)) == 4


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "texts" / "a03.txt").unlink(), r"a03\.txt is missing.*skip"),
        (lambda d: (d / "texts" / "a03.txt").write_text("\n"), r"a03\.txt has no caption.*skip"),
        (lambda d: (d / "texts" / "a03.txt").write_text("#x#0#0\n"), r"a03\.txt:1 has an empty caption"),
        (
            lambda d: (d / "texts" / "a03.txt").write_text("walks#x#0\n"),
            r"a03\.txt:1 is not 'caption#tokens#start#end'",
        ),
        (lambda d: (d / "texts" / "a03.txt").write_text("walks#x#-1#3\n"), r"a03\.txt:1 is not"),
        (lambda d: (d / "texts" / "a03.txt").write_bytes(b"caf\xe9#x#0#0\n"), r"a03\.txt is not utf-8"),
        (lambda d: (d / "new_joints" / "a03.npy").unlink(), r"a03\.npy is missing.*skip"),
        (lambda d: (d / "new_joints" / "a03.npy").write_bytes(b"junk"), r"a03\.npy is not a readable array"),
        (lambda d: np.save(d / "new_joints" / "a03.npy", np.array([{}])), r"a03\.npy is not a readable array"),
        (lambda d: np.save(d / "new_joints" / "a03.npy", np.zeros((70, 21, 3))), r"shape \(70, 21, 3\), expected"),
        (lambda d: np.save(d / "new_joints" / "a03.npy", np.full((70, 22, 3), np.nan)), r"a03\.npy contains NaN.*skip"),
        (lambda d: (d / "train.txt").write_text("\n"), r"train\.txt lists no clip"),
        (lambda d: (d / "train.txt").write_text("../a03\n"), r"train\.txt names '\.\./a03'"),
        (lambda d: (d / "val.txt").write_text("a03\n"), r"train\.txt and val\.txt share 1 ids \(a03"),
        (lambda d: [file.unlink() for file in d.glob("*.txt")], r"has no split list"),
        (lambda d: (d / "new_joints").rename(d / "joints"), r"has no folder new_joints"),
        (lambda d: d.rename(d.with_name("gone")), r"is not a folder"),
    ],
)
def test_bad_data_are_refused_by_name(small, tmp_path, break_it, message):
    break_it(small)
    with pytest.raises(ValueError, match=message):
        open_store(small, tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").glob("*") if file.is_dir()]


@pytest.mark.parametrize("name", ["bandai_humanml", "cmu_humanml_layout"])
def test_real_data(shared_data, tmp_path, name):
    real, folder = shared_data / name, tmp_path / name
    folder.mkdir()
    for sub in ("new_joints", "texts"):
        (folder / sub).symlink_to(real / sub)
    for split in ("train", "val", "test"):
        ids = (real / f"{split}.txt").read_text().split()[:12]
        (folder / f"{split}.txt").write_text("\n".join(ids) + "\n")
    store = open_store(folder, tmp_path / "cache", HumanML3DFeatures())
    assert store.dim == 263 and len(store) + sum(store.meta["dropped"].values()) == 36
    assert all(len(store.item(i).captions) >= 1 and 40 <= len(store.features(i)) < 200 for i in range(len(store)))
    mean, std = store.statistics()
    assert 0.5 < mean[3] < 1.2 and (std > 0).all()  # height of the pelvis in metres


def test_motions_without_captions_train_a_tokenizer_but_no_language_model(small, tmp_path):
    (small / "texts" / "a03.txt").unlink()
    with pytest.raises(ValueError, match=r"a03\.txt is missing.*require_captions"):
        open_store(small, tmp_path / "cache")
    store = open_store(small, tmp_path / "cache", require_captions=False)
    captions = {item.id: item.captions for item in map(store.item, range(len(store)))}
    assert captions["a03"] == [""] and captions["a02"] == ["first of a02", "second of a02"]
    source = HumanML3D(str(small), require_captions=False)
    data = TokenDataModule(source, Flat(), str(tmp_path / "tokens"), cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="1 clips of small have no caption"):
        data.setup("fit")


def test_imported_motions_are_read_with_rotations_and_without_hands(small, tmp_path):
    hand = Skeleton(
        (*HUMANML3D_22.names, "left_hand"),
        (*HUMANML3D_22.parents, 20),
        (*HUMANML3D_22.offsets, (0.1, 0.0, 0.0)),
        {"body": tuple(range(23))},
    )
    for file in (small / "new_joints").iterdir():
        frames = len(np.load(file))
        rotations = torch.eye(3).expand(frames, 23, 3, 3)
        root = torch.rand(frames, 3)
        motion = Motion(hand.forward_kinematics(rotations, root), 20.0, hand, rotations)
        (small / "motions").mkdir(exist_ok=True)
        save_motion(small / "motions" / f"{file.stem}.npz", motion)
    clip = next(iter(HumanML3D(str(small)).clips(Flat())))
    assert clip.motion.skeleton.names == HUMANML3D_22.names and clip.motion.rotations.shape[1:] == (22, 3, 3)
    faster = type("Faster", (Flat,), {"fps": 30.0})()
    with pytest.raises(ValueError, match=r"a00\.npz has 20 frames a second.*--fps 30"):
        next(iter(HumanML3D(str(small)).clips(faster)))


@pytest.mark.parametrize("line", ["a sentence", "a sentence#a/DET#0.0#0.0", "a sentence##0.0#nan"])
def test_a_plain_sentence_is_a_caption_too(small, tmp_path, line):
    (small / "texts" / "a00.txt").write_text(line + "\n")
    store = open_store(small, tmp_path / "cache")
    assert store.item(0).captions == ["a sentence"]
