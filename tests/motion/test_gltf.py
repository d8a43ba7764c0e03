"""glTF: what we write, judged by an evaluator of our own in numpy; foreign files; and files that are broken."""

import base64
import json
import struct
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmm.motion.body import BodyMesh
from lmm.motion.gltf import pose_body, read_gltf, read_gltf_caption, write_gltf
from lmm.motion.gltf.container import GltfFile
from lmm.motion.motion import Motion
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

from .test_bvh import error_mm, random_motion

TYPES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
DTYPES = {5126: "<f4", 5123: "<u2", 5125: "<u4", 5122: "<i2"}


def parse(path: Path) -> tuple[dict, bytes]:
    """The two chunks of a .glb, by the letter of the specification."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    blob, binary = struct.unpack_from("<I4s", data, 20 + size)
    assert binary == b"BIN\0" and blob % 4 == 0 and 28 + size + blob == length
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def array(tree: dict, blob: bytes, index: int) -> np.ndarray:
    accessor = tree["accessors"][index]
    view = tree["bufferViews"][accessor["bufferView"]]
    offset, width = view["byteOffset"] + accessor["byteOffset"], TYPES[accessor["type"]]
    assert offset % 4 == 0
    dtype = np.dtype(DTYPES[accessor["componentType"]])
    assert accessor["count"] * width * dtype.itemsize <= view["byteLength"]
    return np.frombuffer(blob, dtype, accessor["count"] * width, offset).reshape(-1, width)


def quaternion_matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """q p q* as a matrix, from the product's definition."""
    left = np.array([[w, -z, y, x], [z, w, -x, y], [-y, x, w, z], [-x, -y, -z, w]], float)
    right = np.array([[w, -z, y, -x], [z, w, -x, -y], [-y, x, w, -z], [x, y, z, w]])
    return left @ right


def world_matrices(tree: dict, blob: bytes, frame: int | None) -> list[np.ndarray]:
    """Global matrices of all nodes at key ``frame``, or at rest."""
    poses = [{"translation": [0, 0, 0], "rotation": [0, 0, 0, 1], **node} for node in tree["nodes"]]
    for channel in tree["animations"][0]["channels"] if frame is not None else []:
        sampler = tree["animations"][0]["samplers"][channel["sampler"]]
        poses[channel["target"]["node"]][channel["target"]["path"]] = array(tree, blob, sampler["output"])[frame]
    world: list[np.ndarray] = [np.eye(4)] * len(poses)

    def visit(node: int, above: np.ndarray) -> None:
        local = quaternion_matrix(*poses[node]["rotation"])
        local[:3, 3] = poses[node]["translation"]
        world[node] = above @ local
        for child in poses[node].get("children", []):
            visit(child, world[node])

    for root in tree["scenes"][0]["nodes"]:
        visit(root, np.eye(4))
    return world


