"""VQ-VAE of T2M-GPT (Zhang et al., CVPR 2023), the paper's baseline: one code of 512 a step, 19.43M parameters."""

from collections.abc import Callable

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.base import MotionTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks.conv1d import Conv1dDecoder, Conv1dEncoder
from lmm.tokenizers.parts import Decoder, Encoder
from lmm.tokenizers.quantizers import VectorQuantizer
from lmm.training import Optimization


class VQTokenizer(MotionTokenizer):
    """`MotionTokenizer` with a `VectorQuantizer`; the defaults are T2M-GPT's. Arguments as the base class."""

    def __init__(
        self,
        representation: MotionRepresentation,
        encoder: Callable[[MotionRepresentation, int], Encoder] = Conv1dEncoder,
        quantizer: Callable[[int], VectorQuantizer] = VectorQuantizer,
        decoder: Callable[[MotionRepresentation, int], Decoder] = Conv1dDecoder,
        loss: Callable[[MotionRepresentation], ReconstructionLoss] = ReconstructionLoss,
        latent_dim: int = 512,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(representation, encoder, quantizer, decoder, loss, latent_dim, optimization)
