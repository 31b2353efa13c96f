"""Decoded scores and forecasts to Arrow tables: the pure half of the Parquet sink."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.base import Source
from sinks.decode import Decoded, Reject
from stream.contracts import Contributor, Forecast, Score

DAY_MS = 86_400_000
TIME = pa.timestamp("ms", tz="UTC")
CONTRIBUTOR = pa.struct(
    [("feature", pa.string()), ("share", pa.float64()), ("actual", pa.float64()), ("typical", pa.float64())]
)
WINDOW = [("device_id", pa.string()), ("source", pa.string()), ("window_start", TIME), ("window_end", TIME)]
PLACE = [("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())]

PREDICTIONS = pa.schema(
    [
        *WINDOW,
        ("count", pa.int64()),
        ("state", pa.string()),
        ("decision", pa.float64()),
        ("score", pa.float64()),
        ("severity", pa.float64()),
        ("anomaly", pa.bool_()),
        ("contributors", pa.list_(pa.field("element", CONTRIBUTOR))),
        ("model_version", pa.string()),
        *PLACE,
        ("model", pa.string()),
        ("confidence", pa.float64()),
    ]
)
"""One row per device and window."""
LATER = {"predictions": ("model", "confidence")}
"""Columns that files from before they were written do not have; null there."""

STATISTICS = pa.schema(
    [
        *WINDOW,
        ("metric", pa.string()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("median", pa.float64()),  # null: the contract carries none
        ("std", pa.float64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("last", pa.float64()),
        ("sum", pa.float64()),
        *PLACE,
    ]
)
"""One row per device, window and metric; ``sum`` is mean times count where the record carries none."""

REJECTS = pa.schema([("kafka_topic", pa.string()), *PLACE, ("value", pa.binary()), ("reason", pa.string())])
"""One row per record that is no score; ``value`` holds its original bytes."""

CLASSES = ("low", "medium", "high")
FORECASTS = pa.schema(
    [
        ("server", pa.string()),
        ("issued", TIME),
        ("hour", TIME),
        ("load", pa.string()),
        *((name, pa.float64()) for name in CLASSES),
        ("basis", pa.string()),
        ("model_version", pa.string()),
        *PLACE,
    ]
)
"""One row per server, hour at whose start it was issued, and hour ahead; the probability of each class has its name."""

SCHEMAS = {"predictions": PREDICTIONS, "statistics": STATISTICS, "rejects": REJECTS, "forecasts": FORECASTS}
"""Every table the Parquet sink writes, by the name of its folder."""

DATED = {"predictions": "window_start", "statistics": "window_start", "forecasts": "issued"}
"""The column whose UTC date says which folder a row is in."""

Columns = dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows of one or more batches of a source, with the schemas of ``SCHEMAS``."""

    predictions: pa.Table
    statistics: pa.Table
    rejects: pa.Table
    forecasts: pa.Table = field(default_factory=FORECASTS.empty_table)

    @property
    def rows(self) -> int:
        """Rows of all of them."""
        return sum(len(getattr(self, name)) for name in SCHEMAS)

    @property
    def nbytes(self) -> int:
        """Memory of all of them."""
        return sum(int(getattr(self, name).nbytes) for name in SCHEMAS)


def tables(source: Source, decoded: Decoded[Score]) -> Tables:
    """The rows of one decoded batch, in order of offset."""
    scores = decoded.records
    shared = _window_columns(source, decoded)
    predictions = shared | _verdict_columns(scores)
    return Tables(
        pa.table(predictions, schema=PREDICTIONS),
        pa.table(_statistics_columns(shared, scores), schema=STATISTICS),
        pa.table(_reject_columns(source, decoded.rejects), schema=REJECTS),
    )


