"""What other programs load: the same logits, the same ids, and a folder that says what belongs to what."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)

from lmm.llm.adapter import load_adapter, load_language_model, read_motion_tokenizer
from lmm.llm.export import add_motion_tokens, export, token_names
from lmm.llm.full import FullFinetune
from lmm.llm.vocabulary import MotionVocabulary
from lmm.training import Optimization
from tests.llm.conftest import IDS as SPECIAL
from tests.llm.conftest import TINY, VOCABULARY, make_batch, make_spec, make_tokenizer
from tests.llm.test_finetune import fit, make_model

CODES = 12
ENTRIES = 259  # of the text tokenizer; the models have VOCABULARY rows


@pytest.fixture(scope="module")
def bases(backbones, tmp_path_factory) -> dict[str, str]:
    """More kinds: Gemma scales its embedding, Phi's head has a bias, and one has as many rows as its tokenizer."""
    folders = dict(backbones)
    llms = {
        "gemma": Gemma3ForCausalLM(Gemma3TextConfig(**TINY, **SPECIAL, head_dim=16)),
        "phi": PhiForCausalLM(PhiConfig(**TINY, **SPECIAL)),
        "exact": LlamaForCausalLM(LlamaConfig(**TINY | {"vocab_size": ENTRIES}, **SPECIAL)),
    }
    torch.nn.init.normal_(llms["phi"].lm_head.bias)
    for kind, llm in llms.items():
        folders[kind] = str(tmp_path_factory.mktemp("bases") / kind)
        llm.save_pretrained(folders[kind])
        make_tokenizer().save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="module")
def checkpoint(backbones, tokenizer_file, tmp_path_factory) -> str:
    """Of LoRA on a tied Llama."""
    file = tmp_path_factory.mktemp("export") / "a.ckpt"
    fit(make_model("lora", tokenizer_file, backbones["llama-tied"]), 2).save_checkpoint(file)
    return str(file)


@pytest.fixture(scope="module")
def exported(checkpoint) -> Path:
    folder = Path(checkpoint).parent / "exported"
    export(checkpoint, str(folder))
    return folder


@pytest.mark.parametrize(
    ("kind", "base"),
    [("lora", base) for base in ("gpt2", "llama", "llama-tied", "gemma", "phi", "exact")]
    + [("full", base) for base in ("gpt2", "llama", "llama-tied")],
)
def test_a_plain_model_gives_the_same_logits(bases, tokenizer_file, kind, base, tmp_path):
    model = make_model(kind, tokenizer_file, bases[base])
    fit(model, 2).save_checkpoint(tmp_path / "a.ckpt")
    model.eval()
    export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))
    size = model.vocabulary.base_size
    assert size == (ENTRIES if base == "exact" else VOCABULARY)
    ids = torch.tensor([[1, 40, 41, 42, size, size + 2, size + 13, size + 7, size + 1]])
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        expected = model.llm(ids, torch.ones_like(ids, dtype=torch.bool))
        logits = theirs.eval()(ids).logits[0]
    assert logits.shape == (9, size + CODES + 2)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    assert expected.std() > 0.05  # not all alike
    untied = base in ("llama", "phi", "exact")
    assert (theirs.lm_head.weight is theirs.get_input_embeddings().weight) != untied
    assert theirs.config.vocab_size == size + CODES + 2 == len(AutoTokenizer.from_pretrained(tmp_path / "out"))
    if kind == "lora":
        before = AutoModelForCausalLM.from_pretrained(bases[base])
        for new, old in (
            (theirs.get_input_embeddings().weight, before.get_input_embeddings().weight),
            (theirs.lm_head.weight, before.lm_head.weight),
        ):
            assert torch.equal(new[:size], old)
    assert not [name for name, _ in theirs.named_parameters() if "lora" in name]


