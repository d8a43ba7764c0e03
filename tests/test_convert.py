"""``lmm convert``: any format to any other, through the command line's own parser."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmm.command_line import call, plain_words
from lmm.convert import convert
from lmm.data.sources.procedural.clips import make_clip
from lmm.motion.files import load_caption, load_extra, load_motion, save_motion
from lmm.motion.motion import Motion
from lmm.motion.representations import HumanML3DFeatures
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22


def run(*words: object) -> None:
    """As typed after ``lmm convert``."""
    call(convert, plain_words([str(word) for word in words]), "lmm convert")


def posed(num_frames: int = 24) -> Motion:
    """A body that faces backwards and turns, with rotations."""
    angles = torch.zeros(num_frames, 22, 3)
    angles[:, 0, 1] = torch.linspace(torch.pi, 2 * torch.pi, num_frames)
    angles[:, 16, 2] = torch.linspace(-1, 0, num_frames)
    rotations = axis_angle_to_matrix(angles)
    root = torch.tensor([0.3, 0.95, 0.0]).repeat(num_frames, 1)
    return Motion(HUMANML3D_22.forward_kinematics(rotations, root), 20.0, HUMANML3D_22, rotations)


def clip() -> Motion:
    return Motion(torch.from_numpy(make_clip(3)[1]), 20.0, HUMANML3D_22)


MIXAMO = (
    "Hips LeftUpLeg RightUpLeg Spine LeftLeg RightLeg Spine1 LeftFoot RightFoot Spine2 LeftToeBase RightToeBase Neck "
    "LeftShoulder RightShoulder Head LeftArm RightArm LeftForeArm RightForeArm LeftHand RightHand"
).split()
ENDINGS = ["npz", "npy", "bvh", "glb", "gltf"]


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("target", ENDINGS)
def test_between_any_two(tmp_path, capsys, source, target):
    motion = posed()
    save_motion(tmp_path / f"a.{source}", motion, "turns")
    run(tmp_path / f"a.{source}", tmp_path / "new" / f"b.{target}")
    out = capsys.readouterr().out
    assert f"b.{target}: 24 frames, 22 joints, 20 fps; read back: 0.0" in out
    back = load_motion(tmp_path / "new" / f"b.{target}")
    torch.testing.assert_close(back.joints, motion.joints, atol=2e-4, rtol=0)
    keeps = {"npz", "glb", "gltf"}
    assert load_caption(tmp_path / "new" / f"b.{target}") == ("turns" if {source, target} <= keeps else "")


@pytest.mark.parametrize("target", ["html", "gif", "png"])
def test_pictures(tmp_path, capsys, target):
    save_motion(tmp_path / "a.glb", posed(4), "turns around")
    run(tmp_path / "a.glb", tmp_path / f"b.{target}")
    assert "4 frames, 22 joints, 20 fps" in capsys.readouterr().out
    if target == "html":
        assert "turns around" in (tmp_path / "b.html").read_text()
    else:
        Image.open(tmp_path / f"b.{target}").verify()


def test_features_in_and_out(tmp_path, capsys):
    motion = clip()
    save_motion(tmp_path / "a.npz", motion)
    run(tmp_path / "a.npz", tmp_path / "f.npy", "--to", "HumanML3DFeatures")
    assert f"{motion.num_frames - 1} rows of 263 features (HumanML3DFeatures, 20 fps)" in capsys.readouterr().out
    features = torch.from_numpy(np.load(tmp_path / "f.npy"))
    torch.testing.assert_close(features, HumanML3DFeatures().encode(motion))
    run(tmp_path / "f.npy", tmp_path / "b.glb", "--representation", "lmm.motion.representations.HumanML3DFeatures")
    expected = HumanML3DFeatures().decode(features)  # by positions: the 6-D block is no pose
    torch.testing.assert_close(load_motion(tmp_path / "b.glb").joints, expected.joints, atol=2e-4, rtol=0)


def test_features_have_their_own_frame_rate_and_joints(tmp_path, capsys):
    motion = posed()
    save_motion(tmp_path / "a.npz", Motion(motion.joints, 40.0, motion.skeleton, motion.rotations))
    run(tmp_path / "a.npz", tmp_path / "f.npy", "--to", "JointPositions")
    assert "12 rows of 66 features (JointPositions, 20 fps)" in capsys.readouterr().out


def test_foreign_skeletons_are_mapped_when_their_format_is_named(tmp_path, capsys):
    foreign = replace(HUMANML3D_22, names=tuple(MIXAMO))
    save_motion(tmp_path / "a.bvh", Motion(clip().joints, 20.0, foreign))
    with pytest.raises(ValueError, match="--format bvh"):
        run(tmp_path / "a.bvh", tmp_path / "a.npy")
    run(tmp_path / "a.bvh", tmp_path / "a.npy", "--format", "bvh")
    out = capsys.readouterr().out
    assert "joint map mixamo" in out and "read back: 0.000 mm" in out
    found = load_motion(tmp_path / "a.npy").joints
    torch.testing.assert_close(found[:, 4], clip().joints[:, 4], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="give one of them"):
        run(tmp_path / "a.bvh", tmp_path / "a.npy", "--format", "bvh", "--representation", "HumanML3DFeatures")
    with pytest.raises(ValueError, match="did you mean bvh"):
        run(tmp_path / "a.bvh", tmp_path / "a.npy", "--format", "bhv")


def test_frame_rates(tmp_path, capsys):
    save_motion(tmp_path / "a.npy", posed())
    run(tmp_path / "a.npy", tmp_path / "b.bvh", "--input-fps", 60, "--fps", 30)
    assert "12 frames, 22 joints, 30 fps" in capsys.readouterr().out
    torch.testing.assert_close(load_motion(tmp_path / "b.bvh").joints, posed().joints[::2], atol=2e-4, rtol=0)
    run(tmp_path / "b.bvh", tmp_path / "c.npz", "--scale", 0.1)
    torch.testing.assert_close(load_motion(tmp_path / "c.npz").joints, 10 * posed().joints[::2], atol=2e-3, rtol=0)


def test_mirror_and_clean_up(tmp_path):
    save_motion(tmp_path / "a.npz", posed())
    run(tmp_path / "a.npz", tmp_path / "b.npz", "--mirror", "true", "--clean-up", "true")
    back = load_motion(tmp_path / "b.npz")
    assert back.joints[..., 1].min() == pytest.approx(0, abs=0.02) and back.joints[:, 0, 0].mean() < -0.2


def test_rigid_bones_that_stretch_are_told(tmp_path):
    motion = posed()
    shaken = motion.joints + 0.01 * torch.randn(24, 22, 3, generator=torch.Generator().manual_seed(0))
    save_motion(tmp_path / "a.npy", Motion(shaken, 20.0, HUMANML3D_22))
    run(tmp_path / "a.npy", tmp_path / "b.bvh")
    with pytest.raises(ValueError, match=r"b\.bvh is written, .* mm off; its bones stretch.*leave --rigid out"):
        run(tmp_path / "a.npy", tmp_path / "b.bvh", "--rigid", "true")


def test_a_body_model_is_shown(tmp_path, capsys, monkeypatch):
    from lmm.motion import body
    from tests.motion.test_gltf import toy_body

    seen = []

    class Model:
        num_betas = 10

        def __init__(self, file: str) -> None:
            seen.append(file)

        def mesh(self, betas: torch.Tensor) -> object:
            seen.append(betas.tolist())
            return toy_body()

    monkeypatch.setattr(body, "BodyModel", Model)
    betas = np.arange(16.0)
    save_motion(tmp_path / "a.npz", posed(), extra={"betas": betas, "gender": np.array("male"), "other": betas})
    run(tmp_path / "a.npz", tmp_path / "b.glb", "--body", "SMPLH_MALE.npz")
    assert "24 frames, 52 joints, 20 fps; read back: 0.0" in capsys.readouterr().out
    assert seen == ["SMPLH_MALE.npz", list(range(10))]
    save_motion(tmp_path / "c.npy", posed())
    run(tmp_path / "c.npy", tmp_path / "d.gltf", "--body", "SMPLH_MALE.npz")
    assert "rotations fitted to joints; read back: 0.0" in capsys.readouterr().out and seen[-1] == [0.0]
    run(tmp_path / "a.npz", tmp_path / "e.npz")
    assert set(load_extra(tmp_path / "e.npz")) == {"betas", "gender"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.npy", "b.fbx"), r"unknown extension '\.fbx'; motions become .*\.gltf, \.html"),
        (("a.npy", "b.glb", "--to", "HumanML3DFeatures"), r"features are written as \.npy"),
        (("a.npy", "b.bvh", "--body", "x.npz"), "leave out --body"),
        (("a.npy", "b.npy", "--to", "Foo"), "no representation 'Foo'; there are .*HumanML3DFeatures"),
        (("a.npy", "b.npy", "--to", "foo.Bar"), "no representation 'foo.Bar'"),
        (("a.npy", "b.npy", "--to", "HumanML3DFeatures", "--fps", "30"), "defined at 20 fps; leave out --fps"),
        (("f.npy", "b.glb"), "--representation HumanML3DFeatures"),
        (("f.npy", "b.glb", "--representation", "JointPositions"), r"66 features \(T, 66\), got \(4, 263\)"),
        (("n.npy", "b.glb", "--representation", "HumanML3DFeatures"), "NaN or Inf"),
        (("x.npy", "b.glb", "--representation", "HumanML3DFeatures"), "no such file"),
        (("f.npy", "b.glb", "--representation", "HumanML3DFeatures", "--input-fps", "9"), "leave out --input-fps"),
        (("x.npy", "b.glb"), "no such file"),
        (("a.npy", "b.npy", "--fps", "30"), "holds HumanML3D's 22 joints at 20 fps"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    save_motion("a.npy", posed(5))
    np.save("f.npy", np.zeros((4, 263), np.float32))
    np.save("n.npy", np.full((4, 263), np.nan, np.float32))
    with pytest.raises(ValueError, match=message):
        run(*words)
    assert not list(tmp_path.glob("b.*"))


def test_the_verb_fails_with_a_message(tmp_path, monkeypatch):
    from lmm.__main__ import main

    monkeypatch.setattr(sys, "argv", ["lmm", "convert", str(tmp_path / "missing.bvh"), str(tmp_path / "b.glb")])
    with pytest.raises(SystemExit, match=r"missing\.bvh: there is no such file"):
        main()


def test_real_recordings(shared_data, tmp_path, capsys):
    raw = shared_data / "raw_small"
    for file in [*(raw / "cmu_asfamc").glob("02*"), *(raw / "bandai").glob("*walk_elderly*")]:
        shutil.copy(file, tmp_path)
    for source in ("02_01.amc.gz", "dataset-2_walk_elderly_002.bvh"):
        for target in ("a.npz", "a.bvh", "a.glb"):
            run(tmp_path / source, tmp_path / target, "--fps", 20)
            assert "read back: 0.0" in capsys.readouterr().out, (source, target)
    assert Path(tmp_path / "a.glb").stat().st_size < 500_000
