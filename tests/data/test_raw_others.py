"""Raw sources besides AMASS and BVH: a motion that is written in a format comes back, and a bad file is named."""

import base64
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lmm.data.importing import ImportOptions, import_recordings
from lmm.data.sources.raw.humanml3d import HumanML3D
from lmm.data.sources.raw.joints import Joints
from lmm.data.sources.raw.kit import KIT
from lmm.data.sources.raw.motionstreamer import MotionStreamer
from lmm.data.sources.raw.motionx import MotionX
from lmm.data.sources.raw.smpl_video import SMPLVideo
from lmm.motion.body import SMPL_24, SMPLX_55
from lmm.motion.kinematics import world_rotations
from lmm.motion.motion import Motion
from lmm.motion.representations.motionstreamer import MotionStreamer272
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import face_forward, mirror, put_on_floor

FRAMES = 40
# (x, y, z) with y up as a file with another axis up has it: right-handed frames, written out by hand.
AS_SEEN = {
    "x": lambda p: np.stack([p[..., 1], -p[..., 0], p[..., 2]], -1),
    "y": lambda p: p,
    "z": lambda p: np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1),
    "-x": lambda p: np.stack([-p[..., 1], p[..., 0], p[..., 2]], -1),
    "-y": lambda p: np.stack([p[..., 0], -p[..., 1], -p[..., 2]], -1),
    "-z": lambda p: np.stack([p[..., 0], p[..., 2], -p[..., 1]], -1),
}
# What joblib 1.6 wrote of {0: {pose_world, trans_world, betas, frame_ids}} in a defaultdict, as WHAM does: 3 frames,
# all poses 0 but the root's, (0, 0.5, 0); trans_world is arange(9) in Fortran's order.
WHAM = zlib.decompress(
    base64.b85decode(
        "c-rk%%Sr<=6wUO3wkke~im2#P7rIh#Ay^Sa94P3<<&c?4O*Hdhl0mu<>Y`d9J8$=Xil5@2)TEv9LBWL!S3NMfdEG}2+%xS`Z`DErs3|YvoOqH&"
        "p#U}IlO|5N^qD8&1=OUQGA@}pDrI{exC9&B!<MSXks!`plyDzZ?Iv<Lb9ciuh+9s~yjxB{%{R>QI7x8pD#39~5*=at0gU^kNL`O(p<|Z^UZ5sI"
        "ADg=-by-jx6R?Z+*`r=XiLafNb)x6KZ0Qp^m(TR=LURwEyHC2dExV|!LufP_=Y5UAU?T~xs$$NgJ0}Qm3|+N4taOmi!JJ)(0STq!wj>c?&!ujq"
        "pJPZBIznUohA}^5e*T2sKFZZdCO8zCrqJo3QqWntKx<kEijP1Sm30bqnXb`|F5NVJYGwUduOsxPzqaPNt?hf=Y$Eh(>~U`=&rx=X#9}mh)kLRD"
        "KVp}^_y7O%a*@|uX(l)z4)aIr?&MXkr~*6q5<$8?DuJKxn(2Q>o-g|+ph9L-vHJlZecn$"
    )
)


def make_poses(joints: int = 55, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rotation vectors (T, J, 3) of somebody who stands, and a path (T, 3); smooth enough to be interpolated."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 3, FRAMES)[:, None, None] + rng.uniform(0, 6, size=(joints, 3))
    vectors = 0.15 * np.sin(phase)
    trans = np.stack([np.linspace(0, 1, FRAMES), np.full(FRAMES, 0.95), np.linspace(0, 2, FRAMES)], -1)
    return vectors, trans


def forward(vectors: np.ndarray, trans: np.ndarray, skeleton=HUMANML3D_22) -> np.ndarray:
    """Joints by scipy's rotations, in double precision."""
    local = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)
    world, joints = [local[:, 0]], [trans]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        joints.append(joints[parent] + world[parent] @ np.array(skeleton.offsets[joint]))
        world.append(world[parent] @ local[:, joint])
    return np.stack(joints, axis=1)


