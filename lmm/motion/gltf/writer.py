"""Writing glTF 2.0 (``.glb``, ``.gltf``), which browsers, Blender, Unity and Unreal read; `reader` reads it.

Metres, y up, one node a joint. The nodes' rest pose, which is the bind pose too, is the skeleton's T-pose with the
body's own bone lengths: rest translations are the bone offsets, rest rotations the identity. Keys lie at k / fps.
A stick figure (or the skin of a body model) is bound to the joints. Root ``extras`` keep fps, parts, caption
and whether the rotations are fitted ones.
"""

import base64
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pygltflib as gl
import torch
from jaxtyping import Float32, Int64, UInt16
from torch import Tensor

from lmm.motion.body import BodyMesh
from lmm.motion.kinematics import JointTracks, joint_tracks
from lmm.motion.motion import Motion
from lmm.motion.rotations import matrix_to_quaternion
from lmm.motion.skeleton import Skeleton

_INFLUENCES = 4  # joints a vertex, as every viewer has it
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}  # by width
_THICKNESS = 0.12  # of a stick, as a part of its length


def pose_body(motion: Motion, body: BodyMesh) -> Motion:
    """The motion on a body's own skeleton: its rotations and root path; joints that it lacks keep their rest pose.

    Raises:
        ValueError: a motion without rotations, or whose joints are not the body's.
    """
    if motion.rotations is None:
        raise ValueError(
            "a body is posed by rotations, and this motion has joint positions only; fit them first (lmm convert does, "
            "or replace(motion, rotations=fit_rotations(motion.joints, motion.skeleton)[0]))"
        )
    own, names = body.skeleton, motion.skeleton.names
    if strange := [name for name in names if name not in own.names]:
        raise ValueError(f"the body has no {', '.join(strange[:4])}; map the motion to its joints {own.names} first")
    order = [own.index(name) for name in names]
    if any(own.parents[order[j]] != (order[p] if j else -1) for j, p in enumerate(motion.skeleton.parents)):
        raise ValueError("the body's joints hang together differently; `select` the motion's joints on its tree first")
    rotations = torch.eye(3).to(motion.joints).repeat(*motion.joints.shape[:-2], own.num_joints, 1, 1)
    rotations[..., order, :, :] = motion.rotations.to(motion.joints)
    rest = body.joints.detach().to(motion.joints)
    parents = [0, *own.parents[1:]]
    offsets = [(float(x), float(y), float(z)) for x, y, z in (rest - rest[parents]).tolist()]
    skeleton = replace(own, offsets=tuple(offsets))
    return Motion(skeleton.forward_kinematics(rotations, motion.joints[..., 0, :]), motion.fps, skeleton, rotations)


