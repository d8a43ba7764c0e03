import dataclasses

import pytest
import torch

from lmm.data.sources.procedural.clips import make_clip
from lmm.metrics.physics import physics
from lmm.motion.cleanup import clean_up, contacts
from lmm.motion.kinematics import fit_rotations
from lmm.motion.motion import Motion
from lmm.motion.skeleton import HUMANML3D_22

FEET = [HUMANML3D_22.index(name) for name in ("left_foot", "right_foot")]
LEGS = [j for part in ("left_leg", "right_leg") for j in HUMANML3D_22.parts[part][1:]]  # below the hips
REST = [j for j in range(22) if j not in LEGS]
FPS = 20.0
FADE = 3  # frames


def clip(word: str) -> Motion:
    """The first procedural clip whose caption has a word."""
    made = (make_clip(index) for index in range(200))
    return Motion(
        next(torch.from_numpy(joints) for _, joints, texts in made if word in texts[0].split()), FPS, HUMANML3D_22
    )


def drifting(motion: Motion, speed: float = 0.2) -> Motion:
    """The same, carried to and fro over the floor, with its rotations."""
    time = torch.arange(motion.num_frames) / FPS
    path = torch.stack([speed * time.sin(), 0 * time, speed * (2 * time).cos() / 2], dim=-1)
    joints = motion.joints + path[:, None]
    return dataclasses.replace(motion, joints=joints, rotations=fit_rotations(joints, HUMANML3D_22)[0])


def swaying(sideways: float = 0.0, up: float = 0.0, lift: float = 0.0, frames: int = 40) -> Motion:
    """The rest pose with straight legs, moved slowly as a whole."""
    rest = HUMANML3D_22.forward_kinematics(torch.eye(3).expand(22, 3, 3), torch.zeros(3))
    wave = torch.linspace(0, 2 * torch.pi, frames).sin()
    path = torch.stack([sideways * wave, up * wave + lift - rest[:, 1].min(), 0 * wave], dim=-1)
    return Motion(rest + path[:, None], FPS, HUMANML3D_22)


def bones(motion: Motion):
    return (motion.joints[..., 1:, :] - motion.joints[..., list(HUMANML3D_22.parents[1:]), :]).norm(dim=-1)


def planted(motion: Motion) -> list[tuple[int, slice]]:
    return [(foot, s) for foot in FEET for s in contacts(motion.joints[:, foot], FPS)]


@pytest.mark.parametrize("word", ["walks", "runs", "jumps"])
def test_planted_feet_stop_and_the_rest_stays(word):
    motion = drifting(clip(word))
    clean = clean_up(motion)
    assert planted(motion)
    for foot, s in planted(motion):
        assert clean.joints[s, foot].diff(dim=0).norm(dim=-1).max() * FPS < 1e-3, "a planted foot moves"
        assert (clean.joints[s, foot, 1] > -1e-6).all()
        assert torch.allclose(clean.joints[s, foot, [0, 2]], motion.joints[s, foot][:, [0, 2]].mean(0), atol=1e-4)
    assert (bones(clean) - bones(motion)).abs().max() < 1e-4, "a bone changed its length"
    assert torch.equal(clean.joints[:, REST], motion.joints[:, REST])
    assert torch.isfinite(clean.joints).all() and motion.fps == clean.fps


@pytest.mark.parametrize("word", ["walks", "runs", "jumps"])
def test_skating_gets_less(word):
    motion = drifting(clip(word))
    everywhere = torch.ones(motion.num_frames, dtype=torch.bool)
    before, after = (
        physics(m.joints, everywhere, skeleton=HUMANML3D_22, fps=FPS)["skating_m_s"] for m in (motion, clean_up(motion))
    )
    assert before > 0.15 and after < before / 2, (before, after)


def test_a_glide_beyond_the_legs_is_left_alone():
    motion = drifting(clip("turns"))  # on the spot: both feet stay on the floor while the body goes 0.4 m
    assert torch.equal(clean_up(motion).joints, motion.joints)


@pytest.mark.parametrize("word", ["walks", "jumps"])
def test_frames_away_from_contacts_are_untouched(word):
    motion = drifting(clip(word))
    clean = clean_up(motion)
    untouched = 0
    for leg in ("left_leg", "right_leg"):
        joints = list(HUMANML3D_22.parts[leg])
        near = torch.zeros(motion.num_frames, dtype=torch.bool)
        for s in contacts(motion.joints[:, joints[-1]], FPS):
            near[max(s.start - FADE, 0) : s.stop + FADE] = True
        assert torch.equal(clean.joints[~near][:, joints], motion.joints[~near][:, joints])
        assert torch.equal(clean.rotations[~near][:, joints], motion.rotations[~near][:, joints])
        untouched += int((~near).sum())
    assert untouched


@pytest.mark.parametrize("word", ["walks", "jumps", "kicks"])
def test_rotations_give_the_new_joints(word):
    motion = drifting(clip(word))
    offsets = fit_rotations(motion.joints, HUMANML3D_22)[1]
    rigid = HUMANML3D_22.forward_kinematics(motion.rotations, motion.joints[:, 0], offsets=offsets)
    motion = dataclasses.replace(motion, joints=rigid)
    clean = clean_up(motion)
    again = HUMANML3D_22.forward_kinematics(clean.rotations, clean.joints[:, 0], offsets=offsets)
    assert not torch.equal(clean.rotations, motion.rotations)
    assert torch.allclose(again, clean.joints, atol=1e-5)
    turned = (clean.rotations != motion.rotations).flatten(-2).any(-1).any(0).nonzero().flatten().tolist()
    assert set(turned) <= {HUMANML3D_22.index(f"{s}_{j}") for s in ("left", "right") for j in ("hip", "knee", "ankle")}
    assert clean_up(dataclasses.replace(motion, rotations=None)).rotations is None


