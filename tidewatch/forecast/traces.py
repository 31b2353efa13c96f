"""Published load curves of real servers, as hours: what a forecaster can be tried on besides logs we make.

A trace has counts a minute, or use of a processor every few seconds or minutes, of one server, cluster or of many
virtual machines. Each becomes an hour's five minutes of largest total, as sessions do. What nobody measured stays
missing; so does an hour that was measured by less than half. Only ``peak_total`` is known, the other loads are 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from producers.batch import Floats, Ints
from producers.recordings import FIRST
from scorers.errors import InputError
from scorers.forecast.schema import BUCKET_MS, HOUR_MS, HOURS, LOADS, UNIT

USUAL = 200.0
"""What a trace's median hour is brought to; between the limits 100 and 500."""
WHOLE = 0.5
"""An hour is known when at least so much of it was measured."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a load curve is, and what it means.

    ``value`` is its column; ``summed`` whether rows of five minutes add up (counts) or are averaged (use). ``step`` is
    the ms a row stands for, ``server`` the column of servers, ``outage`` one whose rows were not measured. Where
    ``seconds`` is a row's column, the trace begins at 2024-01-01.
    """

    file: str
    value: str
    step: int
    summed: bool = False
    server: str | None = None
    outage: str | None = None
    seconds: str | None = None
    timezone: str = "UTC"
    """That the stamps are in; the hours are UTC."""


def trace(name: str, folder: Path) -> pa.Table:
    """The hours of a trace, in the schema ``HOURS``, sorted by server and hour; missing hours have no row.

    Loads are brought to a common scale: the median of all hours is 200, so that limits of 100 and 500 mean something.
    For three classes of chosen sizes use quantiles of the hours trained on.

    Args:
        name: one of ``names()``.
        folder: of the recordings, or their ``workload``.

    Raises:
        InputError: no such trace, or its file cannot be read.
    """
    found = TRACES.get(name)
    if found is None:
        raise InputError(f"There is no trace {name!r}; use one of {', '.join(TRACES)}.")
    return _hours(_buckets(_rows(found, name, folder), found))


def names() -> list[str]:
    """The traces there are."""
    return list(TRACES)


def _rows(found: Trace, name: str, folder: Path) -> pd.DataFrame:
    """What was measured: ``server``, ``ts`` (epoch ms UTC), ``value``."""
    place = folder / "workload" if (folder / "workload").is_dir() else folder
    path = place / f"{found.file}.parquet"
    wanted = [column for column in (found.value, found.server, found.outage, found.seconds) if column]
    try:
        table = parquet.read_table(path, columns=wanted if found.seconds else [*wanted, "timestamp"])
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"The trace {name!r} is not in {str(path)!r}; set TIDEWATCH_DATA, or give the folder."
        ) from error
    frame = table.to_pandas()
    rows = pd.DataFrame(
        {
            "server": frame[found.server].astype(str) if found.server else name,
            "ts": FIRST + 1000 * frame[found.seconds].astype(np.int64)
            if found.seconds
            else _utc(frame["timestamp"], found),
            "value": frame[found.value].astype(np.float64),
        }
    )
    measured = rows.value.notna() if found.outage is None else rows.value.notna() & (frame[found.outage] == 0)
    return rows[measured]


def _utc(stamps: pd.Series, found: Trace) -> Ints:
    """Epoch ms of stamps that are local."""
    local = stamps.dt.tz_localize(found.timezone)
    ts: Ints = local.dt.tz_convert("UTC").astype("datetime64[ms, UTC]").astype(np.int64).to_numpy()
    return ts


def _buckets(rows: pd.DataFrame, found: Trace) -> pd.DataFrame:
    """Five minutes each: ``server``, ``bucket`` (their start, epoch ms), ``value``, and ``measured``, in rows."""
    width = max(found.step, BUCKET_MS)
    grouped = rows.groupby(["server", rows.ts // width * width], sort=True).value
    made = grouped.agg(["sum" if found.summed else "mean", "size"]).reset_index()
    made.columns = pd.Index(["server", "bucket", "value", "measured"])
    full = width / found.step
    if found.summed:
        made["value"] *= full / made.measured  # what was not measured was as the rest
    made["measured"] *= found.step
    return made


def _hours(buckets: pd.DataFrame) -> pa.Table:
    """The largest five minutes of each hour that is known."""
    buckets["hour"] = buckets.bucket // HOUR_MS * HOUR_MS
    hours = buckets.groupby(["server", "hour"], sort=True)
    known = hours.measured.sum() >= WHOLE * HOUR_MS
    peaks = hours.value.max()[known]
    scale = USUAL / max(float(peaks.median()), 1e-9)
    columns: dict[str, object] = {f"peak_{load}": np.zeros(len(peaks), np.int64) for load in LOADS}
    columns |= {
        "server": peaks.index.get_level_values("server").to_numpy(object),
        "hour": peaks.index.get_level_values("hour").to_numpy(np.int64),
        "sessions": np.zeros(len(peaks), np.int64),
        "peak_total": np.rint(_values(peaks) * scale * UNIT).astype(np.int64),
    }
    return pa.table({name: columns[name] for name in HOURS.names}, schema=HOURS)


def _values(series: pd.Series) -> Floats:
    values: Floats = series.to_numpy(np.float64)
    return values


MINUTE_MS = 60_000
TRACES = {
    "worldcup": Trace("worldcup98_requests_per_minute", "requests", MINUTE_MS, summed=True),
    "nasa": Trace(
        "nasa_http_requests_per_minute", "requests", MINUTE_MS, summed=True, outage="outage", timezone="Etc/GMT+4"
    ),
    "appserver": Trace("appserver_cluster_hourly", "requests", HOUR_MS, summed=True),
    "planetlab": Trace("planetlab2011_vm_cpu_5min", "cpu_percent", BUCKET_MS, server="vm"),
    "alibaba": Trace("alibaba2018_cluster_30s", "cpu_util_percent", 30_000, seconds="second"),
    "google": Trace("google2019_cluster_300s", "avg_cpu", BUCKET_MS, seconds="second"),
    "azure": Trace("azure2019_cluster_300s", "cpu_usage", BUCKET_MS, seconds="second"),
}
"""By name: web requests of two sites and a cluster (5 years), use of processors of 107 machines and three clusters."""
