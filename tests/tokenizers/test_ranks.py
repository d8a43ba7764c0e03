"""Two gloo ranks and one process with the doubled batch end up with the same quantizers and the same gradients."""

import os
import time
from functools import partial

import pytest
import torch
import torch.multiprocessing

from lmm.tokenizers.quantizers import EntropyOptions, LookupFreeQuantizer, ResidualQuantizer, VectorQuantizer

SMALL = {"codebook_size": 6, "reset_threshold": 0.0, "decay": 0.5}
RESETS = SMALL | {"reset_threshold": 1.5}
BITS = {"codebook_size": 2**6, "entropy_weight": 1.0}
MAKE = {
    "vector": partial(VectorQuantizer, 4, **SMALL),
    "resets": partial(VectorQuantizer, 4, **RESETS),
    "k-means": partial(VectorQuantizer, 4, kmeans_steps=5, **SMALL),
    "cosine": partial(VectorQuantizer, 4, cosine=True, kmeans_steps=2, **RESETS),
    "learned": partial(VectorQuantizer, 4, learned=True, **RESETS),
    "residual": partial(ResidualQuantizer, 4, num_levels=4, dropout=0.0, **SMALL),
    "shared": partial(ResidualQuantizer, 4, num_levels=4, dropout=0.0, shared=True, **RESETS),
    "dropped levels": partial(ResidualQuantizer, 4, num_levels=4, dropout=0.7, **RESETS),
    "entropy": partial(LookupFreeQuantizer, 4, **BITS),
    "entropy, groups": partial(LookupFreeQuantizer, 4, entropy=EntropyOptions(groups=2), **BITS),
}


def learn(kind, latents, rank):
    torch.manual_seed(0)
    quantizer = MAKE[kind]()
    optimizer = torch.optim.SGD(list(quantizer.parameters()) or [torch.zeros(1)], lr=0.5)
    for number, z in enumerate(latents):
        torch.manual_seed(10 * number + rank)  # as StepSeed does: every rank has its own draws
        mask = torch.ones(z.shape[:2], dtype=torch.bool)
        output = quantizer(z, mask)
        quantizer.update(z, output, mask)
        if output.loss.requires_grad:
            optimizer.zero_grad()
            output.loss.backward()
            if torch.distributed.is_initialized():
                for parameter in quantizer.parameters():  # as DDP does
                    if parameter.grad is not None:
                        torch.distributed.all_reduce(parameter.grad)
                        parameter.grad /= torch.distributed.get_world_size()
            optimizer.step()
    return quantizer.state_dict()


def work(rank, kind, latents, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(learn(kind, latents[:, rank : rank + 1], rank), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", MAKE)
def test_two_ranks(kind, tmp_path):
    latents = torch.randn(8, 2, 16, 1, 4, generator=torch.Generator().manual_seed(1))
    context = torch.multiprocessing.start_processes(
        work, (kind, latents, tmp_path), nprocs=2, join=False, start_method="fork"
    )
    deadline = time.monotonic() + 60
    while not context.join(timeout=1):
        assert time.monotonic() < deadline, "the ranks wait for each other"
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    # Rank 0 draws which levels to drop, so one process with rank 0's seeds must end up the same in every case.
    alone = learn(kind, latents, 0)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert torch.allclose(value, alone[name], atol=1e-5), name
