"""Kafka's record batches to columns, without an object a record.

The format is message format 2 of Kafka's protocol (KIP-98): a header of 61 bytes, then the records, compressed or not.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.errors import TidewatchError
from scorers.statistics import Ints
from stream.records import Headers, Records
from stream.texts import Texts

_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH, _AFTER_FORMAT, _CHECKED, _FORMAT = 12, 17, 21, 2
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20

Decompress = Callable[[bytes], bytes]
Checksum = Callable[[memoryview], int]


class CorruptError(TidewatchError):
    """A batch is not what its producer wrote; reading it again may help."""

    retryable = True


class RecordBatch(NamedTuple):
    """One batch of a partition's log, as it came."""

    base_offset: int
    next_offset: int
    """Of the batch that follows; records may have been compacted away before it."""
    attributes: int
    first_timestamp: int
    max_timestamp: int
    producer: int
    """-1: none."""
    records: int
    body: memoryview

    @property
    def transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def control(self) -> bool:
        """Whether it holds a transaction's end and no record."""
        return bool(self.attributes & _CONTROL)


def readable(data: memoryview) -> bool:
    """Whether all batches have the format that is read here; older ones may be in topics that older Kafkas wrote."""
    return all(data[begin + _AFTER_FORMAT - 1] == _FORMAT for begin, _ in _places(data))


def batches(data: memoryview, checksum: Checksum) -> Iterator[RecordBatch]:
    """The whole batches of a fetch; what is cut off at its end is left out.

    Raises:
        CorruptError: a batch has another checksum (CRC-32C) than it says.
    """
    for begin, end in _places(data):
        if end - begin < _HEADER.size:
            raise CorruptError("a batch is shorter than its header")
        base, _, _, _, crc, attributes, last, first, latest, producer, _, _, count = _HEADER.unpack_from(data, begin)
        if checksum(data[begin + _CHECKED : end]) != crc:
            raise CorruptError(f"the batch at offset {base} is damaged")
        body = data[begin + _HEADER.size : end]
        yield RecordBatch(base, base + last + 1, attributes, first, latest, producer, count, body)


def _places(data: memoryview) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin + _AFTER_FORMAT <= len(data):
        end = begin + _BEFORE_LENGTH + int.from_bytes(data[begin + 8 : begin + _BEFORE_LENGTH], "big", signed=True)
        if not begin + _AFTER_FORMAT <= end <= len(data):
            return
        yield begin, end
        begin = end


def opened(batch: RecordBatch, decompress: Mapping[int, Decompress]) -> RecordBatch:
    """A batch without its compression; ``decompress`` is by Kafka's number of the codec.

    Raises:
        CorruptError: it is compressed by none of these, or not well.
    """
    codec = batch.attributes & _CODEC
    if codec == 0:
        return batch
    try:
        body = decompress[codec](batch.body.tobytes())
    except KeyError:
        raise CorruptError(f"the batch at offset {batch.base_offset} has an unknown codec {codec}") from None
    except Exception as error:  # every codec has errors of its own
        raise CorruptError(f"the batch at offset {batch.base_offset} cannot be decompressed: {error}") from error
    return batch._replace(body=memoryview(body), attributes=batch.attributes & ~_CODEC)


def unpack(topic: str, partition: int, whole: Sequence[RecordBatch]) -> Records:
    """The records of consecutive batches of a partition, all opened.

    Raises:
        CorruptError: what a batch holds is no records.
    """
    edges = np.cumsum([0, *(len(batch.body) for batch in whole)])
    buffer = b"".join([*(batch.body for batch in whole), b"\0"])
    count = np.array([batch.records for batch in whole])
    base = np.array([batch.base_offset for batch in whole])
    first = np.array([batch.first_timestamp for batch in whole])
    stamp = np.array([batch.max_timestamp if batch.attributes & _APPEND_TIME else -1 for batch in whole])
    rows = int(count.sum())
    columns: Any = tuple(np.empty(rows if 0 <= rows <= len(buffer) else 0, np.int64) for _ in range(7))
    sound = (count >= 0).all() and rows <= len(buffer)
    if not sound or not _index(np.frombuffer(buffer, np.uint8), edges, count, base, first, stamp, columns):
        raise CorruptError(f"a batch between offsets {base[0]} and {whole[-1].next_offset} does not hold records")
    offset, timestamp, key, key_size, value, value_size, header = columns
    return Records(
        topic, partition, offset, timestamp,
        Texts(buffer, key, key_size), Texts(buffer, value, value_size), Notes(buffer, header),
    )  # fmt: skip


