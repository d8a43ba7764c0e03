"""Joint maps: every packaged map on a file with its names and known places, the language, and maps that are wrong."""

from pathlib import Path

import pytest
import torch
import yaml

from lmm.motion.bvh import read_bvh, write_bvh
from lmm.motion.joint_map import MAPS, JointMap
from lmm.motion.motion import Motion
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton

# Foreign trees: joint and parent, in the order of their files. @ is Left and Right.
_ARM = "@Shoulder:{0} @Arm:@Shoulder @ForeArm:@Arm @Hand:@ForeArm @HandThumb1:@Hand"
_LEG = "@UpLeg:Hips @Leg:@UpLeg @Foot:@Leg {0}:@Foot"
TREES = {
    "bandai": "Hips:joint_Root Spine:Hips Chest:Spine Neck:Chest Head:Neck Shoulder_@:Chest UpperArm_@:Shoulder_@ "
    "LowerArm_@:UpperArm_@ Hand_@:LowerArm_@ UpperLeg_@:Hips LowerLeg_@:UpperLeg_@ Foot_@:LowerLeg_@ Toes_@:Foot_@",
    "lafan1": f"{_LEG.format('@Toe')} Spine:Hips Spine1:Spine Spine2:Spine1 Neck:Spine2 Head:Neck "
    f"{_ARM.format('Spine2')}",
    "mixamo": f"Spine:Hips Spine1:Spine Spine2:Spine1 Neck:Spine2 Head:Neck HeadTop_End:Head {_ARM.format('Spine2')} "
    f"{_LEG.format('@ToeBase')} @Toe_End:@ToeBase",
    "100style": "Chest:Hips Chest2:Chest Chest3:Chest2 Chest4:Chest3 Neck:Chest4 Head:Neck @Collar:Chest4 "
    "@Shoulder:@Collar @Elbow:@Shoulder @Wrist:@Elbow @Hip:Hips @Knee:@Hip @Ankle:@Knee @Toe:@Ankle",
    "soma": "Hips:Root Spine1:Hips Spine2:Spine1 Chest:Spine2 Neck1:Chest Neck2:Neck1 Head:Neck2 Jaw:Head "
    f"{_ARM.format('Chest')} @Leg:Hips @Shin:@Leg @Foot:@Shin @ToeBase:@Foot @ToeEnd:@ToeBase",
    "cmu_cgspeed": "LHipJoint:Hips RHipJoint:Hips @UpLeg:Hips @Leg:@UpLeg @Foot:@Leg @ToeBase:@Foot LowerBack:Hips "
    "Spine:LowerBack Spine1:Spine Neck:Spine1 Neck1:Neck Head:Neck1 @Shoulder:Spine1 @Arm:@Shoulder @ForeArm:@Arm "
    "@Hand:@ForeArm",
    "cmu_cgspeed_hips": "LHipJoint:Hips RHipJoint:Hips @Hip:Hips @Knee:@Hip @Ankle:@Knee @Toe:@Ankle lowerback:Hips "
    "Chest:lowerback Chest2:Chest lowerneck:Chest2 Neck:lowerneck Head:Neck @Collar:Chest2 @Shoulder:@Collar "
    "@Elbow:@Shoulder @Wrist:@Elbow",
    "humanml3d": " ".join(
        f"{name}:{HUMANML3D_22.names[parent]}"
        for name, parent in zip(HUMANML3D_22.names[1:], HUMANML3D_22.parents[1:], strict=True)
    ),
}
SIDES = {"bandai": ("L", "R")}
# Which joint is which, as the publishers' own documents draw them; other joints are tested below.
ARM = {"collar": "@Shoulder", "shoulder": "@Arm", "elbow": "@ForeArm", "wrist": "@Hand"}
LEG = {"hip": "@UpLeg", "knee": "@Leg", "ankle": "@Foot", "foot": "@ToeBase"}
XSENS = {"hip": "@Hip", "knee": "@Knee", "ankle": "@Ankle", "foot": "@Toe"}
SPINE = {"pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head"}
SAME = {
    "bandai": {"pelvis": "Hips", "spine2": "Spine", "spine3": "Chest", "neck": "Neck", "head": "Head"}
    | {"hip": "UpperLeg_@", "knee": "LowerLeg_@", "ankle": "Foot_@", "foot": "Toes_@"}
    | {"collar": "Shoulder_@", "shoulder": "UpperArm_@", "elbow": "LowerArm_@", "wrist": "Hand_@"},
    "lafan1": SPINE | ARM | LEG | {"foot": "@Toe"},
    "mixamo": SPINE | ARM | LEG,
    "100style": {"pelvis": "Hips", "spine1": "Chest", "spine3": "Chest4", "neck": "Neck", "head": "Head"}
    | XSENS
    | {"collar": "@Collar", "shoulder": "@Shoulder", "elbow": "@Elbow", "wrist": "@Wrist"},
    "soma": {
        "pelvis": "Hips",
        "spine1": "Spine1",
        "spine2": "Spine2",
        "spine3": "Chest",
        "neck": "Neck1",
        "head": "Head",
    }
    | ARM
    | {"hip": "@Leg", "knee": "@Shin", "ankle": "@Foot", "foot": "@ToeBase"},
    "cmu_cgspeed": {"pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1"} | LEG,
    "cmu_cgspeed_hips": {"pelvis": "Hips", "spine1": "Chest", "spine2": "Chest2"} | XSENS,
    "humanml3d": {name: name for name in HUMANML3D_22.names},
}


