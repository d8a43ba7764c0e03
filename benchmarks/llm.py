"""Speed of sampling motions from a language model, ours against the ways the field does it.

    python benchmarks/llm.py [--quick] [--json FILE] [--layers N] [--width N] [--repeats N]

Both sides have the same weights, are given the same prompts and choose the likeliest motion id at each step. Peers:
transformers' own ``generate`` on a model whose tables are resized and whose logits are masked to the motion ids; and
T2M-GPT's and MotionMillion's sampler, which reads the whole prefix anew at each id and makes one motion at a time. Ours
is `lmm.llm.generation.generate` after `lmm.llm.packed.pack`. The two sides run in one process on one thread and take
turns (A B A B ...); times are medians of CPU time. Before any timing, in the run whose peak memory is taken, the ids
are compared: they are equal in float32. The rows of `llm_training.py`
follow.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from llm_training import rows as training_rows
from quantizers import with_peak
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from lmm.batch import TokenSpec
from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate
from lmm.llm.packed import pack
from lmm.llm.vocabulary import MotionVocabulary

TEXT = 32_000  # rows of the base vocabulary
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GENERATE, WHOLE_PREFIX = "transformers.generate", "whole prefix at each id, one motion at a time, rebuilt"


class Case(NamedTuple):
    """``equal`` is the share of ids that must agree; a side is run for all motions, ``share`` of them by the peer."""

    name: str
    peer: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    equal: float
    share: float = 1.0


class Pair(NamedTuple):
    """One model twice: with its tables split and packed, and resized."""

    ours: MotionLLM
    theirs: PreTrainedModel
    vocabulary: MotionVocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases and repeats: under 5 minutes")
    parser.add_argument("--json", type=Path, help="write the rows, a list of dictionaries, to this file")
    parser.add_argument("--layers", type=int, help="of all models (default 12 of the Llama and 18 of T2M-GPT)")
    parser.add_argument("--width", type=int, help="of all models (default 768 and 1024)")
    parser.add_argument("--scale", type=float, default=1.0, help="of `llm_training.py`'s rows and positions")
    parser.add_argument("--repeats", type=int, help="turns of either side (default 7, quick 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    repeats = arguments.repeats or (1 if arguments.quick else 7)
    print(
        f"{torch.get_num_threads()} thread of torch {torch.__version__}, {repeats} turns each, medians; "
        f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    )
    rows: list[dict[str, object]] = []
    for case in cases(arguments.quick, arguments.layers, arguments.width):
        rows.append(measure(case, repeats))
        show(rows[-1])
    with torch.enable_grad():
        rows += training_rows(arguments.quick, scale=arguments.scale, repeats=arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def show(row: dict[str, object]) -> None:
    print(f"{row['name']:<52} ours {row['ours_s']:8.3f} s {row['peak_mb'] or 0:6.0f} MB", end="  ")
    print(f"peer {row['peer_s']:8.3f} s  {row['ratio']:6.2f}x  ({row['peer']})", flush=True)


def cases(quick: bool, layers: int | None, width: int | None) -> Iterator[Case]:
    """All comparisons; weights of one model at a time are in memory."""
    codes_of = (512,) if layers else (65_536, 512)
    for codes in codes_of[:1] if quick else codes_of:
        float32 = llama(codes, torch.float32, layers or 12, width or 768)
        bfloat16 = llama(codes, torch.bfloat16, layers or 12, width or 768)
        for batch, num in ((1, 64), (8, 32)) if quick else ((1, 64), (8, 32), (32, 24)):
            prompts = torch.randint(3, TEXT, (batch, 50), generator=torch.Generator().manual_seed(1))
            prompts[:, -1] = float32.vocabulary.start
            name = f"{num} ids, 32k+{codes:,} rows, batch {batch}"
            theirs = hugging_face(float32, prompts, num)
            yield Case(f"{name}, float32", GENERATE, own(float32, prompts, num), theirs, 1.0)
            ours = own(bfloat16, prompts, num)
            yield Case(f"{name}, bfloat16", f"{GENERATE} in float32", ours, theirs, 0.0)
            if not quick:
                yield Case(f"{name}, bfloat16", GENERATE, ours, hugging_face(bfloat16, prompts, num), 0.0)
        del float32, bfloat16
    pair = t2m_gpt(layers or 18, width or 1024)
    for batch in (1, 32):
        prompts = torch.tensor([[3 + row % 8, pair.vocabulary.start] for row in range(batch)])
        theirs = whole_prefix(pair, prompts[:1], 50)
        yield Case(
            f"motions of 50 ids, T2M-GPT's size, batch {batch}",
            WHOLE_PREFIX,
            own(pair, prompts, 50),
            theirs,
            1.0,
            1 / batch,
        )


def llama(codes: int, dtype: torch.dtype, layers: int, width: int) -> Pair:
    """85 million parameters between the tables, by default."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TEXT, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 16 if width < 64 else width // 64, tie_word_embeddings=False, **IDS,
    )  # fmt: skip
    return pair(LlamaForCausalLM, config, codes, dtype)


