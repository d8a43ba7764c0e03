"""Sources in other layouts or of other bodies than HumanML3D: KIT-ML's and MotionStreamer's folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lmm.data.sources.kit import KIT
from lmm.data.sources.motionstreamer import MotionStreamer
from lmm.data.store import MotionStore
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.kit import KIT_21, KITFeatures
from lmm.motion.representations.motionstreamer import MotionStreamer272


def make_streamer(folder: Path, motions: str = "motion_data", lists: str = "split", plain: bool = False) -> Path:
    """Clips whose features hold the row's number in column 0: a 59, 60, 299 and 300 rows long, sub/b has 120."""
    frames = {"a059": 59, "a060": 60, "a299": 299, "a300": 300, "sub/b": 120}
    rng = np.random.default_rng(0)
    for clip, count in frames.items():
        features = rng.normal(size=(count, 272)).astype(np.float32)
        features[:, 0] = np.arange(count)
        text = "first\nsecond\n" if plain else "first#a/DET#0.0#0.0\nsecond#a/DET#1.0#3.5\n"
        for file in (folder / motions / f"{clip}.npy", folder / "texts" / f"{clip}.txt"):
            file.parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / motions / f"{clip}.npy", features)
        (folder / "texts" / f"{clip}.txt").write_text(text)
    (folder / lists).mkdir(parents=True)
    for name, ids in {"train": ["a059", "a060", "a299", "a300"], "test": ["sub/b"], "all": list(frames)}.items():
        (folder / lists / f"{name}.txt").write_text("\n".join(ids) + "\n")
    return folder


def make_kit(folder: Path, vectors: bool = True) -> Path:
    rng = np.random.default_rng(0)
    for clip, count in {"00001": 23, "00002": 24, "00003": 199, "M00003": 100}.items():
        arrays = {"new_joints": rng.normal(size=(count + 1, 21, 3))} | (
            {"new_joint_vecs": rng.normal(size=(count, 251))} if vectors else {}
        )
        for kind, array in arrays.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{clip}.npy", array.astype(np.float32))
        (folder / "texts").mkdir(exist_ok=True)
        (folder / "texts" / f"{clip}.txt").write_text("walks#walk/VERB#0.0#0.0\nturns#turn/VERB#2.0#4.0\n")
    (folder / "train.txt").write_text("00001\n00002\n00003\n")
    (folder / "test.txt").write_text("M00003\n")
    return folder


def packed(source, representation, tmp_path) -> tuple[MotionStore, dict[str, tuple[list[str], torch.Tensor]]]:
    store = MotionStore.open(source, representation, tmp_path / "cache")
    return store, {store.item(i).id: (store.item(i).captions, store.features(i)) for i in range(len(store))}


def test_motionstreamer_packs_the_published_features(tmp_path):
    folder = make_streamer(tmp_path / "d")
    store, items = packed(MotionStreamer(str(folder)), MotionStreamer272(), tmp_path)
    assert sorted(items) == ["a060", "a299", "a299__sub1", "sub/b", "sub/b__sub1"]
    assert items["sub/b"][0] == ["first"] and items["sub/b__sub1"][0] == ["second"]
    assert items["sub/b__sub1"][1][:, 0].tolist() == list(range(30, 105))  # 1.0 to 3.5 s at 30 fps
    np.testing.assert_array_equal(items["a299"][1], np.load(folder / "motion_data/a299.npy"))
    assert {store.item(i).id for i in store.indices("test")} == {"sub/b", "sub/b__sub1"}
    assert store.meta["statistics"] == "computed from train" and store.meta["fps"] == 30
    assert store.meta["dropped"] == {
        "clips too short (under 60 rows)": 1,
        "clips too long (300 rows or more)": 1,
        "sub-clips too short (under 60 rows)": 1,
    }


@pytest.mark.parametrize("names", [("Mean.npy", "Std.npy"), ("mean.npy", "std.npy")])
def test_motionmillions_folders_captions_and_statistics(tmp_path, names):
    lists, motions, mean_std = "split/version1/t2m_60_300", "motion_data/vector_272", "mean_std/vector_272"
    folder = make_streamer(tmp_path / "d", motions=motions, lists=lists, plain=True)
    (folder / mean_std).mkdir(parents=True)
    for name, value in zip(names, (np.arange(272.0), np.full(272, 2.0)), strict=True):
        np.save(folder / mean_std / name, value)
    source = MotionStreamer(str(folder), motions=motions, lists=lists, mean_std=mean_std)
    store, items = packed(source, MotionStreamer272(), tmp_path)
    assert items["sub/b"][0] == ["first", "second"] and len(items) == 3
    mean, std = store.statistics()
    assert mean[7] == 7 and (std == 2).all() and store.meta["statistics"] == "published"


def test_motionstreamer_fingerprint_follows_files_and_arguments(tmp_path):
    folder = make_streamer(tmp_path / "d")
    before = MotionStreamer(str(folder)).fingerprint()
    assert MotionStreamer(str(folder)).fingerprint() == before
    assert MotionStreamer(str(folder), skip=["a060"]).fingerprint() != before
    assert MotionStreamer(str(folder), mean_std="other").fingerprint() != before
    for file, content in (("motion_data/sub/b.npy", b"x"), ("texts/sub/b.txt", b"y"), ("split/test.txt", b"sub/b")):
        (folder / file).write_bytes(content)
        after = MotionStreamer(str(folder)).fingerprint()
        assert after != before
        before = after


