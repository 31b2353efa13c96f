"""The first stage: a file of readings to runs on disk, cut by shard of devices and in order of time.

A run is a stretch of a file that is sorted: a file in order of time is one run, any other is sorted a buffer at a
time (external merge sort; Knuth, vol. 3, 5.4). What is read is in memory a buffer at the most.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from producers.columns import Columns, Rows, concat, sift
from producers.formats import Tally, read
from producers.recordings import recording
from scorers.errors import InputError
from scorers.statistics import Flags, Ints
from sinks.table import REJECTS
from stream.contracts import Reason
from tidewatch.batch.spec import Plan, Result
from tidewatch.places import Found, fetched

ROWS = 65_536
"""Rows of a chunk that is read."""
SLICE = 8_192
"""Rows of a chunk that is kept, and fed."""
ROW_BYTES = 64
"""Of a row's time, device and the lists they are in, about."""
LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")
WHY = {
    Reason.BAD_TIMESTAMP: "no time between 1980 and 2199",
    Reason.MISSING_FIELD: "no device",
    Reason.NO_VALUES: "no number in any metric",
    Reason.MALFORMED: "cannot be taken apart",
}


def spool(plan: Plan, task: tuple[int, Found]) -> Result:
    """Read one file; its runs, and how many rows of it were read, unfit or left out.

    Raises:
        InputError: it cannot be read.
        Cancelled: the job is to stop.
    """
    number, file = task
    folder = plan.work / "runs" / f"{number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    with fetched(file.place, plan.work / "fetched" / f"{number:06d}") as path, ExitStack() as stack:
        (part,) = recording(path, plan.columns).parts
        unfit = stack.enter_context(Unfit(folder / "rejects.parquet", str(file.place)))
        runs = stack.enter_context(Runs(plan, folder, narrow=part.columns.narrow))
        for rows, metrics in _chunks(plan, path, part.columns, unfit):
            plan.check()
            runs.add(rows, metrics)
    return {
        "rows": unfit.rows + unfit.torn,
        "readings": runs.rows,
        "narrow": part.columns.narrow,
        "runs": runs.made,
        "rejects": sum(unfit.tally.rows.values()),
        "reasons": {str(reason): count for reason, count in unfit.tally.rows.items()},
        "cells": {str(reason): count for reason, count in unfit.tally.cells.items()},
    }


def _chunks(plan: Plan, path: Path, columns: Columns, unfit: "Unfit") -> Iterator[tuple[Rows, tuple[str, ...]]]:
    """The readings asked for, in the order of the file, and their metrics."""
    first, until = plan.span.first(plan.stream.window.size_ms), plan.span.until

    @lru_cache(maxsize=1 << 20)
    def chosen(device: str) -> bool:
        return plan.choice.takes(device)

    known: dict[str, None] = dict.fromkeys(columns.metrics or ())
    for table in read(path, columns.wanted, rows=ROWS, tally=unfit.tally):
        if columns.metric is not None:
            known |= dict.fromkeys(table[columns.metric].cast(pa.string()).unique().drop_null().to_pylist())
        metrics = tuple(known)
        rows, masks = sift(table, columns, metrics, unfit.tally)
        unfit.add(table, masks)
        wanted = (rows.ts >= first) & (rows.ts < until)
        if plan.choice.patterns:
            wanted &= np.fromiter(map(chosen, rows.device), np.bool_, len(rows))
        yield (rows if wanted.all() else rows.take(wanted)), metrics


class Unfit:
    """The rows of a file that hold no reading: counted, and kept with their original."""

    def __init__(self, path: Path, name: str) -> None:
        self.tally = Tally(keep=self._keep)
        self.rows = self.torn = 0
        """Read so far, and those that could not be taken apart."""
        self._path = path
        self._name = name
        self._torn: list[bytes] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write([(None, text, Reason.MALFORMED) for text in self._torn])
        if self._writer is not None:
            self._writer.close()

    def _keep(self, original: bytes) -> None:
        self._torn.append(original)
        self.torn += 1

    def add(self, table: pa.Table, masks: dict[Reason, Flags]) -> None:
        """Keep those of a chunk; the number of a row is its place among those that could be taken apart."""
        found: list[tuple[int | None, bytes, Reason]] = [(None, text, Reason.MALFORMED) for text in self._torn]
        for reason, mask in masks.items():
            at = np.flatnonzero(mask)
            if len(at):
                originals = [msgspec.json.encode(row, enc_hook=str) for row in table.take(at).to_pylist()]
                found += [(self.rows + int(row), text, reason) for row, text in zip(at, originals, strict=True)]
        self._write(found)
        self._torn.clear()
        self.rows += len(table)

    def _write(self, found: list[tuple[int | None, bytes, Reason]]) -> None:
        if not found:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, REJECTS, compression="zstd")
        self._writer.write_table(
            pa.table(
                {
                    "kafka_topic": [self._name] * len(found),
                    "kafka_partition": pa.nulls(len(found), pa.int32()),
                    "kafka_offset": pa.array([row for row, _, _ in found], pa.int64()),
                    "value": pa.array([text for _, text, _ in found], pa.binary()),
                    "reason": [f"{reason}: {WHY[reason]}" for _, _, reason in found],
                },
                schema=REJECTS,
            )
        )


