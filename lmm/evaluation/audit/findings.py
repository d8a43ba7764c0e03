"""What an audit comes to, in plain words: what the evaluator may be trusted for, what not, and what to mind."""

from typing import NamedTuple

from lmm.evaluation.audit.corruptions import SWAPPED
from lmm.evaluation.audit.figures import FIGURES
from lmm.evaluation.audit.labels import PHYSICS_LABELS, SHORT_LABELS, VERDICTS, amount, listed
from lmm.evaluation.audit.novelty import Novelty
from lmm.evaluation.audit.report import EvaluatorAudit
from lmm.evaluation.audit.response import CONTROL, REAL, Judgement, Response
from lmm.metrics.frechet import sample_note

_MOVES = 1e-3  # of the spread: an instrument's points stay where they are within this


class Finding(NamedTuple):
    """What it is about, and what was found."""

    about: str
    found: str


class Findings(NamedTuple):
    """In the order of the page."""

    trusted: list[Finding]
    not_trusted: list[Finding]
    mind: list[Finding]


def findings(audit: EvaluatorAudit) -> Findings:
    """Every finding of an audit."""
    trusted, not_trusted = [], []
    for kind in audit.response.corruptions:
        judged = [audit.response.judged(kind)[name] for name in FIGURES if (name, kind) != ("fid", SWAPPED)]
        by = {verdict: [j for j in judged if j.verdict == verdict] for verdict in VERDICTS}
        if by["sees"]:
            trusted.append(Finding(kind, f"{_from(by['sees'], kind)}."))
        if len(by["sees"]) < len(judged):
            not_trusted.append(Finding(kind, _missed(by, kind, audit.response)))
    return Findings(trusted, not_trusted, [*_on_the_figures(audit), *_on_texts(audit), *_on_the_instrument(audit)])


def _from(seen: list[Judgement], kind: str) -> str:
    """Which figures, grouped by the strength from which on they see."""
    firsts = list(dict.fromkeys(j.first for j in seen))
    parts = []
    for first in firsts:
        names = listed([SHORT_LABELS[j.figure] for j in seen if j.first == first])
        parts.append(f"{names} from {amount(kind, first)} on" if first is not None else names)
    return "; ".join(parts)


def _missed(by: dict[str, list[Judgement]], kind: str, response: Response) -> str:
    """What was not seen, and what the joints show of it."""
    said = []
    told = {
        "faint": "{} in the right order, but within noise",
        "wrong order": "{} beyond noise, but in the wrong order",
        "rewards": "{} better for the damage",
        "blind": "{} unmoved",
    }
    for verdict, sentence in told.items():
        if by[verdict]:
            said.append(sentence.format(listed([SHORT_LABELS[j.figure] for j in by[verdict]])))
    shown = listed([PHYSICS_LABELS[name].partition(" (")[0] for name in response.seen_in_joints(kind)[:2]])
    strongest = amount(kind, response.series(kind)[-1].strength)
    return f"up to {strongest}: {'; '.join(said)}" + (f". The joints show it: {shown}." if shown else ".")


def _on_the_figures(audit: EvaluatorAudit) -> list[Finding]:
    """What real motions score, and why that is not perfect."""
    real, control = audit.response.row(REAL), audit.response.row(CONTROL)
    noise, floor = audit.response.noise["fid"], real.figures["fid"]
    found = (
        f"two halves of the real clips of {audit.split!r} ({audit.clips // 2} each) are {floor:.3g} ± {noise:.2g} "
        "apart: on so many clips, no difference at all looks like that"
    )
    if note := sample_note(audit.clips // 2, audit.dim):
        found += f". {note}"
    out = [Finding("FID", f"{found}.")]
    change = control.figures["fid"] - floor
    if abs(change) > noise:
        out.append(
            Finding("Re-encoding", f"bringing real motions through joints and back alone moves FID by {change:+.3g}.")
        )
    return out


def _on_texts(audit: EvaluatorAudit) -> list[Finding]:
    """Captions that are there twice, in train already, or new."""
    out = []
    for split in audit.splits:
        name, top = "r_precision_1", split.ceiling["r_precision_1"]
        plain, corrected = split.plain[name][0], split.corrected[name][0]
        if split.identical >= 0.01:
            out.append(
                Finding(
                    f"Repeated captions in {split.split}",
                    f"{split.identical:.0%} have a twin, an identical caption, in their pool of 32 ({split.near:.0%} a "
                    f"near one), so plain R-precision@1 can be {top:.2f} at best; it is {plain:.2f}, and "
                    f"{corrected:.2f} where the twin's motion counts.",
                )
            )
        if split.leaked:
            out.append(
                Finding(
                    f"Text leak in {split.split}",
                    f"{split.leaked:.1%} of the captions are in train word for word; all captions of "
                    f"{split.leaked_clips:.1%} of the clips are (HumanML3D: 10.6 %, Motion-X: 17.0 % of the captions).",
                )
            )
    first = audit.splits[0]
    for other in audit.splits[1:]:
        a, b = first.corrected["r_precision_3"], other.corrected["r_precision_3"]
        apart = "beyond both 95 % intervals" if a[1] > b[2] or b[1] > a[2] else "within the 95 % intervals"
        out.append(
            Finding(
                f"{first.split} and {other.split}",
                f"R-precision@3 of real motions, twins counted, is {a[0]:.2f} and {b[0]:.2f}: {apart}.",
            )
        )
    if not audit.novelty:
        out.append(Finding("No training captions", "without that split neither leaks nor new texts were measured."))
    return [*out, *[finding for novelty in audit.novelty for finding in _on_novelty(novelty)]]


def _on_novelty(novelty: Novelty) -> list[Finding]:
    if len(novelty.bins) < 2:
        return []
    near, far = novelty.bins[0].corrected, novelty.bins[-1].corrected
    by = "by their words" if novelty.measure == "words" else "in its own text space"
    falls = far[2] < near[1]
    verdict = "trust it less the newer a text is" if falls else "no fall beyond the 95 % intervals"
    return [
        Finding(
            f"Texts that are new {by}",
            f"R-precision@3, twins counted, is {near[0]:.2f} for the captions nearest to training and {far[0]:.2f} for "
            f"the farthest: {verdict}.",
        )
    ]


def _on_the_instrument(audit: EvaluatorAudit) -> list[Finding]:
    """Faults of the evaluator itself."""
    instrument, out = audit.instrument, []
    for what, moved in (("motion", instrument.motions_alone), ("text", instrument.texts_alone)):
        if not moved <= _MOVES:
            out.append(
                Finding(
                    "Not an instrument",
                    f"a {what}'s point depends on what else is in its batch: it moves by {moved:.1%} of the points' "
                    "spread. Its figures depend on the batch size.",
                )
            )
    if instrument.merged >= 0.01:
        out.append(
            Finding(
                "Captions it cannot tell apart",
                f"{instrument.merged:.0%} of the different captions of {audit.split!r} lie on another one's point.",
            )
        )
    return out
