"""Byte strings in one buffer: made when asked for, copied, told apart and found by compiled loops."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints

Bytes = NDArray[np.uint8]

_BASIS, _PRIME, _SHIFT = np.uint64(14695981039346656037), np.uint64(1099511628211), np.uint64(32)


class Texts(Sequence[bytes | None]):
    """``n`` byte strings in one buffer, made when asked for."""

    def __init__(self, buffer: bytes, begin: Ints, size: Ints) -> None:
        """``size`` -1 is a null; the buffer holds at least one byte more than the last of them."""
        self.buffer = buffer
        self.begin = begin
        self.size = size

    @classmethod
    def of(cls, texts: Sequence[bytes | None]) -> "Texts":
        """The same in one buffer."""
        if isinstance(texts, Texts):
            return texts
        try:
            size = np.array(list(map(len, texts)), np.int64)  # type: ignore[arg-type]  # None raises TypeError
            buffer = b"".join((*texts, b"\0"))  # type: ignore[arg-type]  # likewise
        except TypeError:
            size = np.array([-1 if text is None else len(text) for text in texts], np.int64)
            buffer = b"".join([*filter(None, texts), b"\0"])
        return cls(buffer, _begins(size), size)

    def __len__(self) -> int:
        return len(self.begin)

    @overload
    def __getitem__(self, row: int) -> bytes | None: ...
    @overload
    def __getitem__(self, row: slice) -> "Texts": ...
    def __getitem__(self, row: int | slice) -> "bytes | Texts | None":
        if isinstance(row, slice):
            return Texts(self.buffer, self.begin[row], self.size[row])
        begin, size = int(self.begin[row]), int(self.size[row])
        return None if size < 0 else self.buffer[begin : begin + size]

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self.pick(np.arange(len(self))))

    def gather(self, rows: Ints) -> "Texts":
        """The chosen rows, in that order, in a buffer of their own."""
        return copied(np.frombuffer(self.buffer, np.uint8), self.begin[rows], self.size[rows])

    def distinct(self) -> tuple[Ints, Ints]:
        """Which of the distinct texts each is, and the row where each of those is first; none may be a null."""
        code, first = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        table = np.full(1 << max(2 * len(self), 1).bit_length(), -1)
        count = _distinct(np.frombuffer(self.buffer, np.uint8), self.begin, self.size, table, code, first)
        return code, first[:count]

    def pick(self, rows: Ints) -> list[bytes | None]:
        """The chosen rows."""
        buffer = self.buffer
        places = zip(self.begin[rows].tolist(), self.size[rows].tolist(), strict=True)
        return [None if size < 0 else buffer[begin : begin + size] for begin, size in places]


def copied(source: Bytes, begin: Ints, size: Ints) -> Texts:
    """Parts of ``source``, in a buffer of their own."""
    buffer = np.zeros(int(np.maximum(size, 0).sum()) + 1, np.uint8)
    _copy(source, begin, size, buffer)
    return Texts(buffer.tobytes(), _begins(size), size)


def chained(parts: Sequence[Texts]) -> Texts:
    """One after the other."""
    first = np.cumsum([0, *(len(part.buffer) for part in parts)])
    return Texts(
        b"".join(part.buffer for part in parts),
        np.concatenate([part.begin + at for part, at in zip(parts, first, strict=False)]),
        np.concatenate([part.size for part in parts]),
    )


def _begins(size: Ints) -> Ints:
    length = np.maximum(size, 0)
    return np.cumsum(length) - length


@compiled
def _copy(source: Bytes, begin: Ints, size: Ints, target: Bytes) -> None:
    """One after another; a size below 0 is nothing."""
    at = 0
    for row in range(len(begin)):
        for byte in range(begin[row], begin[row] + size[row]):
            target[at] = source[byte]
            at += 1


@compiled
def home(text: Bytes, begin: int, end: int, mask: int) -> np.int64:
    """Where a text belongs in a table of ``mask + 1`` places, a power of two (FNV-1a, its halves folded)."""
    mixed = _BASIS
    for at in range(begin, end):
        mixed = (mixed ^ np.uint64(text[at])) * _PRIME
    return np.int64((mixed ^ (mixed >> _SHIFT)) & np.uint64(mask))


@compiled
def same(text: Bytes, begin: int, end: int, other: Bytes, at: int, size: int) -> bool:  # noqa: PLR0913, PLR0917 - numba compiles functions, not objects
    """Whether ``text`` from ``begin`` to ``end`` is what ``other`` has at ``at``, ``size`` bytes long."""
    if end - begin != size:
        return False
    for place in range(size):  # noqa: SIM110 - numba knows no all()
        if text[begin + place] != other[at + place]:
            return False
    return True


@compiled
def _distinct(data: Bytes, begin: Ints, size: Ints, table: Ints, code: Ints, first: Ints) -> int:  # noqa: PLR0913, PLR0917 - as above
    """Number texts as they appear; ``table``, a power of two long and more than half empty, holds the numbers."""
    count, mask = 0, len(table) - 1
    for i in range(len(begin)):
        slot = home(data, begin[i], begin[i] + size[i], mask)
        while table[slot] >= 0:
            known = first[table[slot]]
            if same(data, begin[known], begin[known] + size[known], data, begin[i], size[i]):
                break
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot], first[count] = count, i
            count += 1
        code[i] = table[slot]
    return count
