"""AMASS and HumanML3D's index: joints against smplx, the published procedure written out, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs

from lmm.data.importing import ImportOptions, import_recordings
from lmm.data.sources.humanml3d import Caption
from lmm.data.sources.raw.amass import AMASS, read_poses
from lmm.data.sources.raw.humanml3d_index import HumanML3DIndex
from lmm.motion.body import SMPLH_52, SMPLX_55
from lmm.motion.skeleton import HUMANML3D_22
from tests.motion.body_models import body_arrays, write_body_model


def amass_arrays(frames: int = 12, *, joints: int = 52, fps: float = 120.0, gender: str = "female") -> dict:
    """A body upright in a z-up world, walking along y, everything moving."""
    random = np.random.default_rng(frames)
    poses = 0.2 * random.standard_normal((frames, joints, 3))
    poses[:, 0] = (Rotation.from_rotvec(poses[:, 0]) * Rotation.from_euler("x", 90, degrees=True)).as_rotvec()
    trans = np.stack([np.zeros(frames), np.arange(frames) / fps, np.full(frames, 0.9)], axis=1)
    rate = "mocap_framerate" if joints == 52 else "mocap_frame_rate"
    arrays = {"trans": trans, "betas": random.standard_normal(16), "gender": np.array(gender), rate: np.float64(fps)}
    if joints == 52:
        return arrays | {"poses": poses.reshape(frames, -1), "dmpls": np.zeros((frames, 8))}
    names = {"root_orient": 1, "pose_body": 21, "pose_jaw": 1, "pose_eye": 2, "pose_hand": 30}
    pieces = np.split(poses, np.cumsum(list(names.values()))[:-1], axis=1)
    arrays |= {name: piece.reshape(frames, -1) for name, piece in zip(names, pieces, strict=True)}
    return arrays | {"poses": poses.reshape(frames, -1), "surface_model_type": np.array("smplx")}


def save(file: Path, arrays: dict, **changed: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: value for name, value in (arrays | changed).items() if value is not None})
    return file


def smplx_joints(arrays: dict, skeleton, betas: int, **options: object) -> np.ndarray:
    """Joints by smplx's whole linear blend skinning on the same synthetic model, z up."""
    model = {key: torch.tensor(value.astype(np.float64)) for key, value in body_arrays(skeleton, **options).items()}
    parents = torch.tensor(skeleton.parents)
    shapes = torch.from_numpy(arrays["betas"][None, :betas])
    _, joints = lbs(
        shapes.expand(len(arrays["poses"]), -1),
        torch.from_numpy(arrays["poses"]),
        model["v_template"],
        model["shapedirs"][..., :betas],
        model["posedirs"].flatten(0, 1).T,
        model["J_regressor"],
        parents,
        model["weights"],
    )
    return joints.numpy() + arrays["trans"][:, None]


@pytest.mark.parametrize("skeleton", [SMPLH_52, SMPLX_55])
def test_joints_by_the_body_model_are_those_of_smplx(tmp_path, skeleton):
    arrays = amass_arrays(joints=skeleton.num_joints)
    file = save(tmp_path / "amass/KIT/3/kick poses.npz", arrays)
    write_body_model(tmp_path / "models", skeleton, gender="female", num_betas=16)
    (recording,) = AMASS(str(tmp_path / "amass"), body_models=str(tmp_path / "models")).read(file)
    motion = recording.motion
    used = 16 if skeleton is SMPLH_52 else 10
    x, y, z = np.moveaxis(smplx_joints(arrays, skeleton, used, num_betas=16), -1, 0)
    np.testing.assert_allclose(motion.joints.numpy(), np.stack([x, z, -y], axis=-1), atol=1e-5)
    assert recording.id == "KIT_3_kick_poses" and motion.fps == 120 and motion.skeleton.names == skeleton.names
    assert recording.flags == ("sub-data-set KIT",)
    family = "SMPLH" if skeleton is SMPLH_52 else "SMPLX"
    assert f"joints from the body model {family}_FEMALE.npz with {used} of 16 betas" in recording.operations
    np.testing.assert_allclose(recording.extra["betas"], arrays["betas"], rtol=1e-6)
    assert recording.extra["gender"] == "female"
    # forward kinematics of what the motion says of itself gives its joints; its rotations are those of the file
    again = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
    torch.testing.assert_close(again, motion.joints, atol=1e-5, rtol=0)
    recorded = Rotation.from_rotvec(arrays["poses"].reshape(-1, 3)).as_matrix().reshape(motion.rotations.shape)
    np.testing.assert_allclose(motion.rotations[:, 1:].numpy(), recorded[:, 1:], atol=1e-6)
    turned = Rotation.from_euler("x", -90, degrees=True).as_matrix() @ recorded[:, 0]
    np.testing.assert_allclose(motion.rotations[:, 0].numpy(), turned, atol=1e-6)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("skeleton", [SMPLH_52, SMPLX_55])
