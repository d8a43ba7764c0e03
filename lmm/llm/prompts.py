"""Text and motion as one sequence of ids: tasks in words, and which ids the loss looks at.

A sample is ``[bos] instruction answer``, each of text and motion (`lmm.llm.tasks`). A motion is ``<mot> codes </mot>``;
an answer in words ends with the text tokenizer's end of sequence. Training draws task, cuts and template from
(seed, epoch, clip) alone, so a resumed run draws the same; inference uses the first template that can be filled. Text
goes through the language model's own tokenizer and motion ids come from `MotionVocabulary` only, so no caption can
spell a motion.

Labelled are the answer and, unless ``loss_on_text`` is off, the text of the instruction: arXiv 2410.03311 finds that
better than masking the description. Motion that is given, not asked for, is never labelled, markers included; nor is
the first id, which nothing comes before. The ``<mot>`` of an answer counts as text: generation is given it.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lmm.llm.tasks import DurationConditioned, Task, TaskInput, TextToMotion
from lmm.llm.tasks.base import fillable, lacking
from lmm.llm.tasks.template import DURATIONS, Piece, Template, Values, fill
from lmm.llm.vocabulary import MotionVocabulary

# The first of each is what inference uses.
TEXT_TO_MOTION = tuple(t.instruction for t in TextToMotion().wordings(frozenset({"caption"})))
UNCONDITIONAL = tuple(t.instruction for t in TextToMotion().wordings(frozenset()))


class Sample(NamedTuple):
    """One sequence.

    Args:
        ids: what the model reads.
        labelled: True on the ids that the loss asks the model to predict.
        weight: of the sample's ids in the loss.
        labels: what is to be predicted at each place, where that is not what is read there (``replace_tokens``).
    """

    ids: Int[Tensor, " S"]
    labelled: Bool[Tensor, " S"]
    weight: float = 1.0
    labels: Int[Tensor, " S"] | None = None


class Prompts:
    """Builds the sequences of ids that the language model reads.

    Args:
        tokenizer: the language model's text tokenizer.
        vocabulary: the motion ids.
        tasks: what is trained; each sample is one of those that its clip serves.
        loss_on_text: also learn to predict the instruction; False asks for answers alone.
        unconditional: fraction of the samples of `TextToMotion` that lose their caption.
        drop_tokens: probability with which a training sample leaves out a time step of a motion. The first step stays,
            and what follows a gap is no label, so that gaps are read and never learned. Motions whose duration the
            template says, and parts of a body, which must keep step with the others, stay whole.
        replace_tokens: probability with which a code that a training sample reads is a random one (T2M-GPT, Zhang et
            al. 2023); the true one stays the label.
        seed: seed of the draws.

    Raises:
        ValueError: a fraction outside its range, no task, or a task that the motion tokens do not serve.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: MotionVocabulary,
        *,
        tasks: Sequence[Task] = (TextToMotion(),),
        loss_on_text: bool = True,
        unconditional: float = 0.0,
        drop_tokens: float = 0.0,
        replace_tokens: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= unconditional <= 1:
            raise ValueError(f"unconditional is a fraction of the samples, got {unconditional}")
        for name, rate in {"drop_tokens": drop_tokens, "replace_tokens": replace_tokens}.items():
            if not 0 <= rate < 1:
                raise ValueError(f"{name} is a probability below 1, got {rate}")
        if not tasks:
            raise ValueError("tasks must name at least one task")
        if unconditional and not any(task.loses_caption for task in tasks):
            raise ValueError("unconditional is about TextToMotion, which is not among the tasks; add it or set 0")
        for task in tasks:
            task.check(vocabulary.spec)
            task.wordings(frozenset({"caption"}))  # a template file that is not sound is refused now
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.tasks = tuple(tasks)
        self.loss_on_text = loss_on_text
        self.unconditional = unconditional
        self.drop_tokens = drop_tokens
        self.replace_tokens = replace_tokens
        self.seed = seed

    def prompt(self, caption: str, *, seconds: float | None = None) -> Int[Tensor, " s"]:
        """Ids that ask for a motion, up to and with ``<mot>``; an empty caption asks for any motion.

        Args:
            caption: what the motion is to show.
            seconds: its duration, said where `DurationConditioned` is among the tasks and there is a caption; other
                models have not learned such words, and only generation can hold them to a length.
        """
        kind = TextToMotion if seconds is None or not caption.strip() else DurationConditioned
        task = next((task for task in self.tasks if isinstance(task, kind)), None)
        task = task or next((task for task in self.tasks if isinstance(task, TextToMotion)), TextToMotion())
        return self.ask(task, TaskInput(caption, seconds=seconds))[0]

    def ask(self, task: Task, clip: TaskInput) -> tuple[Int[Tensor, " s"], tuple[int, ...] | None]:
        """What asks for one task at inference.

        Args:
            task: need not be among those that are trained.
            clip: what is known.

        Returns:
            The ids, up to and with ``<mot>`` where the answer is a motion and to the end of the instruction where it is
            words; and the slots of each step that the answer holds, None for all (or words).

        Raises:
            ValueError: the clip lacks what every template of the task needs.
        """
        task.check(self.vocabulary.spec)
        values = task.question(clip._replace(caption=clip.caption.strip()), self.vocabulary.spec)
        templates = fillable(task, frozenset(values))
        if not templates:
            raise ValueError(lacking(task, frozenset(values)))
        template = templates[0]
        line, answer = self._instruct(template, values, None), fill(template.answer, values)
        for part in answer:
            if isinstance(part, Piece):
                return torch.tensor([*line.ids, self.vocabulary.start]), part.slots
            if isinstance(answer[-1], Piece):
                line.add(self._answer_ids(template, part), True)
        return torch.tensor(line.ids), None

    def sample(
        self,
        caption: str,
        tokens: Int[Tensor, "t K"],
        key: str | None,
        *,
        details: Mapping[str, str] | None = None,
    ) -> Sample:
        """Ids of one clip in one task.

        Args:
            caption: what the motion shows; empty if nobody said.
            tokens: the motion, without padding.
            key: what the draws depend on, such as the epoch and the clip's id; None draws nothing and takes the first
                task that the clip serves, and the template of inference.
            details: texts about the body and its parts by name.

        Raises:
            ValueError: the clip serves none of the tasks.
        """
        clip = TaskInput(caption.strip(), tokens.cpu(), details)
        draw = None if key is None else random.Random(f"{self.seed}/{key}")
        lost = draw is not None and draw.random() < self.unconditional
        able = [task for task in self.tasks if fillable(task, task.offers(clip))]
        if not able:
            reasons = "; ".join(lacking(task, task.offers(clip)) for task in self.tasks)
            raise ValueError(
                f"a clip of {len(tokens)} steps with caption {caption!r} serves no task: {reasons}; add a task that "
                "needs less, such as Unconditional, or leave such clips out of the data"
            )
        task = able[0]
        if draw is not None and len(able) > 1:
            task = draw.choices(able, [each.weight for each in able])[0]
        if lost and task.loses_caption:
            clip = clip._replace(caption="")
        values = task.example(clip, self.vocabulary.spec, draw)
        templates = fillable(task, task.offers(clip))
        template = templates[0] if draw is None else draw.choice(templates)
        return self._sample(template, values, draw, task.loss_weight)

    def _sample(self, template: Template, values: Values, draw: random.Random | None, weight: float) -> Sample:
        line = self._instruct(template, values, draw)
        answer = fill(template.answer, values)
        for part in answer:
            if isinstance(part, Piece):
                self._move(line, part, draw, asked=True, timed=bool(template.names & DURATIONS))
            else:
                line.add(self._answer_ids(template, part), True)
        if not isinstance(answer[-1], Piece):
            if self.tokenizer.eos_token_id is None:
                raise ValueError("the text tokenizer has no end of sequence, so answers in words have no end")
            line.add(self._checked([self.tokenizer.eos_token_id]), True)
        line.labelled[0] = False  # nothing comes before it
        labels = None if line.labels == line.ids else torch.tensor(line.labels)
        return Sample(torch.tensor(line.ids), torch.tensor(line.labelled), weight, labels)

    def _instruct(self, template: Template, values: Values, draw: random.Random | None) -> "_Line":
        line = _Line()
        if self.tokenizer.bos_token_id is not None:
            line.add([self.tokenizer.bos_token_id], False)
        for part in fill(template.instruction, values):
            if isinstance(part, Piece):
                self._move(line, part, draw, asked=False, timed=bool(template.names & DURATIONS))
            else:
                line.add(self._text_ids(part), self.loss_on_text)
        return line

    def _move(self, line: "_Line", piece: Piece, draw: random.Random | None, *, asked: bool, timed: bool) -> None:
        """Add a motion, disturbed where something is drawn."""
        steps, slots = list(range(len(piece.tokens))), piece.slots
        if draw is not None and self.drop_tokens and slots is None and not timed:
            steps = [step for step in steps if step == 0 or draw.random() >= self.drop_tokens]
        true = piece.tokens if len(steps) == len(piece.tokens) else piece.tokens[steps]
        ids = labels = self.vocabulary.tokens_to_ids(true, slots=slots).tolist()
        if draw is not None and self.replace_tokens:
            codes = [
                draw.randrange(self.vocabulary.spec.codebook_size) if draw.random() < self.replace_tokens else code
                for code in true.flatten().tolist()
            ]
            ids = self.vocabulary.tokens_to_ids(torch.tensor(codes).view(true.shape), slots=slots).tolist()
        labelled = [asked and self.loss_on_text] + [asked] * (len(labels) - 1)
        # the step that follows a gap is not what follows in truth, and nor is the end of a motion that lost its end
        ends = [*steps, len(piece.tokens)]
        for place in range(1, len(ends)):
            if ends[place] != ends[place - 1] + 1:
                labelled[1 + place * true.shape[1]] = False
        line.ids += ids
        line.labels += labels
        line.labelled += labelled

    def _answer_ids(self, template: Template, text: str) -> list[int]:
        # apart from the instruction, which must have its ids alone, and after a space, as words are in a sentence
        return self._text_ids(f" {text}" if template.instruction else text)

    def _text_ids(self, text: str) -> list[int]:
        # split_special_tokens: a caption that spells "</s>" is text, not the marker
        return self._checked(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _checked(self, ids: list[int]) -> list[int]:
        if max(ids, default=0) >= self.vocabulary.base_size:
            raise ValueError(f"the text tokenizer makes ids that the language model lacks ({max(ids)}); check backbone")
        return ids


class _Line:
    """A sequence that is being written."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.labelled: list[bool] = []

    def add(self, ids: list[int], labelled: bool) -> None:
        """Text, which is read and predicted alike."""
        self.ids += ids
        self.labels += ids
        self.labelled += [labelled] * len(ids)
