"""Sessions to the hours of servers, in SQL that DuckDB and Spark both know.

::

    sessions ──BUCKETS──▶ sums of five minutes ──MERGED──▶ the same, of all files ──PEAKS──▶ busiest five minutes
    of each hour ──hours()──▶ HOURS: hours without sessions are 0 while a server is alive, and missing else

``div`` is a function of Spark's and a macro of DuckDB's (``scorers.forecast.features.DIV``). Sums are whole millionths.
"""

from collections.abc import Iterable

import pyarrow as pa

from scorers.forecast.schema import BUCKET_MS, HOUR_MS, LOADS

SESSIONS = pa.schema([("server", pa.string()), ("start", pa.int64()), *((name, pa.int64()) for name in LOADS)])
"""One row a session: ``start`` is epoch ms (UTC), loads are whole millionths."""

_BUCKET = f"div(start, {BUCKET_MS}) * {BUCKET_MS}"
_HOUR = f"div(bucket, {HOUR_MS}) * {HOUR_MS}"
_SUMS = ", ".join(f"CAST(SUM({name}) AS BIGINT) AS {name}" for name in LOADS)
_PEAKS = ", ".join(f"{name} AS peak_{name}" for name in LOADS)
_ZEROS = ", ".join(f"0 AS peak_{name}" for name in LOADS)
_COLUMNS = "server, hour, sessions, " + ", ".join(f"peak_{name}" for name in LOADS)

BUCKETS = f"""
SELECT server, {_BUCKET} AS bucket, MAX(start) AS last, COUNT(*) AS sessions, {_SUMS}
FROM sessions GROUP BY server, {_BUCKET}
"""  # noqa: S608 - names and numbers of ours, as below
"""Sums by server and five minutes of ``sessions``; ``last`` is when the last of them began."""

MERGED = f"""
SELECT server, bucket, MAX(last) AS last, CAST(SUM(sessions) AS BIGINT) AS sessions, {_SUMS}
FROM buckets GROUP BY server, bucket
"""  # noqa: S608
"""Five minutes of ``buckets`` that lie in several files, put together."""

PEAKS = f"""
WITH merged AS ({MERGED}),
ranked AS (
  SELECT *, {_HOUR} AS hour, MAX(last) OVER (PARTITION BY server, {_HOUR}) AS latest,
    ROW_NUMBER() OVER (PARTITION BY server, {_HOUR} ORDER BY total DESC, bucket) AS place
  FROM merged
)
SELECT server, hour, latest AS last, sessions, {_PEAKS} FROM ranked WHERE place = 1
"""  # noqa: S608
"""The five minutes of each hour with sessions in ``buckets`` that have the largest total, the first where equal."""


def hours(alive_h: int, since: int, until: int, excluded: Iterable[tuple[int, int]] = ()) -> str:
    """The query that makes ``HOURS`` of ``peaks``, of the hours that begin in ``[since, until)``.

    An hour without sessions is 0 where the server's last one began less than ``alive_h`` hours before it, and not there
    otherwise. Hours that overlap an interval ``excluded`` (epoch ms, half-open) are not there either.
    """
    alive = alive_h * HOUR_MS
    kept = "".join(f" AND NOT (hour < {end} AND hour + {HOUR_MS} > {begin})" for begin, end in excluded)
    filled = f"hour + n * CAST({HOUR_MS} AS BIGINT)"
    return f"""
WITH known AS (
  SELECT *, LEAD(hour) OVER (PARTITION BY server ORDER BY hour) AS following
  FROM peaks WHERE hour >= {since - alive - HOUR_MS} AND hour < {until}
),
quiet AS (
  SELECT server, {filled} AS hour FROM known CROSS JOIN range(1, {alive_h + 1}) AS steps(n)
  WHERE (following IS NULL OR following > hour + {HOUR_MS})
    AND (following IS NULL OR {filled} < following) AND {filled} < last + {alive}
),
every AS (SELECT {_COLUMNS} FROM known UNION ALL SELECT server, hour, 0 AS sessions, {_ZEROS} FROM quiet)
SELECT {_COLUMNS} FROM every WHERE hour >= {since} AND hour < {until}{kept}
ORDER BY server, hour
"""  # noqa: S608
