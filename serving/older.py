"""A device's past as the Parquet sink keeps it, through DuckDB: only files of the dates that are needed are opened."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow.dataset as ds

Table = Callable[[str], ds.Dataset]
"""Gives the dataset of ``predictions`` or ``statistics``, with a column ``date`` by which its files lie."""

_MOST_DATES = 64
_WINDOWS = """
SELECT epoch_ms(window_start), epoch_ms(window_end), state, score, severity, anomaly
FROM windows
WHERE device_id = $device AND date BETWEEN $first AND $last AND window_start >= $since AND window_start < $until
ORDER BY window_start DESC LIMIT $limit
"""
_MEANS = """
SELECT epoch_ms(window_start), metric, mean
FROM metrics
WHERE device_id = $device AND date BETWEEN $first AND $last AND window_start BETWEEN $since AND $until
"""
_FIELDS = ("window_start", "window_end", "state", "score", "severity", "anomaly")
_EARLIEST, _LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def history(table: Table, device: str, since: int | None, until: int | None, limit: int) -> list[dict[str, Any]]:
    """Windows that begin in ``[since, until)``, the newest first; with the fields of ``recent.POINTS``.

    Dates are looked at from the newest back, twice as many each time, so that the last windows of a device cost a few
    files however long its past is.

    Args:
        table: gives datasets.
        device: its id; bound as a parameter, never part of a statement.
        since: epoch ms; None for all there is.
        until: the same.
        limit: so many at most.
    """
    first, last = _moment(since, _EARLIEST), _moment(until, _LATEST)
    windows, metrics = table("predictions"), table("statistics")
    found: list[dict[str, Any]] = []
    with duckdb.connect(config={"threads": 2}) as base:
        base.execute("SET TimeZone = 'UTC'")
        base.register("windows", windows)
        base.register("metrics", metrics)
        for oldest, newest in _spans(_dates(windows, first.date(), last.date())):
            bound = {"device": device, "first": oldest, "last": newest}
            rows = base.execute(
                _WINDOWS, bound | {"since": first, "until": last, "limit": limit - len(found)}
            ).fetchall()
            if rows:
                points = [dict(zip(_FIELDS, row, strict=True)) | {"means": {}} for row in rows]
                _add_means(base, points, bound)
                found += points
            if len(found) >= limit:
                break
    return found


def _add_means(base: duckdb.DuckDBPyConnection, points: list[dict[str, Any]], bound: dict[str, Any]) -> None:
    ends = {
        "since": _moment(points[-1]["window_start"], _EARLIEST),
        "until": _moment(points[0]["window_start"], _LATEST),
    }
    by_start = {point["window_start"]: point["means"] for point in points}
    for start, metric, mean in base.execute(_MEANS, bound | ends).fetchall():
        if start in by_start and mean is not None:
            by_start[start][metric] = mean


def _dates(data: ds.Dataset, first: date, last: date) -> list[date]:
    """The dates that there are files of, the newest first."""
    keys = (ds.get_partition_keys(fragment.partition_expression) for fragment in data.get_fragments())
    return sorted({key["date"] for key in keys if first <= key["date"] <= last}, reverse=True)


def _spans(dates: list[date]) -> Iterator[tuple[date, date]]:
    """First and last date of growing parts."""
    at, size = 0, 1
    while at < len(dates):
        part = dates[at : at + size]
        yield part[-1], part[0]
        at, size = at + size, min(2 * size, _MOST_DATES)


def _moment(epoch_ms: int | None, otherwise: datetime) -> datetime:
    try:
        return otherwise if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return _EARLIEST if epoch_ms is not None and epoch_ms < 0 else _LATEST
