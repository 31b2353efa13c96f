"""A session log is dirty: what can be used is used, and what cannot is kept aside with its reason, line and place."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producers import logs
from producers.logs import LONGEST, REJECTS, Block, blocks
from producers.sessions import COLUMNS, ServerFleet, to_csv
from scorers.errors import InputError
from scorers.forecast.hours import SESSIONS
from scorers.forecast.schema import LOADS
from stream.sessions import read_patiently

GOOD: dict[str, Any] = {
    "TrafficType": "http",
    "SessionStart": "2024-03-01T08:00:00.250Z",
    "SessionEnd": "2024-03-01T08:04:00Z",
    "ConcurrentConnectionCounts": "12",
    "MbytesTransferred": "1.5",
    "ServiceGrade": "gold",
    "HTTP1": "0",
    "ServerType": "web",
    "SubService_1_Load": "0.1",
    "SubService_2_Load": "0.2",
    "SubService_3_Load": "0.3",
    "SubService_4_Load": "0.4",
    "SubService_5_Load": "0.5",
    "SecureBytes_Load": "0.6",
    "TotalLoad": "2.1",
    "ServerIP": "10.0.0.1",
    "ClientIP": "172.16.0.1",
}
AT = 1_709_280_000_250
AROUND = (datetime(1979, 12, 1), datetime(2200, 2, 1))  # noqa: DTZ001 - Hypothesis adds the zone


def line(**changes: str) -> bytes:
    return ",".join({**GOOD, **changes}.values()).encode()


def parsed(*lines: bytes) -> logs.Read:
    return logs.read(Block(b"\n".join(lines), 0, 1), "request.csv")


def reasons(*lines: bytes) -> list[str]:
    found: list[str] = parsed(*lines).rejects["reason"].to_pylist()
    return found


def patient(value: bytes) -> Any:
    """The row that is read without the compiled loop, or the reason that it is none."""
    try:
        return logs._session(value, "request.csv")  # noqa: SLF001 - the oracle
    except logs._Refused as refused:  # noqa: SLF001
        return refused.args[0]


def test_a_session_is_its_server_start_and_loads_in_millionths() -> None:
    found = parsed(line())

    assert found.sessions.schema == SESSIONS
    assert found.sessions.to_pylist() == [
        {"server": "10.0.0.1", "start": AT, "total": 2_100_000, "mbytes": 1_500_000, "secure": 600_000}
        | {f"sub_{n}": n * 100_000 for n in range(1, 6)}
    ]
    assert (len(found.rejects), found.blank) == (0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"TotalLoad": ""}, "missing_field"),
        ({"ServerIP": " "}, "missing_field"),
        ({"SessionStart": "NULL"}, "missing_field"),
        ({"TotalLoad": "heavy"}, "wrong_type"),
        ({"ConcurrentConnectionCounts": "many"}, "wrong_type"),
        ({"ServerIP": "0.531"}, "wrong_type"),
        ({"ServerIP": "nan"}, "wrong_type"),
        ({"ServerIP": "x" * 256}, "wrong_type"),
        ({"MbytesTransferred": "1_000"}, "wrong_type"),
        ({"MbytesTransferred": "nan"}, "not_finite"),
        ({"TotalLoad": "1e999"}, "not_finite"),
        ({"TotalLoad": "-1"}, "out_of_range"),
        ({"SecureBytes_Load": "1000000000.001"}, "out_of_range"),
        ({"SessionStart": "2024-02-30T08:00:00Z"}, "bad_timestamp"),
        ({"SessionStart": "12.5"}, "bad_timestamp"),
        ({"SessionEnd": "yesterday"}, "bad_timestamp"),
        ({"SessionStart": "1979-12-31T23:59:59Z"}, "bad_timestamp"),
        ({"SessionEnd": "2024-03-01T07:59:59Z"}, "swapped"),
    ],
)
def test_a_wrong_field_puts_the_line_aside(change: dict[str, str], reason: str) -> None:
    assert reasons(line(), line(**change)) == [reason]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"--- rotated ---", "columns"),
        (line() + b",", "columns"),
        (line().rpartition(b",")[0], "columns"),
        (b",".join(name.encode() for name in COLUMNS), "header"),
        (line(TrafficType="caf\xe9").decode().encode("latin-1"), "malformed"),
        (line(TrafficType="\0"), "malformed"),
        (line(TrafficType='"open'), "malformed"),
        (b"x" * (LONGEST + 1), "too_large"),
    ],
)
def test_a_line_that_is_none_is_put_aside(value: bytes, reason: str) -> None:
    found = parsed(line(), value, line())

    assert (found.rejects["reason"].to_pylist(), len(found.sessions)) == ([reason], 2)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TotalLoad", "heavy", "wrong_type"),
        ("ServerIP", None, "missing_field"),
        ("SessionStart", None, "missing_field"),
        ("SessionStart", "yesterday", "bad_timestamp"),
        ("MbytesTransferred", 10**400, "not_finite"),
    ],
)
def test_the_reason_is_the_live_topics(name: str, value: Any, reason: str) -> None:
    numbers = {key: float(text) for key, text in GOOD.items() if key.endswith("Load") or key in COLUMNS[3:5]}
    live = read_patiently(json.dumps(GOOD | numbers | {name: value}).encode())

    assert isinstance(live, tuple)
    assert [live[0]] == reasons(line(**{name: "" if value is None else str(value)})) == [reason]


def test_what_is_put_aside_says_where_it_was() -> None:
    text = line() + b"\r\n" + b"junk\r\n" + line() + b"\n" + b"more"
    found = logs.read(Block(text, 1000, 7), "a/request.csv").rejects

    assert found.schema == REJECTS
    assert found.select(["file", "line", "offset", "value"]).to_pylist() == [
        {"file": "a/request.csv", "line": 8, "offset": 1000 + len(line()) + 2, "value": b"junk"},
        {"file": "a/request.csv", "line": 10, "offset": 1000 + 2 * len(line()) + 9, "value": b"more"},
    ]


def test_a_blank_load_is_left_out_and_counted() -> None:
    found = parsed(line(MbytesTransferred="", SecureBytes_Load="NA"), line(SessionEnd=""))

    assert (found.blank, len(found.rejects)) == (2, 0)
    assert found.sessions["mbytes"].to_pylist() == [1_500_000, 0] or found.sessions["mbytes"].to_pylist() == [
        0,
        1_500_000,
    ]


@pytest.mark.parametrize(
    "start",
    [
        "2024-03-01 08:00:00.25",
        "2024-03-01T10:00:00.250+02:00",
        "2024-03-01 08:00:00.250999",
        '"2024-03-01T08:00:00.250Z"',
        f"{AT}",
    ],
)
def test_times_come_in_several_shapes(start: str) -> None:
    assert parsed(line(SessionStart=start)).sessions["start"].to_pylist() == [AT]


def test_columns_in_another_order_are_refused() -> None:
    swapped = [*COLUMNS[:-2], COLUMNS[-1], COLUMNS[-2]]

    with pytest.raises(InputError, match=r"request\.csv has its columns in another order"):
        parsed(",".join(swapped).encode())


def test_a_mark_of_byte_order_is_no_part_of_the_first_line() -> None:
    assert reasons(b"\xef\xbb\xbf" + line(TrafficType="")) == []


numbers = st.one_of(
    st.decimals(0, 10**9, allow_nan=False, places=7).map(str),
    st.floats(0, 1e9).map(repr),
    st.floats(0, 1).map(repr),
    st.integers(0, 10**12).map(lambda whole: f"{whole // 10**6}.{whole % 10**6:06}5"),  # ties
    st.from_regex(r"[0-9.eE+\-]{0,8}", fullmatch=True),
)
times = st.one_of(
    st.datetimes(*AROUND).map(str),
    st.datetimes(*AROUND, timezones=st.just(UTC)).map(lambda moment: moment.isoformat().replace("+00:00", "Z")),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,10})?Z?", fullmatch=True
    ),
)
words = st.text(st.sampled_from('abcN1.-:," \té\0'), max_size=12)


@settings(max_examples=400, deadline=None)
@example({"TotalLoad": "0.0000005"})
@example({"TotalLoad": "0.0000015"})
@example({"TotalLoad": "123456789.12345678"})
@example({"TotalLoad": "999999999999999999e-18"})
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "TotalLoad": numbers,
            "MbytesTransferred": numbers,
            "SessionStart": times,
            "SessionEnd": times,
            "ServerIP": words | numbers,
            "TrafficType": words,
        },
    )
)
def test_the_compiled_loop_reads_what_a_patient_reader_reads(change: dict[str, str]) -> None:
    value = line(**change)
    found, slow = parsed(value), patient(value)

    if isinstance(slow, str):
        assert found.rejects["reason"].to_pylist() == [slow]
    else:
        row, blank = slow
        assert found.sessions.to_pylist() == [dict(zip(SESSIONS.names, row, strict=True))]
        assert found.blank == blank


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")), max_size=12), st.data())
def test_pieces_of_a_file_hold_each_line_once(held: list[bytes], data: st.DataObject) -> None:
    text = b"\n".join(held)
    size = data.draw(st.integers(1, 7))
    bounds = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=3))})
    pieces = list(zip(bounds, [*bounds[1:-1], None], strict=False)) or [(0, None)]
    found = []
    for begin, end in pieces:
        file = io.BytesIO(text)
        file.seek(max(begin - 1, 0))
        found += list(blocks(lambda _, file=file: file.read(size), begin, end))  # type: ignore[misc]

    assert b"".join(block.text for block in found) == text
    assert all(text[block.offset :].startswith(block.text) for block in found)
    assert all(block.line == 1 + text[: block.offset].count(b"\n") for block in found if block.line)


def test_a_line_too_long_to_hold_is_cut_and_the_next_one_is_whole() -> None:
    text = line() + b"\n" + b"x" * (3 * LONGEST) + b"\n" + line() + b"\n"
    file = io.BytesIO(text)
    found = list(blocks(lambda _: file.read(LONGEST // 3)))
    results = [logs.read(block, "f") for block in found]
    (reject,) = [row for result in results for row in result.rejects.to_pylist()]

    assert sum(len(result.sessions) for result in results) == 2
    assert (reject["reason"], reject["line"], len(reject["value"])) == ("too_large", 2, logs.KEPT)
    assert text[found[-1].offset :] == line() + b"\n"


def test_simulated_sessions_are_read_whole() -> None:
    fleet = ServerFleet(5, rate=0.5, start=AT).build()
    columns = fleet.columns(fleet.sessions(200)[0])
    found = logs.read(Block(to_csv(columns), 0, 1), "f")

    assert len(found.rejects) == 0
    assert found.sessions["server"].to_pylist() == columns["ServerIP"]
    want = np.rint(np.array(columns["TotalLoad"]) * 1e6).astype(np.int64)
    assert np.array_equal(found.sessions["total"].to_numpy(), want)
    assert LOADS[0] == "total"
