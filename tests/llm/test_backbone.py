from dataclasses import replace

import pytest
import torch

from lmm.data.sources.procedural import captions
from lmm.llm import backbone as module
from lmm.llm.backbone import EmbeddedBackbone, load_llm, load_text_tokenizer, tokenizer_sha256, weights_sha256


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> EmbeddedBackbone:
    folder = tmp_path_factory.mktemp("backbone") / "here" / "backbone"
    made = EmbeddedBackbone(str(folder), hidden_size=64, num_layers=2, vocab_size=400, steps=30)
    before = torch.get_rng_state()
    made.build()
    assert torch.equal(before, torch.get_rng_state())
    assert [p.name for p in folder.parent.iterdir()] == ["backbone"]  # nothing temporary is left
    return made


def test_it_is_a_plain_folder_that_learned_the_captions(built):
    llm, tokenizer = load_llm(built.folder, torch.float32), load_text_tokenizer(built.folder)
    assert llm.get_input_embeddings().num_embeddings == len(tokenizer) <= 400
    for text in (captions(3, seed=9)[0], "Ünïcode & 12 {braces}\n"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    ids = tokenizer(tokenizer.bos_token + captions(1, seed=9)[0], add_special_tokens=False, return_tensors="pt")
    loss = llm(input_ids=ids["input_ids"], labels=ids["input_ids"]).loss
    assert float(loss) < 5.5  # ln 400 = 6.0


def test_the_same_arguments_make_the_same_model(built, tmp_path):
    again = EmbeddedBackbone(str(tmp_path / "again"), hidden_size=64, num_layers=2, vocab_size=400, steps=30)
    again.build()
    one, two = load_llm(built.folder, torch.float32), load_llm(again.folder, torch.float32)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert weights_sha256(one) == weights_sha256(two) == weights_sha256(load_llm(built.folder, torch.bfloat16))
    assert tokenizer_sha256(load_text_tokenizer(built.folder)) == tokenizer_sha256(load_text_tokenizer(again.folder))


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.LlamaForCausalLM, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedBackbone(str(tmp_path / "b"), hidden_size=32, num_layers=1, vocab_size=300, steps=1).build()
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_and_nonsense_is_refused(built):
    built.build()
    for other in (replace(built, num_layers=built.num_layers + 1), replace(built, seed=built.seed + 1)):
        with pytest.raises(ValueError, match="holds another language model"):
            other.build()
    with pytest.raises(ValueError, match="multiple of 32"):
        EmbeddedBackbone(hidden_size=100)
    with pytest.raises(ValueError, match="vocab_size"):
        EmbeddedBackbone(vocab_size=100)
