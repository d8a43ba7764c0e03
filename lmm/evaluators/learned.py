"""An evaluator of our own training, read from its checkpoint and frozen."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmm.evaluators.base import Evaluator
from lmm.evaluators.contrastive import ContrastiveModel
from lmm.training import load_module


class LearnedEvaluator(Evaluator):
    """What ``lmm fit --config evaluator.yaml`` trained.

    A point is the mean of the encoder's distribution. Trained with `InfoNCE` it has length 1, so that the order by
    Euclidean distance is that by cosine; trained with `Margin` it is as the encoder gives it.

    Args:
        checkpoint: of a `ContrastiveModel`.

    Raises:
        ValueError: no such file, a checkpoint of something else, or other weights of its Hugging Face encoder.
    """

    def __init__(self, checkpoint: str) -> None:
        model = load_module(checkpoint, ContrastiveModel)
        path = Path(checkpoint)
        run = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
        super().__init__(
            f"{run or 'evaluator'} ({type(model.representation).__name__})",
            model.representation,
            dim=model.latent_dim,
            unit=model.unit,
            max_frames=model.max_frames,
        )
        model.motion_decoder = None  # no figure depends on it
        del model.contrastive.similarity  # nor on this
        self.model = model
        self.freeze()

    @torch.no_grad()
    def embed_motions(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Points of motions; frames beyond the last whole ``unit`` are not read."""
        longest = int(mask.sum(1).max())
        if self.max_frames is not None and longest > self.max_frames:
            raise ValueError(
                f"{self.name} was trained on motions of at most {self.max_frames} frames, got {longest}; cut them first"
            )
        return self.model.embed_motions(features, mask)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Float[Tensor, "B E"]:
        """Points of sentences."""
        return self.model.embed_texts(texts)

    @property
    def settings(self) -> str:
        """With the parts of the model and how points come from its numbers."""
        model = self.model
        parts = f"{model.motion_encoder.settings} {model.text_encoder.settings} {type(model.contrastive).__name__}"
        return f"{super().settings} unit={self.unit} max_frames={self.max_frames} {parts}"