def tree(name: str, prefix: str = "") -> Skeleton:
    """The foreign skeleton with odd, known offsets (in the file's units: a body some 160 high)."""
    pairs = []
    for word in TREES[name].split():
        for side in SIDES.get(name, ("Left", "Right")) if "@" in word else ("",):
            pairs.append(word.replace("@", side).split(":"))
    names = [pairs[0][1]] + [child for child, _ in pairs]
    generator = torch.Generator().manual_seed(len(names))
    offsets = 20 * torch.randn(len(names), 3, generator=generator) + torch.tensor([0.0, 5.0, 0.0])
    parents = (-1, *(names.index(parent) for _, parent in pairs))
    return Skeleton(
        tuple(prefix + name for name in names),
        parents,
        tuple((x, y, z) for x, y, z in offsets.tolist()),
        {"body": tuple(range(len(names)))},
    )


def motion_on(skeleton: Skeleton, frames: int = 6, *, angle: float = 0.7) -> Motion:
    generator = torch.Generator().manual_seed(1)
    rotations = axis_angle_to_matrix(angle * torch.randn(frames, skeleton.num_joints, 3, generator=generator))
    root = torch.randn(frames, 3, generator=generator)
    return Motion(skeleton.forward_kinematics(rotations, root), 30.0, skeleton, rotations)


def file_with(folder: Path, motion: Motion) -> Motion:
    """The motion written as BVH, which multiplies by 100, and read back with End Sites."""
    write_bvh(folder / "x.bvh", motion)
    return read_bvh(folder / "x.bvh", scale=0.01, end_sites=True)


@pytest.mark.parametrize("name", TREES)
def test_each_map_finds_its_file_and_the_joints_where_they_are(tmp_path, name):
    # cgspeed's bones get their rest lengths, which joints between them that turn would change: no rotations there
    raw = file_with(tmp_path, motion_on(tree(name), angle=0.0 if name.startswith("cmu") else 0.7))
    found = JointMap.detect(raw.skeleton)
    assert found.name == name
    mapped = found.apply(raw)
    assert mapped.skeleton.names == HUMANML3D_22.names and mapped.skeleton.parts == HUMANML3D_22.parts
    assert mapped.num_frames == raw.num_frames - (1 if name.startswith("cmu") else 0)
    assert mapped.rotations is None
    seen = raw.joints[raw.num_frames - mapped.num_frames :] * found.scale
    for ours, theirs in SAME[name].items():
        sides = (
            zip(("left_", "right_"), SIDES.get(name, ("Left", "Right")), strict=True) if "@" in theirs else [("", "")]
        )
        for prefix, side in sides:
            joint = raw.skeleton.index(theirs.replace("@", side))
            got = mapped.joints[:, mapped.skeleton.index(prefix + ours)]
            torch.testing.assert_close(got, seen[:, joint], atol=2e-5, rtol=0, msg=f"{prefix}{ours}")