def test_without_body_models_the_template_is_posed(tmp_path, skeleton, parts):
    arrays = amass_arrays(joints=skeleton.num_joints)
    recorded = Rotation.from_rotvec(arrays["poses"].reshape(-1, 3)).as_matrix().reshape(12, -1, 3, 3)
    if parts and skeleton is SMPLX_55:
        del arrays["poses"]
    (recording,) = AMASS(str(tmp_path)).read(save(tmp_path / "CMU/1_stageii.npz", arrays))
    motion = recording.motion
    assert motion.skeleton is skeleton
    np.testing.assert_allclose(motion.rotations[:, 1:].numpy(), recorded[:, 1:], atol=1e-6)
    x, y, z = arrays["trans"].T
    np.testing.assert_allclose(motion.joints[:, 0].numpy(), np.stack([x, z, -y], axis=-1), atol=1e-6)
    again = skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
    torch.testing.assert_close(again, motion.joints, atol=1e-5, rtol=0)
    assert motion.joints[:, skeleton.index("head"), 1].min() > motion.joints[:, 0, 1].max()  # y is up
    assert "joints from the template body, shape ignored" in recording.flags


def test_the_files_own_joints_are_taken(tmp_path):
    arrays = amass_arrays(frames=60)
    joints = smplx_joints(arrays, SMPLH_52, 10)
    (recording,) = AMASS(str(tmp_path)).read(save(tmp_path / "a.npz", arrays, joints=joints[:, :22]))
    motion = recording.motion
    assert motion.skeleton.names == HUMANML3D_22.names and "joints as in the file" in recording.operations
    x, y, z = np.moveaxis(joints[:, :22], -1, 0)
    np.testing.assert_allclose(motion.joints.numpy(), np.stack([x, z, -y], axis=-1), atol=1e-6)
    again = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
    torch.testing.assert_close(again, motion.joints, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("path", "subset", "trimmed"),
    [
        ("KIT/3/a_poses.npz", "KIT", 0),
        ("MPI_HDM05/mm/a_poses.npz", "MPI_HDM05", 30),
        ("HDM05/mm/a_stageii.npz", "HDM05", 30),
        ("Transitions/mazen/a_stageii.npz", "Transitions", 5),
        ("Mine/s1/a_poses.npz", "Mine", 0),
    ],
)
def test_calibration_poses_are_trimmed(tmp_path, path, subset, trimmed):
    file = save(tmp_path / path, amass_arrays(frames=100, fps=10.0))
    file.with_suffix(".txt").write_text("walks\nstands##0.1#0.4\nsits##2#6\n")
    (recording,) = AMASS(str(tmp_path)).read(file)
    (whole,) = AMASS(str(tmp_path), trim=False).read(file)
    torch.testing.assert_close(recording.motion.joints, whole.motion.joints[trimmed:], atol=0, rtol=0)
    assert recording.flags[0] == f"sub-data-set {subset}"
    assert any("left out" in step for step in recording.operations) == bool(trimmed)
    seconds = trimmed / 10
    expected = [Caption("walks"), Caption("stands", 0.1, 0.4), Caption("sits", max(2 - seconds, 0), 6 - seconds)]
    if trimmed:
        del expected[1]
        assert "and 1 captions about them" in recording.operations[0]
    assert list(recording.captions) == expected
    # the sub-data-set is known from inside, too
    assert next(iter(AMASS(str(file.parent)).read(file))).flags[0] == (
        f"sub-data-set {subset}" if subset != "Mine" else "sub-data-set s1"
    )


