"""Which features belong to which row of a grid time x part."""

from lmm.motion.representations.base import MotionRepresentation


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
