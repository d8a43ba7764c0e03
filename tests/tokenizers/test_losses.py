import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.motion.representations import (
    SMPLD130,
    SMPLD263,
    HumanML3DFeatures,
    JointPositions,
    KITFeatures,
    MotionStreamer272,
)
from lmm.tokenizers import VQTokenizer
from lmm.tokenizers.losses import ReconstructionLoss
from lmm.training import CHECKPOINT_FORMAT, build_module

TERMS = ["joint_position_weight", "joint_velocity_weight", "feature_velocity_weight"]
LENGTHS = [8, 5, 1]
MASK = torch.arange(8) < torch.tensor(LENGTHS)[:, None]


def prepared(representation=None):
    """A representation whose statistics are not those of z-scores."""
    representation = representation or JointPositions()
    noise = torch.Generator().manual_seed(3)
    dim = representation.dim
    representation.set_statistics(torch.randn(dim, generator=noise), 0.5 + torch.rand(dim, generator=noise))
    return representation


def pair(dim=66, seed=0):
    """Reconstruction and features of three clips, lengths as in MASK."""
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 8, dim, generator=noise).unbind()


def plain(**weights):
    return ReconstructionLoss(prepared(), {}, **weights)


def checkpoint(folder: Path, representation="JointPositions") -> Path:
    """What `lmm fit` leaves of a tokenizer with steps of two frames and statistics of its own."""
    init = {"width": 8, "num_stages": 1, "depth": 1}
    names = {"_class_path": "lmm.tokenizers.VQTokenizer", "_instantiator": "lightning.pytorch.cli.instantiate_module"}
    arguments = {"representation": {"class_path": f"lmm.motion.representations.{representation}"}, "latent_dim": 6}
    for part in ("encoder", "decoder"):
        arguments[part] = {"class_path": f"lmm.tokenizers.networks.Conv1d{part.capitalize()}", "init_args": init}
    torch.manual_seed(0)
    module = build_module(names | arguments)
    module.representation.set_statistics(*(torch.full((module.representation.dim,), x) for x in (0.5, 2.0)))
    kept = {"hyper_parameters": names | arguments, "state_dict": module.state_dict()}
    versions = {"lmm_format": CHECKPOINT_FORMAT, "pytorch-lightning_version": "2.6.0"}
    torch.save(kept | versions, folder / "judge.ckpt")
    return folder / "judge.ckpt"


def test_features_and_blocks_against_numpy():
    reconstruction, features = pair()
    loss, terms = ReconstructionLoss(prepared(), {"positions": 0.5, "root_height": 2.0})(reconstruction, features, MASK)
    delta = np.abs((reconstruction - features)[MASK].numpy())
    error = np.where(delta < 1, delta**2 / 2, delta - 0.5)
    assert list(terms) == ["features", "positions", "root_height"]  # nothing else is computed unless it has a weight
    expected = {"features": error.mean(), "positions": error[:, 3:].mean(), "root_height": error[:, 2].mean()}
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert float(loss) == pytest.approx(
        expected["features"] + 0.5 * expected["positions"] + 2 * expected["root_height"], rel=1e-5
    )


def test_a_body_that_stands_beside_its_original():
    """Root height 0.2 m too large in every frame, joints with it: 0.2 m off, and no velocity."""
    loss = plain(joint_position_weight=1.0, joint_velocity_weight=1.0, feature_velocity_weight=1.0)
    representation = loss._representation[0]
    features = torch.zeros(3, 8, 66)
    raw = representation.denormalize(features)
    raw[..., 2] += 0.2
    raw[..., 4::3] += 0.2
    _, terms = loss(representation.normalize(raw), features, MASK)
    assert float(terms["joint_positions"]) == pytest.approx(0.2, rel=1e-5)
    assert float(terms["joint_velocities"]) == pytest.approx(0, abs=1e-4)
    assert float(terms["feature_velocities"]) == pytest.approx(0, abs=1e-9)


