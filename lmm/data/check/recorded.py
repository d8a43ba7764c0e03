"""What ``lmm data import`` keeps in ``motions/``: one frame rate, real rotations, and they give the joints.

Training reads these files where they are there, other people's code ``new_joints``: both must hold the same motion.
"""

from collections import Counter

from lmm.data.check.dataset import DataSet
from lmm.data.check.files import SKEW, Recorded
from lmm.data.check.report import Finding, clips, some

_OFF = 0.001  # metres; forward kinematics gives the joints to this
_APART = 1e-5  # metres


def check_recorded(data: DataSet) -> list[Finding]:
    """Findings on the folder ``motions``; none where there is no such folder."""
    if "motions" not in data.files:
        return []
    recorded = {clip: facts.recorded for clip, facts in data.clips.items() if facts.recorded is not None}
    if not recorded:
        return [Finding("motion files", "error", "no file of motions/ can be read", "see the findings above")]
    return [_files(recorded), _rates(recorded, data), *_rotations(recorded), _same(recorded, data)]


def _files(recorded: dict[str, Recorded]) -> Finding:
    joints = Counter(file.num_joints for file in recorded.values())
    found = f"{len(recorded):,} in motions/: " + " · ".join(
        f"{count:,} of {number} joints" for number, count in joints.most_common()
    )
    figures = {"joints": {str(number): count for number, count in joints.items()}}
    if len(joints) == 1:
        return Finding("motion files", "ok", found, figures=figures)
    usual = joints.most_common(1)[0][0]
    ids = {f"other than {usual} joints": [clip for clip, file in recorded.items() if file.num_joints != usual]}
    remedy = "representations of the first 22 joints read all; those of hands stop at files without them"
    return Finding("motion files", "note", found, remedy, ids, figures)


def _rates(recorded: dict[str, Recorded], data: DataSet) -> Finding:
    rates = Counter(file.fps for file in recorded.values())
    told = " · ".join(f"{count:,} at {fps:g} fps" for fps, count in rates.most_common())
    figures = {"fps": {f"{fps:g}": count for fps, count in rates.items()}}
    remedy = "training takes one frame rate: import all recordings again with one --fps"
    if len(rates) > 1:
        usual = rates.most_common(1)[0][0]
        other = [clip for clip, file in recorded.items() if file.fps != usual]
        found = f"several: {told} {some(other)}"
        return Finding("frame rate", "error", found, remedy, {f"not {usual:g} fps": other}, figures)
    fps, field = next(iter(rates)), data.layout.features.fps
    if "new_joints" in data.files and fps != field:
        found = f"motions/ have {fps:g} fps, and new_joints/ are {field:g} fps by definition"
        return Finding("frame rate", "error", found, "delete new_joints/, or import again", figures=figures)
    return Finding("frame rate", "ok", f"{fps:g} fps", figures=figures)


def _rotations(recorded: dict[str, Recorded]) -> list[Finding]:
    skew = {clip: file.skew for clip, file in recorded.items() if file.skew is not None}
    if not skew:
        found = "none in motions/: only joint positions are known"
        remedy = "features of joints need none; for those of rotations import again with --fit_rotations true"
        return [Finding("rotations", "note", found, remedy)]
    bad = [clip for clip, value in skew.items() if not value <= SKEW]
    without = [clip for clip in recorded if clip not in skew]
    ids = {"no rotations": bad, "without": without}
    found = f"in {len(skew):,} of {clips(len(recorded))}, orthonormal to {max(skew.values()):.0e}"
    figures = {"largest_defect": max(skew.values())}
    if bad:
        found = f"the matrices of {clips(len(bad))} are no rotations {some(bad)}; off by {max(skew.values()):.2g}"
        finding = Finding("rotations", "error", found, "import these recordings again", ids, figures)
    elif without:
        remedy = "features of rotations stop at clips without them: import again with --fit_rotations true"
        finding = Finding("rotations", "note", found, remedy, ids, figures)
    else:
        finding = Finding("rotations", "ok", found, "", ids, figures)
    return [finding, _kinematics({clip: file.off for clip, file in recorded.items() if file.off is not None})]


def _kinematics(off: dict[str, float]) -> Finding:
    if not off:
        return Finding("kinematics", "note", "no rotations to place joints with", "see the findings above")
    figures = {"max_mm": max(off.values()) * 1000}
    far = [clip for clip, value in off.items() if not value <= _OFF]
    found = f"rotations and bones give the joints to {max(off.values()) * 1000:.3g} mm in {clips(len(off))}"
    if not far:
        return Finding("kinematics", "ok", found, figures=figures)
    found += f"; {clips(len(far))} over {_OFF * 1000:g} mm {some(far)}"
    remedy = (
        "the joints are no rigid body's, to which fitted rotations only come near, or the rotations are of another "
        "body: features of rotations decode to other joints"
    )
    return Finding("kinematics", "warning", found, remedy, {"clips": far}, figures)


def _same(recorded: dict[str, Recorded], data: DataSet) -> Finding:
    apart = {clip: file.apart for clip, file in recorded.items() if file.apart is not None}
    if not apart:
        text = "no clip to compare" if "new_joints" in data.files else "no new_joints/ to compare: not needed"
        return Finding("same joints", "ok", text)
    figures = {"max_m": max(apart.values())}
    other = [clip for clip, value in apart.items() if not value <= _APART]
    if not other:
        found = f"new_joints/ and motions/ of {clips(len(apart))} hold the same joints"
        return Finding("same joints", "ok", found, figures=figures)
    found = (
        f"new_joints/ of {clips(len(other))} are not those of motions/ {some(other)}: {max(apart.values()):.2g} m off"
    )
    remedy = "training reads motions/, other code new_joints/: delete one of the two, or import again"
    return Finding("same joints", "warning", found, remedy, {"clips": other}, figures)
