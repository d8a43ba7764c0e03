"""Tokens on disk, and batches of them: what `lmm predict` of a tokenizer leaves and a language model is trained on.

::

    <folder>/
      spec.json     TokenSpec of the tokenizer that wrote them
      meta.json     key of the motion store they were made from
      ids.json      names of the items
      index.npy     int64 (items, 2): first step, steps t
      tokens.npy    int32 (all steps, K), memory-mapped

Captions stay in the motion store: an item has the same id in both.
"""

import json
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lmm.batch import TokenBatch, TokenSpec
from lmm.data.loader import Key
from lmm.data.motions import MotionDataModule, drawn_captions, split_keys
from lmm.data.sources.base import MotionSource
from lmm.data.store import MotionStore
from lmm.motion.representations.base import MotionRepresentation

FORMAT = 1
_WRITE = "write the tokens with `lmm predict` and the tokenizer's YAML, such as `--config tokenizer_lfq2d.yaml`"


def write_token_store(
    folder: Path, spec: TokenSpec, items: Iterable[tuple[str, Int[Tensor, "t K"]]], *, motions: str
) -> None:
    """Write tokens of items (id, tokens) so that the folder appears complete or not at all.

    Items are written as they come, so their tokens need never be in memory together.

    Args:
        folder: where to; an earlier token store there is replaced, anything else is left alone.
        spec: of the tokenizer.
        items: id and tokens of each item.
        motions: key of the motion store that was encoded.

    Raises:
        ValueError: no item, an id twice, tokens of a wrong shape or outside [0, N), or a folder of something else.
    """
    check_token_folder(folder)
    writing, old = folder.with_name(folder.name + ".writing"), folder.with_name(folder.name + ".old")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        ids, lengths = _write_items(writing / "tokens.npy", spec, items)
        np.save(writing / "index.npy", np.stack([lengths.cumsum() - lengths, lengths], axis=1))
        (writing / "ids.json").write_text(json.dumps(ids))
        spec.save(writing / "spec.json")
        (writing / "meta.json").write_text(json.dumps({"format": FORMAT, "motions": motions}) + "\n")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        writing.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def check_token_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than tokens.

    Raises:
        ValueError: it does.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "spec.json").exists():
        raise ValueError(f"{folder} holds something else than tokens; name an empty or a new folder")


class TokenStore:
    """Read access to a folder of tokens.

    Args:
        folder: what `write_token_store` wrote.

    Raises:
        ValueError: the folder is missing, damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "meta.json").exists():
            raise ValueError(f"there are no tokens in {folder}; {_WRITE}")
        self.folder = folder
        try:
            meta = json.loads((folder / "meta.json").read_text())
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
            self.motions: str = meta["motions"]
            self.spec = TokenSpec.load(folder / "spec.json")
            self.ids: list[str] = json.loads((folder / "ids.json").read_text())
            self._index = np.load(folder / "index.npy", allow_pickle=False)
            steps, width = self._tokens.shape
            if len(self.ids) != len(self._index) or steps != self.lengths.sum() or width != self.spec.codes_per_step:
                raise ValueError("its files do not belong together")
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise ValueError(f"the tokens in {folder} are damaged or outdated ({error}); {_WRITE}") from None

    def __reduce__(self) -> tuple[type["TokenStore"], tuple[Path]]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Steps t of every item, (items,)."""
        return self._index[:, 1]

    def tokens(self, index: int) -> Int[Tensor, "t K"]:
        """Tokens of an item (int64)."""
        start, length = self._index[index].tolist()
        return torch.from_numpy(self._tokens[start : start + length].astype(np.int64))

    @cached_property
    def _tokens(self) -> np.ndarray:
        return np.load(self.folder / "tokens.npy", mmap_mode="r", allow_pickle=False)


def _write_items(
    file: Path, spec: TokenSpec, items: Iterable[tuple[str, Int[Tensor, "t K"]]]
) -> tuple[list[str], np.ndarray]:
    """Append the tokens of every item to one .npy file; ids and steps t of what was written."""
    ids, lengths, width = [], [], spec.codes_per_step
    with file.open("wb") as out:
        _npy_header(out, (0, width))
        start = out.tell()
        for name, tokens in items:
            if tokens.ndim != 2 or tokens.shape[1] != width or not len(tokens):
                raise ValueError(f"tokens of {name} have shape {tuple(tokens.shape)}, expected (t, {width})")
            if tokens.min() < 0 or tokens.max() >= spec.codebook_size:
                raise ValueError(f"tokens of {name} are outside [0, {spec.codebook_size})")
            out.write(tokens.to(torch.int32).numpy().tobytes())
            ids.append(name)
            lengths.append(len(tokens))
        out.seek(0)
        _npy_header(out, (sum(lengths), width))
        assert out.tell() == start, "numpy leaves room in a header for any number of rows"
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"there must be items, each once; got {len(ids)}, {len(set(ids))} of them different")
    return ids, np.array(lengths, dtype=np.int64)