def test_body_shapes_are_no_recordings(tmp_path):
    for name in ("shape.npz", "neutral_stagei.npz", "male_stagei.npz"):
        save(tmp_path / "KIT/3" / name, {"betas": np.zeros(16)})
    with pytest.raises(ValueError, match="body shapes only"):
        AMASS(str(tmp_path)).files()
    files = [save(tmp_path / "KIT/3" / name, amass_arrays()) for name in ("a_poses.npz", "b_stageii.npz")]
    assert AMASS(str(tmp_path)).files() == files


def _with(name: str, frame: slice, value: float) -> dict:
    array = amass_arrays()[name].copy()
    array[frame] = value
    return {name: array}


BROKEN = {
    "trans": ({"trans": None}, "has no trans"),
    "everything": (dict.fromkeys(amass_arrays()), "has no poses, trans, betas, gender, mocap_framerate"),
    "betas": ({"betas": None}, "has no betas"),
    "width": ({"poses": np.zeros((12, 153))}, r"poses are \(12, 153\), expected \(T, 156\)"),
    "frames": ({"trans": np.zeros((11, 3))}, r"trans are \(11, 3\) of float64, expected \(12, 3\)"),
    "empty": ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, r"poses are \(0, 156\)"),
    "nan": (_with("poses", slice(3, 6), np.nan), "poses hold NaN.*in 3 frames, 3 to 5"),
    "inf": (_with("trans", slice(7, 8), np.inf), "trans hold NaN, Inf.*in frame 7"),
    "huge": (_with("trans", slice(7, 8), 1e300), "trans hold NaN, Inf or more than 1000.*in frame 7"),
    "degrees": (_with("poses", slice(0, 12), 90.0), "more than 50"),
    "words": ({"trans": np.full((12, 3), "a")}, "trans are .* of <U1"),
    "pickled": ({"trans": np.array([None, {}])}, "no readable .npz .*allow_pickle"),
    "endless": ({"poses": np.zeros((200_000, 156), np.int8)}, "200000 frames of 52 joints are too many"),
    "rate 0": ({"mocap_framerate": 0.0}, "frame rate of 0.0"),
    "rate nan": ({"mocap_framerate": np.nan}, "frame rate of nan"),
    "rate huge": ({"mocap_framerate": 1e9}, "frame rate of 1000000000"),
    "rates": ({"mocap_framerate": np.ones(3)}, "frame rate of"),
    "gender": ({"gender": np.array("robot")}, "has the gender 'robot'"),
    "gender number": ({"gender": np.array(1)}, "gender is .* of int64, expected a word"),
    "shapes": ({"betas": np.zeros((12, 16))}, r"betas are \(12, 16\)"),
    "model": ({"surface_model_type": np.array("smplx")}, "is said to be smplx, but has 52 joints"),
    "joints": ({"joints": np.zeros((12, 24, 2))}, r"joints are \(12, 24, 2\)"),
    "other joints": ({"joints": np.zeros((12, 17, 3))}, r"joints are \(12, 17, 3\), expected \(T, J, 3\) with J of 22"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, case):
    changed, message = BROKEN[case]
    file = save(tmp_path / "x.npz", amass_arrays(), **changed)
    with pytest.raises(ValueError, match=message) as caught:
        list(AMASS(str(tmp_path)).read(file))
    assert "x.npz" in str(caught.value)


def test_a_pickle_called_npz_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(pickle.dumps(amass_arrays()))
    with pytest.raises(ValueError, match=r"x.npz is no readable .npz"):
        list(AMASS(str(tmp_path)).read(tmp_path / "x.npz"))


def test_a_recording_shorter_than_its_calibration_is_refused(tmp_path):
    file = save(tmp_path / "HDM05/a.npz", amass_arrays(frames=20, fps=10))
    with pytest.raises(ValueError, match=r"lasts 2.0 s, and the first 3 s of HDM05 are left out"):
        list(AMASS(str(tmp_path)).read(file))


