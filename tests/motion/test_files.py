"""Motion files: what goes in comes out, and what is wrong is said."""

import gzip
import io
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lmm.data.sources.procedural.clips import make_clip
from lmm.motion.files import check_written, load_caption, load_extra, load_motion, save_motion
from lmm.motion.motion import Motion
from lmm.motion.representations.kit import KIT_21
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

from .test_gltf import MOTIONS

ROD = Skeleton(("base", "tip"), (-1, 0), ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)), {"low": (0,), "high": (1,)})


def human(num_frames: int = 5, fps: float = 20.0) -> Motion:
    rotations = torch.eye(3).repeat(num_frames, 22, 1, 1)
    root = torch.linspace(0, 1, num_frames)[:, None].repeat(1, 3)
    return Motion(HUMANML3D_22.forward_kinematics(rotations, root), fps, HUMANML3D_22, rotations)


def test_npz_keeps_everything(tmp_path):
    motion = Motion(torch.randn(7, 2, 3), 29.97, ROD, torch.eye(3).repeat(7, 2, 1, 1))
    save_motion(tmp_path / "x.npz", motion, "läuft </script> 走る")
    back = load_motion(tmp_path / "x.npz")
    assert torch.equal(back.joints, motion.joints) and torch.equal(back.rotations, motion.rotations)
    assert (back.fps, back.skeleton) == (29.97, ROD)
    assert load_caption(tmp_path / "x.npz") == "läuft </script> 走る"


def test_npz_of_the_usual_body(tmp_path):
    save_motion(str(tmp_path / "x.npz"), human())
    back = load_motion(str(tmp_path / "x.npz"))
    assert back.skeleton == HUMANML3D_22 and list(back.skeleton.parts) == list(HUMANML3D_22.parts)
    assert load_caption(tmp_path / "x.npz") == ""


def procedural() -> Motion:
    return Motion(torch.from_numpy(make_clip(3)[1]), 20.0, HUMANML3D_22)


@pytest.mark.parametrize("ending", ["npz", "npy", "bvh", "glb", "gltf"])
@pytest.mark.parametrize("make", [procedural, *MOTIONS.values()], ids=lambda make: make.__name__)
def test_every_format_gives_every_motion_back(tmp_path, make, ending):
    motion, file = make(), tmp_path / f"x.{ending}"
    if ending == "npy" and (motion.fps, motion.skeleton) != (20.0, HUMANML3D_22):
        with pytest.raises(ValueError, match=r"got \d+ joints at .* fps; .*lmm convert"):
            save_motion(file, motion)
        return
    save_motion(file, motion)
    assert check_written(file, motion) < (2e-4 if ending != "npz" else 1e-9)


def test_check_written_sees_what_is_wrong(tmp_path):
    motion = human()
    save_motion(tmp_path / "x.glb", motion)
    moved = motion.joints.clone()
    moved[3, 20, 2] += 0.05
    assert check_written(tmp_path / "x.glb", replace(motion, joints=moved)) == pytest.approx(0.05, abs=1e-4)
    short = Motion(motion.joints[1:], motion.fps, motion.skeleton)
    for other in (short, replace(motion, fps=30.0), Motion(torch.zeros(5, 2, 3), 20.0, ROD)):
        with pytest.raises(ValueError, match="reads back as 5 frames of 22 joints at 20 fps"):
            check_written(tmp_path / "x.glb", other)
    twins = replace(ROD, names=("a", "a"))
    with pytest.raises(ValueError, match="two joints of one name"):
        check_written(tmp_path / "x.glb", Motion(torch.zeros(5, 2, 3), 20.0, twins))