def forecasts(source: Source, decoded: Decoded[Forecast]) -> Tables:
    """The rows of one decoded batch of forecasts, in order of offset and hour."""
    told = decoded.records
    rows = np.repeat(np.arange(len(told)), np.fromiter((len(one.hours) for one in told), np.int64, len(told)))
    ahead = [hour for one in told for hour in one.hours]
    whole = {name: _column(told, FORECASTS.field(name)) for name in ("server", "issued", "basis", "model_version")}
    columns = {name: column.take(pa.array(rows)) for name, column in whole.items()}
    columns |= {name: _column(ahead, FORECASTS.field(name)) for name in ("hour", "load")}
    likely = np.array([hour.probabilities for hour in ahead], np.float64).reshape(-1, len(CLASSES))
    columns |= {name: pa.array(likely[:, at]) for at, name in enumerate(CLASSES)}
    columns["kafka_partition"] = pa.array(np.full(len(rows), source.partition, np.int32))
    columns["kafka_offset"] = pa.array(np.array(decoded.offsets, np.int64)[rows])
    return Tables(
        PREDICTIONS.empty_table(),
        STATISTICS.empty_table(),
        pa.table(_reject_columns(source, decoded.rejects), schema=REJECTS),
        pa.table(columns, schema=FORECASTS),
    )


def concat(parts: Sequence[Tables]) -> Tables:
    """One set of tables out of many, rows in the same order; nothing is copied."""
    return Tables(*(pa.concat_tables([getattr(part, name) for part in parts]) for name in SCHEMAS))


def by_date(table: pa.Table, by: str = "window_start") -> Iterable[tuple[str, pa.Table]]:
    """The table cut by the UTC date of a column: ISO date and rows, dates ascending."""
    days = table[by].cast(pa.int64()).to_numpy() // DAY_MS
    for day in np.unique(days):
        yield str(np.datetime64(int(day), "D")), table.filter(pa.array(days == day))


def _window_columns(source: Source, decoded: Decoded[Score]) -> Columns:
    """What predictions and statistics have in common; one entry per record."""
    scores = decoded.records
    columns = {field.name: _column(scores, field) for field in pa.schema(WINDOW)}
    columns["kafka_partition"] = pa.array(np.full(len(scores), source.partition, np.int32))
    columns["kafka_offset"] = pa.array(decoded.offsets, pa.int64())
    return columns


def _verdict_columns(scores: Sequence[Score]) -> Columns:
    names = ("count", "state", "decision", "score", "severity", "anomaly", "model_version", "model", "confidence")
    columns = {name: _column(scores, PREDICTIONS.field(name)) for name in names}
    columns["contributors"] = _contributors([score.contributors for score in scores])
    return columns


def _contributors(lists: Sequence[Sequence[Contributor]]) -> pa.Array:
    flat = list(chain.from_iterable(lists))
    fields = list(CONTRIBUTOR)
    structs = pa.StructArray.from_arrays([_column(flat, field) for field in fields], fields=fields)
    return pa.ListArray.from_arrays(_offsets(lists), structs, type=PREDICTIONS.field("contributors").type)


def _offsets(lists: Sequence[Sequence[object] | dict[str, Any]]) -> pa.Array:
    """Where each list begins, and where the last one ends; int32, one more entry than lists."""
    lengths = np.fromiter(map(len, lists), np.int32, len(lists))
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _statistics_columns(shared: Columns, scores: Sequence[Score]) -> Columns:
    """One entry per record and metric."""
    metrics = [score.metrics for score in scores]
    rows = np.repeat(np.arange(len(scores)), np.fromiter(map(len, metrics), np.int64, len(scores)))
    columns = {name: column.take(pa.array(rows)) for name, column in shared.items()}
    columns["metric"] = pa.array(list(chain.from_iterable(metrics)), pa.string())
    flat = list(chain.from_iterable(record.values() for record in metrics))
    for name in ("count", "mean", "std", "min", "max", "last"):
        columns[name] = _column(flat, STATISTICS.field(name))
    columns["median"] = pa.nulls(len(flat), pa.float64())
    product = pc.multiply(columns["mean"], columns["count"].cast(pa.float64(), safe=False))
    columns["sum"] = pc.coalesce(_column(flat, STATISTICS.field("sum")), product)
    return columns


def _reject_columns(source: Source, rejects: Sequence[Reject]) -> Columns:
    return {
        "kafka_topic": pa.array([source.topic] * len(rejects), pa.string()),
        "kafka_partition": pa.array([source.partition] * len(rejects), pa.int32()),
        "kafka_offset": pa.array([reject.offset for reject in rejects], pa.int64()),
        "value": pa.array([reject.value for reject in rejects], pa.binary()),
        "reason": pa.array([reject.reason for reject in rejects], pa.string()),
    }


def _column(records: Sequence[object], field: pa.Field) -> pa.Array:
    get: Callable[[Any], object] = attrgetter(field.name)
    return pa.array([get(record) for record in records], field.type)
