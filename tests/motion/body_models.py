"""Writes small body model files in the published formats, for tests: a rough body, all numbers ours."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from lmm.motion.body import SMPL_24, SMPLH_52, SMPLX_55
from lmm.motion.skeleton import Skeleton

EACH = 4  # vertices of a joint, on a tetrahedron around it
FAMILY = {SMPL_24.num_joints: "smpl", SMPLH_52.num_joints: "smplh", SMPLX_55.num_joints: "smplx"}
# smplx picks landmarks by vertices that only its full meshes have; any will do.
_LANDMARKS = "nose reye leye rear lear LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel".split()
VERTEX_IDS = {name: i for i, name in enumerate(_LANDMARKS)}
VERTEX_IDS |= {f"{side}{tip}": 20 + i for side in "lr" for i, tip in enumerate("thumb index middle ring pinky".split())}


def body_arrays(skeleton: Skeleton, *, num_betas: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """What a published model file holds; a tetrahedron around each joint, moved by it and a little by its parent."""
    random = np.random.default_rng(seed)
    joints, parents = skeleton.num_joints, np.array(skeleton.parents)
    identity = torch.eye(3).expand(joints, 3, 3)
    rest = skeleton.forward_kinematics(identity, torch.tensor([0.0, -0.2, 0.03])).numpy()
    corners = 0.03 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    own = np.repeat(np.arange(joints), EACH)
    vertices = len(own)
    weights = np.zeros((vertices, joints))
    np.add.at(weights, (np.arange(vertices), own), 0.8)
    np.add.at(weights, (np.arange(vertices), np.maximum(parents[own], 0)), 0.2)
    faces = (
        np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])[None] + EACH * np.arange(joints)[:, None, None]
    ).reshape(-1, 3)
    regressor = np.zeros((joints, vertices))
    regressor[own, np.arange(vertices)] = 1 / EACH
    tree = np.stack([parents, np.arange(joints)])
    tree[0, 0] = 2**32 - 1  # as the published files have it
    shapes = 20 if skeleton is SMPLX_55 else num_betas
    arrays = {
        "v_template": rest[own] + np.tile(corners, (joints, 1)),
        "shapedirs": 0.01 * random.standard_normal((vertices, 3, shapes)),
        "posedirs": 0.01 * random.standard_normal((vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": tree.astype(np.uint32),
        "f": faces.astype(np.uint32),
    }
    if skeleton is not SMPL_24:
        for side in "lr":
            arrays |= {f"hands_components{side}": np.eye(45), f"hands_mean{side}": np.zeros(45)}
    if skeleton is SMPLX_55:
        arrays |= {
            "lmk_faces_idx": np.zeros(51, np.int64),
            "lmk_bary_coords": np.full((51, 3), 1 / 3),
            "dynamic_lmk_faces_idx": np.zeros((79, 17), np.int64),
            "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3),
        }
    return arrays


def write_body_model(
    folder: Path, skeleton: Skeleton, *, gender: str = "neutral", num_betas: int = 10, seed: int = 0
) -> Path:
    """``<folder>/smplh/SMPLH_MALE.npz`` and the like, as smplx lays them out; returns the file."""
    family = FAMILY[skeleton.num_joints]
    file = folder / family / f"{family.upper()}_{gender.upper()}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **body_arrays(skeleton, num_betas=num_betas, seed=seed))
    return file


def write_official_pickle(
    file: Path, skeleton: Skeleton, *, protocol: int = 2, seed: int = 0, sparse: type = scipy.sparse.csc_matrix
) -> Path:
    """As the first SMPL files are: a scipy.sparse regressor and chumpy arrays, without chumpy."""
    arrays: dict[str, object] = dict(body_arrays(skeleton, seed=seed))
    arrays["J_regressor"] = sparse(arrays["J_regressor"])
    module = types.ModuleType("chumpy.ch")
    module.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    for key in ("shapedirs", "v_template"):
        array, arrays[key] = arrays[key], module.Ch()
        arrays[key].x = array
    arrays["bs_style"] = "lbs"
    sys.modules |= {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": module}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(arrays, protocol=protocol))
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    return file
