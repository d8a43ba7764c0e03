"""Looked-up codes: the search for the nearest, and how codes follow the latents that chose them.

Nearest is the argmax of z·c - |c|²/2, in chunks of rows that stay in the cache through all levels, so that no array of
latents x codes ever stands in memory. Statistics are sums and counts (``index_add_``, ``bincount``), summed over ranks;
drawn latents come from all ranks as from one batch: any number of ranks learns the same codebook.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.training import broadcast, sum_over_ranks


class Lookup(NamedTuple):
    """Nearest codes of each level, for what the levels before left over.

    ``codes`` is their sum, ``squares`` the sum of all squared residuals in real cells, ``earlier`` the sum of what
    all levels but the last left over (None where there is one level).
    """

    codes: Float[Tensor, "B t P C"]
    indices: Int[Tensor, "B t P Q"]
    squares: Float[Tensor, ""]
    earlier: Float[Tensor, "B t P C"] | None


@torch.no_grad()
def lookup(latents: Float[Tensor, "B t P C"], tables: list[Float[Tensor, "N C"]], mask: Bool[Tensor, "B t"]) -> Lookup:
    """Quantize latents by one table after another."""
    flat, shape = latents.flatten(0, 2), latents.shape[:3]
    halves = [table.square().sum(-1) / 2 for table in tables]
    codes = torch.empty_like(flat)
    earlier = torch.zeros_like(flat) if len(tables) > 1 else None
    squares = flat.new_zeros(len(flat))
    indices = torch.empty(len(flat), len(tables), dtype=torch.long, device=flat.device)
    for rows in _chunks(flat, len(tables[0])):
        rest, total = flat[rows], codes[rows].zero_()
        for level, (table, half) in enumerate(zip(tables, halves, strict=True)):
            index = _nearest(rest, table, half)
            code = table[index]
            total += code
            rest = torch.sub(rest, code, out=code)
            squares[rows] += torch.linalg.vector_norm(rest, dim=-1).square()
            if earlier is not None and level < len(tables) - 1:
                earlier[rows] += rest
            indices[rows, level] = index
    real = squares.view(shape).masked_fill(~mask[..., None], 0.0).sum()
    return Lookup(
        codes.view_as(latents),
        indices.view(*shape, -1),
        real,
        None if earlier is None else earlier.view_as(latents),
    )


def real_cells(latents: Shaped[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> Shaped[Tensor, "M C"]:
    """The cells of real steps; a view where all steps are."""
    return latents.flatten(0, 2) if mask.all() else latents[mask].flatten(0, 1)


class Codebook(nn.Module):
    """N codes of C channels and the running sums they are the mean of.

    Args:
        size: N.
        dim: C.
        decay: EMA decay μ.
        reset_threshold: running count in a batch below which a code is replaced by a latent.
        learned: codes are a parameter; only counts are kept.
        cosine: codes and latents have length one.
        kmeans_steps: Lloyd steps of the start.
    """

    codes: Tensor
    sums: Tensor
    counts: Tensor
    started: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        decay: float,
        reset_threshold: float,
        *,
        learned: bool = False,
        cosine: bool = False,
        kmeans_steps: int = 0,
    ) -> None:
        super().__init__()
        self.decay, self.reset_threshold = decay, reset_threshold
        self.learned, self.cosine, self.kmeans_steps = learned, cosine, kmeans_steps
        codes = self.on_sphere(torch.randn(size, dim))
        if learned:
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
            self.register_buffer("sums", codes.clone())
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("started", torch.tensor(False))

    def on_sphere(self, x: Float[Tensor, "*M C"]) -> Float[Tensor, "*M C"]:
        """Length one where ``cosine`` is set, else as it is."""
        return F.normalize(x, dim=-1, eps=1e-6) if self.cosine else x

    def table(self) -> Float[Tensor, "N C"]:
        """The codes as they are looked up, without gradient."""
        return self.on_sphere(self.codes.detach())

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "M C"], indices: Int[Tensor, " M"]) -> None:
        """One step on this batch (of all ranks); the first call draws the codebook from the batch."""
        latents = self.on_sphere(latents)
        if not self.started:
            with torch.autocast(latents.device.type, enabled=False):
                self._start(latents)
            return
        sums, counts = self._statistics(latents, indices)
        self.counts.lerp_(counts, 1 - self.decay)
        if not self.learned:
            self.sums.lerp_(sums, 1 - self.decay)
            mean = self.on_sphere(self.sums / self.counts.clamp_min(_FORGOTTEN)[:, None])
            self.codes.copy_(torch.where((self.counts > _FORGOTTEN)[:, None], mean, self.codes))
        dead = (self.counts < self.reset_threshold).nonzero().squeeze(-1)
        if len(dead):
            self.codes[dead] = self.on_sphere(_draw(latents, len(dead)))

    def _start(self, latents: Float[Tensor, "M C"]) -> None:
        codes = self.on_sphere(_draw(latents, len(self.codes)))
        for _ in range(self.kmeans_steps):
            half = codes.square().sum(-1) / 2
            index = torch.cat([_nearest(latents[rows], codes, half) for rows in _chunks(latents, len(codes))])
            sums, counts = self._statistics(latents, index)
            mean = self.on_sphere(sums / counts.clamp_min(1)[:, None])
            codes = torch.where((counts > 0)[:, None], mean, codes)
        self.codes.copy_(codes)
        if not self.learned:
            self.sums.copy_(codes)
        self.started.fill_(True)

    def _statistics(
        self, latents: Float[Tensor, "M C"], indices: Int[Tensor, " M"]
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"]]:
        """Sum and number of the latents of each code, over all ranks."""
        sums = torch.zeros_like(self.codes).index_add_(0, indices, latents)
        counts = torch.bincount(indices, minlength=len(self.codes)).to(latents)
        return sum_over_ranks(sums), sum_over_ranks(counts)


_FORGOTTEN = 1e-20  # a running count that has decayed to this says nothing about its code any more


def _chunks(x: Float[Tensor, "M C"], num_codes: int) -> list[slice]:
    """Rows of ``x`` at a time, such that their scores fill a cache (a few hundred MB on an accelerator)."""
    rows = max((2**20 if x.device.type == "cpu" else 2**26) // num_codes, 512)
    return [slice(i, i + rows) for i in range(0, len(x), rows)]


def _nearest(
    latents: Float[Tensor, "M C"], table: Float[Tensor, "N C"], half: Float[Tensor, " N"]
) -> Int[Tensor, " M"]:
    return torch.addmm(half, latents, table.T, beta=-1).argmax(-1)


def _draw(latents: Float[Tensor, "M C"], count: int) -> Float[Tensor, "count C"]:
    """Random latents of all ranks with noise of 1 % of their spread, the same on every rank."""
    rank, world = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    sizes = torch.zeros(world, dtype=torch.long, device=latents.device)
    sizes[rank] = len(latents)
    sizes = sum_over_ranks(sizes)
    total = int(sizes.sum())
    place = broadcast(torch.randint(total, (count,), device=latents.device)) - sizes[:rank].sum()
    mine = (place >= 0) & (place < len(latents))
    drawn = latents.new_zeros(count, latents.shape[1])
    drawn[mine] = latents[place[mine]]
    drawn = sum_over_ranks(drawn)
    elements = total * latents.shape[1]
    mean = sum_over_ranks(latents.sum()) / elements
    variance = sum_over_ranks((latents - mean).square().sum()) / max(elements - 1, 1)
    return drawn + 0.01 * variance.sqrt() * broadcast(torch.randn_like(drawn))
