"""Server sessions: a server is a device whose windows sum its sessions."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import sessions
from stream.app import sources
from stream.contracts import Reason, Score, Topics
from stream.decode import Limits, decode
from stream.message import singly
from stream.parse import Judge, epoch_ms
from stream.partition import Partition, StreamSpec
from stream.records import PUNCTUATION, Headers, Records

NOW = 1_700_000_000_000
TOPICS = Topics()
LOADS: dict[str, Any] = {name: float(place) for place, name in enumerate(sessions.LOADS)}
SESSION: dict[str, Any] = {"ServerIP": "10.0.0.1", "SessionStart": NOW, "ServerType": "web", "ClientIP": "c"} | LOADS


def session(**fields: Any) -> bytes:
    return json.dumps({name: value for name, value in (SESSION | fields).items() if value is not ...}).encode()


def records(values: list[bytes], end: int | None = None) -> Records:
    count = len(values) + (end is not None)
    headers: list[Headers] = [()] * len(values)
    if end is not None:
        values, headers = [*values, b""], [*headers, [(PUNCTUATION, str(end).encode())]]
    return Records(
        TOPICS.sessions, 0, np.arange(count), np.full(count, NOW), [None] * count, [*values], headers
    )  # fmt: skip


def read(value: bytes) -> tuple[str, int, dict[str, float]] | str:
    decoded = decode(records([value]), Limits(), sessions.SESSIONS)
    for reject in decoded.rejects:
        return reject.reason
    return (
        (decoded.names[decoded.device[0]] or b"").decode(),
        int(decoded.ts[0]),
        dict(zip(decoded.shapes[0], decoded.flat.tolist(), strict=True)),
    )


def windows(values: list[bytes]) -> list[Score]:
    _, source = sources(TOPICS)
    messages = singly(Partition(source, 0, StreamSpec(), TOPICS).feed(records(values, NOW + 10**8)))
    return [msgspec.json.decode(message.value, type=Score) for message in messages if message.topic == TOPICS.scores]


def test_a_session_is_a_reading_of_its_server() -> None:
    assert read(session()) == ("10.0.0.1", NOW, LOADS)


def test_a_load_that_is_blank_is_left_out() -> None:
    rest = {name: load for name, load in LOADS.items() if name not in {"TotalLoad", "MbytesTransferred"}}

    assert read(session(TotalLoad=None, MbytesTransferred=...)) == ("10.0.0.1", NOW, rest)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ServerIP": ...}, Reason.MISSING_FIELD),
        ({"ServerIP": 7}, Reason.WRONG_TYPE),
        ({"ServerIP": ""}, Reason.WRONG_TYPE),
        ({"SessionStart": None}, Reason.MISSING_FIELD),
        ({"SessionStart": "noon"}, Reason.BAD_TIMESTAMP),
        ({"SessionStart": NOW + 600_001}, Reason.FUTURE),
        ({"TotalLoad": "12"}, Reason.WRONG_TYPE),
        ({"TotalLoad": float("nan")}, Reason.NOT_FINITE),
        (dict.fromkeys(LOADS), Reason.NO_VALUES),
    ],
    ids=str,
)
def test_a_bad_session_is_refused_with_its_reason(fields: dict[str, Any], reason: Reason) -> None:
    assert read(session(**fields)) == reason


def test_a_window_sums_its_sessions() -> None:
    (score,) = windows([session(TotalLoad=load) for load in (1, 20, 300)])

    assert score.count == 3
    assert score.metrics["TotalLoad"].sum == pytest.approx(321)


def test_sessions_that_start_together_all_count() -> None:
    (score,) = windows([session(), session(), session()])

    assert score.count == 3


LOAD = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3), st.just(...))
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "ServerIP": st.text(max_size=4) | LOAD,
        "SessionStart": st.integers() | st.sampled_from(["2023-11-14T22:13:20Z"]) | LOAD,
        "TotalLoad": LOAD,
        "ConcurrentConnectionCounts": LOAD,
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


@settings(max_examples=300)
@given(fields=FIELDS)
def test_what_the_fast_path_reads_the_patient_one_reads_alike(fields: dict[str, Any]) -> None:
    value = session(**fields)
    fast, patient = outcome(sessions.read_fast, value), outcome(sessions.read_patiently, value)

    assert fast is None or fast == patient
