"""Tensors of the Open Inference Protocol, as JSON and as bytes, to numpy arrays and back.

Numbers as bytes are little-endian and row-major; each element of BYTES is preceded by its length in four bytes
(protocol v2, "Tensor Data", and the binary tensor data extension).
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.errors import RefusedError, TooLargeError

Array = NDArray[Any]
Columns = dict[str, Array]
"""Arrays with one row a window (or reading) each, by the name of their tensor."""


class Scored:
    """Columns of requests that were scored together, and what an answer in JSON has of each, made once for all."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._lists: dict[str, list[Any]] = {}

    @cached_property
    def kinds(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Datatypes, and shapes of a row."""
        return {name: (datatype(array), array.shape[1:]) for name, array in self.columns.items()}

    def elements(self, name: str) -> list[Any]:
        """A column's elements, row by row."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self.columns[name].ravel().tolist()
        return found


class Outputs(Mapping[str, Array]):
    """The columns of one request: rows ``start`` to ``end`` of those that were scored together."""

    __slots__ = ("_end", "_scored", "_start")

    def __init__(self, scored: Scored, start: int, end: int) -> None:
        self._scored, self._start, self._end = scored, start, end

    @classmethod
    def of(cls, columns: Columns) -> "Outputs":
        """All rows of columns."""
        return cls(Scored(columns), 0, len(next(iter(columns.values()))))

    def __getitem__(self, name: str) -> Array:
        return self._scored.columns[name][self._start : self._end]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scored.columns)

    def __len__(self) -> int:
        return len(self._scored.columns)

    def tensor(self, name: str) -> dict[str, Any]:
        """A tensor's name, datatype and shape."""
        kind, row = self._scored.kinds[name]
        return {"name": name, "datatype": kind, "shape": (self._end - self._start, *row)}

    def elements(self, name: str) -> list[Any]:
        """A tensor's elements, row by row."""
        width = math.prod(self._scored.kinds[name][1])
        return self._scored.elements(name)[self._start * width : self._end * width]


DTYPES: dict[str, str] = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip
"""What numpy calls the protocol's datatypes."""
_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 8
_MOST_ELEMENTS = 2**31

_FLOATS: tuple[msgspec.json.Decoder[Any], ...] = tuple(
    msgspec.json.Decoder(kind)
    for kind in (list[float], list[list[float]], list[float | None], list[list[float | None]], list[list[list[float]]])
)
_INTS: tuple[msgspec.json.Decoder[Any], ...] = tuple(
    msgspec.json.Decoder(kind) for kind in (list[int], list[list[int]], list[list[list[int]]])
)
_BOOLS: tuple[msgspec.json.Decoder[Any], ...] = tuple(
    msgspec.json.Decoder(kind) for kind in (list[bool], list[list[bool]])
)
_TEXTS: tuple[msgspec.json.Decoder[Any], ...] = tuple(
    msgspec.json.Decoder(kind) for kind in (list[str], list[list[str]])
)
_DECODERS = {"O": _TEXTS, "?": _BOOLS, "f": _FLOATS, "i": _INTS, "u": _INTS}
_CALLED = {"O": "strings", "?": "booleans", "f": "numbers", "i": "whole numbers", "u": "whole numbers"}


