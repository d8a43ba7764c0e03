"""The SMPL family: trees and names as published, joints as smplx's own forward gives them, files that are refused."""

import pickle
import pickletools
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.sparse
import smplx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smplx.joint_names import JOINT_NAMES, SMPLH_JOINT_NAMES
from smplx.utils import Struct

from lmm.motion.body import SMPL_24, SMPLH_52, SMPLX_55, BodyModel
from lmm.motion.kinematics import local_translations
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22
from tests.motion.body_models import FAMILY, VERTEX_IDS, body_arrays, write_body_model, write_official_pickle

FAMILIES = [SMPL_24, SMPLH_52, SMPLX_55]
BODY = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
# kintree_table of the published models
FINGERS = [-1, 0, 1, -1, 3, 4, -1, 6, 7, -1, 9, 10, -1, 12, 13]  # from the wrist; index, middle, pinky, ring, thumb


def hand(wrist: int, first: int) -> list[int]:
    return [first + parent if parent >= 0 else wrist for parent in FINGERS]


TREES = {
    24: [*BODY, 20, 21],
    52: [*BODY, *hand(20, 22), *hand(21, 37)],
    55: [*BODY, 15, 15, 15, *hand(20, 25), *hand(21, 40)],
}
NAMES = {24: [*JOINT_NAMES[:22], "left_hand", "right_hand"], 52: SMPLH_JOINT_NAMES[:52], 55: JOINT_NAMES[:55]}


