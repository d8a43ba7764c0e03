import os
import pickle
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from lmm.evaluators.word_vectors import CLASSES, TaggedCaptions, WordVectors

from .published import TEXTS, WORDS

NOT_IN_A_WORD_LIST = {"words": OrderedDict(a=1), "idx": {"sos": np.int64(0)}, "a function": os.system}


@pytest.fixture
def glove(tmp_path) -> Path:
    g = np.random.default_rng(0)
    np.save(tmp_path / "our_vab_data.npy", g.normal(size=(len(WORDS) + 2, 300)))
    rows = {word: len(WORDS) - row for row, word in enumerate([*WORDS, "left/right"])}
    (tmp_path / "our_vab_words.pkl").write_bytes(pickle.dumps(WORDS))
    (tmp_path / "our_vab_idx.pkl").write_bytes(pickle.dumps(rows))
    return tmp_path


def test_vectors_and_classes_of_a_sentence(glove):
    tokens = ["a/DET", "zebra/NOUN", "walk/NOUN", "and/CCONJ", "left/VERB", "the/OTHER", "be/AUX"]
    words, classes, lengths = WordVectors(glove)([tokens, []])
    data = np.load(glove / "our_vab_data.npy").astype(np.float32)
    rows = pickle.loads((glove / "our_vab_idx.pkl").read_bytes())
    read = ["sos", "a", "unk", "walk", "and", "left", "the", "be", "eos", *["unk"] * 13]
    assert words.shape == (2, 22, 300) and classes.shape == (2, 22, 15) and lengths.tolist() == [9, 2]
    np.testing.assert_array_equal(words[0].numpy(), data[[rows[word] for word in read]])
    other = "OTHER"
    names = [other, "DET", other, "Act_VIP", other, "Loc_VIP", other, "AUX", *[other] * 14]
    assert [CLASSES[i] for i in classes[0].argmax(-1).tolist()] == names
    assert torch.equal(classes.sum(-1), torch.ones(2, 22))


@pytest.mark.parametrize(("number", "length"), [(18, 20), (19, 21), (20, 22), (21, 22), (40, 22)])
def test_long_sentences_lose_their_end_but_not_eos(glove, number, length):
    vectors = WordVectors(glove)
    words, _, lengths = vectors([["turn/VERB"] * number])
    sos, eos, turn = (vectors.vectors[vectors._rows[word]] for word in ("sos", "eos", "turn"))
    assert lengths.tolist() == [length]
    assert torch.equal(words[0, 0], sos) and torch.equal(words[0, length - 1], eos)
    assert torch.equal(words[0, 1 : length - 1], turn.expand(length - 2, -1))


@pytest.mark.parametrize("token", ["walk", "walk/", "/VERB", "a/b/NOUN", ""])
def test_tokens_that_are_none(glove, token):
    with pytest.raises(ValueError, match="is not word/POS"):
        WordVectors(glove)([["a/DET", token]])


@pytest.mark.parametrize("content", NOT_IN_A_WORD_LIST.values(), ids=NOT_IN_A_WORD_LIST)
@pytest.mark.parametrize("file", ["words", "idx"])
def test_nothing_but_words_is_unpickled(glove, file, content):
    (glove / f"our_vab_{file}.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"wants to load .*; get text-to-motion's glove folder again"):
        WordVectors(glove)


def test_a_pickle_that_runs_something_does_not(glove, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (glove / "our_vab_words.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(ValueError, match=r"no readable .pkl"):
        WordVectors(glove)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("words", "rows", "match"), [
    (["sos", "eos"], None, "'unk' has no row"), (["sos", "eos", "unk", "new"], None, "'new' has no row"),
    (None, {w: 99 for w in WORDS}, "'sos' has no row"), (None, {w: "0" for w in WORDS}, "'sos' has no row"),
    ({"a": 1}, None, "no list of words"), ([1], None, "no list of words"), (None, WORDS, "no dict of words"),
])  # fmt: skip
def test_lists_that_do_not_fit(glove, words, rows, match):
    for name, content in (("words", words), ("idx", rows)):
        if content is not None:
            (glove / f"our_vab_{name}.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=match):
        WordVectors(glove)


def test_broken_files(glove):
    np.save(glove / "our_vab_data.npy", np.zeros((30, 100)))
    with pytest.raises(ValueError, match=r"shape \(30, 100\), expected \(N, 300\)"):
        WordVectors(glove)
    (glove / "our_vab_words.pkl").write_bytes(b"\x80\x04broken")
    with pytest.raises(ValueError, match=r"no readable .pkl"):
        WordVectors(glove)
    shutil.rmtree(glove)
    with pytest.raises(ValueError, match=r"our_vab_data.npy: there is no such file"):
        WordVectors(glove)


def texts(folder: Path, **files: str) -> Path:
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    return folder


def test_tokens_of_captions(tmp_path):
    captions = TaggedCaptions(texts(tmp_path, **TEXTS))
    found = captions.tokens(["a zebra raises a hand", " twenty\n"])
    assert found[0] == ["a/DET", "zebra/NOUN", "raise/VERB", "a/DET", "hand/NOUN"] and len(found[1]) == 20
    for caption in ("no tokens here", "unheard of"):
        with pytest.raises(ValueError, match=rf"no tokens for 1 of 2 sentences, such as '{caption}'"):
            captions.tokens([caption, "twenty"])


def test_captions_that_were_never_tagged_or_tagged_twice(tmp_path):
    with pytest.warns(UserWarning, match="never tagged"):
        TaggedCaptions(texts(tmp_path, a="a walk#a/OTHER walk/OTHER#0#0\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TaggedCaptions(texts(tmp_path, b="a turn#a/DET turn/NOUN#0#0\n", c="a turn#a/DET turn/NOUN#0#0\n"))
    with pytest.warns(UserWarning, match="1 captions have other tokens in another file, such as 'a turn'"):
        captions = TaggedCaptions(texts(tmp_path, d="a turn#a/DET turn/VERB#0#0\n"))
    assert captions.tokens(["a turn"]) == [["a/DET", "turn/NOUN"]]


def test_folders_without_readable_texts(tmp_path):
    with pytest.raises(ValueError, match=r"holds no .txt"):
        TaggedCaptions(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"a.txt is not utf-8"):
        TaggedCaptions(tmp_path)


def test_real_texts(shared_data):
    with pytest.warns(UserWarning, match="never tagged"):
        captions = TaggedCaptions(shared_data / "bandai_humanml/texts")
    (tokens,) = captions.tokens(["a person waves goodbye with the right hand with a lot of energy."])
    assert tokens[:3] == ["a/OTHER", "person/OTHER", "waves/OTHER"]