def test_npz_has_what_amass_readers_look_for(tmp_path):
    turns = 2 * torch.randn(9, 22, 3, generator=torch.Generator().manual_seed(0))
    turns[0, 0], turns[0, 1] = torch.tensor([0.0, torch.pi, 0.0]), 0.0
    rotations = axis_angle_to_matrix(turns)
    motion = Motion(HUMANML3D_22.forward_kinematics(rotations, torch.rand(9, 3)), 30.0, HUMANML3D_22, rotations)
    betas = np.arange(16.0)
    save_motion(tmp_path / "x.npz", motion, extra={"betas": betas, "gender": np.array("female")})
    with np.load(tmp_path / "x.npz") as file:
        assert (file["poses"].shape, file["trans"].shape, float(file["mocap_framerate"])) == ((9, 66), (9, 3), 30.0)
        np.testing.assert_array_equal(file["trans"], motion.joints[:, 0].numpy())
        poses = Rotation.from_rotvec(file["poses"].reshape(-1, 3)).as_matrix()
        np.testing.assert_allclose(poses, rotations.reshape(-1, 3, 3), atol=2e-6)
        assert not file["poses"].reshape(9, 22, 3)[0, 1].any()
    extra = load_extra(tmp_path / "x.npz")
    assert set(extra) == {"betas", "gender"} and np.array_equal(extra["betas"], betas) and extra["gender"] == "female"
    for others in (replace(motion, rotations=None), Motion(torch.zeros(1, 2, 3), 20.0, ROD, torch.zeros(1, 2, 3, 3))):
        save_motion(tmp_path / "y.npz", others)
        with np.load(tmp_path / "y.npz") as file:
            assert "poses" not in file.files
    assert load_extra(tmp_path / "y.npz") == {} and load_extra(tmp_path / "y.bvh") == {}


def test_what_a_format_cannot_keep_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fps, trans are the motion's own"):
        save_motion(tmp_path / "x.npz", human(), extra={"trans": np.zeros(3), "fps": np.zeros(1)})
    with pytest.raises(ValueError, match=r"cannot keep betas; save as \.npz"):
        save_motion(tmp_path / "x.glb", human(), extra={"betas": np.zeros(3)})
    with pytest.raises(ValueError, match="rigid is for"):
        save_motion(tmp_path / "x.npy", human(), rigid=True)
    assert not list(tmp_path.iterdir())


def test_frame_rates_of_files_that_tell_none(tmp_path):
    save_motion(tmp_path / "x.npy", human())
    assert load_motion(tmp_path / "x.npy", fps=30.0).fps == 30.0
    for name in ("x.npz", "x.bvh"):
        save_motion(tmp_path / name, human())
        with pytest.raises(ValueError, match="tells its own frame rate"):
            load_motion(tmp_path / name, fps=30.0)
    save_motion(tmp_path / "x.glb", human())
    assert load_motion(tmp_path / "x.glb", fps=40.0).num_frames == 9


def test_scale_of_bvh(tmp_path):
    save_motion(tmp_path / "x.bvh", human())
    torch.testing.assert_close(load_motion(tmp_path / "x.bvh", scale=1.0).joints, 100 * human().joints)


def test_packed_bvh(tmp_path):
    save_motion(tmp_path / "x.bvh", human())
    packed = gzip.compress((tmp_path / "x.bvh").read_bytes())
    for name in ("y.bvh.gz", "y.BVH.GZ"):
        (tmp_path / name).write_bytes(packed)
        assert check_written(tmp_path / name, human()) < 1e-5 and load_caption(tmp_path / name) == ""
    (tmp_path / "y.bvh.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match=r"y\.bvh\.gz: not a sound \.gz"):
        load_motion(tmp_path / "y.bvh.gz")
    with pytest.raises(ValueError, match=r"unknown extension '\.bvh\.gz'"):
        save_motion(tmp_path / "z.bvh.gz", human())


def test_kit_joints(tmp_path):
    """Published new_joints: 640 units a metre, the body's left at -x."""
    joints = np.random.default_rng(0).random((5, 21, 3), np.float32)
    np.save(tmp_path / "x.npy", joints)
    motion = load_motion(tmp_path / "x.npy")
    assert (motion.skeleton, motion.fps) == (KIT_21, 12.5)
    np.testing.assert_allclose(motion.joints * torch.tensor([-640.0, 640.0, 640.0]), joints, rtol=1e-6)
    save_motion(tmp_path / "y.npy", motion)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), joints, rtol=1e-6)
    assert check_written(tmp_path / "y.npy", motion) < 1e-6


