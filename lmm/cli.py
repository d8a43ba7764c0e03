"""``lmm fit | validate | test | predict``: one LightningCLI, one link (the data's representation goes to the model).

Where Lightning's defaults would surprise: a checkpoint never overrides the config or the command line; a run's folder
(``trainer.default_root_dir``) is laid out by `lmm.runs`; ``validate``, ``test`` and ``predict`` use the run's last
checkpoint unless told otherwise; an LLM's missing motion tokens are written first; the end says what to type next.
"""

import inspect
import json
import logging
import shlex
import warnings
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback, _get_module_type, _InstantiatorFn
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

import lmm.tokenizers  # noqa: F401
from lmm.data.motions import MotionDataModule
from lmm.data.sources import Procedural  # short class names in configs resolve to what is imported
from lmm.data.tokens import TokenDataModule
from lmm.evaluation.testing import Evaluation, TestEvaluation
from lmm.evaluators.contrastive import ContrastiveModel
from lmm.llm.base import MotionLanguageModel
from lmm.llm.checkpoint import load_motion_tokenizer
from lmm.llm.throughput import Throughput
from lmm.motion.representations import HumanML3DFeatures
from lmm.runs import LastCheckpoint, RunRecord, claim, last_checkpoint
from lmm.tokenizers.base import MotionTokenizer
from lmm.training import StepSeed, find_class
from lmm.writers import MotionWriter, TokenWriter

# What llm_lora.yaml says by itself; the command that is printed as next names what differs.
DEFAULTS = {"source": Procedural, "representation": HumanML3DFeatures, "cache": "runs/cache"}


def main() -> None:
    """Run the command line in ``sys.argv``."""
    for logger, noise in (("utilities.rank_zero", "Tip"), ("trainer.connectors.checkpoint_connector", "weights_only")):
        logging.getLogger(f"lightning.pytorch.{logger}").addFilter(_Without(noise))
    # Few workers are right for a packed store, and a frozen tokenizer is meant to be in eval mode.
    for noise in ("num_workers", "does not have many workers", "LeafSpec", "treespec", "in eval mode"):
        warnings.filterwarnings("ignore", message=f".*{noise}.*")
    torch.set_float32_matmul_precision("high")
    LmmCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=_SaveConfig,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
    )


