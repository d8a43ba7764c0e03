"""Do vectors and joints belong together? Re-encode a sample of clips, decode all, and say which variant explains them.

T rows of features are made from T+1 frames of joints, and the layout keeps T: the lost frame, which the filter of the
last 80 rows saw, is put back from the velocities of the last row, and published clips give their vectors to 1e-5.
Clips that turn past -z lose a little of their path in these features; joints decoded from them then give other
features, and that is no fault.
"""

import random

import numpy as np
import torch

from lmm.data.check.body import place
from lmm.data.check.dataset import DataSet
from lmm.data.check.reading import load, scale_of
from lmm.data.check.report import Finding, clips, some
from lmm.motion.motion import Motion
from lmm.motion.representations.humanml3d import HumanML3DFeatures

_FILTER = 80  # frames
_EXACT = 1e-4
_LATE = 0.05  # in the last rows of features of another kind the frame put back is a little off
_CONTACTS = 0.01  # share of contacts that rounding may turn over
_DRIFT = 0.02  # metres
_DECODED = 0.001  # metres; joints that were decoded from the vectors are closer than this


def check_features(data: DataSet, sample: int) -> list[Finding]:
    """Findings on ``new_joint_vecs`` against ``new_joints``."""
    both = [clip for clip, facts in data.clips.items() if facts.usable("new_joints") and facts.usable("new_joint_vecs")]
    if not both:
        return [Finding("re-encoding", "ok", "needs both new_joints and new_joint_vecs: nothing to compare")]
    return [_encoding(data, random.Random(0).sample(sorted(both), min(sample, len(both)))), _decoding(data, both)]


def _encoding(data: DataSet, chosen: list[str]) -> Finding:
    make = data.layout.features
    variants = {
        "the published features of these joints": make(uniform_skeleton=False),
        "`fixed` features of these joints": make(uniform_skeleton=False, fixed=True),
        "features of the joints on the uniform skeleton": make(uniform_skeleton=True),
        "`fixed` features of the joints on the uniform skeleton": make(uniform_skeleton=True, fixed=True),
    }
    usual, *others = variants
    largest = dict.fromkeys(variants[usual].blocks, 0.0)
    wrong: dict[str, list[str]] = {}
    folded = []
    for clip in chosen:
        excess, off = _compare(data, clip, variants[usual], _EXACT)
        if excess:
            if off and (data.clips[clip].drift or 0.0) < _DECODED and _folds(data, clip, variants[usual]):
                folded.append(clip)
                continue
            fits = [name for name in others if not _compare(data, clip, variants[name], _LATE)[0]]
            wrong.setdefault(f"they are {fits[0]}" if fits else f"in {', '.join(excess)}", []).append(clip)
        largest = {block: max(value, off.get(block, 0.0)) for block, value in largest.items()}
    told = {block: round(value, 7) for block, value in largest.items()}
    spins = f"; {clips(len(folded))} turn past -z, where these features fold {some(folded)}" if folded else ""
    ids = {**wrong, "folded": folded}
    if not wrong:
        found = f"{clips(len(chosen) - len(folded))} give their vectors to {max(largest.values()):.0e}{spins}"
        return Finding("re-encoding", "note" if folded else "ok", found, "", ids, told)
    count = sum(map(len, wrong.values()))
    why = "; ".join(f"{len(who)} {reason}" for reason, who in wrong.items())
    found = f"{count} of {clips(len(chosen))} do not give their vectors: {why} {some(sum(wrong.values(), []))}{spins}"
    remedy = "the vectors are not the published features: delete new_joint_vecs/ to have them computed from new_joints/"
    return Finding("re-encoding", "warning", found, remedy, ids, told)


def _motion(data: DataSet, clip: str) -> Motion:
    """The clip's joints "T+1 J 3" in metres, the last frame from the vectors where there are only T."""
    make = data.layout.features
    joints = torch.from_numpy(load(data.folder, "new_joints", clip))
    rows = torch.from_numpy(load(data.folder, "new_joint_vecs", clip))
    if len(joints) == len(rows):
        last = joints[-1]
        local, step = (rows[-1, make().slices[block]].view(-1, 3) for block in ("positions", "velocities"))
        placed = last[1:] - last[0]
        cos = (local[:, 0] * placed[:, 0] + local[:, 2] * placed[:, 2]).sum()
        sin = (local[:, 0] * placed[:, 2] - local[:, 2] * placed[:, 0]).sum()
        cos, sin = torch.stack([cos, sin]) / torch.hypot(cos, sin).clamp_min(1e-9)
        x, y, z = step.unbind(-1)
        moved = torch.stack([cos * x - sin * z, y, sin * x + cos * z], dim=-1)
        joints = torch.cat([joints, (last + moved)[None]])
    joints = joints * (scale_of(data.unit) / torch.from_numpy(data.layout.units))
    return Motion(joints, make.fps, make.skeleton)


def _folds(data: DataSet, clip: str, features: HumanML3DFeatures) -> bool:
    """Whether the features themselves lose the motion, so that joints decoded from them give other features."""
    motion = _motion(data, clip)
    placed = torch.from_numpy(place(motion.joints.numpy(), data.layout))[:-1]
    return float((features.to_joints(features.encode(motion)) - placed).norm(dim=-1).max()) > _DECODED


def _compare(data: DataSet, clip: str, features: HumanML3DFeatures, late: float) -> tuple[list[str], dict[str, float]]:
    """Blocks in which the clip's vectors are not the representation's features, and every block's largest difference.

    Args:
        data: where the clip is.
        clip: its id.
        features: the representation.
        late: difference allowed in the last rows, which see the frame that was put back.
    """
    try:
        ours = features.encode(_motion(data, clip))
    except ValueError:  # a bone without length
        return list(features.blocks), {}
    theirs = torch.from_numpy(load(data.folder, "new_joint_vecs", clip))
    rows = min(len(ours), len(theirs))
    difference = (ours[:rows] - theirs[:rows]).abs()
    for block in ("root_velocity", "root_height", "positions", "velocities"):
        difference[:, features.slices[block]] /= abs(features.units[1])  # metres
    blocks, largest = [], {}
    for block, where in features.slices.items():
        largest[block] = float(difference[:, where].max())
        if block == "contacts":
            wrong = float(difference[:, where].mean()) > _CONTACTS
        else:
            early = difference[: max(rows - _FILTER, 0), where]
            wrong = not (largest[block] <= late and bool((early <= _EXACT).all()))  # so that NaN is wrong
        if wrong:
            blocks.append(block)
    return blocks, largest


def _decoding(data: DataSet, both: list[str]) -> Finding:
    drift = {clip: data.clips[clip].drift or 0.0 for clip in both}
    far = [clip for clip, value in drift.items() if not value <= _DRIFT]
    top = max(drift.values())
    figures = {"median_m": float(np.median(list(drift.values()))), "max_m": top}
    if not far:
        return Finding(
            "decoding", "ok", f"vectors of {clips(len(both))} give their joints to {top:.1e} m", figures=figures
        )
    found = f"vectors of {clips(len(far))} decode up to {top:.2f} m off their joints {some(far)}"
    remedy = "fast spins fold in these features and drift; other reasons show in re-encoding"
    return Finding("decoding", "warning", found, remedy, {"clips": far}, figures)
