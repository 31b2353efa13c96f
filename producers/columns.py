"""Tables to readings: which column is what, and what each cell means."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from producers.batch import Floats, Ints
from producers.formats import Tally
from scorers.errors import InputError
from stream.contracts import Reason
from stream.decode import EARLIEST, LATEST

UNITS = (1_000_000, 1_000, 1)
"""Nanoseconds, microseconds and milliseconds, by how many make a millisecond."""
SECOND_MS = 1_000

STAMPS = ("ts", "timestamp", "time", "datetime", "date_time", "event_time", "date", "t", "second")
DEVICES = ("device_id", "device", "deviceid", "machine", "host", "server", "asset", "unit", "vm", "entity", "file")
METRICS = ("metric", "sensor", "variable", "tag")
VALUES = ("value", "reading", "val")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; what is None is found by name and type.

    ``device`` and ``ts`` name columns, ``metrics`` the wide form's, ``metric`` and ``value`` the narrow
    form's (one row a metric). Several columns with commas between, as ``store,brand``, make a device of each
    combination of their values, ``store/brand``. ``name`` is the device's id where no column tells, ``prefix`` goes
    before ids that are file paths. ``start`` (epoch ms) and ``step`` (ms) turn a row number into a time.

    Times may be timestamps, ISO-8601 text, or epoch seconds, milliseconds, microseconds or nanoseconds
    (told apart by size, for the years 1980 to 2199). A local time without an offset is taken as UTC.
    """

    device: str | None = None
    ts: str | None = None
    metrics: tuple[str, ...] | None = None
    metric: str | None = None
    value: str | None = None
    name: str | None = None
    prefix: str | None = None
    start: int | None = None
    step: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether each row holds one metric's value, with its name beside it."""
        return self.metric is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell a row's device."""
        return tuple(self.device.split(",")) if self.device else ()

    @property
    def wanted(self) -> list[str]:
        """Every column that has to be read, once."""
        values = (self.metric, self.value) if self.narrow else self.metrics or ()
        return list(dict.fromkeys(name for name in (self.ts, *self.keys, *values) if name is not None))


@dataclass(frozen=True, slots=True)
class Rows:
    """``n`` rows that hold a reading.

    ``ts`` is int64 epoch ms ``(n,)``, ``device`` the ids ``(n,)``, ``matrix`` float64 ``(n, m)``
    the values, NaN where a metric is absent.
    """

    ts: Ints
    device: NDArray[np.object_]
    matrix: Floats

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Rows":
        """The chosen rows, in that order."""
        return Rows(self.ts[rows], self.device[rows], self.matrix[rows])


def concat(parts: Sequence[Rows]) -> Rows:
    """All rows, part after part."""
    return Rows(
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.device for part in parts]),
        np.concatenate([part.matrix for part in parts]),
    )


def detect(columns: Columns, sample: pa.Table, *, path: Path) -> Columns:
    """Fill in what ``columns`` leaves open, from names and a sample of the rows of the file at ``path``.

    Without a column for the device, the file's name is the device.

    Raises:
        InputError: there is no time column or no metric; the sentence says which flag tells it.
    """
    ts = columns.ts or _named(STAMPS, sample.column_names) or _timestamp(sample)
    if ts is None:
        raise InputError(f"{str(path)!r} has no column that looks like a time; name it with --ts.")
    device = columns.device if columns.device or columns.name else _named(DEVICES, sample.column_names)
    name = columns.name or (None if device else path.name.split(".")[0])
    found = replace(columns, ts=ts, device=device, name=name)
    return found if columns.metrics else _detect_values(found, sample, path)


def _detect_values(found: Columns, sample: pa.Table, path: Path) -> Columns:
    """The narrow form if the columns look like it, else every other numeric column."""
    # a column of metrics may tell devices too: then each metric is one
    taken = {found.ts, *(key for key in found.keys if len(found.keys) == 1 or key.lower() not in METRICS)}
    others = [name for name in sample.column_names if name not in taken]
    metric = found.metric or _named(METRICS, others)
    value = found.value or _named(VALUES, others)
    if metric and value:
        return replace(found, metric=metric, value=value)
    metrics = tuple(name for name in others if _numeric(sample[name]))
    if not metrics:
        raise InputError(
            f"{str(path)!r} has no numeric column besides time and device; name the metrics with --metrics."
        )
    return replace(found, metrics=metrics)


