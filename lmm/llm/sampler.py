"""What a trained model makes: motions from text, as a whole or as they come, captions, and motions completed.

The parts meet here: `Prompts` words the question, `generate` answers in codes, the motion tokenizer turns them into
features and their representation into a `Motion`.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lmm.llm.drawing import Drawing
from lmm.llm.embedding import MotionLLM
from lmm.llm.generation import generate, generate_text, stream
from lmm.llm.prompts import Prompts
from lmm.llm.streaming import MotionStream, to_motion
from lmm.llm.tasks import Continuation, InBetween, MotionToText, PartCompletion, Task, TaskInput
from lmm.llm.tasks.base import fillable
from lmm.llm.vocabulary import MotionVocabulary
from lmm.motion.motion import Motion
from lmm.tokenizers.base import MotionTokenizer

SHORTEST, LONGEST = 1.0, 9.8  # seconds of a motion whose duration nobody asked for (HumanML3D has up to 196 frames)
LIKELIEST = Drawing(temperature=0.0)


class MotionSampler:
    """Everything a language model of motion can be asked for.

    Args:
        llm: the language model.
        vocabulary: its motion ids.
        prompts: words the questions.
        motion_tokenizer: of the motion ids.
    """

    def __init__(
        self, llm: MotionLLM, vocabulary: MotionVocabulary, prompts: Prompts, motion_tokenizer: MotionTokenizer
    ) -> None:
        self.llm, self.vocabulary, self.prompts, self.motion_tokenizer = llm, vocabulary, prompts, motion_tokenizer

    def text_to_motion(
        self,
        texts: list[str],
        *,
        seconds: float | None = None,
        num_samples: int = 1,
        seed: int = 0,
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
        batch_size: int = 32,
    ) -> list[list[Motion]]:
        """Motions of captions (an empty one asks for any motion).

        Args:
            texts: the captions.
            seconds: exact duration; None lets the model choose one between 1 and 9.8 seconds.
            num_samples: motions of each caption.
            seed: a motion depends on this, its caption and its number among that caption's, not on the other captions.
            drawing: temperature, top-k, top-p and guidance.
            batch_size: motions sampled at a time.
        """
        made: Counter[str] = Counter()
        queries: list[tuple[str, int]] = []
        for text in texts:
            for _ in range(num_samples):
                queries.append((text, seed_of(f"{seed}/{text}/{made[text]}")))
                made[text] += 1
        motions: list[Motion] = []
        for start in range(0, len(queries), batch_size):
            captions, seeds = zip(*queries[start : start + batch_size], strict=True)
            motions += self.motions(list(captions), list(seeds), seconds=seconds, drawing=drawing)
        return [motions[i * num_samples : (i + 1) * num_samples] for i in range(len(texts))]

    def motions(
        self,
        texts: list[str],
        seeds: list[int],
        *,
        seconds: float | None = None,
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
    ) -> list[Motion]:
        """One motion of each caption and seed, sampled together; arguments as `text_to_motion`."""
        features = self.features(texts, seeds, seconds=[seconds] * len(texts), drawing=drawing)
        return [to_motion(self.motion_tokenizer, each) for each in features]

    @torch.no_grad()
    def features(
        self,
        texts: list[str],
        seeds: list[int],
        *,
        seconds: Sequence[float | None],
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
    ) -> list[Float[Tensor, "_T D"]]:
        """Raw features of one motion of each caption, seed and duration, sampled together."""
        bounds = [self._bounds(each) for each in seconds]
        with _evaluating(self.llm):
            grids = generate(
                self.llm,
                self.vocabulary,
                prompts=[self.prompts.prompt(text, seconds=each) for text, each in zip(texts, seconds, strict=True)],
                min_steps=[fewest for fewest, _, _ in bounds],
                max_steps=[most for _, most, _ in bounds],
                seeds=seeds,
                unguided=[self.prompts.prompt("", seconds=each) for each in seconds],
                **drawing._asdict(),
            )
        return self._decode(grids, [frames for _, _, frames in bounds])

    def stream(
        self,
        text: str,
        *,
        seconds: float | None = None,
        seed: int = 0,
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
    ) -> MotionStream:
        """The first motion that `text_to_motion` makes of a caption, in pieces as its tokens come.

        Iterate over the result; while it runs the model must not be trained.

        Raises:
            ValueError: the motion tokenizer's decoder looks ahead, so that a frame is only known with later tokens.
        """
        fewest, most, frames = self._bounds(seconds)
        steps = stream(
            self.llm,
            self.vocabulary,
            prompt=self.prompts.prompt(text, seconds=seconds),
            min_steps=fewest,
            max_steps=most,
            seed=seed_of(f"{seed}/{text}/0"),
            unguided=self.prompts.prompt("", seconds=seconds),
            **drawing._asdict(),
        )
        return MotionStream(self.motion_tokenizer, _evaluated(self.llm, steps), frames=frames)

    def describe(
        self, motions: list[Motion], *, max_ids: int = 64, seed: int = 0, drawing: Drawing = LIKELIEST
    ) -> list[str]:
        """Captions of motions.

        Args:
            motions: on the skeleton and at the frame rate of the motion tokenizer's representation.
            max_ids: longest caption in ids of the text tokenizer.
            seed: of the draws, where ``drawing`` is not the likeliest caption (its guidance has no effect).
            drawing: temperature, top-k and top-p.

        Raises:
            ValueError: a motion that the representation is not defined for, or a text tokenizer without an end.
        """
        seeds = [seed_of(f"{seed}/{number}") for number in range(len(motions))]
        return self.captions([self.tokens(motion) for motion in motions], seeds, max_ids=max_ids, drawing=drawing)

    @torch.no_grad()
    def captions(
        self, tokens: list[Int[Tensor, "_t K"]], seeds: list[int], *, max_ids: int = 64, drawing: Drawing = LIKELIEST
    ) -> list[str]:
        """Captions of motions that are tokens already, with a seed of each motion's own; see `describe`."""
        eos = self.prompts.tokenizer.eos_token_id
        if eos is None:
            raise ValueError("the text tokenizer has no end of sequence, so a caption would never end")
        task = next((task for task in self.prompts.tasks if isinstance(task, MotionToText)), MotionToText())
        asked = [self.prompts.ask(task, TaskInput(tokens=each))[0] for each in tokens]
        with _evaluating(self.llm):
            answers = generate_text(
                self.llm,
                self.vocabulary,
                asked,
                max_ids=max_ids,
                eos=eos,
                seeds=seeds,
                temperature=drawing.temperature,
                top_k=drawing.top_k,
                top_p=drawing.top_p,
            )
        captions = self.prompts.tokenizer.batch_decode([a.tolist() for a in answers], skip_special_tokens=True)
        return [caption.strip() for caption in captions]

    def complete(
        self,
        task: Task,
        clips: list[TaskInput],
        *,
        seed: int = 0,
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
    ) -> list[Motion]:
        """Whole motions: what the clips give, and what the model adds to it.

        Args:
            task: `Continuation` (``tokens`` are the beginning), `InBetween` (``tokens`` and ``last`` are the ends) or
                `PartCompletion` (``parts`` of ``tokens`` are given, the others made anew).
            clips: see `TaskInput`; `tokens` encodes a motion. ``seconds`` is the duration of what is missing, in whole
                steps of the tokenizer; None lets the model choose one.
            seed: of the draws; a motion depends on this and its place among the clips.
            drawing: temperature, top-k, top-p and guidance.

        Raises:
            ValueError: a clip that lacks what the task needs, or another task.
        """
        seeds = [seed_of(f"{seed}/{row}") for row in range(len(clips))]
        features = self.completed_features(task, clips, seeds, drawing=drawing)
        return [to_motion(self.motion_tokenizer, each) for each in features]

    @torch.no_grad()
    def completed_features(
        self,
        task: Task,
        clips: list[TaskInput],
        seeds: list[int],
        *,
        drawing: Drawing = Drawing(),  # noqa: B008 - immutable
    ) -> list[Float[Tensor, "_T D"]]:
        """Raw features of what `complete` makes, with a seed of each clip's own."""
        if not isinstance(task, Continuation | InBetween | PartCompletion):
            raise ValueError(f"{type(task).__name__} completes nothing; use Continuation, InBetween or PartCompletion")
        questions = [self.prompts.ask(task, clip) for clip in clips]
        bounds = [self._missing(task, clip, slots) for clip, (_, slots) in zip(clips, questions, strict=True)]
        whole: dict[int, Tensor] = {}
        for slots in {slots for _, slots in questions}:  # clips that lack the same parts share a batch
            rows = [row for row, (_, its) in enumerate(questions) if its == slots]
            with _evaluating(self.llm):
                answers = generate(
                    self.llm,
                    self.vocabulary,
                    prompts=[questions[row][0] for row in rows],
                    min_steps=[bounds[row][0] for row in rows],
                    max_steps=[bounds[row][1] for row in rows],
                    seeds=[seeds[row] for row in rows],
                    slots=slots,
                    unguided=[self.prompts.ask(task, clips[row]._replace(caption=""))[0] for row in rows],
                    **drawing._asdict(),
                )
            whole |= {row: self._join(task, clips[row], a, slots) for row, a in zip(rows, answers, strict=True)}
        return self._decode([whole[row] for row in range(len(clips))], [None] * len(clips))

    @torch.no_grad()
    def tokens(self, motion: Motion) -> Int[Tensor, "t K"]:
        """Tokens of a motion, on the CPU.

        Raises:
            ValueError: a motion that the representation is not defined for.
        """
        tokenizer = self.motion_tokenizer
        features = tokenizer.representation.encode(motion).to(tokenizer.device)[None]
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return tokenizer.encode(features, mask)[0].cpu()

    def _bounds(self, seconds: float | None) -> tuple[int, int, int | None]:
        """Fewest and most steps of a motion, and its frames if they are asked for."""
        spec = self.vocabulary.spec
        if seconds is None:
            return math.ceil(SHORTEST * spec.steps_per_second), math.floor(LONGEST * spec.steps_per_second), None
        frames = round(seconds * spec.fps)
        if frames < 1:
            raise ValueError(f"{seconds} seconds are less than a frame at {spec.fps:g} frames a second")
        steps = -(-frames // spec.downsample)
        return steps, steps, frames

    def _missing(self, task: Task, clip: TaskInput, slots: tuple[int, ...] | None) -> tuple[int, int]:
        """Fewest and most steps of the answer."""
        first, last = _given(clip)
        if slots is not None:  # other parts of the same steps
            return len(first), len(first)
        fewest, most, _ = self._bounds(clip.seconds)
        again = len(first) + len(last) if self._answers_whole(task, clip) else 0
        return fewest + again, most + again

    def _join(self, task: Task, clip: TaskInput, answer: Tensor, slots: tuple[int, ...] | None) -> Int[Tensor, "t K"]:
        """What is given stays as it is, whatever the model says in its place."""
        first, last = _given(clip)
        answer = answer.to(first.device)
        if slots is not None:
            return first.index_copy(1, torch.tensor(slots, device=first.device), answer)
        if self._answers_whole(task, clip):
            answer = answer[len(first) : len(answer) - len(last)]
        return torch.cat([first, answer, last])

    def _answers_whole(self, task: Task, clip: TaskInput) -> bool:
        """Whether the words of inference ask for the whole motion, with what is given once more."""
        return "{motion}" in fillable(task, frozenset(task.question(clip, self.vocabulary.spec)))[0].answer

    def _decode(self, grids: list[Tensor], frames: Sequence[int | None]) -> list[Tensor]:
        tokenizer = self.motion_tokenizer
        tokens = pad_sequence(grids, batch_first=True, padding_value=-1).to(tokenizer.device)
        lengths = [len(grid) * tokenizer.downsample if n is None else n for grid, n in zip(grids, frames, strict=True)]
        return [rows[:length] for rows, length in zip(tokenizer.decode(tokens), lengths, strict=True)]


def seed_of(key: str) -> int:
    """A seed from a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")


def _given(clip: TaskInput) -> tuple[Int[Tensor, "t K"], Int[Tensor, "t_last K"]]:
    assert clip.tokens is not None  # `Prompts.ask` refuses a clip without
    return clip.tokens, clip.tokens[:0] if clip.last is None else clip.last


@contextmanager
def _evaluating(llm: MotionLLM) -> Iterator[None]:
    """The model in eval mode for a while."""
    was_training = llm.training
    llm.eval()
    try:
        yield
    finally:
        llm.train(was_training)


def _evaluated(llm: MotionLLM, steps: Iterator[Tensor]) -> Iterator[Tensor]:
    with _evaluating(llm):
        yield from steps