def test_the_exported_tokenizer_spells_the_trained_ids(exported, checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = load_language_model(checkpoint)
    tokens = torch.tensor([[3, 0], [11, 7]])
    ours = torch.cat([model.prompts.prompt("a man waves")[:-1], model.vocabulary.tokens_to_ids(tokens)]).tolist()
    line = "<mot><motion_id_3><motion_id_0><motion_id_11><motion_id_7></mot>"
    text = f"<s>Generate a motion: a man waves{line}"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ours
    assert tokenizer.decode(ours) == text
    assert tokenizer.decode(ours, skip_special_tokens=True).endswith(line)
    base = make_tokenizer()
    for sentence in ("walks 3 steps & é", "<mot", "</s> <s>", "motion_id_3"):
        assert tokenizer(sentence)["input_ids"] == base(sentence)["input_ids"]
    assert tokenizer.convert_ids_to_tokens([ENTRIES, VOCABULARY - 1]) == ["<unused_id_259>", "<unused_id_319>"]


def test_names_of_motiongpt(checkpoint, tmp_path):
    export(checkpoint, str(tmp_path / "out"), motiongpt_names=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    line = "<motion_id_12><motion_id_0><motion_id_11><motion_id_13>"  # N = 12: start, two codes, end
    assert tokenizer(line, add_special_tokens=False)["input_ids"] == [320, 322, 333, 321]
    assert "<mot>" not in tokenizer.get_vocab() and len(tokenizer) == 334
    record = json.loads((tmp_path / "out" / "motion.json").read_text())
    assert record["start"] == {"id": 320, "name": "<motion_id_12>"}
    with pytest.raises(ValueError, match="one for each slot"):
        token_names(MotionVocabulary(10, make_spec(2), per_slot=True), motiongpt_names=True)


def test_what_lies_beside_the_model(exported, checkpoint):
    model = load_language_model(checkpoint)
    record = json.loads((exported / "motion.json").read_text())
    assert record["vocabulary"] == json.loads(json.dumps(model.manifest))
    assert record["start"] == {"id": 320, "name": "<mot>"} and record["end"] == {"id": 321, "name": "</mot>"}
    assert record["slots"] == [[322, 334], [322, 334]]
    example = record["example"]
    assert example["prompt"] == f"<s>Generate a motion: {example['caption']}<mot>"
    assert example["ids"] == model.prompts.prompt(example["caption"]).tolist()
    generation = AutoModelForCausalLM.from_pretrained(exported).generation_config
    assert generation.eos_token_id == [2, 321]
    tokenizer, _ = read_motion_tokenizer(exported)
    assert tokenizer.token_spec == model.vocabulary.spec
    for name, value in model.motion_tokenizer.state_dict().items():
        assert torch.equal(tokenizer.state_dict()[name], value)
    assert {file.suffix for file in exported.iterdir()} == {".json", ".safetensors"}
    with pytest.raises(ValueError, match="merged export"):
        load_adapter(exported)


def test_what_another_program_generates_is_the_motion_that_was_learned(backbones, tokenizer_file, tmp_path):
    """By the lines of docs/language.md."""
    batch = make_batch(1)._replace(texts=["a person walks forward"])
    model = FullFinetune(tokenizer_file, backbones["llama"], optimization=Optimization(lr=3e-3, warmup_steps=5))
    model.configure_model()
    model.training_step = lambda batch, batch_idx: model._loss("train", batch, [None])[0]  # the template of inference
    fit(model, 120, [batch] * 120).save_checkpoint(tmp_path / "a.ckpt")
    export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))
    page = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
    (code,) = [part.split("```")[0] for part in page.split("```python\n")[1:] if "AutoModelForCausalLM" in part]
    assert code.count('"exported"') == 1
    names: dict = {}
    exec(code.replace('"exported"', repr(str(tmp_path / "out"))), names)
    assert torch.equal(names["tokens"], batch.tokens[0])
    decoded = model.motion_tokenizer.representation.decode(model.motion_tokenizer.decode(batch.tokens)[0])
    torch.testing.assert_close(names["motion"].joints, decoded.joints)
    with pytest.raises(ValueError, match=r"holds motion already; set `backbone`.*--model\.start"):
        make_model("full", tokenizer_file, str(tmp_path / "out")).configure_model()


