"""What comes off a partition: columns of raw records, before anything is understood."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints

Headers = Sequence[tuple[str, bytes | None]]

_FAR = 2**60
_OVERHEAD = 256
"""Bytes of a record's objects."""
_COLUMNS = 128
"""Bytes of a record's numbers, here and in what is made of them."""
_DIGITS = 18
"""A punctuation of more would not fit 64 bits."""

PUNCTUATION = "tw_punctuation"
"""Header of an empty record that says: no reading before this epoch ms is still to come.

It closes what its time has passed, so that a recording ends when it ends (Tucker et al. 2003).
"""


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


def copied(source: NDArray[np.uint8], begin: Ints, size: Ints) -> Texts:
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
def _copy(source: NDArray[np.uint8], begin: Ints, size: Ints, target: NDArray[np.uint8]) -> None:
    """One after another; a size below 0 is nothing."""
    at = 0
    for row in range(len(begin)):
        for byte in range(begin[row], begin[row] + size[row]):
            target[at] = source[byte]
            at += 1


@compiled
def _distinct(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    data: NDArray[np.uint8], begin: Ints, length: Ints, table: Ints, code: Ints, first: Ints
) -> int:
    """Number texts as they appear; ``table``, a power of two long and more than half empty, holds the numbers."""
    count, mask = 0, np.uint64(len(table) - 1)
    for i in range(len(begin)):
        slot = np.uint64(14695981039346656037)  # FNV-1a
        for at in range(begin[i], begin[i] + length[i]):
            slot = (slot ^ np.uint64(data[at])) * np.uint64(1099511628211)
        slot = (slot ^ (slot >> np.uint64(32))) & mask
        while table[slot] >= 0 and not _alike(data, begin, length, first[table[slot]], i):
            slot = (slot + np.uint64(1)) & mask
        if table[slot] < 0:
            table[slot], first[count] = count, i
            count += 1
        code[i] = table[slot]
    return count


@compiled
def _alike(data: NDArray[np.uint8], begin: Ints, length: Ints, one: int, other: int) -> bool:
    if length[one] != length[other]:
        return False
    for at in range(length[one]):  # noqa: SIM110 - numba knows no all()
        if data[begin[one] + at] != data[begin[other] + at]:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Records:
    """``n`` consecutive records of one partition, in offset order."""

    topic: str
    partition: int
    offsets: Ints
    timestamps: Ints
    """The records' own Kafka timestamps, epoch ms."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def arrival(self) -> Ints:
        """When the records arrived, epoch ms: their Kafka timestamps, within what may be reckoned with.

        A client may have written any 64 bits there.
        """
        return np.clip(self.timestamps, -_FAR, _FAR)

    @property
    def size(self) -> int:
        """Bytes they take in memory, about; headers are not looked into."""
        if isinstance(self.values, Texts):
            return len(self.values.buffer) + _COLUMNS * len(self)
        parts = chain(filter(None, self.values), filter(None, self.keys))
        return sum(map(len, parts)) + _OVERHEAD * len(self)

    def since(self, offset: int) -> "Records":
        """Those from an offset on."""
        return self.part(int(np.searchsorted(self.offsets, offset)), len(self))

    def part(self, begin: int, end: int) -> "Records":
        """The rows from ``begin`` to before ``end``."""
        if begin == 0 and end == len(self):
            return self
        at = slice(begin, end)
        return Records(
            self.topic, self.partition, self.offsets[at], self.timestamps[at],
            self.keys[at], self.values[at], self.headers[at],
        )  # fmt: skip

    def pick(self, rows: Sequence[int]) -> "Records":
        """The chosen rows, in that order, apart from the others in memory."""
        at = np.asarray(rows, dtype=np.intp)
        return Records(
            self.topic,
            self.partition,
            self.offsets[at],
            self.timestamps[at],
            Texts.of(self.keys).pick(at),
            Texts.of(self.values).pick(at),
            [self.headers[row] for row in at],
        )


def join(parts: Sequence[Records]) -> Records:
    """One run of records out of several of the same partition; order is kept."""
    return Records(
        parts[0].topic,
        parts[0].partition,
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        Texts.of([key for part in parts for key in part.keys]),
        Texts.of([value for part in parts for value in part.values]),
        [headers for part in parts for headers in part.headers],
    )


def punctuation(records: Records) -> list[tuple[int, int]]:
    """(row, epoch ms) of every punctuation."""
    return [
        (row, int(stamp))
        for row in np.flatnonzero(Texts.of(records.values).size <= 0).tolist()
        for name, stamp in records.headers[row] or ()
        if name == PUNCTUATION and stamp and stamp.isdigit() and len(stamp) <= _DIGITS
    ]
