"""Sessions to hours: five-minute sums, the busiest of each hour, zeros while a server is alive, per server."""

from collections import defaultdict
from collections.abc import Sequence

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.forecast.features import DIV
from scorers.forecast.hours import BUCKETS, PEAKS, SESSIONS, hours
from scorers.forecast.schema import BUCKET_MS, HOUR_MS, HOURS, LOADS

START = 1_709_251_200_000
MINUTE = 60_000
END = START + 400 * HOUR_MS
Session = tuple[str, int, tuple[int, ...]]


def run(
    *files: Sequence[Session],
    alive_h: int = 24,
    since: int = START,
    until: int = END,
    excluded: tuple[int, int] | None = None,
) -> list[tuple[object, ...]]:
    """Rows of ``HOURS`` of the sessions in some files."""
    spans = [excluded] if excluded else []
    with duckdb.connect() as database:
        database.execute(DIV)
        database.register("sessions", SESSIONS.empty_table())
        database.execute(f"CREATE TABLE buckets AS {BUCKETS}")
        for file in files:
            columns = [
                [s for s, _, _ in file],
                [t for _, t, _ in file],
                *([v[n] for _, _, v in file] for n in range(8)),
            ]
            database.register("sessions", pa.table(columns, schema=SESSIONS))
            database.execute(f"INSERT INTO buckets {BUCKETS}")
        database.execute(f"CREATE TABLE peaks AS {PEAKS}")
        table = database.sql(hours(alive_h, since, until, spans)).to_arrow_table()
    assert table.schema == HOURS
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def oracle(
    sessions: Sequence[Session], alive_h: int, until: int, excluded: tuple[int, int]
) -> list[tuple[object, ...]]:
    """The same, slowly: hour by hour."""
    rows = []
    for server in sorted({server for server, _, _ in sessions}):
        own = [(start, loads) for whose, start, loads in sessions if whose == server]
        for hour in range(START, until, HOUR_MS):
            sums: defaultdict[int, list[int]] = defaultdict(lambda: [0] * 9)
            for start, loads in own:
                if hour <= start < hour + HOUR_MS:
                    bucket = sums[start // BUCKET_MS]
                    bucket[0] += 1
                    bucket[1:] = [a + b for a, b in zip(bucket[1:], loads, strict=True)]
            before = [start for start, _ in own if start < hour]
            if hour < excluded[1] and hour + HOUR_MS > excluded[0]:
                continue
            if sums:
                rows.append((server, hour, *sums[max(sums, key=lambda bucket: (sums[bucket][1], -bucket))]))
            elif before and hour - max(before) < alive_h * HOUR_MS:
                rows.append((server, hour, *[0] * 9))
    return rows


some_sessions = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 60 * 12).map(lambda fives: START + fives * BUCKET_MS) | st.integers(START, START + 3 * HOUR_MS),
        st.tuples(*[st.integers(0, 3) | st.integers(0, 10**15)] * len(LOADS)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(
    some_sessions, st.integers(0, 30), st.integers(1, 5), st.integers(0, 70), st.integers(0, 60), st.integers(1, 400)
)
def test_hours_are_those_of_a_slow_oracle(  # noqa: PLR0913, PLR0917 - Hypothesis draws each
    sessions: list[Session], split: int, alive_h: int, length: int, begin: int, minutes: int
) -> None:
    until = START + length * HOUR_MS
    span = (START + begin * HOUR_MS, START + begin * HOUR_MS + minutes * MINUTE)
    found = run(sessions[:split], sessions[split:], alive_h=alive_h, until=until, excluded=span)

    assert found == oracle(sessions, alive_h, until, span)


@settings(max_examples=30, deadline=None)
@given(some_sessions, st.integers(0, 70), st.integers(1, 30))
def test_months_put_together_are_the_whole(sessions: list[Session], cut: int, alive_h: int) -> None:
    middle = START + cut * HOUR_MS
    parts = [run(sessions, alive_h=alive_h, until=middle), run(sessions, alive_h=alive_h, since=middle)]

    assert sorted(parts[0] + parts[1]) == run(sessions, alive_h=alive_h)


def one(server: str, minute: int, total: int) -> Session:
    return server, START + minute * MINUTE, (total, *range(1, 8))


def peaks(rows: list[tuple[object, ...]], server: str) -> dict[int, object]:
    """Peak total by number of the hour."""
    return {(hour - START) // HOUR_MS: total for whose, hour, _, total, *_ in rows if whose == server}  # type: ignore[operator]


def test_five_minutes_in_two_files_are_added_before_the_peak_is_taken() -> None:
    # 0 to 5: 3 + 3 in two files; 10 to 15: 4 + 1 in one
    rows = run([one("a", 1, 3), one("a", 11, 4)], [one("a", 4, 3), one("a", 14, 1)], until=START + HOUR_MS)

    assert [row[2:5] for row in rows] == [(2, 6, 2)]


def test_gaps_are_filled_per_server() -> None:
    # a is quiet in hours 1 to 3 and is filled; b, first seen in hour 2, has nothing before it
    rows = run([one("a", 5, 7), one("b", 125, 8), one("a", 245, 9)], until=START + 5 * HOUR_MS)

    assert peaks(rows, "a") == {0: 7, 1: 0, 2: 0, 3: 0, 4: 9}
    assert peaks(rows, "b") == {2: 8, 3: 0, 4: 0}


def test_a_server_that_is_gone_is_missing_and_not_idle() -> None:
    rows = run([one("a", 30, 7), one("a", 60 * 10, 9)], alive_h=3, until=START + 12 * HOUR_MS)

    # its last session began 3 h 30 min before hour 4, and that is too long
    assert peaks(rows, "a") == {0: 7, 1: 0, 2: 0, 3: 0, 10: 9, 11: 0}


def test_an_excluded_span_takes_every_hour_it_touches() -> None:
    span = (START + 90 * MINUTE, START + 121 * MINUTE)
    rows = run([one("a", n * 60, n) for n in range(5)], until=START + 5 * HOUR_MS, excluded=span)

    assert peaks(rows, "a") == {0: 0, 3: 3, 4: 4}


def test_sums_are_the_same_in_any_order() -> None:
    sessions = [("a", START + n, (10**15 - n, *[n] * 7)) for n in range(50)]

    assert run(sessions) == run(sessions[::-1])