def test_asf_amc(tmp_path, shared_data):
    for name in ("02.asf.gz", "02_01.amc.gz"):
        shutil.copy(shared_data / "raw_small" / "cmu_asfamc" / name, tmp_path)
    motion = load_motion(tmp_path / "02_01.amc.gz")
    assert (motion.num_frames, motion.fps, load_motion(tmp_path / "02_01.amc.gz", fps=60.0).fps) == (343, 120.0, 60.0)
    for ending in ("npz", "bvh", "glb"):
        save_motion(tmp_path / f"x.{ending}", motion)
        assert check_written(tmp_path / f"x.{ending}", motion) < 1e-4


def test_npy_and_bvh(tmp_path):
    motion = human()
    for name in ("x.npy", "x.bvh", "X.BVH"):
        save_motion(tmp_path / name, motion, "a caption they cannot keep")
        back = load_motion(tmp_path / name)
        torch.testing.assert_close(back.joints, motion.joints, atol=1e-5, rtol=0)
        assert (back.fps, back.skeleton.names) == (20.0, HUMANML3D_22.names)
        assert load_caption(tmp_path / name) == ""


def test_npy_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"at 30 fps; resample it \(lmm convert --fps 20\), or save as \.npz"):
        save_motion(tmp_path / "x.npy", human(fps=30.0))
    with pytest.raises(ValueError, match=r"got 2 joints.*lmm convert --format bvh"):
        save_motion(tmp_path / "x.npy", Motion(torch.zeros(1, 2, 3), 20.0, ROD))


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh", "x.glb", "x.gltf"])
def test_batches_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="one"):
        save_motion(tmp_path / name, Motion(torch.zeros(2, 5, 22, 3), 20.0, HUMANML3D_22))


def test_unknown_extension(tmp_path):
    with pytest.raises(ValueError, match=r"'\.fbx'; motions are kept as \.npz, \.npy, \.bvh, \.glb, \.gltf, \.bvh"):
        load_motion(tmp_path / "x.fbx")
    with pytest.raises(ValueError, match="unknown extension ''"):
        save_motion(tmp_path / "x", human())


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh", "x.glb", "x.gltf"])
def test_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match="no such file"):
        load_motion(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh", "x.glb", "x.gltf"])
@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00", bytes(range(256)) * 9])
def test_junk(tmp_path, name, junk):
    (tmp_path / name).write_bytes(junk)
    with pytest.raises(ValueError, match=name):
        load_motion(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((9, 263), np.float32),
            r"\(T, 263\) are features.* lmm convert x\.npy OUT --representation HumanML3DFeatures",
        ),
        (np.zeros((9, 24, 3), np.float32), r"expected joints \(T, 22, 3\)"),
        (np.zeros((0, 22, 3), np.float32), r"expected joints"),
        (np.float32(3), "holds one number"),
        (np.zeros((9, 22, 3), "U3"), r"expected joints"),
        (np.full((9, 22, 3), np.nan, np.float32), "NaN or Inf"),
    ],
)
def test_npy_of_something_else(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=rf"x\.npy: .*{message}"):
        load_motion(tmp_path / "x.npy")


def test_npy_is_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable"):
        load_motion(tmp_path / "x.npy")


