"""BVH: round trips on rigid bodies, foreign files, and files that are broken."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.motion.bvh import read_bvh, write_bvh
from lmm.motion.files import load_motion
from lmm.motion.kinematics import fit_rotations, local_translations, world_rotations
from lmm.motion.motion import Motion
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

TINY = """HIERARCHY
ROOT hips
{
  OFFSET 0 90 0
  CHANNELS 6 Xposition Yposition Zposition Yrotation Xrotation Zrotation
  JOINT left arm {
    OFFSET 10 0 0
    CHANNELS 3 Xrotation Yrotation Zrotation
    End Site
    {
      OFFSET 20 0 0
    }
  }
}
MOTION
Frames: 2
Frame Time: .0333333
1 2 3 90 0 0 0 0 90
1 2 3 0 0 0 0 0 0
"""


def random_motion(num_frames: int = 40, *, angle: float = 0.6, seed: int = 0) -> Motion:
    """A rigid body of unusual proportions in smooth, lively motion."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.linspace(0, 6, num_frames)[:, None, None]
    axes, phase = torch.randn(2, 22, 3, generator=generator)
    rotations = axis_angle_to_matrix(angle * axes * torch.sin(time + phase))
    offsets = HUMANML3D_22.rest * (0.7 + 0.6 * torch.rand(22, 1, generator=generator))
    root = torch.cat([time[:, 0], 0.9 + 0.05 * torch.sin(time[:, 0]), 0.3 * time[:, 0]], dim=-1)
    joints = HUMANML3D_22.forward_kinematics(rotations, root, offsets=offsets)
    return Motion(joints=joints, fps=20.0, skeleton=HUMANML3D_22, rotations=rotations)


def error_mm(a: torch.Tensor, b: torch.Tensor) -> float:
    return 1000 * (a - b).norm(dim=-1).max().item()


def write(folder: Path, text: str) -> Path:
    (folder / "x.bvh").write_text(text)
    return folder / "x.bvh"


def test_fit_rotations_gives_a_rigid_body_back():
    motion = random_motion()
    rotations, offsets = fit_rotations(motion.joints, HUMANML3D_22)
    joints = HUMANML3D_22.forward_kinematics(rotations, motion.joints[:, 0], offsets=offsets)
    assert error_mm(joints, motion.joints) < 0.01
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(40, 22))
    torch.testing.assert_close(rotations[:, 15], torch.eye(3).expand(40, 3, 3))  # a leaf turns with its parent


def test_fit_rotations_takes_batches():
    joints = torch.stack([random_motion().joints, random_motion().joints.flip(0)])
    rotations, offsets = fit_rotations(joints, HUMANML3D_22)
    assert rotations.shape == (2, 40, 22, 3, 3)
    back = HUMANML3D_22.forward_kinematics(rotations, joints[:, :, 0], offsets=offsets)
    assert error_mm(back, joints) < 0.01


def test_fit_rotations_survives_bones_without_length():
    joints = random_motion().joints.clone()
    joints[:, 15] = joints[:, 12]  # head on the neck
    joints[:, 18] = joints[:, 16]
    rotations, offsets = fit_rotations(joints, HUMANML3D_22)
    assert torch.isfinite(rotations).all()
    assert offsets[15].norm() < 1e-6
    assert torch.isfinite(fit_rotations(torch.zeros(3, 22, 3), HUMANML3D_22)[0]).all()


def test_world_rotations_and_local_translations_describe_the_body():
    motion = random_motion()
    world = world_rotations(motion.rotations, HUMANML3D_22)
    torch.testing.assert_close(world[:, 4], motion.rotations[:, 0] @ motion.rotations[:, 1] @ motion.rotations[:, 4])
    places = local_translations(motion.joints, motion.rotations, HUMANML3D_22)
    assert places[:, 1:].std(dim=0).max() < 1e-5


@pytest.mark.parametrize("known", [True, False])
def test_round_trip(tmp_path, known):
    motion = random_motion()
    if not known:
        motion = Motion(motion.joints, motion.fps, motion.skeleton)
    write_bvh(tmp_path / "x.bvh", motion)
    back = read_bvh(tmp_path / "x.bvh")
    assert (back.fps, back.skeleton.names, back.skeleton.parts) == (20.0, HUMANML3D_22.names, HUMANML3D_22.parts)
    assert back.skeleton.parents == HUMANML3D_22.parents
    assert error_mm(back.joints, motion.joints) < 0.02
    assert (tmp_path / "x.bvh").read_text().count("CHANNELS 6") == 1
    if known:
        torch.testing.assert_close(back.rotations, motion.rotations, atol=1e-5, rtol=0)
    rest = torch.tensor(back.skeleton.offsets)
    again = HUMANML3D_22.forward_kinematics(back.rotations, back.joints[:, 0], offsets=rest)
    assert error_mm(again, back.joints) < 0.02


