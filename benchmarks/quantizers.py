"""Speed and memory of the quantizers, ours against the ways the field does it.

    python benchmarks/quantizers.py [--quick] [--json FILE] [--scale F] [--repeats N]

One training step of a quantizer: forward, backward for a given gradient of its latents, and the update of its codebook.
Peers: vector-quantize-pytorch itself (rows left out where it is not installed), and written again as published:
Open-MAGVIT2's softmax over all 2^d codes, BSQ-ViT's groups of 9 bits, the one-hot usage statistic of ScaMo and
MotionMillion. Both sides run in one process on one thread and take turns (A B A B ...); times are medians of CPU time.
Before any timing, in the run whose peak memory is taken, codes, latents, gradients and losses are compared.
"""

import argparse
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lmm.tokenizers.parts import Quantizer
from lmm.tokenizers.quantizers import (
    BinarySphericalQuantizer,
    EntropyOptions,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

try:
    import vector_quantize_pytorch as vqp
except ImportError:
    vqp = None
PACKAGE = "vector-quantize-pytorch"


class Step(NamedTuple):
    """What one training step gives: codes "M Q", latents "M C", gradient of the input "M C", the quantizer's loss."""

    codes: Tensor
    latents: Tensor
    gradient: Tensor
    loss: Tensor


class Case(NamedTuple):
    name: str
    peer: str
    ours: Callable[[], Step]
    theirs: Callable[[], Step]
    check: Callable[[Step, Step], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: under 5 minutes")
    parser.add_argument("--json", type=Path, help="write the rows, a list of dictionaries, to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers of latents")
    parser.add_argument("--repeats", type=int, help="turns of either side (default 9, quick 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = arguments.repeats or (3 if arguments.quick else 9)
    allocator = {k: v for k, v in os.environ.items() if k.startswith("MALLOC_") or k == "LD_PRELOAD"}
    print(
        f"float32; {torch.get_num_threads()} thread of torch {torch.__version__}, {repeats} turns each, medians; "
        f"allocator: {allocator or 'default'}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    )
    if vqp is None:
        print(f"{PACKAGE} is not installed: its rows are left out (pip install {PACKAGE})")
    rows = []
    for case in cases(arguments.scale):
        rows.append(measure(case, repeats))
        row = rows[-1]
        print(f"{row['name']:<45} ours {row['ours_s'] * 1e3:9.2f} ms {row['peak_mb'] or 0:6.0f} MB", end="  ")
        print(f"peer {row['peer_s'] * 1e3:9.2f} ms {row['peer_peak_mb'] or 0:6.0f} MB", end="  ")
        print(f"{row['ratio']:7.2f}x  ({row['peer']})", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def cases(scale: float) -> Iterator[Case]:
    """All comparisons; counts of latents are ``scale`` of the full ones."""
    torch.manual_seed(0)

    def count(full: int) -> int:
        return max(int(full * scale) // 64, 1) * 64

    if vqp is not None:
        for codes in (512, 8192):
            yield vector(count(16384), codes)
        yield residual(count(16384))
        for bits, full in ((14, 2048), (16, 2048), (18, 512)):
            yield lookup_free(count(full), bits, package_lfq(bits), PACKAGE)
        yield finite_scalar(count(16384))
    yield lookup_free(count(2048), 14, full_softmax(14), "Open-MAGVIT2's softmax over all codes, rebuilt")
    for groups, name in ((1, "exact entropy"), (2, "the same groups")):
        yield spherical(count(16384), groups, name)
    yield usage(count(16384))


def vector(count: int, num_codes: int) -> Case:
    quantizer = VectorQuantizer(512, codebook_size=num_codes, reset_threshold=0.0)
    quantizer.codebook.started.fill_(True)
    peer = vqp.VectorQuantize(
        dim=512, codebook_size=num_codes, decay=0.99, commitment_weight=0.02, rotation_trick=False
    )
    peer.codebook = quantizer.codebook.codes.clone()
    peer._codebook.embed_avg.copy_(peer._codebook.embed)
    z, of_latents = torch.randn(count, 512), torch.randn(count, 512)
    return Case(
        f"VQ {num_codes} codes, {count:,} x 512", PACKAGE,
        own_step(quantizer, z, of_latents), package_step(peer, z, of_latents), compare(1e-3),
    )  # fmt: skip


def residual(count: int) -> Case:
    quantizer = ResidualQuantizer(512, dropout=0.0, reset_threshold=0.0)
    peer = vqp.ResidualVQ(
        dim=512, num_quantizers=6, codebook_size=512, decay=0.99, commitment_weight=0.02, rotation_trick=False
    )
    for ours, theirs in zip(quantizer.codebooks, peer.layers, strict=True):
        ours.started.fill_(True)
        theirs.codebook = ours.codes.clone()
        theirs._codebook.embed_avg.copy_(theirs._codebook.embed)
    z, of_latents = torch.randn(count, 512), torch.randn(count, 512)
    # the peer passes the gradient straight through at every level, so that it arrives six times
    return Case(
        f"RVQ 6 x 512 codes, {count:,} x 512", PACKAGE,
        own_step(quantizer, z, of_latents), package_step(peer, z, of_latents / 6, reduce=True), compare(1e-3),
    )  # fmt: skip


def lookup_free(count: int, bits: int, theirs: Callable[[Tensor, Tensor], Callable[[], Step]], peer: str) -> Case:
    quantizer = LookupFreeQuantizer(bits, codebook_size=2**bits)
    z, of_latents = torch.randn(count, bits), torch.randn(count, bits)
    # the peers cut log p at p = 1e-5, so that their entropies (not the codes) are off by up to a nat at many bits
    return Case(
        f"LFQ 2^{bits} codes, {count:,}", peer,
        own_step(quantizer, z, of_latents), theirs(z, of_latents), compare(0.15),
    )  # fmt: skip


def package_lfq(bits: int) -> Callable[[Tensor, Tensor], Callable[[], Step]]:
    peer = vqp.LFQ(dim=bits, codebook_size=2**bits, entropy_loss_weight=0.1, commitment_loss_weight=0.25)

    def start(z: Tensor, of_latents: Tensor) -> Callable[[], Step]:
        def step() -> Step:
            x = z.clone().requires_grad_()
            latents, codes, loss = peer(x[None], inv_temperature=1.0)
            (gradient,) = torch.autograd.grad([latents, loss], x, [of_latents[None], torch.ones(())])
            msb_first = codes[0][:, None] >> torch.arange(bits) & 1
            return Step((msb_first.flip(-1) << torch.arange(bits)).sum(-1, keepdim=True), latents[0], gradient, loss)

        return step

    return start


def full_softmax(bits: int) -> Callable[[Tensor, Tensor], Callable[[], Step]]:
    places = 2 ** torch.arange(bits)
    codebook = ((torch.arange(2**bits)[:, None] & places) > 0).float() * 2 - 1

    def start(z: Tensor, of_latents: Tensor) -> Callable[[], Step]:
        def step() -> Step:
            x = z.clone().requires_grad_()
            codes = torch.where(x > 0, 1.0, -1.0)
            logits = 2 * x @ codebook.T
            p, log_p = logits.softmax(-1), logits.log_softmax(-1)
            mean = p.mean(0)
            entropies = -(p * log_p).sum(-1).mean() + (mean * (mean + 1e-5).log()).sum()
            loss = 0.1 * entropies + 0.25 * F.mse_loss(x, codes)
            latents = x + (codes - x).detach()
            (gradient,) = torch.autograd.grad([latents, loss], x, [of_latents, torch.ones(())])
            return Step(((codes > 0).int() * places).sum(-1, keepdim=True), latents, gradient, loss)

        return step

    return start


def spherical(count: int, groups: int, name: str) -> Case:
    """18 bits; the peer's batch entropy is that of two groups of 9 bits, each token's likewise."""
    bits, size, scale = 18, 9, 18**-0.5
    quantizer = BinarySphericalQuantizer(bits, temperature=0.05, entropy=EntropyOptions(groups=groups))
    z, of_latents = torch.randn(count, bits), torch.randn(count, bits)
    group = ((torch.arange(2**size)[:, None] >> torch.arange(size - 1, -1, -1) & 1) * 2.0 - 1) * scale
    places = 2 ** torch.arange(bits - 1, -1, -1)

    def entropy(p: Tensor) -> Tensor:
        return -(p * (p + 1e-8).log()).sum(-1)

    def step() -> Step:
        x = z.clone().requires_grad_()
        u = F.normalize(x, dim=-1)
        codes = torch.where(u > 0, 1.0, -1.0)
        distance = -2 * torch.einsum("mgc,dc->mgd", u.unflatten(-1, (-1, size)), group)
        p = (-distance * (1 / 0.05)).softmax(-1)
        loss = 0.1 * (entropy(p).sum(-1).mean() - entropy(p.mean(0)).sum())
        latents = u + (codes * scale - u).detach()
        (gradient,) = torch.autograd.grad([latents, loss], x, [of_latents, torch.ones(())])
        return Step(((codes > 0) * places).sum(-1, keepdim=True), latents, gradient, loss)

    return Case(
        f"BSQ 2^18 codes, {count:,}, {name}", "BSQ-ViT's groups of 9 bits, rebuilt",
        own_step(quantizer, z, of_latents), step, compare(1e-3 if groups == 2 else 0.3),
    )  # fmt: skip


def finite_scalar(count: int) -> Case:
    peer = vqp.FSQ([8, 8, 8, 5, 5, 5])
    z, of_latents = torch.randn(count, 6), torch.randn(count, 6)

    def step() -> Step:
        x = z.clone().requires_grad_()
        latents, codes = peer(x[None])
        (gradient,) = torch.autograd.grad(latents, x, of_latents[None])
        return Step(codes[0][:, None], latents[0], gradient, torch.zeros(()))

    return Case(
        f"FSQ 64,000 codes, {count:,}", PACKAGE,
        own_step(FiniteScalarQuantizer(6), z, of_latents), step, compare(1e-4),
    )  # fmt: skip


def usage(count: int) -> Case:
    """The step, and the perplexity of its codes: from counts, or as published from an array of codes x latents."""
    quantizer = FiniteScalarQuantizer(6)
    z, of_latents = torch.randn(count, 6), torch.randn(count, 6)
    forward = own_step(quantizer, z, of_latents)

    def perplexity(share: Tensor) -> Tensor:
        return (-(share * (share + 1e-7).log()).sum()).exp()

    def ours() -> Step:
        step = forward()
        counts = torch.bincount(step.codes.flatten(), minlength=quantizer.codebook_size)
        return step._replace(loss=perplexity(counts / len(z)))

    def theirs() -> Step:
        step = forward()
        one_hot = torch.zeros(quantizer.codebook_size, len(z)).scatter_(0, step.codes.view(1, -1), 1)
        return step._replace(loss=perplexity(one_hot.sum(-1) / len(z)))

    return Case(
        f"FSQ 64,000 codes, {count:,}, perplexity", "one-hot statistic of ScaMo, rebuilt", ours, theirs, compare(1e-4)
    )


def own_step(quantizer: Quantizer, z: Tensor, of_latents: Tensor) -> Callable[[], Step]:
    mask = torch.ones(len(z) // 64, 64, dtype=torch.bool)
    shape = (len(z) // 64, 64, 1, -1)

    def step() -> Step:
        x = z.clone().requires_grad_()
        output = quantizer(x.view(shape), mask)
        outputs, gradients = [output.latents], [of_latents.view(shape)]
        if output.loss.requires_grad:
            outputs.append(output.loss)
            gradients.append(torch.ones(()))
        (gradient,) = torch.autograd.grad(outputs, x, gradients)
        quantizer.update(x.detach().view(shape), output, mask)
        return Step(output.indices.flatten(0, 2), output.latents.flatten(0, 2), gradient, output.loss)

    return step


def package_step(peer: torch.nn.Module, z: Tensor, of_latents: Tensor, reduce: bool = False) -> Callable[[], Step]:
    def step() -> Step:
        x = z.clone().requires_grad_()
        latents, codes, loss = peer(x[None])
        loss = loss.mean() if reduce else loss
        (gradient,) = torch.autograd.grad([latents, loss], x, [of_latents[None], torch.ones(())])
        return Step(codes[0].view(len(z), -1), latents[0], gradient, loss)

    return step


def compare(loss_tolerance: float) -> Callable[[Step, Step], None]:
    """Codes equal (one in a thousand may be a tie of rounding); where they are, latents and gradients are close."""

    def check(ours: Step, theirs: Step) -> None:
        same = (ours.codes == theirs.codes).all(-1)
        assert same.float().mean() >= 0.999, f"{(~same).sum()} of {len(same)} codes differ"
        assert torch.allclose(ours.latents[same], theirs.latents[same], atol=1e-4)
        error = (ours.gradient - theirs.gradient)[same].abs().max()
        assert error <= max(1e-5, loss_tolerance / 10), f"gradients differ by {error:.1e}"
        assert abs(ours.loss - theirs.loss) <= loss_tolerance * max(1.0, theirs.loss.abs()), (ours.loss, theirs.loss)

    return check


def measure(case: Case, repeats: int) -> dict[str, object]:
    """One row: compared once, then the two sides in turn, and the ratio of their median times."""
    (mine, my_peak), (other, other_peak) = with_peak(case.ours), with_peak(case.theirs)
    case.check(mine, other)
    del mine, other
    times: dict[Callable[[], Step], list[float]] = {case.ours: [], case.theirs: []}
    for _ in range(repeats):
        for side, seconds in times.items():
            start = time.process_time()
            side()
            seconds.append(time.process_time() - start)
    ours, theirs = (statistics.median(seconds) for seconds in times.values())
    return {
        "name": case.name, "peer": case.peer, "ours_s": ours, "peer_s": theirs, "ratio": theirs / ours,
        "peak_mb": my_peak, "peer_peak_mb": other_peak,
    }  # fmt: skip


def with_peak(side: Callable[[], Step]) -> tuple[Step, float | None]:
    """What a side returns, and by how many MB the process grew at most while it ran (Linux; elsewhere None)."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # start counting the peak anew
    except OSError:
        return side(), None
    before = memory_mb("VmRSS")
    step = side()
    return step, memory_mb("VmHWM") - before


def memory_mb(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
