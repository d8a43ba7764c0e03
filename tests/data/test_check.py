"""``lmm data check``: a clean data set passes, and each kind of damage is found by its own check and by no other."""

import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.data.check import check, examine
from lmm.data.check.duplicates import near_pairs
from lmm.data.check.layout import KIT
from lmm.data.check.report import table
from lmm.data.check.text import bag, sides, words
from lmm.data.importing import ImportOptions, import_recordings
from lmm.data.sources.procedural import generate
from lmm.data.sources.raw.bvh import BVH
from lmm.data.sources.raw.humanml3d import HumanML3D as RawHumanML3D
from lmm.motion.files import load_motion, save_motion
from lmm.motion.kinematics import fit_rotations
from lmm.motion.motion import Motion
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.representations.kit import KIT_21, KITFeatures
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import face_forward, mirror, put_on_floor

MIRRORED = ("000000", "000007")  # one of train, one of val


def motion(joints: np.ndarray) -> Motion:
    return Motion(torch.from_numpy(np.ascontiguousarray(joints)), 20.0, HUMANML3D_22)


def placed(joints: np.ndarray) -> np.ndarray:
    return put_on_floor(face_forward(motion(joints))).joints.numpy()


def load(folder: Path, clip: str, kind: str = "new_joints") -> np.ndarray:
    return np.load(folder / kind / f"{clip}.npy")


def save(folder: Path, clip: str, array: np.ndarray, kind: str = "new_joints") -> None:
    np.save(folder / kind / f"{clip}.npy", array)


def text(folder: Path, clip: str) -> Path:
    return folder / "texts" / f"{clip}.txt"


def append(file: Path, line: str) -> None:
    file.write_text(file.read_text() + line + "\n")


def exchange_sides(caption: str) -> str:
    return caption.replace("left", "\0").replace("right", "left").replace("\0", "right")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """30 procedural clips and two mirror images as HumanML3D's scripts leave a data set: vectors, and their joints."""
    folder = tmp_path_factory.mktemp("check") / "clean"
    generate(folder, 30)
    features = HumanML3DFeatures(uniform_skeleton=True)
    for clip in MIRRORED:
        save(folder, f"M{clip}", mirror(motion(load(folder, clip))).joints.numpy())
        text(folder, f"M{clip}").write_text(exchange_sides(text(folder, clip).read_text()))
        for name in ("all", "train" if clip == "000000" else "val"):
            append(folder / f"{name}.txt", f"M{clip}")
    (folder / "new_joint_vecs").mkdir()
    train = (folder / "train.txt").read_text().split()
    rows = []
    for file in sorted((folder / "new_joints").glob("*.npy")):
        vectors = features.encode(motion(np.load(file)))
        save(folder, file.stem, vectors.numpy(), "new_joint_vecs")
        save(folder, file.stem, features.to_joints(vectors).numpy())
        rows += [vectors] if file.stem in train else []
    everything = torch.cat(rows)
    np.save(folder / "Mean.npy", everything.mean(0).numpy())
    np.save(folder / "Std.npy", features.segment_std(everything.std(0)).numpy())
    return folder