def test_a_body_that_stretches_comes_back_unless_rigid_is_asked(tmp_path):
    joints = random_motion().joints + 0.01 * torch.randn(40, 22, 3, generator=torch.Generator().manual_seed(1))
    motion = Motion(joints, 20.0, HUMANML3D_22)
    write_bvh(tmp_path / "x.bvh", motion)
    assert error_mm(read_bvh(tmp_path / "x.bvh").joints, joints) < 0.1
    write_bvh(tmp_path / "x.bvh", motion, rigid=True)
    assert (tmp_path / "x.bvh").read_text().count("CHANNELS 6") == 1
    assert 1 < error_mm(read_bvh(tmp_path / "x.bvh").joints, joints) < 100


def test_gimbal_lock(tmp_path):
    rotations = torch.eye(3).repeat(3, 22, 1, 1)
    rotations[:, 16] = axis_angle_to_matrix(torch.tensor([0.0, torch.pi / 2, 0.0]))
    rotations[:, 3] = axis_angle_to_matrix(torch.tensor([0.0, -torch.pi / 2, 0.0])) @ rotations[:, 16]
    motion = Motion(HUMANML3D_22.forward_kinematics(rotations, torch.zeros(3, 3)), 20.0, HUMANML3D_22, rotations)
    write_bvh(tmp_path / "x.bvh", motion)
    assert error_mm(read_bvh(tmp_path / "x.bvh").joints, motion.joints) < 0.02


def test_foreign_file(tmp_path):
    motion = read_bvh(write(tmp_path, TINY), end_sites=True)
    assert motion.skeleton.names == ("hips", "left_arm", "left_arm_end")
    assert motion.skeleton.parts == {"body": (0, 1, 2)}
    assert motion.fps == 30.0
    # positions replace the root's OFFSET; +90° about y takes x to -z; then +90° about z takes the hand up
    expected = [[0.01, 0.02, 0.03], [0.01, 0.02, -0.07], [0.01, 0.22, -0.07]]
    torch.testing.assert_close(motion.joints[0], torch.tensor(expected), atol=1e-6, rtol=0)
    assert read_bvh(tmp_path / "x.bvh").skeleton.names == ("hips", "left_arm")
    assert read_bvh(tmp_path / "x.bvh", scale=1.0).joints[0, 0].tolist() == [1, 2, 3]


def test_rotations_multiply_in_the_order_of_their_channels(tmp_path):
    swapped = TINY.replace("Yrotation Xrotation Zrotation", "Xrotation Yrotation Zrotation").replace(
        "90 0 0 0 0 90", "30 40 50 0 0 0"
    )
    motion = read_bvh(write(tmp_path, swapped))
    x, y, z = (axis_angle_to_matrix(torch.eye(3)[i] * np.radians(a)) for i, a in enumerate((30, 40, 50)))
    torch.testing.assert_close(motion.rotations[0, 0], (x @ y @ z).float())


def test_deep_trees_need_no_recursion(tmp_path):
    depth = 900
    opening = "".join(f"JOINT j{i} {{\nOFFSET 0 1 0\nCHANNELS 1 Xrotation\n" for i in range(depth))
    text = f"HIERARCHY\nROOT r\n{{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n{opening}{'}' * (depth + 1)}\n"
    motion = read_bvh(write(tmp_path, text + "MOTION\nFrames: 1\nFrame Time: 0.1\n" + "0 " * (depth + 1)))
    assert motion.joints[0, -1, 1].item() == pytest.approx(9.0, abs=1e-3)
    write_bvh(tmp_path / "y.bvh", motion)
    assert read_bvh(tmp_path / "y.bvh").skeleton.parents == motion.skeleton.parents


