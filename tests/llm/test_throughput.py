"""Ids a second and FLOP, counted by hand."""

import pytest
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lmm.llm.throughput import Throughput, flop_per_id
from tests.llm.conftest import make_batch
from tests.llm.test_finetune import make_model

HIDDEN, INNER, VOCABULARY, MOTION = 64, 192, 320, 14
# q and o are square, k and v half as wide; gate, up, down; two norms a layer, one at the end
BODY = 2 * (HIDDEN * (HIDDEN + 32 + 32 + HIDDEN) + 3 * HIDDEN * INNER + 2 * HIDDEN) + HIDDEN


def test_flop_of_a_llama_by_hand(backbones, tokenizer_file):
    full = make_model("full", tokenizer_file, backbones["llama"])
    full.configure_model()
    assert flop_per_id(full.llm) == (6 * BODY, 6 * HIDDEN * (VOCABULARY + MOTION))
    lora = make_model("lora", tokenizer_file, backbones["llama"])
    lora.configure_model()
    adapters = sum(p.numel() for name, p in lora.llm.named_parameters() if "lora_" in name)
    assert flop_per_id(lora.llm) == (4 * BODY + 6 * adapters, 4 * HIDDEN * VOCABULARY + 6 * HIDDEN * MOTION)


def test_training_says_how_fast_it_is(backbones, tokenizer_file):
    model = make_model("lora", tokenizer_file, backbones["llama"])
    trainer = Trainer(
        max_steps=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        callbacks=[Throughput(peak_tflops=1.0)],
    )
    batch = make_batch()
    trainer.fit(model, DataLoader([batch] * 5, batch_size=None))

    motion = sum(int(mask.sum()) * 2 + 2 for mask in batch.mask)
    assert model.work.labelled == model.work.ids - 4  # all but the first id of each
    assert model.work.ids > motion
    rate, mfu = trainer.callback_metrics["train/ids_per_s"], trainer.callback_metrics["train/mfu"]
    body, head = flop_per_id(model.llm)
    lowest, highest = body, body + head  # of each id
    assert lowest < float(mfu) * 1e12 / float(rate) < highest


def test_a_peak_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        Throughput(peak_tflops=0.0)
