import pytest
import torch

from lmm.batch import MotionBatch
from lmm.motion.representations import HumanML3DFeatures, JointPositions
from lmm.tokenizers import LFQ2DTokenizer, MotionTokenizer, RVQTokenizer, VQTokenizer
from lmm.tokenizers.networks import Conv1dDecoder, Conv1dEncoder, Conv2dDecoder, Conv2dEncoder
from lmm.tokenizers.quantizers import LookupFreeQuantizer, ResidualQuantizer, VectorQuantizer

KINDS = ["vq", "rvq", "lfq2d", "lfq1d", "rvq2d"]


def tiny(kind: str, representation=None, codebook_size: int = 16) -> MotionTokenizer:
    """A tokenizer of every kind that fits in a millisecond."""
    torch.manual_seed(0)
    representation = representation or JointPositions()
    representation.set_statistics(torch.zeros(representation.dim), torch.ones(representation.dim))
    one = (lambda r, c: Conv1dEncoder(r, c, width=16), lambda r, c: Conv1dDecoder(r, c, width=16))
    two = (lambda r, c: Conv2dEncoder(r, c, width=8, depth=1), lambda r, c: Conv2dDecoder(r, c, width=8, depth=1))
    vector = lambda c: VectorQuantizer(c, codebook_size=codebook_size)  # noqa: E731
    residual = lambda c: ResidualQuantizer(c, codebook_size=codebook_size, num_levels=3)  # noqa: E731
    free = lambda c: LookupFreeQuantizer(c, codebook_size=codebook_size)  # noqa: E731
    cls, (encoder, decoder), quantizer = {
        "vq": (VQTokenizer, one, vector),
        "rvq": (RVQTokenizer, one, residual),
        "lfq2d": (LFQ2DTokenizer, two, free),
        "lfq1d": (MotionTokenizer, one, free),
        "rvq2d": (MotionTokenizer, two, residual),
    }[kind]
    return cls(representation, encoder, quantizer, decoder, latent_dim=12).eval()


def batch(lengths=(40, 23, 64, 1), dim: int = 66, seed: int = 0) -> MotionBatch:
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = torch.randn(len(lengths), max(lengths), dim, generator=g) * mask[..., None]
    return MotionBatch(features, mask, [str(i) for i in range(len(lengths))], [""] * len(lengths))


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


__all__ = ["HumanML3DFeatures", "batch", "tiny"]
