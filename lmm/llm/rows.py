"""Where the rows of motion ids begin, before anything is learnt.

A new row takes part in every softmax from the first step on, so it must be no longer than a row of text: all of these
keep the mean μ of the old rows and, but for `Mean`, their standard deviation σ in each dimension::

    NoisyMean        μ + σ·ε                                      ε ~ N(0, 1), a draw of its own for each id
    Mean             μ                                            for all (Hewitt 2021)
    CodeStructured   μ + Σ_b ±d_b (+ o_slot)                      codes that differ in one bit lie close together

A table of motion rows is drawn on the CPU from a seed, the same on every rank.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lmm.llm.vocabulary import MotionVocabulary


class NewRows(ABC):
    """Draws the rows of a vocabulary's new ids, once for the embedding and once more for an untied head."""

    def __call__(self, old: Float[Tensor, "V H"], vocabulary: MotionVocabulary, *, seed: int) -> nn.Parameter:
        """Trainable rows "num_new H" in the order of the ids.

        A frozen base keeps its dtype while rows that train alone are float32; rows of a training base share its dtype.
        """
        return _parameter(self.draw(_table(old), vocabulary, torch.Generator().manual_seed(seed)), old)

    @abstractmethod
    def draw(
        self, table: Float[Tensor, "V H"], vocabulary: MotionVocabulary, generator: Generator
    ) -> Float[Tensor, "num_new H"]:
        """Rows of ``<mot>``, ``</mot>`` and all codes, given the old table in float32."""


@dataclass(frozen=True)
class NoisyMean(NewRows):
    """Each row at random among the old ones: their mean plus normal noise of their deviation in each dimension."""

    def draw(
        self, table: Float[Tensor, "V H"], vocabulary: MotionVocabulary, generator: Generator
    ) -> Float[Tensor, "num_new H"]:
        """One independent draw for each id."""
        return _noisy_mean(table, vocabulary.num_new, generator)


@dataclass(frozen=True)
class Mean(NewRows):
    """All rows at the mean of the old ones, without noise.

    So motion ids begin equally likely, and together as likely as an average word for each of them: the predictions of
    text move as little as they can. They need no noise to part: each row's gradient comes from the places where its own
    id is read or predicted, and those differ from the first step on.
    """

    def draw(
        self, table: Float[Tensor, "V H"], vocabulary: MotionVocabulary, generator: Generator
    ) -> Float[Tensor, "num_new H"]:
        """The mean; nothing is drawn."""
        return table.mean(0).expand(vocabulary.num_new, -1).clone()


@dataclass(frozen=True)
class CodeStructured(NewRows):
    """Rows of lookup-free codes are sums over their bits: the mean plus or minus one direction for each bit.

    Such an index is d bits, each the sign of one latent channel, so two codes that share most bits mean almost the same
    latents; their rows then begin almost the same too, where independent draws would hide that from the LLM. Directions
    belong to channels, in either bit order. With ids of their own, a slot's codes are shifted together by one more
    direction. Each direction has 1/d (or 1/(d+1)) of the variance, so that rows are as long as the old ones. The two
    markers are drawn as by `NoisyMean`.
    """

    def draw(
        self, table: Float[Tensor, "V H"], vocabulary: MotionVocabulary, generator: Generator
    ) -> Float[Tensor, "num_new H"]:
        """Directions are drawn, rows follow.

        Raises:
            ValueError: the codes are not bits.
        """
        spec = vocabulary.spec
        bits = spec.codebook_size.bit_length() - 1
        if spec.bit_order == "none" or spec.codebook_size != 2**bits:
            raise ValueError(
                f"CodeStructured needs codes that are bits (LFQ, BSQ), but these {spec.codebook_size} codes are looked "
                "up (bit order none); use lmm.llm.rows.NoisyMean"
            )
        slots = spec.codes_per_step if vocabulary.per_slot else 0
        markers = _noisy_mean(table, 2, generator)
        share = table.std(0) * (bits + (slots > 0)) ** -0.5
        directions = torch.randn(bits, table.shape[1], generator=generator) * share
        offsets = torch.randn(slots, table.shape[1], generator=generator) * share
        places = torch.arange(bits) if spec.bit_order == "lsb" else torch.arange(bits - 1, -1, -1)
        signs = (torch.arange(spec.codebook_size)[:, None] >> places & 1) * 2.0 - 1
        codes = table.mean(0) + signs @ directions
        if vocabulary.per_slot:
            codes = (offsets[:, None] + codes).flatten(0, 1)
        return torch.cat([markers, codes])


def new_rows(old: Float[Tensor, "V H"], num: int, *, seed: int) -> nn.Parameter:
    """``num`` rows as `NoisyMean` draws them, for ids of any kind."""
    return _parameter(_noisy_mean(_table(old), num, torch.Generator().manual_seed(seed)), old)


def _noisy_mean(table: Float[Tensor, "V H"], num: int, generator: Generator) -> Float[Tensor, "num H"]:
    return table.mean(0) + torch.randn(num, table.shape[1], generator=generator) * table.std(0)


def _table(old: Float[Tensor, "V H"]) -> Float[Tensor, "V H"]:
    return old.detach().float().cpu()


def _parameter(rows: Float[Tensor, "num H"], old: Float[Tensor, "V H"]) -> nn.Parameter:
    return nn.Parameter(rows.to(old.device, old.dtype if old.requires_grad else torch.float32))
