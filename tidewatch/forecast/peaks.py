"""Forecasts on disk to the peaks that a plan rests on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from scorers.errors import InputError
from scorers.forecast import pack
from scorers.forecast.labels import scaled
from scorers.forecast.plan import likely
from tidewatch.forecast.settings import Load, model_file

CLASSES = ("low", "medium", "high")


class _Hour(msgspec.Struct):
    hour: int
    probabilities: tuple[float, float, float]


class _Forecast(msgspec.Struct):
    """What is needed of a record of ``server.forecasts``."""

    server: str
    issued: int
    hours: list[_Hour]


def peaks(path: Path, limits: Sequence[float], confidence: float) -> pa.Table:
    """``server``, ``hour`` and ``peak`` of the latest forecast of each server.

    Args:
        path: a Parquet file or folder with ``server``, ``hour`` and either ``peak`` or the probabilities ``low``,
            ``medium`` and ``high`` (and ``issued``, if there are several forecasts); or JSON lines with records of
            ``server.forecasts``.
        limits: loads up to which an hour is low, medium, high.
        confidence: that the load stays below the peak, where only probabilities are told.

    Raises:
        InputError: there are no forecasts, or they cannot be read.
        ConfigError: limits or confidence make no sense.
    """
    if not path.exists():
        raise InputError(f"There are no forecasts at {str(path)!r}; name a Parquet file or folder, or JSON lines.")
    table = _latest(_records(path) if path.suffix in {".jsonl", ".ndjson"} else _columns(path))
    if "peak" not in table.column_names:
        shares = np.column_stack([table[name].to_numpy() for name in CLASSES])
        if not ((shares >= 0).all() and (shares.sum(axis=1) > 0).all()):
            raise InputError(f"{str(path)!r} holds probabilities below 0, or none at all; forecast again.")
        table = table.append_column("peak", pa.array(likely(shares, limits, confidence)))
    return table.select(["server", "hour", "peak"])


def limits_of(load: Load) -> tuple[float, float, float]:
    """Loads up to which an hour is low, medium, high, where nobody says: what classes mean, and for high twice medium.

    Raises:
        ForecasterFileError: classes part at quantiles, which the forecaster in force knows, and there is none.
    """
    if load.quantiles is None:
        low, medium = scaled(load.thresholds, load.scale)
    else:
        low, medium = pack.load(model_file(load)).thresholds
    return low, medium, 2 * medium


def _columns(path: Path) -> pa.Table:
    try:
        found = ds.dataset(path, format="parquet", exclude_invalid_files=False)
        names = ["peak"] if "peak" in found.schema.names else list(CLASSES)
        issued = ["issued"] if "issued" in found.schema.names else []
        table = found.to_table(columns=["server", "hour", *issued, *names])
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{str(path)!r} holds no forecasts ({reason}); it needs server, hour, and peak or low, medium, high."
        ) from error
    hours = _epoch(table["hour"])
    table = table.set_column(1, "hour", hours)
    return table.set_column(2, "issued", _epoch(table["issued"])) if issued else table


def _epoch(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Epoch ms, which may be told as timestamps."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz))
    return column.cast(pa.int64())


def _records(path: Path) -> pa.Table:
    decode, rows = msgspec.json.Decoder(_Forecast).decode, list[tuple[Any, ...]]()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            found = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"Line {number} of {str(path)!r} is no record of server.forecasts ({error}).") from error
        rows += [(found.server, found.issued, hour.hour, *hour.probabilities) for hour in found.hours]
    kinds = [pa.string(), pa.int64(), pa.int64(), *[pa.float64()] * 3]
    columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]
    return pa.table(columns, ["server", "issued", "hour", *CLASSES])


def _latest(table: pa.Table) -> pa.Table:
    """Of each server the rows issued last; a forecast that was sent again counts once."""
    if "issued" not in table.column_names:
        return table
    last = table.group_by("server").aggregate([("issued", "max")])
    joined = table.join(last, "server")
    kept = joined.filter(pc.equal(joined["issued"], joined["issued_max"])).drop_columns(["issued", "issued_max"])
    return kept.group_by(kept.column_names).aggregate([])
