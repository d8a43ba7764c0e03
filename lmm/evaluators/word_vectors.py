"""Sentences as Guo et al. (CVPR 2022) read them: tokens ``word/POS`` -> GloVe vectors and parts of speech.

``sos``, up to 20 tokens, ``eos``: 22 places, of which those beyond a sentence's end hold ``unk``. A word of the
vocabulary has its GloVe vector (300 numbers) and one of 15 classes: its part of speech, or, for words that matter to
motion ("left", "knee", "walk"), a class of their own whatever the tagger said. Other words are ``unk`` of class OTHER.

The tokens of a caption are what spaCy made of it once, lemmas with universal tags; HumanML3D and KIT-ML carry them in
``texts/<id>.txt``, one caption a line: ``caption#word/POS word/POS ...#start#end``. They are read from there.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmm.motion.arrays import read_npy
from lmm.motion.published import sha256

MAX_TOKENS = 20
CLASSES = (
    *("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV"),
    *("Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER"),
)
_VIP = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise "
    "wash stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb",
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
_CLASS_OF = {word: name for name, words in _VIP.items() for word in words.split()}


class Sentences(NamedTuple):
    """A batch of sentences: a vector and a one-hot class for each of S = 22 places, and how many of them are read."""

    words: Float[Tensor, "B S 300"]
    classes: Float[Tensor, "B S 15"]
    lengths: Int[Tensor, " B"]


class WordVectors(nn.Module):
    """Tokens -> `Sentences`.

    Args:
        folder: with our_vab_data.npy (N, 300), our_vab_words.pkl (a list) and our_vab_idx.pkl (word -> row).

    Raises:
        ValueError: a file is missing, holds something else, or does not fit the others.
    """

    vectors: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        files = [folder / f"our_vab_{name}" for name in ("data.npy", "words.pkl", "idx.pkl")]
        self.sha256 = sha256(*files)
        vectors, words, rows = read_npy(files[0]), _plain(files[1], list), _plain(files[2], dict)
        if vectors.ndim != 2 or vectors.shape[1] != 300 or vectors.dtype.kind != "f":
            raise ValueError(f"{files[0]} has shape {vectors.shape}, expected (N, 300); {_REMEDY}")
        missing = [word for word in ("sos", "eos", "unk") if word not in words] + [w for w in words if w not in rows]
        wrong = [word for word in words if not (type(rows.get(word)) is int and 0 <= rows[word] < len(vectors))]
        if missing or wrong:
            raise ValueError(f"{folder}: {(missing + wrong)[0]!r} has no row of {files[0].name}; {_REMEDY}")
        self.register_buffer("vectors", torch.from_numpy(vectors.astype(np.float32)))
        self._rows = {word: rows[word] for word in words}

    def forward(self, sentences: list[list[str]]) -> Sentences:
        """Vectors and classes of tokens.

        Raises:
            ValueError: a token that is not ``word/POS``.
        """
        lengths = [min(len(tokens), MAX_TOKENS) + 2 for tokens in sentences]
        places = [
            ["sos/OTHER", *tokens[:MAX_TOKENS], "eos/OTHER", *["unk/OTHER"] * (MAX_TOKENS + 2 - length)]
            for tokens, length in zip(sentences, lengths, strict=True)
        ]
        read = torch.tensor([[self._read(token) for token in tokens] for tokens in places]).reshape(
            -1, MAX_TOKENS + 2, 2
        )
        rows, classes = read.to(self.vectors.device).unbind(-1)
        one_hot = nn.functional.one_hot(classes, len(CLASSES)).to(self.vectors)
        return Sentences(self.vectors[rows], one_hot, torch.tensor(lengths))

    def _read(self, token: str) -> tuple[int, int]:
        """Row and class of a token."""
        word, _, tag = token.partition("/")
        if not word or not tag or "/" in tag:
            raise ValueError(f"the token {token!r} is not word/POS, such as walk/VERB; repair the line it comes from")
        if word not in self._rows:
            return self._rows["unk"], CLASSES.index("OTHER")
        name = _CLASS_OF.get(word, tag)
        return self._rows[word], CLASSES.index(name if name in CLASSES else "OTHER")


class TaggedCaptions:
    """The tokens of every caption of a data set.

    Args:
        folder: ``texts/`` of HumanML3D's layout.

    Raises:
        ValueError: no such folder, no file in it, or a file that is not utf-8.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokens: dict[str, list[str]] = {}
        files = sorted(folder.glob("*.txt"))
        if not files:
            raise ValueError(
                f"texts: {folder} holds no .txt; give the data set's folder texts/, with a file for each clip"
            )
        otherwise = set()
        for file in files:
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise ValueError(f"{file} is not utf-8 text; save it as utf-8") from None
            for line in lines:
                caption, tokens, *_ = f"{line}#".split("#")
                if self._tokens.setdefault(caption.strip(), tokens.split()) != tokens.split():
                    otherwise.add(caption.strip())
        if otherwise:
            warnings.warn(
                f"{folder}: {len(otherwise)} captions have other tokens in another file, such as {min(otherwise)!r}; "
                "of each the first are read, in the order of the files",
                stacklevel=2,
            )
        if not any(not token.endswith("/OTHER") for tokens in self._tokens.values() for token in tokens):
            warnings.warn(
                f"{folder}: no token has a part of speech, so these captions were never tagged; the evaluator was "
                "trained on lemmas with spaCy's tags, and figures of texts without them are not comparable",
                stacklevel=2,
            )

    def tokens(self, texts: list[str]) -> list[list[str]]:
        """The tokens ``word/POS`` of captions.

        Raises:
            ValueError: a sentence that is no caption of the data set, or a caption without tokens.
        """
        if missing := [text for text in texts if not self._tokens.get(text.strip())]:
            raise ValueError(
                f"{self.folder} has no tokens for {len(missing)} of {len(texts)} sentences, such as {missing[0]!r}; "
                "the evaluator reads words with their parts of speech: write them into a .txt in that folder, one line "
                "a sentence: a person walks#a/DET person/NOUN walk/VERB#0.0#0.0 (lemmas and tags of spaCy's "
                "en_core_web_sm)"
            )
        return [self._tokens[text.strip()] for text in texts]


_REMEDY = "get text-to-motion's glove folder again"


class _Plain(pickle.Unpickler):
    """Unpickles lists, dictionaries, strings and numbers and nothing else, so that a foreign file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no list of words needs")


def _plain(file: Path, kind: type[list] | type[dict]) -> Any:
    try:
        with file.open("rb") as handle:
            content: Any = _Plain(handle).load()
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"{file} is no readable .pkl ({error}); {_REMEDY}") from None
    if type(content) is not kind or not all(type(word) is str for word in content):
        raise ValueError(f"{file} holds no {kind.__name__} of words; {_REMEDY}")
    return content
