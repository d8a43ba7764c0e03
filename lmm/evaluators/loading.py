"""An evaluator by the file that describes it: a checkpoint that was trained here, or a YAML that names a class."""

from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from lmm.evaluators.base import Evaluator


def load_evaluator(where: str) -> Evaluator:
    """The evaluator that a file describes.

    A ``.ckpt`` is what ``lmm fit --config evaluator.yaml`` wrote. A ``.yaml`` says ``class_path`` and ``init_args`` of
    an `Evaluator`, ours or your own, as configs/evaluator/guo_t2m.yaml does; the paths in it are seen from the folder
    in which the program runs.

    Raises:
        ValueError: no such file, another ending, or a YAML that describes no evaluator.
    """
    path = Path(where)
    if path.suffix not in (".ckpt", ".yaml"):
        raise ValueError(
            f"{path}: an evaluator is a .ckpt (of `lmm fit --config evaluator.yaml`) or a .yaml that names one"
        )
    if not path.is_file():
        remedy = (
            "train one with `lmm fit --config evaluator.yaml`" if path.suffix == ".ckpt" else "see configs/evaluator/"
        )
        raise ValueError(f"{path}: there is no such file; {remedy}")
    if path.suffix == ".ckpt":
        from lmm.evaluators.learned import LearnedEvaluator

        return LearnedEvaluator(str(path))
    return _described(path)


def _described(path: Path) -> Evaluator:
    """What a YAML names."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--evaluator", type=Evaluator, required=True)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "class_path" not in content:
            raise ValueError("it has no class_path")
        config = parser.parse_object({"evaluator": content})
    except (yaml.YAMLError, ValueError, ArgumentError) as error:
        raise ValueError(
            f"{path} describes no evaluator: {error}\nwrite class_path, a class of lmm.evaluators or your own (one in "
            "the current folder is found with LMM_IMPORT=module), and its arguments under init_args"
        ) from None
    return parser.instantiate_classes(config).evaluator