def t2m_gpt(layers: int, width: int) -> Pair:
    """T2M-GPT's transformer: 228 million parameters; its condition is one vector, here one text id and ``<mot>``."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=16, n_embd=width, n_layer=layers, n_head=16 if width >= 64 else 2, n_positions=64, **IDS,
        tie_word_embeddings=False,
    )  # fmt: skip
    return pair(GPT2LMHeadModel, config, 512, torch.float32)


def pair(kind: type[PreTrainedModel], config: LlamaConfig | GPT2Config, codes: int, dtype: torch.dtype) -> Pair:
    base = kind(config).eval().to(dtype)
    # as they are drawn, all ids look alike to the model, and it says one id for ever
    base.get_input_embeddings().weight.normal_()
    vocabulary = MotionVocabulary(config.vocab_size, TokenSpec(codes, 1, 1, 4, 20.0, "none", ""))
    resized = type(config)(**{**config.to_dict(), "vocab_size": vocabulary.size})
    theirs = kind(resized).eval().to(dtype)
    state = {name: value for name, value in base.state_dict().items() if value.shape == theirs.state_dict()[name].shape}
    theirs.load_state_dict(state, strict=False)
    ours = MotionLLM(base, vocabulary.num_new).to(dtype)
    for mine, other in (
        (base.get_input_embeddings(), theirs.get_input_embeddings()),
        (base.get_output_embeddings(), theirs.get_output_embeddings()),
    ):
        other.weight.copy_(torch.cat([mine.base.weight, mine.motion]))
    pack(ours)
    both = Pair(ours, theirs, vocabulary)
    own(both, torch.tensor([[3, vocabulary.start]]), 2)()  # lays out what is laid out at first use
    return both


def own(pair: Pair, prompts: Tensor, num: int) -> Callable[[], Tensor]:
    count = len(prompts)

    def side() -> Tensor:
        motions = generate(
            pair.ours, pair.vocabulary, prompts=list(prompts), min_steps=[num] * count, max_steps=[num] * count,
            seeds=[0] * count, temperature=0.0,
        )  # fmt: skip
        return torch.stack(motions)[..., 0]

    return side


class MotionIds(LogitsProcessor):
    """Lets motion codes pass."""

    def __init__(self, vocabulary: MotionVocabulary) -> None:
        self.mask = torch.full((vocabulary.size,), -torch.inf)
        self.mask[vocabulary.end + 1 :] = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + self.mask


def hugging_face(pair: Pair, prompts: Tensor, num: int) -> Callable[[], Tensor]:
    processors, first = LogitsProcessorList([MotionIds(pair.vocabulary)]), pair.vocabulary.end + 1

    def side() -> Tensor:
        ids = pair.theirs.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=num, min_new_tokens=num, do_sample=False,
            logits_processor=processors,
        )  # fmt: skip
        return ids[:, prompts.shape[1] :] - first

    return side


def whole_prefix(pair: Pair, prompt: Tensor, num: int) -> Callable[[], Tensor]:
    first = pair.vocabulary.end + 1

    def side() -> Tensor:
        ids = prompt
        for _ in range(num):
            logits = pair.theirs(ids, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:, first:].argmax(-1) + first], dim=1)
        return ids[:, prompt.shape[1] :] - first

    return side


def measure(case: Case, repeats: int) -> dict[str, object]:
    """One row: compared once, then the two sides in turn, and the ratio of their median times for a motion."""
    (mine, my_peak), (other, other_peak) = with_peak(case.ours), with_peak(case.theirs)  # type: ignore[arg-type]
    agreement = (mine[: len(other)] == other).float().mean()
    assert agreement >= case.equal, f"{case.name}: only {agreement:.1%} of the ids agree with {case.peer}"
    times: dict[Callable[[], Tensor], list[float]] = {case.ours: [], case.theirs: []}
    for _ in range(repeats):
        for side, seconds in times.items():
            start = time.process_time()
            side()
            seconds.append(time.process_time() - start)
    ours, theirs = (statistics.median(seconds) for seconds in times.values())
    ours *= case.share
    return {
        "name": case.name, "peer": case.peer, "ours_s": ours, "peer_s": theirs, "ratio": theirs / ours,
        "peak_mb": my_peak, "peer_peak_mb": other_peak,
    }  # fmt: skip


if __name__ == "__main__":
    main()