def _named(candidates: Sequence[str], names: Iterable[str]) -> str | None:
    """The column whose name, in lower case, comes first among the candidates."""
    lower = {name.lower(): name for name in reversed(list(names))}
    return next((lower[candidate] for candidate in candidates if candidate in lower), None)


def _timestamp(sample: pa.Table) -> str | None:
    return next((field.name for field in sample.schema if pa.types.is_timestamp(field.type)), None)


def _numeric(column: pa.ChunkedArray) -> bool:
    """Whether the column holds numbers; one of text does if at least half of its cells are numbers."""
    kind = column.type
    if pa.types.is_string(kind):
        tally = Tally()
        _numbers(column, tally)
        return 2 * tally.cells[Reason.WRONG_TYPE] <= int(len(column) - column.null_count)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def convert(table: pa.Table, columns: Columns, metrics: Sequence[str], tally: Tally) -> Rows:
    """The rows that hold a reading, with ``matrix`` in the order of ``metrics``; the others are tallied.

    A null metric is simply absent. An infinite one, or text in place of a number, is left out and tallied.
    """
    return sift(table, columns, metrics, tally)[0]


def sift(
    table: pa.Table, columns: Columns, metrics: Sequence[str], tally: Tally
) -> tuple[Rows, dict[Reason, NDArray[np.bool_]]]:
    """As :func:`convert`, and which rows were left out, a mask ``(n,)`` for each reason."""
    ts, dated = stamps(table[columns.ts], columns)
    device, known = _devices(table, columns)
    values = _narrow(table, columns, metrics, tally) if columns.narrow else _wide(table, columns, metrics, tally)
    infinite = np.isinf(values)
    tally.blank(Reason.NOT_FINITE, int(infinite.sum()))
    values[infinite] = np.nan
    filled = ~np.isnan(values).all(axis=1)
    unfit = {
        Reason.BAD_TIMESTAMP: ~dated,
        Reason.MISSING_FIELD: dated & ~known,
        Reason.NO_VALUES: dated & known & ~filled,
    }
    for reason, rows in unfit.items():
        tally.drop(reason, int(rows.sum()))
    return Rows(ts, device, values).take(dated & known & filled), unfit