def seen(vectors: np.ndarray, trans: np.ndarray, up: str) -> tuple[np.ndarray, np.ndarray]:
    """The parameters of the same motion in a world with another axis up."""
    turn = Rotation.from_matrix(AS_SEEN[up](np.eye(3)).T)
    vectors = vectors.copy()
    vectors[:, 0] = (turn * Rotation.from_rotvec(vectors[:, 0])).as_rotvec()
    return vectors, turn.apply(trans)


def motion_x(vectors: np.ndarray, trans: np.ndarray, betas: np.ndarray | None = None) -> np.ndarray:
    """The published columns of SMPL-X's 55 joints: 22 of the body, jaw, eyes, hands."""
    array = np.zeros((len(vectors), 322))
    array[:, 0:66] = vectors[:, :22].reshape(len(vectors), -1)
    array[:, 66:156] = vectors[:, 25:].reshape(len(vectors), -1)
    array[:, 156:159] = vectors[:, 22]
    array[:, 309:312] = trans
    array[:, 312:322] = 0 if betas is None else betas
    return array


def save(file: Path, array: np.ndarray, text: Path | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array.astype(np.float32))
    if text:
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("a person stands\n")
    return file


def only(source):
    (file,) = source.files()
    (recording,) = source.read(file)
    return recording


def make_motion_x(folder: Path, array: np.ndarray) -> Path:
    text = folder / "texts/semantic_labels/idea400/Act cute.txt"
    save(folder / "motion_data/smplx_322/idea400/Act cute.npy", array, text)
    return folder


def make_humanml3d(folder: Path, splits: dict[str, list[str]] | None = None) -> Path:
    joints = forward(*make_poses(22))
    for clip in ("000000", "000001", "M000001"):
        save(folder / "new_joints" / f"{clip}.npy", joints, folder / "texts" / f"{clip}.txt")
    for name, ids in (splits or {}).items():
        (folder / f"{name}.txt").write_text("\n".join(ids) + "\n")
    return folder


def streamer_motion() -> Motion:
    vectors, trans = make_poses(22)
    rotations = torch.from_numpy(Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(FRAMES, 22, 3, 3))
    joints = torch.from_numpy(forward(vectors, trans))
    return Motion(joints.float(), 30.0, HUMANML3D_22, rotations.float())


def make_streamer(folder: Path, lists: str = "split") -> Path:
    features = MotionStreamer272().encode(streamer_motion()).numpy()
    save(folder / "motion_data/part/a.npy", features, folder / "texts/part/a.txt")
    (folder / lists).mkdir(parents=True)
    (folder / lists / "val.txt").write_text("part/a\n")
    return folder


@pytest.mark.parametrize("up", AS_SEEN)
def test_plain_joints_of_any_axis_and_unit(tmp_path, up):
    joints = forward(*make_poses(24), SMPL_24)
    save(tmp_path / "sub" / "walk 1.npy", AS_SEEN[up](joints) * 100, tmp_path / "sub" / "walk 1.txt")
    recording = only(Joints(str(tmp_path), source_fps=25, scale=0.01, up=up))
    assert recording.id == "sub_walk_1" and recording.motion.fps == 25 and recording.motion.skeleton is HUMANML3D_22
    np.testing.assert_allclose(recording.motion.joints, joints[:, :22], atol=1e-5)
    assert [caption.text for caption in recording.captions] == ["a person stands"]
    assert recording.flags == () and len(recording.operations) == 2 + (up != "y")


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda p: AS_SEEN["-y"](p), "upside down"),
        (lambda p: AS_SEEN["z"](p), "not upright"),
        (lambda p: p * [-1, 1, 1], "left and right are exchanged"),
        (lambda p: p * 39.37, "is scale right"),
    ],
)
def test_what_a_wrong_axis_side_or_unit_looks_like_is_flagged(tmp_path, change, flag):
    save(tmp_path / "a.npy", change(forward(*make_poses(22))))
    (found,) = only(Joints(str(tmp_path), source_fps=20)).flags
    assert flag in found


