"""FSDP2 on two gloo processes: the same training as on one, and checkpoints that fit either."""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from lmm.batch import MotionBatch, TokenBatch
from lmm.llm.base import MotionLanguageModel
from lmm.llm.frozen import FrozenFinetune
from lmm.llm.full import FullFinetune
from lmm.llm.lora import LoRAFinetune
from lmm.llm.sharding import FullyShardedStrategy, consolidate
from lmm.training import Optimization, load_module
from tests.llm.conftest import checkpoint_of, make_batch

STEPS, SAVED = 4, 2
FAST = Optimization(lr=1e-3, warmup_steps=0, final_lr=0.5)  # a schedule, so that resuming has to bring it back
ADAPTERS = {"rank": 4, "dropout": 0.0}
FOLDER = {"save_distributed_checkpoint": True}
# class, backbone, its arguments, the strategy's
CASES = {
    "full": (FullFinetune, "llama", {}, {}),
    "full, tied": (FullFinetune, "llama-tied", {}, FOLDER),
    "full, offloaded": (FullFinetune, "llama", {}, {"cpu_offload": True}),
    "lora": (LoRAFinetune, "llama", ADAPTERS, FOLDER),
    "lora, tied": (LoRAFinetune, "llama-tied", ADAPTERS | {"gradient_checkpointing": True}, {}),
    "qlora": (LoRAFinetune, "llama", ADAPTERS | {"dtype": "nf4", "compute_dtype": "float32"}, {}),
    "qlora, tied": (LoRAFinetune, "llama-tied", ADAPTERS | {"dtype": "nf4", "compute_dtype": "float32"}, FOLDER),
    "frozen": (FrozenFinetune, "llama", {}, {}),
}


class Watch(Callback):
    """The losses of a run with the ids they are the means of, and a checkpoint in the middle of it."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.losses = path, []

    def on_train_batch_start(self, trainer, *_) -> None:
        torch.manual_seed(trainer.global_step)  # not by rank, so that the same clip reads the same text everywhere

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.losses.append((float(trainer.callback_metrics["train/loss"]), pl_module.work.labelled))
        if self.path and trainer.global_step == SAVED:
            trainer.save_checkpoint(self.path)


def make_model(name: str, tokenizer: str, backbones: dict[str, str]) -> MotionLanguageModel:
    cls, backbone, options, _ = CASES[name]
    torch.manual_seed(0)  # adapters begin at random
    return cls(tokenizer, backbones[backbone], optimization=FAST, **options)


def make_trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
             "enable_model_summary": False, "use_distributed_sampler": False}  # fmt: skip
    return Trainer(**{"accelerator": "cpu"} | quiet | options)


def fit(model, batches, path=None, *, start=None, **options) -> tuple[Trainer, list[tuple[float, int]]]:
    watch = Watch(path)
    trainer = make_trainer(max_steps=STEPS, gradient_clip_val=0.5, callbacks=[watch], **options)
    if start:  # a plain list does not know how far the run came
        batches = batches[SAVED:] + batches[:SAVED]
    trainer.fit(model, DataLoader(batches, batch_size=None), ckpt_path=start)
    return trainer, watch.losses


def two(**strategy) -> dict:
    return {"devices": 2, "strategy": FullyShardedStrategy(**strategy)}


def batches_of(*ranks: int) -> list[TokenBatch]:
    """One for each step, with another number of ids on each rank."""
    batches = []
    for step in range(STEPS):
        parts = [make_batch(4, steps=(3 + 2 * rank, 4 + 2 * rank), seed=10 * step + rank) for rank in ranks]
        lines = [tokens[mask] for part in parts for tokens, mask in zip(part.tokens, part.mask, strict=True)]
        tokens = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=-1)
        ids, texts = (sum((getattr(p, name) for p in parts), []) for name in ("ids", "texts"))
        batches.append(TokenBatch(tokens, tokens[..., 0] >= 0, ids, texts))
    return batches


def motions_of(rank: int) -> MotionBatch:
    """A sample is drawn by its clip's name, so the motions differ in length."""
    return MotionBatch(torch.zeros(1, 24, 66), torch.ones(1, 24, dtype=torch.bool), [f"clip{rank}"], ["hops"])


def whole(model: MotionLanguageModel) -> dict[str, torch.Tensor]:
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return {name: p.full_tensor() if isinstance(p, DTensor) else p.clone() for name, p in trained.items()}