def test_all_packaged_maps_are_tested_and_a_file_fits_one_only():
    assert {path.stem for path in MAPS.glob("*.yaml")} == {*TREES, "cmu_asf"}
    for name in TREES:
        fitting = [path.stem for path in MAPS.glob("*.yaml") if not JointMap.load(path).missing(tree_with_ends(name))]
        assert fitting == [name]


def tree_with_ends(name: str) -> Skeleton:
    skeleton = tree(name)
    leaves = [j for j in range(skeleton.num_joints) if j not in skeleton.parents]
    names = (*skeleton.names, *(f"{skeleton.names[j]}_end" for j in leaves))
    offsets = (*skeleton.offsets, *((0.0, 1.0, 0.0) for _ in leaves))
    return Skeleton(names, (*skeleton.parents, *leaves), offsets, {"body": tuple(range(len(names)))})


@pytest.mark.parametrize("prefix", ["mixamorig:", "mixamorig1:", "mixamorig", "Model:mixamorig:"])
def test_mixamo_with_a_namespace(tmp_path, prefix):
    plain = JointMap.detect(tree("mixamo")).apply(motion_on(tree("mixamo")))
    found = JointMap.detect(tree("mixamo", prefix))
    assert found.name == "mixamo"
    torch.testing.assert_close(found.apply(motion_on(tree("mixamo", prefix))).joints, plain.joints)


def test_points_that_are_no_joints():
    bandai = motion_on(tree("bandai"))
    hips, spine = (bandai.joints[:, bandai.skeleton.index(name)] / 100 for name in ("Hips", "Spine"))
    mapped = JointMap.load("bandai").apply(bandai)
    torch.testing.assert_close(mapped.joints[:, 3], 0.55 * hips + 0.45 * spine)
    style = motion_on(tree("100style"))
    chest2, chest3 = (style.joints[:, style.skeleton.index(name)] / 100 for name in ("Chest2", "Chest3"))
    torch.testing.assert_close(JointMap.load("100style").apply(style).joints[:, 6], (chest2 + chest3) / 2)


def standing_cgspeed() -> Motion:
    """Two frames of a T-pose whose thorax and lower half of the forearms have no length, as in cgspeed's files."""
    skeleton = tree_with_ends("cmu_cgspeed")
    at = dict.fromkeys(skeleton.names, (0.0, 0.0, 0.0)) | {"Hips": (0.0, 17.0, 0.0), "Spine": (0.0, 19.0, 0.0)}
    at |= {name: (0.0, 21.0, 0.0) for name in ("Spine1", "Neck", "LeftShoulder", "RightShoulder")}
    at |= {"Neck1": (0.0, 23.0, 0.0), "Head": (0.0, 25.0, 0.0), "Head_end": (0.0, 27.0, 0.0)}
    for side, x in (("Left", 1.0), ("Right", -1.0)):
        at |= {
            f"{side}Arm": (3 * x, 21.0, 0.0),
            f"{side}ForeArm": (8 * x, 21.0, 0.0),
            f"{side}Hand": (10 * x, 21.0, 0.0),
        }
        at |= {f"{side}UpLeg": (x, 16.0, 0.0), f"{side}Leg": (x, 9.0, 0.0), f"{side}Foot": (x, 2.0, 0.0)}
        at |= {f"{side}ToeBase": (x, 1.0, 2.0)}
    places = torch.tensor([at[name] for name in skeleton.names])
    offsets = places - places[[max(p, 0) for p in skeleton.parents]]
    skeleton = Skeleton(
        skeleton.names, skeleton.parents, tuple((x, y, z) for x, y, z in offsets.tolist()), skeleton.parts
    )
    return Motion(places.repeat(2, 1, 1), 120.0, skeleton, torch.eye(3).expand(2, len(places), 3, 3))


def test_cgspeed_gets_its_thorax_and_forearms_back():
    mapped = JointMap.load("cmu_cgspeed").apply(standing_cgspeed())
    units = mapped.joints[0] / (0.0254 / 0.45)
    thorax = 2.0  # as long as the bone from Spine to Spine1
    expected = {
        "pelvis": (0, 17, 0),
        "spine2": (0, 21, 0),
        "spine3": (0, 21 + thorax / 2, 0),
        "neck": (0, 21 + thorax + 1.4 * 2, 0),
        "head": (0, 26 + thorax, 0),
        "left_shoulder": (3, 21 + thorax, 0),
        "right_collar": (-3 * 0.465, 21 + thorax / 2 + 0.8 * thorax / 2, 0),
        "left_elbow": (8, 21 + thorax, 0),
        "right_wrist": (-11, 21 + thorax, 0),
    }
    for name, place in expected.items():
        got = units[mapped.skeleton.index(name)].tolist()
        assert got == pytest.approx(place, abs=1e-4), name
    assert mapped.num_frames == 1


