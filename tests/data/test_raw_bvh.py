"""BVH and ASF/AMC as raw sources: what a recording says, what is refused, real files against the ready-made sets."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.data.sources.raw.asfamc import ASFAMC
from lmm.data.sources.raw.bvh import BVH
from lmm.motion.asfamc import read_amc
from lmm.motion.bvh import read_bvh, write_bvh
from lmm.motion.joint_map import MAPS, JointMap
from lmm.motion.kinematics import local_translations
from lmm.motion.motion import Motion
from lmm.motion.rotations import matrix_to_quaternion, quaternion_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.motion.transforms import crop, face_forward, put_on_floor, resample

NAMES = (
    "Hips LeftUpLeg RightUpLeg Spine LeftLeg RightLeg Spine1 LeftFoot RightFoot Spine2 LeftToe RightToe Neck".split()
)
NAMES += "LeftShoulder RightShoulder Head LeftArm RightArm LeftForeArm RightForeArm LeftHand RightHand".split()


def lafan(folder: Path, name: str = "a/walk 1.bvh", *, larger: float = 1.0) -> Path:
    """A body that stands, in a BVH with LAFAN1's names."""
    offsets = tuple((x * larger, y * larger, z * larger) for x, y, z in HUMANML3D_22.offsets)
    skeleton = Skeleton(tuple(NAMES), HUMANML3D_22.parents, offsets, HUMANML3D_22.parts)
    rotations = torch.eye(3).expand(8, 22, 3, 3)
    root = torch.linspace(0, 1, 24).view(8, 3)
    motion = Motion(skeleton.forward_kinematics(rotations, root), 30.0, skeleton, rotations)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_bvh(folder / name, motion)
    return folder / name


def only(source, file=None):
    recordings = [recording for path in ([file] if file else source.files()) for recording in source.read(path)]
    assert len(recordings) == 1
    return recordings[0]


def test_a_recording_says_what_was_done(tmp_path):
    file = lafan(tmp_path)
    file.with_suffix(".txt").write_text("a person stands.\n")
    recording = only(BVH(str(tmp_path)))
    assert recording.id == "a_walk_1"
    assert recording.motion.skeleton.names == HUMANML3D_22.names and recording.motion.fps == 30
    torch.testing.assert_close(recording.motion.skeleton.rest, HUMANML3D_22.rest, atol=1e-5, rtol=0)
    assert [caption.text for caption in recording.captions] == ["a person stands."]
    assert recording.operations[0] == "mapped to 22 joints by joint map lafan1, without rotations"
    assert "multiplied by 0.01 to metres" in recording.operations
    assert recording.flags == ("licence not given; recordings with lafan1's joints are usually CC-BY-NC-ND-4.0",)


def test_arguments_replace_the_map(tmp_path):
    lafan(tmp_path)
    source = BVH(str(tmp_path), map="lafan1", scale=0.012, up="z", skip_frames=3)
    assert source.licence == "CC-BY-NC-ND-4.0"
    recording = only(source)
    assert recording.motion.num_frames == 5
    assert recording.operations[1:] == (
        "multiplied by 0.012 to metres",
        "turned from z up to y up",
        "left out the first 3 frames",
    )
    assert recording.flags[0].startswith("not upright most of the time")  # up is y in this file
    assert recording.source_frames == 8
    assert BVH(str(tmp_path), licence="mine").licence == "mine"
    assert BVH(str(tmp_path)).licence == "unknown"