def join(rank: int, world: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                   "LOCAL_WORLD_SIZE": str(world), "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "x"}  # fmt: skip
    torch.set_num_threads(1)


def work(rank: int, folder: Path, tokenizer: str, backbones: dict[str, str]) -> None:
    join(rank, 2, 29541)
    results = {}
    for name, (*_, strategy) in CASES.items():
        model = make_model(name, tokenizer, backbones)
        trainer, losses = fit(model, batches_of(rank), folder / f"{name}.ckpt", **two(**strategy))
        trainer.save_checkpoint(folder / f"{name} end.ckpt")
        results[name] = {"losses": losses, "end": whole(model)}
        parameters = list(model.llm.parameters())
        results[name]["share"] = sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)
        model = make_model(name, tokenizer, backbones)
        _, losses = fit(model, batches_of(rank), start=folder / f"{name}.ckpt", **two(**strategy))
        results[name]["resumed"] = {"losses": losses, "end": whole(model)}
    results["more"] = more(rank, folder, tokenizer, backbones)
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def more(rank: int, folder: Path, tokenizer: str, backbones: dict[str, str]) -> dict:
    out, batches, backbone = {}, batches_of(rank), backbones["llama"]
    model = make_model("lora, tied", tokenizer, backbones)
    out["from one"] = fit(model, batches, start=folder / "one.ckpt", **two())[1]
    # 16-bit weights, float32 adapters, 16-bit products; then validation
    model = LoRAFinetune(tokenizer, backbone, dtype="bfloat16", optimization=FAST, **ADAPTERS)
    trainer, out["bf16-mixed"] = fit(model, batches, precision="bf16-mixed", **two())
    (metrics,) = trainer.validate(model, DataLoader(batches[:2], batch_size=None), verbose=False)
    out["val/loss"] = metrics["val/loss"]
    model = make_model("full", tokenizer, backbones)
    made = make_trainer(**two()).predict(model, DataLoader([motions_of(rank)], batch_size=None))
    out["predicted"] = [p.motion.joints for batch in made for p in batch]

    plain = {"devices": 2, "strategy": ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)}
    with pytest.raises(ValueError, match=r"strategy/fsdp2.yaml"):
        fit(make_model("full", tokenizer, backbones), batches, **plain)
    with pytest.raises(ValueError, match="cannot update sharded weights"):
        fit(FullFinetune(tokenizer, backbone, optimization=Optimization(optimizer="adamw_8bit")), batches, **two())
    with pytest.raises(ValueError, match="int8 weights"):
        fit(LoRAFinetune(tokenizer, backbone, dtype="int8"), batches, **two())
    for name in ("lora", "qlora"):  # a folder, a file
        model = LoRAFinetune(tokenizer, backbone, target_modules=["q_proj"])
        with pytest.raises(ValueError, match=r"does not fit this model: .*\(4, 64\) there, \(16, 64\) here"):
            fit(model, batches, start=folder / f"{name}.ckpt", **two())
    return out


