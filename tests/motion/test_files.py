"""Motion files: what goes in comes out, and what is wrong is said."""

import io
import zipfile

import numpy as np
import pytest
import torch

from lmm.motion.files import load_caption, load_motion, save_motion
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

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


def test_npy_and_bvh(tmp_path):
    motion = human()
    for name in ("x.npy", "x.bvh", "X.BVH"):
        save_motion(tmp_path / name, motion, "a caption they cannot keep")
        back = load_motion(tmp_path / name)
        torch.testing.assert_close(back.joints, motion.joints, atol=1e-5, rtol=0)
        assert (back.fps, back.skeleton.names) == (20.0, HUMANML3D_22.names)
        assert load_caption(tmp_path / name) == ""


def test_npy_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"at 30 fps; save as \.npz"):
        save_motion(tmp_path / "x.npy", human(fps=30.0))
    with pytest.raises(ValueError, match="got 2 joints"):
        save_motion(tmp_path / "x.npy", Motion(torch.zeros(1, 2, 3), 20.0, ROD))


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh"])
def test_batches_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="one"):
        save_motion(tmp_path / name, Motion(torch.zeros(2, 5, 22, 3), 20.0, HUMANML3D_22))


def test_unknown_extension(tmp_path):
    with pytest.raises(ValueError, match=r"'\.fbx'; motions are kept as \.npz, \.npy, \.bvh"):
        load_motion(tmp_path / "x.fbx")
    with pytest.raises(ValueError, match="unknown extension ''"):
        save_motion(tmp_path / "x", human())


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh"])
def test_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match="no such file"):
        load_motion(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.bvh"])
@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00", bytes(range(256)) * 9])
def test_junk(tmp_path, name, junk):
    (tmp_path / name).write_bytes(junk)
    with pytest.raises(ValueError, match=name):
        load_motion(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 263), np.float32), r"are HumanML3D features, not joints; decode them first"),
        (np.zeros((9, 24, 3), np.float32), r"expected joints \(T, 22, 3\)"),
        (np.zeros((0, 22, 3), np.float32), r"expected joints"),
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
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="not a readable"):
            load_motion(tmp_path / name)


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
        ({"fps": 0.0}, "fps must be positive"),
        ({"fps": np.nan}, "fps is nan"),
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
    ],
)
def test_npz_that_is_no_motion(tmp_path, changes, message):
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_motion(tmp_path / "x.npz")
    assert "x.npz" in str(caught.value)