def _npy_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class TokenDataModule(MotionDataModule):
    """Tokens to train and validate on; motions with captions to test on and to predict from.

    Args:
        source: where the motions come from.
        representation: features the tokenizer was trained on.
        tokens: folder of the tokens.
        batch_size: items in a batch.
        num_workers: loading processes.
        cache: folder for packed motions; may be deleted at any time.
        seed: of the order and the captions drawn; None for ``seed_everything``, and 0 in plain Python.
        test_split: the split that ``test`` judges by, such as "unseen".
        require_captions: refuse data with clips that have no caption; without it they come with the caption "", for
            tasks that need none.
    """

    def __init__(
        self,
        source: MotionSource,
        representation: MotionRepresentation,
        tokens: str,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        cache: str = "runs/cache",
        seed: int | None = None,
        test_split: str = "test",
        require_captions: bool = True,
    ) -> None:
        super().__init__(
            source,
            representation,
            batch_size=batch_size,
            num_workers=num_workers,
            cache=cache,
            seed=seed,
            test_split=test_split,
        )
        self.tokens = Path(tokens)
        self.require_captions = require_captions
        self._token_store: TokenStore | None = None

    @property
    def token_spec(self) -> TokenSpec:
        """What the tokens are and who wrote them."""
        if not (self.tokens / "spec.json").exists():
            raise ValueError(f"there are no tokens in {self.tokens}; {_WRITE}")
        return TokenSpec.load(self.tokens / "spec.json")

    def tokens_ready(self) -> bool:
        """Whether the folder holds readable tokens of these very motions."""
        try:
            return TokenStore(self.tokens).motions == self.store.key
        except ValueError:
            return False

    @property
    def token_store(self) -> TokenStore:
        """The tokens, checked against the motions.

        Raises:
            ValueError: tokens are missing, damaged, incomplete, or of other motions.
        """
        if self._token_store is None:
            store = TokenStore(self.tokens)
            if store.motions != self.store.key:
                raise ValueError(
                    f"the tokens in {self.tokens} were made from other motions than {self.store.folder}: the data, the "
                    f"source's settings or the representation differ; {_WRITE}"
                )
            if len(store) != len(self.store):
                raise ValueError(f"{self.tokens} holds {len(store)} of {len(self.store)} items; {_WRITE}")
            self._token_store = store
        return self._token_store

    def setup(self, stage: str) -> None:
        """Open the stores; missing tokens are reported here, before a language model is loaded."""
        super().setup(stage)
        count = self.store.meta.get("uncaptioned", 0)
        if count and self.require_captions:
            raise ValueError(
                f"{count} clips of {self.source.name} have no caption, from which tasks with text learn nothing; write "
                "their captions, or leave them out of the split lists and the source's require_captions at true; for "
                "tasks that need no text: --data.require_captions false"
            )
        if stage in ("fit", "validate"):
            _ = self.token_store

    def train_dataloader(self) -> DataLoader:
        """Every item of train as often as its weight says, with one of its captions, in batches of similar lengths."""
        indices = self.store.indices("train")
        dataset = _Tokens(self.token_store, self.store, indices, self.seed)
        return self._training(dataset, indices, self.store.lengths[indices])

    def val_dataloader(self) -> DataLoader:
        """Every item of val with its first caption, as `TokenBatch`."""
        return self._evaluation(_Tokens(self.token_store, self.store, self.store.indices("val"), None))

    def predict_dataloader(self) -> DataLoader:
        """Whole clips of ``test_split``: their captions are what a language model generates from."""
        return self.test_dataloader()


class _Tokens(Dataset):
    """Keys -> tokens with one caption each: drawn with ``seed``, or the first where it is None, longest item first."""

    def __init__(self, tokens: TokenStore, motions: MotionStore, indices: np.ndarray, seed: int | None) -> None:
        self.tokens, self.motions, self.seed = tokens, motions, seed
        rows = {name: row for row, name in enumerate(tokens.ids)}
        missing = [name for name in (motions.item(i).id for i in indices.tolist()) if name not in rows]
        if missing:
            raise ValueError(f"{tokens.folder} has no tokens of {len(missing)} items ({missing[0]}, ...); {_WRITE}")
        self.indices = indices if seed is not None else indices[np.argsort(-motions.lengths[indices], kind="stable")]
        self.rows = rows

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key] | list[int]) -> TokenBatch:
        showings, indices = split_keys(keys, self.indices)
        items = [self.motions.item(index) for index in indices.tolist()]
        if self.seed is not None:
            texts = drawn_captions(items, self.seed, showings, indices)
        else:
            texts = [item.captions[0] for item in items]
        sequences = [self.tokens.tokens(self.rows[item.id]) for item in items]
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=-1)
        details = [item.details for item in items] if self.motions.meta.get("detailed") else None
        return TokenBatch(padded, padded[..., 0] >= 0, [item.id for item in items], texts, details)
