"""BERTScore (Zhang et al. 2020): how alike two sentences are, token by token, in the space of a language model.

Every token is matched with the nearest of the other sentence, by the cosine of their hidden states: precision is the
mean over the generated tokens, recall over the reference's, weighted by idf, -ln of the share of references that have
the token (add-one), so that those which open and close every sentence weigh nothing. Of several references the best
counts, for precision, recall and F1 each. Rescaled: (x - b) / (1 - b), b the score of unrelated sentences.

The defaults are the field's: roberta-large, layer 17, idf, rescaled ("roberta-large_L17_idf-rescaled"). Written here
because torchmetrics 1.9 compares sentences with the wrong ones (Lightning-AI/torchmetrics issue 2728), and bert-score
0.3.13, the last release, of 2023, fails on an empty caption under transformers 5.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

# Precision, recall and F1 of unrelated English sentences, as published with bert-score for this model and layer.
ROBERTA_LARGE_LAYER_17 = (0.83150584, 0.8314941, 0.83122575)


class BERTScore:
    """A model that sentences are compared by.

    Args:
        model: folder of a transformers encoder, or its name on the hub.
        layer: whose hidden states are compared; 0 is the embedding.
        baseline: precision, recall and F1 that become 0, of this model and layer; None does not rescale.
        batch_size: sentences in a batch.
        device: where the model runs.

    Raises:
        ValueError: no such model, or no such layer in it.
    """

    def __init__(
        self,
        model: str = "roberta-large",
        *,
        layer: int = 17,
        baseline: tuple[float, float, float] | None = ROBERTA_LARGE_LAYER_17,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            self.model = AutoModel.from_pretrained(model).eval().to(device)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot load {model} for BERTScore: download it (hf download {model}) and give its folder, or score "
                "captions without BERTScore"
            ) from error
        layers = self.model.config.num_hidden_layers
        if not 0 <= layer <= layers:
            raise ValueError(f"{model} has {layers} layers, there is no layer {layer}")
        self.layer, self.baseline, self.batch_size = layer, baseline, batch_size

    @torch.no_grad()
    def __call__(self, generated: Sequence[str], references: Sequence[Sequence[str]]) -> Float[Tensor, "N 3"]:
        """Precision, recall and F1 of each sentence with its best reference; an empty sentence scores 0 unscaled."""
        targets = [sentence for group in references for sentence in group]
        tokens = {sentence: self._tokens(sentence) for sentence in {*generated, *targets}}
        counts = Counter(token for sentence in targets for token in set(tokens[sentence]))
        states = self._states(tokens)
        weights = {
            sentence: torch.tensor([math.log((len(targets) + 1) / (counts[token] + 1)) for token in tokens[sentence]])
            for sentence in tokens
        }
        scores = torch.stack([
            torch.stack([
                _match(states[sentence], weights[sentence], states[other], weights[other]) for other in group
            ]).amax(0)
            for sentence, group in zip(generated, references, strict=True)
        ])  # fmt: skip
        if self.baseline is None:
            return scores
        baseline = torch.tensor(self.baseline)
        return (scores - baseline) / (1 - baseline)

    def _tokens(self, sentence: str) -> list[int]:
        # A leading blank makes RoBERTa's first word the token that it is inside a sentence; to others it means nothing.
        longest = self.model.config.max_position_embeddings - 2  # RoBERTa's positions begin at 2
        return self.tokenizer(f" {sentence.strip()}", truncation=True, max_length=longest)["input_ids"]

    def _states(self, tokens: dict[str, list[int]]) -> dict[str, Float[Tensor, "L E"]]:
        """Hidden states of each sentence's tokens, of length 1; sentences of like length share a batch."""
        states, ordered = {}, sorted(tokens, key=lambda sentence: len(tokens[sentence]))
        for first in range(0, len(ordered), self.batch_size):
            batch = ordered[first : first + self.batch_size]
            padded = self.tokenizer.pad({"input_ids": [tokens[sentence] for sentence in batch]}, return_tensors="pt")
            hidden = self.model(**padded.to(self.model.device), output_hidden_states=True).hidden_states[self.layer]
            hidden = torch.nn.functional.normalize(hidden.float(), dim=-1).cpu()
            for sentence, row in zip(batch, hidden, strict=True):
                states[sentence] = row[: len(tokens[sentence])].clone()
        return states


def _match(
    generated: Float[Tensor, "L E"],
    generated_weights: Float[Tensor, " L"],
    reference: Float[Tensor, "M E"],
    reference_weights: Float[Tensor, " M"],
) -> Float[Tensor, "3"]:
    """Precision, recall and F1; 0 where all weights of a side are 0, as those of a sentence without words."""
    if generated_weights.sum() == 0 or reference_weights.sum() == 0:
        return torch.zeros(3)
    cosine = generated @ reference.mT
    precision = (cosine.amax(1) * generated_weights).sum() / generated_weights.sum()
    recall = (cosine.amax(0) * reference_weights).sum() / reference_weights.sum()
    total = precision + recall
    return torch.stack([precision, recall, torch.where(total != 0, 2 * precision * recall / total, 0.0)])