@pytest.fixture
def whole(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


@pytest.fixture
def joints_only(whole) -> Path:
    shutil.rmtree(whole / "new_joint_vecs")
    return whole


def findings(folder: Path, **arguments) -> dict:
    _, found = examine(folder, sample=arguments.pop("sample", 4), num_workers=0, **arguments)
    assert len({finding.check for finding in found}) == len(found)
    assert all(len(line) <= 100 for line in table(found).splitlines())
    json.dumps([finding.as_dict() for finding in found])
    return {finding.check: finding for finding in found}


def complaints(found: dict) -> dict[str, str]:
    return {name: f.level for name, f in found.items() if f.level in ("warning", "error")}


def ids(finding) -> set[str]:
    return {clip for clips in finding.ids.values() for clip in clips}


def test_a_clean_data_set_has_no_warning(clean):
    found = findings(clean, sample=100)
    assert not complaints(found), table(found.values())
    assert found["split lists"].figures["sizes"] == {"test": 2, "train": 24, "unseen": 3, "val": 3}
    assert found["frames"].figures["max"] < 200
    assert found["decoding"].figures["max_m"] < 1e-4
    assert found["re-encoding"].level == "note" and found["re-encoding"].ids["folded"]


def test_the_embedded_data_set_has_no_warning(tmp_path):
    generate(tmp_path / "demo", 12)
    assert not complaints(findings(tmp_path / "demo"))


def stretch(joints):
    joints[:, 20] += 0.04 * np.sin(np.arange(len(joints)))[:, None] * (joints[:, 20] - joints[:, 18]) / 0.25
    return joints


def leap(joints):
    joints[20:] += np.float32([2, 0, 0])
    return joints


def turned(joints, degrees=30.0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return joints @ np.float32([[c, 0, -s], [0, 1, 0], [s, 0, c]])


# name of the check -> what is done to the joints of clip 000001
MOTION = {
    "left and right": lambda x: placed(x * np.float32([-1, 1, 1])),
    "up": lambda x: placed(x[..., [0, 2, 1]] * np.float32([1, -1, 1])),
    "body size": lambda x: x * np.float32(1.6),
    "floor": lambda x: x + np.float32([0, 0.1, 0]),
    "facing": turned,
    "origin": lambda x: x + np.float32([1, 0, 0]),
    "bone lengths": stretch,
    "frozen clips": lambda x: placed(np.repeat(x[:1], len(x), axis=0)),
    "teleports": leap,
}


@pytest.mark.parametrize("name", MOTION)
def test_damaged_motion(joints_only, name):
    save(joints_only, "000001", MOTION[name](load(joints_only, "000001")).astype(np.float32))
    found = findings(joints_only)
    assert list(complaints(found)) == [name], table(found.values())
    assert ids(found[name]) == {"000001"}


def test_the_whole_set_is_mirrored(joints_only):
    for file in (joints_only / "new_joints").glob("*.npy"):
        np.save(file, placed(np.load(file) * np.float32([-1, 1, 1])))
    found = findings(joints_only)
    assert complaints(found) == {"left and right": "error"}
    assert len(ids(found["left and right"])) == 32


def test_index_tells_the_clips_of_humanact12(joints_only, tmp_path):
    index = tmp_path / "index.csv"
    index.write_text(
        "source_path,start_frame,end_frame,new_name\n./pose_data/humanact12/humanact12/a.npy,0,-1,000000.npy\n"
        "./pose_data/KIT/3/b.npy,0,90,000001.npy\n"
    )
    found = findings(joints_only, index=str(index))
    assert set(found["left and right"].ids["HumanAct12"]) == {"000000", "M000000"}
    with pytest.raises(ValueError, match=r"index\.csv"):
        examine(joints_only, index=str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(("unit", "scale"), [("centimetres", 100), ("millimetres", 1000), ("inches", 39.37)])
def test_another_unit_is_one_finding(joints_only, unit, scale):
    for file in (joints_only / "new_joints").glob("*.npy"):
        np.save(file, np.load(file) * np.float32(scale))
    found = findings(joints_only)
    assert complaints(found) == {"body size": "error"}
    assert unit in found["body size"].found


def test_another_axis_is_up(joints_only):
    for file in (joints_only / "new_joints").glob("*.npy"):
        np.save(file, np.load(file)[..., [2, 0, 1]])  # x, y, z -> z, x, y
    found = findings(joints_only)
    assert found["up"].level == "error" and "+z" in found["up"].found
    assert found["left and right"].level == "ok"  # turned, not mirrored


def rewrite(file: str, change):
    def damage(folder: Path) -> None:
        (folder / file).write_text("".join(f"{line}\n" for line in change((folder / file).read_text().split())))

    return damage


LISTS = {
    "repeated id": (rewrite("train.txt", lambda ids: [*ids, "000001"]), "split lists", "warning", {"000001"}),
    "empty list": (rewrite("short.txt", lambda ids: []), "split lists", "error", set()),
    "prose": (lambda f: (f / "README.txt").write_text("how this was made\n"), "split lists", "error", set()),
    "not utf-8": (lambda f: (f / "more.txt").write_bytes(b"\xff\xfe\n"), "split lists", "error", set()),
    "outside": (lambda f: (f / "more.txt").write_text("../secret\n"), "split lists", "error", set()),
    "in two": (rewrite("test.txt", lambda ids: [*ids, "000001"]), "split overlap", "error", {"000001"}),
    "mirror": (
        lambda f: (rewrite("train.txt", lambda i: i[:-1])(f), rewrite("test.txt", lambda i: [*i, "M000000"])(f)),
        "mirror splits",
        "warning",
        {"000000"},
    ),
    "unknown id": (rewrite("train.txt", lambda ids: [*ids, "999999"]), "missing files", "error", {"999999"}),
}


@pytest.mark.parametrize("name", LISTS)
def test_damaged_lists(whole, name):
    damage, where, level, who = LISTS[name]
    (whole / "short.txt").write_text("000001\n")
    damage(whole)
    found = findings(whole)
    assert complaints(found) == {where: level}, table(found.values())
    assert ids(found[where]) == who


@pytest.mark.parametrize("file", ["new_joints/000001.npy", "new_joint_vecs/000001.npy", "texts/000001.txt"])
def test_a_missing_file(whole, file):
    (whole / file).unlink()
    found = findings(whole)
    assert complaints(found) == {"missing files": "error"}
    assert found["missing files"].ids[file.split("/")[0]] == ["000001"]


def test_files_in_no_list_and_lists_that_are_no_split(whole):
    for name in ("train", "all"):
        rewrite(f"{name}.txt", lambda ids: [clip for clip in ids if clip != "000001"])(whole)
    found = findings(whole)
    assert found["unlisted files"].level == "note" and ids(found["unlisted files"]) == {"000001"}
    (whole / "excluded.txt").write_text("000001\n")
    (whole / "new_joints" / "000001.npy").write_bytes(b"never read")
    found = findings(whole)
    assert found["unlisted files"].level == "ok" and not complaints(found)


def bytes_of(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


BROKEN = {
    "no bytes": b"",
    "garbage": b"hello",
    "cut short": bytes_of(np.zeros((50, 22, 3), np.float32))[:-7],
    "pickled": bytes_of(np.array([{}], dtype=object), allow_pickle=True),
    "whole numbers": bytes_of(np.zeros((50, 22, 3), np.int64)),
    "24 joints": bytes_of(np.zeros((50, 24, 3), np.float32)),
    "a scalar": bytes_of(np.float32(1)),
    "one frame": bytes_of(np.zeros((1, 22, 3), np.float32)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_array_that_cannot_be_used(whole, name):
    (whole / "new_joints" / "000001.npy").write_bytes(BROKEN[name])
    found = findings(whole)
    assert complaints(found) == {"arrays": "error"}
    assert found["arrays"].ids == {"new_joints": ["000001"], "new_joint_vecs": []}


@pytest.mark.parametrize("kind", ["new_joints", "new_joint_vecs"])
def test_nan(whole, kind):
    array = load(whole, "000001", kind)
    array[5, 3] = np.nan
    save(whole, "000001", array, kind)
    found = findings(whole)
    assert complaints(found) == {"NaN and Inf": "error"}
    assert found["NaN and Inf"].ids[kind] == ["000001"]


def test_known_nan_of_humanml3d_is_a_note(whole):
    for file in [*whole.glob("*/000001.*")]:
        file.rename(file.with_stem("007975"))
    for name in ("train", "all"):
        rewrite(f"{name}.txt", lambda ids: ["007975" if clip == "000001" else clip for clip in [*ids, "009707"]])(whole)
    save(whole, "007975", np.full_like(load(whole, "007975"), np.inf))
    found = findings(whole)
    assert not complaints(found)
    assert (found["NaN and Inf"].level, found["missing files"].level) == ("note", "note")
    assert "009707" in ids(found["missing files"]) and "skip" in found["missing files"].remedy


def test_lengths_and_frames(whole):
    save(whole, "000001", load(whole, "000001", "new_joint_vecs")[:-3], "new_joint_vecs")
    for kind in ("new_joints", "new_joint_vecs"):
        save(whole, "000002", load(whole, "000002", kind)[:30], kind)
    (whole / "Mean.npy").unlink()
    (whole / "Std.npy").unlink()
    found = findings(whole, sample=0)
    assert complaints(found) == {"equal lengths": "warning"}
    assert ids(found["equal lengths"]) == {"000001"}
    assert found["frames"].level == "note" and found["frames"].ids["short"] == ["000002"]


def test_vectors_of_another_kind_are_named(whole):
    raw = load(whole, "000001")
    vectors = HumanML3DFeatures(uniform_skeleton=False, fixed=True).encode(motion(raw)).numpy()
    for kind, array in (("new_joint_vecs", vectors), ("new_joints", raw[:-1])):
        save(whole, "000001", array, kind)
    found = findings(whole, sample=100)
    assert complaints(found) == {"re-encoding": "warning"}
    assert found["re-encoding"].ids["they are `fixed` features of these joints"] == ["000001"]
    assert "`fixed` features" in found["re-encoding"].found
    assert not complaints(findings(whole, sample=0))
    assert found["re-encoding"].ids["folded"]  # clips that turn past -z are told, and are no fault


def test_a_spin_that_folds_drifts(whole):
    joints = load(whole, "000001")
    spun = np.stack([turned(frame, 6.0 * t) for t, frame in enumerate(joints)])
    spun = placed(spun + np.float32([1, 0, 0]))
    save(whole, "000001", spun[:-1])
    save(whole, "000001", HumanML3DFeatures(uniform_skeleton=False).encode(motion(spun)).numpy(), "new_joint_vecs")
    (whole / "Mean.npy").unlink()
    (whole / "Std.npy").unlink()
    found = findings(whole, sample=0)
    assert complaints(found) == {"decoding": "warning"}
    assert ids(found["decoding"]) == {"000001"}


def test_duplicates_across_splits(whole):
    for kind in ("new_joints", "new_joint_vecs"):
        save(whole, "000011", load(whole, "000001", kind), kind)  # 000011 is of test, 000001 of train
    found = findings(whole)
    assert complaints(found) == {"exact duplicates": "warning"}
    assert found["exact duplicates"].ids["clips of val and test that train has"] == ["000011"]
    assert found["exact duplicates"].ids["pairs"] == ["000001 = 000011"]


def test_near_duplicates_across_splits(joints_only):
    joints = load(joints_only, "000001")
    noise = np.random.default_rng(0).normal(scale=0.002, size=joints.shape)
    save(joints_only, "000011", placed((joints + noise).astype(np.float32)))
    found = findings(joints_only)
    assert complaints(found) == {"near duplicates": "warning"}
    assert "000001 = 000011" in found["near duplicates"].ids["pairs"]


def test_near_pairs_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 30)).astype(np.float32) * np.linspace(2, 0.05, 30, dtype=np.float32)
    points[200:300] = points[:100] + rng.normal(scale=0.05, size=(100, 30))
    frames = rng.choice([100, 103, 150], size=400)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    alike = np.abs(frames[:, None] - frames) <= 0.05 * np.maximum(frames[:, None], frames)
    expected = {(a, b) for a, b in np.argwhere(alike & (distance < 0.6)).tolist() if a < b}
    pairs, cut = near_pairs(points, frames, 0.6)
    assert not cut and len(expected) > 20
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)


def test_mirror_images_that_are_none(joints_only):
    save(joints_only, "M000000", load(joints_only, "000000"))
    found = findings(joints_only)
    assert complaints(found) == {"mirrored motion": "warning"}
    assert ids(found["mirrored motion"]) == {"M000000"}
    assert found["exact duplicates"].level == "note"  # both are of train


def test_captions_of_mirror_images(whole):
    text(whole, "000000").write_text("turns left#turn/VERB left/ADV#0.0#0.0\n")
    text(whole, "M000000").write_text("turns left#turn/VERB left/ADV#0.0#0.0\n")
    found = findings(whole)
    assert complaints(found) == {"mirrored words": "warning"}
    assert found["mirrored words"].ids == {"not exchanged": ["M000000"], "differ": []}
    text(whole, "M000000").write_text("turns right#turn/VERB right/ADV#0.0#0.0\n")
    assert not complaints(findings(whole))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a caption without fields\n",
        b"walks#walk/VERB#0.0#soon\n",
        b"walks#walk/VERB#-1#2\n",
        b" #walk/VERB#0.0#0.0\n",
        b"walks#walk#0.0#0.0\n",
        b"caf\xe9#cafe/NOUN#0.0#0.0\n",
    ],
)
def test_captions_in_another_format(whole, raw):
    text(whole, "000001").write_bytes(raw)
    found = findings(whole)
    assert complaints(found) == {"caption format": "error"}
    assert ids(found["caption format"]) == {"000001"}


@pytest.mark.parametrize("times", ["1.0#0.5", "2.0#2.0", "1.0#60.0"])
def test_times_that_are_not_in_the_clip(whole, times):
    append(text(whole, "000001"), f"waves#wave/VERB#{times}")
    append(text(whole, "000002"), "waves#wave/VERB#0.5#1.5")
    append(text(whole, "000004"), "waves#wave/VERB#nan#nan")
    found = findings(whole)
    assert complaints(found) == {"caption times": "warning"}
    assert ids(found["caption times"]) == {"000001"}


def test_captions_that_train_has_too(whole):
    line = "{}#walk/VERB#0.0#0.0\n"
    text(whole, "000001").write_text(line.format("A person is walking to the left."))
    for clip in (whole / "test.txt").read_text().split():
        own = ["a person is  walking to the LEFT", "the person walks left", "a person is walked to left", "swims"]
        text(whole, clip).write_text("".join(line.format(caption) for caption in own))
    found = findings(whole)["shared captions"]
    assert found.figures["test"] == {"verbatim": 0.25, "nearly": 0.5}
    assert "test 25.0% verbatim, 50.0% nearly" in found.found


def test_words_and_bags():
    assert words("A person's left-hand, waves!") == ["a", "person's", "left", "hand", "waves"]
    assert bag("The man is running and waving") == bag("a man is run and waves")
    assert bag("turns left") != bag("turns right")
    assert sides("Left-handed, turns anti-clockwise, clockwise, counter clockwise; leftovers, bright") == [
        "left",
        "counterclockwise",
        "clockwise",
        "counterclockwise",
    ]


def test_statistics_that_do_not_fit(whole):
    np.save(whole / "Mean.npy", np.load(whole / "Mean.npy") + 2 * np.load(whole / "Std.npy"))
    found = findings(whole)
    assert complaints(found) == {"statistics' fit": "warning"}
    assert found["statistics' fit"].figures["mean_off_in_std"] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("problem", ["exchanged", "alone", "NaN", "shape", "unreadable"])
def test_statistics_that_cannot_be_used(whole, problem):
    mean, std = np.load(whole / "Mean.npy"), np.load(whole / "Std.npy")
    if problem == "exchanged":
        np.save(whole / "Mean.npy", std)
        np.save(whole / "Std.npy", mean)
    elif problem == "alone":
        (whole / "Std.npy").unlink()
    elif problem == "unreadable":
        (whole / "Std.npy").write_bytes(b"no array")
    else:
        np.save(whole / "Std.npy", std * np.nan if problem == "NaN" else std[:-1])
    assert complaints(findings(whole)) == {"Mean and Std": "warning" if problem == "alone" else "error"}


@pytest.mark.parametrize("precision", [None, np.float32])
def test_published_statistics_are_told_apart(whole, shared_data, precision):
    """By the bytes of the files, and by value where they were saved again."""
    training = [np.load(shared_data / "humanml3d_lists" / f"{name}.npy") for name in ("Mean", "Std")]
    evaluator = [np.load(shared_data / "norm_stats" / f"mdm_t2m_{name}.npy") for name in ("mean", "std")]

    def put(mean, std):
        for name, array in (("Mean", mean), ("Std", std)):
            np.save(whole / f"{name}.npy", array if precision is None else array.astype(precision) * 1)
        return findings(whole)

    found = put(*training)
    assert found["Mean and Std"].level == "ok" and "own pair" in found["Mean and Std"].found
    assert found["statistics' fit"].level == "warning"  # the data are not HumanML3D
    found = put(*evaluator)
    assert complaints(found) == {"Mean and Std": "warning"} and "evaluator" in found["Mean and Std"].found
    assert "mixture" in put(training[0], evaluator[1])["Mean and Std"].found
    assert "exchanged" in put(training[0], training[0])["Mean and Std"].found
    (whole / "meta").mkdir()
    np.save(whole / "meta" / "mean_eval.npy", training[0])
    assert findings(whole)["other statistics"].level == "warning"
    np.save(whole / "meta" / "mean_eval.npy", evaluator[0])
    assert findings(whole)["other statistics"].level == "note"


def test_published_pairs_of_joints_and_vectors_agree(shared_data, tmp_path):
    source = shared_data / "parity" / "humanml3d_fork_haytham918"
    clips = ["007005", "011673", "012314", "M010655"]
    (tmp_path / "texts").mkdir()
    for kind in ("new_joints", "new_joint_vecs"):
        (tmp_path / kind).mkdir()
        for clip in clips:
            shutil.copy(source / f"{kind}_{clip}.npy", tmp_path / kind / f"{clip}.npy")
    for clip in clips:
        text(tmp_path, clip).write_text("moves#move/VERB#0.0#0.0\n")
    (tmp_path / "train.txt").write_text("".join(f"{clip}\n" for clip in clips))
    found = findings(tmp_path)
    assert not complaints(found), table(found.values())
    assert found["skeleton"].level == "ok" and found["re-encoding"].level == "ok"


def test_published_split_sizes(shared_data, tmp_path):
    for name in ("train", "val", "test"):
        shutil.copy(shared_data / "humanml3d_lists" / f"{name}.txt", tmp_path)
    found = findings(tmp_path)
    assert found["published sizes"].level == "ok" and "23,384" in found["published sizes"].found
    rewrite("val.txt", lambda ids: ids[:-1])(tmp_path)
    assert findings(tmp_path)["published sizes"].level == "warning"


def test_kit(clean, tmp_path):
    """21 joints and 251 features are told from the shapes; KIT's units and its mirrored x are no fault."""
    features = KITFeatures(uniform_skeleton=False)
    pose = [i for i, name in enumerate(HUMANML3D_22.names) if name in KIT_21.names]
    for kind in ("new_joints", "new_joint_vecs", "texts"):
        (tmp_path / kind).mkdir()
    for source, clip in (("000001", "00001"), ("000005", "00002")):
        joints = load(clean, source)
        body = np.zeros((len(joints), 21, 3), np.float32)
        for i in pose:
            body[:, KIT_21.index(HUMANML3D_22.names[i])] = joints[:, i]
        for side in ("left", "right"):  # a heel between ankle and foot
            ankle, heel, foot = (KIT_21.index(f"{side}_{name}") for name in ("ankle", "heel", "foot"))
            body[:, heel] = 0.7 * body[:, ankle] + 0.3 * body[:, foot]
        vectors = features.encode(Motion(torch.from_numpy(body), 12.5, KIT_21))
        save(tmp_path, clip, vectors.numpy(), "new_joint_vecs")
        save(tmp_path, clip, (features.to_joints(vectors).numpy() * features.units).astype(np.float32))
        text(tmp_path, clip).write_text("a person walks#a/DET person/NOUN walk/VERB#0.0#0.0\n")
    (tmp_path / "train.txt").write_text("00001\n00002\n")
    data, _ = examine(tmp_path)
    found = findings(tmp_path)
    assert data.layout is KIT and not complaints(found), table(found.values())
    assert found["re-encoding"].level == "ok" and found["decoding"].figures["max_m"] < 1e-3
    save(tmp_path, "00001", load(tmp_path, "00001") * np.float32([-1, 1, 1]))
    assert ids(findings(tmp_path)["left and right"]) == {"00001"}


@pytest.mark.parametrize("state", ["empty", "no lists", "garbage", "texts only"])
def test_bad_data_never_stop_the_check(whole, tmp_path, state):
    if state == "empty":
        (whole := tmp_path / "empty").mkdir()
    elif state == "no lists":
        for file in whole.glob("*.txt"):
            file.unlink()
    elif state == "garbage":
        for file in [file for file in whole.rglob("*") if file.is_file()]:
            file.write_bytes(b"\xff\x00 garbage")
    else:
        shutil.rmtree(whole / "new_joints")
        shutil.rmtree(whole / "new_joint_vecs")
    assert "error" in complaints(findings(whole)).values()


@pytest.mark.parametrize("kind", ["new_joints", "new_joint_vecs"])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e30])
def test_senseless_numbers_never_stop_the_check(whole, kind, value):
    save(whole, "000001", np.full_like(load(whole, "000001", kind), value), kind)
    with np.errstate(all="ignore"):
        found = findings(whole, sample=100)
    assert "000001" in ids(found["re-encoding"]) and complaints(found)["re-encoding"] == "warning"


