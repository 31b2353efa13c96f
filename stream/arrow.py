"""Readings in Arrow IPC streams to columns: a record of many readings, as a gateway sends them.

The format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format. What frames the messages is read
here before pyarrow sees any of it: nothing is decompressed, and a length that is not there is not believed.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.statistics import Floats, Ints
from stream.contracts import Reason
from stream.decode import ABSENT, PACKED, Decoded, together
from stream.parse import SHOWN, Fault, Refused
from stream.rejects import Rejects
from stream.texts import Texts, chained

DEVICE, STAMP = "device_id", "ts"
MOST_BYTES = 16 * 1024 * 1024
"""What a record's readings may come to, were each kept aside as JSON: a small record can hold very many."""
_READING_BYTES, _VALUE_BYTES = 1024, 32
"""What each of them, and each of its values, comes to there without names."""
MOST_BATCHES = 64
"""Of a record."""
_END = PACKED + bytes(4)
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_LITTLE = 0
_NOTHING = "the Arrow stream holds no reading"
_FAR = 2**53
_BROKEN = (pa.ArrowException, ValueError, TypeError, LookupError, OSError, EOFError, MemoryError, OverflowError)
"""Whatever pyarrow says to bytes that are no stream, or no columns, after all."""
_PER_MS = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}

Mask = NDArray[np.bool_]


def unpack(rows: Ints, values: Sequence[bytes | None]) -> Decoded:
    """The readings in records, those of a record in their order; whether they are within bounds is left to others.

    A reading without a device has a null for a name, one without a stamp ``ABSENT``. Rejects are of whole records.
    """
    alike: dict[bytes, list[tuple[int, _Stream]]] = {}
    faults: dict[int, Fault] = {}
    for row, value in zip(rows.tolist(), values, strict=True):
        try:
            found = _scan(value or b"")
        except Refused as refused:
            faults[row] = refused.args
        else:
            alike.setdefault(found.schema, []).append((row, found))
    return together([_nothing(faults), *(one for part in alike.items() for one in _read(*part))])


def _nothing(faults: Mapping[int, Fault]) -> Decoded:
    """No reading, but what is wrong with some rows."""
    none, refused = np.empty(0, np.int64), Rejects.of(np.fromiter(faults, np.int64), list(faults.values()))
    return Decoded(none, none, Texts.of([]), none, none, none, [], none, np.empty(0), refused)


# --- the frames --------------------------------------------------------------------------------


class _Stream(NamedTuple):
    """An IPC stream in parts: its first message, the others without the end of the stream."""

    schema: bytes
    body: bytes
    batches: int
    """How many batches of readings there are."""
    named: bool
    """Whether a dictionary comes first."""


def _scan(value: bytes) -> _Stream:
    """Part a stream into its messages.

    Raises:
        Refused: ``malformed`` where frames are broken, or hold what is not taken.
    """
    try:
        frames = list(_frames(value))
    except struct.error:
        raise Refused(Reason.MALFORMED, "the Arrow stream is cut off") from None
    kinds = [kind for kind, _ in frames]
    if kinds[:1] != [_SCHEMA] or not {*kinds[1:]} <= {_DICTIONARY, _BATCH}:
        raise Refused(Reason.MALFORMED, "an Arrow stream is a schema and batches")
    if _BATCH not in kinds:
        raise Refused(Reason.EMPTY, _NOTHING)
    if len(kinds) > 2 * MOST_BATCHES or kinds.count(_BATCH) > MOST_BATCHES:
        raise Refused(Reason.MALFORMED, f"more than {MOST_BATCHES} batches in one record")
    first = frames[0][1]
    body = value[first : len(value) - len(_END)]
    return _Stream(value[:first], body, kinds.count(_BATCH), kinds[1:2] == [_DICTIONARY])


def _frames(value: bytes) -> Iterator[tuple[int, int]]:
    """Kind and end of each message."""
    at = 0
    while True:
        if value[at : at + 4] != PACKED:
            raise Refused(Reason.MALFORMED, "the Arrow stream does not end" if at == len(value) else _lost(at))
        (size,) = struct.unpack_from("<i", value, at + 4)
        at += 8
        if size == 0:
            break
        kind, length = _message(value[at : at + size]) if 0 < size <= len(value) - at else (0, -1)
        if not 0 <= length <= len(value) - at - size or (size + length) % 8:
            raise Refused(Reason.MALFORMED, _lost(at))
        at += size + length
        yield kind, at
    if at != len(value):
        raise Refused(Reason.MALFORMED, f"{len(value) - at} bytes come after the end of the Arrow stream")