class LmmCLI(LightningCLI):
    """See the module's docstring."""

    _claim: IO[str] | None = None

    def add_arguments_to_parser(self, parser: Any) -> None:
        """The one link, and how often a run is saved."""
        parser.link_arguments("data.representation", "model.init_args.representation", apply_on="instantiate")
        parser.add_argument(
            "--save_every", type=int, default=500, help="Optimizer steps between saves of checkpoints/last.ckpt."
        )
        parser.add_class_arguments(Evaluation, "evaluation")

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        instantiator = _PlainHyperparameters(cli=self, key="model")
        self.parser.add_instantiator(instantiator, _get_module_type(self._model_class), subclasses=True)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's arguments override what was typed; we do not."""

    @property
    def _settings(self) -> Any:
        return self.config[self.subcommand]

    @property
    def _folder(self) -> Path:
        return Path(self._settings.trainer.default_root_dir or "runs/unnamed")

    @property
    def _seed(self) -> int:
        seed = self._settings.get("seed_everything")
        return 0 if isinstance(seed, bool) or seed is None else seed

    def before_instantiate_classes(self) -> None:
        """Resolve ``--ckpt_path`` to a file and check what it holds; draws of the data follow ``--seed_everything``."""
        settings, last = self._settings, last_checkpoint(self._folder)
        if settings.get("ckpt_path") in ("last", None) and (self.subcommand != "fit" or settings.get("ckpt_path")):
            if not last.exists():
                raise ValueError(f"there is no checkpoint at {last}; train first (`lmm fit`) or give --ckpt_path FILE")
            settings.ckpt_path = str(last)
        settings.weights_only = True  # no pickle from strangers
        data: Any = settings.data.get("init_args") or {}
        if "seed" in data and data.seed is None:
            data.seed = self._seed
        path = settings.get("ckpt_path")
        if path and not Path(path).exists():
            raise ValueError(f"--ckpt_path {path}: there is no such file")
        if path:
            _check_kind(Path(path), settings.model.class_path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks and the logger that make the run's folder."""
        folder = self._folder
        ours: list[Any] = [StepSeed(self._seed)]
        if self.subcommand == "fit":
            ours.append(LastCheckpoint(folder, self._settings.save_every))
            if isinstance(self.model, MotionLanguageModel):
                ours.append(Throughput())
            if self._settings.trainer.logger is None:
                kwargs["logger"] = TensorBoardLogger(str(folder), name="", version="")
        else:
            kwargs |= {"logger": False, "enable_checkpointing": False}
            if self.subcommand == "test" and self._settings.evaluation.evaluator:
                ours.append(TestEvaluation(folder, Evaluation(**self._settings.evaluation)))
        if self.subcommand != "predict":
            ours.append(RunRecord(folder))
        else:
            writers = {MotionTokenizer: TokenWriter, MotionLanguageModel: MotionWriter}
            names = {MotionTokenizer: "tokens", MotionLanguageModel: "motions"}
            ours += [writers[k](str(folder / names[k])) for k in writers if isinstance(self.model, k)]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": ours}
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        tokens, language = isinstance(self.datamodule, TokenDataModule), isinstance(self.model, MotionLanguageModel)
        if tokens != language and isinstance(self.model, MotionLanguageModel | MotionTokenizer | ContrastiveModel):
            raise ValueError(
                f"{type(self.model).__name__} does not train on what {type(self.datamodule).__name__} gives: "
                "tokenizers and evaluators take a MotionDataModule, language models a TokenDataModule"
            )
        if subcommand == "predict" and isinstance(self.model, ContrastiveModel):
            raise ValueError("an evaluator predicts nothing; `lmm test` says how well captions find their motions")
        if language and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._introduce(subcommand)
        if subcommand == "predict":
            self.config_init[subcommand].return_predictions = False  # a writer takes them; memory must not
        try:
            super()._run_subcommand(subcommand)
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            first = str(error).splitlines()[1].strip()
            raise ValueError(
                f"{self._settings.ckpt_path} does not fit the model that is configured here ({first}); give the config "
                "it was trained with"
            ) from None
        finally:
            if self._claim:
                self._claim.close()

    def before_fit(self) -> None:
        """Refuse what can be refused before an earlier run is moved aside and this one begins."""
        if rank_zero_only.rank == 0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
            self.datamodule.train_dataloader()
            path = self._settings.get("ckpt_path")
            resume = bool(path) and Path(path).resolve().is_relative_to(self._folder.resolve())
            self._claim = claim(self._folder, resume=resume)

    def _introduce(self, subcommand: str) -> None:
        """Make sure that the data's features and tokens are those of the language model's motion tokenizer."""
        model, data = self.model, self.datamodule
        tokenizer, _ = load_motion_tokenizer(model.tokenizer)
        if tokenizer.representation.settings != data.representation.settings:
            raise ValueError(
                f"{model.tokenizer} reads {tokenizer.representation.settings}, the data gives "
                f"{data.representation.settings}; set --data.representation to what the tokenizer was trained on"
            )
        if subcommand not in ("fit", "validate"):
            return
        data.prepare_data()
        if not data.tokens_ready():
            print(f"no tokens of this data set in {data.tokens} yet: encoding it with {model.tokenizer}")
            encode = Trainer(
                callbacks=[TokenWriter(str(data.tokens))], logger=False, enable_checkpointing=False, devices=1
            )
            motions = MotionDataModule(data.source, data.representation, batch_size=64, cache=str(data.cache))
            encode.predict(tokenizer, datamodule=motions, return_predictions=False)
        model.check_tokens(data.token_spec, str(data.tokens))

    @rank_zero_only
    def after_fit(self) -> None:
        """Where the result lies and what to type next."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last = last_checkpoint(self._folder)
        print(f"\ncheckpoint: {last}\nmetrics:    {self._folder / 'metrics.jsonl'}")
        print(f"look:       tensorboard --logdir {self._folder}")
        if isinstance(self.model, MotionTokenizer):
            words = ["lmm", "fit", "--config", "llm_lora.yaml"]
            if self._folder != Path("runs/tokenizer_lfq2d"):
                words += ["--model.tokenizer", str(last), "--data.tokens", str(self._folder / "tokens")]
            data = self.config_dump["data"]["init_args"]
            for name, default in DEFAULTS.items():
                if not _is_default(data[name], default):
                    words += [f"--data.{name}", data[name] if isinstance(data[name], str) else json.dumps(data[name])]
            print(f"next:       lmm validate --config {self._folder / 'config.yaml'}\n            {shlex.join(words)}")
        elif isinstance(self.model, MotionLanguageModel):
            print(f'next:       lmm generate "a person walks in a circle" --model {last} -o walk.html')
        elif isinstance(self.model, ContrastiveModel):
            config = self._folder / "config.yaml"
            print(f"next:       lmm test --config {config}")
            print(f"            lmm evaluate FOLDER --evaluator {last} --data {config}")


def _is_default(setting: Any, default: Any) -> bool:
    """Whether a setting is the default: a plain value, or a class with the defaults of its arguments."""
    if not isinstance(default, type):
        return setting == default
    arguments = {p.name: p.default for p in inspect.signature(default).parameters.values()}
    return setting["class_path"].endswith(f".{default.__name__}") and setting.get("init_args", {}) == arguments


class _Without(logging.Filter):
    """Drop messages that contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


class _PlainHyperparameters(_InstantiatorFn):
    """A checkpoint stores plain arguments: the linked representation as it was configured, and only where accepted."""

    def __call__(self, class_type: Any, *args: Any, applied_instantiation_links: dict, **kwargs: Any) -> Any:
        self.cli._dump_config()
        plain = self.cli.config_dump["data"]["init_args"].get("representation")
        links = {key: plain for key in applied_instantiation_links if key.rpartition(".")[2] in kwargs}
        return super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)


class _SaveConfig(SaveConfigCallback):
    """Only training writes ``config.yaml``, and not which checkpoint it began from: the next command has its own."""

    def __init__(self, parser: Any, config: Any, **kwargs: Any) -> None:
        config = config.clone()
        config.ckpt_path = config.weights_only = None
        super().__init__(parser, config, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


def _check_kind(path: Path, class_path: str) -> None:
    """Refuse a checkpoint of another kind before anything is built."""
    if path.is_dir():
        return  # sharded: torch checks the names of its parts
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that `lmm fit` wrote ({error})") from None
    kind = checkpoint.get("hyper_parameters", {}).get("_class_path")
    if not kind or find_class(kind) is not find_class(class_path):
        raise ValueError(f"{path} holds a {kind}, but the config asks for a {class_path}; give the matching config")