@pytest.mark.parametrize("form", ["checkpoint", "adapter"])
def test_dtypes(checkpoint, form, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["dtype"] = "nf4"  # merged into plain weights, not into 4 bits
    torch.save(content, tmp_path / "q.ckpt")
    source = tmp_path / "q.ckpt"
    if form == "adapter":
        export(str(source), str(tmp_path / "small"), adapter=True)
        source = tmp_path / "small"
    export(str(source), str(tmp_path / "default"))
    export(str(source), str(tmp_path / "float32"), dtype="float32")
    kept = {name: AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("default", "float32")}
    assert {name: {p.dtype for p in llm.parameters()} for name, llm in kept.items()} == {
        "default": {torch.bfloat16},
        "float32": {torch.float32},
    }
    ids, model = torch.tensor([[1, 40, 320, 325]]), load_language_model(checkpoint)
    with torch.no_grad():
        expected = model.llm(ids, torch.ones_like(ids, dtype=torch.bool))
        torch.testing.assert_close(kept["float32"](ids).logits[0], expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(kept["default"](ids).logits[0].float(), expected, atol=0.05, rtol=0.05)


def test_refusals_leave_nothing_behind(checkpoint, tokenizer_file, exported, backbones, tmp_path):
    with pytest.raises(ValueError, match="already there; give another folder"):
        export(checkpoint, str(exported))
    for adapter in (False, True):
        with pytest.raises(ValueError, match=r"no checkpoint at nowhere\.ckpt"):
            export("nowhere.ckpt", str(tmp_path / "out"), adapter=adapter)
        with pytest.raises(ValueError, match="not a checkpoint of a motion language model"):
            export(tokenizer_file, str(tmp_path / "out"), adapter=adapter)
        (tmp_path / "garbage.ckpt").write_bytes(b"x" * 100)
        with pytest.raises(ValueError, match="not a checkpoint that `lmm fit` wrote"):
            export(str(tmp_path / "garbage.ckpt"), str(tmp_path / "out"), adapter=adapter)
    with pytest.raises(ValueError, match="set `backbone` to it"):
        export(checkpoint, str(tmp_path / "out"), backbone=backbones["gpt2"])
    assert [file.name for file in tmp_path.iterdir()] == ["garbage.ckpt"]
    (tmp_path / "empty").mkdir()
    export(checkpoint, str(tmp_path / "empty"), adapter=True)
    assert (tmp_path / "empty" / "lmm.json").is_file()


def test_tokenizers_that_cannot_have_the_ids_are_refused():
    names = token_names(MotionVocabulary(VOCABULARY, make_spec()))
    longer = make_tokenizer()
    longer.add_tokens([f"extra{i}" for i in range(100)])
    with pytest.raises(ValueError, match=r"359 entries, 320 rows in the model.*'<mot>' the id 359.*--adapter"):
        add_motion_tokens(longer, names, VOCABULARY)
    taken = make_tokenizer()
    taken.add_tokens(["</mot>"])
    with pytest.raises(ValueError, match=r"'</mot>' the id 259"):
        add_motion_tokens(taken, names, VOCABULARY)


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_65536_codes_in_a_padded_vocabulary(kind, tmp_path):
    tokenizer = make_tokenizer() if kind == "bytes" else sentencepiece()
    text = "walks on the spot"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    vocabulary = MotionVocabulary(1000, make_spec(1, codes=65_536))
    add_motion_tokens(tokenizer, token_names(vocabulary), vocabulary.base_size)
    ids = tokenizer(f"{text}<mot><motion_id_65535><motion_id_4></mot>", add_special_tokens=False)["input_ids"]
    assert ids == [*plain, *vocabulary.tokens_to_ids(torch.tensor([[65_535], [4]])).tolist()]
    assert len(tokenizer) == vocabulary.size


def sentencepiece() -> PreTrainedTokenizerFast:
    """In Llama 2's manner: a space before the first word, and pieces that begin with one."""
    letters = "▁abcdefghijklmnopqrstuvwxyz<>_/0123456789"
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>", *letters, "▁w", "▁wa"])}
    model = models.BPE(vocab=vocabulary, merges=[("▁", "w"), ("▁w", "a")], unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
