"""Reconstruction loss on features, and what may be added: joints, velocities, the latents of a frozen encoder.

All means are over real frames (velocities: over pairs of real frames); what stands beyond a clip's end has no weight
and no gradient. Everything is in fp32, whatever autocast is on around it. A term without weight is not computed.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from lmm.motion.representations.base import MotionRepresentation
from lmm.tokenizers.parts import Encoder
from lmm.training import load_module


class ReconstructionLoss(nn.Module):
    """Smooth-L1 over all normalized features plus weighted terms.

    T2M-GPT: smooth-L1 of all 263 dimensions + 0.5 · smooth-L1 of the joint positions (which its code calls velocity).
    The terms on joints decode the features (``representation.to_joints``), so they hold for rotations as well, and see
    where a window's path ends up.

    Args:
        representation: gives the blocks and the way to joints.
        block_weights: block name -> weight of its own smooth-L1 mean, on top of the mean over all features.
        joint_position_weight: of the mean distance between joints, in metres.
        joint_velocity_weight: of the mean distance between the joints' velocities (finite differences), in m/s.
        feature_velocity_weight: of the smooth-L1 mean of the normalized features' finite differences.
        perceptual: checkpoint of a trained tokenizer, for a `PerceptualLoss`; None for none.
        perceptual_weight: of the perceptual loss; 0 does without it, whatever ``perceptual`` names.
    """

    def __init__(
        self,
        representation: MotionRepresentation,
        block_weights: dict[str, float] | None = None,
        *,
        joint_position_weight: float = 0.0,
        joint_velocity_weight: float = 0.0,
        feature_velocity_weight: float = 0.0,
        perceptual: str | None = None,
        perceptual_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.block_weights = {"positions": 0.5} if block_weights is None else block_weights
        self.slices = representation.slices
        unknown = sorted(set(self.block_weights) - set(self.slices))
        if unknown:
            raise ValueError(
                f"{type(representation).__name__} has no block {', '.join(unknown)} to weigh; it has "
                f"{', '.join(self.slices)}"
            )
        self.weights = self.block_weights | {
            "joint_positions": joint_position_weight,
            "joint_velocities": joint_velocity_weight,
            "feature_velocities": feature_velocity_weight,
            "perceptual": perceptual_weight,
        }
        self._perceptual = PerceptualLoss(perceptual) if perceptual and perceptual_weight else None
        self._representation = (representation,)  # the tokenizer's: in a tuple it is not a part of this module too

    def forward(
        self,
        reconstruction: Float[Tensor, "B T D"],
        features: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The weighted loss of normalized features, and the plain mean of each term for the log."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            reconstruction = torch.where(mask[..., None], reconstruction.float(), features)
            terms = self._terms(reconstruction, features, mask)
            loss = terms["features"] + sum(self.weights[name] * terms[name] for name in terms if name != "features")
        return loss, {name: term.detach() for name, term in terms.items()}

    def _terms(
        self, reconstruction: Float[Tensor, "B T D"], features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> dict[str, Float[Tensor, ""]]:
        pairs = mask[:, 1:] & mask[:, :-1]
        error = F.smooth_l1_loss(reconstruction, features, reduction="none")
        terms = {"features": _mean(error, mask)}
        terms |= {name: _mean(error[..., self.slices[name]], mask) for name in self.block_weights}
        if self.weights["feature_velocities"]:
            error = F.smooth_l1_loss(reconstruction.diff(dim=1), features.diff(dim=1), reduction="none")
            terms["feature_velocities"] = _mean(error, pairs)
        joints = self.weights["joint_positions"] or self.weights["joint_velocities"]
        if not joints and self._perceptual is None:
            return terms
        (representation,) = self._representation
        raw, original = representation.denormalize(reconstruction), representation.denormalize(features)
        if joints:
            offset = representation.to_joints(raw) - representation.to_joints(original)
            if self.weights["joint_positions"]:
                terms["joint_positions"] = _mean(offset.norm(dim=-1), mask)
            if self.weights["joint_velocities"]:
                terms["joint_velocities"] = _mean((offset.diff(dim=1) * representation.fps).norm(dim=-1), pairs)
        if self._perceptual:
            terms["perceptual"] = self._perceptual(raw, original, mask, representation)
        return terms


class PerceptualLoss:
    """Mean squared distance between a frozen encoder's latents of the reconstruction and of the original.

    The encoder is no submodule: ``train()`` cannot wake it, no optimizer and no checkpoint sees it. It is read at first
    use, so a tokenizer that was trained with it is loaded without it.

    Args:
        checkpoint: a trained tokenizer for the same features, of any network; its quantizer and decoder are not used.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self._frozen: tuple[Encoder, MotionRepresentation] | None = None

    def __call__(
        self,
        reconstruction: Float[Tensor, "B T D"],
        original: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
        representation: MotionRepresentation,
    ) -> Float[Tensor, ""]:
        """Of raw features; every step of the encoder that has a real frame counts."""
        self._frozen = self._frozen or self._load(representation)
        encoder, ours = self._frozen[0].to(original.device), self._frozen[1].to(original.device)
        beyond = -mask.shape[1] % encoder.downsample
        steps = F.pad(mask, (0, beyond)).unflatten(1, (-1, encoder.downsample)).any(-1)
        frames = steps.repeat_interleave(encoder.downsample, dim=1)
        mine, theirs = (
            encoder(ours.normalize(torch.cat([x, x[:, -1:].expand(-1, beyond, -1)], dim=1)), frames)
            for x in (reconstruction, original)
        )
        return _mean((mine - theirs).square(), steps)

    def _load(self, representation: MotionRepresentation) -> tuple[Encoder, MotionRepresentation]:
        """Raises ValueError if there is no such checkpoint, it has no encoder, or one of other features."""
        where = f"the perceptual loss's checkpoint {self.checkpoint}"
        remedy = "name a tokenizer trained on these features (perceptual), or do without (perceptual_weight: 0)"
        if not Path(self.checkpoint).is_file():
            raise ValueError(f"{where} does not exist; {remedy}")
        with torch.random.fork_rng(devices=[]):  # a resumed run, which loads it later, draws the same numbers
            module = load_module(self.checkpoint, LightningModule).requires_grad_(False)
        encoder, ours = getattr(module, "encoder", None), getattr(module, "representation", None)
        if not (isinstance(encoder, Encoder) and isinstance(ours, MotionRepresentation)):
            raise ValueError(f"{where} holds a {type(module).__name__}, which has no motion encoder; {remedy}")
        if ours.settings != representation.settings:
            raise ValueError(f"{where} reads {ours.settings}, not {representation.settings}; {remedy}")
        return encoder, ours


def _mean(values: Float[Tensor, "B U *N"], mask: Bool[Tensor, "B U"]) -> Float[Tensor, ""]:
    """Mean over what is real; 0 where nothing is (no two frames in a row)."""
    rows = values[..., None].flatten(2)
    return (rows.sum(-1) * mask).sum() / (mask.sum().clamp_min(1) * rows.shape[-1])
