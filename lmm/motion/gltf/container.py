"""The container of glTF 2.0: a file's structure through pygltflib, its arrays by our own checks.

Nothing in a file is trusted: every index, size, offset and number is checked before it is used, and what is wrong is a
`ValueError` that says so. No uri leaves the file's own folder.
"""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pygltflib as gl
from jaxtyping import Float64

_COMPONENTS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_DTYPES = {gl.BYTE: "i1", gl.UNSIGNED_BYTE: "u1", gl.SHORT: "<i2", gl.UNSIGNED_SHORT: "<u2", gl.FLOAT: "<f4"}
_MAX_BYTES = 2**28
_MAX_THINGS = 50_000  # nodes, arrays
LARGEST = 1e6  # metres; keeps float32 finite and exact enough
AGAIN = "export the file again"


class GltfFile:
    """A glTF file's structure and its arrays; every index and size is checked before it is used."""

    def __init__(self, path: Path) -> None:
        self.path, self.gltf = path, _parse(path)
        self._arrays: dict[tuple[int, str], Float64[np.ndarray, "N C"]] = {}  # tracks share them, key times above all
        self._buffers: dict[int, bytes] = {}

    @property
    def ours(self) -> dict[str, Any]:
        """What `write_gltf` left in the root's extras."""
        kept = self.gltf.extras.get("lmm") if isinstance(self.gltf.extras, dict) else None
        return kept if isinstance(kept, dict) else {}

    def count(self, index: Any) -> int:
        """How many vectors an accessor says it has; nothing is read."""
        return whole(self.gltf.accessors[whole(index, len(self.gltf.accessors), "accessor")].count)

    def array(self, index: Any, kind: str) -> Float64[np.ndarray, "N C"]:
        """The numbers of an accessor, at least one, all finite."""
        index = whole(index, len(self.gltf.accessors), "accessor")
        if (index, kind) not in self._arrays:
            self._arrays[index, kind] = self._read(index, kind)
        return self._arrays[index, kind]

    def _read(self, index: int, kind: str) -> Float64[np.ndarray, "N C"]:
        gltf = self.gltf
        accessor = gltf.accessors[index]
        if accessor.sparse is not None or accessor.bufferView is None:
            raise ValueError(f"accessor {index} is sparse; {AGAIN} without compression")
        view = gltf.bufferViews[whole(accessor.bufferView, len(gltf.bufferViews), "buffer view")]
        if view.extensions:
            raise ValueError(f"its buffers use {', '.join(map(str, view.extensions))}; {AGAIN} without compression")
        dtype = np.dtype(_DTYPES.get(accessor.componentType, "V"))
        if accessor.type != kind or dtype.kind == "V" or (dtype.kind != "f" and not accessor.normalized):
            raise ValueError(f"accessor {index} holds {accessor.type!r} where {kind} of float is needed; {AGAIN}")
        data = self._buffer(whole(view.buffer, len(gltf.buffers), "buffer"))
        width = _COMPONENTS[kind] * dtype.itemsize
        stride, count = whole(view.byteStride or width), whole(accessor.count)
        start, skip = whole(view.byteOffset or 0), whole(accessor.byteOffset or 0)
        end = skip + stride * (count - 1) + width
        if count < 1 or stride < width or end > whole(view.byteLength) or start + end > len(data):
            raise ValueError(f"accessor {index} reaches beyond its buffer; copy or export the file again")
        array = np.ndarray((count, _COMPONENTS[kind]), dtype, data, start + skip, (stride, dtype.itemsize))
        values = array.astype(np.float64)
        if dtype.kind != "f":
            values = np.maximum(values / np.iinfo(dtype).max, -1.0)
        if not (np.abs(values) < LARGEST).all():
            raise ValueError(f"accessor {index} holds NaN, Inf or absurdly large numbers; {AGAIN}")
        return values

    def _buffer(self, index: int) -> bytes:
        """A buffer's bytes; those of all buffers together are limited, for many may name one file."""
        if index not in self._buffers:
            self._buffers[index] = self._load(index)
            if sum(map(len, self._buffers.values())) > _MAX_BYTES:
                raise ValueError(f"its buffers are larger than {_MAX_BYTES >> 20} MiB together; cut it")
        return self._buffers[index]

    def _load(self, index: int) -> bytes:
        """A buffer's bytes, from the file itself or from beside it."""
        uri = self.gltf.buffers[index].uri
        if uri is None:
            return self.gltf.binary_blob() or b"" if index == 0 else b""
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except ValueError as error:
                raise ValueError(f"buffer {index} is not sound base64 ({error}); {AGAIN}") from error
        try:
            folder = self.path.parent.resolve()
            beside = (folder / unquote(uri)).resolve()
            if ":" not in uri and beside.is_relative_to(folder) and beside.stat().st_size <= _MAX_BYTES:
                return beside.read_bytes()
        except OSError as error:
            raise ValueError(f"its buffer {uri[:80]!r} cannot be read ({error}); copy it beside this file") from error
        raise ValueError(f"its buffer {uri[:80]!r} is too large or not beside it; put it into the file's own folder")


def _parse(path: Path) -> gl.GLTF2:
    """The file's structure; what is in its buffers is not looked at."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES >> 20} MiB; cut it into shorter files")
    data = path.read_bytes()
    binary = path.suffix.lower() == ".glb"
    if binary and data[:4] != gl.MAGIC:
        raise ValueError(f"is no .glb; {AGAIN}")
    if binary and int.from_bytes(data[8:12], "little") != len(data):
        raise ValueError("its header tells another length than it has; the file is truncated, copy or export it again")
    try:
        gltf = gl.GLTF2.load_from_bytes(data) if binary else gl.GLTF2.gltf_from_json(data.decode("utf-8-sig"))
        sizes = {len(x) for x in (gltf.nodes, gltf.skins, gltf.animations, gltf.accessors, gltf.bufferViews)}
    except Exception as error:  # of any kind: the library trusts its input
        raise ValueError(f"not readable as glTF ({type(error).__name__}: {error}); {AGAIN}") from error
    if max(sizes) > _MAX_THINGS:
        raise ValueError(f"more than {_MAX_THINGS} nodes or arrays; export the skeleton and its animation alone")
    return gltf


def whole(value: Any, below: int = 2**40, what: str = "size") -> int:
    """A whole number of the file: an index, or a size."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        raise ValueError(f"there is no {what} {str(value)[:20]}; {AGAIN}")
    return value


def floats(value: Any, length: int) -> list[float]:
    """That many finite numbers."""
    sound = isinstance(value, list) and len(value) == length
    if not sound or not all(isinstance(x, int | float) and abs(x) < LARGEST for x in value):
        raise ValueError(f"a node's transform is not {length} sound numbers; {AGAIN}")
    return [float(x) for x in value]


def check_unit(quaternions: Float64[np.ndarray, "N 4"]) -> None:
    """Refuse what is no rotation; quantised ones may be a little long or short."""
    if not (np.abs(np.linalg.norm(quaternions, axis=-1) - 1) < 0.1).all():
        raise ValueError(f"a rotation is no unit quaternion; {AGAIN}")