def skinned(tree: dict, blob: bytes, frame: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mesh's vertices at a key, and its arrays."""
    primitive, skin = tree["meshes"][0]["primitives"][0], tree["skins"][0]
    arrays = {name: array(tree, blob, index) for name, index in primitive["attributes"].items()}
    arrays["indices"] = array(tree, blob, primitive["indices"])
    inverse = array(tree, blob, skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    world = world_matrices(tree, blob, frame)
    moves = np.stack([world[joint] for joint in skin["joints"]]) @ inverse
    points = np.c_[arrays["POSITION"], np.ones(len(arrays["POSITION"]))]
    blended = (arrays["WEIGHTS_0"][..., None, None] * moves[arrays["JOINTS_0"]]).sum(axis=1)
    return (blended @ points[..., None])[:, :3, 0], arrays


def stretching() -> Motion:
    joints = random_motion().joints + 0.02 * torch.randn(40, 22, 3, generator=torch.Generator().manual_seed(1))
    return Motion(joints, 20.0, HUMANML3D_22)


def turning() -> Motion:
    """Two full turns from facing backwards on, with half turns of the arms and a somersault."""
    angle = torch.linspace(torch.pi, 5 * torch.pi, 41)
    rotations = torch.eye(3).repeat(41, 22, 1, 1)
    for joint, axis in ((0, 1), (3, 0), (16, 0), (17, 2)):
        rotations[:, joint] = axis_angle_to_matrix(torch.eye(3)[axis] * angle[:, None])
    root = torch.linspace(0, 1, 41)[:, None].repeat(1, 3)
    return Motion(HUMANML3D_22.forward_kinematics(rotations, root), 30.0, HUMANML3D_22, rotations)


def with_hands() -> Motion:
    """52 joints: the 22 and a chain of 15 at each wrist."""
    body, names, parents, offsets = HUMANML3D_22, [], [], []
    for wrist, side in ((20, 1.0), (21, -1.0)):
        for finger in range(15):
            names.append(f"{body.names[wrist]}_{finger}")
            parents.append(wrist if finger % 3 == 0 else 21 + len(names) - 1)
            offsets.append((0.03 * side, 0.0, 0.01 * (finger // 3)))
    skeleton = Skeleton(
        (*body.names, *names),
        (*body.parents, *parents),
        (*body.offsets, *offsets),
        {"body": tuple(range(22)), "hands": tuple(range(22, 52))},
    )
    rotations = axis_angle_to_matrix(0.7 * torch.randn(12, 52, 3, generator=torch.Generator().manual_seed(2)))
    return Motion(skeleton.forward_kinematics(rotations, torch.rand(12, 3)), 29.97, skeleton, rotations)


def positions_only() -> Motion:
    return Motion(random_motion().joints, 20.0, HUMANML3D_22)


MOTIONS = {f.__name__: f for f in (random_motion, positions_only, stretching, turning, with_hands)}


@pytest.mark.parametrize("name", MOTIONS)
def test_an_independent_evaluation_of_the_nodes_gives_the_joints(tmp_path, name):
    motion = MOTIONS[name]()
    write_gltf(tmp_path / "x.glb", motion)
    tree, blob = parse(tmp_path / "x.glb")
    for frame in range(0, motion.num_frames, 7):
        world = np.stack(world_matrices(tree, blob, frame))[: motion.skeleton.num_joints, :3, 3]
        np.testing.assert_allclose(world, motion.joints[frame].numpy(), atol=1.2e-4)
    assert [node["name"] for node in tree["nodes"]] == [*motion.skeleton.names, "figure"]


@pytest.mark.parametrize("ending", ["glb", "gltf"])
@pytest.mark.parametrize("name", MOTIONS)
def test_round_trip(tmp_path, name, ending):
    motion, file = MOTIONS[name](), tmp_path / f"x.{ending}"
    write_gltf(file, motion, caption="läuft 走")
    back = read_gltf(file)
    assert (back.fps, back.skeleton.names, back.skeleton.parents) == (
        motion.fps,
        motion.skeleton.names,
        motion.skeleton.parents,
    )
    assert back.skeleton.parts == motion.skeleton.parts
    assert error_mm(back.joints, motion.joints) < 0.12
    if motion.rotations is not None:
        torch.testing.assert_close(back.rotations, motion.rotations, atol=1e-5, rtol=0)
    assert read_gltf_caption(file) == "läuft 走"


@pytest.mark.parametrize("name", MOTIONS)
def test_the_file_is_sound(tmp_path, name):
    motion = MOTIONS[name]()
    write_gltf(tmp_path / "x.glb", motion)
    tree, blob = parse(tmp_path / "x.glb")
    loaded = pygltflib.GLTF2().load(tmp_path / "x.glb")
    assert len(loaded.skins[0].joints) == motion.skeleton.num_joints and loaded.asset.version == "2.0"
    targets = [channel["target"] for channel in tree["animations"][0]["channels"]]
    moving = {target["node"] for target in targets if target["path"] == "translation"}
    assert (len(moving) > 5) == (name == "stretching") and 0 in moving
    for sampler in tree["animations"][0]["samplers"]:
        accessor = tree["accessors"][sampler["input"]]
        times, values = array(tree, blob, sampler["input"]), array(tree, blob, sampler["output"])
        assert len(times) == len(values) == motion.num_frames
        np.testing.assert_allclose(times[:, 0], np.arange(len(times)) / motion.fps, atol=1e-6)
        assert accessor["min"] == [0.0] and accessor["max"] == [float(times[-1, 0])]
        if values.shape[1] == 4:
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
            assert ((values[1:] * values[:-1]).sum(axis=1) > 0).all()  # no jump of sign
    rest = np.stack(world_matrices(tree, blob, None))[tree["skins"][0]["joints"]]
    np.testing.assert_allclose(rest[:, :3, :3], np.broadcast_to(np.eye(3), (len(rest), 3, 3)), atol=1e-7)
    if name != "stretching":
        still = np.zeros((motion.skeleton.num_joints, 3)) + rest[0, :3, 3]
        for joint, parent in enumerate(motion.skeleton.parents[1:], start=1):
            direction = np.array(motion.skeleton.offsets[joint]) / np.linalg.norm(motion.skeleton.offsets[joint])
            length = np.linalg.norm(motion.joints[0, joint] - motion.joints[0, parent])
            still[joint] = still[parent] + length * direction
        np.testing.assert_allclose(rest[:, :3, 3], still, atol=1e-3)  # the T-pose


def test_the_figure_is_closed_and_follows_the_joints(tmp_path):
    motion = stretching()
    write_gltf(tmp_path / "x.glb", motion)
    tree, blob = parse(tmp_path / "x.glb")
    for frame in (0, 25):
        points, arrays = skinned(tree, blob, frame)
        tips = points.reshape(-1, 6, 3)[1:, 5]  # one octahedron a bone
        np.testing.assert_allclose(tips, motion.joints[frame, 1:].numpy(), atol=1e-3)
        np.testing.assert_allclose(
            points.reshape(-1, 6, 3)[1:, 0], motion.joints[frame, list(motion.skeleton.parents[1:])].numpy(), atol=1e-3
        )
    faces = arrays["indices"].reshape(-1, 3).astype(int)
    edges = [(int(face[i]), int(face[(i + 1) % 3])) for face in faces for i in range(3)]
    assert len(set(edges)) == len(edges) and {(b, a) for a, b in edges} == set(edges)
    a, b, c = arrays["POSITION"].astype(float)[faces].transpose(1, 0, 2)
    volumes = (a * np.cross(b, c)).sum(axis=1).reshape(-1, 8).sum(axis=1)
    assert (volumes > 0).all()  # faces look outwards
    np.testing.assert_allclose(arrays["WEIGHTS_0"].sum(axis=1), 1)


def toy_body() -> BodyMesh:
    generator = torch.Generator().manual_seed(3)
    hands = with_hands().skeleton
    joints = hands.forward_kinematics(torch.eye(3).repeat(52, 1, 1), torch.tensor([0.01, -0.2, 0.03])) * 1.1
    weights = torch.rand(60, 52, generator=generator) ** 40
    return BodyMesh(
        vertices=torch.randn(60, 3, generator=generator),
        faces=torch.randint(0, 60, (30, 3), generator=generator),
        weights=weights / weights.sum(dim=1, keepdim=True),
        skeleton=hands,
        joints=joints,
    )


def test_a_body_is_skinned_to_its_own_joints(tmp_path):
    motion, body = random_motion(), toy_body()
    write_gltf(tmp_path / "x.glb", motion, body=body)
    posed, back = pose_body(motion, body), read_gltf(tmp_path / "x.glb")
    assert back.skeleton.names == body.skeleton.names and error_mm(back.joints, posed.joints) < 0.1
    torch.testing.assert_close(back.rotations[:, :22], motion.rotations, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.rotations[:, 22:], torch.eye(3).expand(40, 30, 3, 3))
    torch.testing.assert_close(back.joints[:, 0], motion.joints[:, 0])
    tree, blob = parse(tmp_path / "x.glb")
    points, arrays = skinned(tree, blob, 9)
    # linear blend skinning, from the definition, with the four largest weights
    weights = body.weights.double().numpy().copy()
    weights[weights < np.sort(weights, axis=1)[:, -4:-3]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.zeros((60, 3))
    world = [posed.rotations[9, 0].double().numpy()]
    for joint, parent in enumerate(body.skeleton.parents):
        if joint:
            world.append(world[parent] @ posed.rotations[9, joint].double().numpy())
        moved = (body.vertices - body.joints[joint]).numpy() @ world[joint].T + posed.joints[9, joint].numpy()
        expected += weights[:, joint : joint + 1] * moved
    np.testing.assert_allclose(points, expected, atol=1e-4)
    assert (arrays["indices"].reshape(-1, 3) == body.faces.numpy()).all()


def test_what_cannot_pose_a_body_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fit them first"):
        write_gltf(tmp_path / "x.glb", positions_only(), body=toy_body())
    other = Skeleton(("a", "b"), (-1, 0), ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)), {"all": (0, 1)})
    with pytest.raises(ValueError, match="the body has no a, b"):
        write_gltf(
            tmp_path / "x.glb", Motion(torch.zeros(1, 2, 3), 1.0, other, torch.zeros(1, 2, 3, 3)), body=toy_body()
        )


@pytest.mark.parametrize(
    ("motion", "name", "message"),
    [
        (random_motion(), "x.fbx", "called .glb or .gltf"),
        (Motion(torch.zeros(2, 5, 22, 3), 20.0, HUMANML3D_22), "x.glb", "one file each"),
        (Motion(torch.zeros(5, 22, 3), 20.0, HUMANML3D_22, torch.zeros(5, 22, 3, 3)), "x.glb", "no rotation matrices"),
        (Motion(torch.zeros(5, 22, 3), 20.0, HUMANML3D_22, -torch.eye(3).expand(5, 22, 3, 3)), "x.glb", "no rotation"),
    ],
)
def test_what_cannot_be_written(tmp_path, motion, name, message):
    with pytest.raises(ValueError, match=message):
        write_gltf(tmp_path / name, motion)
    assert not (tmp_path / name).exists()


def test_rigid_gives_only_the_root_a_translation(tmp_path):
    write_gltf(tmp_path / "x.glb", stretching(), rigid=True)
    tree, _ = parse(tmp_path / "x.glb")
    assert sum(channel["target"]["path"] == "translation" for channel in tree["animations"][0]["channels"]) == 1
    assert 1 < error_mm(read_gltf(tmp_path / "x.glb").joints, stretching().joints) < 200


def test_a_body_without_any_length_is_drawn_and_read(tmp_path):
    motion = Motion(torch.zeros(3, 22, 3), 20.0, HUMANML3D_22)
    write_gltf(tmp_path / "x.glb", motion)
    assert error_mm(read_gltf(tmp_path / "x.glb").joints, motion.joints) == 0


class Foreign:
    """A glTF file put together by hand; translations, rotations and keys as plain lists."""

    def __init__(self, nodes: list[dict], **more: object) -> None:
        self.tree: dict = {"asset": {"version": "2.0"}, "nodes": nodes, "accessors": [], "bufferViews": [], **more}
        self.tree.setdefault("animations", [{"channels": [], "samplers": []}])
        self.blob = b""

    def add(self, values: object, kind: str, dtype: str = "<f4", **more: object) -> int:
        data = np.asarray(values, dtype)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": data.nbytes})
        component = next(k for k, v in DTYPES.items() if v == dtype)
        view = len(self.tree["bufferViews"]) - 1
        count = data.size // TYPES[kind]
        self.tree["accessors"].append(
            {"bufferView": view, "componentType": component, "count": count, "type": kind, **more}
        )
        self.blob += data.tobytes() + b"\0" * (-data.nbytes % 4)
        return len(self.tree["accessors"]) - 1

    def track(
        self, node: int, path: str, times: list, values: object, mode: str = "LINEAR", **more: object
    ) -> "Foreign":
        kind = "VEC4" if path == "rotation" else "VEC3"
        animation = self.tree["animations"][0]
        animation["samplers"].append(
            {"input": self.add(times, "SCALAR"), "output": self.add(values, kind, **more), "interpolation": mode}
        )
        sampler = len(animation["samplers"]) - 1
        animation["channels"].append({"sampler": sampler, "target": {"node": node, "path": path}})
        return self

    def write(self, folder: Path, uri: str | None = None) -> Path:
        data = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
        self.tree["buffers"] = [{"byteLength": len(self.blob), "uri": uri or data}]
        (folder / "x.gltf").write_text(json.dumps(self.tree))
        return folder / "x.gltf"


def arm(**more: object) -> Foreign:
    """A rod of one metre along x on a base."""
    nodes = [{"name": "base", "children": [1]}, {"name": "tip", "translation": [1, 0, 0]}]
    return Foreign(nodes, **more)


def about_y(degrees: float) -> list[float]:
    return [0.0, np.sin(np.radians(degrees) / 2), 0.0, np.cos(np.radians(degrees) / 2)]


def test_linear_rotations_turn_at_constant_speed(tmp_path):
    motion = read_gltf(arm().track(0, "rotation", [1, 2], [about_y(0), about_y(170)]).write(tmp_path))
    assert (motion.fps, motion.num_frames, motion.skeleton.names) == (30.0, 31, ("base", "tip"))  # keys are no frames
    angle = np.radians(np.linspace(0, 170, 31))
    expected = np.stack([np.cos(angle), 0 * angle, -np.sin(angle)], axis=-1)
    np.testing.assert_allclose(motion.joints[:, 1], expected, atol=1e-6)
    assert read_gltf(tmp_path / "x.gltf", fps=10.0).num_frames == 11


def test_the_short_way_between_quaternions_of_opposite_sign(tmp_path):
    opposite = [-x for x in about_y(20)]
    motion = read_gltf(arm().track(0, "rotation", [0, 1], [about_y(0), opposite]).write(tmp_path), fps=2.0)
    assert motion.joints[1, 1, 2].item() == pytest.approx(-np.sin(np.radians(10)), abs=1e-6)


def test_steps_and_cubic_splines(tmp_path):
    keys = np.arange(3.0)
    file = arm().track(0, "translation", keys, [[0, 0, 0], [1, 0, 0], [2, 0, 0]], "STEP")
    tangents = np.zeros((3, 3, 3))
    tangents[:, 1, 1], tangents[:, [0, 2], 1] = keys**3, 3 * keys[:, None] ** 2  # y = t^3, which cubics give exactly
    file.track(1, "translation", keys, tangents, "CUBICSPLINE")
    motion = read_gltf(file.write(tmp_path), fps=8.0)
    time = np.arange(17) / 8
    np.testing.assert_allclose(motion.joints[:, 0, 0], np.floor(time), atol=1e-6)
    np.testing.assert_allclose(motion.joints[:, 1, 1], time**3, atol=1e-5)


@pytest.mark.parametrize("fps", [12.5, 29.97, 30000 / 1001, 60.0, 120.0])
def test_frames_are_the_keys(tmp_path, fps):
    """Steps at the keys of a long file, whose float32 times are neither early nor late."""
    count = 3000
    times = (np.arange(count) / fps).astype(np.float32)
    values = np.zeros((count, 3))
    values[:, 0] = np.arange(count)
    motion = read_gltf(arm().track(0, "translation", times, values, "STEP").write(tmp_path))
    assert motion.fps == pytest.approx(fps, rel=1e-3) and motion.num_frames == count
    assert motion.joints[:, 0, 0].tolist() == list(range(count))


def test_an_armature_in_centimetres_with_z_up_and_nodes_in_between(tmp_path):
    half = np.sqrt(0.5)
    nodes = [
        {"name": "Armature", "rotation": [-half, 0, 0, half], "scale": [0.01] * 3, "children": [1]},
        {"name": "hips", "translation": [0, 0, 100], "children": [2, 4]},
        {"name": "helper", "matrix": [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 0, 10, 0, 1], "children": [3]},
        {"name": "knee", "translation": [0, 0, -50]},
        {"name": "unused"},
    ]
    turn = [0.0, 0.0, half, half]  # a quarter turn about the armature's z, which is up
    file = Foreign(nodes, skins=[{"joints": [3, 1]}]).track(1, "rotation", [0, 0.05], [[0, 0, 0, 1], turn])
    motion = read_gltf(file.write(tmp_path))
    assert (motion.skeleton.names, motion.skeleton.parents, motion.fps) == (("hips", "knee"), (-1, 0), 20.0)
    # the knee rests 10 cm along the armature's y (the world's -z) and half a metre lower
    expected = [[[0, 1, 0], [0, 0.5, -0.1]], [[0, 1, 0], [-0.1, 0.5, 0]]]
    np.testing.assert_allclose(motion.joints, expected, atol=1e-6)
    np.testing.assert_allclose(motion.skeleton.offsets, [[0, 1, 0], [0, -0.5, -0.1]], atol=1e-6)
    torch.testing.assert_close(motion.rotations[0], torch.eye(3).repeat(2, 1, 1))  # rotations from the rest pose
    quarter = axis_angle_to_matrix(torch.tensor([0.0, torch.pi / 2, 0.0]))
    torch.testing.assert_close(motion.rotations[1], torch.stack([quarter, torch.eye(3)]), atol=1e-6, rtol=0)
    again = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
    torch.testing.assert_close(again, motion.joints, atol=1e-6, rtol=0)


def test_scale_tracks_and_quantised_rotations(tmp_path):
    file = arm().track(0, "scale", [0, 0.1], [[1, 1, 1], [3, 1, 1]])
    quantised = (32767 * np.array([about_y(0), about_y(90)])).round()
    file.track(0, "rotation", [0, 0.1], quantised, dtype="<i2", normalized=True)
    motion = read_gltf(file.write(tmp_path))
    np.testing.assert_allclose(motion.joints[:, 1], [[1, 0, 0], [0, 0, -3]], atol=2e-4)


def test_joints_of_two_roots_hang_on_their_common_node(tmp_path):
    nodes = [{"name": "top", "children": [1, 2]}, {"name": "left"}, {"name": "right", "translation": [1, 0, 0]}]
    file = Foreign(nodes, skins=[{"joints": [1, 2]}]).track(1, "translation", [0], [[0, 2, 0]])
    motion = read_gltf(file.write(tmp_path))
    assert (motion.skeleton.names, motion.skeleton.parents) == (("top", "left", "right"), (-1, 0, 0))
    assert motion.joints.tolist() == [[[0, 0, 0], [0, 2, 0], [1, 0, 0]]]


def test_buffers_beside_the_file_and_only_there(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    file = arm().track(0, "translation", [0], [[7, 0, 0]])
    for place, name in ((folder, "a b.bin"), (tmp_path, "out.bin")):
        (place / name).write_bytes(file.blob)
    assert read_gltf(file.write(folder, "a%20b.bin")).joints[0, 0].tolist() == [7, 0, 0]
    uris = [
        "../out.bin",
        "%2e%2e/out.bin",
        str(tmp_path / "out.bin"),
        "https://example.org/a.bin",
        "file:///etc/passwd",
    ]
    for uri in [*uris, "missing.bin", "", "x" * 400, "a\0b", "data:,%%%"]:
        with pytest.raises(ValueError, match=r"x\.gltf: "):
            read_gltf(file.write(folder, uri) if uri else file.write(folder, "."))
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    with pytest.raises(ValueError, match="not beside it"):
        read_gltf(file.write(folder, "link.bin"))


def shared_track(num_nodes: int, num_keys: int) -> Foreign:
    """Many nodes that one pair of arrays moves."""
    nodes = [{"name": f"j{i}", "children": [i + 1] * (i < num_nodes - 1)} for i in range(num_nodes)]
    file = Foreign(nodes).track(0, "rotation", np.arange(num_keys) / 30, np.tile(about_y(9), (num_keys, 1)))
    (channel,) = file.tree["animations"][0]["channels"]
    channels = [{**channel, "target": {**channel["target"], "node": node}} for node in range(num_nodes)]
    return change(file, "animations", 0, "channels", value=channels)


def test_tracks_that_share_an_array_read_it_once_and_not_without_end(tmp_path, monkeypatch):
    seen = []
    convert = GltfFile._read
    monkeypatch.setattr(GltfFile, "_read", lambda *args: seen.append(args[1:]) or convert(*args))
    motion = read_gltf(shared_track(50, 4).write(tmp_path))
    assert motion.joints.shape == (4, 50, 3) and seen == [(0, "SCALAR"), (1, "VEC4")]
    seen.clear()
    with pytest.raises(ValueError, match=r"x\.gltf: its tracks have 20250000 keys together, more than 20000000; cut"):
        read_gltf(shared_track(900, 22_500).write(tmp_path))
    assert seen == []


def test_many_buffers_cannot_name_one_file_to_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("lmm.motion.gltf.container._MAX_BYTES", 100_000)
    (tmp_path / "a.bin").write_bytes(bytes(60_000))
    file = moved()
    file.write(tmp_path)
    file.tree["buffers"] = [{"byteLength": 60_000, "uri": uri} for uri in ("a.bin", "./a.bin")]
    file.tree["bufferViews"][1]["buffer"] = 1
    (tmp_path / "x.gltf").write_text(json.dumps(file.tree))
    with pytest.raises(ValueError, match=r"x\.gltf: its buffers are larger than .* together"):
        read_gltf(tmp_path / "x.gltf")


@pytest.mark.parametrize("told", [0.001, 5000.0, float("nan"), "x"])
def test_an_absurd_frame_rate_in_the_extras_is_not_taken(tmp_path, told):
    file = arm(extras={"lmm": {"fps": told}}).track(0, "scale", [0, 0.1, 0.2], [[1] * 3] * 3)
    assert read_gltf(file.write(tmp_path)).fps == 10.0


def test_one_of_several_animations(tmp_path):
    file = arm().track(0, "translation", [0], [[7, 0, 0]])
    file.tree["animations"].append({"name": "second", "channels": [], "samplers": []})
    with pytest.raises(ValueError, match=r"several animations \(0: None, 1: second\); .*animation=0"):
        read_gltf(file.write(tmp_path))
    assert read_gltf(tmp_path / "x.gltf", animation=0).joints[0, 0].tolist() == [7, 0, 0]
    with pytest.raises(ValueError, match="there is no animation 2"):
        read_gltf(tmp_path / "x.gltf", animation=2)


def change(file: Foreign, *keys: str | int, value: object) -> Foreign:
    place = file.tree
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return file


def moved() -> Foreign:
    return arm().track(0, "translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).track(1, "rotation", [0], [about_y(9)])


BROKEN = {
    "nothing moves": (arm, "moves no node"),
    "no animation": (lambda: change(moved(), "animations", value=[]), "no animation"),
    "skin elsewhere": (
        lambda: Foreign([{"name": "a"}, {"name": "b"}], skins=[{"joints": [0]}]).track(1, "scale", [0], [[1, 1, 1]]),
        "moves no joint of the skin",
    ),
    "two trees": (
        lambda: Foreign([{"name": "a"}, {"name": "b"}], skins=[{"joints": [0, 1]}]).track(1, "scale", [0], [[1] * 3]),
        "no common node",
    ),
    "circle": (lambda: change(moved(), "nodes", 1, "children", value=[0]), "in circles"),
    "two parents": (lambda: change(moved(), "nodes", value=[{"children": [1, 1]}, {}]), "two parents"),
    "child": (lambda: change(moved(), "nodes", 0, "children", value=[9]), "there is no node 9"),
    "node": (lambda: change(moved(), "animations", 0, "channels", 0, "target", "node", value=-1), "no node -1"),
    "path": (
        lambda: change(moved(), "animations", 0, "channels", 0, "target", "path", value="up"),
        "unknown or second",
    ),
    "twice": (lambda: moved().track(0, "translation", [0], [[0, 0, 0]]), "unknown or second track"),
    "sampler": (lambda: change(moved(), "animations", 0, "channels", 0, "sampler", value=99), "no sampler 99"),
    "mode": (lambda: change(moved(), "animations", 0, "samplers", 0, "interpolation", value="X"), "interpolation 'X'"),
    "matrix": (lambda: change(moved(), "nodes", 0, "matrix", value=np.eye(4).ravel().tolist()), "has a matrix"),
    "transform": (lambda: change(moved(), "nodes", 1, "translation", value=[0, 1, 1e400]), "not 3 sound numbers"),
    "mirror": (lambda: change(moved(), "nodes", 1, "scale", value=[-1, 1, 1]), "'tip' mirrors"),
    "order": (lambda: arm().track(0, "scale", [1, 0], [[1] * 3] * 2), "out of order"),
    "keys": (lambda: arm().track(0, "scale", [0, 1], [[1] * 3]), "not as many"),
    "nan": (lambda: arm().track(0, "scale", [0], [[np.nan] * 3]), "holds NaN"),
    "zero": (lambda: arm().track(0, "rotation", [0], [[0] * 4]), "no unit quaternion"),
    "forever": (lambda: arm().track(0, "scale", [0, 9e5], [[1] * 3] * 2), "too many"),
    "beyond": (lambda: change(moved(), "accessors", 1, "count", value=2**20), "beyond its buffer"),
    "keys together": (
        lambda: change(moved(), "accessors", 1, "count", value=2**39),
        r"keys together, more than 2\d+; cut",
    ),
    "count": (lambda: change(moved(), "accessors", 1, "count", value=-1), "no size -1"),
    "before": (lambda: change(moved(), "bufferViews", 1, "byteOffset", value=-4), "no size -4"),
    "stride": (lambda: change(moved(), "bufferViews", 1, "byteStride", value=1), "beyond its buffer"),
    "type": (lambda: change(moved(), "accessors", 1, "type", value="VEC4"), "VEC3 of float is needed"),
    "integers": (lambda: arm().track(0, "scale", [0], [[1] * 3], dtype="<i2"), "VEC3 of float is needed"),
    "sparse": (lambda: change(moved(), "accessors", 1, "bufferView", value=None), "sparse"),
    "packed": (
        lambda: change(moved(), "bufferViews", 1, "extensions", value={"EXT_meshopt_compression": {}}),
        "EXT_mesh",
    ),
    "junk": (lambda: change(moved(), "nodes", value=5), r"x\.gltf"),
    "null": (lambda: change(moved(), "nodes", 1, value=None), r"x\.gltf"),
    "list": (lambda: change(moved(), "animations", 0, "channels", value={"a": 1}), r"x\.gltf"),
    "far": (lambda: change(moved(), "nodes", 0, value={"children": [1], "scale": [9e5] * 3}), r"x\.gltf"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, case):
    make, message = BROKEN[case]
    file = make()
    if case == "far":
        file.tree["nodes"][1]["translation"] = [9e5, 0, 0]
    with pytest.raises(ValueError, match=message) as caught:
        read_gltf(file.write(tmp_path))
    assert "x.gltf: " in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_and_missing_bytes_give_a_motion_or_a_value_error(tmp_path, data):
    whole = tmp_path / "whole.glb"
    if not whole.exists():
        write_gltf(whole, Motion(random_motion(3).joints, 20.0, HUMANML3D_22), caption="walks")
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
        raw[8:12] = struct.pack("<I", len(raw))  # a length that fits: the chunks do not
    (tmp_path / "x.glb").write_bytes(raw)
    for read in (read_gltf, read_gltf_caption):
        try:
            read(tmp_path / "x.glb")
        except ValueError as error:
            assert "x.glb: " in str(error)
