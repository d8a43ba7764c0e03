"""An evaluator in training: motions and their captions become points of one space (TMR, Petrovich et al., ICCV 2023).

Without a motion decoder both encoders give E numbers, and the contrastive loss is all. With one they give a Gaussian
each, and TMR's loss is

    λ_c L_contrastive + λ_r [ l1(D(z_motion), x) + l1(D(z_text), x) ] + λ_kl (4 KL terms) + λ_l l1(z_text, z_motion)

with smooth-L1 l1 over real frames and z drawn from the Gaussians (TEMOS, Petrovich et al., ECCV 2022). The contrastive
loss compares means, which are what the evaluator measures (TMR's code compares draws).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F

from lmm.batch import MotionBatch
from lmm.evaluators.losses import ContrastiveLoss, InfoNCE, LossWeights, gaussian_kl
from lmm.evaluators.networks.parts import MotionDecoder, MotionEncoder, TextEncoder
from lmm.metrics.pools import expected_retrieval, table
from lmm.metrics.retrieval import tmr_protocols, tmr_table
from lmm.motion.representations.base import MotionRepresentation
from lmm.training import CHECKPOINT_FORMAT, Optimization


class ContrastiveModel(LightningModule):
    """Features "B T D" and captions -> points "B E".

    (Nine arguments: a bench, on which each part is swapped by its name.)

    Args:
        representation: what the features are; linked from the data, its statistics travel in the checkpoint.
        motion_encoder: factory of the motion encoder, called with the representation and how many numbers it gives.
        text_encoder: factory of the text encoder, called with how many numbers it gives.
        motion_decoder: factory of the motion decoder, called with the representation and ``latent_dim``; None for the
            contrastive loss alone.
        contrastive: factory of the contrastive loss.
        weights: of the losses.
        latent_dim: E.
        max_frames: longer motions are cut, in training at a drawn start, else at their first frame; None for no limit.
        optimization: learning rate and schedule.
    """

    def __init__(
        self,
        representation: MotionRepresentation,
        motion_encoder: Callable[[MotionRepresentation, int], MotionEncoder],
        text_encoder: Callable[[int], TextEncoder],
        motion_decoder: Callable[[MotionRepresentation, int], MotionDecoder] | None = None,
        contrastive: Callable[[], ContrastiveLoss] = InfoNCE,
        weights: LossWeights = LossWeights(),  # noqa: B008 - frozen
        latent_dim: int = 256,
        max_frames: int | None = None,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:  # built in plain Python: live objects, which no safe load accepts
            self._hparams.clear()
        self.representation = representation
        self.latent_dim, self.max_frames = latent_dim, max_frames
        numbers = latent_dim if motion_decoder is None else 2 * latent_dim
        self.motion_encoder = motion_encoder(representation, numbers)
        self.text_encoder = text_encoder(numbers)
        self.motion_decoder = None if motion_decoder is None else motion_decoder(representation, latent_dim)
        self.contrastive = contrastive()
        self.weights, self.optimization = weights, optimization
        if self.motion_decoder is not None and self.motion_decoder.downsample != self.unit:
            raise ValueError(
                f"motion encoder and decoder disagree on downsample: {self.unit} and {self.motion_decoder.downsample}"
            )
        if max_frames is not None and max_frames < self.unit:
            raise ValueError(f"max_frames must be at least the encoder's downsample, {self.unit}; got {max_frames}")
        self._seen: list[tuple[list[str], list[str], Tensor, Tensor]] = []
        self._count = 0

    @property
    def unit(self) -> int:
        """Motions are cut to a multiple of so many frames."""
        return self.motion_encoder.downsample

    @torch.no_grad()
    def embed_motions(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Points of raw features, cut to ``max_frames`` and whole units.

        Raises:
            ValueError: a motion shorter than ``unit``.
        """
        features, mask = cut(features, mask, unit=self.unit, max_frames=self.max_frames)
        numbers = self.motion_encoder(self.representation.normalize(features), mask)
        return self.contrastive.points(numbers[:, : self.latent_dim])

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Float[Tensor, "B E"]:
        """Points of sentences.

        Raises:
            ValueError: a sentence that the text encoder cannot read.
        """
        return self.contrastive.points(self.text_encoder(texts)[:, : self.latent_dim])

    def training_step(self, batch: MotionBatch, batch_idx: int) -> Tensor:
        """All losses of a batch of whole clips; the text similarity counts its captions."""
        self.contrastive.similarity.update(batch.texts)
        loss, terms = self._losses(batch, draw=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=len(batch.ids))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """Whole clips with their first captions."""
        self._evaluate("val", batch)

    def test_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """Whole clips of the test split."""
        self._evaluate("test", batch)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine."""
        return self.optimization.build(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which version can read it."""
        checkpoint["lmm_format"] = CHECKPOINT_FORMAT

    def setup(self, stage: str) -> None:
        """Refuse to train without statistics."""
        if stage == "fit":
            self.representation.require_statistics()

    def on_validation_epoch_end(self) -> None:
        """Retrieval over the whole split."""
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        """Retrieval over the whole split."""
        self._log_figures("test")

    def on_validation_end(self) -> None:
        """A table in the place of Lightning's, where validation is what was asked for."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._print_table("val", self.trainer.validate_loop)

    def on_test_end(self) -> None:
        """A table in the place of Lightning's."""
        self._print_table("test", self.trainer.test_loop)

    def _losses(self, batch: MotionBatch, *, draw: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss and its plain terms; ``draw`` a start for motions that are cut, and latents."""
        features, mask = cut(batch.features, batch.mask, unit=self.unit, max_frames=self.max_frames, draw=draw)
        features = self.representation.normalize(features)
        motion, text = self.motion_encoder(features, mask), self.text_encoder(batch.texts)
        means = [x[:, : self.latent_dim] for x in (text, motion)]
        terms = {"contrastive": self.contrastive(means[0], means[1], batch.texts)}
        if self.motion_decoder is not None:
            log_vars = [x[:, self.latent_dim :] for x in (text, motion)]
            terms |= self._regularization(features, mask, means, log_vars, draw=draw)
        loss = torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()
        return loss, {name: value.detach() for name, value in terms.items()}

    def _regularization(
        self,
        features: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
        means: list[Tensor],
        log_vars: list[Tensor],
        *,
        draw: bool,
    ) -> dict[str, Tensor]:
        """TMR's other terms, of (text, motion)."""
        assert self.motion_decoder is not None
        latents = means
        if draw:
            latents = [m + torch.randn_like(m) * (v / 2).exp() for m, v in zip(means, log_vars, strict=True)]
        text, motion = zip(means, log_vars, strict=True)
        normal = torch.zeros_like(means[0]), torch.zeros_like(means[0])
        decoded = [self.motion_decoder(latent, mask) for latent in latents]
        pairs = ((text, motion), (motion, text), (motion, normal), (text, normal))
        return {
            "reconstruction": torch.stack([F.smooth_l1_loss(x[mask], features[mask]) for x in decoded]).sum(),
            "kl": torch.stack([gaussian_kl(*a, *b) for a, b in pairs]).sum(),
            "latent": F.smooth_l1_loss(latents[0], latents[1]),
        }

    def _evaluate(self, stage: str, batch: MotionBatch) -> None:
        loss, terms = self._losses(batch, draw=False)
        points = self.embed_texts(batch.texts), self.embed_motions(batch.features, batch.mask)
        self._seen.append((batch.ids, batch.texts, points[0].float().cpu(), points[1].float().cpu()))
        self.log(f"{stage}/loss", loss, batch_size=len(batch.ids), sync_dist=True)
        self.log_dict({f"{stage}/{k}": v for k, v in terms.items()}, batch_size=len(batch.ids), sync_dist=True)

    def _log_figures(self, stage: str) -> None:
        ids, texts, text_points, motion_points = in_fixed_order(self._seen)
        self._seen, self._count = [], len(ids)
        for name, value in expected_retrieval(text_points, motion_points, texts).items():
            self.log(f"{stage}/{name}", value.to(self.device), prog_bar=name == "r_precision_top1", sync_dist=True)
        if stage == "test":
            similar = self.contrastive.similarity
            alike = similar.alike(similar(texts)).cpu()
            for protocol, figures in tmr_protocols(-torch.cdist(text_points, motion_points), alike).items():
                for name, value in figures.items():
                    self.log(f"test/{protocol}/{name}", value.float().to(self.device), sync_dist=True)

    def _print_table(self, stage: str, loop: Any) -> None:
        """Instead of Lightning's, if that was asked for."""
        if loop.verbose and self.trainer.is_global_zero:
            figures = {name.removeprefix(f"{stage}/"): v for name, v in self.trainer.callback_metrics.items()}
            print(table(stage, figures, self._count))
            if stage == "test":
                print(tmr_table(figures))
        loop.verbose = False


def cut(
    features: Float[Tensor, "B T D"],
    mask: Bool[Tensor, "B T"],
    *,
    unit: int,
    max_frames: int | None = None,
    draw: bool = False,
) -> tuple[Float[Tensor, "B U D"], Bool[Tensor, "B U"]]:
    """Motions of at most ``max_frames`` frames and whole units; what is left over at the end is dropped.

    Args:
        features: frames.
        mask: real frames.
        unit: frames of a unit.
        max_frames: longer motions are cut.
        draw: where these begin: somewhere, or at their first frame.

    Raises:
        ValueError: a motion shorter than ``unit``.
    """
    lengths = mask.sum(1)
    if max_frames is not None and mask.shape[1] > max_frames:
        spare = (lengths - max_frames).clamp_min(0)
        starts = (
            (torch.rand(len(lengths), device=mask.device) * (spare + 1)).long() if draw else torch.zeros_like(spare)
        )
        frames = starts[:, None] + torch.arange(max_frames, device=mask.device)
        features = features[torch.arange(len(lengths), device=mask.device)[:, None], frames]
        lengths = lengths.clamp_max(max_frames)
    lengths = lengths // unit * unit
    if (lengths == 0).any():
        raise ValueError(f"a motion of less than {unit} frames cannot be embedded; leave it out (`min_frames`)")
    longest = int(lengths.max())
    mask = torch.arange(longest, device=mask.device) < lengths[:, None]
    return features[:, :longest].masked_fill(~mask[..., None], 0), mask


def in_fixed_order(
    batches: list[tuple[list[str], list[str], Tensor, Tensor]],
) -> tuple[list[str], list[str], Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Ids, captions and both points of all ranks, each id once, in the order of the ids."""
    ranks: list[Any] = [batches]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, batches)
    rows = {row[0]: row for rank in ranks for batch in rank for row in zip(*batch, strict=True)}
    ids, captions, texts, motions = zip(*(rows[name] for name in sorted(rows)), strict=True)
    return list(ids), list(captions), torch.stack(texts), torch.stack(motions)
