"""Vector quantization with a looked-up codebook (T2M-GPT, Zhang et al., CVPR 2023; VQ-VAE, van den Oord et al., 2017).

Nearest code in Euclidean distance (or angle); loss = commitment_weight · ||z - sg(c)||². The codebook is the running
mean of the latents that chose each code, or a parameter with the loss ||sg(z) - c||² on top; a code whose running count
falls below ``reset_threshold`` becomes a latent of the batch. All state is buffers, so a resumed run continues exactly.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer, QuantizerOutput, full_precision
from lmm.tokenizers.quantizers.codebook import Codebook, lookup, real_cells
from lmm.tokenizers.quantizers.straight_through import commit


class VectorQuantizer(Quantizer):
    """One codebook of looked-up codes (Q = 1).

    Args:
        latent_dim: C, channels of a latent and of a code.
        codebook_size: N.
        decay: EMA decay μ; of a learned codebook, that of the counts only.
        commitment_weight: β of the commitment loss (T2M-GPT 0.02, VQ-VAE 0.25).
        reset_threshold: a code used less than this often in a batch (running mean) is replaced; 0 replaces none.
        learned: codes are parameters that follow the gradient of ||sg(z) - c||² instead of running means.
        cosine: latents and codes have length one (ViT-VQGAN, Yu et al., ICLR 2022).
        kmeans_steps: Lloyd steps on the first batch, from random latents (SoundStream 10).
    """

    num_levels = 1

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 512,
        decay: float = 0.99,
        commitment_weight: float = 0.02,
        reset_threshold: float = 1.0,
        learned: bool = False,
        cosine: bool = False,
        kmeans_steps: int = 0,
    ) -> None:
        super().__init__()
        self.codebook_size, self.commitment_weight = codebook_size, commitment_weight
        self.codebook = Codebook(
            codebook_size, latent_dim, decay, reset_threshold, learned=learned, cosine=cosine, kmeans_steps=kmeans_steps
        )

    @full_precision
    def forward(self, latents: Float[Tensor, "B t P C"], mask: Bool[Tensor, "B t"]) -> QuantizerOutput:
        """Nearest codes, straight-through."""
        z = self.codebook.on_sphere(latents)
        found = lookup(z.detach(), [self.codebook.table()], mask)
        out, commitment = commit(z, found.codes, found.squares, mask)
        loss = self.commitment_weight * commitment
        if self.codebook.learned:
            chosen = F.embedding(real_cells(found.indices, mask).squeeze(-1), self.codebook.codes)
            loss = loss + F.mse_loss(self.codebook.on_sphere(chosen), real_cells(z.detach(), mask))
        return QuantizerOutput(out, found.indices, loss, {"commitment": commitment.detach()})

    def decode(self, indices: Int[Tensor, "B t P 1"]) -> Float[Tensor, "B t P C"]:
        """Codes of indices."""
        return self.codebook.table()[indices.squeeze(-1)]

    def update(self, latents: Float[Tensor, "B t P C"], output: QuantizerOutput, mask: Bool[Tensor, "B t"]) -> None:
        """EMA step on the real latents."""
        self.codebook.update(real_cells(latents.float(), mask), real_cells(output.indices, mask).squeeze(-1))
