"""Statistics that were written before, by the Parquet sink or by a batch: scored again without windowing again.

The first stage cuts files by shard; the second sorts a shard by time (DuckDB, on disk where memory is short) and hands
its windows to what says all about closed windows in the stream.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scorers.errors import InputError
from scorers.fleet import Fleet
from scorers.source import pivoted
from scorers.statistics import BLOCKS
from sinks.folder import misfit
from stream.message import Output
from stream.names import Names
from stream.outcome import Outcomes
from stream.texts import Texts
from stream.window import Closed
from tidewatch.batch.spec import Plan, Result
from tidewatch.places import Found, fetched

ROWS = 65_536
WINDOW = ("source", "window_end", "window_start", "device_id")
"""A window, in the order of the second stage."""


def spool(plan: Plan, task: tuple[int, Found]) -> Result:
    """Cut one file of statistics, or of predictions (for how many readings a window had), by shard.

    Raises:
        InputError: it is no such file.
        Cancelled: the job is to stop.
    """
    number, file = task
    folder = plan.work / "runs" / f"{number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[int, pq.ParquetWriter] = {}
    rows = 0
    with fetched(file.place, plan.work / "fetched" / f"{number:06d}") as path:
        try:
            with pq.ParquetFile(path) as opened:
                table = _table(opened.schema_arrow)
                kept = [*WINDOW, *(("metric", *BLOCKS) if table == "statistics" else ("count",))]
                for batch in opened.iter_batches(ROWS, columns=kept):
                    plan.check()
                    rows += len(batch)
                    for shard, part in _cut(plan, pa.Table.from_batches([batch])):
                        if shard not in writers:
                            target = folder / f"{shard:05d}.parquet"
                            writers[shard] = pq.ParquetWriter(target, part.schema, compression="zstd")
                        writers[shard].write_table(part)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.place} cannot be read ({str(error).splitlines()[0]}); leave it out.") from error
        finally:
            for writer in writers.values():
                writer.close()
    made = [{"file": f"{shard:05d}.parquet", "shard": shard, "table": table} for shard in writers]
    return {"rows": rows, "readings": 0, "runs": made, "rejects": 0}


def _table(schema: pa.Schema) -> str:
    for table in ("statistics", "predictions"):
        if misfit(table, schema) is None:
            return table
    raise InputError("has the columns neither of statistics nor of predictions; leave it out.")


def _cut(plan: Plan, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The rows asked for, by shard."""
    ends = table["window_end"].cast(pa.int64()).to_numpy()
    first = plan.span.first(0)
    wanted = (ends >= first) & (ends < plan.span.until)
    device = table["device_id"].combine_chunks().dictionary_encode()
    ids = device.dictionary.to_pylist()
    shard = np.array([plan.shard(name) if plan.choice.takes(name) else -1 for name in ids], np.int64)
    which = np.where(wanted, shard[device.indices.to_numpy()], -1) if len(ids) else np.empty(0, np.int64)
    for number in np.unique(which[which >= 0]).tolist():
        yield number, table.filter(pa.array(which == number))


def windows(
    plan: Plan, runs: Sequence[Mapping[str, Any]], fleet: Fleet, some: Collection[str] | None
) -> Iterator[list[Output]]:
    """The scores and alerts of a shard's windows, in order of time."""
    known: dict[str, tuple[Names, Outcomes]] = {}
    for table in _whole(_sorted(plan, runs, some)):
        for source in table["source"].unique().to_pylist():
            if source not in known:
                names = Names()
                topics = plan.topics
                sums = source == topics.sessions
                known[source] = names, Outcomes(source, topics, plan.stream.alert, plan.stream.follow, names, sums=sums)
                known[source][1].use(fleet)
            yield known[source][1].tell(_closed(table.filter(pc.equal(table["source"], source)), *known[source]))


def names(plan: Plan, runs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Every device of a shard."""
    found: set[str] = set()
    for path in _paths(plan, runs, "statistics"):
        found.update(pq.read_table(path, columns=["device_id"])["device_id"].unique().to_pylist())
    return found


def _paths(plan: Plan, runs: Sequence[Mapping[str, Any]], table: str) -> list[str]:
    return [str(plan.work / run["path"]) for run in runs if run["table"] == table]


def _sorted(plan: Plan, runs: Sequence[Mapping[str, Any]], some: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    """Rows by window, with how many readings the window had: what its prediction says, else its fullest metric's."""
    statistics, predictions = (_paths(plan, runs, table) for table in ("statistics", "predictions"))
    if not statistics:
        return
    keys, blocks = ", ".join(WINDOW), ", ".join(f"s.{name}" for name in BLOCKS)
    counts = f"(SELECT {keys}, max(count) AS readings FROM read_parquet($predictions) GROUP BY ALL)"  # noqa: S608 - of our own words
    joined = f"LEFT JOIN {counts} p USING ({keys})" if predictions else ""
    readings = "p.readings" if predictions else "NULL::BIGINT AS readings"
    chosen = "WHERE list_contains($some, device_id)" if some is not None else ""
    query = f"""
SELECT source, device_id, epoch_ms(window_start) AS window_start, epoch_ms(window_end) AS window_end, metric,
    {blocks}, {readings}
FROM read_parquet($statistics) s {joined} {chosen} ORDER BY {keys}, metric
"""  # noqa: S608 - likewise
    asked: dict[str, Any] = {"statistics": statistics}
    asked |= {"predictions": predictions} if predictions else {}
    asked |= {"some": sorted(some)} if some is not None else {}
    limits: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(plan.work / "sorting"),
        "memory_limit": f"{max(1, plan.memory // 2**20)}MiB",
        "threads": 1,
    }
    with duckdb.connect(config=limits) as database:
        yield from database.sql(query, params=asked).to_arrow_reader(ROWS)


def _whole(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables that end where a window ends."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not len(batch):
            continue
        same = np.ones(len(batch), np.bool_)
        for name in WINDOW:
            same &= pc.equal(batch[name], batch[name][-1]).to_numpy(zero_copy_only=False)
        begin = 0 if same.all() else int(len(batch) - np.argmin(same[::-1]))
        if begin or (held and not _goes_on(held[-1], batch)):
            yield pa.Table.from_batches([*held, batch.slice(0, begin)])
            held = []
        held.append(batch.slice(begin))
    if held:
        yield pa.Table.from_batches(held)


def _goes_on(before: pa.RecordBatch, after: pa.RecordBatch) -> bool:
    return all(before[name][-1] == after[name][0] for name in WINDOW)


def _closed(rows: pa.Table, names: Names, outcomes: Outcomes) -> Closed:
    """Long rows of one source, sorted by window, as windows that share their metrics."""
    device = rows["device_id"].combine_chunks().dictionary_encode()
    start, end = (rows[name].to_numpy() for name in ("window_start", "window_end"))
    code = device.indices.to_numpy()
    fresh = np.append(True, (np.diff(start) != 0) | (np.diff(end) != 0) | (np.diff(code) != 0))
    window, first = np.cumsum(fresh) - 1, np.flatnonzero(fresh)
    statistics = pivoted(rows, window, len(first))
    numbers = names.enter(Texts.of([text.encode() for text in device.dictionary.to_pylist()]))
    outcomes.meet()
    fullest = statistics.count.max(axis=1)
    told = rows["readings"].to_numpy()[first].astype(np.float64)
    count = np.where(np.isnan(told), fullest, told).astype(np.int64)
    return Closed(numbers[code[first]], start[first], end[first], count, statistics)
