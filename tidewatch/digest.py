"""What became of a fleet in a period, from the windows that the Parquet sink kept."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from scorers.source import opened
from sinks.read import dataset
from stream.alert import Alerting, AlertSpec, Verdict

DAY_MS = 86_400_000
WIDTHS_MS = tuple(1000 * width for width in (60, 300, 900, 3600, 21_600, 86_400, 604_800))
BARS = 72
"""Of the course of a period, about at most."""
NEAR = 75.0
"""A score below which a window lies less than 1.44 times as far out as the limit (``scorers.model.score``)."""
OFTEN = 3
"""Alerts from which on a device may look falsely alarmed."""
BLAMED = 3
BATCH = 100_000
"""Rows that are looked at together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to tell of."""

    since: int | None = None
    """Epoch ms, by window end; None: a day before ``until``."""
    until: int | None = None
    """To end before; None: after the last window there is."""
    quiet: int = 10
    """So many windows of a device missing in a row are a gap, or silence."""
    alert: AlertSpec = field(default_factory=AlertSpec)


class Key(NamedTuple):
    """Whose windows they are."""

    source: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device in the period."""

    source: str
    device_id: str
    windows: int
    scored: int
    anomalies: int
    alerts: int
    score: float | None
    """The highest; None without a verdict."""
    severity: float | None
    at: int | None
    """End of the window with that severity, epoch ms."""
    near: float | None
    """Median score of its odd windows."""
    because: tuple[str, ...]
    """Features named most often in odd windows."""

    @property
    def false_looking(self) -> bool:
        """Whether it has several alerts and most of its odd windows lie barely beyond the limit."""
        return self.alerts >= OFTEN and self.near is not None and self.near < NEAR


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alert."""

    source: str
    device_id: str
    since: int
    """Begin of its first odd window, epoch ms."""
    fired: int
    until: int | None
    """None: it has not ended within the period."""
    anomalies: int
    score: float
    severity: float
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """All of it; moments are epoch ms."""

    since: int
    until: int
    last: int | None
    """End of the last window in the period."""
    course: list[dict[str, int]]
    """Bars of time: begin, windows, anomalies, alerts that fired."""
    width: int
    """Of a bar, ms."""
    devices: list[Device]
    """The oddest first."""
    alerts: list[Alarm]
    """In order of time."""
    versions: list[dict[str, Any]]
    """Model versions: their devices, windows, anomalies, first and last window."""
    silent: list[dict[str, Any]]
    """Devices without a window in the end, or in all of the period that came before it: source, device, last window."""
    gaps: list[dict[str, Any]]
    """Windows that a device did not have between others: source, device, begin, end, how many."""

    @property
    def false_looking(self) -> list[Device]:
        """Devices with alerts that look false, most of them first."""
        return sorted((one for one in self.devices if one.false_looking), key=lambda one: -one.alerts)

    @property
    def totals(self) -> dict[str, int]:
        """Figures of the whole period."""
        return {
            "devices": len(self.devices),
            "windows": sum(one.windows for one in self.devices),
            "scored": sum(one.scored for one in self.devices),
            "anomalies": sum(one.anomalies for one in self.devices),
            "alerts": len(self.alerts),
            "firing": sum(one.until is None for one in self.alerts),
            "alerting_devices": sum(one.alerts > 0 for one in self.devices),
            "false_looking": len(self.false_looking),
            "silent": len(self.silent),
            "gaps": len(self.gaps),
        }

    def told(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain = asdict(self) | {"totals": self.totals}
        return plain | {"false_looking": [one.device_id for one in self.false_looking]}


def digest(folder: Path, asked: Asked) -> Digest:
    """What became of the devices whose windows lie in ``folder``, the Parquet sink's.

    Alerts are what ``asked.alert`` makes of the windows, from the period's first one on, for the sink keeps no alerts.

    Raises:
        InputError: there are no predictions.
    """
    with opened(dataset(folder, "predictions")) as database:
        since, until = _period(database, asked)
        facts = {"since": since, "until": until, "before": 2 * since - until, "quiet": asked.quiet}
        _prepare(database, facts)
        because = _because(database)
        alerts = list(_alarms(database, asked.alert))
        width = next((width for width in WIDTHS_MS if (until - since) / width <= BARS), WIDTHS_MS[-1])
        (last,) = database.execute("SELECT max(ended) FROM seen").fetchall()[0]
        return Digest(
            since,
            until,
            last,
            _course(database, facts | {"width": width}, alerts),
            width,
            _devices(database, because, Counter(Key(one.source, one.device_id) for one in alerts)),
            alerts,
            _rows(database, _VERSIONS),
            _rows(database, _SILENT, quiet=asked.quiet),
            _rows(database, _GAPS, quiet=asked.quiet),
        )


def _period(database: duckdb.DuckDBPyConnection, asked: Asked) -> tuple[int, int]:
    until = asked.until
    if until is None:
        found = database.execute("SELECT epoch_ms(max(window_end)) + 1 FROM source").fetchall()
        until = int(found[0][0] or DAY_MS)
    return (until - DAY_MS if asked.since is None else asked.since), until


def _prepare(database: duckdb.DuckDBPyConnection, facts: Mapping[str, int]) -> None:
    """Tables: ``seen`` windows, what is ``usual`` of each device, and who was there ``before``."""
    between = "window_end >= make_timestamptz({} * 1000) AND window_end < make_timestamptz({} * 1000)"
    moments = {name: facts[name] for name in ("since", "until", "before")}
    now = between.format(moments["since"], moments["until"])
    earlier = between.format(moments["before"], moments["since"])
    database.execute(f"CREATE TEMP TABLE seen AS {_SEEN.format(chosen=now)}")
    database.execute(f"CREATE TEMP TABLE usual AS {_USUAL}")
    database.execute(f"CREATE TEMP TABLE before AS {_BEFORE.format(chosen=earlier)}")


_SEEN = """
SELECT source, device_id, epoch_ms(window_start) AS began, epoch_ms(window_end) AS ended, state = 'scored' AS scored,
    coalesce(anomaly, false) AS odd, score, severity, model_version,
    CASE WHEN anomaly THEN list_transform(contributors, lambda one: one.feature) END AS why,
    began - lag(began) OVER (PARTITION BY source, device_id ORDER BY window_start) AS step
