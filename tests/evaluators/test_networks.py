"""Encoders: padding changes nothing, word order does, unseen words and any sentence have a place; Hugging Face's."""

import binascii
import shutil
from functools import partial

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5Model

from lmm.evaluators.networks import (
    MotionGRU,
    MotionTransformer,
    MotionTransformerDecoder,
    SentenceEncoder,
    TextGRU,
    TextTransformer,
)
from lmm.evaluators.networks.words import HashedWords, word_rows, words
from lmm.motion.representations import SMPLD135, HumanML3DFeatures

MOTION = {"transformer": partial(MotionTransformer, width=16, depth=2), "gru": partial(MotionGRU, width=8)}
TEXT = {"transformer": partial(TextTransformer, width=16), "gru": partial(TextGRU, width=8)}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


def make_bert(folder):
    """A random BERT in a folder, with a text tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    seen = "[PAD] [UNK] a person walks left right then jumps".split()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(seen)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    tiny = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    BertModel(BertConfig(vocab_size=len(seen), max_position_embeddings=64, **tiny)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MOTION)
@pytest.mark.parametrize("representation", [HumanML3DFeatures(), SMPLD135()], ids=["263", "135"])
def test_a_motion_is_the_same_alone_and_in_a_padded_batch(kind, representation):
    encoder = MOTION[kind](representation, 6).eval()
    lengths, features = torch.tensor([40, 8, 24]), torch.randn(3, 40, representation.dim)  # noise beyond the ends
    mask = torch.arange(40) < lengths[:, None]
    together = encoder(features, mask)
    assert together.shape == (3, 6)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(features[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    moved = features.clone()
    moved[1, 7] += 1
    change = (encoder(moved, mask) - together).abs().amax(1)
    assert change[1] > 1e-4 and change[[0, 2]].max() == 0


def test_the_decoder_tells_latents_and_times_apart():
    decoder = MotionTransformerDecoder(HumanML3DFeatures(), 6, width=16, depth=1).eval()
    latents, mask = torch.randn(2, 6), torch.arange(24) < torch.tensor([[24], [12]])
    motion = decoder(latents, mask)
    assert motion.shape == (2, 24, 263)
    assert torch.allclose(decoder(latents[1:], mask[1:, :12])[0], motion[1, :12], atol=1e-5)
    assert (decoder(latents.flip(0), mask.flip(0))[1, :12] - motion[1, :12]).abs().max() > 1e-3
    assert (motion[0, 4:8] - motion[0, :4]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TEXT)
def test_sentences(kind):
    encoder = TEXT[kind](6).eval()
    texts = [
        "a person raises the left arm, then the right",
        "a person raises the right arm, then the left",
        "jumps",
        "A PERSON raises the left arm - then; the right!",
        "a perzon raizes the left arm, then the right",
    ]
    together = encoder(texts)
    for row, text in enumerate(texts):
        assert torch.allclose(encoder([text])[0], together[row], atol=1e-5)
    distances = torch.cdist(together, together)
    assert distances[0, 1] > 1e-3, "the order of words matters"
    assert distances[0, 3] < 1e-4, "case and punctuation do not"
    assert distances[0, 4] < distances[0, 2], "an unseen word lies near those it shares letters with"
    with pytest.raises(ValueError, match=r"'\?!' has no word to embed"):
        encoder(["walks", "?!"])


def test_words_and_their_rows():
    assert words("He doesn't T-pose; 3 steps,naïve_walk (émigré)") == [
        "he", "doesn't", "t-pose", "3", "steps", "naïve", "walk", "émigré",
    ]  # fmt: skip
    # by hand: the word, three trigrams, two 4-grams, one 5-gram of "<run>"; crc32 as zlib gives it everywhere
    assert len(word_rows("run", 1000)) == 1 + 3 + 2 + 1
    assert word_rows("run", 2**32)[:2] == (
        binascii.crc32(b"word run"),
        binascii.crc32(b"<ru"),
    )
    module = HashedWords(4, 50)
    vectors, mask = module(["jump run", "run"])
    assert mask.tolist() == [[True, True], [True, False]] and (vectors[1, 1] == 0).all()
    by_hand = module.rows.weight[list(word_rows("run", 50))].mean(0)
    assert torch.allclose(vectors[0, 1], by_hand) and torch.allclose(vectors[1, 0], by_hand)


def test_a_frozen_sentence_encoder_leaves_only_its_projection_and_a_hash(bert):
    encoder = SentenceEncoder(6, str(bert), width=8).train()
    texts = ["a person walks left then right", "a person walks right", "jumps"]
    together = encoder(texts)
    for row, text in enumerate(texts):
        assert torch.allclose(encoder([text])[0], together[row], atol=1e-5)
    # the mean over real tokens, computed apart
    base = BertModel.from_pretrained(bert).eval()
    states = base(torch.tensor([[2, 3, 4, 6]])).last_hidden_state.mean(1)
    assert torch.allclose(encoder.project(states), together[1:2], atol=1e-5)
    assert sorted(encoder.state_dict()) == [
        "base_sha256", "project.0.bias", "project.0.weight", "project.2.bias", "project.2.weight",
    ]  # fmt: skip
    together.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_another_base_is_refused(bert, tmp_path):
    first = SentenceEncoder(6, str(bert), width=8)
    SentenceEncoder(6, str(bert), width=8).load_state_dict(first.state_dict())
    shutil.copytree(bert, tmp_path / "other")
    other = BertModel.from_pretrained(bert)
    nn.init.normal_(other.encoder.layer[0].output.dense.bias)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"trained on other weights than those of .*other; set `source`"):
        SentenceEncoder(6, str(tmp_path / "other"), width=8).load_state_dict(first.state_dict())


def test_a_trainable_sentence_encoder_is_tuned_and_saved(bert):
    encoder = SentenceEncoder(6, str(bert), trainable=True, width=8)
    assert any(name.startswith("language.") for name in encoder.state_dict()) and encoder.language.training
    encoder.eval()(["a person walks"]).sum().backward()
    assert encoder.language.encoder.layer[0].output.dense.weight.grad is not None


def test_what_is_no_safe_encoder_is_refused(bert, tmp_path):
    with pytest.raises(ValueError, match=r"no text encoder with safetensors weights at '.*missing'"):
        SentenceEncoder(6, str(tmp_path / "missing"))
    shutil.copytree(bert, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(BertModel.from_pretrained(bert).state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no text encoder with safetensors weights"):
        SentenceEncoder(6, str(tmp_path / "pickled"))
    with pytest.raises(ValueError, match=r"takes 65 tokens, .* reads 64"):
        SentenceEncoder(6, str(bert))([" ".join(["walks"] * 65)])


def test_the_encoder_of_an_encoder_decoder(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "t5")
    config = T5Config(vocab_size=9, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5Model(config)
    model.save_pretrained(tmp_path / "t5")
    encoder = SentenceEncoder(6, str(tmp_path / "t5"), width=8)
    states = T5EncoderModel.from_pretrained(tmp_path / "t5")(torch.tensor([[4, 5]])).last_hidden_state.mean(1)
    assert torch.allclose(encoder(["walks left"]), encoder.project(states), atol=1e-5)
