"""The embedded data set: layout, the body's laws, and that captions say what is shown."""

import json
import random
import re

import numpy as np
import pytest

from lmm.data.sources.procedural import Procedural, captions, generate
from lmm.data.sources.procedural.captions import clip_captions, text_line
from lmm.data.sources.procedural.clips import make_clip, split_of
from lmm.data.sources.procedural.perform import MAX_FRAMES, MIN_FRAMES, perform
from lmm.data.sources.procedural.phrases import MOOD_WORDS, PHRASES, SPEEDS
from lmm.data.sources.procedural.plan import GESTURES, MOVES, Act, Plan, draw_plan, held_out
from lmm.motion.representations.humanml3d import HumanML3DFeatures
from lmm.motion.skeleton import HUMANML3D_22

FPS = 20
PARENTS = HUMANML3D_22.parents
L_HIP, R_HIP, L_KNEE, L_ANKLE, L_TOE = 1, 2, 4, 7, 10
L_SHOULDER, L_ELBOW, L_WRIST = 16, 18, 20


@pytest.fixture(scope="module")
def clips():
    """The first 150 clips: (plan, joints in float64, captions)."""
    made = (make_clip(i) for i in range(150))
    return [(plan, joints.astype(np.float64), sentences) for plan, joints, sentences in made]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("procedural") / "demo"
    generate(folder, num_clips=100, seed=3)
    return folder


def show(act, style="neutral", seed=0, **second):
    return perform(Plan(act, style=style, **second), random.Random(seed))


def every_act():
    for name, (_, ways, sides, speeds, counts) in {**MOVES, **GESTURES}.items():
        for way in dict.fromkeys(ways):
            for side in sides:
                for speed in dict.fromkeys(speeds):
                    for count in dict.fromkeys(counts):
                        yield Act(name, way, side, speed, count)


def planted(joints):
    """Speeds (m/s) of toes that are on the ground in two frames in a row."""
    toes = joints[:, 10:12]
    down = (toes[1:, :, 1] < 0.005) & (toes[:-1, :, 1] < 0.005)
    return np.linalg.norm(np.diff(toes, axis=0), axis=-1)[down] * FPS


def facing(joints):
    across = joints[L_HIP] - joints[R_HIP] + joints[16] - joints[17]
    return np.arctan2(-across[2], across[0])  # to the left of +z


class TestFolder:
    def test_layout(self, folder):
        ids = (folder / "all.txt").read_text().split()
        assert ids == [f"{i:06d}" for i in range(100)]
        assert sorted(f.stem for f in (folder / "new_joints").iterdir()) == ids
        assert sorted(f.stem for f in (folder / "texts").iterdir()) == ids
        lists = {s: (folder / f"{s}.txt").read_text().split() for s in ("train", "val", "test", "unseen")}
        assert sorted(i for ids in lists.values() for i in ids) == ids  # disjoint and complete
        assert {s: len(ids) for s, ids in lists.items()} == {"train": 80, "val": 6, "test": 6, "unseen": 8}
        joints = np.load(folder / "new_joints" / "000000.npy")
        assert joints.dtype == np.float32 and joints.shape[1:] == (22, 3)
        assert list(folder.parent.iterdir()) == [folder]

    def test_texts(self, folder):
        for file in (folder / "texts").iterdir():
            lines = file.read_text().splitlines()
            assert 3 <= len(lines) <= 4
            for line in lines:
                assert re.fullmatch(r"[a-z][a-z ,\-]+\.?#([a-z]+/[A-Z]+ ?)+#0\.0#0\.0", line), line

    def test_manifest(self, folder):
        entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        assert len(entries) == 100
        for i, entry in enumerate(entries):
            assert entry["id"] == f"{i:06d}" and entry["split"] == split_of(i) and entry["seed"] == 3
            texts = entry["hierarchical"]
            assert set(texts) == {"body", "upper_body", "lower_body"} and all(texts.values())
            assert not re.search(r"[\[\]{}]|  ", " ".join(texts.values()))

    def test_deterministic_and_prefix(self, folder, tmp_path):
        generate(tmp_path / "again", num_clips=30, seed=3)
        for i in range(30):
            for file in (f"new_joints/{i:06d}.npy", f"texts/{i:06d}.txt"):
                assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
        assert not np.array_equal(make_clip(0, 3)[1], make_clip(0, 4)[1])

    def test_a_crash_leaves_nothing(self, tmp_path, monkeypatch):
        def crash(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("lmm.data.sources.procedural.clips.text_line", crash)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "demo", num_clips=2)
        assert list(tmp_path.iterdir()) == []

    def test_source(self, folder):
        source = Procedural(str(folder), num_clips=100, seed=3)
        source.prepare()
        splits = source.splits()
        assert set(splits) == {"train", "val", "test", "unseen"} and len(splits["train"]) == 80
        clips = list(source.clips(HumanML3DFeatures()))
        assert len(clips) == 100 and all(clip.motion is not None and len(clip.captions) >= 3 for clip in clips)

    def test_source_refuses_other_settings(self, folder, tmp_path):
        with pytest.raises(ValueError, match="delete"):
            Procedural(str(folder), num_clips=101, seed=3).prepare()
        (tmp_path / "stranger").mkdir()
        with pytest.raises(ValueError, match="another folder"):
            Procedural(str(tmp_path / "stranger")).prepare()
        with pytest.raises(ValueError, match="exists"):
            generate(folder)

    def test_source_makes_what_is_missing(self, tmp_path):
        source = Procedural(str(tmp_path / "new" / "demo"), num_clips=12)
        source.prepare()
        source.prepare()
        assert all(source.splits().values())