def test_motionstreamer_leaves_other_representations_to_an_import(tmp_path):
    source = MotionStreamer(str(make_streamer(tmp_path)))
    with pytest.raises(ValueError, match=r"HumanML3DFeatures was asked for; .*lmm data import motionstreamer"):
        next(source.clips(HumanML3DFeatures()))


def test_motionstreamer_of_the_publisher(shared_data, tmp_path):
    real = shared_data / "parity/motionstreamer_272"
    for kind in ("motion_data", "mean_std", "split"):
        (tmp_path / kind).mkdir()
    np.save(tmp_path / "motion_data/000000.npy", np.load(real / "rep272_000000.npy"))
    for name in ("Mean", "Std"):
        (tmp_path / f"mean_std/{name}.npy").symlink_to(real / f"{name}272.npy")
    (tmp_path / "split/train.txt").write_text("000000\n")
    source = MotionStreamer(str(tmp_path), max_frames=2000, require_captions=False)
    store, items = packed(source, MotionStreamer272(), tmp_path)
    representation = MotionStreamer272()
    representation.set_statistics(*store.statistics())
    normal = representation.normalize(items["000000"][1])
    assert normal.shape == (1287, 272) and normal.mean().abs() < 0.5 and 0.3 < normal.std() < 3


def test_kit_has_its_own_rate_body_and_lengths(tmp_path):
    store, items = packed(KIT(str(make_kit(tmp_path / "d"))), KITFeatures(), tmp_path)
    assert store.dim == 251 and store.meta["fps"] == 12.5
    assert sorted(items) == ["00002", "00003", "00003__sub1", "M00003", "M00003__sub1"]
    np.testing.assert_array_equal(items["00003"][1], np.load(tmp_path / "d/new_joint_vecs/00003.npy"))
    np.testing.assert_array_equal(items["00003__sub1"][1], items["00003"][1][25:50])  # 2 to 4 s at 12.5 fps
    assert store.meta["dropped"] == {"clips too short (under 24 rows)": 1, "sub-clips too short (under 24 rows)": 1}


def test_kit_gives_its_joints_in_metres_and_unmirrored(tmp_path):
    folder = make_kit(tmp_path / "d", vectors=False)
    rng = np.random.default_rng(1)
    phase = np.linspace(0, 3, 60)[:, None, None] + rng.uniform(0, 6, size=(21, 3))
    vectors = Rotation.from_rotvec(0.15 * np.sin(phase).reshape(-1, 3)).as_matrix().reshape(60, 21, 3, 3)
    root = torch.linspace(0, 1, 60)[:, None] * torch.tensor([0.1, 0.0, 1.0]) + torch.tensor([0.0, 0.9, 0.0])
    joints = KIT_21.forward_kinematics(torch.from_numpy(vectors).float(), root)
    # The published files: 640 units a metre, and a body that faces +z has its left at -x.
    np.save(folder / "new_joints/00003.npy", joints.numpy() * [-640, 640, 640])
    clips = {clip.id: clip for clip in KIT(str(folder)).clips(KITFeatures())}
    motion = clips["00003"].motion
    assert motion.fps == 12.5 and motion.skeleton is KIT_21 and clips["00003"].features is None
    torch.testing.assert_close(motion.joints, joints, atol=1e-6, rtol=0)
    _, items = packed(KIT(str(folder)), KITFeatures(), tmp_path)
    assert items["00003"][1].shape == (59, 251)
    assert items["00003"][1][0, 3] == pytest.approx(640 * float(joints[0, 0, 1] - joints[..., 1].min()), rel=1e-4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "texts/a060.txt").unlink(), r"a060\.txt is missing.*skip"),
        (lambda d: (d / "motion_data/a060.npy").unlink(), r"a060\.npy is missing.*skip"),
        (
            lambda d: np.save(d / "motion_data/a060.npy", np.zeros((70, 263))),
            r"a060\.npy has shape \(70, 263\).*272.*skip",
        ),
        (lambda d: np.save(d / "motion_data/a060.npy", np.full((70, 272), np.nan)), r"a060\.npy contains NaN.*skip"),
        (lambda d: (d / "motion_data/a060.npy").write_bytes(b"junk"), r"a060\.npy is not a readable array"),
        (lambda d: (d / "split/train.txt").write_text("\n"), r"train\.txt lists no clip"),
        (lambda d: (d / "split/val.txt").write_text("sub/b\n"), r"share 1 ids \(sub/b"),
        (lambda d: (d / "split").rename(d / "splits"), "has no split list"),
        (lambda d: d.rename(d.with_name("gone")), "is not a folder; name one in MotionStreamer's layout"),
        (lambda d: _statistics(d, 263), r"Mean\.npy has shape \(263,\), expected \(272,\); delete it"),
    ],
)
def test_bad_motionstreamer_data_are_refused_by_name(tmp_path, spoil, message):
    folder = make_streamer(tmp_path / "d")
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        packed(MotionStreamer(str(folder)), MotionStreamer272(), tmp_path)


def _statistics(folder: Path, count: int) -> None:
    (folder / "mean_std").mkdir()
    for name in ("Mean", "Std"):
        np.save(folder / f"mean_std/{name}.npy", np.ones(count))


def test_vectors_of_another_body_are_refused_by_name(tmp_path):
    folder = make_kit(tmp_path / "d")
    np.save(folder / "new_joint_vecs/00002.npy", np.zeros((60, 263)))
    with pytest.raises(ValueError, match=r"00002\.npy has shape \(60, 263\), expected \(T, 251\)"):
        packed(KIT(str(folder)), KITFeatures(), tmp_path)