def test_studio_motion_has_no_posture_flags(shared_data):
    for name in ("bandai_humanml", "cmu_humanml_layout"):
        source = HumanML3D(str(shared_data / name))
        files = sorted((shared_data / name / "new_joints").glob("*.npy"))[::40]
        source.__dict__["_splits"] = {}  # clips that the lists leave out are looked at too
        assert [r.id for file in files for r in source.read(file) if r.flags] == []


@pytest.mark.parametrize("up", ["y", "z", "-y"])
def test_motion_x(tmp_path, up):
    vectors, trans = make_poses()
    vectors[:, 23:25] = 0  # the file has no eyes
    folder = make_motion_x(tmp_path, motion_x(*seen(vectors, trans, up), betas=np.arange(10)))
    recording = only(MotionX(str(folder), up=up))
    assert recording.id == "idea400_Act_cute" and recording.motion.fps == 30
    assert [caption.text for caption in recording.captions] == ["a person stands"]
    np.testing.assert_allclose(recording.motion.joints, forward(vectors, trans, SMPLX_55), atol=2e-6)
    placed = SMPLX_55.forward_kinematics(recording.motion.rotations, recording.motion.joints[:, 0])
    torch.testing.assert_close(placed, recording.motion.joints, atol=2e-6, rtol=0)
    assert recording.extra["betas"].tolist() == list(range(10))
    assert any("eyes" in said for said in recording.operations)
    assert not [flag for flag in recording.flags if "upright" in flag or "left" in flag]


def test_motion_x_with_a_body_model(tmp_path):
    vectors, trans = make_poses()
    vectors[:, 23:25] = 0
    rest = SMPLX_55.forward_kinematics(torch.eye(3).expand(55, 3, 3), torch.tensor([0.0, -0.35, 0.01])).numpy()
    taller = np.zeros((55, 3, 10))
    taller[..., 0] = rest * 0.1  # the first coefficient makes everything 10 % larger
    (tmp_path / "models/smplx").mkdir(parents=True)
    np.savez(
        tmp_path / "models/smplx/SMPLX_NEUTRAL.npz",
        v_template=rest,
        shapedirs=taller,
        J_regressor=np.eye(55),
        weights=np.eye(55),
        kintree_table=np.array([[2**32 - 1, *SMPLX_55.parents[1:]], range(55)]),
        f=np.array([[0, 1, 2]]),
    )
    folder = make_motion_x(tmp_path / "data", motion_x(vectors, trans, betas=np.eye(10)[0]))
    recording = only(MotionX(str(folder), body_models=str(tmp_path / "models")))
    scaled = np.array(SMPLX_55.offsets) * 1.1
    larger = SMPLX_55.__class__(SMPLX_55.names, SMPLX_55.parents, tuple(map(tuple, scaled)), SMPLX_55.parts)
    expected = forward(vectors, trans + np.array([0, -0.35, 0.01]) * 1.1, larger)
    np.testing.assert_allclose(recording.motion.joints, expected, atol=5e-6)
    np.testing.assert_allclose(recording.motion.skeleton.offsets[1:], scaled[1:], atol=1e-6)


def gvhmr(file: Path, vectors: np.ndarray, trans: np.ndarray) -> None:
    parameters = {"global_orient": vectors[:, 0], "body_pose": vectors[:, 1:22].reshape(len(vectors), -1)}
    parameters |= {"transl": trans, "betas": np.zeros((len(vectors), 10))}
    tensors = {name: torch.tensor(value).float() for name, value in parameters.items()}
    torch.save({"smpl_params_global": tensors, "smpl_params_incam": {}, "K_fullimg": torch.eye(3)}, file)


