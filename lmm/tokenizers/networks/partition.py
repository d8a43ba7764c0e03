"""Which features belong to which row of a grid time x part."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmm.motion.representations.base import MotionRepresentation


class Partition(nn.Module):
    """Features, side by side <-> one tensor a part. Arguments as `part_columns`."""

    order: Tensor  # feature columns, part after part
    place: Tensor  # its inverse

    def __init__(self, representation: MotionRepresentation, parts: list[str] | str | None) -> None:
        super().__init__()
        columns = part_columns(representation, parts)
        self.names, self.sizes = list(columns), [len(c) for c in columns.values()]
        order = torch.tensor(sum(columns.values(), []))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)

    def split(self, features: Float[Tensor, "*B D"]) -> tuple[Tensor, ...]:
        """The features of each part."""
        return features[..., self.order].split(self.sizes, dim=-1)

    def join(self, parts: Sequence[Tensor]) -> Float[Tensor, "*B D"]:
        """Inverse of `split`."""
        return torch.cat(list(parts), dim=-1)[..., self.place]


def part_columns(representation: MotionRepresentation, parts: list[str] | str | None) -> dict[str, list[int]]:
    """Feature columns of each part by its name, in the order of the grid.

    Args:
        representation: knows the columns of its parts and its partitions.
        parts: names of parts; or the name of a partition of the body (``whole`` is one part with all features); by
            default all parts of the representation.

    Raises:
        ValueError: parts that do not hold every feature exactly once, or a part without features.
    """
    if isinstance(parts, str):
        columns = representation.partition(parts)
    else:
        columns = {part: representation.columns(part) for part in (parts or representation.parts)}
    name = type(representation).__name__
    if sorted(sum(columns.values(), [])) != list(range(representation.dim)):
        raise ValueError(
            f"the parts {parts} do not cover every feature of {name} exactly once; "
            f"it has {', '.join(representation.parts)}"
        )
    if not all(columns.values()):
        raise ValueError(f"the parts {parts} of {name} include one without features; name a coarser partition")
    return columns
