"""Window statistics in files or a dataset, to tables of whole devices; more rows than memory holds may pass.

Input is what the Parquet sink writes: one row per device, window and metric.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from scorers.errors import InputError
from scorers.period import Period
from scorers.statistics import BLOCKS, Ints, Statistics

TASK_ROWS = 400_000
"""About so many rows are in a table."""
SORTING = "4GB"
"""Memory to sort in; what does not fit goes to disk."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a source holds of a period."""

    devices: int
    rows: int
    """One a device, window and metric."""
    since: int | None
    """End of the first window, epoch ms; None where there is none."""
    until: int | None
    """End of the last."""


def extent(source: Path | ds.Dataset, period: Period) -> Extent:
    """What is there of a period.

    Raises:
        InputError: no files, or files that are not statistics.
    """
    with opened(source) as database:
        moment = "epoch_ms(window_end)"
        wanted = f"count(DISTINCT device_id), count(*), min({moment}), max({moment})"
        found = database.execute(f"SELECT {wanted} {chosen_of(period)}").fetchall()
    return Extent(*found[0])


@contextmanager
def tables(
    source: Path | ds.Dataset, period: Period, done: Collection[str] = (), only: Collection[str] | None = None
) -> Iterator[tuple[int, Iterator[pa.Table]]]:
    """How many devices there are in ``source``, and their rows in tables of whole devices, sorted by device.

    Args:
        source: window statistics, or a folder of Parquet files; names that start with ``_`` or ``.`` are ignored.
        period: which windows.
        done: devices to leave out.
        only: devices to read; all by default.

    Raises:
        InputError: no files, or files that are not statistics; also while tables are taken.
    """
    with opened(source) as database:
        for name, some in (("done", done), ("wanted", only or ())):
            database.register(name, pa.table({"device": pa.array(list(some), pa.string())}))
        chosen = chosen_of(period) + " AND device_id NOT IN (FROM done)"
        chosen += "" if only is None else " AND device_id IN (FROM wanted)"
        names = _named(database, chosen)
        used = ", ".join(BLOCKS)
        joined = f"FROM (SELECT device_id, metric, window_end, {used} {chosen}) "
        joined += "JOIN devices USING (device_id) JOIN metrics USING (metric)"
        columns = f"device, epoch_ms(window_end) AS window_end, label, {used}"
        rows = database.sql(f"SELECT {columns} {joined} ORDER BY device").to_arrow_reader(TASK_ROWS)
        yield len(names[0]), whole((_spelt(batch, *names) for batch in rows), "device_id")


def _named(database: duckdb.DuckDBPyConnection, chosen: str) -> tuple[pa.Array, pa.Array]:
    """The devices and the metrics there are, as tables that number them: numbers are sorted twice as fast as names."""
    database.execute(f"CREATE TEMP TABLE named AS SELECT DISTINCT device_id, metric {chosen}")
    names = []
    for table, column, number in (("devices", "device_id", "device"), ("metrics", "metric", "label")):
        there = f"FROM named WHERE {column} IS NOT NULL"
        known = database.sql(f"SELECT DISTINCT {column} {there} ORDER BY 1").to_arrow_table()
        database.register(table, known.append_column(number, pa.array(np.arange(len(known), dtype=np.uint32))))
        names.append(known[column].combine_chunks())
    return names[0], names[1]


def _spelt(batch: pa.RecordBatch, devices: pa.Array, metrics: pa.Array) -> pa.RecordBatch:
    """Names in place of their numbers."""
    named = batch.set_column(0, "device_id", devices.take(batch["device"]))
    return named.set_column(2, "metric", metrics.take(batch["label"]))


@runtime_checkable
class Pinned(Protocol):
    """A dataset whose files DuckDB may read itself, in a fifth of the time that it takes through pyarrow (ADR 63)."""

    def pinned(self) -> AbstractContextManager[dict[str, str] | None]:
        """For each file a path at which it is for the length of the block; None where it must be read as a dataset."""