def _lost(at: int) -> str:
    return f"there is no message of an Arrow stream at byte {at}"


def _message(text: bytes) -> tuple[int, int]:
    """Kind and length of the body of a message, by its metadata (a FlatBuffer, Message.fbs and Schema.fbs of Arrow)."""
    whole = struct.unpack_from("<I", text)[0]
    kind, length = _number(text, whole, 1, "<B"), _number(text, whole, 3, "<q")
    table = _inner(text, whole, 2)
    if kind == _SCHEMA and _number(text, table, 0, "<h") != _LITTLE:
        raise Refused(Reason.MALFORMED, "the Arrow stream is big-endian")
    if kind == _DICTIONARY:
        if _number(text, table, 2, "<B"):
            raise Refused(Reason.MALFORMED, "the Arrow stream has a delta dictionary")
        table = _inner(text, table, 1)
    if kind in {_DICTIONARY, _BATCH} and _place(text, table, 3):
        raise Refused(Reason.MALFORMED, "the Arrow stream is compressed; leave that to Kafka's producer")
    return kind, length


def _place(text: bytes, table: int, field: int) -> int:
    """Where a field of a table is; 0 where it is absent."""
    fields = table - int(struct.unpack_from("<i", text, table)[0])
    (size,) = struct.unpack_from("<H", text, fields)
    (offset,) = struct.unpack_from("<H", text, fields + 4 + 2 * field) if 4 + 2 * field < size else (0,)
    return table + offset if offset else 0


def _number(text: bytes, table: int, field: int, kind: str) -> int:
    place = _place(text, table, field)
    return int(struct.unpack_from(kind, text, place)[0]) if place else 0


def _inner(text: bytes, table: int, field: int) -> int:
    """Where the table is that a field leads to."""
    place = _place(text, table, field)
    return place + int(struct.unpack_from("<I", text, place)[0])


# --- the columns -------------------------------------------------------------------------------


def _read(schema: bytes, streams: Sequence[tuple[int, _Stream]]) -> Iterator[Decoded]:
    """What streams of one schema hold; if one of them is no good, each by itself."""
    try:
        yield _columns(schema, streams)
    except _BROKEN as error:
        if len(streams) == 1:
            yield _nothing({streams[0][0]: _fault(error)})
            return
        for one in streams:
            yield from _read(schema, [one])


def _fault(error: BaseException) -> Fault:
    return error.args if isinstance(error, Refused) else (Reason.MALFORMED, str(error)[:SHOWN])


def _columns(schema: bytes, streams: Sequence[tuple[int, _Stream]]) -> Decoded:
    """The readings of all streams, as if they were one.

    Raises:
        Refused: there is one that cannot be taken in.
        ValueError: or any other of ``_BROKEN``: there is one that pyarrow cannot read.
    """
    about = pa.ipc.read_schema(pa.py_buffer(schema))
    _look(about)
    coded = pa.types.is_dictionary(about.field(DEVICE).type)
    if any(stream.named != coded for _, stream in streams):  # or it would be read by another record's
        raise Refused(Reason.MALFORMED, "a dictionary is missing, or one too many")
    table = pa.ipc.open_stream(b"".join([schema, *(stream.body for _, stream in streams), _END]))
    batches = list(table)
    counts = _counts(batches, [stream.batches for _, stream in streams])
    _bound(about.names, counts)
    table = pa.Table.from_batches(batches, about)
    table.validate(full=True)
    names, device = _devices(table.column(DEVICE))
    return _decoded(
        np.repeat([row for row, _ in streams], counts),
        np.concatenate([np.arange(count) for count in counts]),
        (names, device, _stamps(table.column(STAMP))),
        table.drop_columns([DEVICE, STAMP]),
    )


def _look(about: Any) -> None:
    """Whether a schema is one of readings.

    Raises:
        Refused: it is not.
    """
    names = about.names
    for name in (DEVICE, STAMP):
        if name not in names:
            raise Refused(Reason.MISSING_FIELD, f"{name} is missing")
    for column in about:
        fits, wanted = _type(column)
        if not fits:
            told = f"{column.name[:SHOWN]} must hold {wanted}, not {str(column.type)[:SHOWN]}"
            raise Refused(Reason.WRONG_TYPE, told)
    if len({*names}) < len(names):
        raise Refused(Reason.MALFORMED, "two columns have the same name")


