"""Arrays out of foreign files, without running anything in them: ``.npy``, ``.npz``, pickled dictionaries of arrays.

Body models are still published as pickles of numpy, scipy.sparse and chumpy objects. The unpickler here knows arrays
and nothing else: a sparse matrix comes back dense, of a chumpy array its value. Neither chumpy nor joblib need be
installed for what they wrote.
"""

import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError, OverflowError, RuntimeError),
    *(SyntaxError, SystemError, struct.error, tokenize.TokenError, zlib.error, zipfile.BadZipFile),
    pickle.UnpicklingError,
)
_LARGEST = 10**8  # numbers that a sparse matrix may unfold to
_MAX_BYTES = 2**31  # that an archive may unpack to


def read_npy(file: Path) -> np.ndarray:
    """The array of an ``.npy``.

    Raises:
        ValueError: the file is no array, is broken, or pickled.
    """
    try:
        array = np.load(file, allow_pickle=False, mmap_mode="r")  # a header that lies about its size allocates nothing
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive")
        return np.array(array)
    except _UNREADABLE as error:
        raise _unreadable(file, ".npy", error) from None


def npz_names(file: Path) -> list[str]:
    """What the arrays of an ``.npz`` are called; none is read.

    Raises:
        ValueError: the file is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _UNREADABLE as error:
        raise _unreadable(file, ".npz", error) from None


def read_npz(file: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an ``.npz`` has; the others in it are not touched.

    Raises:
        ValueError: the file is no archive, is broken, unpacks to absurdly much, or one of these arrays is pickled.
    """
    wanted = list(names)
    check_unpacked(file, {*wanted, *(f"{name}.npy" for name in wanted)})
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted if name in archive.files}
    except _UNREADABLE as error:
        raise _unreadable(file, ".npz", error) from None
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def check_unpacked(file: Path, members: Collection[str] | None = None) -> None:
    """Refuse a zip archive whose members (all of them if None) unpack to more than any motion needs.

    Raises:
        ValueError: it is that large, or no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if members is None or info.filename in members]
    except _UNREADABLE as error:
        raise _unreadable(file, file.suffix, error) from None
    if (size := sum(info.file_size for info in found)) > _MAX_BYTES:
        raise ValueError(f"{file} unpacks to {size >> 20} MiB, more than {_MAX_BYTES >> 20}; cut it into shorter files")


def read_pickle(file: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a pickled dictionary has.

    Raises:
        ValueError: the file is broken, holds something else, or wants anything but arrays to be loaded.
    """
    try:
        with file.open("rb") as handle:
            content = _Arrays(handle, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, no dictionary of arrays")
        return {name: plain_array(content[name]) for name in names if name in content}
    except _UNREADABLE as error:
        raise _unreadable(file, ".pkl", error) from None


class Stub:
    """Stands for a foreign object: keeps its state, runs none of its code."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class PickledArray(Stub):
    """A numpy array; numpy's own unpickling trusts flags that come out of the file."""


class _Dtype(Stub):
    """A numpy dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code


class _Columns(Stub):
    """A scipy.sparse matrix, compressed by columns."""


class _Rows(Stub):
    """A scipy.sparse matrix, compressed by rows."""


def _empty(*_: Any) -> PickledArray:
    return PickledArray()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> PickledArray:
    """How numpy pickles with protocol 5."""
    array = PickledArray()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def _rebuild(cls: Any, *_: Any) -> Stub:
    """What copyreg does for pickles of protocols 0 and 1, for stubs only."""
    if not (isinstance(cls, type) and issubclass(cls, Stub)):
        raise pickle.UnpicklingError(f"it wants to build a {cls}")
    return cls()


def _latin1(text: str, _: str) -> bytes:
    """How Python 3 writes bytes into pickles of old protocols."""
    return text.encode("latin1")


_NUMPY: dict[str, Any] = {
    "ndarray": PickledArray,
    "dtype": _Dtype,
    "_reconstruct": _empty,
    "_frombuffer": _from_buffer,
    "scalar": Stub,
}
_OTHERS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("copy_reg", "_reconstructor"): _rebuild,
    ("copyreg", "_reconstructor"): _rebuild,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
}


class _Arrays(pickle.Unpickler):
    """Unpickles stubs and plain values and nothing else, so that a foreign file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the few names that arrays are pickled with; matched as a whole, so no attribute of theirs either."""
        room = module.partition(".")[0]
        if room == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        if room == "chumpy":
            return Stub
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csr_matrix"):
            return _Columns if name == "csc_matrix" else _Rows
        if (module, name) in _OTHERS:
            return _OTHERS[module, name]
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no array needs")


def plain_array(value: Any) -> np.ndarray:
    """An array out of what was unpickled."""
    if isinstance(value, PickledArray):
        _, shape, dtype, columns_first, data = value.state
        kind = np.dtype(dtype.code).newbyteorder(dtype.state[1] if dtype.state[1] in "<>" else "=")
        if kind.kind not in "fiu" or not isinstance(data, str | bytes | bytearray):
            raise ValueError(f"expected arrays of numbers, found one of {kind}")
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, kind).reshape(shape, order="F" if columns_first else "C")
    if isinstance(value, _Columns | _Rows):
        state = value.state
        starts, members, data = (plain_array(state[name]) for name in ("indptr", "indices", "data"))
        lines = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        if len(members) and members.min() < 0:
            raise ValueError("a sparse matrix has negative indices")
        rows, columns = state["_shape"] if "_shape" in state else state["shape"]
        if rows * columns > _LARGEST:
            raise ValueError(f"a sparse matrix of {rows} x {columns} is too large")
        dense = np.zeros((rows, columns))
        np.add.at(dense, (members, lines) if isinstance(value, _Columns) else (lines, members), data)
        return dense
    if isinstance(value, Stub) and isinstance(value.state, dict) and "x" in value.state:
        return plain_array(value.state["x"])
    what = "a chumpy expression; evaluate it and save the arrays as .npz" if isinstance(value, Stub) else type(value)
    raise ValueError(f"expected arrays of numbers, found {what}")


class _Inline(Stub):
    """joblib's stand-in for an array, whose bytes follow in the file."""

    def read(self, handle: BinaryIO) -> PickledArray:
        """The array: a length byte and as much padding where the file is aligned, then the numbers."""
        if self.state.get("numpy_array_alignment_bytes") is not None:
            handle.read(handle.read(1)[0])
        shape, dtype = self.state["shape"], self.state["dtype"]
        size = math.prod(shape) * np.dtype(dtype.code).itemsize
        data = handle.read(size) if size >= 0 else b""
        if len(data) != size:
            raise EOFError("the file ends inside an array")
        return _from_buffer(data, dtype, shape, self.state["order"])


def _number(dtype: Any, data: Any) -> Any:
    """A numpy scalar, such as a person's number."""
    return plain_array(_from_buffer(data, dtype, (), "C")).item()


def _dict(*_: Any) -> dict[Any, Any]:
    return {}


_JOBLIB: dict[tuple[str, str], Any] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Inline,
    ("collections", "defaultdict"): _dict,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "dict"): _dict,
}


# The one in Python: the one in C reads ahead, past the bytes that joblib puts between the opcodes.
_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class Joblib(_Unpickler):
    """Unpickles dicts of arrays and nothing else, so that a foreign file cannot run code."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(handle)
        self._handle = handle

    def find_class(self, module: str, name: str) -> Any:
        """One of the few names that dicts and arrays are pickled with."""
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return _number if name == "scalar" else _NUMPY[name]
        if (module, name) in _JOBLIB:
            return _JOBLIB[module, name]
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no array needs")

    def load_build(self) -> None:
        """Give an object its state; joblib's stand-in becomes its array here, where its bytes are next in the file."""
        super().load_build()
        if isinstance(self.stack[-1], _Inline):
            self.stack[-1] = self.stack[-1].read(self._handle)

    dispatch[pickle.BUILD[0]] = load_build


def _unreadable(file: Path, kind: str, error: BaseException) -> ValueError:
    why = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError):
        return ValueError(f"{file} needs more memory than there is ({why}); cut it into shorter files")
    return ValueError(f"{file} is no readable {kind} ({why}); get it again, or write it again")
