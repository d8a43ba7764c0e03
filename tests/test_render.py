"""Pictures, films and the HTML viewer, the last one in a real browser."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmm.motion.bvh import read_bvh
from lmm.motion.files import save_motion
from lmm.motion.motion import Motion
from lmm.motion.rotations import axis_angle_to_matrix
from lmm.motion.skeleton import HUMANML3D_22, Skeleton
from lmm.render import render_files, stick_image, strip, write_gif, write_html, write_mp4
from lmm.render.figure import LEFT, MIDDLE, RIGHT, _side, figure_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '</script><b>bold</b> <!-- & "quotes" {{data}} 走'


def walk(num_frames: int = 40) -> Motion:
    """Somebody walks along z with swinging arms and legs."""
    time = torch.linspace(0, 4 * torch.pi, num_frames)
    angles = torch.zeros(num_frames, 22, 3)
    for name, axis, size in (
        ("left_hip", 0, 0.5),
        ("right_hip", 0, -0.5),
        ("left_knee", 0, 0.4),
        ("right_knee", 0, 0.4),
    ):
        angles[:, HUMANML3D_22.index(name), axis] = size * time.sin() + (abs(size) if "knee" in name else 0)
    angles[:, 16, 2], angles[:, 17, 2] = -1.3 + 0.3 * time.sin(), 1.3 + 0.3 * time.sin()
    rotations = axis_angle_to_matrix(angles)
    root = torch.stack([0 * time, 0.92 + 0 * time, 0.2 * time], dim=-1)
    return Motion(HUMANML3D_22.forward_kinematics(rotations, root), 20.0, HUMANML3D_22, rotations)


def colours(picture: np.ndarray) -> int:
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def test_figure_knows_left_right_and_what_a_body_is_made_of():
    figure = figure_of(walk())
    assert figure.points.shape == (40, 22 + 6, 3)  # skull and hands are ours
    assert 1.4 < figure.height < 2.0
    side = {int(b): int(s) for (_, b), s in zip(figure.bones, figure.sides, strict=True)}
    assert (side[4], side[5], side[18], side[6], side[1]) == (LEFT, RIGHT, LEFT, MIDDLE, MIDDLE)
    assert np.isfinite(figure.focus).all() and figure.radii.min() > 0
    assert [figure.frame_at(t) for t in (0.0, 0.05, 0.1, 99.0)] == [0, 1, 2, 39]


@pytest.mark.parametrize(
    ("left", "right"), [("LeftArm", "RightArm"), ("Hand_L", "Hand_R"), ("l_knee", "r_knee"), ("LHipJoint", "RHipJoint")]
)
def test_sides_of_foreign_skeletons(left, right):
    skeleton = Skeleton(("Hips", "Leg", left, right), (-1, 0, 1, 1), ((0.0, 0.0, 0.0),) * 4, {"body": (0, 1, 2, 3)})
    assert [_side(name) for name in skeleton.names] == [MIDDLE, MIDDLE, LEFT, RIGHT]
    picture = stick_image([Motion(torch.rand(2, 4, 3), 30.0, skeleton)], [0])
    assert colours(picture) > 10


def test_strip_has_a_row_a_motion_and_a_column_a_time():
    picture = strip([walk(), walk(17)], num_frames=5, captions=["original", "reconstruction"], cell=(100, 120))
    assert (picture.shape, picture.dtype) == ((240, 500, 3), np.uint8)
    assert not np.array_equal(picture[:120, :100], picture[:120, 100:200])
    with pytest.raises(ValueError, match="at least one"):
        strip([])


def test_stick_image_of_several_moments():
    one, many = stick_image([walk()], [0]), stick_image([walk()], [0, 20, 39], size=(300, 200), caption=NASTY * 9)
    assert (one.shape, many.shape) == ((320, 320, 3), (200, 300, 3))
    blue, orange = ((one.astype(int) - c).__abs__().sum(-1).min() for c in ((43, 123, 186), (232, 126, 52)))
    assert blue < 30 and orange < 30


@pytest.mark.parametrize("joints", [torch.zeros(1, 22, 3), torch.full((3, 22, 3), 500.0), 1e4 * torch.rand(3, 22, 3)])
def test_odd_bodies_can_be_drawn(joints, tmp_path):
    motion = Motion(joints, 20.0, HUMANML3D_22)
    assert strip([motion], num_frames=2).shape[2] == 3
    write_html(tmp_path / "x.html", [motion])


def test_batches_are_refused():
    with pytest.raises(ValueError, match="take one of the batch"):
        stick_image([Motion(torch.zeros(2, 3, 22, 3), 20.0, HUMANML3D_22)], [0])


def test_mp4(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="the extra viz is not installed")
    write_mp4(tmp_path / "x.mp4", [walk(), walk(9)], ["a person walks", ""], size=(121, 160))
    assert ffmpeg.count_frames_and_secs(str(tmp_path / "x.mp4")) == (40, 2.0)
    reader = ffmpeg.read_frames(str(tmp_path / "x.mp4"))
    assert next(reader)["size"] == (244, 160)
    assert colours(np.frombuffer(next(reader), np.uint8)) > 100


def test_mp4_without_ffmpeg_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r'pip install "lmm\[viz\]"'):
        write_mp4(tmp_path / "x.mp4", [walk()])


@pytest.mark.parametrize("fps", [20.0, 30.0, 120.0])
def test_gif_lasts_as_long_as_the_motion(tmp_path, fps):
    motion = dataclasses.replace(walk(), fps=fps)
    write_gif(tmp_path / "x.gif", [motion, dataclasses.replace(walk(9), fps=60.0)], ["walks", ""], size=(121, 160))
    with Image.open(tmp_path / "x.gif") as film:
        assert (film.size, film.info["loop"]) == ((242, 160), 0)
        durations, seen = [], []
        for index in range(film.n_frames):
            film.seek(index)
            durations.append(film.info["duration"])
            seen.append(np.asarray(film.convert("RGB")))
    assert sum(durations) == pytest.approx(1000 * 40 / fps, abs=15) and min(durations) >= 20
    assert colours(seen[0]) > 100 and not np.array_equal(seen[0], seen[-1])


@pytest.mark.parametrize("writer", [write_html, write_mp4, write_gif])
def test_captions_have_to_fit(tmp_path, writer):
    for motions, captions in (([], []), ([walk(2)], ["a", "b"])):
        with pytest.raises(ValueError, match="as many captions"):
            writer(tmp_path / "x", motions, captions)


def test_html_is_one_small_safe_file(tmp_path):
    write_html(tmp_path / "x.html", [walk(196)], [NASTY], title="<i>Walks</i> & {{script}}")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert len(page) < 100_000
    assert not re.search(r"https?://|<link|@import|\bsrc=|fetch\(|XMLHttp|\{\{title", page)
    assert "<b>bold" not in page and "<i>Walks" not in page and "<!-- &" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1])[0]["caption"] == NASTY
    assert "&lt;i&gt;Walks&lt;/i&gt; &amp; {{script}}" in page  # and what looks like a placeholder stays as it is


def test_render_files(tmp_path):
    for name in ("a.npz", "b.npy", "c.bvh"):
        save_motion(tmp_path / name, walk(6), "somebody walks")
    inputs = [str(tmp_path / name) for name in ("a.npz", "b.npy", "c.bvh")]
    render_files(inputs, str(tmp_path / "out.html"))
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert '"caption": "somebody walks"' in page and '"caption": "b"' in page and '"caption": "c"' in page
    render_files(inputs, str(tmp_path / "out.png"))
    assert Image.open(tmp_path / "out.png").size == (1200, 570)
    render_files(inputs[:1], str(tmp_path / "out.gif"))
    assert Image.open(tmp_path / "out.gif").size == (320, 320)
    with pytest.raises(ValueError, match=r"'\.avi'; pictures are written as \.html, \.mp4, \.gif or \.png"):
        render_files(inputs, str(tmp_path / "x.avi"))
    with pytest.raises(ValueError, match="nothing to draw"):
        render_files([], "x.html")
    with pytest.raises(ValueError, match="no such file"):
        render_files(["missing.npz"], str(tmp_path / "x.html"))


def test_a_placing_root_is_not_drawn(shared_data):
    motion = read_bvh(shared_data / "raw_small" / "bandai" / "dataset-2_wave-right-hand_youthful_001.bvh")
    figure = figure_of(motion)
    assert 0 not in figure.bones and 1.3 < figure.height < 1.9
    assert {LEFT, RIGHT, MIDDLE} == set(figure.sides.tolist())


def browse(folder: Path, page: Path | str, *flags: str, size: str = "900,700") -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={size}", "--virtual-time-budget=3000", *flags]
    return subprocess.run([*command, page], capture_output=True, text=True, timeout=60, check=True).stdout


PROBE = """<script>
const out = {}, pixels = () => panels.map(({ canvas }) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let drawn = 0, sum = 0;
  for (let i = 0; i < data.length; i += 4) { if (data[i + 3]) drawn++; sum = (sum * 31 + data[i] + data[i + 1]) % 1e9; }
  return [drawn, sum];
});
const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
try {
  lmm.pause();
  lmm.seek(0); out.first = pixels();
  lmm.seek(20); out.later = pixels();
  lmm.seek(0); out.again = pixels();
  press("ArrowRight"); out.arrow = lmm.frame;
  press(" "); out.label = $("play").ariaLabel;
  lmm.pause(); lmm.seek(0);
  const canvas = panels[0].canvas; canvas.setPointerCapture = () => {};
  const point = (type, x) => canvas.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX: x, clientY: 200 }));
  point("pointerdown", 100); point("pointermove", 220); point("pointerup", 220); render(); out.turned = pixels();
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, cancelable: true })); render(); out.zoomed = pixels();
  $("reset").click(); render(); out.reset = pixels();
  $("layout").value = "together"; $("layout").dispatchEvent(new Event("change")); render(); out.together = pixels();
  $("follow").click(); render(); out.still = pixels();
  out.joint = Array.from(lmm.motions[0].points.slice(0, 3));
  out.captions = [...document.querySelectorAll("figcaption p")].map((p) => p.textContent);
  out.numFrames = lmm.numFrames; out.ready = lmm.ready; out.wide = document.documentElement.scrollWidth;
  lmm.seek(3); lmm.play(); tick(1000); tick(1090); out.played = lmm.frame;
} catch (error) { out.error = String(error); }
document.body.dataset.probe = JSON.stringify(out);
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_viewer_in_a_browser(tmp_path):
    motion = walk()
    write_html(tmp_path / "x.html", [motion, walk(12)], [NASTY, "shorter"], title="Test")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    (tmp_path / "probe.html").write_text(page.replace("</body>", PROBE), encoding="utf-8")
    dom = browse(tmp_path, tmp_path / "probe.html", "--dump-dom")
    body = re.search(r"<body([^>]*)>", dom)[1]
    assert "data-error" not in body and 'data-ready="true"' in body
    out = json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', body)[1]))
    assert "error" not in out, out
    assert (out["numFrames"], out["ready"], out["arrow"], out["label"]) == (40, True, 1, "Pause")
    assert out["captions"] == [NASTY, "shorter"]
    assert len(out["first"]) == 2 and all(drawn > 5000 for drawn, _ in out["first"])
    assert out["first"] == out["again"] == out["reset"]
    pictures = [json.dumps(out[name][0]) for name in ("first", "later", "turned", "zoomed", "together", "still")]
    assert len(set(pictures)) == 6
    assert len(out["together"]) == 1
    np.testing.assert_allclose(out["joint"], motion.joints[0, 0].numpy(), atol=2e-4)
    assert out["played"] == 4  # 90 ms after frame 3


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_viewer_on_the_screen(tmp_path):
    write_html(tmp_path / "x.html", [walk()], ["a person walks"], title="Test")
    shot = tmp_path / "x.png"
    browse(tmp_path, f"{(tmp_path / 'x.html').as_uri()}#frame=10", f"--screenshot={shot}", size="500,800")
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    stage = picture[80:380]
    blue = (stage[..., 2] - stage[..., 0] > 60).sum()
    orange = (stage[..., 0] - stage[..., 2] > 60).sum()
    assert blue > 500 and orange > 500 and colours(stage) > 200
