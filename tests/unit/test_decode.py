"""Bytes to readings: every reason a record is refused for, and nothing ever lost or raised."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.contracts import Reason
from stream.decode import EARLIEST, LATEST, Decoded, Limits, decode
from stream.parse import LARGEST, Judge, epoch_ms
from stream.readings import READINGS, read_fast, read_patiently
from stream.records import Records

NOW = 1_700_000_000_000
LIMITS = Limits(max_bytes=300, max_metrics=3, max_name=12)
GOOD = b'{"device_id": "a", "ts": 1700000000000, "values": {"x": 1.5}}'


def records(*values: bytes | None, at: int = NOW) -> Records:
    count = len(values)
    return Records("t", 0, np.arange(count), np.full(count, at), [None] * count, list(values), [()] * count)


def read(*values: bytes | None) -> Decoded:
    return decode(records(*values), LIMITS, READINGS)


def reasons(decoded: Decoded) -> list[tuple[int, str]]:
    return sorted((reject.row, reject.reason) for reject in decoded.rejects)


def readings(decoded: Decoded) -> list[tuple[int, str, int, dict[str, float]]]:
    """(row, device, ts, values) of what was accepted."""
    found = []
    for at, device in enumerate((decoded.names[code] or b"").decode() for code in decoded.device):
        names = decoded.shapes[decoded.shape[at]]
        values = decoded.flat[decoded.start[at] :][: len(names)].tolist()
        found.append((int(decoded.row[at]), device, int(decoded.ts[at]), dict(zip(names, values, strict=True))))
    return found


def wide(**fields: Any) -> bytes:
    whole = {"device_id": "a", "ts": NOW, "values": {"x": 1.0}} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def narrow(**fields: Any) -> bytes:
    whole = {"TS": "2023-11-14T22:13:20Z", "Device": 1, "Sensor": 5, "Value": 100.2} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


REFUSED: list[tuple[bytes | None, Reason]] = [
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (wide(note="x" * 300), Reason.TOO_LARGE),
    (b"junk", Reason.MALFORMED),
    (b"\xff\xfe", Reason.MALFORMED),
    (b"[" * 300, Reason.MALFORMED),
    (GOOD + b"}", Reason.MALFORMED),
    (GOOD[:-1], Reason.MALFORMED),
    (b'{"device_id": "a", "ts": 1700000000000, "values": {"x": NaN,}}', Reason.MALFORMED),
    (b'{"device_id": "NaN, NaN ", "ts": 1700000000000, "values": {"x": 01}}', Reason.MALFORMED),
    (b'{"device_id": "NaN", "ts": 1700000000000, "values": {"x":-Infinity}}', Reason.NOT_FINITE),
    (b"null", Reason.MALFORMED),
    (b'"a"', Reason.MALFORMED),
    (b"[1]", Reason.MALFORMED),
    (b"{}", Reason.MISSING_FIELD),
    (wide(device_id=...), Reason.MISSING_FIELD),
    (wide(device_id=None), Reason.MISSING_FIELD),
    (wide(ts=...), Reason.MISSING_FIELD),
    (wide(values=...), Reason.MISSING_FIELD),
    (narrow(Device=...), Reason.MISSING_FIELD),
    (narrow(Sensor=...), Reason.MISSING_FIELD),
    (narrow(TS=...), Reason.MISSING_FIELD),
    (narrow(Value=...), Reason.MISSING_FIELD),
    (wide(device_id=7), Reason.WRONG_TYPE),
    (wide(device_id=""), Reason.WRONG_TYPE),
    (wide(device_id="x" * 13), Reason.WRONG_TYPE),
    (wide(values=[1]), Reason.WRONG_TYPE),
    (wide(values={"x": "1"}), Reason.WRONG_TYPE),
    (wide(values={"x": True}), Reason.WRONG_TYPE),
    (wide(values={"x": {"y": 1}}), Reason.WRONG_TYPE),
    (wide(values={"": 1}), Reason.WRONG_TYPE),
    (wide(values={"x" * 13: 1}), Reason.WRONG_TYPE),
    (narrow(Device=1.5), Reason.WRONG_TYPE),
    (narrow(Sensor=True), Reason.WRONG_TYPE),
    (narrow(Value="1"), Reason.WRONG_TYPE),
    (wide(values={"x": float("nan")}), Reason.NOT_FINITE),
    (wide(values={"x": float("inf")}), Reason.NOT_FINITE),
    (GOOD.replace(b"1.5", b"1e999"), Reason.NOT_FINITE),
    (wide(values={"x": 1, "y": -1.1e100}), Reason.NOT_FINITE),
    (wide(values={"x": 10**120}), Reason.NOT_FINITE),
    (wide(values={}), Reason.NO_VALUES),
    (wide(values={"x": None}), Reason.NO_VALUES),
    (wide(values=dict.fromkeys("xyzw", 1)), Reason.TOO_MANY_METRICS),
    (wide(ts=EARLIEST - 1), Reason.BAD_TIMESTAMP),
    (wide(ts=LATEST), Reason.BAD_TIMESTAMP),
    (wide(ts=NOW // 1000), Reason.BAD_TIMESTAMP),
    (wide(ts=-1), Reason.BAD_TIMESTAMP),
    (wide(ts=10**30), Reason.BAD_TIMESTAMP),
    (wide(ts=NOW + 0.5), Reason.BAD_TIMESTAMP),
    (wide(ts=True), Reason.BAD_TIMESTAMP),
    (wide(ts=[NOW]), Reason.BAD_TIMESTAMP),
    (wide(ts="yesterday"), Reason.BAD_TIMESTAMP),
    (wide(ts="2023-11-14T22:13:20"), Reason.BAD_TIMESTAMP),
    (narrow(TS="2023-11-14"), Reason.BAD_TIMESTAMP),
    (wide(ts=NOW + LIMITS.max_ahead_ms + 1), Reason.FUTURE),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda case: str(case)[:60])
def test_a_bad_record_costs_nobody_but_itself(value: bytes | None, reason: Reason) -> None:
    decoded = read(GOOD, value, GOOD)

    assert reasons(decoded) == [(1, reason)]
    assert readings(decoded) == [(0, "a", NOW, {"x": 1.5}), (2, "a", NOW, {"x": 1.5})]


def test_every_reason_of_decoding_is_tried() -> None:
    later = {Reason.LATE, Reason.DUPLICATE, Reason.NOT_ACCEPTED}

    assert {reason for _, reason in REFUSED} == set(Reason) - later


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda case: str(case)[:60])
def test_a_bad_record_alone_is_refused_too(value: bytes | None, reason: Reason) -> None:
    decoded = read(value)

    assert reasons(decoded) == [(0, reason)]
    assert len(decoded) == 0


@pytest.mark.parametrize(
    ("value", "reading"),
    [
        (wide(), ("a", NOW, {"x": 1.0})),
        (wide(ts=float(NOW)), ("a", NOW, {"x": 1.0})),
        (wide(ts="2023-11-14T22:13:20Z"), ("a", NOW, {"x": 1.0})),
        (wide(ts="2023-11-14T23:13:20.0019+01:00"), ("a", NOW + 1, {"x": 1.0})),
        (wide(ts="1999-12-31T23:59:59.999Z"), ("a", 946_684_799_999, {"x": 1.0})),
        (wide(ts=EARLIEST), ("a", EARLIEST, {"x": 1.0})),
        (wide(ts=NOW + LIMITS.max_ahead_ms), ("a", NOW + LIMITS.max_ahead_ms, {"x": 1.0})),
        (wide(values={"x": 1, "y": None}), ("a", NOW, {"x": 1.0})),
        (wide(values={"x": LARGEST}), ("a", NOW, {"x": LARGEST})),
        (wide(site="north", values={"ü": -0.0}), ("a", NOW, {"ü": -0.0})),
        (narrow(), ("1", NOW, {"5": 100.2})),
        (narrow(Device="pump", Sensor="t", TS=NOW), ("pump", NOW, {"t": 100.2})),
    ],
    ids=lambda case: str(case)[:60],
)
def test_what_the_contract_allows_is_read(value: bytes, reading: tuple[str, int, dict[str, float]]) -> None:
    alone, beside_junk = read(value), read(value, b"junk")

    assert readings(alone) == readings(beside_junk) == [(0, *reading)]


def test_a_reject_says_which_field_is_wrong() -> None:
    (reject,) = read(wide(values={"x": 1, "y": "warm"})).rejects

    assert reject.detail == "values.y must be a number, not str"


def test_an_empty_batch_is_nothing() -> None:
    decoded = read()

    assert (len(decoded), len(decoded.rejects)) == (0, 0)


# --- whatever comes ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
STAMPS = st.one_of(
    st.integers(EARLIEST - 2, LATEST + 2),
    st.integers(),
    st.floats(),
    st.sampled_from(["2023-11-14T22:13:20Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2023-W46-2"]),
    JSON,
)
VALUES = st.dictionaries(st.text(max_size=14), st.floats() | st.integers() | JSON, max_size=5)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "device_id": st.text(max_size=14) | JSON,
        "ts": STAMPS,
        "values": VALUES | JSON,
        "TS": STAMPS,
        "Device": st.integers() | JSON,
        "Sensor": st.integers() | JSON,
        "Value": st.floats() | JSON,
    },
)


def outcome(parse: Judge, value: bytes) -> tuple[str, int, dict[str, float]] | None:
    """What one path reads, None where it refuses."""
    try:
        reading = parse(value)
    except ValueError:  # what msgspec raises
        return None
    ts = None if isinstance(reading, tuple) else epoch_ms(reading.ts)
    return None if isinstance(reading, tuple) or not isinstance(ts, int) else (reading.device_id, ts, reading.values)


@settings(max_examples=400)
@given(record=OBJECTS | JSON)
@example(record={"device_id": "a", "ts": 2**63, "values": {"x": 1}})
@example(record={"device_id": "a", "ts": 2**70, "values": {"x": 1}})
def test_what_the_fast_path_reads_the_patient_one_reads_alike(record: Any) -> None:
    value = json.dumps(record).encode()
    fast, patient = outcome(read_fast, value), outcome(read_patiently, value)

    assert fast is None or fast == patient


def test_the_fast_path_is_not_idle() -> None:
    assert outcome(read_fast, GOOD) == ("a", NOW, {"x": 1.5})


ANYTHING = st.one_of(
    st.none(),
    st.binary(max_size=60),
    (OBJECTS | JSON).map(lambda record: json.dumps(record).encode()),
    (OBJECTS | JSON).map(lambda record: json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass")),
    st.just(GOOD),
)


@settings(max_examples=400)
@given(values=st.lists(ANYTHING, max_size=8))
def test_every_record_is_read_or_refused_whatever_it_holds(values: Sequence[bytes | None]) -> None:
    decoded = read(*values)
    rows = [*decoded.row.tolist(), *(reject.row for reject in decoded.rejects)]

    assert sorted(rows) == list(range(len(values)))
    assert np.isfinite(decoded.flat).all()


@settings(max_examples=200)
@given(values=st.lists(ANYTHING, max_size=8))
def test_the_company_a_record_comes_in_does_not_matter(values: Sequence[bytes | None]) -> None:
    together = read(*values)
    alone = [read(value) for value in values]

    assert [reading[1:] for reading in readings(together)] == [
        reading[1:] for one in alone for reading in readings(one)
    ]
    assert reasons(together) == [(row, reject.reason) for row, one in enumerate(alone) for reject in one.rejects]


BROKEN = st.builds(
    lambda record, at, junk: record[:at] + junk + record[at:], st.just(GOOD), st.integers(0, 60), st.binary(max_size=3)
)


@settings(max_examples=400)
@given(value=ANYTHING.filter(bool) | BROKEN)
def test_what_is_no_json_to_the_fast_path_is_none_to_the_patient_one(value: bytes) -> None:
    try:
        read_fast(value)
    except msgspec.ValidationError:
        told = False
    except ValueError:
        told = True
    else:
        told = False

    assert not (told and outcome(read_patiently, value))


DEEP = Limits(max_bytes=5_000)


def nested(levels: int) -> bytes:
    """A reading with a field that nobody reads, so many levels deep."""
    return wide(note=...)[:-1] + b', "note": ' + b"[" * levels + b"]" * levels + b"}"


def called(depth: int, value: bytes) -> list[str]:
    """The reasons found from deep within other calls."""
    if depth:
        return called(depth - 1, value)
    return [reject.reason for reject in decode(records(value), DEEP, READINGS).rejects]


@pytest.mark.parametrize(
    ("value", "reasons"),
    [
        (nested(199), []),
        (nested(200), [Reason.MALFORMED]),
        (nested(900), [Reason.MALFORMED]),
        (wide(note="[" * 900), []),
        (wide(note='"' + "[" * 900), []),
        (wide(note="\\" + "{" * 900), []),
    ],
)
def test_nesting_counts_outside_texts_and_however_deep_our_own_calls_are(value: bytes, reasons: list[Reason]) -> None:
    assert called(0, value) == called(300, value) == reasons


NAMES = st.sampled_from(["x", "y", "z", 'q"', "b\\", "\n", "ü", "device_id"])
NUMBERS = st.floats(-1e9, 1e9) | st.integers(-9, 9) | st.none() | st.booleans()
ALIKE = st.lists(NAMES, max_size=3).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, NUMBERS)), min_size=1, max_size=4)
)


@settings(max_examples=300)
@given(alike=ALIKE, odd=st.lists(st.dictionaries(NAMES, NUMBERS, max_size=4), max_size=1))
def test_a_batch_of_one_shape_is_read_as_patiently_as_any_other(
    alike: list[dict[str, Any]], odd: list[dict[str, Any]]
) -> None:
    values = [wide(values=metrics) for metrics in alike + odd]
    found = {row: reading for row, *reading in readings(read(*values))}
    wanted = {row: reading for row, value in enumerate(values) if (reading := outcome(read_patiently, value))}

    assert found == {row: [*reading] for row, reading in wanted.items() if 0 < len(reading[2]) <= LIMITS.max_metrics}


def test_a_value_out_of_bounds_is_found_beside_readings_without_values() -> None:
    kinds = [wide(values={}), wide(values={"x": 1e120}), wide(values={"x": 1.0}), wide(values={"x": -1e120, "y": 2.0})]
    values = [kinds[at % 4] for at in np.random.default_rng(1).permutation(400)]

    refused = {reject.row for reject in read(*values).rejects}

    assert refused == {at for at, value in enumerate(values) if value is not kinds[2]}
