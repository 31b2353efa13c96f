"""Batches in Arrow to readings: the same reasons as of JSON, and whatever bytes come, readings or rejects."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.arrow import BatchEncoder
from stream.arrow import MOST_BATCHES, MOST_BYTES
from stream.contracts import Reason
from stream.decode import Decoded, Limits, decode
from stream.readings import READINGS
from stream.records import Records
from stream.rejects import WHOLE
from stream.sessions import SESSIONS

NOW = 1_700_000_000_000
LIMITS = Limits(max_bytes=60_000, max_metrics=3, max_name=12)
JSON = b'{"device_id": "a", "ts": 1700000000000, "values": {"x": 1.5}}'


def table(**columns: Any) -> Any:
    """Two readings, with some columns in place of what they have."""
    usual = {"device_id": ["a", "b"], "ts": pa.array([NOW, NOW + 1]), "x": pa.array([1.0, 2.0])}
    return pa.table({name: column for name, column in (usual | columns).items() if column is not ...})


def stream(content: Any, *, rows: int | None = None, **options: Any) -> bytes:
    """The same as an IPC stream; ``rows`` in each of its batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, content.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(content, max_chunksize=rows)
    return bytes(sink.getvalue().to_pybytes())


def read(*values: bytes, limits: Limits = LIMITS) -> Decoded:
    count = len(values)
    records = Records("t", 0, np.arange(count), np.full(count, NOW), [None] * count, list(values), [()] * count)
    return decode(records, limits, READINGS)


def readings(decoded: Decoded) -> list[tuple[int, int, str, int, dict[str, float]]]:
    """(row, part, device, ts, values) of what was accepted."""
    found = []
    for at, device in enumerate((decoded.names[code] or b"").decode() for code in decoded.device):
        names = decoded.shapes[decoded.shape[at]]
        values = decoded.flat[decoded.start[at] :][: len(names)].tolist()
        place = int(decoded.row[at]), int(decoded.part[at])
        found.append((*place, device, int(decoded.ts[at]), dict(zip(names, values, strict=True))))
    return found


def reasons(decoded: Decoded) -> list[tuple[int, int, str]]:
    return sorted((reject.row, reject.part, reject.reason) for reject in decoded.rejects)


GOOD = stream(table())
READ = [("a", NOW, {"x": 1.0}), ("b", NOW + 1, {"x": 2.0})]


# --- what is read ------------------------------------------------------------------------------

SECONDS = [NOW // 1000, NOW // 1000 + 1]


@pytest.mark.parametrize(
    "content",
    [
        table(),
        table(device_id=pa.array(["a", "b"], pa.large_string())),
        table(device_id=pa.array(["a", "b"]).dictionary_encode()),
        table(device_id=pa.array(["a", "b"], pa.large_string()).dictionary_encode()),
        table(ts=pa.array([NOW, NOW + 1], pa.timestamp("ms"))),
        table(ts=pa.array([NOW * 1000, NOW * 1000 + 1_999], pa.timestamp("us", "UTC"))),
        table(ts=pa.array([NOW * 10**6, NOW * 10**6 + 1_000_000], pa.timestamp("ns", "Europe/Berlin"))),
        *(table(x=pa.array([1, 2], kind)) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint64())),
        table(x=pa.array([1.0, 2.0], pa.float32())),
        table(x=pa.array(np.array([1, 2], np.float16))),
        table(y=pa.array([None, None], pa.float64())),
    ],
    ids=lambda content: str(content.schema).replace("\n", " "),
)
def test_columns_of_every_allowed_type_are_read_alike(content: Any) -> None:
    assert [reading[2:] for reading in readings(read(stream(content)))] == READ
    assert [reading[2:] for reading in readings(read(stream(content, rows=1)))] == READ