def test_bytes_and_vectors_of_one_are_read_as_what_they_are(tmp_path):
    file = save(tmp_path / "x.npz", amass_arrays(), gender=np.array([b"female"]), mocap_framerate=np.array([59.94]))
    assert read_poses(file)[3:5] == ("female", 59.94)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_and_nothing_else_happens(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    file = save(folder / "x.npz", amass_arrays(frames=2))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content))
    try:
        (recording,) = AMASS(str(folder)).read(file)
    except ValueError as error:
        assert "x.npz" in str(error)
    else:
        assert torch.isfinite(recording.motion.rotations).all()


# --- HumanML3D's index ---

ROWS = """source_path,start_frame,end_frame,new_name
./pose_data/KIT/3/kick_poses.npy,0,7,000000.npy
./pose_data/humanact12/humanact12/P11.npy,0,-1,000001.npy
./pose_data/KIT/3/kick_poses.npy,4,20,000002.npy
./pose_data/MPI_HDM05/mm/a b_poses.npy,3,9,000003.npy
./pose_data/CMU/1/lost_poses.npy,0,5,000004.npy
./pose_data/BioMotionLab_NTroje/r/w_poses.npy,0,99,000005.npy
"""


def published(arrays: dict, joints: np.ndarray, leading: int, start: int, stop: int) -> np.ndarray:
    """What raw_pose_processing.ipynb does: thin, swap axes, trim, cut, flip."""
    step = int(float(arrays["mocap_framerate"]) / 20)
    data = np.stack([joints[i] for i in range(0, len(joints), step)])
    data = np.dot(data, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    data = data[leading:][start:stop]
    data[..., 0] *= -1
    return data


@pytest.fixture
def humanml3d(tmp_path) -> tuple[HumanML3DIndex, dict[str, dict]]:
    sources = {
        "KIT/3/kick_poses.npz": amass_arrays(frames=113, fps=100.0, gender="male"),
        "MPI_HDM05/mm/a b_poses.npz": amass_arrays(frames=240, fps=59.94, gender="neutral"),
        "BMLrub/r/w_poses.npz": amass_arrays(frames=400, fps=250.0),  # BioMotionLab_NTroje's name of today
    }
    for name, arrays in sources.items():
        save(tmp_path / "amass" / name, arrays)
    (tmp_path / "act/humanact12").mkdir(parents=True)
    random = np.random.default_rng(0)
    np.save(tmp_path / "act/humanact12/P11.npy", random.standard_normal((31, 24, 3)))
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "index.csv").write_text(ROWS)
    (lists / "train.txt").write_text("000000\n000001\nM000000\n")
    (lists / "test.txt").write_text("000003\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/000000.txt").write_text("a man kicks#a/DET man/NOUN kick/VERB#0.0#0.0\nhe stands#x#0.1#0.2\n")
    write_body_model(tmp_path / "models", SMPLH_52, gender="male", num_betas=16, seed=1)
    write_body_model(tmp_path / "models", SMPLH_52, gender="female", num_betas=16, seed=2)
    source = HumanML3DIndex(
        str(tmp_path / "amass"),
        index=str(lists / "index.csv"),
        body_models=str(tmp_path / "models"),
        texts=str(tmp_path / "texts"),
        humanact12=str(tmp_path / "act"),
    )
    return source, sources


