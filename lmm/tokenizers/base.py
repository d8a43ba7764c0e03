"""The motion tokenizer: features <-> tokens, and the training life that all tokenizers share.

encode: normalize -> encoder -> quantizer -> tokens "B t K" (row-major: part, then level). decode: the mirror. Any
quantizer goes with any encoder-decoder pair whose parts and downsampling agree; this class is that bench.
"""

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lmm.batch import MotionBatch, TokenBatch, TokenSpec
from lmm.metrics.codebook import CodebookUsage
from lmm.metrics.physics import Physics
from lmm.metrics.reconstruction import ReconstructionErrors, table
from lmm.motion.motion import Motion
from lmm.motion.representations.base import MotionRepresentation
from lmm.render.stick import strip
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.tokenizers.networks.causal import Stream
from lmm.tokenizers.parts import Decoder, Encoder, Quantizer, QuantizerOutput
from lmm.training import CHECKPOINT_FORMAT, Optimization

_PHYSICS = ("skating_ratio", "skating_m_s", "penetration_mm", "jitter_m_s3", "acceleration_m_s2")  # what is logged


class MotionTokenizer(LightningModule):
    """Features "B T D" <-> tokens "B t K", t = ceil(T / downsample), K = parts · levels.

    Args:
        representation: what the features are; linked from the data, its statistics travel in the checkpoint.
        encoder: factory of the encoder, called with the representation and ``latent_dim``.
        quantizer: factory of the quantizer, called with ``latent_dim``.
        decoder: factory of the decoder, called like the encoder.
        loss: factory of the reconstruction loss, called with the representation.
        latent_dim: C, channels of a latent.
        optimization: learning rate and schedule.
    """

    def __init__(
        self,
        representation: MotionRepresentation,
        encoder: Callable[[MotionRepresentation, int], Encoder],
        quantizer: Callable[[int], Quantizer],
        decoder: Callable[[MotionRepresentation, int], Decoder],
        loss: Callable[[MotionRepresentation], ReconstructionLoss] = ReconstructionLoss,
        latent_dim: int = 512,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:  # built in plain Python: live objects, which no safe load accepts
            self._hparams.clear()
        self.representation = representation
        self.encoder = encoder(representation, latent_dim)
        self.quantizer = quantizer(latent_dim)
        self.decoder = decoder(representation, latent_dim)
        self.loss = loss(representation)
        self.optimization = optimization
        for what in ("num_parts", "downsample"):
            if getattr(self.encoder, what) != getattr(self.decoder, what):
                raise ValueError(
                    f"encoder and decoder disagree on {what}: {getattr(self.encoder, what)} and "
                    f"{getattr(self.decoder, what)}; give both the same parts and stages"
                )
        self.errors = ReconstructionErrors()
        self.physics = Physics(representation.skeleton, representation.fps)
        self.real_physics = Physics(representation.skeleton, representation.fps)
        parts = getattr(self.encoder, "part_names", [f"part{p}" for p in range(self.encoder.num_parts)])
        self.codebook = CodebookUsage(
            self.quantizer.codebook_size,
            parts=parts,
            num_levels=self.quantizer.num_levels,
            bits=self.quantizer.bit_order != "none",
        )
        self._picture: tuple[Motion, Motion] | None = None

    @property
    def downsample(self) -> int:
        """Frames per time step (α)."""
        return self.encoder.downsample

    @property
    def token_spec(self) -> TokenSpec:
        """What the tokens of this tokenizer are; the fingerprint covers weights and statistics."""
        digest = hashlib.sha256()
        for module in (self.representation, self.encoder, self.quantizer, self.decoder):
            for name, tensor in module.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return TokenSpec(
            codebook_size=self.quantizer.codebook_size,
            num_levels=self.quantizer.num_levels,
            num_parts=self.encoder.num_parts,
            downsample=self.downsample,
            fps=self.representation.fps,
            bit_order=self.quantizer.bit_order,
            fingerprint=digest.hexdigest(),
        )

    @torch.no_grad()
    def encode(self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B t K"]:
        """Tokens of raw features; -1 beyond a clip's last step. A last incomplete step repeats the last frame."""
        features, _, steps = self._whole_steps(features, mask)
        frames = steps.repeat_interleave(self.downsample, dim=1)
        output = self.quantizer(self.encoder(self.representation.normalize(features), frames), steps)
        return output.indices.flatten(2).masked_fill(~steps[..., None], -1)

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "B t K"], *, levels: int | None = None) -> Float[Tensor, "B T D"]:
        """Raw features of tokens, T = t · downsample; frames of steps that are all -1 are zero.

        Args:
            tokens: of whole steps, or of a residual quantizer's first levels with -1 in all that follow.
            levels: decode only so many first levels of a residual quantizer (coarse to fine); default all there are.

        Raises:
            ValueError: a token outside the codebook, another number of codes a step, a step that is partly padding, or
                levels that are missing or asked for where they do not refine one another.
        """
        parts, depth = self.encoder.num_parts, self.quantizer.num_levels
        if tokens.shape[-1] != parts * depth:
            raise ValueError(
                f"this tokenizer has {parts * depth} codes a step, got tokens of shape {tuple(tokens.shape)}"
            )
        if tokens.numel() and not -1 <= int(tokens.min()) <= int(tokens.max()) < self.quantizer.codebook_size:
            raise ValueError(f"tokens must lie in [0, {self.quantizer.codebook_size}) or be -1 for padding")
        if levels is not None and not 1 <= levels <= depth:
            raise ValueError(f"this tokenizer has {depth} levels, cannot decode {levels}")
        indices = tokens.unflatten(-1, (parts, depth))
        there = indices >= 0
        steps = there[..., 0, 0]
        if (there[..., 0] != steps[..., None]).any():
            raise ValueError("a step of tokens is padding (-1) in some parts only; pad whole steps")
        if (there[..., 1:] & ~there[..., :-1]).any():
            raise ValueError("a step of tokens lacks a level (-1) before one that it has; only the last may be missing")
        indices = indices.masked_fill(torch.arange(depth, device=indices.device) >= (levels or depth), -1)
        if self.quantizer.bit_order != "none" and ((indices < 0) & steps[..., None, None]).any():
            raise ValueError(
                f"the {depth} levels of this {type(self.quantizer).__name__} are parts of one code, which is decoded "
                "whole; only a residual quantizer's last levels may be left out"
            )
        indices = indices.masked_fill(~steps[..., None, None], 0)  # what padding decodes to is masked out below
        decoded = self.decoder(self.quantizer.decode(indices), steps)
        features = self.representation.denormalize(decoded)
        return features * steps.repeat_interleave(self.downsample, dim=1)[..., None]

    def decoder_stream(self) -> Stream:
        """The decoder for latents that come step by step; raises ValueError where it looks ahead."""
        return Stream(self.decoder)

    def training_step(self, batch: MotionBatch, batch_idx: int) -> Tensor:
        """Reconstruct a window; the quantizer learns outside the gradient after its forward pass."""
        loss, terms, latents, steps, output, _ = self._reconstruct(batch.features, batch.mask)
        with torch.autocast(latents.device.type, enabled=False):  # EMA statistics are fp32
            self.quantizer.update(latents.detach(), output, steps)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=len(batch.ids))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """Whole clips."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: MotionBatch, batch_idx: int) -> None:
        """Whole clips of the test split."""
        self._evaluate("test", batch, batch_idx)

    def predict_step(self, batch: MotionBatch, batch_idx: int) -> TokenBatch:
        """Tokens of whole clips, for the token writer."""
        tokens = self.encode(batch.features, batch.mask)
        return TokenBatch(tokens, tokens[..., 0] >= 0, batch.ids, batch.texts)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine."""
        return self.optimization.build(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which version can read it."""
        checkpoint["lmm_format"] = CHECKPOINT_FORMAT

    def setup(self, stage: str) -> None:
        """Refuse to train or encode without statistics."""
        if stage == "fit":
            self.representation.require_statistics()

    def on_validation_epoch_end(self) -> None:
        """All figures; in TensorBoard the codes' counts, and reconstructed skeletons below the originals."""
        if isinstance(self.logger, TensorBoardLogger):
            with self.codebook.sync_context():
                for stream, counts in zip(self.codebook.streams, self.codebook.counts.flatten(0, 1), strict=True):
                    self.logger.experiment.add_histogram(f"val/code_counts/{stream}", counts, self.global_step)
            if self._picture:
                image, name = strip(list(self._picture), num_frames=8), "val/original_above_reconstruction"
                self.logger.experiment.add_image(name, image, self.global_step, dataformats="HWC")
        self._picture = None
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        """All figures."""
        self._log_figures("test")

    def on_validation_end(self) -> None:
        """A table in the place of Lightning's, where validation is what was asked for."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._print_table("val", self.trainer.validate_loop)

    def on_test_end(self) -> None:
        """A table in the place of Lightning's."""
        self._print_table("test", self.trainer.test_loop)

    def _whole_steps(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B U D"], Bool[Tensor, "B U"], Bool[Tensor, "B t"]]:
        """Pad to U = t · downsample frames, repeating each clip's last frame to the end of its last step."""
        lengths = mask.sum(1)
        num_steps = -(-mask.shape[1] // self.downsample)
        frames = torch.arange(num_steps * self.downsample, device=mask.device)
        source = frames.minimum((lengths - 1).clamp_min(0)[:, None])
        features = features[torch.arange(len(features), device=mask.device)[:, None], source]
        steps = frames[:: self.downsample] < lengths[:, None]
        return features, frames < lengths[:, None], steps

    def _reconstruct(
        self, features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor, QuantizerOutput, Tensor]:
        """Forward pass with losses: (loss, terms, latents, step mask, quantizer output, reconstruction)."""
        features, mask, steps = self._whole_steps(features, mask)
        features = self.representation.normalize(features)
        latents = self.encoder(features, steps.repeat_interleave(self.downsample, dim=1))
        output = self.quantizer(latents, steps)
        reconstruction = self.decoder(output.latents, steps).float()
        loss, terms = self.loss(reconstruction, features, mask)
        return loss + output.loss, terms | output.terms, latents, steps, output, reconstruction

    def _evaluate(self, stage: str, batch: MotionBatch, batch_idx: int) -> None:
        loss, terms, _, steps, output, reconstruction = self._reconstruct(batch.features, batch.mask)
        with torch.autocast(self.device.type, enabled=False):  # metres have more digits than bf16
            predicted = self.representation.denormalize(reconstruction)[:, : batch.features.shape[1]]
            predicted = predicted.masked_fill(~batch.mask[..., None], 0.0)
            originals, motions = self.representation.decode(batch.features), self.representation.decode(predicted)
        self.errors.update(motions.joints, originals.joints, batch.mask)
        self.physics.update(motions.joints, batch.mask)
        self.real_physics.update(originals.joints, batch.mask)
        self.codebook.update(output.indices.masked_fill(~steps[..., None, None], -1))
        if batch_idx == 0:
            frames = int(batch.mask[0].sum())
            first = [Motion(m.joints[0, :frames].float().cpu(), m.fps, m.skeleton) for m in (originals, motions)]
            self._picture = (first[0], first[1])
        size = len(batch.ids)
        self.log(f"{stage}/loss", loss, batch_size=size, sync_dist=True)
        self.log_dict({f"{stage}/{k}": v for k, v in terms.items()}, batch_size=size, sync_dist=True)

    def _log_figures(self, stage: str) -> None:
        """Every figure, and beside the physics those of the real motion: real feet skate a little too."""
        figures = self.errors.compute() | {f"codebook_{k}": v for k, v in self.codebook.compute().items()}
        for prefix, metric in (("", self.physics), ("real_", self.real_physics)):
            computed = metric.compute()
            figures |= {f"{prefix}{name}": computed[name] for name in _PHYSICS}
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("mpjpe_mm", "codebook_usage"), sync_dist=True)
        for module in (self.errors, self.codebook, self.physics, self.real_physics):
            module.reset()

    def _print_table(self, stage: str, loop: Any) -> None:
        """Instead of Lightning's, if that was asked for."""
        if loop.verbose and self.trainer.is_global_zero:
            figures = {name.removeprefix(f"{stage}/"): v for name, v in self.trainer.callback_metrics.items()}
            print(table(stage, figures, self.codebook.streams))
        loop.verbose = False
