"""2D-LFQ (arXiv 2410.03311): a code of d signs for every (step, body part) cell of the motion image."""

from collections.abc import Callable

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.base import MotionTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks.conv2d import Conv2dDecoder, Conv2dEncoder
from lmm.tokenizers.quantizers import LookupFreeQuantizer
from lmm.training import Optimization


class LFQ2DTokenizer(MotionTokenizer):
    """`MotionTokenizer` with a 2-D network and a `LookupFreeQuantizer`. Arguments as the base class."""

    def __init__(
        self,
        representation: MotionRepresentation,
        encoder: Callable[[MotionRepresentation, int], Conv2dEncoder] = Conv2dEncoder,
        quantizer: Callable[[int], LookupFreeQuantizer] = LookupFreeQuantizer,
        decoder: Callable[[MotionRepresentation, int], Conv2dDecoder] = Conv2dDecoder,
        loss: Callable[[MotionRepresentation], ReconstructionLoss] = ReconstructionLoss,
        latent_dim: int = 14,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(representation, encoder, quantizer, decoder, loss, latent_dim, optimization)
