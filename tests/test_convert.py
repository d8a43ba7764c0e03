"""``lmm convert``: any format to any other, through the command line's own parser."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lmm.command_line import call, plain_words
from lmm.convert import convert
from lmm.data.sources.procedural.clips import make_clip
from lmm.motion.body import SMPLH_52, SMPLX_55
from lmm.motion.files import load_caption, load_extra, load_motion, save_motion
from lmm.motion.motion import Motion
from lmm.motion.representations import SMPLD135, HumanML3DFeatures
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton


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
    fitted = ", rotations fitted to joints" if source == "npy" and target in ("bvh", "glb", "gltf") else ""
    assert f"b.{target}: 24 frames, 22 joints, 20 fps{fitted}; read back: 0.0" in out
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
    before = (tmp_path / "b.bvh").read_bytes()
    for name in ("b.bvh", "c.glb"):
        with pytest.raises(
            ValueError, match=rf"/{name[0]}\.\w+ is not written: .* mm off; its bones .*leave --rigid out"
        ):
            run(tmp_path / "a.npy", tmp_path / name, "--rigid", "true")
    assert (tmp_path / "b.bvh").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "b.bvh"]


def test_a_file_is_never_converted_into_itself(tmp_path):
    save_motion(tmp_path / "a.npy", posed())
    before = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
    for target in ("a.npy", "b.npy", "x/../a.npy"):
        with pytest.raises(ValueError, match=rf"{target}: is the input, too"):
            run(tmp_path / "a.npy", tmp_path / target, "--to", "JointPositions")
    assert (tmp_path / "a.npy").read_bytes() == before
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(ValueError, match=r"c\.npz: is a folder"):
        run(tmp_path / "a.npy", tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("metres", "remedy"),
    [(0.01, "--scale 1$"), (10.0, "--scale 0.001$"), (5000.0, "give lmm convert --scale"), (1, "")],
)
@pytest.mark.parametrize("lying", [False, True])
def test_somebody_of_no_persons_size_is_told(tmp_path, capsys, metres, remedy, lying):
    rotations = torch.eye(3).repeat(4, 22, 1, 1)
    if lying:
        rotations[:, 0] = axis_angle_to_matrix(torch.tensor([1.5, 0.0, 0.0]))
    offsets = tuple((x * metres, y * metres, z * metres) for x, y, z in HUMANML3D_22.offsets)
    body = replace(HUMANML3D_22, names=tuple(f"mixamorig:{name}" for name in MIXAMO), offsets=offsets)
    joints = body.forward_kinematics(rotations, torch.zeros(4, 3))
    save_motion(tmp_path / "a.bvh", Motion(joints, 20.0, body, rotations))
    run(tmp_path / "a.bvh", tmp_path / "b.npz")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if remedy else 1) and "read back" in lines[-1]
    from lmm.commands import render

    render([str(tmp_path / "a.bvh")], str(tmp_path / "a.html"))
    drawn = capsys.readouterr().out.splitlines()
    assert len(drawn) == len(lines)
    for line in [lines[0], drawn[0]] if remedy else []:
        length = re.escape(f"{1.5275 * metres:.3g}")  # summed by hand over the bones, head to LeftFoot
        assert re.search(rf"warning: .*a\.bvh: the body is {length} m from head .*{remedy}", line), line
    save_motion(tmp_path / "c.npz", Motion(joints[:, :2], 20.0, replace(body, names=("a", "b"), **first_two(body))))
    run(tmp_path / "c.npz", tmp_path / "d.npz")  # who has neither head nor feet may be of any size
    assert "warning" not in capsys.readouterr().out


def first_two(body: Skeleton) -> dict:
    return {"parents": body.parents[:2], "offsets": body.offsets[:2], "parts": {"body": (0, 1)}}


def test_rotations_are_fitted_when_asked_for(tmp_path, capsys):
    save_motion(tmp_path / "a.npy", clip())
    with pytest.raises(ValueError, match=r"a\.npy: SMPLD135 .*fit-rotations, lmm data import --fit_rot"):
        run(tmp_path / "a.npy", tmp_path / "f.npy", "--to", "SMPLD135")
    run(tmp_path / "a.npy", tmp_path / "f.npy", "--to", "SMPLD135", "--fit-rotations")
    assert "135 features (SMPLD135, 20 fps, rotations fitted to joints)" in capsys.readouterr().out
    found = torch.from_numpy(np.load(tmp_path / "f.npy"))
    torch.testing.assert_close(found, SMPLD135(fit_rotations=True).encode(clip()), atol=1e-5, rtol=0)
    run(tmp_path / "a.npy", tmp_path / "b.npz", "--fit-rotations")
    assert "rotations fitted to joints" in capsys.readouterr().out
    back = load_motion(tmp_path / "b.npz")
    again = back.skeleton.forward_kinematics(back.rotations, back.joints[:, 0])
    torch.testing.assert_close(again, clip().joints, atol=1e-2, rtol=0)
    for target in ("b.html", "c.npy"):
        with pytest.raises(ValueError, match="holds no rotations; leave out --fit-rotations"):
            run(tmp_path / "a.npy", tmp_path / target, "--fit-rotations")


@pytest.mark.parametrize("chain", ["gltf npz glb npz", "npz glb", "glb gltf"])
def test_fitted_rotations_do_not_pass_for_recorded_ones(tmp_path, capsys, chain):
    save_motion(tmp_path / "a.npy", posed())
    source = "a.npy"
    for number, ending in enumerate(chain.split()):
        words = ["--fit-rotations"] if source == "a.npy" else []
        run(tmp_path / source, tmp_path / f"{number}.{ending}", *words)
        assert "rotations fitted to joints" in capsys.readouterr().out
        source = f"{number}.{ending}"
        assert load_extra(tmp_path / source)["rotations_fitted"]
    save_motion(tmp_path / "r.npz", posed())
    for target in ("r.glb", "q.npz"):
        run(tmp_path / "r.npz", tmp_path / target)
        assert "rotations fitted" not in capsys.readouterr().out and not load_extra(tmp_path / target)


@pytest.mark.parametrize("skeleton", [SMPLH_52, SMPLX_55], ids=["52", "55"])
def test_npy_gets_the_22_joints_of_a_body_with_hands(tmp_path, capsys, skeleton):
    rotations = torch.eye(3).repeat(5, skeleton.num_joints, 1, 1)
    joints = skeleton.forward_kinematics(rotations, torch.zeros(5, 3))
    save_motion(tmp_path / "a.npz", Motion(joints, 20.0, skeleton, rotations))
    run(tmp_path / "a.npz", tmp_path / "b.npy")
    assert f"left out {skeleton.num_joints - 22} joints beyond the 22 (hands)" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "b.npy"), joints[:, :22].numpy())
    save_motion(tmp_path / "c.npz", Motion(joints, 40.0, skeleton, rotations))
    with pytest.raises(ValueError, match=r"22 joints at 40 fps; resample it \(lmm convert --fps 20\)"):
        run(tmp_path / "c.npz", tmp_path / "d.npy")


@pytest.mark.parametrize("option", [("--mirror",), ("--clean-up",), ("--to", "HumanML3DFeatures")])
def test_foreign_skeletons_are_told_how_to_be_mapped(tmp_path, option):
    foreign = Motion(clip().joints, 20.0, replace(HUMANML3D_22, names=tuple(MIXAMO)))
    for name, remedy in [("a.bvh", "--format bvh"), ("a.glb", r"only .bvh and .amc can be mapped")]:
        save_motion(tmp_path / name, foreign)
        with pytest.raises(ValueError, match=rf"{name}: .*{remedy}"):
            run(tmp_path / name, tmp_path / "b.npy", *option)


def test_reconstructing_a_foreign_skeleton_says_how_to_map_it(tmp_path, monkeypatch):
    from lmm.commands import reconstruct

    tokenizer = SimpleNamespace(representation=HumanML3DFeatures())
    monkeypatch.setattr("lmm.training.load_module", lambda *_: tokenizer)
    save_motion(tmp_path / "a.bvh", Motion(clip().joints, 20.0, replace(HUMANML3D_22, names=tuple(MIXAMO))))
    with pytest.raises(ValueError, match=r"a\.bvh: .*--format bvh"):
        reconstruct(str(tmp_path / "a.bvh"), str(tmp_path / "b.html"))


def test_errors_about_a_motion_name_its_file(tmp_path):
    save_motion(tmp_path / "a.npy", posed(1))
    with pytest.raises(ValueError, match=r"a\.npy: 1e\+09 fps is no frame rate of a motion"):
        run(tmp_path / "a.npy", tmp_path / "b.npz", "--fps", "1e9")
    with pytest.raises(ValueError, match=r"a\.npy: .*at least"):
        run(tmp_path / "a.npy", tmp_path / "b.npy", "--to", "HumanML3DFeatures")


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
