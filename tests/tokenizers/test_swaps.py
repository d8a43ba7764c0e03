"""The bench: every quantizer on every network and partition learns, saves, loads, encodes and decodes."""

from functools import partial

import pytest
import torch

from lmm.motion.representations import JointPositions
from lmm.tokenizers import MotionTokenizer
from lmm.tokenizers.networks import (
    Conv1dDecoder,
    Conv1dEncoder,
    Conv2dDecoder,
    Conv2dEncoder,
    TransformerDecoder,
    TransformerEncoder,
)
from lmm.tokenizers.quantizers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    PartwiseQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

from .conftest import batch

QUANTIZERS = {  # factory, codes of a step and part, codebook size
    "vector": (partial(VectorQuantizer, codebook_size=16), 1, 16),
    "vector, learned cosine": (partial(VectorQuantizer, codebook_size=16, learned=True, cosine=True), 1, 16),
    "residual": (partial(ResidualQuantizer, codebook_size=16, num_levels=3), 3, 16),
    "residual, shared": (partial(ResidualQuantizer, codebook_size=16, num_levels=3, shared=True), 3, 16),
    "lookup-free": (partial(LookupFreeQuantizer, codebook_size=64), 1, 64),
    "lookup-free, sub-codes": (partial(LookupFreeQuantizer, codebook_size=64, sub_codes=2), 2, 8),
    "finite scalar": (partial(FiniteScalarQuantizer, levels=[5, 4, 3]), 1, 60),
    "binary spherical": (partial(BinarySphericalQuantizer, codebook_size=64), 1, 64),
}
CONV1D, CONV2D = (Conv1dEncoder, Conv1dDecoder), (Conv2dEncoder, Conv2dDecoder)
TRANSFORMER = (TransformerEncoder, TransformerDecoder)
NETWORKS = {  # encoder and decoder, their arguments, parts
    "conv1d": (CONV1D, {"width": 8}, 1),
    "conv1d, causal": (CONV1D, {"width": 8, "causal": True}, 1),
    "conv2d, limbs": (CONV2D, {"width": 4, "depth": 1}, 5),
    "conv2d, causal halves": (CONV2D, {"width": 4, "depth": 1, "causal": True, "parts": "halves"}, 2),
    "conv2d, blocks": (CONV2D, {"width": 4, "depth": 1, "parts": "blocks"}, 3),
    "transformer": (TRANSFORMER, {"width": 8, "depth": 1, "num_heads": 2}, 1),
    "transformer, causal six": (
        TRANSFORMER,
        {"width": 8, "depth": 1, "num_heads": 2, "causal": True, "parts": "six"},
        6,
    ),
    "transformer, joints": (TRANSFORMER, {"width": 8, "depth": 1, "num_heads": 2, "parts": "joints"}, 22),
}


def build(quantizer, network: str) -> MotionTokenizer:
    (encoder, decoder), arguments, _ = NETWORKS[network]
    representation = JointPositions()
    representation.set_statistics(torch.zeros(66), torch.ones(66))
    torch.manual_seed(0)
    return MotionTokenizer(
        representation, partial(encoder, **arguments), quantizer, partial(decoder, **arguments), latent_dim=6
    )


def check(quantizer, network: str, codes: int, size: int) -> None:
    tokenizer, clips, parts = build(quantizer, network), batch((16, 9)), NETWORKS[network][2]
    assert tokenizer.token_spec.codes_per_step == parts * codes and tokenizer.token_spec.codebook_size == size
    tokenizer.log = tokenizer.log_dict = lambda *_, **__: None
    tokenizer.train()
    optimizer = torch.optim.AdamW([p for p in tokenizer.parameters() if p.requires_grad], 1e-3)
    for step in range(2):
        torch.manual_seed(step)
        loss = tokenizer.training_step(clips, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(p.grad is not None for p in tokenizer.encoder.parameters())
    tokenizer.eval()
    loaded = build(quantizer, network).eval()
    loaded.load_state_dict(tokenizer.state_dict())
    tokens = tokenizer.encode(clips.features, clips.mask)
    assert torch.equal(loaded.encode(clips.features, clips.mask), tokens)
    assert tokens.shape == (2, 4, parts * codes) and tokens.max() < size
    assert (tokens[1, 3] == -1).all() and (tokens[1, :3] >= 0).all()
    features = loaded.decode(tokens)
    assert features.shape == (2, 16, 66) and torch.isfinite(features).all()
    assert torch.equal(features, tokenizer.decode(tokens))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_any_quantizer_on_any_network(quantizer, network):
    factory, codes, size = QUANTIZERS[quantizer]
    check(factory, network, codes, size)


@pytest.mark.parametrize("network", ["conv2d, limbs", "transformer, causal six"])
@pytest.mark.parametrize("quantizer", ["vector", "residual", "lookup-free"])
def test_every_part_may_have_a_codebook_of_its_own(quantizer, network):
    factory, codes, size = QUANTIZERS[quantizer]
    check(partial(PartwiseQuantizer, num_parts=NETWORKS[network][2], quantizer=factory), network, codes, size)