def wham(file: Path, vectors: np.ndarray, trans: np.ndarray, frames: np.ndarray | None = None) -> None:
    """As plain pickle.dump writes it; joblib's own bytes are in `WHAM`."""
    person = {
        "pose_world": vectors[:, :24].reshape(len(vectors), -1),
        "trans_world": trans,
        "verts": np.ones((2, 9, 3)),
    }
    person |= {"verts": np.ones((2, 9, 3)), "pose": np.zeros((len(vectors), 72)), "betas": np.zeros((len(vectors), 10))}
    person["frame_ids"] = np.arange(len(vectors)) if frames is None else frames
    file.write_bytes(pickle.dumps({7: person}))


def plain_npz(file: Path, vectors: np.ndarray, trans: np.ndarray) -> None:
    np.savez(file, poses=vectors[:, :22].reshape(len(vectors), -1), trans=trans, betas=np.zeros(10))


@pytest.mark.parametrize(("write", "name"), [(gvhmr, "a.pt"), (wham, "a.pkl"), (plain_npz, "a.npz")])
@pytest.mark.parametrize("up", ["y", "-y"])
def test_bodies_from_video(tmp_path, write, name, up):
    vectors, trans = make_poses(24)
    write(tmp_path / name, *seen(vectors, trans, up))
    (tmp_path / "a.txt").write_text("somebody dances\n")
    recording = only(SMPLVideo(str(tmp_path), source_fps=24, up=up))
    assert recording.id == ("a_7" if write is wham else "a") and recording.motion.fps == 24
    np.testing.assert_allclose(recording.motion.joints, forward(vectors[:, :22], trans), atol=2e-6)
    assert recording.captions[0].text == "somebody dances" and "estimated from video" in recording.flags
    assert any("22 and 23" in said for said in recording.operations) == (write is wham)


def test_what_joblib_wrote_is_read_without_joblib(tmp_path):
    (tmp_path / "wham_output.pkl").write_bytes(WHAM)
    motion = only(SMPLVideo(str(tmp_path))).motion
    assert motion.joints[:, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    expected = Rotation.from_rotvec([0, 0.5, 0]).as_matrix()
    np.testing.assert_allclose(world_rotations(motion.rotations, motion.skeleton)[2, 15], expected, atol=1e-6)


def test_a_track_with_gaps_gives_its_pieces(tmp_path):
    vectors, trans = make_poses(24)
    wham(tmp_path / "w.pkl", vectors, trans, np.concatenate([np.arange(10), np.arange(15, 45)]))
    source = SMPLVideo(str(tmp_path))
    recordings = list(source.read(tmp_path / "w.pkl"))
    assert [(r.id, r.motion.num_frames) for r in recordings] == [("w_7_f000000", 10), ("w_7_f000015", 30)]
    assert [r.source_frames for r in recordings] == [40, 40]
    np.testing.assert_allclose(recordings[1].motion.joints, forward(vectors[:, :22], trans)[10:], atol=2e-6)


@pytest.mark.parametrize(("person", "called"), [("../x y", ".._x_y"), (7, "7"), ("Zoë-1", "Zoë-1")])
def test_people_are_called_so_that_files_can_be(tmp_path, person, called):
    fields = {"poses": np.zeros((5, 66)), "trans": np.zeros((5, 3))}
    (tmp_path / "v.pkl").write_bytes(pickle.dumps({person: fields, "other": fields}))
    (tmp_path / f"v_{called}.txt").write_text("somebody lies\n")
    source = SMPLVideo(str(tmp_path))
    recording, other = source.read(tmp_path / "v.pkl")
    assert (recording.id, other.id) == (f"v_{called}", "v_other")
    assert (f"person {person!r} called {called}" in recording.operations) == (called != str(person))
    assert [caption.text for caption in recording.captions] == ["somebody lies"] and not other.captions
    assert tmp_path / f"v_{called}.txt" in source.depends(tmp_path / "v.pkl")


@pytest.mark.parametrize("twins", [("0", 0), ("a/b", "a_b")])
def test_people_of_one_name_are_refused(tmp_path, twins):
    fields = {"poses": np.zeros((5, 66)), "trans": np.zeros((5, 3))}
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(dict.fromkeys(twins, fields)))
    with pytest.raises(
        ValueError, match=rf"v\.pkl: people {twins[0]!r} and {twins[1]!r} would both be called .*rename"
    ):
        only(SMPLVideo(str(tmp_path)))


