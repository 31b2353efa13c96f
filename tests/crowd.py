"""Processes around one Parquet folder: a sink that writes, compactions, and readers that check what they see."""

import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from scorers.errors import UnavailableError
from sinks.base import Batch, Origin, Source
from sinks.compact import CompactSpec, compact
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from tests.laws.sink_kit import NOW, TOPICS, encoded, score

SOURCE = Source(TOPICS.scores, 0)
TWICE = "twice"
MISSING = "missing"
PATIENCE_S = 60.0


def write(folder: Path, stop: Event, visible: "Synchronized[int]") -> None:
    """Write three windows a file, of two dates; ``visible`` tells up to which offset rows can be read."""
    sink = ParquetSink(ParquetSpec(folder), TOPICS)
    sink.bind(Origin("c", {TOPICS.scores: None}))
    offset = sink.resume(SOURCE)
    while not stop.is_set():
        scores = [score(f"pump-{n % 4}", 12 * (n % 2)) for n in range(offset, offset + 3)]
        sink.write(Batch(SOURCE, range(offset, offset + 3), encoded(scores)))
        offset = sink.flush(NOW, force=True)[SOURCE]
        visible.value = offset
        time.sleep(0.005)
    sink.close()


def merge(folder: Path, rounds: int) -> None:
    """Compact again and again; one killed just before may hold its lock for a moment on a machine under load."""
    spec = CompactSpec(ParquetSpec(folder), min_files=2, keep_s=5, tables=("predictions",))
    patience = time.monotonic() + PATIENCE_S
    while rounds:
        try:
            compact(spec, time.time())
        except UnavailableError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.05)
        else:
            rounds -= 1


def with_dataset(folder: Path) -> list[int]:
    """Offsets, read by us."""
    column: pa.ChunkedArray = dataset(folder, "predictions").to_table(columns=["kafka_offset"])["kafka_offset"]
    return list(column.to_pylist())


def with_duckdb(folder: Path) -> list[int]:
    """Offsets, read by DuckDB."""
    query = f"SELECT kafka_offset FROM '{folder}/predictions/**/*.parquet'"
    return [offset for (offset,) in duckdb.execute(query).fetchall()]


def with_pandas(folder: Path) -> list[int]:
    """Offsets, read by pandas and pyarrow."""
    return list(pd.read_parquet(folder / "predictions", columns=["kafka_offset"])["kafka_offset"])


def read(
    folder: Path,
    how: Callable[[Path], list[int]],
    stop: Event,
    visible: "Synchronized[int]",
    told: "Queue[tuple[str, Counter[str]]]",
) -> None:
    """Read again and again, and count what came of it, by the name of an error where there was one."""
    seen: Counter[str] = Counter()
    while not stop.is_set():
        least = visible.value
        try:
            offsets = how(folder)
        except (OSError, pa.ArrowInvalid, duckdb.Error) as error:
            seen[type(error).__name__] += 1
            continue
        held = set(offsets)
        seen["right"] += len(held) == len(offsets) and held.issuperset(range(least))
        seen[TWICE] += len(held) != len(offsets)
        seen[MISSING] += not held.issuperset(range(least))
    told.put((how.__name__, seen))
