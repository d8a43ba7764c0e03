"""ASF/AMC: a skeleton computed by hand, an independent reader, real trials, and files that are broken."""

import gzip
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lmm.motion.asfamc import find_asf, read_amc, read_asf

ASF = """# made by hand
:version 1.10
:name VICON
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
   anything goes here
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name thigh
     direction 0 -1 0
     length 9
     axis 0 0 90  XYZ
    dof rx rz
    limits (-160.0 20.0)
           (-70.0 70.0)
  end
  begin
     id 2
     name shin
     direction 0 -1 0
     length 4.5
     axis 0 0 0 XYZ
    dof rx
  end
  begin
     id 3
     name toe
     direction 0 0 2
     length 0.9
     axis 10 20 30 ZYX
  end
:hierarchy
  begin
    root thigh
    thigh shin
    shin toe
  end
"""
AMC = """#!OML:ASF somewhere
:FULLY-SPECIFIED
:DEGREES
1
root 0 18 0 0 0 0
thigh 0 0
shin 0
2
root 0.9 18 1.8 0 90 0
thigh 90 0
shin -90
"""
INCH = 0.0254


def write(folder, asf=ASF, amc=AMC, name="07_01"):
    (folder / "07.asf").write_text(asf)
    (folder / f"{name}.amc").write_text(amc)
    return folder / f"{name}.amc"


def test_a_leg_computed_by_hand(tmp_path):
    motion = read_amc(write(tmp_path))
    assert motion.skeleton.names == ("root", "thigh", "shin", "toe", "toe_end")
    assert motion.skeleton.parents == (-1, 0, 1, 2, 3)
    assert (motion.fps, motion.num_frames) == (120.0, 2)
    inches = motion.joints / INCH
    # 9 / 0.45 = 20 inches of thigh, 10 of shin, 2 of toe, hanging down from a hip 40 inches high
    torch.testing.assert_close(
        inches[0], torch.tensor([[0, 40, 0], [0, 40, 0], [0, 20, 0], [0, 10, 0], [0, 10, 2.0]]), atol=1e-4, rtol=0
    )
    # C turns the thigh's x axis to the body's y: with the root's 90 that is half a turn about y. The shin's -90 about x
    # then takes it from hanging to +z, the half turn to -z, and the toe from +z to up.
    leg = torch.tensor([[2, 40, 4], [2, 40, 4], [2, 20, 4], [2, 20, -6], [2, 22, -6.0]])
    torch.testing.assert_close(inches[1], leg, atol=1e-4, rtol=0)


def reference(asf: str, amc: str, every: int) -> tuple[dict[str, np.ndarray], int]:
    """Bone starts by name, in every n-th frame, by plain recursion over the text; angles in degrees."""
    words = [line.split("#")[0].split() for line in asf.splitlines()]
    bones, children, current, section = {}, {}, {}, ""
    length = 1.0
    for w in filter(None, words):
        if w[0].startswith(":"):
            section = w[0]
        elif section == ":units" and w[0] == "length":
            length = float(w[1])
        elif section == ":bonedata" and w[0] == "begin":
            current = {"dof": []}
        elif section == ":bonedata" and w[0] == "end":
            bones[current["name"][0]] = current
        elif section == ":bonedata":
            current[w[0]] = w[1:]
        elif section == ":hierarchy" and len(w) > 1:
            children[w[0]] = w[1:]
    frames, frame = [], None
    for w in (line.split() for line in amc.splitlines() if line[:1] not in ("#", ":")):
        if len(w) == 1:
            frame = {}
            frames.append(frame)
        elif w:
            frame[w[0]] = list(map(float, w[1:]))
    places: dict[str, list] = {}

    def euler(order: str, values: dict[str, float]) -> Rotation:
        return Rotation.from_euler(order.lower(), [values.get(c, 0.0) for c in order.lower()], degrees=True)

    def walk(name: str, start: np.ndarray, world: Rotation, frame: dict) -> None:
        places.setdefault(name, []).append(start)
        bone = bones[name]
        *angles, order = bone["axis"]
        c = euler(order, dict(zip(order.lower(), [float(angles["XYZ".index(o)]) for o in order.upper()], strict=True)))
        m = euler(order, {d[1]: v for d, v in zip(bone["dof"], frame.get(name, []), strict=False)})
        world = world * c * m * c.inv()
        way = np.array(list(map(float, bone["direction"])))
        end = start + world.apply(way / np.linalg.norm(way) * float(bone["length"][0]) / length * INCH)
        for child in children.get(name, []):
            walk(child, end, world, frame)
        if not children.get(name):
            places.setdefault(f"{name}_end", []).append(end)

    for frame in frames[::every]:
        start = np.array(frame["root"][:3]) / length * INCH
        places.setdefault("root", []).append(start)
        for child in children["root"]:
            walk(child, start, Rotation.from_euler("xyz", frame["root"][3:], degrees=True), frame)
    return {name: np.array(value) for name, value in places.items()}, len(frames)