def write_gltf(
    file: str | Path,
    motion: Motion,
    *,
    body: BodyMesh | None = None,
    caption: str = "",
    rigid: bool = False,
    fitted: bool = False,
) -> None:
    """Write one motion as glTF: an animated skeleton and a figure skinned to it.

    Uses ``motion.rotations`` where they are known, fitted ones otherwise. A joint that does not keep its place in its
    parent's frame gets a translation track, so that the file always gives the joints back.

    Args:
        file: ``.glb``, or ``.gltf`` with everything embedded.
        motion: joints "T J 3" in metres.
        body: skin to show, posed by the motion's rotations (see `pose_body`); a stick figure otherwise.
        caption: what the motion shows.
        rigid: give no joint but the root a translation track; the joints are then only as near as constant bone
            lengths allow.
        fitted: note in the file that the rotations are not recorded; so it is where the motion has none.

    Raises:
        ValueError: another extension, a batch, or a motion that cannot pose the body.
    """
    path = Path(file)
    if path.suffix.lower() not in (".glb", ".gltf"):
        raise ValueError(f"{path}: glTF files are called .glb or .gltf")
    fitted = fitted or motion.rotations is None
    if body is not None:
        motion = pose_body(motion, body)
    tracks, skeleton = joint_tracks(path, motion, rigid=rigid), motion.skeleton
    tracks.rest[0] = skeleton.rest[0] if body is None else body.joints[0]
    bind = tracks.rest.clone()
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        bind[joint] += bind[parent]
    figure = _sticks(bind.numpy(), skeleton) if body is None else _skin(body)

    out = _Builder()
    primitive = gl.Primitive(
        attributes=gl.Attributes(
            POSITION=out.add(figure.vertices, gl.ARRAY_BUFFER, bounds=True),
            JOINTS_0=out.add(figure.joints, gl.ARRAY_BUFFER),
            WEIGHTS_0=out.add(figure.weights, gl.ARRAY_BUFFER),
        ),
        indices=out.add(figure.faces.astype(np.uint32).reshape(-1, 1), gl.ELEMENT_ARRAY_BUFFER),
        material=0,
    )
    inverse = np.tile(np.eye(4, dtype=np.float32), (skeleton.num_joints, 1, 1))
    inverse[:, 3, :3] = -bind.numpy()  # column-major
    names, joints = skeleton.names, list(range(skeleton.num_joints))
    children = [[c for c, p in enumerate(skeleton.parents) if p == j] for j in joints]
    nodes = [gl.Node(name=names[j], translation=tracks.rest[j].tolist(), children=children[j]) for j in joints]
    gltf = gl.GLTF2(
        asset=gl.Asset(generator="lmm"),
        scene=0,
        scenes=[gl.Scene(nodes=[0, len(nodes)])],
        nodes=[*nodes, gl.Node(name="figure", mesh=0, skin=0)],
        meshes=[gl.Mesh(name="figure", primitives=[primitive])],
        skins=[gl.Skin(joints=joints, skeleton=0, inverseBindMatrices=out.add(inverse.reshape(-1, 16)))],
        materials=[
            gl.Material(
                name="figure",
                pbrMetallicRoughness=gl.PbrMetallicRoughness(
                    baseColorFactor=[0.35, 0.47, 0.62, 1.0], metallicFactor=0.0, roughnessFactor=0.8
                ),
            )
        ],
        animations=[_animation(out, tracks, motion.fps, caption or path.stem)],
        extras={"lmm": {"fps": motion.fps, "parts": {k: list(v) for k, v in skeleton.parts.items()}}},
    )
    if caption:
        gltf.extras["lmm"]["caption"] = caption
    if fitted:
        gltf.extras["lmm"]["rotations_fitted"] = True
    gltf.accessors, gltf.bufferViews = out.accessors, out.views
    data = b"".join(out.pieces)
    gltf.buffers = [gl.Buffer(byteLength=len(data))]
    if path.suffix.lower() == ".glb":
        gltf.set_binary_blob(data)
        path.write_bytes(b"".join(gltf.save_to_bytes()))
    else:
        gltf.buffers[0].uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode("ascii")
        path.write_text(gltf.gltf_to_json(), encoding="utf-8")


@dataclass(frozen=True)
class _Figure:
    """Triangles and the joints that move their vertices."""

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int64[np.ndarray, "F 3"]
    joints: UInt16[np.ndarray, "V 4"]
    weights: Float32[np.ndarray, "V 4"]