def test_seconds_are_read_too_and_moments_before_1970_rounded_down() -> None:
    early = table(ts=pa.array([-1, -1_001], pa.timestamp("us")))

    assert [r[3] for r in readings(read(stream(table(ts=pa.array(SECONDS, pa.timestamp("s"))))))] == [NOW, NOW + 1000]
    assert [b'"ts":-1,' in (r.value or b"") for r in read(stream(early)).rejects] == [True, False]


def test_records_in_both_forms_keep_their_order() -> None:
    coded = stream(table(device_id=pa.array(["b", "a"]).dictionary_encode(), ts=...).append_column("ts", [[NOW, NOW]]))
    found = readings(read(JSON, GOOD, JSON, coded, GOOD))

    assert [reading[:3] for reading in found] == [
        (0, WHOLE, "a"), (1, 0, "a"), (1, 1, "b"), (2, WHOLE, "a"), (3, 0, "b"), (3, 1, "a"), (4, 0, "a"), (4, 1, "b"),
    ]  # fmt: skip


def test_a_null_metric_is_absent_and_the_others_make_the_shape() -> None:
    content = table(x=pa.array([1.0, None]), y=pa.array([None, 3], pa.int64()))

    assert [reading[4] for reading in readings(read(stream(content)))] == [{"x": 1.0}, {"y": 3.0}]


def test_each_record_has_a_dictionary_of_its_own() -> None:
    one, other = (stream(table(device_id=pa.array(names).dictionary_encode())) for names in (["a", "b"], ["c", "c"]))

    assert [reading[2] for reading in readings(read(one, other, one))] == ["a", "b", "c", "c", "a", "b"]


def test_what_the_producer_writes_is_read() -> None:
    value = BatchEncoder(["x", "ü"]).encode(["a", "b"], np.array([NOW, NOW]), np.array([[1.0, np.nan], [2.5, -0.0]]))

    assert readings(read(value)) == [(0, 0, "a", NOW, {"x": 1.0}), (0, 1, "b", NOW, {"x": 2.5, "ü": -0.0})]


def test_a_topic_without_batches_refuses_them_as_no_json() -> None:
    records = Records("t", 0, np.array([0]), np.array([NOW]), [None], [GOOD], [()])

    assert reasons(decode(records, LIMITS, SESSIONS)) == [(0, WHOLE, Reason.MALFORMED)]


# --- what is refused ---------------------------------------------------------------------------

_TWICE = pa.table([["a"], [NOW], [1.0], [1.0]], ["device_id", "ts", "x", "x"])
_PLAIN = stream(table().slice(0, 0))
WHOLES: list[tuple[bytes, Reason]] = [
    (stream(table(device_id=...)), Reason.MISSING_FIELD),
    (stream(table(ts=...)), Reason.MISSING_FIELD),
    (stream(table(device_id=pa.array([1, 2]))), Reason.WRONG_TYPE),
    (stream(table(device_id=pa.array([b"a", b"b"]))), Reason.WRONG_TYPE),
    (stream(table(ts=pa.array([1.5, 2.5]))), Reason.WRONG_TYPE),
    (stream(table(ts=pa.array([1, 2], pa.int32()))), Reason.WRONG_TYPE),
    (stream(table(x=pa.array(["1", "2"]))), Reason.WRONG_TYPE),
    (stream(table(x=pa.array([True, False]))), Reason.WRONG_TYPE),
    (stream(table(x=pa.array([[1.0], [2.0]]))), Reason.WRONG_TYPE),
    (stream(table(x=pa.nulls(2))), Reason.WRONG_TYPE),
    (stream(table(x=pa.array([1.0, 2.0]).dictionary_encode())), Reason.WRONG_TYPE),
    (stream(_TWICE), Reason.MALFORMED),
    (_PLAIN, Reason.EMPTY),
    (stream(table(device_id=pa.array(["a", "b"]).dictionary_encode()).slice(0, 0)), Reason.EMPTY),
    (stream(table(), compression="lz4"), Reason.MALFORMED),
    (stream(table(), compression="zstd"), Reason.MALFORMED),
    (GOOD[:-8], Reason.MALFORMED),
    (GOOD + b"\0", Reason.MALFORMED),
    (GOOD + GOOD, Reason.MALFORMED),
    (b"\xff" * 4, Reason.MALFORMED),
    (b"\xff" * 400, Reason.MALFORMED),
    (b"\xff\xff\xff\xff\0\0\0\0", Reason.MALFORMED),
    (stream(pa.concat_tables([table()] * MOST_BATCHES), rows=1), Reason.MALFORMED),
    (stream(table(x=pa.array([0.0, 0.0]), note=["x" * 60_000, ""])), Reason.TOO_LARGE),
]