def same_as_reference(motion, asf, amc, every=1):
    expected, count = reference(asf, amc, every)
    assert motion.num_frames == count and set(motion.skeleton.names) == set(expected)
    for joint, name in enumerate(motion.skeleton.names):
        np.testing.assert_allclose(motion.joints[::every, joint].numpy(), expected[name], atol=2e-6, err_msg=name)


@given(
    st.lists(st.floats(-180, 180), min_size=24, max_size=24),
    st.lists(st.sampled_from(["XYZ", "ZYX", "YZX", "XZY"]), min_size=3, max_size=3),
    st.permutations(["rx", "ry", "rz"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_angles_axes_and_orders_as_an_independent_reader_has_them(tmp_path, angles, orders, dof):
    a = [f"{v:.4f}" for v in angles]
    asf = (
        ASF.replace("axis 0 0 90  XYZ", f"axis {a[0]} {a[1]} {a[2]} {orders[0]}")
        .replace("dof rx rz", f"dof {' '.join(dof)}")
        .replace("axis 0 0 0 XYZ", f"axis {a[3]} {a[4]} {a[5]} {orders[1]}")
        .replace("10 20 30 ZYX", f"{a[6]} {a[7]} {a[8]} {orders[2]}")
    )
    amc = f"1\nroot 1 2 3 {' '.join(a[9:12])}\nthigh {' '.join(a[12:15])}\nshin {a[15]}\n"
    motion = read_amc(write(tmp_path, asf, amc))
    same_as_reference(motion, asf, amc)


@pytest.mark.parametrize("trial", ["02_01", "05_03", "49_05", "131_04"])
def test_real_trials_as_an_independent_reader_has_them(shared_data, trial):
    folder = shared_data / "raw_small" / "cmu_asfamc"
    motion = read_amc(folder / f"{trial}.amc.gz")
    asf, amc = (
        gzip.decompress((folder / f"{n}.gz").read_bytes()).decode() for n in (f"{trial[:-3]}.asf", f"{trial}.amc")
    )
    same_as_reference(motion, asf, amc, every=40)


def test_rotations_give_the_joints(shared_data):
    motion = read_amc(shared_data / "raw_small" / "cmu_asfamc" / "127_08.amc.gz")
    again = motion.skeleton.forward_kinematics(motion.rotations, motion.joints[:, 0])
    assert (again - motion.joints).abs().max() < 1e-5
    assert (motion.skeleton.num_joints, motion.num_frames) == (38, 139)
    height = (motion.joints[..., 1].amax(1) - motion.joints[..., 1].amin(1)).median()
    assert 1.3 < height < 1.9


def test_radians_units_comments_and_first_frame_number(tmp_path):
    expected = read_amc(write(tmp_path)).joints
    right = f"{math.pi / 2:.9f}"
    amc = (
        AMC.replace(":DEGREES", ":RADIANS")
        .replace("90", right)
        .replace("\n2\n", "\n8 # next\n")
        .replace("\n1\n", "\n7\n")
    )
    torch.testing.assert_close(read_amc(write(tmp_path, amc=amc)).joints, expected)
    asf = ASF.replace("angle deg", "angle rad").replace("0 0 90 ", f"0 0 {right}").replace("10 20 30 ZYX", "0 0 0 XYZ")
    torch.testing.assert_close(read_amc(write(tmp_path, asf)).joints, expected)
    motion = read_amc(write(tmp_path), read_asf(tmp_path / "07.asf", scale=0.1), fps=60.0)
    assert motion.fps == 60 and motion.joints[0, 0, 1].item() == pytest.approx(1.8)


def test_the_skeleton_beside_the_motion(tmp_path):
    file = write(tmp_path)
    assert find_asf(file) == tmp_path / "07.asf"
    (tmp_path / "other.asf").write_text(ASF)
    assert find_asf(file) == tmp_path / "07.asf"
    (tmp_path / "07.asf").rename(tmp_path / "07_01.ASF")
    assert find_asf(file) == tmp_path / "07_01.ASF"
    (tmp_path / "07_01.ASF").rename(tmp_path / "99.asf")
    with pytest.raises(
        ValueError, match=r"07_01.amc: no skeleton 07.asf in its folder \(there are 99.asf, other.asf\)"
    ):
        find_asf(file)
    (tmp_path / "99.asf").unlink()
    assert read_amc(file).num_frames == 2  # the only one
    (tmp_path / "other.asf").unlink()
    with pytest.raises(ValueError, match=r"there is no .asf at all"):
        read_amc(file)


BROKEN_ASF = {
    "empty": ("", "has no :root"),
    "no asf": ("\x89PNG\r\n", "this is no ASF file"),
    "cut": (ASF[: ASF.index(":hierarchy")], "has no :hierarchy section; it is truncated"),
    "cut bone": (ASF[: ASF.index("     length 0.9")] + ASF[ASF.index(":hierarchy") :], "last bone has no end"),
    "no length": (ASF.replace("     length 4.5\n", ""), r":32: a bone without length"),
    "words": (ASF.replace("length 4.5", "length long"), r":30: length needs 1 numbers, got 'long'"),
    "two": (ASF.replace("direction 0 0 2", "direction 0 0"), r"direction needs 3 numbers, got 2"),
    "nan": (ASF.replace("length 4.5", "length nan"), r":30: NaN"),
    "unit": (ASF.replace("length 0.45", "length 0"), "length unit must be positive"),
    "angle": (ASF.replace("angle deg", "angle gon"), "unknown unit of angles 'gon'"),
    "axis": (ASF.replace("30 ZYX", "30 ZYY"), "'zyy' is no order of rotations"),
    "translation": (ASF.replace("dof rx rz", "dof rx l"), r":22: dof rx l: only rx, ry, rz, each once"),
    "root": (ASF.replace("orientation 0 0 0", "orientation 0 90 0"), r":14: a root with its own orientation"),
    "order": (ASF.replace("TX TY TZ", "TX TX TZ"), r":11: order tx tx tz .*, each once"),
    "twice": (ASF.replace("name shin", "name thigh"), "a second bone 'thigh'"),
    "unknown": (ASF.replace("shin toe", "shin finger"), r"'finger' is not in :bonedata"),
    "parents": (ASF.replace("shin toe", "shin toe thigh"), "'thigh' has two parents"),
    "circle": (
        ASF.replace("root thigh\n    thigh shin\n    shin toe", "root thigh\n    shin toe\n    toe shin"),
        "nothing",
    ),
    "end": (ASF.replace("name shin", "name toe_end").replace("shin", "toe_end"), "as the end of 'toe' is"),
    "many": (
        ASF.replace(
            ":hierarchy",
            "".join(f"begin\nname b{i}\ndirection 0 1 0\nlength 1\naxis 0 0 0 XYZ\nend\n" for i in range(1001))
            + ":hierarchy",
        ),
        "more than 1000 bones",
    ),
}


@pytest.mark.parametrize("case", BROKEN_ASF)
def test_broken_skeletons_say_what_is_wrong(tmp_path, case):
    text, message = BROKEN_ASF[case]
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_amc(file)
    assert "07.asf" in str(caught.value)


BROKEN_AMC = {
    "empty": ("", "holds no frame"),
    "no frame": (AMC[: AMC.index("1\n")], "holds no frame"),
    "cut": (AMC[: AMC.rindex("shin")], r":8: frame 2 has no shin; the file is truncated"),
    "cut line": (AMC[: AMC.rindex(" 0\nshin")], r":10: 1 values for 'thigh', the skeleton has 2"),
    "unknown": (AMC.replace("shin -90", "arm 1"), r":11: 1 values for 'arm', the skeleton has none"),
    "nan": (AMC.replace("shin -90", "shin nan"), r":11: NaN"),
    "huge": (AMC.replace("shin -90", "shin 1e300"), r":11: NaN, infinite or absurdly large"),
    "word": (AMC.replace("shin -90", "shin x"), r":11: shin needs 1 numbers, got 'x'"),
    "number": (AMC.replace("\n2\n", "\n3\n"), r":8: expected the number of the next frame, got '3'"),
    "digits": (AMC.replace("\n2\n", "\n" + "2" * 5000 + "\n"), r":8: expected the number"),
    "twice": (AMC + "shin 1\n", r":12: 'shin' twice in frame 2"),
    "early": (AMC.replace("1\nroot", "root", 1), r":4: 'root' before the first frame's number"),
    "unit": (AMC.replace(":DEGREES", ":RADIANS of the earth"), "unknown unit of angles"),
}


@pytest.mark.parametrize("case", BROKEN_AMC)
def test_broken_motions_say_what_is_wrong(tmp_path, case):
    text, message = BROKEN_AMC[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_amc(write(tmp_path, amc=text))
    assert "07_01.amc" in str(caught.value)


def test_a_frame_rate_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"cannot have 0 frames per second, only 1 to 1000"):
        read_amc(write(tmp_path), fps=0.0)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused(tmp_path, data):
    texts = [ASF, AMC]
    which = data.draw(st.integers(0, 1))
    text = texts[which]
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 30)))
    texts[which] = text[:start] + data.draw(st.text("019. -:#exyzROOT\nbegind", max_size=12)) + text[stop:]
    try:
        motion = read_amc(write(tmp_path, *texts))
    except ValueError as error:
        assert "07" in str(error)
    else:
        assert torch.isfinite(motion.joints).all()