def random_pose(joints: int, frames: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotation vectors "T J 3", translation, betas."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(frames, joints, 3, generator=generator)
    return vectors, torch.randn(frames, 3, generator=generator), torch.randn(10, generator=generator)


def reference(file: Path, vectors: torch.Tensor, trans: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Joints and vertices of smplx's own forward."""
    joints, frames = vectors.shape[1], len(vectors)
    flat = vectors.flatten(1)
    options = {
        "num_betas": 10,
        "batch_size": frames,
        "use_pca": False,
        "flat_hand_mean": True,
    }
    pose = {
        "global_orient": flat[:, :3],
        "body_pose": flat[:, 3:66],
        "transl": trans,
        "betas": betas.expand(frames, -1),
    }
    if joints == 24:
        options["data_struct"] = Struct(**np.load(file))
        pose["body_pose"] = flat[:, 3:72]
    elif joints == 52:
        pose |= {"left_hand_pose": flat[:, 66:111], "right_hand_pose": flat[:, 111:156]}
    else:
        pose |= {"jaw_pose": flat[:, 66:69], "leye_pose": flat[:, 69:72], "reye_pose": flat[:, 72:75]}
        pose |= {"left_hand_pose": flat[:, 75:120], "right_hand_pose": flat[:, 120:165]}
        pose["expression"] = torch.zeros(frames, 10)
    if joints < 55:  # SMPL-X takes its landmarks from the table only
        options["vertex_ids"] = VERTEX_IDS
    with mock.patch.dict("smplx.body_models.VERTEX_IDS", smplx=VERTEX_IDS):
        model = smplx.create(str(file), FAMILY[joints], ext="npz", **options)
    with torch.no_grad():
        output = model(**pose)
    return output.joints[:, :joints], output.vertices


@pytest.mark.parametrize("skeleton", FAMILIES)
def test_names_and_tree_are_the_published_ones(skeleton):
    published = [name.removesuffix("_smplhf") for name in NAMES[skeleton.num_joints]]
    assert list(skeleton.names) == published
    assert list(skeleton.parents) == TREES[skeleton.num_joints]
    assert skeleton.names[:22] == HUMANML3D_22.names and skeleton.offsets[:22] == HUMANML3D_22.offsets
    assert list(skeleton.parts) == list(HUMANML3D_22.parts)
    for name, (x, y, z) in zip(skeleton.names, skeleton.offsets, strict=True):
        if name.startswith("left_"):
            assert skeleton.offsets[skeleton.index("right_" + name[5:])] == (-x, y, z)


@pytest.mark.parametrize("skeleton", FAMILIES)
def test_joints_are_those_of_smplx(tmp_path, skeleton):
    file = write_body_model(tmp_path, skeleton)
    vectors, trans, betas = random_pose(skeleton.num_joints)
    model = BodyModel(file)
    rotations = axis_angle_to_matrix(vectors)
    joints = model.joints(rotations, trans, betas)
    expected, _ = reference(file, vectors, trans, betas)
    torch.testing.assert_close(joints, expected, atol=1e-5, rtol=0)
    # and forward kinematics on the shape's skeleton says the same
    own = model.skeleton(betas)
    torch.testing.assert_close(own.forward_kinematics(rotations, joints[:, 0]), expected, atol=1e-5, rtol=0)
    assert own.offsets != model.skeleton(torch.zeros(10)).offsets


def test_long_recordings_are_posed_in_pieces_without_a_seam(tmp_path, monkeypatch):
    model = BodyModel(write_body_model(tmp_path, SMPLH_52))
    vectors, trans, betas = random_pose(52, frames=10)
    whole = model.joints(axis_angle_to_matrix(vectors), trans, betas)
    monkeypatch.setattr("lmm.motion.body._CHUNK", 3)
    torch.testing.assert_close(model.joints(axis_angle_to_matrix(vectors), trans, betas), whole, atol=0, rtol=0)


def test_mesh_is_the_t_pose_of_smplx(tmp_path):
    file = write_body_model(tmp_path, SMPLH_52)
    _, _, betas = random_pose(52)
    mesh = BodyModel(file).mesh(betas)
    joints, vertices = reference(file, torch.zeros(1, 52, 3), torch.zeros(1, 3), betas)
    torch.testing.assert_close(mesh.vertices, vertices[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mesh.joints, joints[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mesh.weights.sum(dim=1), torch.ones(len(mesh.vertices)))
    assert mesh.faces.max() < len(mesh.vertices)


@pytest.mark.parametrize("sparse", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
@pytest.mark.parametrize("skeleton", [SMPL_24, SMPLH_52])
def test_official_pickles_are_read_without_chumpy(tmp_path, skeleton, protocol, sparse):
    betas = random_pose(1)[2]
    expected = BodyModel(write_body_model(tmp_path, skeleton)).mesh(betas)
    mesh = BodyModel(write_official_pickle(tmp_path / "x.pkl", skeleton, protocol=protocol, sparse=sparse)).mesh(betas)
    assert torch.equal(mesh.vertices, expected.vertices) and torch.equal(mesh.joints, expected.joints)


@pytest.mark.parametrize(
    ("skeleton", "place"),
    [
        (SMPLH_52, "smplh/SMPLH_MALE.npz"),
        (SMPLH_52, "models/smplh/SMPLH_MALE.npz"),
        (SMPLH_52, "smplh/male/model.npz"),
        (SMPLH_52, "male/model.npz"),
        (SMPLH_52, "SMPLH_male.npz"),
        (SMPLX_55, "models/smplx/SMPLX_MALE.npz"),
        (SMPL_24, "models/basicmodel_m_lbs_10_207_0_v1.1.0.npz"),
    ],
)
def test_models_are_found_in_the_usual_layouts(tmp_path, skeleton, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    write_body_model(tmp_path / "made", skeleton).rename(file)
    assert BodyModel.find(tmp_path, skeleton, gender="male").file == file
    assert BodyModel.find(file, skeleton, gender="female").file == file  # a file is taken as it is
    with pytest.raises(ValueError, match=r"holds no female SMPL.*under your own licence"):
        BodyModel.find(tmp_path, skeleton, gender="female")


def test_another_family_is_not_taken(tmp_path):
    file = write_body_model(tmp_path, SMPLH_52)
    with pytest.raises(ValueError, match="is a model of 52 joints, and 55 are needed"):
        BodyModel.find(file, SMPLX_55)


def test_the_shape_directions_of_smplx_are_not_its_expressions(tmp_path):
    assert BodyModel(write_body_model(tmp_path, SMPLX_55)).num_betas == 10  # of 20
    arrays = body_arrays(SMPLX_55)
    np.savez(tmp_path / "x.npz", **arrays | {"shapedirs": np.zeros((len(arrays["v_template"]), 3, 400), np.float32)})
    assert BodyModel(tmp_path / "x.npz").num_betas == 300
    model = BodyModel(write_body_model(tmp_path, SMPLH_52, num_betas=16))
    assert model.num_betas == 16
    with pytest.raises(ValueError, match="has 16 shape coefficients, got 17"):
        model.rest(torch.zeros(17))


def _other_tree() -> np.ndarray:
    tree = body_arrays(SMPLH_52)["kintree_table"]
    tree[0, 25] = 21
    return tree


BROKEN = {
    "regressor": ({"J_regressor": np.zeros((16, 208))}, r"J_regressor \(16, 208\) is that of no SMPL"),
    "flat regressor": ({"J_regressor": np.float64(1)}, r"J_regressor \(\) is that of no"),
    "vertices": ({"v_template": np.zeros((100, 3))}, r"shapedirs has shape \(208, 3, 10\).*expected \(100, 3, 10\)"),
    "weights": ({"weights": np.zeros((208, 24))}, r"weights has shape \(208, 24\)"),
    "nan": ({"v_template": np.full((208, 3), np.nan)}, "v_template contains NaN"),
    "words": ({"f": np.array([["a", "b", "c"]])}, "f has shape .* of <U1"),
    "faces": ({"f": np.full((4, 3), 208)}, "faces name vertex 208 of 208"),
    "tree": ({"kintree_table": _other_tree()}, "hang together differently from those of SMPLH"),
    "pickled": ({"f": np.array([[{}, 1, 2]], dtype=object)}, "no readable .npz .*allow_pickle"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models_say_what_is_wrong(tmp_path, case):
    arrays, message = BROKEN[case]
    np.savez(tmp_path / "x.npz", **body_arrays(SMPLH_52) | arrays)
    with pytest.raises(ValueError, match=message) as caught:
        BodyModel(tmp_path / "x.npz")
    assert "x.npz" in str(caught.value)


def test_what_is_no_model_at_all(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        BodyModel(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", poses=np.zeros((3, 156)))
    with pytest.raises(ValueError, match="has no v_template, shapedirs"):
        BodyModel(tmp_path / "x.npz")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="holds a list, no dictionary"):
        BodyModel(tmp_path / "x.pkl")


class _Attack:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [exec, eval, Path.touch, np.load, np.lib.format.open_memmap, pickle.loads, getattr]
)
def test_pickles_cannot_run_code(tmp_path, function, protocol):
    arguments = (tmp_path / "touched",) if function is Path.touch else ("import os",)
    payload = dict(body_arrays(SMPL_24)) | {"v_template": _Attack(function, *arguments)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(payload, protocol=protocol))
    with pytest.raises(ValueError, match=r"it wants to load .*, which no array needs"):
        BodyModel(tmp_path / "x.pkl")
    assert not (tmp_path / "touched").exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_and_nothing_else_happens(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    kind = data.draw(st.sampled_from(["npz", "pkl"]))
    made = write_body_model(folder, SMPL_24) if kind == "npz" else write_official_pickle(folder / "m.pkl", SMPL_24)
    content = bytearray(made.read_bytes())
    if kind == "pkl":  # among the opcodes and not in the numbers
        places = [at for _, _, at in pickletools.genops(bytes(content)) if at is not None]
    else:
        places = list(range(0, len(content), 97))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
    made.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content))
    try:
        model = BodyModel(made)
    except ValueError as error:
        assert made.name in str(error)
    else:
        assert torch.isfinite(model.rest(torch.zeros(1))).all()


def test_real_rotations_give_real_joints(shared_data):
    """SMPL's parameters and the joints that its body model gave for them: one AMASS clip as MotionStreamer ships it."""
    folder = shared_data / "parity" / "motionstreamer_272"
    parameters = torch.from_numpy(np.load(folder / "smpl85_facez_000000.npy"))
    joints = torch.from_numpy(np.load(folder / "joints55_facez_000000.npy"))
    rotations = axis_angle_to_matrix(parameters[:, :66].unflatten(1, (22, 3)))
    rotations = torch.cat([rotations, torch.eye(3).expand(len(rotations), 33, 3, 3)], dim=1)  # hands at rest
    places = local_translations(joints, rotations, SMPLX_55)
    assert places[:, 1:].std(dim=0).max() < 1e-6  # every bone is constant in its parent's frame
    root = joints[:, 0] - parameters[:, 72:75]
    assert (root - root[0]).abs().max() < 1e-6  # the pelvis is at trans plus a constant
    back = SMPLX_55.forward_kinematics(rotations, joints[:, 0], offsets=places.median(dim=0).values)
    error = (back - joints).norm(dim=-1).max()
    print(f"{len(joints)} frames, 55 joints: worst {1000 * error:.5f} mm")
    assert error < 1e-5
