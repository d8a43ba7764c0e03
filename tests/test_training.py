import math
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import LightningModule

from lmm.training import Optimization, find_class, load_module


def test_warm_up_then_cosine():
    module = LightningModule()
    module.weight = torch.nn.Parameter(torch.zeros(3))
    module.frozen = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
    module.trainer = type("T", (), {"estimated_stepping_batches": 100})()
    built = Optimization(lr=2.0, warmup_steps=10, final_lr=0.1).build(module)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]  # what is frozen is not optimized
    rates = []
    for _ in range(101):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.2 and rates[9] == 2.0 and max(rates) == 2.0
    assert math.isclose(rates[55], 2 * (0.1 + 0.9 * 0.5)) and math.isclose(rates[100], 0.2)
    assert all(a >= b for a, b in pairwise(rates[9:]))


def test_only_known_classes_are_built():
    assert find_class("lmm.tokenizers.VQTokenizer").__name__ == "VQTokenizer"
    for name, message in (
        ("subprocess_of_a_stranger.Popen", "none of lmm's"),
        ("lmm.tokenizers.Path", "does not have"),
        ("os.system", "does not have"),
    ):
        with pytest.raises(ValueError, match=message):
            find_class(name)


def test_newer_and_foreign_checkpoints(tmp_path):
    hyper_parameters = {"_class_path": "lmm.tokenizers.VQTokenizer"}
    torch.save({"hyper_parameters": hyper_parameters, "lmm_format": 99, "state_dict": {}}, tmp_path / "new.ckpt")
    with pytest.raises(ValueError, match="newer version"):
        load_module(tmp_path / "new.ckpt", LightningModule)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint that"):
        load_module(tmp_path / "foreign.ckpt", LightningModule)
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_module(tmp_path / "none.ckpt", LightningModule)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_8_bit_moments_give_nearly_the_steps_of_32(optimizer):
    weights = []
    for name in ("adamw", optimizer):
        module = LightningModule()
        module.weight = torch.nn.Parameter(torch.ones(64, 128))
        module.trainer = type("T", (), {"estimated_stepping_batches": 100})()
        built = Optimization(lr=1e-2, warmup_steps=0, weight_decay=0.1, optimizer=name).build(module)
        draw = torch.Generator().manual_seed(0)
        for _ in range(5):
            module.weight.grad = torch.randn(64, 128, generator=draw)
            built["optimizer"].step()
            built["lr_scheduler"]["scheduler"].step()
        weights.append(module.weight.detach() - 1)
    exact, near = weights
    assert 0 < float((near - exact).norm() / exact.norm()) < 0.05
