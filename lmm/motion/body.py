"""The SMPL family (Loper et al. 2015, Romero et al. 2017, Pavlakos et al. 2019): skeletons and body models.

`SMPL_24`, `SMPLH_52` and `SMPLX_55` begin with the 22 joints of `HUMANML3D_22`. Their rest offsets are ours; those of a
person come out of a `BodyModel`, the user's own licensed file:

    vertices "V 3" = template "V 3" + directions "V 3 S" · betas "S"     rest joints "J 3" = regressor "J V" · vertices

Joints need no skinning. Soft-tissue coefficients (DMPL) are not read: they move the skin, and HumanML3D does not use
them either; the joints that a DMPL model regresses from the moved skin differ slightly from frame to frame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lmm.motion.arrays import read_npz, read_pickle
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

# The left hand in T-pose, palm down, of an adult with a hand of 18 cm; lengths rounded. Offsets of the three bones.
_FINGERS = {
    "index": ((0.090, -0.005, 0.025), (0.040, 0.0, 0.0), (0.025, 0.0, 0.0)),
    "middle": ((0.095, 0.0, 0.0), (0.045, 0.0, 0.0), (0.030, 0.0, 0.0)),
    "pinky": ((0.075, -0.010, -0.045), (0.030, 0.0, 0.0), (0.020, 0.0, 0.0)),
    "ring": ((0.085, -0.005, -0.025), (0.040, 0.0, 0.0), (0.025, 0.0, 0.0)),
    "thumb": ((0.025, -0.015, 0.025), (0.025, -0.005, 0.025), (0.025, 0.0, 0.015)),
}
# name, parent, offset, part
_Joint = tuple[str, str, tuple[float, float, float], str]


def _hand(side: str) -> list[_Joint]:
    sign = 1.0 if side == "left" else -1.0
    joints: list[_Joint] = []
    for finger, bones in _FINGERS.items():
        parents = (f"{side}_wrist", f"{side}_{finger}1", f"{side}_{finger}2")
        for number, (parent, (x, y, z)) in enumerate(zip(parents, bones, strict=True), start=1):
            joints.append((f"{side}_{finger}{number}", parent, (sign * x, y, z), f"{side}_arm"))
    return joints


def _with(joints: list[_Joint]) -> Skeleton:
    """The 22 joints of the body, and others."""
    names = (*HUMANML3D_22.names, *(name for name, *_ in joints))
    own = {part: tuple(names.index(name) for name, _, _, where in joints if where == part) for *_, part in joints}
    return Skeleton(
        names=names,
        parents=(*HUMANML3D_22.parents, *(names.index(parent) for _, parent, _, _ in joints)),
        offsets=(*HUMANML3D_22.offsets, *(offset for _, _, offset, _ in joints)),
        parts={part: (*members, *own.get(part, ())) for part, members in HUMANML3D_22.parts.items()},
    )


SMPL_24 = _with(
    [
        ("left_hand", "left_wrist", (0.085, -0.005, 0.0), "left_arm"),
        ("right_hand", "right_wrist", (-0.085, -0.005, 0.0), "right_arm"),
    ]
)
SMPLH_52 = _with([*_hand("left"), *_hand("right")])
SMPLX_55 = _with(
    [
        ("jaw", "head", (0.0, -0.005, 0.02), "torso"),
        ("left_eye", "head", (0.03, 0.06, 0.07), "torso"),
        ("right_eye", "head", (-0.03, 0.06, 0.07), "torso"),
        *_hand("left"),
        *_hand("right"),
    ]
)
_MODELS = {24: ("smpl", SMPL_24), 52: ("smplh", SMPLH_52), 55: ("smplx", SMPLX_55)}
_SMPLX_SHAPES = 300  # of the 400 directions of SMPL-X; the rest are facial expressions (10 of 20 in older files)
_LARGEST = 1e4  # metres; nothing in a body model is of this size
_CHUNK = 512  # frames at a time: keeps the transforms of a long recording in the cache


@dataclass(frozen=True)
class BodyMesh:
    """A body model in T-pose, for one shape.

    Args:
        vertices: metres, y up, facing +z.
        faces: three vertices each, counter-clockwise seen from outside.
        weights: how much each joint moves each vertex; rows sum to 1.
        skeleton: the joints' names and tree.
        joints: where they are in this pose, in the vertices' space.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int64[Tensor, "F 3"]
    weights: Float[Tensor, "V J"]
    skeleton: Skeleton
    joints: Float[Tensor, "J 3"]


