"""Text and motion as one sequence of ids: instruction templates, and which ids the loss looks at.

A sample is ``[bos] instruction with the caption <mot> codes </mot>``. Training draws the template from (seed, epoch,
clip) alone, so a resumed run draws the same; inference uses the first template. Text goes through the language model's
own tokenizer and motion ids come from `MotionVocabulary` only, so no caption can spell a motion.
The loss covers the text as well by default: arXiv 2410.03311 finds that better than masking the description.
"""

import random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lmm.llm.vocabulary import MotionVocabulary

# The first of each is what inference uses.
TEXT_TO_MOTION = (
    "Generate a motion: {caption}",
    "{caption}",
    "Motion: {caption}",
    "Show me the motion of this: {caption}",
    "Make the body move like this: {caption}",
    "Create a human motion that matches the description. {caption}",
    "Turn this sentence into movement: {caption}",
    "Act this out: {caption}",
    "Description: {caption} Motion:",
    "What does this look like as a movement? {caption}",
    "Animate the following: {caption}",
    "I need an animation in which {caption}",
    "Write the motion for: {caption}",
    "Given the text, answer with a motion. Text: {caption}",
    "Please perform: {caption}",
    "Imagine the scene and move accordingly. {caption}",
    "The character should do this: {caption}",
    "Translate into motion: {caption}",
    "Could you demonstrate this? {caption}",
    "Instruction: {caption} Answer:",
)
UNCONDITIONAL = (
    "Generate a motion.",
    "Show me any motion.",
    "Move as you like.",
    "Make up a human movement.",
)


class Sample(NamedTuple):
    """One sequence; ``labelled`` is True on the ids that the loss asks the model to predict."""

    ids: Int[Tensor, " S"]
    labelled: Bool[Tensor, " S"]


class Prompts:
    """Builds the sequences of ids that the language model reads.

    Args:
        tokenizer: the language model's text tokenizer.
        vocabulary: the motion ids.
        loss_on_text: also learn to predict the instruction; False asks for motion ids alone.
        unconditional: fraction of training samples that lose their caption.
        seed: seed of the draws.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: MotionVocabulary,
        *,
        loss_on_text: bool = True,
        unconditional: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= unconditional <= 1:
            raise ValueError(f"unconditional is a fraction of the samples, got {unconditional}")
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.loss_on_text = loss_on_text
        self.unconditional = unconditional
        self.seed = seed

    def prompt(self, caption: str) -> Int[Tensor, " s"]:
        """Ids that ask for a motion, up to and with ``<mot>``; an empty caption asks for any motion."""
        return torch.tensor([*self._text_ids(self._instruction(caption, None)), self.vocabulary.start])

    def sample(self, caption: str, tokens: Int[Tensor, "t K"], key: str | None) -> Sample:
        """Ids of one pair of caption and motion.

        Args:
            caption: what the motion shows.
            tokens: the motion, without padding.
            key: what the draw of the template depends on, such as the epoch and the clip's id; None draws nothing and
                takes the template of inference.
        """
        text = torch.tensor(self._text_ids(self._instruction(caption, key)), dtype=torch.int64)
        ids = torch.cat([text, self.vocabulary.tokens_to_ids(tokens.cpu())])
        labelled = torch.full(ids.shape, self.loss_on_text)
        labelled[0] = False  # nothing comes before it
        labelled[len(text) + 1 :] = True  # codes and </mot>; <mot> is given at generation
        return Sample(ids, labelled)

    def _instruction(self, caption: str, key: str | None) -> str:
        draw = None if key is None else random.Random(f"{self.seed}/{key}")
        if draw is not None and draw.random() < self.unconditional:
            caption = ""
        templates = TEXT_TO_MOTION if caption.strip() else UNCONDITIONAL
        template = templates[0] if draw is None else draw.choice(templates)
        return template.replace("{caption}", caption.strip())

    def _text_ids(self, text: str) -> list[int]:
        # split_special_tokens: a caption that spells "</s>" is text, not the marker
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        bos = self.tokenizer.bos_token_id
        ids = ids if bos is None else [bos, *ids]
        if max(ids) >= self.vocabulary.base_size:
            raise ValueError(f"the text tokenizer makes ids that the language model lacks ({max(ids)}); check backbone")
        return ids