BROKEN = {
    "empty": ("", "empty"),
    "not bvh": ("\x89PNG\r\n\x1a\n\x00\x00", r":1: expected HIERARCHY.*not a BVH"),
    "no motion": (TINY.split("MOTION")[0], "ends without MOTION"),
    "cut hierarchy": (TINY[: TINY.index("  CHANNELS 3")], "ends without MOTION"),
    "cut header": (TINY.split("Frames:")[0], "before 'Frame Time:'"),
    "cut motion": (TINY[:-30], "truncated"),
    "cut line": (TINY.replace("0 0 90\n1", "0 0\n1"), r":18: 8 values where the hierarchy has 9 channels"),
    "frames": (TINY.replace("Frames: 2", "Frames: 200000000"), "declares 2e.08 frames and holds 2"),
    "no frames": (TINY[: TINY.index("1 2 3")], "holds 0"),
    "nan": (TINY.replace("1 2 3 0", "1 nan 3 0"), r":19: 'nan' is NaN"),
    "huge": (TINY.replace("1 2 3 0", "1 1e300 3 0"), r":19: '1e300' is NaN, infinite"),
    "word": (TINY.replace("1 2 3 0", "1 abc 3 0"), r":19: 'abc' is not a number"),
    "offset": (TINY.replace("OFFSET 0 90 0", "OFFSET 0 90"), r":4: OFFSET needs 3 numbers, got 2"),
    "offset word": (TINY.replace("OFFSET 0 90 0", "OFFSET 0 x 0"), r":4: 'x' is not a number"),
    "no offset": (TINY.replace("  OFFSET 0 90 0\n", ""), "'hips' has no OFFSET"),
    "channels": (TINY.replace("CHANNELS 6", "CHANNELS 5"), r":5: CHANNELS needs their number"),
    "channel name": (TINY.replace("Zposition", "Wposition"), r":5: unknown channel 'Wposition'"),
    "twice": (TINY.replace("Zposition", "Xposition"), "different names"),
    "brace": (TINY.replace("}\nMOTION", "MOTION"), "hierarchy is complete"),
    "braces": (TINY.replace("}\nMOTION", "}}\nMOTION"), "without '{'"),
    "open": (TINY.replace("ROOT hips\n{", "ROOT hips\n"), r"expected '\{' after 'hips'"),
    "two roots": (TINY.replace("MOTION", "ROOT b\n{\n}\nMOTION"), "one character a file"),
    "orphan": (TINY.replace("ROOT hips", "JOINT hips"), "outside of a joint's braces"),
    "nameless": (TINY.replace("ROOT hips", "ROOT"), "has no name"),
    "junk": (TINY.replace("End Site", "Banana"), r"unexpected 'Banana'"),
    "frame time": (TINY.replace(".0333333", "0"), r":17: Frame Time is 0; expected 0\.001 to 1 seconds"),
    "tiny frame time": (TINY.replace(".0333333", "1e-10"), r":17: Frame Time is 1e-10; .*correct that line"),
    "seconds a frame": (TINY.replace(".0333333", "20"), r":17: Frame Time is 20; .*correct that line"),
    "negative frame time": (TINY.replace(".0333333", "-1"), r":17: Frame Time is -1;"),
    "frame time missing": (TINY.replace("Frame Time: .0333333\n", ""), "expected 'Frame Time:'"),
    "bomb": ("HIERARCHY\n" + "ROOT a\n{\n" + "JOINT a\n{\n" * 100_000, "more than 1000 joints"),
    "still": ("HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n}\nMOTION\nFrames: 1\nFrame Time: 1\n1", "no joint has CHANNELS"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, case):
    text, message = BROKEN[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_bvh(write(tmp_path, text))
    assert "x.bvh" in str(caught.value)


def test_a_small_file_cannot_ask_for_endless_memory(tmp_path):
    joints = "JOINT j {\nOFFSET 0 1 0\n}\n" * 900
    text = f"HIERARCHY\nROOT r\n{{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n{joints}}}\nMOTION\nFrames: 50000\n"
    with pytest.raises(ValueError, match="too many"):
        read_bvh(write(tmp_path, text + "Frame Time: 0.1\n" + "0\n" * 50_000))


def test_rotations_that_are_none_are_refused(tmp_path):
    for rotations in (
        torch.zeros(5, 22, 3, 3),
        -torch.eye(3).expand(5, 22, 3, 3),
        torch.full((5, 22, 3, 3), torch.nan),
    ):
        with pytest.raises(ValueError, match=r"x\.bvh: the motion's rotations are no rotation matrices"):
            write_bvh(tmp_path / "x.bvh", Motion(torch.zeros(5, 22, 3), 20.0, HUMANML3D_22, rotations))
    assert not (tmp_path / "x.bvh").exists()


def test_joints_come_back_where_rotations_say_something_else(tmp_path):
    """Features that carry positions and rotations need not agree: the positions are what counts."""
    motion = random_motion()
    other = Motion(motion.joints, 20.0, HUMANML3D_22, random_motion(seed=5).rotations)
    write_bvh(tmp_path / "x.bvh", other)
    back = read_bvh(tmp_path / "x.bvh")
    assert error_mm(back.joints, motion.joints) < 0.1
    torch.testing.assert_close(back.rotations, other.rotations, atol=1e-5, rtol=0)


def test_a_packed_file_that_unpacks_endlessly_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.bvh.gz").write_bytes(gzip.compress(TINY.encode() + b" " * 1000))
    assert read_bvh(tmp_path / "x.bvh.gz").fps == 30.0
    monkeypatch.setattr("lmm.motion.bvh._MAX_UNPACKED", 1000)
    with pytest.raises(ValueError, match="MiB unpacked; cut it"):
        read_bvh(tmp_path / "x.bvh.gz")


def test_writing_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one file each"):
        write_bvh(tmp_path / "x.bvh", Motion(torch.zeros(2, 5, 22, 3), 20.0, HUMANML3D_22))


def test_names_without_the_tree_are_not_humanml3d(tmp_path):
    flat = Skeleton(HUMANML3D_22.names, (-1, *[0] * 21), HUMANML3D_22.offsets, HUMANML3D_22.parts)
    write_bvh(tmp_path / "x.bvh", Motion(torch.randn(4, 22, 3), 20.0, flat))
    assert tuple(read_bvh(tmp_path / "x.bvh").skeleton.parts) == ("body",)


def test_real_rigid_clips_come_back(shared_data, tmp_path):
    files = sorted((shared_data / "bandai_humanml" / "new_joints").glob("*.npy"))[::300]
    worst = 0.0
    for file in files:
        motion = load_motion(file)
        write_bvh(tmp_path / "x.bvh", motion)
        assert (tmp_path / "x.bvh").read_text().count("CHANNELS 6") == 1
        worst = max(worst, error_mm(read_bvh(tmp_path / "x.bvh").joints, motion.joints))
    print(f"Bandai, {len(files)} clips: worst joint {worst:.5f} mm")
    assert files and worst < 0.02


def test_real_clips_whose_hips_and_shoulders_shift_come_back(shared_data, tmp_path):
    """CMU moves spine and shoulders against the pelvis and chest: no 22-joint tree of rotations can say that."""
    files = sorted((shared_data / "cmu_humanml_layout" / "new_joints").glob("*.npy"))[::60]
    exact, rigid = [], []
    for file in files:
        motion = load_motion(file)
        for errors, flag in ((exact, False), (rigid, True)):
            write_bvh(tmp_path / "x.bvh", motion, rigid=flag)
            errors.append((read_bvh(tmp_path / "x.bvh").joints - motion.joints).norm(dim=-1).flatten() * 1000)
    print(
        f"CMU, {len(files)} clips: exact {torch.cat(exact).max():.5f} mm, rigid mean {torch.cat(rigid).mean():.2f} mm"
    )
    assert torch.cat(exact).max() < 1
    assert torch.cat(rigid).mean() < 5


@pytest.mark.parametrize("folder", ["bandai", "cmu_bvh_cgspeed"])
def test_real_bvh_files(shared_data, tmp_path, folder):
    files = sorted((shared_data / "raw_small" / folder).glob("*.bvh*"))
    assert files
    for file in files:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        (tmp_path / "x.bvh").write_bytes(text)
        motion = read_bvh(tmp_path / "x.bvh")
        assert motion.fps == (30.0 if folder == "bandai" else 120.0)
        height = (motion.joints[..., 1].amax(dim=-1) - motion.joints[..., 1].amin(dim=-1)).median()
        assert (1.2 < height < 1.9) if folder == "bandai" else (0.2 < height < 0.35)  # cgspeed's unit is no centimetre
        write_bvh(tmp_path / "y.bvh", motion)
        assert error_mm(read_bvh(tmp_path / "y.bvh").joints, motion.joints) < 0.02
