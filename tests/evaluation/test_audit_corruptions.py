import math
from dataclasses import replace

import pytest
import torch

from lmm.data.sources.procedural.clips import make_clip
from lmm.evaluation.audit.corruptions import CORRUPTIONS, swap_captions
from lmm.motion.cleanup import contacts
from lmm.motion.kinematics import fit_rotations, local_translations
from lmm.motion.motion import Motion
from lmm.motion.representations import SMPLD135, HumanML3DFeatures, JointPositions
from lmm.motion.skeleton import HUMANML3D_22
from lmm.motion.transforms import mirror

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


def clip(index=0, rotations=False):
    joints = torch.from_numpy(make_clip(index)[1])
    made = Motion(joints, 20.0, HUMANML3D_22)
    return replace(made, rotations=fit_rotations(joints, HUMANML3D_22)[0]) if rotations else made


def damage(name, motion, strength, clip=0, seed=0):
    return BY_NAME[name].corrupt(motion, strength, seed=seed, clip=clip)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
@pytest.mark.parametrize(
    "features", [HumanML3DFeatures(), JointPositions(), SMPLD135()], ids=lambda f: type(f).__name__
)
def test_every_damage_can_be_encoded_and_repeats_itself(corruption, features):
    motion = clip(3, rotations=isinstance(features, SMPLD135))
    for strength in (corruption.strengths[0], corruption.strengths[-1]):
        one, same = (corruption.corrupt(motion, strength, seed=0, clip=5) for _ in range(2))
        assert torch.equal(one.joints, same.joints) and one.fps == 20
        assert torch.isfinite(features.encode(one)).all()


def test_strengths_increase():
    for corruption in CORRUPTIONS:
        assert list(corruption.strengths) == sorted(set(corruption.strengths)) and len(corruption.strengths) >= 4


def test_noise_has_its_size_and_stronger_noise_is_the_same_noise():
    motion = clip()
    weak, strong = (damage("joint noise", motion, mm).joints - motion.joints for mm in (5.0, 50.0))
    assert float(weak.std()) == pytest.approx(0.005, rel=0.03) and abs(float(weak.mean())) < 2e-4
    assert torch.allclose(10 * weak, strong, atol=1e-5)
    assert not torch.equal(damage("joint noise", motion, 5.0, clip=1).joints, damage("joint noise", motion, 5.0).joints)
    assert not torch.equal(damage("joint noise", motion, 5.0, seed=1).joints, damage("joint noise", motion, 5.0).joints)