@pytest.mark.parametrize("name", ["v.npz", "v.pt"])
def test_bombs_are_not_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr("lmm.motion.arrays._MAX_BYTES", 10**5)
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("poses.npy", bytes(10**6))
    assert (tmp_path / name).stat().st_size < 10**4
    with pytest.raises(ValueError, match=rf"{name} unpacks to 0 MiB, more than 0; cut it"):
        only(SMPLVideo(str(tmp_path)))


def test_recordings_without_end_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "v.npz", poses=np.zeros((500_000, 66), np.int8), trans=np.zeros((500_000, 3)))
    with pytest.raises(ValueError, match=r"v\.npz: 500000 frames are too many"):
        only(SMPLVideo(str(tmp_path)))


def test_what_reading_a_file_uses(tmp_path):
    humanml3d = HumanML3D(str(make_humanml3d(tmp_path / "h", {"train": ["000000"]})))
    file = humanml3d.folder / "new_joints/000000.npy"
    own = [humanml3d.folder / name for name in ("texts/000000.txt", "train.txt", "index.csv")]
    assert sorted(humanml3d.depends(file)) == sorted([file, *own])
    streamer = MotionStreamer(str(make_streamer(tmp_path / "s")))
    (file,) = streamer.files()
    assert streamer.depends(file) == [file, streamer.folder / "texts/part/a.txt", streamer.folder / "split/val.txt"]
    moving = MotionX(str(make_motion_x(tmp_path / "x", motion_x(*make_poses()))), licence="mine")
    (file,) = moving.files()
    assert moving.depends(file) == [file, moving.folder / "texts/semantic_labels/idea400/Act cute.txt"]
    assert moving.licence == "mine" and MotionX(".").licence.startswith("Motion-X (non-commercial")