def stamps(column: pa.ChunkedArray, columns: Columns) -> tuple[Ints, NDArray[np.bool_]]:
    """Epoch milliseconds, int64 ``(n,)``, and which of them are times between 1980 and 2199."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        milliseconds = pc.cast(column, pa.timestamp("ms", getattr(kind, "tz", None)), safe=False)
        ts = _array(pc.fill_null(milliseconds.cast(pa.int64()), 0), np.int64)
    else:
        ts = _text_stamps(column, columns) if _is_text(kind) else _number_stamps(_plain(column), columns)
    return ts, (ts >= EARLIEST) & (ts < LATEST)


def _text_stamps(column: pa.ChunkedArray, columns: Columns) -> Ints:
    """Numbers written as text where they are all numbers, else ISO-8601."""
    texts = column.cast(pa.string())
    for number in (pa.int64(), pa.float64()):
        try:
            return _number_stamps(_plain(texts.cast(number)), columns)
        except pa.ArrowInvalid:
            continue
    parsed = pd.to_datetime(texts.to_pandas(), utc=True, format="ISO8601", errors="coerce")
    ts: Ints = parsed.dt.as_unit("ms").astype(np.int64).to_numpy(copy=True)
    odd = np.flatnonzero(parsed.isna().to_numpy())
    if len(odd):
        numbers = pd.to_numeric(texts.take(odd).to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        ts[odd] = _number_stamps(numbers, columns)
    return ts


def _number_stamps(numbers: NDArray[np.int64] | Floats, columns: Columns) -> Ints:
    """Row numbers by ``start`` and ``step``, else epoch times of the unit that puts them in range; 0 for none."""
    finite = np.where(np.isfinite(numbers), numbers, 0)
    if columns.start is not None:
        offset = np.rint(finite * (columns.step or SECOND_MS)).astype(np.int64)
        return np.where(np.isfinite(numbers), columns.start + offset, 0)
    ts = np.rint(np.where(np.abs(finite) < LATEST / SECOND_MS, finite * SECOND_MS, 0)).astype(np.int64)
    for parts in UNITS:
        scaled = (finite // parts).astype(np.int64)
        ts = np.where((scaled >= EARLIEST) & (scaled < LATEST), scaled, ts)
    return ts


def _wide(table: pa.Table, columns: Columns, metrics: Sequence[str], tally: Tally) -> Floats:
    values = np.full((len(table), len(metrics)), np.nan)
    place = {name: column for column, name in enumerate(metrics)}
    for name in columns.metrics or ():
        values[:, place[name]] = _numbers(table[name], tally)
    return values


def _narrow(table: pa.Table, columns: Columns, metrics: Sequence[str], tally: Tally) -> Floats:
    """One value a row, in the column of the metric that the row names; a row without a name has none."""
    values = np.full((len(table), len(metrics)), np.nan)
    place = {name: column for column, name in enumerate(metrics)}
    names = table[columns.metric].cast(pa.string()).to_pylist()
    at = np.array([place.get(name, -1) for name in names], dtype=np.intp)
    named = np.flatnonzero(at >= 0)
    values[named, at[named]] = _numbers(table[columns.value], tally)[named]
    return values


def _numbers(column: pa.ChunkedArray, tally: Tally) -> Floats:
    """The column as float64 ``(n,)``, null as NaN; float32 is widened exactly; text that is no number is tallied."""
    if not _is_text(column.type):
        return _array(column.cast(pa.float64(), safe=False), np.float64)
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    try:
        return _array(texts.cast(pa.float64()), np.float64)
    except pa.ArrowInvalid:
        numbers: Floats = pd.to_numeric(texts.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        tally.blank(Reason.WRONG_TYPE, int(np.isnan(numbers).sum()) - texts.null_count)
        return numbers


def _devices(table: pa.Table, columns: Columns) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """The id of each row's device, and whether it has one."""
    if not columns.keys:
        return np.full(len(table), columns.name, dtype=object), np.ones(len(table), dtype=np.bool_)
    texts = [table[key].cast(pa.string()).combine_chunks() for key in columns.keys]
    encoded = pc.binary_join_element_wise(*texts, "/").dictionary_encode()
    ids = np.array([identify(text, columns.prefix) for text in encoded.dictionary.to_pylist()] + [""], dtype=object)
    codes = _array(pc.fill_null(encoded.indices.cast(pa.int64()), len(ids) - 1), np.int64)
    device = ids[codes]
    return device, device != ""


def identify(text: str, prefix: str | None) -> str:
    """A device id; one made of a file's path loses the slashes and the suffix and gains the prefix."""
    return text if prefix is None else prefix + text.removesuffix(".csv").replace("/", "-")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(column: pa.ChunkedArray) -> NDArray[np.int64] | Floats:
    """Numbers as int64 where none is missing, so that no digit of a long stamp is lost, else float64."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return _array(column.cast(pa.int64()), np.int64)
    return _array(column.cast(pa.float64(), safe=False), np.float64)


def _array(column: pa.ChunkedArray, dtype: type[np.generic]) -> NDArray[Any]:
    """A column as a new array; null becomes NaN."""
    return np.array(column.to_numpy(zero_copy_only=False), dtype=dtype)


def pivot(rows: Rows) -> Rows:
    """Narrow rows, ordered by time, as readings: one for each device and time, in order of appearance.

    A metric that occurs again for the same device and time makes a second reading.
    """
    metric = np.argmax(~np.isnan(rows.matrix), axis=1)
    frame = pd.DataFrame({"ts": rows.ts, "device": rows.device, "metric": metric})
    frame["again"] = frame.groupby(["ts", "device", "metric"]).cumcount()
    reading = frame.groupby(["ts", "device", "again"], sort=False).ngroup().to_numpy()
    _, first = np.unique(reading, return_index=True)
    values = np.full((len(first), rows.matrix.shape[1]), np.nan)
    values[reading, metric] = rows.matrix[np.arange(len(rows)), metric]
    return Rows(rows.ts[first], rows.device[first], values)
