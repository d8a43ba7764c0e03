"""Residual vector quantization with quantize-dropout (MoMask, Guo et al., CVPR 2024; SoundStream, Zeghidour et al.).

Level q quantizes what levels 0..q-1 left over; each level has its own EMA codebook, or all share one. With probability
``dropout`` a training batch keeps only the first levels, so that a prefix of levels already decodes well; dropped
levels have index -1. Loss = commitment_weight · mean over levels of ||r_q - sg(c_q)||². Parts are cells like any other:
a 2-D residual quantizer is this one on latents with P > 1.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.codebook import Codebook, lookup, real_cells
from lmm.tokenizers.quantizers.straight_through import commit
from lmm.training import broadcast


class ResidualQuantizer(Quantizer):
    """Q codebooks, each for the rest of the one before.

    Args:
        latent_dim: C, channels of a latent and of a code.
        num_levels: Q.
        codebook_size: N of every level.
        dropout: probability that a training batch drops the levels after a random one.
        decay: EMA decay μ.
        commitment_weight: β of the commitment loss.
        reset_threshold: a code used less than this often in a batch (running mean) is replaced; 0 replaces none.
        shared: one codebook for all levels (MoMask's option), learning from all of them in one step.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_levels: int = 6,
        codebook_size: int = 512,
        dropout: float = 0.2,
        decay: float = 0.99,
        commitment_weight: float = 0.02,
        reset_threshold: float = 1.0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.num_levels, self.codebook_size = num_levels, codebook_size
        self.dropout, self.commitment_weight = dropout, commitment_weight
        self.levels = nn.ModuleList(
            Codebook(codebook_size, latent_dim, decay, reset_threshold) for _ in range(1 if shared else num_levels)
        )

    @property
    def codebooks(self) -> list[Codebook]:
        """The codebook of each level; the same one Q times where it is shared."""
        books = [book for book in self.levels if isinstance(book, Codebook)]
        return books * self.num_levels if len(books) < self.num_levels else books

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Sum of the nearest codes of each level, straight-through."""
        depth = self.num_levels
        if self.training and self.dropout:
            drop, keep = broadcast(torch.rand(2, device=latents.device)).tolist()  # one depth for all ranks
            if drop < self.dropout:
                depth = 1 + int(keep * self.num_levels)
        found = lookup(latents.detach(), [book.codes for book in self.codebooks[:depth]], mask)
        out, commitment = commit(latents, found.codes, found.squares, mask, found.earlier, depth)
        indices = nn.functional.pad(found.indices, (0, self.num_levels - depth), value=-1)
        return QuantizerOutput(out, indices, self.commitment_weight * commitment, {"commitment": commitment.detach()})

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Sum of the levels' codes; an index of -1 adds nothing, and neither do last levels that are not given.

        Raises:
            ValueError: more levels than there are.
        """
        if indices.shape[-1] > self.num_levels:
            raise ValueError(f"indices of {indices.shape[-1]} levels, but this quantizer has {self.num_levels}")
        total = self.codebooks[0].codes.new_zeros(*indices.shape[:-1], self.codebooks[0].codes.shape[-1])
        for book, index in zip(self.codebooks, indices.unbind(-1), strict=False):
            total = total + torch.where((index >= 0)[..., None], book.codes[index.clamp_min(0)], 0.0)
        return total

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """EMA step of every level that was used; residuals are those of the forward pass."""
        rest, seen = real_cells(latents.float(), mask).clone(), []
        code = torch.empty_like(rest)
        for book, index in zip(self.codebooks, real_cells(output.indices, mask).unbind(-1), strict=True):
            if index[0] < 0:
                break
            torch.index_select(book.codes, 0, index, out=code)
            if len(self.levels) < self.num_levels:
                seen.append((rest.clone(), index))
            else:
                book.update(rest, index)
            rest -= code
        if seen:
            self.codebooks[0].update(*(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*seen, strict=True)))
