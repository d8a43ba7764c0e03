"""Speed and memory of language-model training, ours against the ways the field does it.

    python benchmarks/llm_training.py [--quick] [--json FILE] [--scale F] [--repeats N]

Head and cross-entropy, forward and backward, 80 % of positions labelled, all tables trained: `linear_cross_entropy` on
the labelled positions against Hugging Face's way, logits of all rows at all positions; over all rows (the same loss),
and over motion rows alone (another loss, compared with plain cross-entropy of those rows). A training step of a small
Llama on samples as long as HumanML3D's: packed rows against MotionGPT's padding to 256 + 256 ids and against padding to
the longest sample, losses equal. AdamW as `lmm` calls it against PyTorch's default. Peers are written again as
published. Both sides run in one process on one thread and take turns (A B A B ...); times are medians of CPU time.
Before any timing, in the run whose peak memory is taken, losses and gradients are compared.
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
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

from lmm.llm.embedding import MotionLLM
from lmm.llm.loss import linear_cross_entropy
from lmm.llm.packing import pack
from lmm.llm.prompts import Sample

WIDTH, TEXT = 768, 32_000
HF = "all logits at all positions, as in Hugging Face"


class Step(NamedTuple):
    """What one training step gives: the loss and gradients (or, of an optimizer, what it updated)."""

    loss: Tensor
    gradients: list[Tensor]


class Case(NamedTuple):
    name: str
    peer: str
    ours: Callable[[], Step]
    theirs: Callable[[], Step]
    expected: Callable[[], Step]  # what ours must equal: the peer, where both compute the same
    tolerance: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: under 5 minutes")
    parser.add_argument("--json", type=Path, help="write the rows, a list of dictionaries, to this file")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers of rows and positions")
    parser.add_argument("--repeats", type=int, help="turns of either side (default 5, quick 1)")
    arguments = parser.parse_args()
    found = rows(arguments.quick, scale=arguments.scale, repeats=arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def rows(quick: bool, *, scale: float = 1.0, repeats: int | None = None) -> list[dict]:
    """Run all comparisons, printing each."""
    torch.set_num_threads(1)
    repeats = repeats or (1 if quick else 5)
    allocator = {k: v for k, v in os.environ.items() if k.startswith("MALLOC_") or k == "LD_PRELOAD"}
    print(
        f"float32 unless named; {torch.get_num_threads()} thread of torch {torch.__version__}, {repeats} turns each, "
        f"medians; allocator: {allocator or 'default'}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    )
    found = []
    for case in cases(scale):
        row = measure(case, repeats)
        found.append(row)
        print(f"{row['name']:<52} ours {row['ours_s'] * 1e3:9.2f} ms {row['peak_mb'] or 0:6.0f} MB", end="  ")
        print(f"peer {row['peer_s'] * 1e3:9.2f} ms {row['peer_peak_mb'] or 0:6.0f} MB", end="  ")
        print(f"{row['ratio']:7.2f}x  ({row['peer']})", flush=True)
    return found


def cases(scale: float) -> Iterator[Case]:
    for motion, positions in ((65_536, 512), (512, 1024)):
        for motion_rows in (False, True):
            for dtype in (torch.float32, torch.bfloat16):
                yield head_and_loss(motion, positions, motion_rows, dtype, scale)
    yield from language_model_step(scale)
    yield optimizer(scale)


# ------------------------------------------------------------------------------------------ head and cross-entropy


def head_and_loss(motion: int, positions: int, motion_rows: bool, dtype: torch.dtype, scale: float) -> Case:
    torch.manual_seed(0)
    text, new, count = (max(int(full * scale), 8) for full in (TEXT, motion + 2, positions))
    table = (torch.randn(text + new, WIDTH) * 0.02).requires_grad_()  # a resized table of the peers
    ours_text, ours_motion = (part.detach().clone().requires_grad_() for part in table.split([text, new]))
    states = torch.randn(count, WIDTH)
    labelled = torch.rand(count) < 0.8
    labels = torch.randint(text if motion_rows else 0, text + new, (count,))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    tables = [(ours_motion, None)] if motion_rows else [(ours_text, None), (ours_motion, None)]
    first = text if motion_rows else 0

    def ours() -> Step:
        hidden = states.clone().requires_grad_()
        with autocast:
            loss = linear_cross_entropy(hidden[labelled], tables, labels[labelled] - first).loss
        return Step(loss, list(torch.autograd.grad(loss, [hidden, *(table for table, _ in tables)])))

    def full(rows: slice) -> Step:
        hidden = states.clone().requires_grad_()
        with autocast:
            logits = F.linear(hidden, table[rows])
        loss = F.cross_entropy(logits.float(), (labels - rows.start).masked_fill(~labelled, -100))
        of_hidden, of_table = torch.autograd.grad(loss, [hidden, table])
        return Step(loss, [of_hidden, *(of_table.split([text, new])[motion_rows:])])

    return Case(
        f"head + loss, {TEXT:,} + {motion:,}, {positions:,}{', motion rows' * motion_rows}"
        f"{', bfloat16' * (dtype == torch.bfloat16)}",
        HF, ours, lambda: full(slice(0, text + new)), lambda: full(slice(first, text + new)),
        1e-5 if dtype == torch.float32 else 3e-2,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ a whole step


def language_model_step(scale: float) -> Iterator[Case]:
    """A Llama of 4 layers, width 512, 8,000 + 514 rows; 16 samples of 10-40 text and 12-51 motion ids."""
    torch.manual_seed(0)
    text, width = max(int(8_000 * scale), 64), max(int(512 * scale) // 64, 1) * 64
    llm = MotionLLM(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=text, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
                num_attention_heads=width // 64, max_position_embeddings=1024, tie_word_embeddings=True,
            )
        ),
        514,
    )  # fmt: skip
    parameters = [p for p in llm.parameters() if p.requires_grad]
    lengths = list(zip(torch.randint(10, 41, (16,)).tolist(), torch.randint(12, 52, (16,)).tolist(), strict=True))
    captions = [torch.randint(0, text, (length,)) for length, _ in lengths]
    motions = [torch.randint(text, text + 514, (length,)) for _, length in lengths]
    samples = []
    for caption, motion in zip(captions, motions, strict=True):
        labelled = torch.ones(len(caption) + len(motion), dtype=torch.bool)
        labelled[0] = False
        samples.append(Sample(torch.cat([caption, motion]), labelled))

    def step(loss: Tensor) -> Step:
        return Step(loss.detach(), list(torch.autograd.grad(loss, parameters)))

    def ours() -> Step:
        batch = pack(samples, 256)
        return step(llm.nll(batch.ids, batch.labelled, segments=batch.segments, weights=batch.weights).loss)

    def everywhere(ids: Tensor, real: Tensor) -> Step:
        """Logits and labels of every place; padding is masked in attention and loss."""
        places = (real.long().cumsum(1) - 1).clamp_min(0)
        logits = llm.llm(input_ids=ids, attention_mask=real.long(), position_ids=places, use_cache=False).logits
        labels = [F.pad(ids[row][here][1:], (0, 1), value=-100) for row, here in enumerate(real)]
        targets = torch.full_like(ids, -100)
        targets[real] = torch.cat(labels)  # the next real id, across padding
        return step(F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()))

    def fixed() -> Step:
        ids, real = torch.zeros(16, 512, dtype=torch.int64), torch.zeros(16, 512, dtype=torch.bool)
        for row, parts in enumerate(zip(captions, motions, strict=True)):
            for start, part in zip((0, 256), parts, strict=True):
                ids[row, start : start + len(part)], real[row, start : start + len(part)] = part, True
        return everywhere(ids, real)

    def longest() -> Step:
        real = pad_sequence([torch.ones_like(sample.labelled) for sample in samples], batch_first=True)
        return everywhere(pad_sequence([sample.ids for sample in samples], batch_first=True), real)

    def longest_ours() -> Step:
        labelled = pad_sequence([sample.labelled for sample in samples], batch_first=True)
        return step(llm.nll(pad_sequence([sample.ids for sample in samples], batch_first=True), labelled).loss)

    name = "language-model step, packed"
    for peer, theirs in (
        ("MotionGPT's padding to 256 + 256, rebuilt", fixed),
        (f"padding to the longest, {HF}", longest),
        ("padding to the longest, our loss", longest_ours),
    ):
        yield Case(name, peer, ours, theirs, theirs, 1e-4)


# ------------------------------------------------------------------------------------------ optimizer


def optimizer(scale: float) -> Case:
    torch.manual_seed(0)
    table = torch.randn(max(int((TEXT + 65_538) * scale), 8), WIDTH)
    gradient = torch.randn_like(table)

    def side(fused: bool | None) -> Callable[[], Step]:
        parameter = torch.nn.Parameter(table.clone())
        parameter.grad = gradient
        adam = torch.optim.AdamW([parameter], lr=2e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)

        def step() -> Step:
            adam.step()
            return Step(torch.zeros(()), [parameter.detach()])

        return step

    theirs = side(None)
    return Case(f"AdamW on {TEXT + 65_538:,} x {WIDTH}, fused", "PyTorch's default", side(True), theirs, theirs, 1e-5)


# ------------------------------------------------------------------------------------------ measuring


def measure(case: Case, repeats: int) -> dict:
    """One row: compared once, then the two sides in turn, and the ratio of their median times."""
    mine, my_peak = with_peak(case.ours)
    other, other_peak = with_peak(case.theirs)
    compare(mine, other if case.expected is case.theirs else case.expected(), case.tolerance)
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


def compare(mine: Step, expected: Step, tolerance: float) -> None:
    assert torch.allclose(mine.loss.float(), expected.loss.float(), rtol=tolerance), (mine.loss, expected.loss)
    assert len(mine.gradients) == len(expected.gradients)
    for ours, theirs in zip(mine.gradients, expected.gradients, strict=True):
        error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
        assert error <= tolerance, f"gradients differ by {error:.1e} of their norm"


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