def test_the_index_cuts_as_the_published_procedure(humanml3d):
    source, sources = humanml3d
    found = [file for file in source.files() if file not in source.missing()]
    clips = {clip.id: clip for file in found for clip in source.read(file)}
    assert sorted(clips) == ["000000", "000001", "000002", "000003", "000005"]
    cuts = {  # source, seed of the body by gender, leading frames, start, stop
        "000000": ("KIT/3/kick_poses.npz", 1, 0, 0, 7),
        "000002": ("KIT/3/kick_poses.npz", 1, 0, 4, 20),
        "000003": ("MPI_HDM05/mm/a b_poses.npz", 2, 60, 3, 9),
        "000005": ("BMLrub/r/w_poses.npz", 2, 0, 0, 99),
    }
    for name, (path, seed, *cut) in cuts.items():
        arrays = sources[path]
        joints = smplx_joints(arrays, SMPLH_52, 10, num_betas=16, seed=seed)
        expected = published(arrays, joints, *cut)
        motion = clips[name].motion
        assert motion.fps == 20 and motion.joints.shape == expected.shape
        np.testing.assert_allclose(motion.joints.numpy(), expected, atol=1e-5)
        again = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
        torch.testing.assert_close(again, motion.joints, atol=1e-5, rtol=0)
    assert not any("called" in flag for flag in clips["000000"].flags)
    assert "29.97 fps called 20 fps, as in HumanML3D" in clips["000003"].flags
    assert "20.8333 fps called 20 fps, as in HumanML3D" in clips["000005"].flags
    assert "ends before the index's last frame" in clips["000005"].flags
    assert "sub-data-set BioMotionLab_NTroje" in clips["000005"].flags
    assert clips["000000"].captions == (Caption("a man kicks"), Caption("he stands", 0.1, 0.2))
    assert "without a caption" in clips["000002"].flags
    assert [clips[name].split for name in sorted(clips)] == ["train", "train", None, "test", None]


def test_humanact12_is_taken_whole_and_not_turned(humanml3d, tmp_path):
    source, _ = humanml3d
    (file,) = [file for file in source.files() if file.suffix == ".npy"]
    (clip,) = source.read(file)
    raw = np.load(tmp_path / "act/humanact12/P11.npy")
    np.testing.assert_allclose(clip.motion.joints.numpy(), raw[:, :22], rtol=1e-6)
    assert clip.motion.rotations is None and clip.motion.skeleton is HUMANML3D_22 and clip.motion.fps == 20
    for array, message in (
        (raw[:, :21], r"is \(31, 21, 3\)"),
        (raw * np.nan, "NaN"),
        (np.array(None), "no readable .npy"),
    ):
        np.save(tmp_path / "act/humanact12/P11.npy", array)
        with pytest.raises(ValueError, match=message):
            list(source.read(file))


def test_what_the_index_names_and_nobody_has_is_reported(humanml3d, tmp_path):
    source, _ = humanml3d
    (lost,) = source.missing()
    assert lost in source.files() and lost.name == "lost_poses.npz"
    with pytest.raises(ValueError, match=r"lost_poses.npz: named by index.csv line 6 \(000004\) but not there"):
        list(source.read(lost))
    without = HumanML3DIndex(str(tmp_path / "amass"), index=str(source.index))
    act = next(file for file in without.missing() if file.suffix == ".npy")
    with pytest.raises(
        ValueError, match=r"line 3 \(000001\) but not there; unpack HumanML3D's pose_data/humanact12.zip"
    ):
        list(without.read(act))


def test_the_recordings_own_numbers_and_files_are_told(humanml3d):
    source, sources = humanml3d
    for name in ("KIT/3/kick_poses.npz", "MPI_HDM05/mm/a b_poses.npz"):
        file, arrays = source.folder / name, sources[name]
        for recording in source.read(file):
            own = (recording.source_frames, recording.source_fps)
            assert own == (len(arrays["trans"]), arrays["mocap_framerate"])
    depends = source.depends(source.folder / "KIT/3/kick_poses.npz")
    lists = {source.index, *(source.index.with_name(f"{name}.txt") for name in ("train", "val", "test"))}
    texts = {source.texts / f"{name}.txt" for name in ("000000", "000002")}
    assert set(depends) == {source.folder / "KIT/3/kick_poses.npz"} | lists | texts
    assert source.licence.startswith("AMASS")
    assert HumanML3DIndex(str(source.folder), index=str(source.index), licence="mine").licence == "mine"


def test_trimmed_recordings_tell_how_long_they_were(tmp_path):
    file = save(tmp_path / "HDM05/a.npz", amass_arrays(frames=40, fps=10))
    (recording,) = AMASS(str(tmp_path)).read(file)
    assert (recording.motion.num_frames, recording.source_frames) == (10, 40)