FROM source WHERE {chosen}
"""
_USUAL = """
SELECT source, device_id, max(ended) AS last, quantile_disc(step, 0.5) FILTER (step > 0) AS step
FROM seen GROUP BY ALL
"""
_BEFORE = """
SELECT source, device_id, epoch_ms(max(window_end)) AS last FROM source WHERE {chosen} GROUP BY ALL
"""
_SILENT = """
SELECT source, device_id, last FROM usual
WHERE (SELECT max(last) FROM usual) - last >= $quiet * coalesce(step, (SELECT median(step) FROM usual))
UNION ALL SELECT source, device_id, last FROM before ANTI JOIN usual USING (source, device_id)
ORDER BY last, source, device_id
"""
_GAPS = """
SELECT source, device_id, began - seen.step + usual.step AS since, began AS until,
    seen.step // usual.step - 1 AS windows
FROM seen JOIN usual USING (source, device_id)
WHERE seen.step // usual.step - 1 >= $quiet ORDER BY windows DESC, source, device_id, since
"""
_VERSIONS = """
SELECT model_version AS version, count(DISTINCT (source, device_id)) AS devices, count(*) AS windows,
    count(*) FILTER (odd) AS anomalies, min(ended) AS first, max(ended) AS last
FROM seen WHERE scored GROUP BY ALL ORDER BY first, version
"""
_DEVICES = """
SELECT source, device_id, count(*) AS windows, count(*) FILTER (scored) AS scored, count(*) FILTER (odd) AS anomalies,
    max(score) AS score, max(severity) AS severity, arg_max(ended, severity) AS at,
    median(score) FILTER (odd) AS near
FROM seen GROUP BY ALL ORDER BY severity DESC NULLS LAST, source, device_id
"""
_WHY = """
SELECT source, device_id, feature, count(*) AS times FROM (SELECT source, device_id, unnest(why) AS feature FROM seen)
GROUP BY ALL ORDER BY times DESC, feature
"""
_FLAGS = """
SELECT source, device_id, began, ended, odd, score, severity, why FROM seen
WHERE scored AND (source, device_id) IN
    (SELECT (source, device_id) FROM seen WHERE odd GROUP BY source, device_id HAVING count(*) >= $k)