@pytest.fixture(scope="module")
def pair(backbones, tokenizer_file, tmp_path_factory):
    """What two processes did, all cases in one start."""
    folder = tmp_path_factory.mktemp("ranks")
    fit(make_model("lora, tied", tokenizer_file, backbones), batches_of(0, 1), folder / "one.ckpt")
    context = torch.multiprocessing.start_processes(
        work, (folder, tokenizer_file, backbones), nprocs=2, join=False, start_method="fork"
    )
    deadline = time.monotonic() + 400
    while not context.join(timeout=1):
        assert time.monotonic() < deadline, "the ranks wait for each other"
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def mean(*runs: list[tuple[float, int]]) -> list[float]:
    """Losses over all ids of all ranks."""
    return [sum(loss * ids for loss, ids in step) / sum(ids for _, ids in step) for step in zip(*runs, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_the_doubled_batch(pair, backbones, tokenizer_file, name):
    _, results = pair
    model = make_model(name, tokenizer_file, backbones)
    _, losses = fit(model, batches_of(0, 1))
    assert mean(*(r[name]["losses"] for r in results)) == pytest.approx(mean(losses), abs=1e-4)
    assert losses[-1] < losses[0]
    for result in results:
        assert result[name]["share"] == pytest.approx(0.5, abs=0.01)  # of every parameter, frozen or not
        for key, value in whole(model).items():
            assert torch.allclose(result[name]["end"][key], value, atol=1e-4), key


@pytest.mark.parametrize("name", CASES)
def test_resuming_repeats_the_uninterrupted_run(pair, name):
    folder, results = pair
    assert (folder / f"{name}.ckpt").is_dir() == (CASES[name][3] == FOLDER)
    for result in results:
        resumed = result[name]["resumed"]
        assert resumed["losses"] == result[name]["losses"][SAVED:]
        assert resumed["end"].keys() == result[name]["end"].keys()
        for key, value in result[name]["end"].items():
            assert torch.equal(resumed["end"][key], value), key


@pytest.mark.parametrize("name", CASES)
def test_one_process_takes_the_checkpoint(pair, backbones, tokenizer_file, name, tmp_path):
    """It loads, holds what trains alone, and one process goes on as two did."""
    folder, results = pair
    middle, end = folder / f"{name}.ckpt", folder / f"{name} end.ckpt"
    if CASES[name][3] == FOLDER:
        with pytest.raises(ValueError, match="lmm consolidate"):
            load_module(end, MotionLanguageModel)
        for path in (middle, end):
            consolidate(str(path), str(tmp_path / path.name))
        with pytest.raises(ValueError, match="already there"):
            consolidate(str(middle), str(tmp_path / middle.name))
        middle, end = tmp_path / middle.name, tmp_path / end.name
    loaded, saved = load_module(end, MotionLanguageModel), checkpoint_of(end)["state_dict"]
    assert set(saved) == set(results[0][name]["end"])
    for key, value in results[0][name]["end"].items():
        assert torch.equal(loaded.get_parameter(key), value) and torch.equal(saved[key], value), key
    (motion,) = loaded.generate(["hops"], seconds=1.0)[0]
    assert motion.num_frames == 20
    model = make_model(name, tokenizer_file, backbones)
    _, losses = fit(model, batches_of(0, 1), start=middle)
    assert mean(losses) == pytest.approx(mean(*(r[name]["losses"] for r in results))[SAVED:], abs=1e-4)
    for key, value in whole(model).items():
        assert torch.allclose(results[0][name]["end"][key], value, atol=1e-4), key


def test_other_precisions_stages_and_starts(pair, backbones, tokenizer_file):
    _, results = pair
    for rank, result in enumerate(results):
        more = result["more"]
        assert mean(more["from one"]) == pytest.approx(mean(result["lora, tied"]["losses"])[SAVED:], abs=1e-4)
        assert mean(more["bf16-mixed"]) == pytest.approx(mean(result["lora"]["losses"]), abs=0.05)
        assert more["val/loss"] == results[0]["more"]["val/loss"]
        model = make_model("full", tokenizer_file, backbones)
        ((alone,),) = make_trainer().predict(model, DataLoader([motions_of(rank)], batch_size=None))
        assert torch.allclose(alone.motion.joints, more["predicted"][0], atol=1e-4)
    assert len(results[0]["more"]["predicted"][0]) != len(results[1]["more"]["predicted"][0])  # nobody waited


def test_what_is_no_folder_of_pieces_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a sharded checkpoint"):
        consolidate(str(tmp_path), str(tmp_path / "a.ckpt"))


def work_on_gpus(rank: int, world: int, folder: Path, tokenizer: str, backbones: dict[str, str]) -> None:
    join(rank, world, 29542)
    losses = {}
    for name in ("full", "full, offloaded", "lora", "qlora"):
        model, batches = make_model(name, tokenizer, backbones), batches_of(*range(rank, 2, world))
        strategy = FullyShardedStrategy(**CASES[name][3])
        options = {"devices": world, "strategy": strategy, "accelerator": "gpu"}
        _, losses[name] = fit(model, batches, folder / f"{name}.ckpt", **options)
    torch.save(losses, folder / f"{rank}.pt")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="nccl, offloading and 4-bit kernels need a GPU")
def test_gpus_train_as_processors_do(pair, backbones, tokenizer_file, tmp_path):
    world = min(torch.cuda.device_count(), 2)
    arguments = (world, tmp_path, tokenizer_file, backbones)
    torch.multiprocessing.start_processes(work_on_gpus, arguments, nprocs=world, start_method="spawn")
    losses = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for name in losses[0]:
        processors = mean(*(r[name]["losses"] for r in pair[1]))
        assert mean(*(loss[name] for loss in losses)) == pytest.approx(processors, abs=1e-2)
