"""``lmm test --evaluation.evaluator E``: predictions for the test split, written clip by clip, then scored.

Below the run's folder, ``<split>/<task>/predictions/`` is a folder that `lmm evaluate` reads as well, and ``scores/``
beside it what it writes. An interrupted test goes on where it was. Under several processes each writes its share and
the first one scores.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from lmm.data.motions import MotionDataModule
from lmm.evaluation.answers import Question, completions, descriptions, generations, reconstructions
from lmm.evaluation.evaluate import STANDARD_REPEATS, instrument, score
from lmm.evaluation.predictions import Predictions, PredictionWriter, Record, describe_representation
from lmm.evaluation.protocol import Protocol
from lmm.evaluation.scoring import Judge
from lmm.llm.base import MotionLanguageModel
from lmm.llm.drawing import Drawing
from lmm.metrics.captions import caption_scores
from lmm.tokenizers.base import MotionTokenizer

BATCH = 32
GENERATIONS = 30  # motions of a caption, for multimodality


@dataclass(frozen=True)
class Evaluation:
    """How `lmm test` judges what a model makes.

    Args:
        evaluator: checkpoint of `lmm fit --config evaluator.yaml`, or a YAML such as evaluator/guo_t2m.yaml; None: only
            the figures of `lmm validate`.
        protocol: standard or deterministic (see `lmm.evaluation.protocol`).
        repeats: of a language model, each generated anew; None for the protocol's 20 or 1.
        task: of a language model; a tokenizer reconstructs.
        length: predicted: a motion is as long as the model makes it; ground_truth: as long as the clip.
        multimodality: so many captions get 30 motions each (100 in the standard protocol).
        temperature: of the draws.
        top_k: draw among so many likeliest ids; 0: all.
        top_p: draw among the likeliest ids that hold this much probability.
        guidance: of classifier-free guidance; 1: none.
        seed: of captions, crops and draws.
    """

    evaluator: str | None = None
    protocol: Literal["standard", "deterministic"] = "standard"
    repeats: int | None = None
    task: Literal["text_to_motion", "prediction", "in_between", "motion_to_text"] = "text_to_motion"
    length: Literal["predicted", "ground_truth"] = "predicted"
    multimodality: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.drawing.check()

    @property
    def drawing(self) -> Drawing:
        """How ids are drawn."""
        return Drawing(self.temperature, self.top_k, self.top_p, self.guidance)


class TestEvaluation(Callback):
    """Predicts and scores when the test loop has ended.

    Args:
        folder: the run's.
        evaluation: what to do.
    """

    __test__ = False  # not pytest's

    def __init__(self, folder: Path, evaluation: Evaluation) -> None:
        self.folder, self.evaluation = folder, evaluation
        self._judge: Judge | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the evaluator, so that what cannot be judged is refused before anything is generated."""
        data, asked = _motions(trainer), self.evaluation
        if not isinstance(pl_module, MotionTokenizer | MotionLanguageModel):
            raise ValueError(f"--evaluation judges tokenizers and language models, not a {type(pl_module).__name__}")
        assert asked.evaluator is not None
        repeats = asked.repeats or (STANDARD_REPEATS if asked.protocol == "standard" else 1)
        protocol = Protocol(asked.protocol, repeats, asked.seed)
        evaluator = instrument(asked.evaluator).to(pl_module.device)
        self._judge = Judge(evaluator, data.source, split=data.test_split, protocol=protocol, cache=data.cache)

    @torch.no_grad()
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is not there yet, wait for all, score."""
        assert self._judge is not None
        whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if isinstance(pl_module, MotionLanguageModel) and whole:
            with torch.inference_mode(False):  # the test loop's is on, which remembers too little of what it makes
                pl_module.prepare_for_generation()
        _Writing(self._judge, pl_module, _motions(trainer), self.evaluation, self.folder, trainer).run()


class _Writing:
    """One model's answers to one split."""

    def __init__(
        self,
        judge: Judge,
        model: Any,
        data: MotionDataModule,
        evaluation: Evaluation,
        folder: Path,
        trainer: Trainer,
    ) -> None:
        self.judge, self.model, self.data, self.evaluation, self.trainer = judge, model, data, evaluation, trainer
        self.task = "reconstruction" if isinstance(model, MotionTokenizer) else evaluation.task
        self.name, self.folder = folder.resolve().name, folder / data.test_split / self.task
        rows = {data.store.item(index).id: index for index in data.store.indices(data.test_split).tolist()}
        self.features = {name: data.store.features(rows[name]) for name in judge.ids if name in rows}
        if len(self.features) < len(judge.ids):
            raise ValueError(
                f"the evaluator's features have {len(judge.ids)} clips of split {data.test_split!r}, the model's "
                f"{len(self.features)}: their shortest or longest clips differ; give the source the same limits"
            )

    def run(self) -> None:
        """Everything."""
        if self.task == "motion_to_text":
            return self._describe()
        repeats = 1 if self.task == "reconstruction" else self.judge.protocol.repeats
        if self.trainer.is_global_zero:
            writer = PredictionWriter(self.folder / "predictions", self._record())
        self.trainer.strategy.barrier("record written")
        writer = PredictionWriter(self.folder / "predictions", self._record())
        for repeat in range(repeats):
            look = self.judge.draw(repeat + 1)
            captions = self.judge.captions
            texts = {name: captions[i][look.captions[i]] for i, name in enumerate(self.judge.ids)}
            if self.task == "text_to_motion" and self.trainer.is_global_zero:
                writer.captions(repeat, texts)
            places = {writer.place(name, repeat=repeat): (name, texts[name], f"{repeat}") for name in self.judge.ids}
            self._write(writer, places, f"{self.task}: repeat {repeat + 1} of {repeats}")
        if self.task == "text_to_motion" and self.evaluation.multimodality:
            self._write(writer, self._many(writer), "multimodality")
        self.trainer.strategy.barrier("predictions written")
        if self.trainer.is_global_zero:
            print(score(self.judge, [Predictions(self.folder / "predictions")], self.folder / "scores"))
            print(f"{self.folder / 'scores'}: table.md, table.tex, results.json, raw.jsonl")
        self.trainer.strategy.barrier("scored")

    def _many(self, writer: PredictionWriter) -> dict[Path, tuple[str, str, str]]:
        names = self.judge.ids[: self.evaluation.multimodality]
        if len(names) < self.evaluation.multimodality:
            raise ValueError(f"multimodality of {self.evaluation.multimodality} captions: the split has {len(names)}")
        first = {name: self.judge.captions[i][0] for i, name in enumerate(names)}
        return {
            writer.place(name, sample=k): (name, first[name], f"many/{k}") for name in names for k in range(GENERATIONS)
        }

    def _write(self, writer: PredictionWriter, places: dict[Path, tuple[str, str, str]], what: str) -> None:
        share = list(places)[self.trainer.global_rank :: self.trainer.world_size]  # of all: others write meanwhile
        left = [place for place in share if not place.exists()]
        for number, batch in enumerate(self._batches(left)):
            for place, features in zip(batch, self._answer([self._question(*places[p]) for p in batch]), strict=True):
                writer.write(place, features)
            done = min((number + 1) * BATCH, len(left))
            if self.trainer.is_global_zero and (done == len(left) or sys.stdout.isatty()):
                print(f"\r{what}: {done} of {len(left)} clips", end="\n" if done == len(left) else "", flush=True)

    def _batches(self, places: list[Path]) -> Iterator[list[Path]]:
        for first in range(0, len(places), BATCH):
            yield places[first : first + BATCH]

    def _question(self, name: str, text: str, key: str) -> Question:
        return Question(name, text, self.features[name], f"{self.evaluation.seed}/{key}/{name}")

    def _answer(self, questions: list[Question]) -> list[Tensor]:
        drawing = self.evaluation.drawing
        if self.task == "reconstruction":
            return reconstructions(self.model, questions)
        if self.task == "text_to_motion":
            return generations(self.model, questions, drawing, exact=self.evaluation.length == "ground_truth")
        return completions(self.model, questions, drawing, task=self.task)

    def _describe(self) -> None:
        """Captions of all clips, in one process: they are few and short."""
        if not self.trainer.is_global_zero:
            return
        names, drawing = self.judge.ids, self.evaluation.drawing
        answer = partial(descriptions, self.model, drawing=drawing)
        said: list[str] = []
        for first in range(0, len(names), BATCH):
            said += answer([self._question(name, "", "0") for name in names[first : first + BATCH]])
        scores = caption_scores(said, self.judge.captions, kind="raw")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "captions.json").write_text(json.dumps(dict(zip(names, said, strict=True)), indent=1) + "\n")
        (self.folder / "scores.json").write_text(json.dumps(scores._asdict() | {"made_by": self._made_by()}, indent=1))
        print("\n".join(f"{name:<16}{value}" for name, value in scores._asdict().items()))

    def _record(self) -> Record:
        length = self.evaluation.length if self.task == "text_to_motion" else "ground_truth"
        return Record(self.name, self.task, length, describe_representation(self.data.representation), self._made_by())

    def _made_by(self) -> dict[str, Any]:
        drawn = {key: value for key, value in asdict(self.evaluation).items() if key not in ("evaluator", "repeats")}
        return {"checkpoint_sha256": _sha256(Path(str(self.trainer.ckpt_path))), **drawn}


def _sha256(checkpoint: Path) -> str:
    """Of a checkpoint's content, wherever it lies; of a sharded one, a folder, of its files' digests."""
    if checkpoint.is_dir():
        files = sorted(file for file in checkpoint.rglob("*") if file.is_file())
        return hashlib.sha256("".join(map(_sha256, files)).encode()).hexdigest()
    with checkpoint.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _motions(trainer: Trainer) -> MotionDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, MotionDataModule):
        raise ValueError("--evaluation needs motions to compare with: test on a MotionDataModule or a TokenDataModule")
    return data