class TestBody:
    def test_conventions(self, clips):
        for plan, joints, _ in clips:
            assert MIN_FRAMES <= len(joints) <= MAX_FRAMES
            assert np.isfinite(joints).all()
            assert abs(joints[..., 1].min()) < 1e-6, plan
            assert np.allclose(joints[0, 0, [0, 2]], 0, atol=1e-6), plan
            assert abs(facing(joints[0])) < 1e-4, plan

    def test_bone_lengths(self, clips):
        rest = np.linalg.norm(np.array(HUMANML3D_22.offsets)[1:], axis=-1)
        for plan, joints, _ in clips:
            bones = np.linalg.norm(joints[:, 1:] - joints[:, PARENTS[1:]], axis=-1)
            assert np.abs(bones - bones[0]).max() < 1e-4, plan
            scale = bones[0] / rest
            assert np.ptp(scale) < 1e-4 and 0.92 < scale[0] < 1.08, plan

    def test_planted_feet_do_not_slide(self, clips):
        speeds = [planted(joints) for _, joints, _ in clips]
        assert np.median(np.concatenate(speeds)) < 0.001
        for (plan, _, _), speed in zip(clips, speeds, strict=True):
            assert len(speed) == 0 or np.median(speed) < 0.02, plan
        assert np.percentile(np.concatenate(speeds), 95) < 0.1

    def test_knees_bend_backward_only(self, clips):
        for plan, joints, _ in clips:
            for side in (0, 1):
                hip, knee, ankle = joints[:, L_HIP + side], joints[:, L_KNEE + side], joints[:, L_ANKLE + side]
                left = joints[:, L_HIP] - joints[:, R_HIP]
                bend = (np.cross(knee - hip, ankle - knee) * left).sum(-1)  # > 0: the shin turned back
                assert bend.min() > -0.006, plan  # a splayed knee turns the hinge a little
                assert np.linalg.norm(ankle - hip, axis=-1).max() < 0.80 * 1.08, plan

    def test_elbows(self, clips):
        for plan, joints, _ in clips:
            for side in (0, 1):
                upper = joints[:, L_ELBOW + side] - joints[:, L_SHOULDER + side]
                fore = joints[:, L_WRIST + side] - joints[:, L_ELBOW + side]
                cosine = (upper * fore).sum(-1) / np.linalg.norm(upper, axis=-1) / np.linalg.norm(fore, axis=-1)
                assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 155, plan
                left, up = joints[:, 16] - joints[:, 17], joints[:, 12] - joints[:, 9]
                hanging = (upper * up).sum(-1) < -0.85 * np.linalg.norm(upper, axis=-1) * np.linalg.norm(up, axis=-1)
                bend = -(np.cross(upper, fore) * left).sum(-1)[hanging]  # > 0: the forearm turned forward
                assert len(bend) == 0 or bend.min() > -0.002, plan

    def test_nothing_jumps_from_frame_to_frame(self, clips):
        for plan, joints, _ in clips:
            assert np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).max() * FPS**2 < 250, plan