class BodyModel:
    """A SMPL, SMPL-H or SMPL-X file: joints, bone lengths and the T-pose mesh of a body shape.

    Attributes:
        file: what was read.
        template: the family's skeleton, with our rest offsets (`SMPL_24`, `SMPLH_52` or `SMPLX_55`).
        num_betas: how many shape coefficients the file has.

    Args:
        file: ``.npz``, or the official ``.pkl``. Nothing but arrays is ever unpickled; chumpy is not needed.

    Raises:
        ValueError: the file cannot be read, or is no body model; what is wrong and what to do.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file).expanduser()
        arrays = _read(self.file)
        try:
            joints = _check(arrays)
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}; download the body model again from its publisher") from None
        self.template = _MODELS[joints][1]
        directions = arrays["shapedirs"]
        if self.template is SMPLX_55:
            directions = directions[..., : _SMPLX_SHAPES if directions.shape[2] > _SMPLX_SHAPES else 10]
        self.num_betas = directions.shape[2]
        self._vertices: Float[Tensor, "V 3"] = _floats(arrays["v_template"])
        self._directions: Float[Tensor, "V 3 S"] = _floats(directions)
        self._regressor: Float[Tensor, "J V"] = _floats(arrays["J_regressor"])
        self._weights: Float[Tensor, "V J"] = _floats(arrays["weights"])
        self._faces: Int64[Tensor, "F 3"] = torch.from_numpy(arrays["f"].astype(np.int64))
        self._parents = torch.tensor(self.template.parents)

    @classmethod
    def find(cls, path: str | Path, skeleton: Skeleton, *, gender: str = "neutral") -> "BodyModel":
        """The model for a skeleton and a gender, from a file or below a folder.

        Known are smplx's layout (``smplh/SMPLH_MALE.npz``), that of AMASS (``smplh/male/model.npz``) and the names of
        the original downloads, in the folder itself, in its ``models`` or in the model's own folder; ``.npz`` first.

        Args:
            path: a body model file, which is taken as it is, or a folder.
            skeleton: `SMPL_24`, `SMPLH_52` or `SMPLX_55`.
            gender: ``male``, ``female`` or ``neutral``.

        Raises:
            ValueError: there is no such file, or it is another model.
        """
        family = _MODELS[skeleton.num_joints][0]
        path = Path(path).expanduser()
        file = path if path.is_file() else _search(path, family, gender.lower())
        model = cls(file)
        if model.template is not skeleton:
            raise ValueError(
                f"{file} is a model of {model.template.num_joints} joints, and {skeleton.num_joints} are needed; "
                f"give a folder that holds {family}/{family.upper()}_{gender.upper()}.npz"
            )
        return model

    def rest(self, betas: Float[Tensor, " S"]) -> Float[Tensor, "J 3"]:
        """Joints in T-pose; the pelvis is not at the origin."""
        from smplx.lbs import vertices2joints  # smplx takes seconds to import

        return vertices2joints(self._regressor, self._shaped(betas)[None])[0]

    def joints(
        self, rotations: Float[Tensor, "T J 3 3"], trans: Float[Tensor, "T 3"], betas: Float[Tensor, " S"]
    ) -> Float[Tensor, "T J 3"]:
        """Joint positions of a whole recording.

        Args:
            rotations: SMPL's pose parameters as matrices.
            trans: SMPL's translation; the pelvis is there plus its place in T-pose.
            betas: shape coefficients, at most ``num_betas``.
        """
        from smplx.lbs import batch_rigid_transform

        rest = self.rest(betas)[None]
        chunks = rotations.to(rest).split(_CHUNK)
        posed = [batch_rigid_transform(r, rest.expand(len(r), -1, -1), self._parents)[0] for r in chunks]
        return torch.cat(posed) + trans.to(rest)[:, None]

    def skeleton(self, betas: Float[Tensor, " S"]) -> Skeleton:
        """The skeleton with this body's bones."""
        rest = self.rest(betas).double()
        bones = (rest[1:] - rest[list(self.template.parents[1:])]).tolist()
        offsets = ((0.0, 0.0, 0.0), *((x, y, z) for x, y, z in bones))
        return Skeleton(self.template.names, self.template.parents, offsets, self.template.parts)

    def mesh(self, betas: Float[Tensor, " S"]) -> BodyMesh:
        """The body in T-pose, to be bound to its joints."""
        return BodyMesh(
            vertices=self._shaped(betas),
            faces=self._faces,
            weights=self._weights,
            skeleton=self.skeleton(betas),
            joints=self.rest(betas),
        )

    def _shaped(self, betas: Float[Tensor, " S"]) -> Float[Tensor, "V 3"]:
        if len(betas) > self.num_betas:
            raise ValueError(f"{self.file} has {self.num_betas} shape coefficients, got {len(betas)}; give the first")
        return self._vertices + self._directions[..., : len(betas)] @ betas.to(self._directions)