class Runs:
    """The runs of one file; a run has a file for each shard."""

    def __init__(self, plan: Plan, folder: Path, *, narrow: bool) -> None:
        self.made: list[dict[str, Any]] = []
        """File, shard, metrics, and the time of the first reading."""
        self.rows = 0
        self._plan = plan
        self._folder = folder
        self._narrow = narrow
        self._held: list[Rows] = []
        self._bytes = 0
        self._metrics: tuple[str, ...] = ()
        self._last = 0
        self._run = -1
        self._open: dict[int, tuple[pa.RecordBatchStreamWriter, dict[str, Any]]] = {}
        self._shard = lru_cache(maxsize=1 << 20)(plan.shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._spill()
        self._close()

    def add(self, rows: Rows, metrics: tuple[str, ...]) -> None:
        """Take in a chunk."""
        if not len(rows):
            return
        if metrics != self._metrics:
            self._spill()
            self._metrics = metrics
        self._held.append(rows)
        self.rows += len(rows)
        self._bytes += len(rows) * (ROW_BYTES + 8 * len(metrics))
        if self._in_order(rows) or self._bytes >= self._plan.memory // 4:
            self._spill()

    def _in_order(self, rows: Rows) -> bool:
        """Whether there is nothing to sort: what waits goes on where the run ends."""
        goes_on = self._run < 0 or rows.ts[0] >= self._last
        return len(self._held) == 1 and goes_on and bool((np.diff(rows.ts) >= 0).all())

    def _spill(self) -> None:
        """Write what waits, sorted: at the end of the run where it fits there, else as a run of its own."""
        if not self._held:
            return
        rows = concat(self._held)
        self._held, self._bytes = [], 0
        rows = rows.take(np.argsort(rows.ts, kind="stable"))
        if self._run < 0 or rows.ts[0] < self._last:
            self._close()
            self._run += 1
        self._last = int(rows.ts[-1])
        shards = np.fromiter(map(self._shard, rows.device), np.int64, len(rows))
        for shard in np.unique(shards).tolist():
            self._write(shard, rows.take(shards == shard))

    def _write(self, shard: int, rows: Rows) -> None:
        batch = pack(rows, self._metrics, narrow=self._narrow)
        if shard not in self._open:
            name = f"{self._run:05d}-{shard:05d}.arrows"
            writer = pa.ipc.new_stream(str(self._folder / name), batch.schema, options=LZ4)
            entry = {"file": name, "shard": shard, "first": int(rows.ts[0]), "metrics": []}
            self._open[shard] = writer, entry
            self.made.append(entry)
        writer, entry = self._open[shard]
        entry["metrics"] = list(self._metrics)
        for low in range(0, len(batch), SLICE):
            writer.write_batch(batch.slice(low, SLICE))

    def _close(self) -> None:
        for writer, _ in self._open.values():
            writer.close()
        self._open.clear()


def pack(rows: Rows, metrics: Sequence[str], *, narrow: bool) -> pa.RecordBatch:
    """Rows as Arrow; narrow ones keep their one value and its name."""
    device = pa.array(rows.device, pa.string()).cast(pa.dictionary(pa.int32(), pa.string()))
    columns: list[Any] = [pa.array(rows.ts), device]
    if not narrow:
        columns += [pa.array(np.ascontiguousarray(column)) for column in rows.matrix.T]
        return pa.RecordBatch.from_arrays(columns, ["ts", "device", *(f"v{place}" for place in range(len(metrics)))])
    metric = np.argmax(~np.isnan(rows.matrix), axis=1)
    names = pa.DictionaryArray.from_arrays(pa.array(metric.astype(np.int32)), pa.array(list(metrics), pa.string()))
    value = rows.matrix[np.arange(len(rows)), metric]
    return pa.RecordBatch.from_arrays(
        [*columns, names.cast(pa.string()), pa.array(value)], ["ts", "device", "metric", "value"]
    )


def unpack(path: Path, metrics: Sequence[str], place: dict[str, int], rows: int = SLICE) -> Iterator[Rows]:
    """The rows of a run's file, with the columns of ``place``."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as file:
        for batch in file:
            for low in range(0, len(batch), rows):
                yield _rows(batch.slice(low, rows), metrics, place)


def _rows(batch: pa.RecordBatch, metrics: Sequence[str], place: dict[str, int]) -> Rows:
    ts: Ints = batch["ts"].to_numpy(zero_copy_only=False).copy()
    device = batch["device"]
    names = np.array(device.dictionary.to_pylist(), dtype=object)
    matrix = np.full((len(batch), len(place)), np.nan)
    if "metric" in batch.schema.names:
        which = [place[name] for name in batch["metric"].to_pylist()]
        matrix[np.arange(len(batch)), which] = batch["value"].to_numpy(zero_copy_only=False)
    else:
        for column, name in enumerate(metrics):
            matrix[:, place[name]] = batch[f"v{column}"].to_numpy(zero_copy_only=False)
    return Rows(ts, names[device.indices.to_numpy()], matrix)


def together(results: Sequence[Result]) -> bool:
    """Whether readings have one metric a row.

    Raises:
        InputError: some files do and others do not.
    """
    forms = {bool(result["narrow"]) for result in results if "narrow" in result}
    if len(forms) > 1:
        raise InputError("Some files hold one metric a row and others many; score them apart.")
    return forms == {True}