def test_a_body_that_drifts():
    """One step of 0.1 m too far in every frame but the first: 2 m/s at 20 fps; positions see the whole path."""
    loss = plain(joint_position_weight=1.0, joint_velocity_weight=1.0)
    representation = loss._representation[0]
    features = torch.zeros(3, 8, 66)
    raw = representation.denormalize(features)
    raw[:, 1:, 0] += 0.1
    _, terms = loss(representation.normalize(raw), features, MASK)
    assert float(terms["joint_velocities"]) == pytest.approx(2.0, rel=1e-4)
    path = [0.1 * frame for length in LENGTHS for frame in range(length)]
    assert float(terms["joint_positions"]) == pytest.approx(sum(path) / len(path), rel=1e-4)


def test_feature_velocity_against_numpy():
    reconstruction, features = pair()
    _, terms = plain(feature_velocity_weight=1.0)(reconstruction, features, MASK)
    steps = [np.diff((r - f)[:n].numpy(), axis=0) for r, f, n in zip(reconstruction, features, LENGTHS, strict=True)]
    delta = np.abs(np.concatenate(steps))
    expected = np.where(delta < 1, delta**2 / 2, delta - 0.5).mean()
    assert len(delta) == 7 + 4 and float(terms["feature_velocities"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_a_weight_scales_its_term_and_nothing_else(term):
    reconstruction, features = pair()
    without, _ = plain()(reconstruction, features, MASK)
    loss, terms = plain(**{term: 0.25})(reconstruction, features, MASK)
    (added,) = set(terms) - {"features"}
    assert float(loss) == pytest.approx(float(without + 0.25 * terms[added]), rel=1e-5)


def test_clips_of_one_frame_have_no_velocity():
    reconstruction, features = (x.requires_grad_() for x in pair())
    loss, terms = plain(joint_velocity_weight=1.0, feature_velocity_weight=1.0)(
        reconstruction[:, :1], features[:, :1], MASK[:, :1]
    )
    assert float(terms["joint_velocities"]) == float(terms["feature_velocities"]) == 0
    loss.backward()
    assert torch.isfinite(reconstruction.grad).all()


@pytest.mark.parametrize("beyond", [1e4, math.nan])
def test_what_stands_beyond_the_end_has_no_weight_and_no_gradient(beyond, tmp_path):
    weights = dict.fromkeys(TERMS, 1.0) | {"perceptual": str(checkpoint(tmp_path))}
    loss = ReconstructionLoss(prepared(), **weights)
    reconstruction, features = pair()
    results = []
    for content in (reconstruction, torch.where(MASK[..., None], reconstruction, beyond)):
        content = content.clone().requires_grad_()
        value, terms = loss(content, features, MASK)
        value.backward()
        results.append((value.detach(), terms, content.grad))
    (value, terms, gradient), (other, others, theirs) = results
    assert value == other and terms == others and torch.equal(gradient, theirs)
    assert not gradient[~MASK].any() and (gradient[MASK].abs().sum(-1) > 0).all()


def test_a_longer_batch_changes_nothing(tmp_path):
    loss = ReconstructionLoss(prepared(), **dict.fromkeys(TERMS, 1.0), perceptual=str(checkpoint(tmp_path)))
    reconstruction, features = pair()
    features = torch.where(MASK[..., None], features, 0.0)
    _, terms = loss(reconstruction, features, MASK)
    pad = lambda x: torch.nn.functional.pad(x, (0, 0, 0, 5))  # noqa: E731
    _, others = loss(pad(reconstruction), pad(features), torch.nn.functional.pad(MASK, (0, 5)))
    for name in terms:
        assert float(others[name]) == pytest.approx(float(terms[name]), rel=1e-5), name


@pytest.mark.parametrize(
    "kind", [HumanML3DFeatures, JointPositions, KITFeatures, MotionStreamer272, SMPLD130, SMPLD263]
)
def test_joints_of_every_representation_pass_a_gradient(kind):
    representation = prepared(kind())
    reconstruction, features = pair(representation.dim)
    reconstruction.requires_grad_()
    loss = ReconstructionLoss(representation, {}, joint_position_weight=1.0, joint_velocity_weight=1.0)
    loss(features.clone().requires_grad_(), features, MASK)[0].backward()  # nothing to mend: no NaN from a norm of 0
    value, terms = loss(reconstruction, features, MASK)
    (value - terms["features"]).backward()
    assert torch.isfinite(reconstruction.grad).all()
    assert reconstruction.grad[MASK].abs().sum() > 0


def test_bf16_is_widened_before_anything_is_summed(tmp_path):
    weights = dict.fromkeys(TERMS, 1.0) | {"perceptual": str(checkpoint(tmp_path))}
    loss = ReconstructionLoss(prepared(HumanML3DFeatures()), {}, **dict.fromkeys(TERMS, 1.0))
    judged = ReconstructionLoss(prepared(), {}, **weights)
    for each, dim in ((loss, 263), (judged, 66)):
        reconstruction, features = pair(dim)
        expected, terms = each(reconstruction.bfloat16().float(), features, MASK)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, others = each(reconstruction.bfloat16(), features, MASK)
        assert value.dtype == torch.float32 and value == expected and others == terms


def test_perceptual_distance_is_that_of_the_frozen_encoder(tmp_path):
    file = checkpoint(tmp_path)
    representation, judge = prepared(), VQTokenizer.load_from_checkpoint(file).eval()
    loss = ReconstructionLoss(representation, {}, perceptual=str(file), perceptual_weight=0.5)
    reconstruction, features = pair()
    value, terms = loss(reconstruction, features, MASK)
    # its own statistics, not ours; its steps of two frames: all four, the first three and the first one are real
    raw = [representation.denormalize(x) for x in (torch.where(MASK[..., None], reconstruction, features), features)]
    frames = torch.arange(8) < torch.tensor([8, 6, 2])[:, None]
    mine, theirs = (judge.encoder((x - 0.5) / 2.0, frames) for x in raw)
    expected = (mine - theirs).square()[frames[:, ::2]].mean()
    assert float(terms["perceptual"]) == pytest.approx(float(expected), rel=1e-5) and expected > 0
    assert float(value) == pytest.approx(float(terms["features"] + 0.5 * expected), rel=1e-5)
    assert float(loss(features, features, MASK)[1]["perceptual"]) == 0


def test_the_frozen_encoder_sleeps_outside_the_model(tmp_path):
    loss = ReconstructionLoss(prepared(), {}, perceptual=str(checkpoint(tmp_path)))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    reconstruction, features = pair()
    loss.train()(reconstruction.requires_grad_(), features, MASK)[0].backward()
    assert torch.equal(torch.get_rng_state(), before)  # loading it draws nothing from a resumed run's randomness
    assert not loss.state_dict() and not list(loss.parameters()) and not list(loss.modules())[1:]
    for module in loss._perceptual._frozen:
        assert not module.training and not any(p.requires_grad or p.grad is not None for p in module.parameters())


def test_a_judge_of_other_features_is_refused_and_so_is_none(tmp_path):
    reconstruction, features = pair()
    missing = ReconstructionLoss(prepared(), perceptual="nowhere.ckpt")  # is built: a trained tokenizer needs no judge
    with pytest.raises(ValueError, match=r"nowhere.ckpt does not exist; name a tokenizer .* or do without"):
        missing(reconstruction, features, MASK)
    without = ReconstructionLoss(prepared(), perceptual="nowhere.ckpt", perceptual_weight=0.0)
    assert "perceptual" not in without(reconstruction, features, MASK)[1]
    other = ReconstructionLoss(prepared(), perceptual=str(checkpoint(tmp_path, "HumanML3DFeatures")))
    with pytest.raises(ValueError, match=r"reads HumanML3DFeatures\(.*not JointPositions"):
        other(reconstruction, features, MASK)
