"""``lmm VERB ...``: find the verb, import only what it needs. This file never imports torch.

``fit | validate | test | predict`` go to the one LightningCLI (`lmm.cli`); the short verbs are plain typed functions in
`lmm.commands`, parsed by jsonargparse. ``--config NAME`` is looked up before anything is imported.
"""

import difflib
import importlib
import inspect
import os
import sys

from lmm.command_line import call, config_names, find_configs, plain_words

VERBS = {
    "fit": ("lmm.cli:main", "train a tokenizer or a language model: lmm fit --config tokenizer_vq.yaml"),
    "validate": ("lmm.cli:main", "measure a trained model on the validation split"),
    "test": ("lmm.cli:main", "measure a trained model on the test split"),
    "predict": ("lmm.cli:main", "encode a data set to tokens, or generate a motion for each caption of the test split"),
    "generate": ("lmm.language:generate", 'make motions from a sentence: lmm generate "a person waves" -o wave.html'),
    "describe": ("lmm.language:describe", "say what a motion shows: lmm describe walk.bvh"),
    "export": ("lmm.llm.export:export", "for other programs, or a small adapter: lmm export MODEL -o FOLDER"),
    "consolidate": ("lmm.llm.sharding:consolidate", "one file of a sharded checkpoint: lmm consolidate FOLDER -o FILE"),
    "evaluate": ("lmm.evaluation.evaluate:evaluate", "score folders of motions from any system beside real motion"),
    "audit-evaluator": ("lmm.evaluation.audit:audit_evaluator", "measure an evaluator before it is trusted"),
    "reconstruct": ("lmm.commands:reconstruct", "see what a tokenizer keeps: lmm reconstruct walk.npz -o walk.html"),
    "render": ("lmm.commands:render", "draw motion files: lmm render walk.npz -o walk.html"),
    "convert": ("lmm.convert:convert", "from any motion format to any other: lmm convert walk.bvh walk.glb"),
    "import tokenizer": ("lmm.tokenizers.peers:import_tokenizer", "read T2M-GPT's, MoMask's or MotionGPT's tokenizer"),
    "demo": ("lmm.demo:demo", "run the whole chain on the embedded data and write a report"),
    "data demo": ("lmm.commands:data_demo", "write the embedded data set: lmm data demo OUT"),
    "data import": ("lmm.data_import:data_import", "read raw recordings: lmm data import bvh FOLDER -o OUT"),
    "data check": ("lmm.data.check:check", "examine a data set before training on it: lmm data check FOLDER"),
}


def main() -> None:
    """Entry point of the console script."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        from lmm import __version__

        print(f"lmm {__version__}")
        return
    if mine := os.environ.get("LMM_IMPORT"):  # modules with a user's own classes, so that checkpoints may name them
        sys.path.insert(0, os.getcwd())
        for name in mine.split(","):
            importlib.import_module(name)
    verb = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(" ".join(words[:2]), VERBS, n=1) or difflib.get_close_matches(verb, VERBS, n=1)
        sys.exit(f"lmm: no verb {verb!r}" + (f"; did you mean `lmm {near[0]}`?" if near else "") + f"\n\n{usage()}")
    rest = words[len(verb.split()) :]
    module, function = VERBS[verb][0].split(":")
    try:
        if module == "lmm.cli":
            rest = [verb, *find_configs(rest)]
        sys.argv = [sys.argv[0], *rest]  # Lightning starts further processes from sys.argv
        run = getattr(importlib.import_module(module), function)
        if module == "lmm.cli":
            run()
        elif list(inspect.signature(run).parameters) == ["words"]:
            run(plain_words(rest))
        else:
            call(run, plain_words(rest), f"lmm {verb}")
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("LMM_TRACEBACK"):
            raise
        sys.exit(f"lmm {verb}: {error}\n(set LMM_TRACEBACK=1 to see where)")


def usage() -> str:
    """The verbs, one line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        ["usage: lmm VERB [options]        (lmm VERB --help tells a verb's options)", "", *lines, "", "configs: "]
        + [f"  {name}" for name in config_names()]
    )


if __name__ == "__main__":
    main()
