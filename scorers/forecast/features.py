"""Features of the hours to forecast, from hours known: one query for DuckDB, Spark and the live stream.

::

    hours ──▶ days (mean of a day's hourly peaks) ──▶ mean over days -9..-3 ─┐
    hours ──▶ peak total 48, 49, … 730 hours before ─────────────────────────┼─▶ one row a target
    calendar of the hours (scorers.forecast.calendar) ───────────────────────┘

The query is SQL that both engines know, over whole numbers; ``div`` is a function of Spark's and a macro here. Rows are
found by time: an hour that is not known is null, and nobody else's. Nothing is read that began less than 48 hours
before a target.
"""

from collections.abc import Mapping

import duckdb
import numpy as np
import pyarrow as pa

from scorers.errors import InputError
from scorers.forecast.calendar import FeatureSpec, calendar
from scorers.forecast.schema import CALENDAR, DAYS, FEATURES, HORIZON, HOUR_MS, HOURS, LAGS, LOADS, UNIT

__all__ = ["DIV", "QUERY", "FeatureSpec", "features"]

DIV = "CREATE OR REPLACE TEMP MACRO div(a, b) AS a // b"
"""Makes DuckDB know Spark's whole-number division; no number here is negative."""


def _each(template: str, values: tuple[object, ...], between: str = ",\n    ") -> str:
    return between.join(template.format(value) for value in values)


AT = f"LEFT JOIN hours l{{0}} ON l{{0}}.server = t.server AND l{{0}}.hour = t.hour - {{0}} * CAST({HOUR_MS} AS BIGINT)"

QUERY = f"""
WITH days AS (
  SELECT h.server, c.date, MAX(h.hour) AS last,
    {_each("CAST(div(SUM(h.peak_{0}), COUNT(*)) AS BIGINT) AS mean_{0}", LOADS)}
  FROM hours h JOIN calendar c ON c.hour = h.hour
  GROUP BY h.server, c.date
),
wanted AS (
  SELECT DISTINCT t.server, c.date, c.dawn FROM targets t JOIN calendar c ON c.hour = t.hour
),
before AS (
  SELECT w.server, w.date,
    {_each("CAST(div(SUM(d.mean_{0}), COUNT(*)) AS BIGINT) AS day_{0}", LOADS)}
  FROM wanted w
  CROSS JOIN (VALUES {_each("({})", DAYS, ", ")}) AS back(days)
  JOIN days d ON d.server = w.server AND d.date = w.date - back.days
  WHERE d.last <= w.dawn - {HORIZON * HOUR_MS}
  GROUP BY w.server, w.date
)
SELECT t.server, t.hour,
  {_each("c.{}", CALENDAR, ", ")}, c.trend,
  {_each(f"CAST(b.day_{{0}} AS DOUBLE) / {UNIT}e0 AS day_{{0}}", LOADS)},
  {_each(f"CAST(l{{0}}.peak_total AS DOUBLE) / {UNIT}e0 AS lag_{{0}}", LAGS)},
  CAST(l0.peak_total AS DOUBLE) / {UNIT}e0 AS load
FROM targets t
JOIN calendar c ON c.hour = t.hour
LEFT JOIN before b ON b.server = t.server AND b.date = c.date
{_each(AT, (*LAGS, 0), chr(10))}
ORDER BY t.server, t.hour
"""  # noqa: S608 - names and numbers of ours
"""``FEATURES`` of ``hours`` (``HOURS``), ``targets`` (server, hour) and ``calendar`` (of the hours of both)."""


def features(hours: pa.Table, targets: pa.Table, spec: FeatureSpec) -> pa.Table:
    """What is known 48 hours before of hours to forecast, and what they came to where that is known.

    Args:
        hours: ``HOURS``, each server's hour once, in any order.
        targets: ``server`` (string) and ``hour`` (int64, epoch ms) to forecast.
        spec: timezone, start and holidays.

    Returns:
        ``FEATURES``: one row a target, sorted by server and hour.

    Raises:
        InputError: an hour is there twice.
    """
    found = np.concatenate([hours["hour"].to_numpy(), targets["hour"].to_numpy()])
    tables = {"hours": hours.select(HOURS.names), "targets": targets, "calendar": calendar(found, spec)}
    rows = _run(tables)
    if len(rows) != len(targets):
        raise InputError(f"{len(targets)} hours to forecast gave {len(rows)} rows; give each server's hour once.")
    return rows


def _run(tables: Mapping[str, pa.Table]) -> pa.Table:
    with duckdb.connect() as database:
        database.execute(DIV)
        for name, table in tables.items():
            database.register(name, table)
        return database.sql(QUERY).to_arrow_table().cast(FEATURES)