class _Builder:
    """Collects arrays into one buffer."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.views: list[gl.BufferView] = []
        self.accessors: list[gl.Accessor] = []
        self._size = 0

    def add(self, array: np.ndarray, target: int | None = None, *, bounds: bool = False) -> int:
        """Index of a new accessor for an array "N C" of float32, uint16 or uint32."""
        kinds = {"f": gl.FLOAT, "H": gl.UNSIGNED_SHORT, "I": gl.UNSIGNED_INT}
        data = np.ascontiguousarray(array).tobytes()
        assert len(data) % 4 == 0
        self.views.append(gl.BufferView(buffer=0, byteOffset=self._size, byteLength=len(data), target=target))
        accessor = gl.Accessor(
            bufferView=len(self.views) - 1,
            componentType=kinds[array.dtype.char],
            count=len(array) if array.shape[1] > 1 else array.size,
            type=_TYPES[array.shape[1]],
        )
        if bounds:
            accessor.min, accessor.max = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        self.accessors.append(accessor)
        self.pieces.append(data)
        self._size += len(data)
        return len(self.accessors) - 1


def _animation(out: _Builder, tracks: JointTracks, fps: float, name: str) -> gl.Animation:
    """One rotation track a joint, and translation tracks for those that travel."""
    turns = matrix_to_quaternion(tracks.rotations)
    flips = torch.where((turns[1:] * turns[:-1]).sum(-1, keepdim=True) < 0, -1.0, 1.0).cumprod(dim=0)
    turns = torch.cat([turns[:1], turns[1:] * flips])[..., [1, 2, 3, 0]]  # no jump of sign; glTF has (x, y, z, w)
    times = out.add((np.arange(len(turns)) / fps).astype(np.float32)[:, None], bounds=True)
    animation = gl.Animation(name=name)

    def track(joint: int, path: str, values: Tensor) -> None:
        output = out.add(values[:, joint].float().numpy())
        animation.samplers.append(gl.AnimationSampler(input=times, output=output, interpolation=gl.ANIM_LINEAR))
        target = gl.AnimationChannelTarget(node=joint, path=path)
        animation.channels.append(gl.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))

    for joint, moves in enumerate(tracks.moving):
        if moves:
            track(joint, gl.TRANSLATION, tracks.places)
        track(joint, gl.ROTATION, turns)
    return animation


def _sticks(bind: np.ndarray, skeleton: Skeleton) -> _Figure:
    """An octahedron for each bone, blunt at the parent, whose tip follows the child; a small one marks the root."""
    bones = [(p, j) for j, p in enumerate(skeleton.parents) if j and np.linalg.norm(bind[j] - bind[p]) > 1e-4]
    vertices: list[np.ndarray] = []
    faces: list[list[int]] = []
    joints: list[int] = []
    for parent, joint in [(0, 0), *bones]:
        start, end = bind[parent], bind[joint]
        if not joint:
            start, end = start - np.array([0.0, 0.03, 0.0]), end + np.array([0.0, 0.03, 0.0])
        along = (end - start) / np.linalg.norm(end - start)
        side = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        side /= np.linalg.norm(side)
        width = _THICKNESS * np.linalg.norm(end - start) if joint else 0.03
        waist = start + (0.2 if joint else 0.5) * (end - start)
        other = np.cross(along, side)
        ring = [waist + width * turn for turn in (side, other, -side, -other)]
        first = len(vertices)
        vertices += [start, *ring, end]
        joints += [parent] * 5 + [joint]
        for a, b in itertools.pairwise([1, 2, 3, 4, 1]):
            faces += [[first, first + b, first + a], [first + 5, first + a, first + b]]
    influences = np.zeros((len(vertices), _INFLUENCES), np.uint16)
    influences[:, 0] = joints
    weights = np.tile(np.eye(1, _INFLUENCES, dtype=np.float32), (len(vertices), 1))
    return _Figure(np.array(vertices, np.float32), np.array(faces, np.int64), influences, weights)


def _skin(body: BodyMesh) -> _Figure:
    """The body's triangles with the strongest joints of each vertex."""
    count = min(_INFLUENCES, body.skeleton.num_joints)
    top = body.weights.detach().cpu().double().topk(count, dim=1)
    if not (top.values[:, 0] > 0).all():
        raise ValueError("a vertex of the body is moved by no joint; every row of its weights must sum to 1")
    weights = np.zeros((len(body.vertices), _INFLUENCES), np.float32)
    joints = np.zeros((len(body.vertices), _INFLUENCES), np.uint16)
    weights[:, :count] = top.values / top.values.sum(dim=1, keepdim=True)
    joints[:, :count] = np.where(weights[:, :count] > 0, top.indices.numpy(), 0)  # unused places name joint 0
    return _Figure(body.vertices.detach().cpu().float().numpy(), body.faces.cpu().numpy(), joints, weights)