def _npz_with_header(header: bytes) -> bytes:
    """An archive with a ``poses.npy`` whose header is cut off."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("poses.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("header.npz", _npz_with_header(b"{'descr': '<f8', 'shape': (5, ")),
        ("evil.pkl", pickle.dumps({0: {"pose_world": Evil()}})),
        ("object.pkl", pickle.dumps({0: {"pose_world": np.array([Evil()])}})),
        ("lambda.pkl", b"cbuiltins\neval\n(S'1'\ntR."),
        ("attribute.pkl", b"\x80\x04\x8c\x05numpy\x8c\x0bload.system\x93."),
        ("empty.pkl", b""),
        ("cut.pkl", WHAM[:-400]),
        ("compressed.pkl", zlib.compress(WHAM)),
        ("evil.pt", None),
        ("text.pt", b"hello"),
        ("text.npz", b"hello"),
    ],
)
def test_foreign_pickles_run_nothing(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    if content is None:
        buffer = io.BytesIO()
        torch.save({"smpl_params_global": Evil()}, buffer)
        content = buffer.getvalue()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{name} (cannot be read safely.*save poses, trans and|is no readable \.npz)"
    ):
        only(SMPLVideo(str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"poses": np.zeros((5, 66))}, r"no SMPL parameters \(it has poses\)"),
        ({"pose": np.zeros((5, 72)), "trans": np.zeros((5, 3))}, "only poses in the camera's space"),
        ({"poses": np.zeros((5, 63)), "trans": np.zeros((5, 3))}, "63 numbers a frame"),
        ({"poses": np.full((5, 66), np.nan), "trans": np.zeros((5, 3))}, "poses contains NaN"),
        ({"poses": np.zeros((5, 66)), "trans": np.zeros((4, 3))}, "do not fit together"),
        ({"poses": np.zeros((5, 66)), "trans": np.zeros((5, 3)), "frame_ids": np.zeros(5)}, "frame_ids do not rise"),
        ({"poses": np.zeros((0, 66)), "trans": np.zeros((0, 3))}, "poses is no array of numbers"),
        ({"poses": np.zeros(66), "trans": np.zeros((5, 3))}, r"poses has shape \(66,\)"),
        ({"poses": np.array("x"), "trans": np.zeros((0, 3))}, "poses is no array of numbers"),
        ({"global_orient": np.zeros((5, 3)), "body_pose": np.zeros((4, 63)), "transl": np.zeros((5, 3))}, "do not fit"),
    ],
)
def test_bad_parameters_from_video_are_refused(tmp_path, fields, message):
    np.savez(tmp_path / "v.npz", **fields)
    with pytest.raises(ValueError, match=rf"v\.npz: .*{message}.*run GVHMR or WHAM"):
        only(SMPLVideo(str(tmp_path)))


def test_motionstreamer(tmp_path):
    motion = streamer_motion()
    recording = only(MotionStreamer(str(make_streamer(tmp_path))))
    assert (recording.id, recording.split, recording.motion.fps) == ("part_a", "val", 30)
    expected, found = (face_forward(put_on_floor(m)) for m in (motion, recording.motion))
    torch.testing.assert_close(found.joints, expected.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.rotations, expected.rotations, atol=1e-5, rtol=0)


def test_motionstreamer_of_the_publisher(shared_data, tmp_path):
    real = shared_data / "parity/motionstreamer_272"
    save(tmp_path / "motion_data/000000.npy", np.load(real / "rep272_000000.npy"))
    recording = only(MotionStreamer(str(tmp_path)))
    joints = torch.from_numpy(np.load(real / "joints55_facez_000000.npy")[:, :22])
    expected = face_forward(put_on_floor(Motion(joints, 30.0, HUMANML3D_22))).joints
    assert (face_forward(put_on_floor(recording.motion)).joints - expected).norm(dim=-1).max() < 1e-5
    poses = np.load(real / "smpl85_facez_000000.npy")[:, 3:66].reshape(-1, 3)
    body = Rotation.from_rotvec(poses).as_matrix().reshape(-1, 21, 3, 3)
    np.testing.assert_allclose(recording.motion.rotations[:, 1:], body, atol=1e-5)
    assert recording.flags == () and recording.captions == () and recording.split is None


def test_humanml3d_keeps_splits_and_flags_humanact12(tmp_path):
    folder = make_humanml3d(
        tmp_path, {"train": ["000000"], "test": ["000001", "M000001"], "hard": ["000001"], "all": ["x"]}
    )
    (folder / "index.csv").write_text(
        "source_path,start_frame,end_frame,new_name\n"
        "./pose_data/KIT/3/kick_poses.npy,0,117,000000.npy\n"
        "./pose_data/humanact12/humanact12/P11.npy,0,-1,000001.npy\n"
    )
    source = HumanML3D(str(folder))
    found = [recording for file in source.files() for recording in source.read(file)]
    assert [(r.id, r.split, len(r.flags)) for r in found] == [
        ("000000", "train", 0),
        ("000001", "test", 1),
        ("M000001", "test", 1),
    ]
    np.testing.assert_allclose(found[0].motion.joints, forward(*make_poses(22)), atol=1e-6)
    assert found[0].motion.fps == 20 and found[0].captions[0].text == "a person stands"


def test_kit_is_refused_with_the_way_to_use_it(tmp_path):
    with pytest.raises(ValueError, match=r"21 joints cannot become.*lmm\.data\.sources\.KIT"):
        KIT(str(make_humanml3d(tmp_path))).files()


def _write(array):
    return lambda file: np.save(file, array)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_write(np.full((FRAMES, 22, 3), np.nan)), "contains NaN or Inf"),
        (_write(np.zeros((FRAMES, 21, 3))), "has shape"),
        (_write(np.zeros((FRAMES, 66))), "has shape"),
        (_write(np.zeros((0, 22, 3))), "has shape"),
        (_write(np.array([{}])), "not a readable"),
        (lambda file: file.write_bytes(b"junk"), "not a readable"),
        (lambda file: file.write_bytes(b""), "not a readable"),
    ],
)
@pytest.mark.parametrize("kind", ["joints", "humanml3d", "motionx", "motionstreamer"])
def test_bad_arrays_are_refused_by_name(tmp_path, kind, spoil, message):
    if kind == "joints":
        save(tmp_path / "000000.npy", forward(*make_poses(22)))
        source = Joints(str(tmp_path), source_fps=20)
    elif kind == "humanml3d":
        source = HumanML3D(str(make_humanml3d(tmp_path)))
    elif kind == "motionx":
        source = MotionX(str(make_motion_x(tmp_path, motion_x(*make_poses()))))
        message = "has shape" if "NaN" in message else message  # (T, 22, 3) is no (T, 322)
    else:
        source = MotionStreamer(str(make_streamer(tmp_path)))
        message = "has shape" if "NaN" in message else message
    file = source.files()[0]
    spoil(file)
    with pytest.raises(ValueError, match=rf"{file.name}.* {message}.*move it out of the folder"):
        list(source.read(file))


@pytest.mark.parametrize(
    ("source", "make", "spoil", "message"),
    [
        (MotionX, lambda d: make_motion_x(d, np.full((5, 322), np.inf)), None, "contains NaN or Inf"),
        (
            MotionX,
            lambda d: make_motion_x(d, motion_x(*make_poses())),
            "texts/semantic_labels/idea400/Act cute.txt",
            r"Act cute\.txt is missing; write it, or move",
        ),
        (MotionStreamer, make_streamer, "texts/part/a.txt", r"a\.txt is missing; write it, or move"),
        (HumanML3D, make_humanml3d, "texts/000000.txt", r"000000\.txt is missing; write it, or move"),
        (HumanML3D, lambda d: make_humanml3d(d, {"train": ["000001"]}), None, r"000000\.npy is in no split list"),
        (MotionStreamer, lambda d: _swap_list(make_streamer(d)), None, r"a\.npy is in no list.*add part/a to one"),
        (MotionX, lambda d: d, None, "has no folder motion_data/smplx_322"),
        (MotionStreamer, lambda d: d, None, "has no folder motion_data"),
        (HumanML3D, lambda d: d / "gone", None, "is not a folder"),
    ],
)
def test_bad_folders_are_refused_by_name(tmp_path, source, make, spoil, message):
    opened = source(str(make(tmp_path)))
    if spoil:
        (tmp_path / spoil).unlink()
    with pytest.raises(ValueError, match=message):
        list(opened.read(opened.files()[0]))


def _swap_list(folder: Path) -> Path:
    (folder / "split/val.txt").write_text("part/b\n")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Joints(".", source_fps=0), "source_fps: 0 fps is no frame rate"),
        (lambda: MotionX(".", source_fps=1e-3), "source_fps: 0.001 fps is no frame rate"),
        (lambda: SMPLVideo(".", source_fps=float("nan")), "source_fps: nan fps is no frame rate"),
        (lambda: Joints(".", source_fps=20, scale=-1), "scale"),
        (lambda: MotionX(".", up="w"), "up must be one of x, -x, y"),
        (lambda: SMPLVideo(".", up="Y"), "up must be one of"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_they_go_through_an_import(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        vectors, trans = make_poses(seed=number)
        gvhmr(tmp_path / "in" / f"{number}.pt", vectors, trans)
    (tmp_path / "in/4.pt").write_bytes(b"junk")
    options = ImportOptions(mirror=True)
    manifest, quarantine = import_recordings(SMPLVideo(str(tmp_path / "in")), tmp_path / "out", options, settings={})
    assert len(manifest) == 8 and [line["file"] for line in quarantine] == ["4.pt"]
    joints = np.load(tmp_path / "out/new_joints/M0.npy")
    vectors, trans = make_poses(seed=0)
    start = torch.from_numpy(forward(vectors[:, :22], trans)[:1]).float()
    expected = mirror(face_forward(put_on_floor(Motion(start, 30.0, HUMANML3D_22)))).joints[0]
    np.testing.assert_allclose(joints[0] - joints[0, :1], expected - expected[:1], atol=1e-5)
