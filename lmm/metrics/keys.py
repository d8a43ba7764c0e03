"""Rows that come from many ranks in any order, put in the order of their keys: the same on one device and on many."""

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat


def in_key_order(keys: Int[Tensor, " N"] | list[Tensor], *rows: Tensor | list[Tensor]) -> list[Tensor]:
    """The rows, as one tensor each, in the order of their keys.

    Args:
        keys: of the rows, each once; as one tensor or batch by batch.
        *rows: what belongs to the keys.

    Raises:
        ValueError: two rows have one key.
    """
    keys = dim_zero_cat(keys)
    keys, order = keys.sort(stable=True)
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice):
        raise ValueError(
            f"{len(twice)} keys came twice, the first is {int(twice[0])}; give every row a key of its own, and across "
            "devices use a sampler that repeats no item to fill its last batch: it would count twice"
        )
    return [dim_zero_cat(row)[order] for row in rows]


def no_rows(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> list[Tensor]:
    """What a list state begins with: a rank that is given nothing still has the shape and type of the others."""
    return [torch.zeros(0, *shape, dtype=dtype, device=device)]
