"""What every language model can be told beside how it is tuned: its new ids, and how clips become sequences."""

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from lmm.llm.rows import NewRows, NoisyMean


@dataclass(frozen=True)
class NewIds:
    """The ids of motion.

    Args:
        per_slot: a range of its own for every slot of a step (part or level), instead of one for all.
        rows: where their rows in embedding and head begin.
    """

    per_slot: bool = False
    rows: NewRows = NoisyMean()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Sequences:
    """How the samples of a batch are laid out and disturbed.

    Args:
        row_length: ids of a row that several samples share, each seeing itself alone; 0 gives each a row of its own.
        motion_rows: score motion ids against motion ids only (cheaper; needs ``loss_on_text: false`` and no task that
            answers in words).
        drop_tokens: probability of leaving out a time step of a training sample's motion.
        replace_tokens: probability of reading a random code in its place.
    """

    row_length: int = 0
    motion_rows: bool = False
    drop_tokens: float = 0.0
    replace_tokens: float = 0.0

    def __post_init__(self) -> None:
        if self.row_length < 0:
            raise ValueError(f"row_length is a number of ids, or 0 for a row each; got {self.row_length}")


def plain(value: Any) -> Any:
    """Options as a checkpoint keeps them: numbers and words, and a part as its ``class_path`` and ``init_args``."""
    if isinstance(value, NewIds):
        rows = value.rows
        path = f"{type(rows).__module__}.{type(rows).__qualname__}"
        return {"per_slot": value.per_slot, "rows": {"class_path": path, "init_args": asdict(rows)}}  # type: ignore[call-overload]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
