"""Any Hugging Face text encoder by name or folder: the mean over its tokens, then a trained projection.

Frozen, it is no part of the model: no optimizer, no checkpoint and no ``train()`` sees it. A checkpoint holds the
projection and the sha256 of the frozen weights, so that another encoder of the same name is refused.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from lmm.evaluators.networks.parts import TextEncoder, masked_mean


class SentenceEncoder(TextEncoder):
    """Sentences -> "B O".

    Args:
        out_dim: O.
        source: hub name or folder of an encoder, such as "sentence-transformers/all-mpnet-base-v2"; of an
            encoder-decoder its encoder is taken. Weights are read from safetensors alone.
        trainable: tune it too; the checkpoint then holds all of it.
        width: channels inside the projection.
    """

    base_sha256: Tensor

    def __init__(self, out_dim: int, source: str, *, trainable: bool = False, width: int = 512) -> None:
        super().__init__()
        self.trainable = trainable
        sentences = FrozenSentences(source)
        if trainable:
            self.language = sentences.language.requires_grad_(True).train()
        else:
            self.register_buffer("base_sha256", sentences.sha256())
        self._sentences = (sentences,)  # in a tuple it is no part of this module
        self.project = nn.Sequential(nn.Linear(sentences.dim, width), nn.GELU(), nn.Linear(width, out_dim))

    def forward(self, texts: list[str]) -> Float[Tensor, "B O"]:
        """O numbers of each sentence."""
        (sentences,) = self._sentences
        sentences.to(next(self.project.parameters()).device)
        if self.trainable:
            return self.project(sentences.mean(texts))
        with torch.no_grad():
            means = sentences.mean(texts)
        return self.project(means)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        theirs = state_dict.get(f"{prefix}base_sha256")
        if theirs is not None and not self.trainable and not torch.equal(theirs.cpu(), self.base_sha256.cpu()):
            raise ValueError(
                f"the checkpoint was trained on other weights than those of {self._sentences[0].source}; set `source` "
                "to the encoder it was trained on"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class FrozenSentences:
    """A pretrained text encoder in eval mode and the mean over its tokens; not a module, so nothing can wake it.

    Args:
        source: hub name or folder.

    Raises:
        ValueError: there is none, or none in safetensors.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            language = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"no text encoder with safetensors weights at {source!r} ({reason}); name a folder or a model of the "
                "hub, or use lmm.evaluators.networks.TextTransformer, which needs no download"
            ) from None
        self.language = language.get_encoder() if language.config.is_encoder_decoder else language
        self.language.requires_grad_(False).eval()
        if self.tokenizer.pad_token is None:  # padding is masked out, any id will do
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.dim: int = language.config.hidden_size
        limit = getattr(language.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        self.limit = min(int(limit), self.tokenizer.model_max_length)

    def to(self, device: torch.device) -> None:
        """Go where the model is."""
        self.language.to(device)

    def mean(self, texts: list[str]) -> Float[Tensor, "B H"]:
        """Mean over the tokens of each sentence.

        Raises:
            ValueError: a sentence that is longer than the encoder reads.
        """
        batch = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.language.device)
        if batch["input_ids"].shape[1] > self.limit:
            raise ValueError(f"a sentence takes {batch['input_ids'].shape[1]} tokens, {self.source} reads {self.limit}")
        states = self.language(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return masked_mean(states, batch["attention_mask"].bool())

    def sha256(self) -> Tensor:
        """Of all weights, as 32 bytes."""
        digest = hashlib.sha256()
        for name, tensor in self.language.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