def own_map(folder: Path, **changes) -> Path:
    content = {"joints": {name: name for name in HUMANML3D_22.names}} | changes
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return folder / "own.yaml"


def test_a_map_of_ones_own(tmp_path):
    joints = {name: name for name in HUMANML3D_22.names}
    joints["left_foot"] = {"offset": [0.0, -0.05, 0.1], "from": "left_ankle"}
    joints["neck"] = {
        "between": [{"between": ["spine1", "spine3"], "at": 0.5}, "head"],
        "at": [1, 0, 1],
        "axes": "head",
    }
    motion = motion_on(HUMANML3D_22)
    loaded = JointMap.load(str(own_map(tmp_path, joints=joints, scale=2, up="z", skip_frames=2, licence="mine")))
    assert (loaded.name, loaded.licence) == ("own", "mine")
    mapped = loaded.apply(motion)
    y_up = mapped.joints[..., [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])  # back to the file's z up
    source = 2 * motion.joints[2:]
    at = HUMANML3D_22.index
    torch.testing.assert_close(y_up[:, 0], source[:, 0])
    assert mapped.joints[0, 3, 1] == pytest.approx(source[0, 3, 2].item())
    ankle = torch.eye(3).expand(4, 3, 3)
    for joint in (0, 1, 4, 7):
        ankle = ankle @ motion.rotations[2:, joint]
    foot = source[:, 7] + (ankle @ torch.tensor([0.0, -0.05, 0.1]))
    torch.testing.assert_close(y_up[:, at("left_foot")], foot)
    head = torch.eye(3).expand(4, 3, 3)
    for joint in (0, 3, 6, 9, 12, 15):
        head = head @ motion.rotations[2:, joint]
    start = (source[:, 3] + source[:, 9]) / 2
    way = (head.transpose(-1, -2) @ (source[:, 15] - start)[..., None])[..., 0] * torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(y_up[:, 12], start + (head @ way[..., None])[..., 0], atol=1e-5, rtol=0)


def test_the_result_carries_its_bone_lengths():
    mapped = JointMap.load("humanml3d").apply(motion_on(HUMANML3D_22))
    torch.testing.assert_close(mapped.skeleton.rest, HUMANML3D_22.rest / 100)


def test_rigid_bones_have_their_rest_length(tmp_path):
    joints = {name: name for name in HUMANML3D_22.names} | {"neck": {"between": ["spine2", "head"], "at": 0.5}}
    loose = JointMap.load(own_map(tmp_path, joints=joints)).apply(motion_on(HUMANML3D_22)).joints
    rigid = JointMap.load(own_map(tmp_path, joints=joints, rigid=True)).apply(motion_on(HUMANML3D_22)).joints
    rest = HUMANML3D_22.forward_kinematics(torch.eye(3).expand(22, 3, 3), torch.zeros(3))
    length = ((rest[6] + rest[15]) / 2 - rest[9]).norm()
    assert (loose[:, 12] - loose[:, 9]).norm(dim=-1).std() > 1e-3
    torch.testing.assert_close((rigid[:, 12] - rigid[:, 9]).norm(dim=-1), length.expand(6))
    torch.testing.assert_close(rigid[:, 20], loose[:, 20])
    aim = torch.cosine_similarity(rigid[:, 12] - rigid[:, 9], loose[:, 12] - loose[:, 9], dim=-1)
    assert aim.min() > 0.99999


