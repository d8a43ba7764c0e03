"""What a model answers to the clips of a test split: raw features of its own representation, or words.

A draw depends on the seed, the repeat and the clip's id alone, so that an interrupted run goes on with the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lmm.evaluation.scoring import GIVEN
from lmm.llm.base import MotionLanguageModel
from lmm.llm.drawing import Drawing
from lmm.llm.sampler import seed_of
from lmm.llm.tasks import Continuation, InBetween, Task, TaskInput
from lmm.tokenizers.base import MotionTokenizer


class Question(NamedTuple):
    """A clip of the test split, what is asked about it, and the key of the draw."""

    id: str
    text: str
    features: Float[Tensor, "T D"]
    key: str


Answer = Callable[[list[Question]], list[Tensor]]


def reconstructions(tokenizer: MotionTokenizer, questions: list[Question]) -> list[Float[Tensor, "_T D"]]:
    """What is left of each clip when it has been tokens."""
    lengths = torch.tensor([len(question.features) for question in questions])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(tokenizer.device)
    features = torch.nn.utils.rnn.pad_sequence([question.features for question in questions], batch_first=True)
    decoded = tokenizer.decode(tokenizer.encode(features.to(tokenizer.device), mask))
    return [rows[:length] for rows, length in zip(decoded, lengths.tolist(), strict=True)]


def generations(
    llm: MotionLanguageModel, questions: list[Question], drawing: Drawing, *, exact: bool
) -> list[Float[Tensor, "_T D"]]:
    """A motion of each caption, as long as the model likes, or (``exact``) as the clip."""
    fps = llm.motion_tokenizer.representation.fps
    seconds = [len(question.features) / fps if exact else None for question in questions]
    seeds = [seed_of(question.key) for question in questions]
    return llm.sampler.features([question.text for question in questions], seeds, seconds=seconds, drawing=drawing)


def completions(
    llm: MotionLanguageModel, questions: list[Question], drawing: Drawing, *, task: str
) -> list[Float[Tensor, "_T D"]]:
    """Each clip's missing stretch, given the others in whole steps of tokens and no caption.

    Raises:
        ValueError: a clip so short that nothing of it is given.
    """
    kind, (first, last) = {"prediction": Continuation, "in_between": InBetween}[task], GIVEN[task]
    learned: Task = next((each for each in llm.tasks if isinstance(each, kind)), kind())
    tokenizer, clips = llm.motion_tokenizer, []
    for question in questions:
        frames = len(question.features)
        tokens = _tokens(tokenizer, question.features)
        begin = int(first * frames) // tokenizer.downsample
        end = int(last * frames) // tokenizer.downsample
        if not begin or (last and not end):
            raise ValueError(f"{question.id} has {frames} frames: nothing of it is given in whole steps; leave it out")
        seconds = (len(tokens) - begin - end) / llm.vocabulary.spec.steps_per_second
        given = tokens[len(tokens) - end :] if last else None
        clips.append(TaskInput(tokens=tokens[:begin], last=given, seconds=seconds))
    seeds = [seed_of(question.key) for question in questions]
    whole = llm.sampler.completed_features(learned, clips, seeds, drawing=drawing)
    return [rows[: len(question.features)] for rows, question in zip(whole, questions, strict=True)]


def descriptions(llm: MotionLanguageModel, questions: list[Question], drawing: Drawing) -> list[str]:
    """A caption of each clip."""
    tokens = [_tokens(llm.motion_tokenizer, question.features) for question in questions]
    return llm.sampler.captions(tokens, [seed_of(question.key) for question in questions], drawing=drawing)


def _tokens(tokenizer: MotionTokenizer, features: Tensor) -> Tensor:
    mask = torch.ones(1, len(features), dtype=torch.bool, device=tokenizer.device)
    return tokenizer.encode(features[None].to(tokenizer.device), mask)[0].cpu()
