"""The import runner, with a raw format of the test's own: what it writes, keeps, refuses and resumes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.data.importing import ImportOptions, import_recordings
from lmm.data.importing.clips import mirror_text
from lmm.data.sources import HumanML3D
from lmm.data.sources.raw import find_format
from lmm.data.sources.raw.base import RawSource, Recording
from lmm.data.store import MotionStore
from lmm.motion.files import load_extra, load_motion
from lmm.motion.motion import Motion
from lmm.motion.representations import JointPositions
from lmm.motion.skeleton import HUMANML3D_22


class Waves(RawSource):
    """``<name>.wave``: "frames fps"; the body drifts and an arm swings."""

    licence = "test"
    patterns = ("*.wave",)

    def read(self, file):
        words = file.read_text().split()
        if len(words) != 2:
            raise ValueError(f"{file}: expected 'frames fps'")
        frames, fps = int(words[0]), float(words[1])
        if frames == 13:
            raise RuntimeError("a reader's own mistake")
        time = torch.arange(frames)[:, None] / fps
        joints = HUMANML3D_22.forward_kinematics(torch.eye(3).expand(frames, 22, 3, 3), torch.full((frames, 3), 3.0))
        joints[:, 20:] += torch.stack([torch.zeros(frames, 1), time.sin(), time.cos()], dim=-1) * 0.1
        joints[:, :, 2] += time
        motion = Motion(joints, fps, HUMANML3D_22)
        yield Recording(self.name(file), motion, self.captions(file), operations=("read",), extra={"x": np.ones(2)})


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    (folder / "sub").mkdir(parents=True)
    for i in range(8):
        (folder / "sub" / f"w {i}.wave").write_text(f"{100 + 10 * i} 20")
        (folder / "sub" / f"w {i}.txt").write_text("a person waves the left hand\nthe Right arm#x/Y#1.0#2.0\n")
    return folder


def run(raw: Path, out: Path, num_workers: int = 0, **options):
    settings = {"format": "waves"}
    return import_recordings(Waves(str(raw)), out, ImportOptions(**options), settings=settings, num_workers=num_workers)


def test_what_is_written_is_what_training_reads(raw, tmp_path):
    manifest, quarantine = run(raw, tmp_path / "out")
    assert not quarantine and [line["id"] for line in manifest] == [f"sub_w_{i}" for i in range(8)]
    line = manifest[0]
    assert line["file"] == "sub/w 0.wave" and line["licence"] == "test" and len(line["sha256"]) == 64
    assert (line["frames"], line["fps"], line["captions"]) == (100, 20.0, 2)
    assert line["operations"][0] == "read" and any("height 0" in step for step in line["operations"])
    joints = np.load(tmp_path / "out" / "new_joints" / "sub_w_0.npy")
    assert joints.dtype == np.float32 and abs(joints[..., 1].min()) < 1e-6 and np.abs(joints[0, 0, [0, 2]]).max() < 1e-6
    with np.load(tmp_path / "out" / "motions" / "sub_w_0.npz") as archive:
        np.testing.assert_allclose(archive["joints"], joints, atol=1e-6)
        assert archive["x"].tolist() == [1, 1]
    splits = {split: (tmp_path / "out" / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    assert sorted(sum(splits.values(), [])) == [line["id"] for line in manifest]
    assert [len(splits[split]) for split in ("train", "val", "test")] == [6, 1, 1]
    store = MotionStore.open(HumanML3D(str(tmp_path / "out")), JointPositions(), tmp_path / "cache")
    names = {store.item(i).id: store.item(i).captions for i in range(len(store))}
    assert names["sub_w_0"] == ["a person waves the left hand"]
    assert store.meta["dropped"] == {"sub-clips too short (under 40 rows)": 8}


def test_rate_windows_and_mirrored_copies(raw, tmp_path):
    manifest, _ = run(raw, tmp_path / "out", window=2.0, mirror=True, fps=10.0)
    lines = {line["id"]: line for line in manifest}
    assert [line["frames"] for name, line in lines.items() if name.startswith("sub_w_0")] == [17, 16, 17]
    assert not (tmp_path / "out" / "new_joints").exists()  # the field's format is 20 fps
    plain, twin = (load_motion(tmp_path / "out" / "motions" / f"{m}sub_w_0_01.npz") for m in ("", "M"))
    torch.testing.assert_close(twin.joints[:, 21], plain.joints[:, 20] * torch.tensor([-1.0, 1, 1]))
    texts = (tmp_path / "out" / "texts" / "Msub_w_0_00.txt").read_text()
    assert texts == "a person waves the right hand##0.0#0.0\n"  # the other ends after this piece
    assert lines["Msub_w_0_00"]["split"] == lines["sub_w_0_02"]["split"]
    assert "shorter than 2 s" in lines["sub_w_0_00"]["flags"]


def test_bad_files_go_to_quarantine_and_the_rest_is_imported(raw, tmp_path):
    (raw / "broken.wave").write_text("no")
    (raw / "unlucky.wave").write_text("13 20")
    (raw / "talkative.wave").write_text("50 20")
    (raw / "talkative.txt").write_text("a##b\n")
    manifest, quarantine = run(raw, tmp_path / "out")
    assert len(manifest) == 8
    reasons = {line["file"]: line["reason"] for line in quarantine}
    assert "expected 'frames fps'" in reasons["broken.wave"] and "not foreseen" in reasons["unlucky.wave"]
    assert "talkative.txt:1" in reasons["talkative.wave"]
    assert reasons == {
        line["file"]: line["reason"]
        for line in map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    }
    (raw / "broken.wave").write_text("60 20")  # repaired: the next run takes it in
    manifest, quarantine = run(raw, tmp_path / "out")
    assert len(manifest) == 9 and len(quarantine) == 2


def test_several_processes_write_what_one_does(raw, tmp_path):
    one, _ = run(raw, tmp_path / "one")
    two, _ = run(raw, tmp_path / "two", num_workers=2)
    assert one == two
    for file in sorted((tmp_path / "one" / "new_joints").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / "new_joints" / file.name).read_bytes()


def test_an_interrupted_import_goes_on(raw, tmp_path, monkeypatch):
    whole, _ = run(raw, tmp_path / "whole")
    read, seen = Waves.read, []

    def dying(self, file):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(file.name)
        return read(self, file)

    monkeypatch.setattr(Waves, "read", dying)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "out")
    with (tmp_path / "out" / "progress.jsonl").open("a") as file:
        file.write('{"file": "sub/w 7.wa')  # the kill cut a line short
    again = []
    monkeypatch.setattr(Waves, "read", lambda self, file: again.append(file.name) or read(self, file))
    assert run(raw, tmp_path / "out")[0] == whole
    assert len(again) == 5 and not set(again) & set(seen)
    again.clear()
    (raw / "sub" / "w 2.wave").write_text("70 20")  # changed since: read again
    manifest, _ = run(raw, tmp_path / "out")
    assert again == ["w 2.wave"] and {line["id"]: line["frames"] for line in manifest}["sub_w_2"] == 70


def test_a_folder_holds_one_import(raw, tmp_path):
    run(raw, tmp_path / "out")
    with pytest.raises(ValueError, match=r"another import.*options"):
        run(raw, tmp_path / "out", fps=30.0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds no import"):
        run(raw, tmp_path / "full")
    for inside in (raw, raw / "out"):
        with pytest.raises(ValueError, match="lies in"):
            run(raw, inside)


def test_what_changed_since_is_read_again_and_nothing_old_stays(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out, window=2.5)
    assert (out / "motions" / "sub_w_7_03.npz").exists()
    (raw / "sub" / "w 0.txt").write_text("new words\n")  # a caption alone
    (raw / "sub" / "w 1.wave").unlink()
    (raw / "sub" / "w 2.wave").write_text("now broken")
    (raw / "sub" / "w 7.wave").write_text("60 20")  # two pieces instead of four
    manifest, quarantine = run(raw, out, window=2.5)
    assert (out / "texts" / "sub_w_0_00.txt").read_text().startswith("new words##")
    assert [line["file"] for line in quarantine] == ["sub/w 2.wave"]
    ids = {line["id"] for line in manifest}
    assert {"sub_w_7_00", "sub_w_7_01"} <= ids and "sub_w_7_02" not in ids
    assert not [name for name in ids if name.startswith(("sub_w_1", "sub_w_2"))]
    for kind in ("motions", "new_joints", "texts"):
        assert {file.stem for file in (out / kind).iterdir()} == ids


def test_files_that_arguments_name_belong_to_the_import(raw, tmp_path):
    index = tmp_path / "index.csv"
    index.write_text("a")
    arguments = dict(settings={"format": "waves", "index": str(index)})
    import_recordings(Waves(str(raw)), tmp_path / "out", ImportOptions(), **arguments)
    import_recordings(Waves(str(raw)), tmp_path / "out", ImportOptions(), **arguments)
    index.write_text("ab")
    with pytest.raises(ValueError, match=r"another import \(files differ\)"):
        import_recordings(Waves(str(raw)), tmp_path / "out", ImportOptions(), **arguments)


def test_odd_names_and_linked_folders(raw, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "Far.WAVE").write_text("50 20")
    (raw / "link").symlink_to(tmp_path / "elsewhere")
    (raw / "circle").symlink_to(raw)
    (raw / "dead.wave").symlink_to(tmp_path / "nowhere")
    (raw / "line\u2028break.wave").write_text("50 20")
    (raw / os.fsdecode(b"latin\xe9.wave")).write_text("no")
    manifest, quarantine = run(raw, tmp_path / "out")
    ids = {line["id"] for line in manifest}
    assert {"link_Far", "line_break"} <= ids and len(ids) == 10
    assert len(quarantine) == 2 and run(raw, tmp_path / "out")[0] == manifest


def test_captions_at_the_edges_of_pieces_are_told(raw, tmp_path):
    (raw / "sub" / "w 0.txt").write_text("whole\nacross##2.0#3.0\ninside##3.0#4.0\n")  # cut at 2.5 s
    lines = {line["id"]: line for line in run(raw, tmp_path / "out", window=2.5)[0]}
    assert (tmp_path / "out/texts/sub_w_0_01.txt").read_text() == "whole##0.0#0.0\ninside##0.5#1.5\n"
    assert any("no clip holds" in flag for flag in lines["sub_w_0_00"]["flags"])
    assert any("across" in step for step in lines["sub_w_0_00"]["operations"])
    (raw / "sub" / "w 0.txt").write_text("backwards##3.0#2.0\n")
    _, quarantine = run(raw, tmp_path / "out", window=2.5)
    assert "ends before it starts" in quarantine[0]["reason"]


def test_fitted_rotations_say_how_near_they_are(raw, tmp_path):
    line = run(raw, tmp_path / "out", fit_rotations=True)[0][0]
    assert any("mm off in the mean" in step for step in line["operations"])
    assert "rotations are fitted, not recorded" in line["flags"]
    assert load_motion(tmp_path / "out/motions/sub_w_0.npz").rotations is not None
    assert load_extra(tmp_path / "out/motions/sub_w_0.npz")["rotations_fitted"]


def test_nothing_to_import_is_an_error(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "bad")
    for file in (tmp_path / "bad" / "sub").glob("*.wave"):
        file.write_text("no")
    with pytest.raises(ValueError, match="none of the 8 files"):
        run(tmp_path / "bad", tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no \*\.wave"):
        run(tmp_path / "out", tmp_path / "out2")
    with pytest.raises(ValueError, match="not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out2")


def test_two_recordings_of_one_name_are_refused(raw, tmp_path):
    (raw / "sub_w_0.wave").write_text("50 20")
    with pytest.raises(ValueError, match="would both be called 'sub_w_0'"):
        run(raw, tmp_path / "out")


@pytest.mark.parametrize(
    "options", [{"fps": 0.0}, {"window": 0.01}, {"split": (0.5, 0.5, 0.5)}, {"split": (1.5, -0.5, 0.0)}]
)
def test_options_are_checked_before_anything_is_read(options):
    with pytest.raises(ValueError):
        ImportOptions(**options)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("raises the left hand, then the RIGHT one", "raises the right hand, then the LEFT one"),
        ("Left turn, counterclockwise", "Right turn, clockwise"),
        ("an upright, bright person", "an upright, bright person"),
        ("turns clockwise", "turns counterclockwise"),
        ("left-hand wave, bottom-right", "right-hand wave, bottom-left"),
        ("turns anti-clockwise, then counter-clockwise", "turns clockwise, then clockwise"),
    ],
)
def test_mirrored_captions(text, mirrored):
    assert mirror_text(text) == mirrored


def test_formats_of_one_s_own_are_named_by_their_path():
    assert find_format(f"{__name__}.Waves") is Waves
    with pytest.raises(ValueError, match="LMM_IMPORT=no_such_module"):
        find_format("no_such_module.Recordings")
    with pytest.raises(ValueError, match="is no RawSource"):
        find_format("json.JSONDecoder")
    with pytest.raises(ValueError, match="did you mean bvh"):
        find_format("bhv")
