"""The server fleet: real columns, cycles, and faults whose truth matches."""

import csv
import json
from itertools import islice

import numpy as np
import pytest

from producers.sessions import COLUMNS, ServerFleet, Servers, Sessions, to_csv
from scorers.errors import ConfigError
from stream.parse import epoch_ms
from stream.sessions import read_fast

MONDAY = 1_700_438_400_000  # 2023-11-20T00:00:00Z
HOUR = 3_600_000


def lines(spec: ServerFleet, *, rows: int, total: int) -> list[bytes]:
    found: list[bytes] = []
    for batch in spec.build().batches(rows):
        found += batch.values
        if len(found) >= total:
            break
    return found[:total]


def at_hour(hour: int, day: int = 0) -> int:
    """Sessions of the first web server within one hour."""
    fleet = ServerFleet(4, start=MONDAY + (day * 24 + hour) * HOUR).build()
    return int((fleet.sessions(3_600)[0].server == 0).sum())


@pytest.mark.parametrize("rows", [1, 777, 20_000])
def test_same_spec_gives_same_bytes_in_any_batching(rows: int) -> None:
    spec = ServerFleet(20, start=MONDAY, fault_rate=10.0, fault_ms=60_000)

    assert lines(spec, rows=rows, total=5_000) == lines(spec, rows=100, total=5_000)


def test_a_session_has_the_17_columns_in_their_real_order() -> None:
    session = json.loads(lines(ServerFleet(4, start=MONDAY), rows=10, total=1)[0])

    assert tuple(session) == COLUMNS
    assert len(COLUMNS) == 17
    assert session["TotalLoad"] == pytest.approx(
        sum(session[f"SubService_{number}_Load"] for number in range(1, 6)) + session["SecureBytes_Load"], abs=1e-3
    )


def test_the_stream_reads_a_session_at_once() -> None:
    batch = next(ServerFleet(4, start=MONDAY).build().batches(50))
    readings = [read_fast(value) for value in batch.values]

    assert [reading.device_id.encode() for reading in readings] == list(batch.keys)
    assert [epoch_ms(reading.ts) for reading in readings] == batch.ts.tolist()


def test_sessions_come_in_order_of_their_start() -> None:
    times = np.concatenate([batch.ts for batch in islice(ServerFleet(9, start=MONDAY).build().batches(100), 9)])

    assert (np.diff(times) >= 0).all()


def test_load_follows_the_day_and_the_week() -> None:
    assert at_hour(14) > 2 * at_hour(2)
    assert at_hour(14, day=5) < 0.9 * at_hour(14)


def test_csv_has_no_header_and_reads_back() -> None:
    fleet = ServerFleet(4, start=MONDAY).build()
    columns = fleet.columns(fleet.sessions(10)[0])
    rows = list(csv.reader(to_csv(columns).decode().splitlines()))

    assert len(rows) == len(columns["ServerIP"]) > 0
    assert [row[15] for row in rows] == columns["ServerIP"]
    assert [float(row[14]) for row in rows] == columns["TotalLoad"]


def faulty(kind: str) -> tuple[Servers, Sessions, Sessions]:
    """The fleet, its sessions with a fault on the second server in the middle minute, and those of its twin."""
    spec = ServerFleet(3, start=MONDAY, rate=5.0)
    fleet = spec.build()
    fleet.inject(fleet.fault("10.0.0.1", kind, start=MONDAY + 60_000, duration_ms=60_000))
    seen, begun = fleet.sessions(180)

    assert [fault.device_id for fault in begun] == ["10.0.0.1"]
    return fleet, seen, spec.build().sessions(180)[0]


@pytest.mark.parametrize(("kind", "low", "high"), [("surge", 3.0, 5.0), ("loss", 0.0, 0.15)])
def test_a_fault_changes_traffic_of_its_server_within_its_time(kind: str, low: float, high: float) -> None:
    _, seen, twin = faulty(kind)

    def split(sessions: Sessions) -> tuple[int, list[int]]:
        hit = (sessions.server == 1) & (sessions.start >= MONDAY + 60_000) & (sessions.start < MONDAY + 120_000)
        return int(hit.sum()), sessions.start[~hit].tolist()

    assert split(seen)[1] == split(twin)[1]
    assert low <= split(seen)[0] / split(twin)[0] <= high


def test_an_unknown_server_or_kind_is_refused() -> None:
    fleet = ServerFleet(2, start=MONDAY).build()

    with pytest.raises(ConfigError, match=r"no server '10\.9\.9\.9'"):
        fleet.fault("10.9.9.9", "surge", start=MONDAY, duration_ms=1)
    with pytest.raises(ConfigError, match="no server fault 'flood'"):
        fleet.fault("10.0.0.0", "flood", start=MONDAY, duration_ms=1)


@pytest.mark.parametrize("wrong", [{"servers": 0}, {"rate": 0.0}, {"fault_rate": -1.0}])
def test_a_fleet_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ServerFleet(**({"servers": 1} | wrong))  # type: ignore[arg-type]  # the wrong values are the point