def test_the_command_writes_json_and_is_strict_on_demand(whole, tmp_path, capsys):
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}
    check(str(whole), strict=True)
    save(whole, "000001", load(whole, "000001") + np.float32([0, 0.1, 0]))
    report = tmp_path / "out" / "report.json"
    check(str(whole), output=str(report))
    written = json.loads(report.read_text())
    by_name = {finding["check"]: finding for finding in written["findings"]}
    assert by_name["floor"]["ids"] == {"clips": ["000001"]} and written["levels"]["warning"] == 1
    assert "000001" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        check(str(whole), strict=True)
    assert exit_.value.code == 1
    assert set(before) == set(whole.rglob("*"))
    with pytest.raises(ValueError, match="not a folder"):
        check(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"\.json"):
        check(str(whole), output="report.txt")


@pytest.fixture(scope="module")
def imports(tmp_path_factory) -> dict[int, Path]:
    """One set imported twice, mirrored and with rotations: at 20 fps, with new_joints, and at 30, without."""
    root = tmp_path_factory.mktemp("imports")
    generate(root / "raw", 16)
    for file in (root / "raw" / "new_joints").glob("*.npy"):
        joints = torch.from_numpy(np.load(file))
        rotations, offsets = fit_rotations(joints, HUMANML3D_22)  # of a body that is rigid, then
        np.save(file, HUMANML3D_22.forward_kinematics(rotations, joints[:, 0], offsets=offsets).numpy())
        text(root / "raw", file.stem).write_text(f"turns left {file.stem}#turn/VERB#0.0#0.0\n")
    for fps in (20, 30):
        source = RawHumanML3D(str(root / "raw"), licence="CC0")
        options = ImportOptions(fps=float(fps), fit_rotations=True, mirror=True)
        import_recordings(source, root / str(fps), options, settings={"format": "lmm.HumanML3D", "folder": "raw"})
    return {fps: root / str(fps) for fps in (20, 30)}