ORDER BY source, device_id, began
"""
_COURSE = """
SELECT (ended - $since) // $width AS bar, count(*) AS windows, count(*) FILTER (odd) AS anomalies
FROM seen GROUP BY ALL
"""


def _because(database: duckdb.DuckDBPyConnection) -> dict[Key, tuple[str, ...]]:
    """Of each device with odd windows, what they name most often."""
    found: defaultdict[Key, list[str]] = defaultdict(list)
    for source, device, feature, _ in database.execute(_WHY).fetchall():
        found[Key(source, device)].append(feature)
    return {key: tuple(names[:BLAMED]) for key, names in found.items()}


def _devices(
    database: duckdb.DuckDBPyConnection, because: Mapping[Key, tuple[str, ...]], alerts: Mapping[Key, int]
) -> list[Device]:
    result = []
    for row in _rows(database, _DEVICES):
        key = Key(row["source"], row["device_id"])
        result.append(Device(**row, alerts=alerts.get(key, 0), because=because.get(key, ())))
    return result


def _course(database: duckdb.DuckDBPyConnection, facts: Mapping[str, int], alerts: list[Alarm]) -> list[dict[str, int]]:
    since, until, width = facts["since"], facts["until"], facts["width"]
    bars = [
        {"begin": begin, "windows": 0, "anomalies": 0, "alerts": 0}
        for begin in range(since, max(until, since + 1), width)
    ]
    for row in _rows(database, _COURSE, since=since, width=width):
        bars[row["bar"]] |= {"windows": row["windows"], "anomalies": row["anomalies"]}
    for one in alerts:
        bars[(one.fired - since) // width]["alerts"] += 1
    return bars


def _alarms(database: duckdb.DuckDBPyConnection, spec: AlertSpec) -> Iterator[Alarm]:
    found: list[Alarm] = []
    course = _Course(spec)
    for batch in database.sql(_FLAGS, params={"k": spec.k}).to_arrow_reader(BATCH):
        for row in _lines(batch):
            found += course.see(*row)
    found += course.end()
    yield from sorted(found, key=lambda one: (one.fired, one.source, one.device_id))


def _lines(batch: pa.RecordBatch) -> Iterator[tuple[Key, Verdict, tuple[str, ...]]]:
    columns = [batch.column(name).to_pylist() for name in batch.schema.names]
    for source, device, began, ended, odd, score, severity, why in zip(*columns, strict=True):
        yield Key(source, device), Verdict(device, began, ended, odd, score, severity, []), tuple(why or ())


class _Course:
    """Alerts of devices that come one after the other, each in order of time."""

    def __init__(self, spec: AlertSpec) -> None:
        self._spec = spec
        self._key: Key | None = None
        self._alerting = Alerting(spec, "")
        self._firing: Alarm | None = None
        self._odd: list[tuple[int, tuple[str, ...]]] = []
        """Begins of odd windows that may belong to an alert, and what they name."""

    def see(self, key: Key, verdict: Verdict, why: tuple[str, ...]) -> list[Alarm]:
        """Alerts that have ended by now."""
        ended = self.end() if key != self._key else []
        self._key = key
        if not verdict.anomaly and not self._alerting.watched:
            return ended
        if verdict.anomaly:
            self._odd.append((verdict.start, why))
        change = self._alerting.see(0, verdict, None)
        if change is not None and change.state == "firing":
            self._firing = Alarm(*key, change.since, verdict.end, None, 0, change.score, change.severity, ())
        elif change is not None:
            ended += self._closed(verdict.end, change.score, change.severity)
        if self._firing is None:
            self._odd = self._odd[-self._spec.n :]
        return ended

    def end(self) -> list[Alarm]:
        """The alert that still fires, if one does; then begin with another device."""
        watch = self._alerting.watched.get(0)
        ended = [] if watch is None else self._closed(None, watch.score, watch.severity)
        self._alerting, self._odd = Alerting(self._spec, ""), []
        return ended

    def _closed(self, until: int | None, score: float, severity: float) -> list[Alarm]:
        firing, self._firing = self._firing, None
        if firing is None:
            return []
        odd = [why for start, why in self._odd if start >= firing.since]
        self._odd = []
        named = Counter(feature for why in odd for feature in why)
        because = tuple(name for name, _ in named.most_common(BLAMED))
        since, fired = firing.since, firing.fired
        return [Alarm(firing.source, firing.device_id, since, fired, until, len(odd), score, severity, because)]


def _rows(database: duckdb.DuckDBPyConnection, query: str, **params: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = database.sql(query, params=params).to_arrow_table().to_pylist()
    return rows
