"""Speed and memory of the 1-D motion tokenizers: VQ against T2M-GPT, six-level RVQ against MoMask.

    python benchmarks/motion_tokenizers.py [--quick] [--json FILE] [--width N] [--clips N] [--repeats N]

The peers are the published networks and quantizers written again plainly (`tokenizer_peers.py`; 19.44M parameters at
width 512) with their loops: AdamW as torch defaults to it, several ``.item()`` a step, a corpus encoded clip by clip,
T2M-GPT's evaluation set decoded clip by clip. Ours has the peer's weights, and before any timing codes, losses and
features are compared. All sides run in one process on one thread and take turns (A B C A B C ...); times are medians of
CPU time. Peers run in fp32 as published, ours in fp32 and in bf16 autocast (which peers could turn on, too). Memory is
what the peak RSS of a process of its own grows by from before the model is made.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizer_peers import Peer
from torch import Tensor
from torch.nn import functional as F

from lmm.batch import MotionBatch
from lmm.data.loader import same_length_batches
from lmm.motion.representations import HumanML3DFeatures
from lmm.tokenizers import MotionTokenizer, RVQTokenizer, VQTokenizer
from lmm.tokenizers.networks import Conv1dDecoder, Conv1dEncoder
from lmm.tokenizers.quantizers import ResidualQuantizer, VectorQuantizer

PEERS = {1: "T2M-GPT", 6: "MoMask"}  # levels -> whose
KINDS = {1: "VQ-512", 6: "RVQ 6 x 512"}
BATCH = 64  # windows, and clips of a corpus
SIDES = ("peer", "fp32", "bf16")
Side = Callable[[], list[Tensor]]


class Work(NamedTuple):
    """Inputs of all tasks."""

    windows: Tensor  # 64 x 64 x 263
    evaluation: Tensor  # codes of 32 clips of 196 frames
    corpus: list[Tensor]  # clips of 40 to 196 frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="width 256 and fewer turns: under five minutes")
    parser.add_argument("--json", type=Path, help="write the rows {name, peer, ours_s, peer_s, ratio, peak_mb} here")
    parser.add_argument("--width", type=int, help="channels inside (default 512, quick 256)")
    parser.add_argument("--clips", type=int, help="clips of the corpus (default 512, quick 256)")
    parser.add_argument("--repeats", type=int, help="turns of every side (default 5, quick 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*self.trainer.*")  # steps are run without a Trainer, so log nowhere
    width = arguments.width or (256 if arguments.quick else 512)
    clips = arguments.clips or (256 if arguments.quick else 512)
    repeats = arguments.repeats or (3 if arguments.quick else 5)
    print(
        f"width {width}, {clips} clips; {torch.get_num_threads()} thread of torch {torch.__version__}, "
        f"{repeats} turns each, medians of CPU time"
    )
    rows = []
    everything = [(task, side, levels, width, clips) for levels in PEERS for task in TASKS for side in SIDES]
    peaks = {case[:3]: peak_mb(*case) for case in everything}  # first: a used heap would hide growth
    for levels in PEERS:
        for row in benchmark(levels, width, clips, repeats, peaks):
            rows.append(row)
            peak = row["peak_mb"]
            print(f"{row['name']:<58} ours {row['ours_s']:8.3f} s {peak['ours']:5.0f} MB", end="")
            print(f"  peer {row['peer_s']:8.3f} s {peak['peer']:5.0f} MB {row['ratio']:6.2f}x  ({row['peer']})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def benchmark(
    levels: int, width: int, clips: int, repeats: int, peaks: dict[tuple[str, str, int], float]
) -> Iterator[dict]:
    """Rows of one quantizer: every task in fp32, then in bf16."""
    work = make_work(levels, clips)
    for task, (title, make) in TASKS.items():
        peer = make_peer(levels, width, work)
        sides = {"peer": make(peer, work, False)} | {
            name: make(make_ours(peer, levels, width), work, name == "bf16") for name in ("fp32", "bf16")
        }
        check(task, KINDS[levels], {name: side() for name, side in sides.items()}, peer, work)
        seconds = measure(list(sides.values()), repeats)
        for place, name in ((1, "fp32"), (2, "bf16")):
            yield {
                "name": f"{title}, {KINDS[levels]}, width {width}, {name}",
                "peer": f"{PEERS[levels]}, rebuilt, fp32",
                "ours_s": seconds[place],
                "peer_s": seconds[0],
                "ratio": seconds[0] / seconds[place],
                "peak_mb": {"ours": peaks[task, name, levels], "peer": peaks[task, "peer", levels]},
            }


def check(task: str, kind: str, results: dict[str, list[Tensor]], peer_model: Peer, work: Work) -> None:
    """Refuse to time what does not agree in fp32, ties within rounding apart; say how well bf16 does."""
    peer, ours, half = (results[side] for side in SIDES)
    if task in ("encode", "corpus"):
        inputs = [clip[None, : len(clip) // 4 * 4] for clip in work.corpus] if task == "corpus" else [work.windows]
        for x, a, b in zip(inputs, peer, ours, strict=True):
            tie = torch.equal(a, b) or peer_model.parting(x, *(c.view(len(x), -1, c.shape[-1]) for c in (a, b))) < 1e-6
            assert tie, f"{task}, {kind}: codes differ"
        total = sum(a.numel() for a in peer)
        differ, rough = (sum(int((a != b).sum()) for a, b in zip(peer, other, strict=True)) for other in (ours, half))
        print(f"{task}, {kind}: of {total:,} codes {differ} differ in fp32 (ties), {rough} in bf16; random weights")
    else:
        error, rough = (
            max(float((a - b).norm() / a.norm()) for a, b in zip(peer, other, strict=True)) for other in (ours, half)
        )
        assert error < 1e-3, f"{task}, {kind}: differs by {error:.1e}"
        print(f"{task}, {kind}: relative difference {error:.1e} in fp32, {rough:.1e} in bf16")


def measure(sides: list[Side], repeats: int) -> list[float]:
    """Median CPU seconds of every side; they take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, seconds in zip(sides, times, strict=True):
            start = time.process_time()
            side()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in times]


