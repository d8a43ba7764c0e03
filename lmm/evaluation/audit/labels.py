"""How the audit's figures, strengths and verdicts are called on paper."""

from lmm.evaluation.audit.corruptions import CORRUPTIONS, SWAPPED, SWAPPED_UNIT, SWAPPED_WHAT

FIGURE_LABELS = {
    "fid": "FID",
    "r_precision_1": "R-precision@1",
    "r_precision_2": "R-precision@2",
    "r_precision_3": "R-precision@3",
    "multimodal_distance": "MM-distance",
}
PHYSICS_LABELS = {
    "skating_ratio": "foot skating (share of steps)",
    "skating_m_s": "speed of planted feet (m/s)",
    "floating_ratio": "floating (share of frames)",
    "floating_cm": "height of the lowest joint (cm)",
    "penetration_ratio": "below the floor (share of frames)",
    "penetration_mm": "depth below the floor (mm)",
    "jitter_m_s3": "jitter (m/s³)",
    "acceleration_m_s2": "acceleration (m/s²)",
    "bone_length_std_mm": "change of bone lengths (mm)",
}
VERDICTS = {
    "sees": "the strongest damage costs more than noise, and the order is right within noise",
    "wrong order": "some damage costs more than noise, but the order is wrong",
    "faint": "nothing beyond noise, but the order is right (ρ of 0.9 or more)",
    "rewards": "damage improves the figure by more than noise",
    "blind": "nothing beyond noise, and no order",
}
SHORT_LABELS = {name: label.replace("R-precision", "R") for name, label in FIGURE_LABELS.items()}
WHAT = {corruption.name: corruption.what for corruption in CORRUPTIONS} | {SWAPPED: SWAPPED_WHAT}
_UNITS = {corruption.name: corruption.unit for corruption in CORRUPTIONS} | {SWAPPED: SWAPPED_UNIT}


def unit(corruption: str) -> str:
    """Of a corruption's strengths, as an axis says it."""
    return _UNITS[corruption].replace("of the", "% of the") if _is_share(corruption) else _UNITS[corruption]


def number(corruption: str, strength: float) -> str:
    """A strength without its unit; shares in per cent."""
    return f"{100 * strength:g}" if _is_share(corruption) else f"{strength:g}"


def amount(corruption: str, strength: float) -> str:
    """A strength with its unit: "10 mm", "×1.5", "25 % of the clips"."""
    if unit(corruption) == "×":
        return f"×{strength:g}"
    return f"{number(corruption, strength)} {unit(corruption)}"


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _is_share(corruption: str) -> bool:
    return _UNITS[corruption].startswith("of the")