class Tensor(NamedTuple):
    """What a tensor is called and holds; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def from_json(tensor: Tensor, data: bytes | msgspec.Raw) -> Array:
    """The array of a tensor whose elements are JSON, flat or nested by its dimensions; null is NaN among floats.

    Raises:
        RefusedError: they are of another type, or not as many as the shape says.
    """
    kind = _kind(tensor)
    size = _size(tensor)
    for decoder in _DECODERS[kind[-2:-1] or kind]:
        try:
            found = np.array(decoder.decode(data), kind)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            continue
        if found.size == size:
            return found.reshape(tensor.shape)
        raise RefusedError(
            f"{tensor.name}: its data has {found.size} elements, and shape {list(tensor.shape)} asks for {size}."
        )
    raise RefusedError(
        f"{tensor.name}: data of datatype {tensor.datatype} must be an array of {_CALLED[kind[-2:-1] or kind]} "
        "in range, flat or nested by the shape."
    )


def from_bytes(tensor: Tensor, data: bytes | memoryview) -> Array:
    """The array of a tensor in its binary form.

    Raises:
        RefusedError: there are more or fewer bytes than the shape asks for.
    """
    kind = _kind(tensor)
    size = _size(tensor)
    if kind == "O":
        return _unpacked(tensor, bytes(data), size)
    if size * np.dtype(kind).itemsize != len(data):
        raise RefusedError(
            f"{tensor.name}: {len(data)} bytes of data, and {tensor.datatype} of shape {list(tensor.shape)} "
            f"takes {size * np.dtype(kind).itemsize}."
        )
    return np.frombuffer(data, kind).reshape(tensor.shape)


def from_items(tensor: Tensor, items: Sequence[Any]) -> Array:
    """The array of a tensor whose elements are Python's, as protobuf gives them.

    Raises:
        RefusedError: they are not as many as the shape says, or out of the datatype's range.
    """
    kind, size = _kind(tensor), _size(tensor)
    if len(items) != size:
        raise RefusedError(
            f"{tensor.name}: its contents of {tensor.datatype} have {len(items)} elements, and shape "
            f"{list(tensor.shape)} asks for {size}."
        )
    if kind == "O":
        return np.array([_text(tensor, item) for item in items], "O").reshape(tensor.shape)
    try:
        return np.array(items, kind).reshape(tensor.shape)
    except (OverflowError, ValueError) as error:
        raise RefusedError(f"{tensor.name}: an element is out of the range of {tensor.datatype}.") from error


def to_bytes(array: Array) -> bytes:
    """The binary form of an array."""
    if array.dtype != object:
        return array.tobytes()
    parts = [item.encode() for item in array.ravel().tolist()]
    return b"".join([piece for part in parts for piece in (_LENGTH.pack(len(part)), part)])


def datatype(array: Array) -> str:
    """What the protocol calls what an array holds."""
    return {"f": "FP64", "i": "INT64", "b": "BOOL"}.get(array.dtype.kind, "BYTES")


def _kind(tensor: Tensor) -> str:
    try:
        return DTYPES[tensor.datatype]
    except KeyError:
        raise RefusedError(
            f"{tensor.name}: datatype {tensor.datatype!r:.40} is unknown; use one of {', '.join(DTYPES)}."
        ) from None


def _size(tensor: Tensor) -> int:
    if not tensor.shape or len(tensor.shape) > _MOST_DIMENSIONS or min(tensor.shape) < 0:
        raise RefusedError(f"{tensor.name}: shape {list(tensor.shape)!s:.80} must be one to eight numbers from 0 up.")
    size = math.prod(tensor.shape)
    if size > _MOST_ELEMENTS:
        raise TooLargeError(f"{tensor.name}: shape {list(tensor.shape)!s:.80} asks for more than 2³¹ elements.")
    return size


def _unpacked(tensor: Tensor, data: bytes, size: int) -> Array:
    """Elements of BYTES, each behind its length."""
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) <= size:
        if at + _LENGTH.size > len(data):
            break
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise RefusedError(f"{tensor.name}: element {len(found)} has a length of {length} beyond the end of data.")
        found.append(_text(tensor, data[at : at + length]))
        at += length
    if at != len(data) or len(found) != size:
        raise RefusedError(
            f"{tensor.name}: BYTES of shape {list(tensor.shape)} must be {size} elements, each behind its length in "
            "four bytes, little-endian."
        )
    return np.array(found, "O").reshape(tensor.shape)


def _text(tensor: Tensor, item: bytes | str) -> str:
    try:
        return item if isinstance(item, str) else item.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{tensor.name}: an element is not UTF-8.") from error