class Notes(Sequence[Headers]):
    """The headers of records, taken apart when asked for."""

    def __init__(self, buffer: bytes, begin: Ints) -> None:
        self._buffer = buffer
        self._begin = begin

    def __len__(self) -> int:
        return len(self._begin)

    @overload
    def __getitem__(self, row: int) -> Headers: ...
    @overload
    def __getitem__(self, row: slice) -> "Notes": ...
    def __getitem__(self, row: int | slice) -> "Headers | Notes":
        if isinstance(row, slice):
            return Notes(self._buffer, self._begin[row])
        begin = int(self._begin[row])
        try:
            return self._apart(begin)
        except IndexError:  # a header is cut off
            return ()

    def _apart(self, at: int) -> Headers:
        left, at = self._varint(at)
        found = []
        while left > 0:
            name, at = self._text(at)
            value, at = self._text(at)
            found.append(((name or b"").decode(errors="replace"), value))
            left -= 1
        return found

    def _text(self, at: int) -> tuple[bytes | None, int]:
        size, at = self._varint(at)
        if at + size > len(self._buffer):
            raise IndexError(size)
        return (None, at) if size < 0 else (self._buffer[at : at + size], at + size)

    def _varint(self, at: int) -> tuple[int, int]:
        value, shift = 0, 0
        while True:
            byte = self._buffer[at]
            value, at = value | (byte & 0x7F) << shift, at + 1
            if byte < 0x80:  # noqa: PLR2004 - the last byte
                return (value >> 1) ^ -(value & 1), at
            shift += 7


Columns = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints]


@compiled
def _varint(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """A zigzag number and where it ends; -1 in place of that where it does not end in time."""
    value, shift = 0, 0
    while at < end and shift < 64:  # noqa: PLR2004 - bits
        byte = int(data[at])
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte
            return ((value >> 1) & 0x7FFF_FFFF_FFFF_FFFF) ^ -(value & 1), at
        shift += 7
    return 0, -1


@compiled
def _index(  # noqa: PLR0911, PLR0913, PLR0917 - a loop over columns takes columns
    data: NDArray[np.uint8], edges: Ints, counts: Ints, bases: Ints, firsts: Ints,
    stamps: Ints, columns: Columns,
) -> bool:  # fmt: skip
    """Where each record's parts begin and how long they are (-1: null); whether all lie where they should."""
    offset, timestamp, key, key_size, value, value_size, header = columns
    row = 0
    for batch in range(len(counts)):
        at, end = edges[batch], edges[batch + 1]
        for _ in range(counts[batch]):
            size, at = _varint(data, at, end)
            if at < 0 or size < 1 or size > end - at:
                return False
            last = at + size
            delta, at = _varint(data, at + 1, last)
            if at < 0:
                return False
            timestamp[row] = firsts[batch] + delta if stamps[batch] < 0 else stamps[batch]
            delta, at = _varint(data, at, last)
            if at < 0:
                return False
            offset[row] = bases[batch] + delta
            key_size[row], at = _varint(data, at, last)
            if at < 0 or key_size[row] > last - at:
                return False
            key[row] = at
            at += max(key_size[row], 0)
            value_size[row], at = _varint(data, at, last)
            if at < 0 or value_size[row] > last - at:
                return False
            value[row] = at
            header[row] = at + max(value_size[row], 0)
            if header[row] >= last:
                return False
            at = last
            row += 1
    return True