@pytest.fixture(params=[20, 30])
def imported(imports, tmp_path, request) -> Path:
    return Path(shutil.copytree(imports[request.param], tmp_path / "import"))


@pytest.fixture
def at_20(imports, tmp_path) -> Path:
    return Path(shutil.copytree(imports[20], tmp_path / "20"))


@pytest.fixture
def at_30(imports, tmp_path) -> Path:
    return Path(shutil.copytree(imports[30], tmp_path / "30"))


def alter(folder: Path, clip: str, change: Callable[[Motion], Motion]) -> None:
    file = folder / "motions" / f"{clip}.npz"
    save_motion(file, change(load_motion(file)))


def lines_of(folder: Path, name: str = "manifest.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def write_lines(folder: Path, lines: list[dict], name: str = "manifest.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def line_of(lines: list[dict], split: str, number: int = 0) -> dict:
    return [line for line in lines if line["split"] == split and not line["id"].startswith("M")][number]


def test_an_import_has_no_warning(imported):
    found = findings(imported)
    assert not complaints(found), table(found.values())
    lines = lines_of(imported)
    fps = lines[0]["fps"]
    assert found["frames"].figures["hours"] == pytest.approx(sum(line["frames"] / fps for line in lines) / 3600)
    assert f"s at {fps:g} fps" in found["frames"].remedy + found["frames"].found
    assert (found["frame rate"].found, found["same joints"].level) == (f"{fps:g} fps", "ok")
    assert found["kinematics"].figures["max_mm"] < 0.1 and found["rotations"].figures["largest_defect"] < 1e-5
    assert found["import"].figures == {"clips": 32, "files": 16} and found["import"].found.endswith("mirror)")
    assert found["licences"].found == "CC0 32"
    assert found["flags"].figures["clips"]["rotations are fitted, not recorded"] == 32
    assert found["parts of speech"].level == "note"  # captions without tags


def with_rotations(change):
    return lambda motion: replace(motion, rotations=change(motion.rotations.clone()))


def scaled(rotations):
    rotations[3, 4] *= 1.01
    return rotations


def reflected(rotations):
    rotations[3, 4] *= -1
    return rotations


def yawed(rotations):
    turn = axis_angle_to_matrix(torch.tensor([0.0, math.radians(2.0), 0.0]))
    rotations[:, 0] = turn @ rotations[:, 0]
    return rotations


# what is done to the motion of clip 000001 -> the check that finds it, and its level
RECORDED = {
    "scaled": (with_rotations(scaled), "rotations", "error"),
    "reflected": (with_rotations(reflected), "rotations", "error"),
    "turned": (with_rotations(yawed), "kinematics", "warning"),
    "another rate": (lambda motion: replace(motion, fps=24.0), "frame rate", "error"),
    "one frame": (lambda motion: Motion(motion.joints[:1], motion.fps, motion.skeleton), "arrays", "error"),
    "off the floor": (lambda m: replace(m, joints=m.joints + torch.tensor([0, 0.1, 0])), "floor", "warning"),
    "another body": (
        lambda m: replace(m, skeleton=replace(m.skeleton, names=("hips", *m.skeleton.names[1:]))),
        "arrays",
        "error",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_damaged_motion_files(at_30, name):
    change, where, level = RECORDED[name]
    alter(at_30, "000001", change)
    found = findings(at_30)
    assert complaints(found) == {where: level}, table(found.values())
    assert ids(found[where]) == {"000001"}


@pytest.mark.parametrize("content", [b"", b"hello", "NaN"])
def test_a_motion_file_that_cannot_be_read(at_30, content):
    file = at_30 / "motions" / "000001.npz"
    if content == "NaN":
        arrays = dict(np.load(file))
        arrays["rotations"][2, 5, 1, 1] = np.nan
        np.savez(file, **arrays)
    else:
        file.write_bytes(content)
    found = findings(at_30)
    assert complaints(found) == {"arrays": "error"}
    assert found["arrays"].ids == {"motions": ["000001"]} and "motions/000001.npz" in found["arrays"].found


def test_how_far_forward_kinematics_is_off(at_30):
    joints = load_motion(at_30 / "motions" / "000001.npz").joints.numpy()
    alter(at_30, "000001", with_rotations(yawed))
    chord = np.linalg.norm((joints - joints[:, :1])[..., [0, 2]], axis=-1).max() * 2 * np.sin(np.radians(1))
    assert findings(at_30)["kinematics"].figures["max_mm"] == pytest.approx(1000 * chord, rel=1e-3)


@pytest.mark.parametrize(("fps", "found"), [(20, {}), (30, {"teleports": "warning"})])
def test_speeds_are_a_second_not_a_frame(imports, tmp_path, fps, found):
    folder = Path(shutil.copytree(imports[fps], tmp_path / "fast"))

    def jump(motion):
        joints = motion.joints.clone()
        joints[20:, :, 0] += 0.45 * torch.sign(joints[20, 0, 0] - joints[19, 0, 0])
        return replace(motion, joints=joints)

    for clip in ("000001", "M000001"):
        alter(folder, clip, jump)
        if fps == 20:
            save(folder, clip, load_motion(folder / "motions" / f"{clip}.npz").joints.numpy())
    assert complaints(findings(folder)) == found


def test_motions_and_new_joints_must_agree(at_20):
    save(at_20, "000001", load(at_20, "000001") + np.float32([0.001, 0, 0]))
    for clip in ("000002", "M000002"):
        save(at_20, clip, load(at_20, clip)[:-1])
    found = findings(at_20)
    assert complaints(found) == {"same joints": "warning", "equal lengths": "warning"}
    assert ids(found["same joints"]) == {"000001"} and ids(found["equal lengths"]) == {"000002", "M000002"}
    assert found["same joints"].figures["max_m"] == pytest.approx(0.001, rel=1e-2)


def test_new_joints_beside_motions_of_another_rate(at_20, imports):
    shutil.rmtree(at_20 / "motions")
    shutil.copytree(imports[30] / "motions", at_20 / "motions")
    found = findings(at_20)
    assert complaints(found) == {"equal lengths": "warning", "frame rate": "error"}
    assert "30 fps" in found["frame rate"].found and "20 fps" in found["frame rate"].found


def test_a_missing_motion_file(imported):
    (imported / "motions" / "000001.npz").unlink()
    found = findings(imported)
    assert complaints(found) == {"missing files": "error"} and ids(found["missing files"]) == {"000001"}


def test_motions_in_centimetres(at_30):
    def centimetres(motion):
        offsets = tuple((100 * x, 100 * y, 100 * z) for x, y, z in motion.skeleton.offsets)
        return replace(motion, joints=motion.joints * 100, skeleton=replace(motion.skeleton, offsets=offsets))

    for file in (at_30 / "motions").glob("*.npz"):
        alter(at_30, file.stem, centimetres)
    found = findings(at_30)
    assert complaints(found) == {"body size": "error"} and "centimetres" in found["body size"].found


def test_motions_without_rotations(at_30):
    alter(at_30, "000001", lambda motion: replace(motion, rotations=None))
    found = findings(at_30)
    assert not complaints(found)
    assert found["rotations"].level == "note" and ids(found["rotations"]) == {"000001"}


def test_no_texts_are_no_fault_but_some_are(imported):
    text(imported, "000001").unlink()
    assert complaints(findings(imported)) == {"missing files": "error"}
    shutil.rmtree(imported / "texts")
    found = findings(imported)
    assert not complaints(found) and found["captions"].level == "note"
    assert "require_captions: false" in found["captions"].remedy


def test_clips_of_one_recording_in_train_and_test(at_30):
    lines = lines_of(at_30)
    line_of(lines, "test")["file"] = line_of(lines, "train")["file"]
    write_lines(at_30, lines)
    found = findings(at_30)
    assert complaints(found) == {"recordings": "warning"}
    assert found["recordings"].ids["clips of val and test"] == [line_of(lines, "test")["id"]]


@pytest.mark.parametrize(("split", "level"), [("train", "note"), ("val", "warning")])
def test_source_files_that_are_copies(at_30, split, level):
    lines = lines_of(at_30)
    first, second = line_of(lines, "train"), line_of(lines, split, 1 if split == "train" else 0)
    second["sha256"] = first["sha256"]
    write_lines(at_30, lines)
    found = findings(at_30)
    assert found["source copies"].level == level and len(complaints(found)) == (level == "warning")
    assert found["source copies"].ids["files"] == [" = ".join(sorted([first["file"], second["file"]]))]


def test_lists_and_manifest_must_agree(at_30):
    lines = lines_of(at_30)
    gone = lines.pop()
    write_lines(at_30, [*lines, lines[0], gone | {"id": "extra"}])
    found = findings(at_30)
    assert complaints(found) == {"manifest": "warning"}
    assert found["manifest"].ids == {
        "not in the manifest": [gone["id"]],
        "not in a list": ["extra"],
        "twice in the manifest": [lines[0]["id"]],
    }


def test_what_an_import_says_is_told(at_30):
    lines = lines_of(at_30)
    lines[0] |= {"licence": "unknown", "flags": ["shorter than 2 s"]}
    write_lines(at_30, lines)
    write_lines(at_30, [{"file": "a.bvh", "reason": "a.bvh: ends too soon"}], "quarantine.jsonl")
    found = findings(at_30)
    assert not complaints(found)
    assert (found["licences"].level, found["licences"].found) == ("note", "CC0 31 · unknown 1")
    assert found["flags"].ids["shorter than 2 s"] == [lines[0]["id"]]
    assert found["quarantine"].level == "note" and "a.bvh: ends too soon" in found["quarantine"].found


@pytest.mark.parametrize(
    ("name", "content", "where", "level"),
    [
        ("manifest.jsonl", None, "import", "error"),
        ("manifest.jsonl", b"{", "import", "warning"),
        ("manifest.jsonl", b"\xff", "import", "warning"),
        ("manifest.jsonl", b'{"id": 1}\n', "import", "warning"),
        ("import.json", None, "import", "warning"),
        ("import.json", b"[]", "import", "warning"),
        ("quarantine.jsonl", b"1\n", "quarantine", "warning"),
    ],
)
def test_damaged_notes_of_an_import(at_30, name, content, where, level):
    (at_30 / name).unlink() if content is None else (at_30 / name).write_bytes(content)
    assert complaints(findings(at_30)) == {where: level}


def test_real_recordings(shared_data, tmp_path):
    """Bandai Namco's BVH at its own 30 fps; rotations fitted to a rigid body give the joints back."""
    source = BVH(str(shared_data / "raw_small" / "bandai"))
    options = ImportOptions(fps=30.0, fit_rotations=True)
    import_recordings(source, tmp_path / "out", options, settings={"format": "bvh", "folder": "bandai"})
    found = findings(tmp_path / "out")
    assert not complaints(found), table(found.values())
    assert found["licences"].level == "note" and found["kinematics"].figures["max_mm"] < 0.1


@pytest.mark.parametrize("folder", ["motion_data", "motion_data/vector_272"])
def test_another_layout_is_refused(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    np.save(tmp_path / folder / "a.npy", np.zeros((60, 272), np.float32))
    with pytest.raises(ValueError, match="lmm data import motionstreamer"):
        examine(tmp_path)