def test_knees_keep_their_side():
    motion = drifting(clip("walks"))
    clean = clean_up(motion)
    sides = []
    for m in (motion, clean):
        hip, knee, ankle = (m.joints[:, [HUMANML3D_22.index(f"{s}_{j}") for s in ("left", "right")]]
                            for j in ("hip", "knee", "ankle"))  # fmt: skip
        axis = torch.nn.functional.normalize(ankle - hip, dim=-1)
        sides.append((knee - hip) - ((knee - hip) * axis).sum(-1, keepdim=True) * axis)
    bent = sides[0].norm(dim=-1) > 0.02
    assert bent.any()
    assert (torch.cosine_similarity(*sides, dim=-1)[bent] > 0.9).all()


@pytest.mark.parametrize("sideways, up", [(0.08, 0.0), (0.0, 0.02), (0.05, 0.02)])
def test_a_leg_too_short_lifts_the_heel(sideways, up):
    """Straight legs reach no further with flat feet; the ball of the foot stays all the same."""
    motion = swaying(sideways, up, lift=up)
    clean = clean_up(motion)
    assert (bones(clean) - bones(motion)).abs().max() < 1e-4
    for foot in FEET:
        assert (clean.joints[:, foot] - clean.joints[0, foot]).norm(dim=-1).max() < 1e-3
    heels = clean.joints[:, [HUMANML3D_22.index("left_ankle"), HUMANML3D_22.index("right_ankle")], 1]
    assert heels.max() > heels.min() + 0.002


def test_a_leg_far_too_short_is_straight_and_not_stretched():
    motion = swaying(frames=60)
    joints = motion.joints.clone()
    low = torch.linspace(0, torch.pi, 60).sin() * 0.055  # feet that hang in the air are still near the floor
    joints[..., 1] += low[:, None]
    points = [HUMANML3D_22.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("ankle", "foot")]
    joints[:, points[1::2]] = joints[:, points[::2]] + torch.tensor([0.0, -0.139, 0.0])  # on tiptoe: no heel to lift
    joints[..., 1] -= joints[..., 1].min()
    motion = dataclasses.replace(motion, joints=joints)
    clean = clean_up(motion)
    assert planted(motion)
    assert (bones(clean) - bones(motion)).abs().max() < 1e-4
    top = clean.joints[30, FEET, 1] - clean.joints[0, FEET, 1]
    assert (top > 0.001).all() and (top < 0.055).all(), "the foot comes as near as the leg is long"


def test_feet_in_the_floor_come_out():
    motion = swaying(lift=-0.03)
    clean = clean_up(motion)
    assert clean.joints[..., 1].min() > -1e-6
    assert clean_up(motion, floor=-0.03).joints[..., 1].min() == pytest.approx(-0.03, abs=1e-6)


def test_contacts_by_hand():
    height = torch.tensor([0.2] * 10 + [0.01] * 20 + [0.2] * 10 + [0.01] * 2 + [0.2] * 10)
    path = torch.stack([torch.zeros(52), height, torch.zeros(52)], dim=-1)
    assert contacts(path, FPS) == [slice(11, 29)]  # the frames beside a jump are fast, and two frames are no contact
    assert contacts(path, FPS, floor=-0.1) == []
    slow, fast = (torch.stack([torch.arange(12) * v / FPS, torch.zeros(12), torch.zeros(12)], -1) for v in (0.38, 0.45))
    assert contacts(slow, FPS) == [slice(0, 12)] and contacts(fast, FPS) == []  # maybe, but never surely planted
    assert contacts(torch.cat([slow, slow[-1] + fast]), FPS) == []  # together further than a foot slips
    assert contacts(torch.cat([slow[:4], slow[3] + fast[:4]]), FPS) == [slice(0, 8)]
    long = torch.stack([torch.arange(60) * 0.01, torch.zeros(60), torch.zeros(60)], dim=-1)
    assert contacts(long[:20], FPS) == [slice(0, 20)] and contacts(long, FPS) == []  # 0.2 m is a step, 0.6 m a slide


def test_a_batch_is_its_clips():
    clips = [drifting(clip(word)) for word in ("walks", "turns")]
    frames = min(m.num_frames for m in clips)
    both = Motion(torch.stack([m.joints[:frames] for m in clips]), FPS, HUMANML3D_22)
    for i, m in enumerate(clips):
        alone = clean_up(Motion(m.joints[:frames], FPS, HUMANML3D_22))
        assert torch.allclose(clean_up(both).joints[i], alone.joints, atol=1e-6)
    assert clean_up(Motion(both.joints[:, :1], FPS, HUMANML3D_22)).num_frames == 1


def test_a_skeleton_without_legs_is_refused():
    names = tuple(name.replace("knee", "patella") for name in HUMANML3D_22.names)
    motion = dataclasses.replace(swaying(), skeleton=dataclasses.replace(HUMANML3D_22, names=names))
    with pytest.raises(ValueError, match=r"has no left_knee, .* 22 joints"):
        clean_up(motion)