def test_a_skeleton_that_no_map_knows():
    odd = Skeleton(("a", "b"), (-1, 0), ((0.0, 0.0, 0.0),) * 2, {"body": (0, 1)})
    with pytest.raises(
        ValueError, match=r"no joint map fits this skeleton \(a, b, ...\): write one .* nearest: .* misses"
    ):
        JointMap.detect(odd)
    names = tuple("LeftWristJoint" if name == "LeftWrist" else name for name in tree("100style").names)
    near = Skeleton(names, tree("100style").parents, tree("100style").offsets, tree("100style").parts)
    with pytest.raises(ValueError, match="nearest: 100style misses LeftWrist;"):
        JointMap.detect(near)
    with pytest.raises(ValueError, match="joint map 100style needs LeftWrist, which the skeleton does not have"):
        JointMap.load("100style").apply(motion_on(near))


def test_what_cannot_be_applied():
    motion = motion_on(tree("lafan1"))
    with pytest.raises(ValueError, match="needs the rotations"):
        JointMap.load("lafan1").apply(Motion(motion.joints, 30.0, motion.skeleton))
    twice = tuple("Head" if name == "LeftHandThumb1" else name for name in motion.skeleton.names)
    skeleton = Skeleton(twice, motion.skeleton.parents, motion.skeleton.offsets, motion.skeleton.parts)
    with pytest.raises(ValueError, match="two joints called 'Head'"):
        JointMap.load("lafan1").apply(Motion(motion.joints, 30.0, skeleton, motion.rotations))
    with pytest.raises(ValueError, match="of 1 frames the first 1 are left out"):
        JointMap.load("cmu_cgspeed").apply(motion_on(tree_with_ends("cmu_cgspeed"), 1))


def changed(**joints) -> dict:
    return {"joints": {name: name for name in HUMANML3D_22.names} | joints}


WRONG = {
    "list": (["a"], r"own.yaml: expected keys"),
    "no joints": ({"scale": 1}, r"own.yaml: joints is missing"),
    "key": (changed() | {"units": "cm"}, r"own.yaml: unknown key 'units'; known are joints, licence"),
    "joint": (changed(nose="Nose"), r"own.yaml: joints: unknown key 'nose'"),
    "few": ({"joints": {"pelvis": "Hips"}}, r"own.yaml: joints: head, .* missing"),
    "scale": (changed() | {"scale": 0}, r"own.yaml: scale: '0' is not a value"),
    "scale text": (changed() | {"scale": "cm"}, r"own.yaml: scale: 'cm'"),
    "up": (changed() | {"up": "x"}, r"own.yaml: up: 'x'"),
    "skip": (changed() | {"skip_frames": 1.5}, r"own.yaml: skip_frames: '1.5'"),
    "rigid": (changed() | {"rigid": 1}, r"own.yaml: rigid: '1'"),
    "number": (changed(neck=3), r"joints.neck: expected a joint, "),
    "one point": (changed(neck={"between": ["a"], "at": 0.5}), r"joints.neck.between: expected two points"),
    "no at": (changed(neck={"between": ["a", "b"]}), r"joints.neck: at is missing"),
    "at": (changed(neck={"between": ["a", "b"], "at": [1, 2, 3]}), r"joints.neck.at: expected one number, or three"),
    "axes": (changed(neck={"between": ["a", "b"], "at": 0.5, "axes": "a"}), r"joints.neck.at: expected one number"),
    "nan": (changed(neck={"between": ["a", "b"], "at": float("nan")}), r"joints.neck.at"),
    "offset": (changed(neck={"offset": [1, 2], "from": "a"}), r"joints.neck.offset: expected three numbers"),
    "bone": (changed() | {"missing_bones": [{"after": "a"}]}, r"missing_bones\[0\]: direction, length_of is missing"),
    "bones": (changed() | {"missing_bones": "a"}, r"own.yaml: missing_bones: 'a' is not a value"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_maps_say_which_key(tmp_path, case):
    content, message = WRONG[case]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message):
        JointMap.load(tmp_path / "own.yaml")


@pytest.mark.parametrize("text", ["joints: [", "!!python/object/apply:os.system ['true']", "a: \x00", "[" * 2000])
def test_files_that_are_no_yaml(tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"own\.yaml: not readable YAML"):
        JointMap.load(tmp_path / "own.yaml")


def test_maps_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"no joint map 'lafan'; known are 100style, bandai"):
        JointMap.load("lafan")
    with pytest.raises(ValueError, match=r"no joint map '.*x.yaml'"):
        JointMap.load(tmp_path / "x.yaml")
