"""A quantizer for each body part: every part has codes of its own (H²VQ, PRQ), where the others share one codebook.

Latents "B t P C" are cut along P; part p goes through its own quantizer, of any kind, and the indices come back in the
same grid. All have the same number of codes and levels, so the tokens look as they would from a shared one.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmm.tokenizers.parts import Quantizer, QuantizerOutput


class PartwiseQuantizer(Quantizer):
    """P quantizers side by side.

    Args:
        latent_dim: C.
        num_parts: P, the encoder's number of parts.
        quantizer: factory of one part's quantizer, called with ``latent_dim``.
    """

    def __init__(self, latent_dim: int, *, num_parts: int, quantizer: Callable[[int], Quantizer]) -> None:
        super().__init__()
        parts = [quantizer(latent_dim) for _ in range(num_parts)]
        self.num_levels, self.codebook_size = parts[0].num_levels, parts[0].codebook_size
        self.bit_order = parts[0].bit_order
        self.parts = nn.ModuleList(parts)

    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Each part by its own quantizer; losses and terms are means over parts.

        Raises:
            ValueError: another number of parts.
        """
        if latents.shape[2] != len(self.parts):
            raise ValueError(f"the encoder has {latents.shape[2]} parts, the quantizer num_parts={len(self.parts)}")
        outputs = [part(z, mask) for part, z in zip(self.parts, latents.split(1, dim=2), strict=True)]
        return QuantizerOutput(
            torch.cat([output.latents for output in outputs], dim=2),
            torch.cat([output.indices for output in outputs], dim=2),
            torch.stack([output.loss for output in outputs]).mean(),
            {name: torch.stack([output.terms[name] for output in outputs]).mean() for name in outputs[0].terms},
        )

    def decode(self, indices: Int[Tensor, "B t P Q"]) -> Float[Tensor, "B t P C"]:
        """Latents of indices."""
        return torch.cat(
            [part.decode(i) for part, i in zip(self.parts, indices.split(1, dim=2), strict=True)],  # type: ignore[operator]
            dim=2,
        )

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """Each part learns from its own cells."""
        for number, part in enumerate(self.parts):
            cells = slice(number, number + 1)
            own = output._replace(latents=output.latents[:, :, cells], indices=output.indices[:, :, cells])
            part.update(latents[:, :, cells], own, mask)  # type: ignore[operator]