def peak_mb(task: str, side: str, levels: int, width: int, clips: int) -> float:
    """What a process that does nothing else grows by."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_grow, args=(send, task, side, levels, width, clips))
    process.start()
    send.close()
    grown = receive.recv()
    process.join()
    return grown


def _grow(send: Connection, task: str, side: str, levels: int, width: int, clips: int) -> None:
    work = make_work(levels, clips)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = make_peer(levels, width, work) if side == "peer" else make_ours(None, levels, width)
    run = TASKS[task][1](model, work, side == "bf16")
    for _ in range(2 if task == "training" else 1):  # the optimizer's state comes with the first step
        run()
    send.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024)


# The tasks. Each takes a model of either side and gives what one turn runs.


def training(model: Peer | MotionTokenizer, work: Work, half: bool) -> Side:
    """A step; its loss and the gradient of the decoder's last layer."""
    if isinstance(model, Peer):
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.99), weight_decay=0.0)
        sums = [0.0, 0.0, 0.0]

        def step() -> list[Tensor]:
            reconstruction, commitment, perplexity = model(work.windows)
            motion = F.smooth_l1_loss(reconstruction, work.windows)
            positions = F.smooth_l1_loss(reconstruction[..., 4:67], work.windows[..., 4:67])
            loss = motion + 0.5 * positions + 0.02 * commitment
            optimizer.zero_grad()
            loss.backward()
            last = list(model.decoder.parameters())[-1].grad
            optimizer.step()
            for place, value in enumerate((motion, commitment, perplexity)):
                sums[place] += value.item()
            return [loss.detach(), last.clone()]
    else:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        batch = MotionBatch(work.windows, torch.ones(work.windows.shape[:2], dtype=torch.bool), [""] * BATCH, [])

        def step() -> list[Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = model.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            last = list(model.decoder.parameters())[-1].grad
            optimizer.step()
            return [loss.detach(), last.clone()]

    return step


def encoding(model: Peer | MotionTokenizer, work: Work, half: bool) -> Side:
    """Codes of a batch."""
    model.eval()
    if isinstance(model, Peer):
        return inference(lambda: [model.encode(work.windows)], half)
    mask = torch.ones(work.windows.shape[:2], dtype=torch.bool)
    return inference(lambda: [model.encode(work.windows, mask)], half)


def decoding(model: Peer | MotionTokenizer, work: Work, half: bool) -> Side:
    """Features of an evaluation set: T2M-GPT's clip by clip, the others in one batch."""
    model.eval()
    if isinstance(model, Peer) and len(model.levels) == 1:
        return inference(lambda: [torch.cat([model.decode(codes[None]) for codes in work.evaluation])], half)
    return inference(lambda: [model.decode(work.evaluation)], half)


def tokenising(model: Peer | MotionTokenizer, work: Work, half: bool) -> Side:
    """Codes of a corpus: the peers' clip by clip, ours in batches of clips with equally many steps."""
    model.eval()
    if isinstance(model, Peer):
        whole = [clip[: len(clip) // 4 * 4] for clip in work.corpus]
        return inference(lambda: [model.encode(clip[None])[0] for clip in whole], half)

    def batches() -> list[Tensor]:
        codes: list[Tensor] = [torch.empty(0)] * len(work.corpus)
        lengths = np.array([len(clip) // 4 * 4 for clip in work.corpus])  # as the peers: drop what is no whole step
        for batch in same_length_batches(lengths, BATCH):
            features = torch.stack([work.corpus[place][: lengths[place]] for place in batch])
            tokens = model.encode(features, torch.ones(features.shape[:2], dtype=torch.bool))
            for place, clip in zip(batch, tokens, strict=True):
                codes[place] = clip
        return codes

    return inference(batches, half)


TASKS = {
    "training": ("training step, 64 x 64 x 263", training),
    "encode": ("encode 64 x 64 x 263", encoding),
    "decode": ("decode 32 clips of 196 frames", decoding),
    "corpus": ("encode a corpus", tokenising),
}


def inference(run: Side, half: bool) -> Side:
    def side() -> list[Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return run()

    return side


def make_work(levels: int, clips: int) -> Work:
    torch.manual_seed(0)
    lengths = torch.randint(40, 197, (clips,)).tolist()
    return Work(
        torch.randn(BATCH, 64, 263),
        torch.randint(512, (32, 49, levels)),
        [torch.randn(length, 263) for length in lengths],
    )


def make_peer(levels: int, width: int, work: Work) -> Peer:
    """The peer with codebooks drawn from its own latents, as its first step does."""
    torch.manual_seed(1)
    peer = Peer(levels, width).train()
    with torch.no_grad():
        peer(work.windows)
    return peer


def make_ours(peer: Peer | None, levels: int, width: int) -> MotionTokenizer:
    """Ours with the peer's weights; without a peer, with its own."""
    representation = HumanML3DFeatures()
    representation.set_statistics(torch.zeros(263), torch.ones(263))
    make, quantizer = (VQTokenizer, VectorQuantizer) if levels == 1 else (RVQTokenizer, _all_levels)
    ours = make(
        representation,
        lambda r, c: Conv1dEncoder(r, c, width=width),
        quantizer,
        lambda r, c: Conv1dDecoder(r, c, width=width),
        latent_dim=width,
    )
    codebooks = [ours.quantizer.codebook] if levels == 1 else list(ours.quantizer.levels)
    for place, codebook in enumerate(codebooks):
        codebook.started.fill_(True)
        if peer:
            level = peer.levels[place]
            codebook.codes.copy_(level.codebook)
            codebook.sums.copy_(level.sums)
            codebook.counts.copy_(level.counts)
    if peer:
        for mine, theirs in ((ours.encoder, peer.encoder), (ours.decoder, peer.decoder)):
            with torch.no_grad():
                for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                    assert a.shape == b.shape
                    a.copy_(b)
    return ours


def _all_levels(latent_dim: int) -> ResidualQuantizer:
    return ResidualQuantizer(latent_dim, dropout=0.0)


if __name__ == "__main__":
    main()