def _floats(array: np.ndarray) -> Float[Tensor, "..."]:
    return torch.from_numpy(array.astype(np.float32))


def _search(folder: Path, family: str, gender: str) -> Path:
    own, stem = f"{gender}/model", f"{family}_{gender}"
    letter = gender if gender == "neutral" else gender[:1]
    original = f"basicmodel_{letter}_lbs_" if family == "smpl" else stem  # basicModel_f_lbs_10_207_0_v1.0.0.pkl
    for place in (folder / family, folder / "models" / family, folder, folder / "models"):
        for suffix in (".npz", ".pkl"):
            if (file := place / f"{own}{suffix}").is_file():
                return file
            for file in sorted(place.iterdir()) if place.is_dir() else ():
                name = file.name.lower()
                if name == stem + suffix or (name.startswith(original) and name.endswith(suffix)):
                    return file
    wanted = folder / family / f"{family.upper()}_{gender.upper()}.npz"
    raise ValueError(
        f"{folder} holds no {gender} {family.upper()} model; download it from its publisher under your own licence and "
        f"put it at {wanted} (or .pkl, or {family}/{own}.npz)"
    )


_KEYS = ("v_template", "shapedirs", "J_regressor", "weights", "kintree_table", "f")


def _check(arrays: dict[str, np.ndarray]) -> int:
    """The number of joints of a sound model.

    Raises:
        ValueError: another shape, NaN, another tree.
    """
    template, regressor, faces, tree = (arrays[key] for key in ("v_template", "J_regressor", "f", "kintree_table"))
    vertices = len(template) if template.ndim else 0
    joints = len(regressor) if regressor.ndim else 0
    if joints not in _MODELS:
        raise ValueError(f"J_regressor {regressor.shape} is that of no SMPL (24), SMPL-H (52) or SMPL-X (55) model")
    expected: dict[str, tuple[int, ...]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, arrays["shapedirs"].shape[-1] if arrays["shapedirs"].ndim else 0),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
        "f": (len(faces) if faces.ndim else 0, 3),
    }
    for key, shape in expected.items():
        array = arrays[key]
        if array.shape != shape or not array.size or array.dtype.kind not in "fiu":
            raise ValueError(f"{key} has shape {array.shape} of {array.dtype}, expected {shape} numbers")
        if key not in ("f", "kintree_table") and not (np.abs(array) < _LARGEST).all():
            raise ValueError(f"{key} contains NaN, Inf or absurdly large numbers")
    if faces.min() < 0 or faces.max() >= vertices:
        raise ValueError(f"faces name vertex {faces.max()} of {vertices}")
    if tuple(tree[0, 1:].tolist()) != _MODELS[joints][1].parents[1:]:
        raise ValueError(f"its {joints} joints hang together differently from those of {_MODELS[joints][0].upper()}")
    return joints


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; give a SMPL, SMPL-H or SMPL-X model (.npz or .pkl)")
    with file.open("rb") as handle:
        packed = handle.read(2) == b"PK"
    arrays = read_npz(file, _KEYS) if packed else read_pickle(file, _KEYS)
    if missing := [key for key in _KEYS if key not in arrays]:
        raise ValueError(f"{file} has no {', '.join(missing)}, so it is no SMPL, SMPL-H or SMPL-X model")
    return arrays