def test_what_reading_a_file_uses(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text((MAPS / "lafan1.yaml").read_text())
    file = lafan(tmp_path)
    assert BVH(str(tmp_path)).depends(file) == [file, file.with_suffix(".txt")]
    assert BVH(str(tmp_path), map="lafan1").depends(file) == [file, file.with_suffix(".txt")]
    assert BVH(str(tmp_path), map=str(own)).depends(file) == [file, file.with_suffix(".txt"), own]
    amc, source = tmp_path / "02_01.amc.gz", ASFAMC(str(tmp_path), map=str(own))
    assert source.depends(amc) == [amc, tmp_path / "02_01.txt", own]  # that the .asf is missing is said by reading
    (tmp_path / "02.asf.gz").touch()
    assert source.depends(amc) == [amc, tmp_path / "02_01.txt", tmp_path / "02.asf.gz", own]


def test_packed_files_are_read_and_unused_joints_are_counted(tmp_path, shared_data):
    shutil.copy(shared_data / "raw_small" / "cmu_bvh_cgspeed" / "06_01.bvh.gz", tmp_path)
    recording = only(BVH(str(tmp_path)))
    assert recording.id == "06_01" and recording.motion.num_frames == 494
    left_out = next(step for step in recording.operations if step.startswith("left out"))
    assert left_out == "left out 11 joints (LHipJoint, RHipJoint, LowerBack, ...)"
    assert "gave the bone after Spine1 its length back" in recording.operations


@pytest.mark.parametrize("larger, remedy", [(100, "try --scale 0.0001|give --scale"), (0.01, "try --scale 1")])
def test_a_body_that_is_no_body_is_refused(tmp_path, larger, remedy):
    file = lafan(tmp_path, larger=larger)
    with pytest.raises(ValueError, match=rf"walk 1.bvh: with 0.01 m per unit the body would be .* m tall; ({remedy})"):
        only(BVH(str(tmp_path)), file)


def test_what_sources_refuse(tmp_path):
    lafan(tmp_path)
    for arguments, message in [
        ({"scale": 0}, "scale must be positive"),
        ({"up": "x"}, "up must be y or z"),
        ({"skip_frames": -1}, "skip_frames must not be negative"),
        ({"map": "nobody"}, "no joint map 'nobody'"),
    ]:
        with pytest.raises(ValueError, match=message):
            BVH(str(tmp_path), **arguments)
    with pytest.raises(ValueError, match=r"walk 1.bvh: joint map bandai needs UpperLeg_L"):
        only(BVH(str(tmp_path), map="bandai"))
    (tmp_path / "b.bvh").write_text((tmp_path / "a" / "walk 1.bvh").read_text().replace("LeftHand", "Thing"))
    with pytest.raises(ValueError, match=r"b.bvh: no joint map fits .* lafan1 misses LeftHand"):
        only(BVH(str(tmp_path)), tmp_path / "b.bvh")
    with pytest.raises(ValueError, match="source_fps: 0 fps is no frame rate of a motion; expected 1 to 1000"):
        ASFAMC(str(tmp_path), source_fps=0)
    with pytest.raises(ValueError, match=r"holds no \*.amc"):
        ASFAMC(str(tmp_path)).files()


def test_amc_files_find_their_skeletons(tmp_path, shared_data):
    raw = shared_data / "raw_small" / "cmu_asfamc"
    for name in ("16.asf.gz", "16_49.amc.gz", "49.asf.gz", "49_05.amc.gz"):
        shutil.copy(raw / name, tmp_path)
    source = ASFAMC(str(tmp_path))
    assert [file.name for file in source.files()] == ["16_49.amc.gz", "49_05.amc.gz"]
    recordings = [recording for file in source.files() for recording in source.read(file)]
    assert [(r.id, r.motion.num_frames, r.motion.fps) for r in recordings] == [("16_49", 127, 120), ("49_05", 164, 120)]
    assert recordings[0].operations == (
        "mapped to 22 joints by joint map cmu_asf, without rotations",
        "left out 11 joints (lhipjoint, rhipjoint, lowerback, ...)",
        "gave all bones their length in the rest pose",
    )
    with pytest.raises(ValueError, match=r"16_49.amc.gz: with 1 m per unit .* try --scale 0.0564444"):
        only(ASFAMC(str(tmp_path), scale=1.0), tmp_path / "16_49.amc.gz")
    assert only(ASFAMC(str(tmp_path), scale=0.06, source_fps=60), tmp_path / "16_49.amc.gz").motion.fps == 60


def ready_made(shared_data: Path, name: str, raw: str) -> list[tuple[dict, Path, torch.Tensor]]:
    """Manifest line, raw file and joints of the ready-made clips whose recording is among the raw ones."""
    files: dict[str, Path] = {}
    for file in sorted((shared_data / "raw_small").glob(f"{raw}/*")):  # an AMC before the BVH of the same trial
        if ".asf" not in file.name:
            files.setdefault(file.name.split(".")[0], file)
    found = []
    for line in (shared_data / name / "manifest.jsonl").read_text().splitlines():
        clip = json.loads(line)
        if file := files.get(Path(clip["source_file"]).name.split(".")[0]):
            joints = torch.from_numpy(np.load(shared_data / name / "new_joints" / f"{clip['id']}.npy"))
            found.append((clip, file, joints))
    return found


def placed(motion: Motion, clip: dict) -> torch.Tensor:
    return face_forward(put_on_floor(crop(motion, clip["start"], clip["end"]))).joints


def errors_mm(motion: Motion, clip: dict, joints: torch.Tensor) -> torch.Tensor:
    return 1000 * (placed(motion, clip) - joints).norm(dim=-1)


def test_cmu_files_give_the_ready_made_clips(shared_data):
    """All 22 joints to 0.002 mm; of trials made from AMC and at hand as BVH only, the legs, and the rest to 2.5 mm."""
    clips = ready_made(shared_data, "cmu_humanml_layout", "cmu_*")
    exact, other = [], []
    for clip, file, joints in clips:
        source = (ASFAMC if "amc" in file.name else BVH)(str(file.parent))
        error = errors_mm(resample(only(source, file).motion, 20.0), clip, joints)
        (exact if ("amc" in file.name) == (clip["kind"] == "asfamc") else other).append(error.amax(0))
    worst = torch.stack(exact).amax(0)
    print(
        f"CMU, {len(exact)} clips: worst joint {worst.max():.4f} mm; AMC against BVH {torch.stack(other).max():.2f} mm"
    )
    assert len(exact) == 14 and worst.max() < 0.003
    below = [HUMANML3D_22.index(n) for n in HUMANML3D_22.names if n in ("pelvis", "spine1", "spine2")]
    below += [j for part in ("left_leg", "right_leg") for j in HUMANML3D_22.parts[part]]
    assert len(other) == 2 and torch.stack(other)[:, below].max() < 0.01
    assert torch.stack(other).max() < 2.5  # the thorax, which the BVH lacks, is guessed


def cubic(values: torch.Tensor, ratio: float) -> torch.Tensor:
    """Catmull-Rom at every ``ratio``-th frame; at the ends the last frame is repeated."""
    count = int((len(values) - 1) / ratio + 1e-6) + 1
    time = torch.arange(count, dtype=torch.float64) * ratio
    at = time.floor().long().clamp_max(len(values) - 1)
    u = (time - at).view(-1, *[1] * (values.ndim - 1))
    p, q, r, s = (values[(at + k).clamp(0, len(values) - 1)] for k in (-1, 0, 1, 2))
    return q + u / 2 * (r - p + u * (2 * p - 5 * q + 4 * r - s + u * (3 * (q - r) + s - p)))


def cubic_resampled(motion: Motion, fps: float) -> Motion:
    """Local rotations (as quaternions) and translations by `cubic`, in the file's own skeleton."""
    ratio, skeleton = motion.fps / fps, motion.skeleton
    quaternions = matrix_to_quaternion(motion.rotations.double())
    for frame in range(1, len(quaternions)):
        flip = (quaternions[frame] * quaternions[frame - 1]).sum(-1, keepdim=True) < 0
        quaternions[frame] = torch.where(flip, -quaternions[frame], quaternions[frame])
    turns = quaternion_to_matrix(torch.nn.functional.normalize(cubic(quaternions, ratio), dim=-1))
    places = cubic(local_translations(motion.joints.double(), motion.rotations.double(), skeleton), ratio)
    world, joints = [turns[:, 0]], [places[:, 0]]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        joints.append(joints[parent] + (world[parent] @ places[:, joint, :, None]).squeeze(-1))
        world.append(world[parent] @ turns[:, joint])
    return Motion(torch.stack(joints, dim=1).float(), fps, skeleton, turns.float())


def test_bandai_files_give_the_ready_made_clips(shared_data):
    """Exactly so, resampled as they were (cubic, before the mapping); within millimetres, resampled as imports are."""
    ours, theirs = [], []
    clips = ready_made(shared_data, "bandai_humanml", "bandai")
    for clip, file, joints in clips:
        raw = read_bvh(file, scale=1.0, end_sites=True)
        theirs.append(errors_mm(JointMap.detect(raw.skeleton).apply(cubic_resampled(raw, 20.0)), clip, joints))
        ours.append(errors_mm(resample(only(BVH(str(file.parent)), file).motion, 20.0), clip, joints))
    same, near = torch.cat(theirs), torch.cat(ours)
    print(f"Bandai, {len(clips)} clips: cubic {same.max():.4f} mm; resample {near.mean():.2f} to {near.max():.1f} mm")
    assert len(clips) == 11 and same.max() < 0.01
    assert near.mean() < 0.1 and near.max() < 10


def test_a_real_amc_and_its_packed_copy_are_one(tmp_path, shared_data):
    raw = shared_data / "raw_small" / "cmu_asfamc"
    for name in ("09.asf", "09_03.amc"):
        (tmp_path / name).write_bytes(gzip.decompress((raw / f"{name}.gz").read_bytes()))
    assert torch.equal(read_amc(tmp_path / "09_03.amc").joints, read_amc(raw / "09_03.amc.gz").joints)