class TestActs:
    @pytest.mark.parametrize("way", ["up", "forward", "backward"])
    def test_jump_is_ballistic(self, way):
        joints = show(Act("jump", way, count=2))
        scale = np.linalg.norm(joints[0, 4] - joints[0, 1]) / 0.39
        flying = (joints[:, 10:12, 1] > 0.02).all(axis=1)
        inside = flying[:-2] & flying[1:-1] & flying[2:]
        acceleration = np.diff(joints[:, 0, 1], n=2)[inside] * FPS**2 / scale
        assert inside.sum() >= 6
        assert np.allclose(acceleration, -9.81, atol=0.3)
        takeoffs = np.flatnonzero(np.diff(flying.astype(int)) == 1)
        assert len(takeoffs) == 2

    def test_wave_raises_the_named_hand(self):
        for side, arm in (("left", 0), ("right", 1)):
            joints = show(Act("wave", side=side, count=3))
            above = joints[:, 20:22, 1] - joints[:, 16:18, 1]
            middle = slice(len(joints) // 3, -len(joints) // 3)
            assert above[middle, arm].min() > 0.05 and above[:, 1 - arm].max() < -0.2

    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_wave_count(self, count):
        joints = show(Act("wave", side="right", count=count))
        aside = (joints[:, 21, 0] - joints[:, 19, 0])[10:-10]
        centred = aside - (aside.max() + aside.min()) / 2
        assert (np.diff(np.sign(centred[np.abs(centred) > 0.02])) != 0).sum() in (
            2 * count - 1,
            2 * count,
            2 * count + 1,
        )

    def test_squat_count_and_depth(self):
        height = show(Act("squat", "deep", count=3))[:, 0, 1]
        assert height[0] - height.min() > 0.35
        down = height < (height.max() + height.min()) / 2
        assert (np.diff(down.astype(int)) == 1).sum() == 3
        shallow = show(Act("squat", "shallow", count=1))[:, 0, 1]
        assert 0.2 < shallow[0] - shallow.min() < 0.33

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_circle_comes_back(self, side):
        joints = show(Act("walk around", "circle", side), seed=2)
        path = joints[:, 0, [0, 2]]
        assert np.linalg.norm(path[-1]) < 0.15 and np.linalg.norm(path, axis=1).max() > 0.8
        centre = path.mean(axis=0)
        assert centre[0] * (1 if side == "left" else -1) > 0.4  # it lies to that side
        assert abs(facing(joints[-1])) < 0.2

    def test_directions(self):
        assert show(Act("walk", "forward"))[-1, 0, 2] > 1
        assert show(Act("walk", "backward"))[-1, 0, 2] < -0.8
        assert show(Act("sidestep", side="left"))[-1, 0, 0] > 0.6
        assert show(Act("jump aside", side="right", count=1))[-1, 0, 0] < -0.3
        assert np.isclose(facing(show(Act("turn", "quarter", "left"))[-1]), np.pi / 2, atol=0.15)
        assert np.isclose(facing(show(Act("turn", "quarter", "right"))[-1]), -np.pi / 2, atol=0.15)
        assert abs(facing(show(Act("turn", "half", "left"))[-1])) > 2.9

    def test_speeds(self):
        def pace(act):
            joints = show(act)
            return np.linalg.norm(np.diff(joints[:, 0, [0, 2]], axis=0), axis=1).max() * FPS

        walks = [pace(Act("walk", "forward", speed=s)) for s in ("slow", "", "fast")]
        runs = [pace(Act("run", "forward", speed=s)) for s in ("slow", "", "fast")]
        assert walks == sorted(walks) and runs == sorted(runs) and walks[1] < runs[0]

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_kick_hop_kneel_use_the_named_leg(self, side):
        leg = 0 if side == "left" else 1
        kick = show(Act("kick", "front", side, count=1))
        assert kick[:, 10 + leg, 1].max() > 0.4 and kick[:, 11 - leg, 1].max() < 0.05
        hop = show(Act("hop", "in place", side, count=3))
        middle = slice(len(hop) // 3, -len(hop) // 3)
        assert hop[middle, 11 - leg, 1].min() > 0.1 and hop[middle, 10 + leg, 1].min() < 0.01
        kneel = show(Act("kneel", side=side))
        assert 0.0 < kneel[:, 4 + leg, 1].min() < 0.12 and kneel[:, 5 - leg, 1].min() > 0.3

    def test_clap_brings_the_hands_together(self):
        for way in ("chest", "overhead"):
            joints = show(Act("clap", way, count=4))
            apart = np.linalg.norm(joints[:, 20] - joints[:, 21], axis=-1)[10:-10]
            assert apart.min() < 0.15 and apart[apart.argmin() :].max() > 0.2

    def test_sit_and_bow(self):
        sit = show(Act("sit", "down"))
        assert sit[-1, 0, 1] < 0.62 and abs(sit[-1, 1, 1] - sit[-1, 4, 1]) < 0.12  # thighs level
        bow = show(Act("bow", "deep", count=1))
        assert bow[0, 15, 1] - bow[:, 15, 1].min() > 0.3 and np.ptp(bow[:, 10:12], axis=0).max() < 0.01

    def test_moods_show(self):
        heads = {style: show(Act("walk", "forward"), style)[:, 15] for style in ("neutral", "tired", "proud")}
        lean = {style: (head[:, 1]).mean() for style, head in heads.items()}
        assert lean["tired"] < lean["neutral"] - 0.05 and lean["proud"] > lean["tired"] + 0.05

    def test_every_act_can_be_shown_and_said(self):
        for i, act in enumerate(every_act()):
            plan = Plan(act, style=("neutral", "tired", "happy")[i % 3])
            assert all(sentence for sentence in clip_captions(plan, random.Random(i), 4))
            if i % 3 == 0:
                assert len(perform(plan, random.Random(i))) <= MAX_FRAMES


class TestWords:
    def test_sides_counts_speeds_and_moods_are_true(self, clips):
        numbers = {"twice": 2, "two": 2, "three": 3, "four": 4, "five": 5, "once": 1}
        for plan, _, sentences in clips:
            acts = [plan.first] + ([plan.second] if plan.second else [])
            allowed = {act.side for act in acts} | {act.way for act in acts if act.name == "stretch"}
            for sentence in sentences:
                words = set(re.findall(r"[a-z]+", sentence))
                if not {act.name for act in acts} & {"box", "look around", "shake head", "balance"}:
                    assert {"left", "right"} & words <= allowed, (plan, sentence)
                said = {numbers[w] for w in words & set(numbers)} - {1}
                assert said <= {act.count for act in acts}, (plan, sentence)
                for mood, phrases in MOOD_WORDS.items():
                    assert mood == plan.style or not any(phrase in sentence for phrase in phrases[:2]), sentence
                if "slowly" in words or "unhurriedly" in words:
                    assert plan.first.speed == "slow", sentence
                assert not plan.first.speed == "slow" or "quickly" not in words, sentence
            full = sentences[0]
            if plan.style != "neutral":
                assert any(phrase in full for phrase in MOOD_WORDS[plan.style]), (plan, full)
            for act in acts:
                if act.side in ("left", "right"):
                    assert act.side in full, (plan, full)

    def test_grammar_leaves_no_marks(self):
        sentences = captions(3000, seed=5)
        assert not [s for s in sentences if re.search(r"[\[\]{}:]|  | ,", s)]
        assert len(set(sentences)) > 2000
        assert sentences == captions(3000, seed=5) and sentences[:10] == captions(10, seed=5)

    def test_pos_line(self):
        line = text_line("a person walks forward and waves the right hand twice.")
        expected = "a/DET person/NOUN walk/VERB forward/ADV and/CCONJ wave/VERB the/DET right/ADJ hand/NOUN twice/ADV"
        assert line == f"a person walks forward and waves the right hand twice.#{expected}#0.0#0.0"

    def test_every_phrase_is_reachable(self):
        for key, phrases in PHRASES.items():
            assert any("{n}" not in p and "{times}" not in p for p in phrases), key
        assert set(SPEEDS) == {"slow", "fast"}


class TestUnseen:
    def test_combinations_are_disjoint(self):
        plans = {True: [], False: []}
        for i in range(1500):
            rng = random.Random(f"0/{i}")
            unseen = split_of(i) == "unseen"
            plans[unseen].append(draw_plan(rng, unseen))
        pairs = {kind: {c for plan in group for c in plan.combinations} for kind, group in plans.items()}
        assert not any(held_out(pair) for pair in pairs[False])
        assert all(any(held_out(pair) for pair in plan.combinations) for plan in plans[True])
        assert len({pair for pair in pairs[True] if held_out(pair)}) > 30

    def test_halves_of_unseen_pairs_are_seen(self):
        seen = {act.kind for i in range(3000) for act in _acts(draw_plan(random.Random(i), unseen=False))}
        unseen = {act.kind for i in range(300) for act in _acts(draw_plan(random.Random(i), unseen=True))}
        assert unseen <= seen

    def test_captions_keep_unseen_moods_out(self):
        rng = random.Random("captions/0")
        assert not any(held_out(pair) for _ in range(500) for pair in draw_plan(rng, unseen=False).combinations)


def _acts(plan):
    return [plan.first] + ([plan.second] if plan.second else [])