def _type(column: Any) -> tuple[bool, str]:
    """Whether a column has a type it may have, and which those are."""
    kind, types = column.type, pa.types
    if column.name == DEVICE:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind), "strings"
    if column.name == STAMP:
        return types.is_int64(kind) or types.is_timestamp(kind), "int64 or a timestamp"
    return types.is_floating(kind) or types.is_integer(kind), "numbers"


def _counts(batches: Sequence[Any], parts: Sequence[int]) -> list[int]:
    """How many readings each stream has, of so many batches each."""
    sizes = iter([batch.num_rows for batch in batches])
    return [sum(next(sizes) for _ in range(count)) for count in parts]


def _bound(names: Sequence[str], counts: Sequence[int]) -> None:
    """Whether no stream holds more readings than can be dealt with, or none.

    Raises:
        Refused: there is one that does.
    """
    each = _READING_BYTES + sum(len(name) + _VALUE_BYTES for name in names)
    if min(counts) == 0:
        raise Refused(Reason.EMPTY, _NOTHING)
    if max(counts) * each > MOST_BYTES:
        told = f"{max(counts)} readings of {len(names) - 2} metrics in one record; the most are {MOST_BYTES // each}"
        raise Refused(Reason.TOO_LARGE, told)


def _devices(column: Any) -> tuple[Texts, Ints]:
    """Names, null where there is none, and which of them each reading has."""
    if not pa.types.is_dictionary(column.type):
        names = _texts(column.cast(pa.large_string()).combine_chunks())
        return names, np.arange(len(names))
    texts, codes, first = [Texts.of([None])], [], 1
    for chunk in column.chunks:
        names = _texts(chunk.dictionary.cast(pa.large_string()))
        if len(chunk) * int(names.size.max(initial=0)) > MOST_BYTES:
            raise Refused(Reason.TOO_LARGE, "device names of a record are too long for so many readings")
        absent = chunk.indices.is_null().to_numpy(zero_copy_only=False)
        codes.append(np.where(absent, 0, first + chunk.indices.fill_null(0).to_numpy().astype(np.int64)))
        texts.append(names)
        first += len(names)
    return chained(texts), np.concatenate(codes)


def _texts(strings: Any) -> Texts:
    """The same, of an array of large strings."""
    _, offsets, data = strings.buffers()
    if not len(strings) or offsets is None:
        return Texts.of([None] * len(strings))
    edges = np.frombuffer(offsets, np.int64, len(strings) + 1, strings.offset * 8)
    size = np.diff(edges)
    size[strings.is_null().to_numpy(zero_copy_only=False)] = -1
    return Texts((data.to_pybytes() if data else b"") + b"\0", edges[:-1].copy(), size)


def _stamps(column: Any) -> Ints:
    """Epoch milliseconds, rounded down as those of texts are; ``ABSENT`` where there is none."""
    unit = column.type.unit if pa.types.is_timestamp(column.type) else "ms"
    raw = column.cast(pa.int64()).fill_null(ABSENT).to_numpy()
    absent = column.is_null().to_numpy() if column.null_count else np.zeros(len(raw), np.bool_)
    stamps = np.clip(raw, -_FAR, _FAR) * 1_000 if unit == "s" else raw // _PER_MS[unit]
    return np.where(absent, ABSENT, stamps)


def _decoded(rows: Ints, parts: Ints, about: tuple[Texts, Ints, Ints], metrics: Any) -> Decoded:
    """Readings by which of the metrics they have."""
    names, device, ts = about
    matrix, there = _matrix(metrics)
    kinds, shape = _shapes(there)
    columns = metrics.column_names
    shapes = [tuple(columns[at] for at in np.flatnonzero(kind)) for kind in kinds]
    width = there.sum(axis=1)
    return Decoded(rows, parts, names, device, ts, shape, shapes, np.cumsum(width) - width, matrix[there])


def _matrix(metrics: Any) -> tuple[Floats, Mask]:
    """Values of shape ``(n, metrics)``, and which of them are there."""
    matrix = np.empty((metrics.num_rows, metrics.num_columns))
    there = np.ones(matrix.shape, np.bool_)
    for at, column in enumerate(metrics.columns):
        matrix[:, at] = column.to_numpy()
        if column.null_count:
            there[:, at] = column.is_valid().to_numpy()
    return matrix, there


def _shapes(there: Mask) -> tuple[Mask, Ints]:
    """The distinct rows, as they first appear, and which of them each row is."""
    if there.all():
        return there[:1], np.zeros(len(there), np.int64)
    packed = np.packbits(there, axis=1)
    _, first, shape = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return there[first[order]], place[shape.ravel()]