def test_a_header_that_lies_about_its_size_allocates_nothing(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 22, 3)})
    (tmp_path / "x.npy").write_bytes(head.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("joints.npy", head.getvalue() + bytes(100))
    for name, message in (("x.npy", "not a readable"), ("x.npz", "more memory than there is|no readable")):
        with pytest.raises(ValueError, match=rf"{name}:? .*{message}"):
            load_motion(tmp_path / name)


def test_only_what_is_needed_is_unpacked_and_never_absurdly_much(tmp_path, monkeypatch):
    save_motion(tmp_path / "x.npz", human(), "stands", extra={"large": np.zeros(10**6)})
    monkeypatch.setattr("lmm.motion.arrays._MAX_BYTES", 10**5)
    assert load_motion(tmp_path / "x.npz").num_frames == 5 and load_caption(tmp_path / "x.npz") == "stands"
    assert load_extra(tmp_path / "x.npz", ["betas"]) == {}
    for names in (None, ["large"]):
        with pytest.raises(ValueError, match=r"x\.npz unpacks to 7 MiB, more than 0; cut it"):
            load_extra(tmp_path / "x.npz", names)
    save_motion(tmp_path / "y.npz", human(500))
    with pytest.raises(ValueError, match=r"y\.npz unpacks to .* MiB.*cut it"):
        load_motion(tmp_path / "y.npz")


def test_small_numbers_do_not_become_large_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr("lmm.motion.files._MAX_POSES", 100)
    np.savez(tmp_path / "x.npz", **arrays(joints=np.zeros((51, 2, 3), np.int8)))
    with pytest.raises(ValueError, match=r"x\.npz: 51 frames of 2 joints are too many"):
        load_motion(tmp_path / "x.npz")


@pytest.mark.parametrize("fps", [1e-10, 0.5, 1001.0, float("nan")])
@pytest.mark.parametrize("name", ["x.npz", "x.bvh", "x.glb", "x.npy"])
def test_absurd_frame_rates_are_refused(tmp_path, name, fps):
    if fps > 0:
        with pytest.raises(ValueError, match=rf"{name}: .* fps is no frame rate.* 1 to 1000"):
            save_motion(tmp_path / name, replace(human(), fps=fps))
        assert not (tmp_path / name).exists()
    if name in ("x.npy", "x.glb"):
        save_motion(tmp_path / name, human())
        with pytest.raises(ValueError, match=rf"{name}: .*fps is no frame rate"):
            load_motion(tmp_path / name, fps=fps)


def arrays(**changes: object) -> dict[str, object]:
    good = {
        "joints": np.zeros((4, 2, 3), np.float32),
        "fps": 20.0,
        "names": np.array(["base", "tip"]),
        "parents": np.array([-1, 0]),
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_npz_with_only_the_necessary(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays())
    assert load_motion(tmp_path / "x.npz").skeleton.parts == {"body": (0, 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": None}, "has no fps"),
        ({"joints": None, "poses": np.zeros(3)}, r"has no joints \(it holds .*poses\)"),
        ({"fps": 0.0}, "0 fps is no frame rate"),
        ({"fps": 20 / 1e6}, "2e-05 fps is no frame rate of a motion; expected 1 to 1000"),
        ({"fps": np.nan}, "nan fps is no frame rate"),
        ({"parents": np.array([-1, 1])}, "every parent before"),
        ({"parents": np.array([-1])}, "equally long"),
        ({"joints": np.zeros((4, 3, 3))}, r"expected joints"),
        ({"joints": np.zeros((4, 5, 2, 3))}, r"one motion"),
        ({"joints": np.zeros((0, 2, 3))}, r"expected joints"),
        ({"joints": np.full((4, 2, 3), np.inf)}, "NaN or Inf"),
        ({"rotations": np.full((4, 2, 3, 3), np.nan)}, "finite rotations"),
        ({"rotations": np.zeros((4, 2, 3))}, "finite rotations"),
        ({"names": np.array([], "U1")}, "joint"),
        ({"parts": np.array(["a"])}, "parts"),
        ({"offsets": np.zeros((2, 2))}, "x.npz"),
        ({"offsets": np.full((2, 3), np.nan)}, "offsets contain NaN"),
        ({"offsets": np.array(["a", "b"])}, "x.npz"),
    ],
)
def test_npz_that_is_no_motion(tmp_path, changes, message):
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_motion(tmp_path / "x.npz")
    assert "x.npz" in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("ending", ["npz", "npy", "bvh", "gltf"])
def test_flipped_and_missing_bytes_give_a_motion_or_a_value_error(tmp_path, ending, data):
    whole = tmp_path / f"whole.{ending}"
    if not whole.exists():
        save_motion(whole, human(), "walks")
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    (tmp_path / f"x.{ending}").write_bytes(raw)
    for read in (load_motion, load_caption):
        try:
            read(tmp_path / f"x.{ending}")
        except ValueError as error:
            assert f"x.{ending}" in str(error)