@pytest.mark.parametrize(("value", "reason"), WHOLES, ids=range(len(WHOLES)))
def test_a_record_that_is_no_batch_is_refused_as_a_whole_and_alone(value: bytes, reason: Reason) -> None:
    alone, among = read(value), read(JSON, GOOD, value, GOOD)

    assert reasons(alone) == [(0, WHOLE, reason)]
    assert reasons(among) == [(2, WHOLE, reason)]
    assert [reading[:2] for reading in readings(among)] == [(0, WHOLE), (1, 0), (1, 1), (3, 0), (3, 1)]


PARTS: list[tuple[dict[str, Any], Reason]] = [
    ({"device_id": ["a", None]}, Reason.MISSING_FIELD),
    ({"device_id": pa.array(["a", None]).dictionary_encode()}, Reason.MISSING_FIELD),
    ({"device_id": ["a", ""]}, Reason.WRONG_TYPE),
    ({"device_id": ["a", "x" * 13]}, Reason.WRONG_TYPE),
    ({"ts": pa.array([NOW, None])}, Reason.MISSING_FIELD),
    ({"ts": pa.array([SECONDS[0], None], pa.timestamp("s"))}, Reason.MISSING_FIELD),
    ({"ts": pa.array([NOW, NOW // 1000])}, Reason.BAD_TIMESTAMP),
    ({"ts": pa.array([SECONDS[0], 2**62], pa.timestamp("s"))}, Reason.BAD_TIMESTAMP),
    ({"ts": pa.array([NOW, NOW + LIMITS.max_ahead_ms + 1])}, Reason.FUTURE),
    ({"x": pa.array([1.0, np.nan])}, Reason.NOT_FINITE),
    ({"x": pa.array([1.0, -np.inf])}, Reason.NOT_FINITE),
    ({"x": pa.array([1.0, 1e101])}, Reason.NOT_FINITE),
    ({"x": pa.array([1.0, None])}, Reason.NO_VALUES),
    ({name: pa.array([None, 1.0]) for name in "uvw"} | {"x": pa.array([1.0, 1.0])}, Reason.TOO_MANY_METRICS),
    ({"much too long a name": pa.array([None, 1.0])}, Reason.WRONG_TYPE),
]


@pytest.mark.parametrize(("columns", "reason"), PARTS, ids=range(len(PARTS)))
def test_a_bad_reading_costs_nobody_but_itself(columns: dict[str, Any], reason: Reason) -> None:
    decoded = read(GOOD, stream(table(**columns)))

    assert reasons(decoded) == [(1, 1, reason)]
    assert [reading[:3] for reading in readings(decoded)] == [(0, 0, "a"), (0, 1, "b"), (1, 0, "a")]


@pytest.mark.parametrize(("columns", "reason"), PARTS, ids=range(len(PARTS)))
def test_what_is_kept_of_a_bad_reading_is_refused_again_for_the_same_reason(
    columns: dict[str, Any], reason: Reason
) -> None:
    (reject,) = read(stream(table(**columns))).rejects

    assert reasons(read(reject.value or b"")) == [(0, WHOLE, reason)]


def test_a_reject_names_the_column() -> None:
    wrong, nan = read(stream(table(x=["1", "2"])), stream(table(y=pa.array([1.0, np.nan])))).rejects

    assert wrong.detail == "x must hold numbers, not string"
    assert nan.detail.startswith("y is nan")


# --- what would harm ---------------------------------------------------------------------------


def test_more_readings_than_can_be_dealt_with_are_refused_before_any_is_made() -> None:
    many = MOST_BYTES // 1024
    columns = {"device_id": pa.array(["a"] * many).dictionary_encode(), "ts": pa.array([NOW] * many)}
    (reject,) = read(stream(table(**columns, x=pa.array([1.0] * many))), limits=Limits(max_bytes=2**30)).rejects

    assert (reject.part, reject.reason) == (WHOLE, Reason.TOO_LARGE)


def test_one_long_name_for_many_readings_is_refused() -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int8()), pa.array(["x" * 100_000]))
    content = table(device_id=names, ts=pa.array([NOW] * 1_000), x=pa.array([1.0] * 1_000))
    (reject,) = read(stream(content), limits=Limits(max_bytes=2**30)).rejects

    assert (reject.part, reject.reason) == (WHOLE, Reason.TOO_LARGE)


def test_a_record_does_not_borrow_the_dictionary_of_another() -> None:
    whole = stream(table(device_id=pa.array(["a", "b"]).dictionary_encode()))
    schema = 8 + struct.unpack_from("<i", whole, 4)[0]
    second = whole.index(b"\xff\xff\xff\xff", schema + 4)
    bare = whole[:schema] + whole[second:]

    assert reasons(read(whole, bare, whole)) == [(1, WHOLE, Reason.MALFORMED)]


@pytest.mark.parametrize("value", [GOOD, stream(table(device_id=pa.array(["a", "b"]).dictionary_encode()))])
def test_a_stream_cut_anywhere_is_refused(value: bytes) -> None:
    cut = [value[:length] for length in range(4, len(value))]

    assert reasons(read(*cut)) == [(row, WHOLE, Reason.MALFORMED) for row in range(len(cut))]


SEEDS = [
    GOOD,
    stream(table(device_id=pa.array(["a", None]).dictionary_encode())),
    stream(pa.concat_tables([table(y=pa.array([None, 1]))] * 3), rows=2),
    stream(table(ts=pa.array([1, None], pa.timestamp("ns", "UTC")), z=pa.array([1, 2], pa.uint8()))),
]
CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6)
PATCHES = st.lists(
    st.tuples(st.integers(0, 2**16), st.sampled_from([0, 1, -1, 7, 8, 2**31 - 1, -(2**31), 255, 4096])), max_size=3
)


@settings(max_examples=600)
@given(value=st.sampled_from(SEEDS), changes=CHANGES, patches=PATCHES)
def test_whatever_bytes_come_there_are_readings_or_rejects(
    value: bytes, changes: list[tuple[int, int]], patches: list[tuple[int, int]]
) -> None:
    text = bytearray(value)
    for place, byte in changes:
        text[4 + place % (len(text) - 4)] = byte
    for place, number in patches:
        struct.pack_into("<i", text, 4 + place % (len(text) - 8) // 4 * 4, number)
    alone, among = read(bytes(text)), read(GOOD, bytes(text), GOOD)

    assert {0} == {*alone.row.tolist(), *(reject.row for reject in alone.rejects)}
    assert np.isfinite(alone.flat[: 0 if not len(alone) else None]).all() or alone.rejects
    assert [reading[1:] for reading in readings(among) if reading[0] == 1] == [r[1:] for r in readings(alone)]
    assert [(part, reason) for row, part, reason in reasons(among) if row == 1] == [r[1:] for r in reasons(alone)]
    assert [reading[:2] for reading in readings(among) if reading[0] != 1] == [(0, 0), (0, 1), (2, 0), (2, 1)]
