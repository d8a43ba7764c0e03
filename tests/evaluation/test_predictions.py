"""Folders of predictions: every form of a motion, what they say about themselves, and what is refused."""

import json

import numpy as np
import pytest
import torch

from lmm.evaluation.predictions import (
    Predictions,
    PredictionWriter,
    Record,
    build_representation,
    describe_representation,
)
from lmm.motion.files import save_motion
from lmm.motion.motion import Motion
from lmm.motion.representations import SMPLD135, HumanML3DFeatures, JointPositions
from lmm.motion.skeleton import HUMANML3D_22

from .toy import walk

FEATURES = HumanML3DFeatures(uniform_skeleton=False)
JOINTS = walk(np.random.default_rng(3), 33)
MOTION = Motion(torch.from_numpy(JOINTS), 20.0, HUMANML3D_22)
ENCODED = FEATURES.encode(MOTION)


def test_one_motion_in_any_form(tmp_path):
    (tmp_path / "a").mkdir()
    save_motion(tmp_path / "a" / "npz.npz", MOTION, caption="walks")
    save_motion(tmp_path / "a" / "bvh.bvh", MOTION)
    np.save(tmp_path / "a" / "joints.npy", JOINTS)
    np.save(tmp_path / "a" / "features.npy", ENCODED.numpy())
    (tmp_path / "a" / "joints.json").write_text('{"caption": "from the side file", "length": 33}')
    found = Predictions(tmp_path / "a")
    assert found.num_repeats == 1 and found.missing(["npz", "bvh", "joints", "features", "none"]) == ["none"]
    for name in ("npz", "joints", "features"):
        torch.testing.assert_close(found.motion(0, name, FEATURES), ENCODED, atol=1e-5, rtol=0)
    assert found.motion(0, "bvh", FEATURES).shape == ENCODED.shape
    assert found.captions(0) == {"npz": "walks", "joints": "from the side file"}
    assert found.record.name == "a" and found.many(FEATURES) == {}
    assert Predictions(tmp_path / "a", name="mine", task="reconstruction").record[:2] == ("mine", "reconstruction")


def test_what_is_written_is_read_by_any_evaluator(tmp_path):
    record = Record("ours", "text_to_motion", "predicted", describe_representation(FEATURES), {"seed": 1})
    writer = PredictionWriter(tmp_path, record)
    for repeat in range(2):
        for name in ("x", "deep/y"):
            writer.write(writer.place(name, repeat=repeat), ENCODED + repeat * 0.001)
        writer.captions(repeat, {"x": f"go {repeat}"})
    for sample in range(3):
        writer.write(writer.place("deep/y", sample=sample), ENCODED)
    found = Predictions(tmp_path)
    assert found.record == record and found.num_repeats == 2 and not found.missing(["x", "deep/y"])
    assert found.captions(1) == {"x": "go 1"} and found.captions(2) == {"x": "go 0"}
    torch.testing.assert_close(found.motion(3, "deep/y", FEATURES), ENCODED + 0.001)
    assert {name: len(motions) for name, motions in found.many(FEATURES).items()} == {"deep/y": 3}
    positions = JointPositions()
    expected = positions.encode(FEATURES.decode(ENCODED))
    torch.testing.assert_close(found.motion(0, "x", positions), expected)
    before = found.fingerprint
    writer.write(writer.place("x", repeat=0), ENCODED + 1)
    assert Predictions(tmp_path).fingerprint != before
    with pytest.raises(ValueError, match="made otherwise"):
        PredictionWriter(tmp_path, record._replace(made_by={"seed": 2}))
    PredictionWriter(tmp_path, record)  # an interrupted run goes on


@pytest.mark.parametrize("representation", [FEATURES, SMPLD135(fps=30.0, fit_rotations=True), JointPositions(12.5)])
def test_a_representation_is_built_again(representation):
    again = build_representation(json.loads(json.dumps(describe_representation(representation))), "here")
    assert again.settings == representation.settings


def refused(tmp_path, message, name="x", representation=FEATURES):
    with pytest.raises(ValueError, match=message):
        Predictions(tmp_path).motion(0, name, representation)


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="is not a folder of predictions"):
        Predictions(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no motion"):
        Predictions(tmp_path)
    np.save(tmp_path / "x.npy", np.full((9, 22, 3), np.nan))
    refused(tmp_path, r"x\.npy contains NaN")
    np.save(tmp_path / "x.npy", np.zeros((9, 21, 3)))
    refused(tmp_path, r"wants joints \(T, 22, 3\)")
    np.save(tmp_path / "x.npy", np.zeros((9, 251)))
    refused(tmp_path, "251 features a frame")
    np.save(tmp_path / "x.npy", np.zeros(9))
    refused(tmp_path, r"x\.npy has shape \(9,\)")
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    refused(tmp_path, "not a readable array")
    np.save(tmp_path / "x.npy", JOINTS)
    (tmp_path / "predictions.json").write_text('{"format": 1, "task": "dance"}')
    with pytest.raises(ValueError, match="'dance' is none of"):
        Predictions(tmp_path)
    (tmp_path / "predictions.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="another version"):
        Predictions(tmp_path)
    (tmp_path / "predictions.json").write_text('{"format": 1, "author": "me"}')
    with pytest.raises(ValueError, match="not a record"):
        Predictions(tmp_path)
    stranger = {"class_path": "Popen", "init_args": {"args": "ls"}}
    (tmp_path / "predictions.json").write_text(json.dumps({"format": 1, "representation": stranger}))
    np.save(tmp_path / "x.npy", np.zeros((9, 251)))
    refused(tmp_path, "'Popen' is no representation")
    (tmp_path / "predictions.json").unlink()
    (tmp_path / "captions.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold an object"):
        Predictions(tmp_path).captions(0)
    save_motion(tmp_path / "x.npz", MOTION)
    with pytest.raises(ValueError, match=r"two motions of x"):
        Predictions(tmp_path)