@contextmanager
def opened(source: Path | ds.Dataset) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the rows as ``source``, and room on disk for what memory does not hold; errors as of ``tables``."""
    if not _names(source):
        raise InputError(
            f"There are no Parquet files under {_called(source)}; let the Parquet sink write some, or name its folder."
        )
    with tempfile.TemporaryDirectory() as spill:
        config: dict[str, Any] = {"temp_directory": spill, "memory_limit": SORTING}
        with duckdb.connect(config=config) as database, attached(database, "source", source):
            yield database


@contextmanager
def attached(database: duckdb.DuckDBPyConnection, name: str, source: Path | ds.Dataset) -> Iterator[None]:
    """Have the rows of a source as a table of that name for the length of the block.

    Raises:
        InputError: files do not hold what they should; also while they are read.
    """
    with _files(source) as files:
        try:
            if files:
                database.read_parquet(list(files.values()), hive_partitioning=False).create_view(name)
                yield
                database.execute(f'DROP VIEW "{name}"')
            else:
                database.register(name, source)
                yield
                database.unregister(name)
        except duckdb.Error as error:
            why = _told(error, files or {})
            raise InputError(
                f"{_called(source)} does not hold what it should ({why}); name a folder the Parquet sink wrote."
            ) from error


@contextmanager
def _files(source: Path | ds.Dataset) -> Iterator[dict[str, str] | None]:
    """Where DuckDB is to read each file; None where it is to read the dataset."""
    if isinstance(source, Path):
        yield {name: name for name in _names(source)}
    elif isinstance(source, Pinned):
        with source.pinned() as files:
            yield files
    else:
        yield None


def _names(source: Path | ds.Dataset) -> list[str]:
    if isinstance(source, Path):
        return [str(file) for file in sorted(source.rglob("*.parquet")) if not _hidden(file.relative_to(source))]
    return list(source.files)


def _called(source: Path | ds.Dataset) -> str:
    return str(source) if isinstance(source, Path) else "The dataset"


def _told(error: Exception, files: Mapping[str, str]) -> str:
    """What an error says, with files as people know them."""
    said = str(error)
    for name, path in files.items():
        said = said.replace(f'"{path}"', f'"{name}"').replace(f"'{path}'", f"'{name}'")
    return said


def _hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)


def chosen_of(period: Period) -> str:
    """SQL for the rows of a period."""
    return f"FROM source WHERE {_filter(period)}"


def _filter(period: Period) -> str:
    """A condition on ``window_end``."""
    terms = ["true"]
    terms += [f"epoch_ms(window_end) >= {int(period.since)}"] if period.since is not None else []
    terms += [f"epoch_ms(window_end) < {int(period.until)}"] if period.until is not None else []
    terms += [f"NOT epoch_ms(window_end) BETWEEN {int(since)} AND {int(until) - 1}" for since, until in period.excluded]
    return " AND ".join(terms)


def whole(batches: Iterable[pa.RecordBatch], column: str) -> Iterator[pa.Table]:
    """Tables that end where a device (or what else is in ``column``) ends, from batches sorted by it.

    They hold their rows alone, and not the batches that these are a part of: they are to go to other processes.
    """
    held: list[pa.RecordBatch] = []
    for batch in batches:
        start = int(pc.index(batch[column], batch[column][-1]).as_py())  # where the last one begins
        if start:
            yield _joined([*held, batch.slice(0, start)])
            held = []
        elif held and held[-1][column][-1] != batch[column][0]:
            yield _joined(held)
            held = []
        held.append(batch.slice(start))
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches([pa.concat_batches(batches)])


def windows(rows: pa.Table) -> tuple[Statistics, Ints]:
    """One device's long rows as statistics, with the end of each window."""
    ends, window = np.unique(rows["window_end"].to_numpy(), return_inverse=True)
    return pivoted(rows, window, len(ends)), ends


def pivoted(rows: pa.Table, window: Ints, many: int) -> Statistics:
    """Long rows as the statistics of ``many`` windows; ``window`` is which of them each row is of, shape (rows,)."""
    metrics = rows["metric"].combine_chunks().dictionary_encode()
    place = window, metrics.indices.to_numpy()
    blocks: dict[str, Any] = {}
    for name in BLOCKS:
        blank: Any = np.int64(0) if name == "count" else np.nan
        blocks[name] = np.full((many, len(metrics.dictionary)), blank)
        blocks[name][place] = rows[name].to_numpy()
    return Statistics(tuple(metrics.dictionary.to_pylist()), **blocks)


def devices(table: pa.Table, column: str = "device_id") -> Iterator[tuple[str, pa.Table]]:
    """Each device (or what else is in ``column``) of a table that is sorted by it, with its rows."""
    ends = pc.run_end_encode(table[column].combine_chunks())
    edges = [0, *ends.run_ends.to_pylist()]
    for device, first, last in zip(ends.values.to_pylist(), edges, edges[1:], strict=False):
        yield device, table.slice(first, last - first)


def halves(table: pa.Table, column: str = "device_id") -> list[pa.Table]:
    """A table that is sorted by ``column`` in two, each device whole; itself alone where it has but one."""
    parts = [rows for _, rows in devices(table, column)]
    half = len(parts) // 2
    return [pa.concat_tables(some) for some in (parts[:half], parts[half:]) if some]