def test_an_archive_that_unpacks_to_absurdly_much_is_not_unpacked(tmp_path, monkeypatch):
    file = save(tmp_path / "x.npz", amass_arrays(), vertices=np.zeros(10**5))
    monkeypatch.setattr("lmm.motion.arrays._MAX_BYTES", 10**5)
    assert read_poses(file).fps == 120  # what is not read may be large
    np.savez_compressed(file, **(amass_arrays() | {"poses": np.zeros((10_000, 156))}))
    with pytest.raises(ValueError, match=r"x\.npz unpacks to 11 MiB, more than 0; cut it"):
        read_poses(file)


def test_a_whole_import(humanml3d, tmp_path):
    source, _ = humanml3d
    manifest, quarantine = import_recordings(source, tmp_path / "out", ImportOptions(mirror=True), settings={})
    ids = ["000000", "000001", "000002", "000003", "000005"]
    assert [line["id"] for line in manifest] == [*ids, *(f"M{name}" for name in ids)]
    assert [line["file"] for line in quarantine] == ["CMU/1/lost_poses.npz"]
    assert all(line["fps"] == 20 for line in manifest)
    assert {line["split"] for line in manifest if line["id"] in ("000000", "M000000")} == {"train"}


def test_a_recording_that_is_not_the_indexed_one_is_refused(humanml3d):
    source, sources = humanml3d
    file = save(source.folder / "KIT/3/kick_poses.npz", sources["KIT/3/kick_poses.npz"], mocap_framerate=600.0)
    with pytest.raises(ValueError, match=r"index.csv line 4 wants frames 4 to 20 of .*kick_poses.npz, which has 4"):
        list(source.read(file))
    save(file, sources["KIT/3/kick_poses.npz"], mocap_framerate=15.0)
    with pytest.raises(ValueError, match="has 15 fps"):
        list(source.read(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "does not begin with source_path,start_frame"),
        (ROWS + "./pose_data/KIT/x.npy,1\n", "index.csv:8 is not"),
        (ROWS + "./pose_data/KIT/x.npy,a,2,9.npy\n", "index.csv:8 is not"),
        (ROWS + "./pose_data/KIT/x.npy,5,5,9.npy\n", "index.csv:8: there are no frames 5 to 5"),
        (ROWS + "./pose_data/KIT/../../x.npy,0,5,9.npy\n", "names no file below pose_data"),
        (ROWS + "./pose_data/KIT/x.npy,0,5,000000.npy\n", "names 000000 again, which line 2 did"),
        (ROWS + "./pose_data/KIT/x.npy,0,5,../9.npy\n", r"index.csv:8: '../9.npy' cannot name a clip; use letters"),
        (ROWS + "./pose_data/KIT/x.npy,0,5,.npy\n", r"index.csv:8: '.npy' cannot name a clip"),
        (ROWS + "./pose_data/KIT/x.npy,0,5,a b.npy\n", r"index.csv:8: 'a b.npy' cannot name a clip"),
    ],
)
def test_broken_indices_say_where(humanml3d, text, message):
    source, _ = humanml3d
    source.index = source.index.with_name("broken") / "index.csv"
    source.index.parent.mkdir()
    source.index.write_text(text)
    with pytest.raises(ValueError, match=message):
        source.files()


def test_the_published_index(shared_data, tmp_path):
    index = shared_data / "humanml3d_lists" / "index.csv"
    source = HumanML3DIndex(str(tmp_path), index=str(index))
    files = source.files()
    assert len(files) == 11_715 and sum(file.suffix == ".npy" for file in files) == 1_191
    rows = [row for file in files for row in source._rows()[source._source(file)]]
    assert len(rows) == 14_616 and len({row.id for row in rows}) == 14_616
    lists = [
        (shared_data / "humanml3d_lists" / f"{split}.txt").read_text().split() for split in ("train", "val", "test")
    ]
    listed = {name for names in lists for name in names if name[0] != "M"}
    assert {row.id for row in rows} - listed == {"009707", "011059"}  # too short: in no split
    assert listed < {row.id for row in rows}