def test_noise_turns_rotations_by_as_much_as_it_turns_the_bones():
    motion = clip(rotations=True)
    twist = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 0.6]])
    motion = replace(motion, rotations=motion.rotations @ twist)  # not what a fit would find
    none, little, much = (damage("joint noise", motion, mm).rotations for mm in (0.0, 1.0, 20.0))
    assert torch.allclose(none, motion.rotations, atol=1e-5)

    def angle(a, b):
        cosine = ((a.transpose(-1, -2) @ b).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        return float(cosine.double().clamp(-1, 1).arccos()[:, [1, 4, 16, 18]].mean())  # thigh, shin, arm, forearm

    # A bone of 0.3 m whose ends each move by 1 mm in every direction turns by about √2·√(π/2)/300, and its parent turns
    # too; 20 times the noise, 20 times the turn.
    assert 0.003 < angle(little, motion.rotations) < 0.02
    assert 15 < angle(much, motion.rotations) / angle(little, motion.rotations) < 25
    noisy = damage("joint noise", motion, 2.0)
    places = local_translations(noisy.joints, noisy.rotations, HUMANML3D_22)
    before = local_translations(motion.joints, motion.rotations, HUMANML3D_22)
    # The ends of lone bones stay where they were in their parent's frame, but for what the fit cannot follow: bones
    # change their lengths, and fitted ones do not.
    for joint in (4, 5, 7, 8, 18, 19, 20, 21):
        aims, aimed = (torch.nn.functional.normalize(x[:, joint], dim=-1) for x in (places, before))
        assert 1e-4 < float((aims - aimed).norm(dim=-1).mean()) < 0.012


@pytest.mark.parametrize("factor", [1.1, 1.5, 2.0])
def test_time_warp_changes_the_time_and_not_the_path(factor):
    motion = clip(1)

    def path(m):
        return float(m.joints[:, 0].diff(dim=0).norm(dim=-1).sum())

    fast, slow = damage("sped up", motion, factor), damage("slowed down", motion, factor)
    assert fast.num_frames == pytest.approx(motion.num_frames / factor, abs=1)
    assert slow.num_frames == pytest.approx(motion.num_frames * factor, abs=factor + 1)
    for warped in (fast, slow):
        assert torch.allclose(warped.joints[0], motion.joints[0], atol=1e-5)
        assert path(warped) == pytest.approx(path(motion), rel=0.06)


def test_mirrored_clips_are_some_then_more_then_all():
    motion = clip()
    at = {share: {i for i in range(200) if damage("mirrored", motion, share, clip=i) is not motion}
          for share in (0.25, 0.5, 1.0)}  # fmt: skip
    assert at[0.25] < at[0.5] < at[1.0] == set(range(200))
    assert 30 < len(at[0.25]) < 70 and 80 < len(at[0.5]) < 120
    assert torch.equal(damage("mirrored", motion, 1.0).joints, mirror(motion).joints)


def test_frozen_stands_still_from_the_right_moment():
    motion = clip(rotations=True)
    frozen = damage("frozen", motion, 0.25)
    moving = round(motion.num_frames * 0.75)
    assert torch.equal(frozen.joints[:moving], motion.joints[:moving])
    assert torch.equal(frozen.joints[moving:], motion.joints[moving - 1].expand_as(frozen.joints[moving:]))
    assert torch.equal(frozen.rotations[-1], motion.rotations[moving - 1])
    assert torch.equal(damage("frozen", motion, 1.0).joints, motion.joints[:1].expand_as(motion.joints))


def test_skating_slides_planted_feet_at_its_speed_and_nothing_else():
    standing = Motion(clip().joints[:1].expand(60, -1, -1).clone(), 20.0, HUMANML3D_22)
    slid = damage("foot skating", standing, 0.5)
    steps = slid.joints.diff(dim=0)
    assert torch.allclose(steps.norm(dim=-1) * 20, torch.full((59, 22), 0.5), atol=1e-4)
    assert float(steps[..., 1].abs().max()) == 0
    flying = replace(standing, joints=standing.joints + torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(damage("foot skating", flying, 0.5).joints, flying.joints)
    walking = clip(1)
    slid = damage("foot skating", walking, 0.5)
    planted = torch.zeros(walking.num_frames, dtype=torch.bool)
    for foot in (10, 11):
        for stretch in contacts(walking.joints[:, foot], 20.0):
            planted[stretch] = True
    shift = (slid.joints - walking.joints).diff(dim=0)[:, 0].norm(dim=-1) * 20
    assert torch.allclose(shift, torch.where(planted[1:], 0.5, 0.0), atol=1e-3)


def test_dropped_frames_repeat_the_last_one_that_came():
    motion = clip()
    stutter = damage("dropped frames", motion, 0.5).joints
    held = (stutter[1:] == stutter[:-1]).all(-1).all(-1)
    assert 0.3 < float(held.float().mean()) < 0.7
    for frame in range(1, len(stutter)):
        assert torch.equal(stutter[frame], stutter[frame - 1] if held[frame - 1] else motion.joints[frame])


def test_swapped_captions_are_a_permutation_that_grows():
    moved = []
    for share in (0.1, 0.25, 0.5, 1.0):
        given = swap_captions(80, share, seed=0)
        assert sorted(given.tolist()) == list(range(80))
        moved.append({i for i, j in enumerate(given.tolist()) if i != j})
        assert len(moved[-1]) == math.floor(80 * share + 0.5)
    assert moved[0] < moved[1] < moved[2] < moved[3]
