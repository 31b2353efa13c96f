"""Folders of many small files, and what is seen in them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from sinks.base import Origin, Source
from sinks.compact import Compaction, CompactSpec, compact
from sinks.disk import Disk
from sinks.parquet import ParquetSink, ParquetSpec
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, Log, batch, encoded, score

SOURCE = Source(TOPICS.scores, 3)
HERE = Origin(ORIGIN.cluster, {TOPICS.scores: "id-1"})
LATER = 2**33
"""A moment when nothing that was replaced has to be kept."""
DAY = "date=2023-11-15"


def values(first: int, count: int) -> list[bytes]:
    """One record an offset, of two dates, every seventh a reject."""
    scores = encoded(
        [score(f"pump-{n % 3}", hour=12 * (n % 2), value=1.5 + n / 64) for n in range(first, first + count)]
    )
    return [b"junk" if n % 7 == 6 else value for n, value in enumerate(scores, first)]


def fill(folder: Path, *, first: int = 0, count: int = 24, source: Source = SOURCE) -> None:
    """Write files of two records each."""
    log: Log = {source: [b""] * first + values(first, count)}
    sink = ParquetSink(ParquetSpec(folder), TOPICS)
    sink.bind(HERE)
    sink.resume(source)
    for offset in range(first, first + count, 2):
        sink.write(batch(log, source, offset, offset + 2))
        sink.flush(NOW, force=True)
    sink.close()


def specified(folder: Path, **changes: Any) -> CompactSpec:
    spec = CompactSpec(ParquetSpec(folder, row_group_rows=5), min_files=2, settle_s=0, keep_s=0)
    return replace(spec, **changes)


def compacted(folder: Path, *, disk: Disk | None = None, now: float = NOW, **changes: Any) -> Compaction:
    return compact(specified(folder, **changes), now, disk=disk or Disk())


def names(folder: Path, pattern: str = "*/**/*") -> list[str]:
    """What lies in tables, by path."""
    found = (path.relative_to(folder) for path in folder.glob(pattern) if not path.is_dir())
    return sorted(str(path) for path in found if not str(path).startswith("_"))


def plain(folder: Path) -> list[tuple[Any, ...]]:
    """What DuckDB sees that knows nothing of us, a row for each row of each table."""
    found: list[tuple[Any, ...]] = []
    for table, more in (("predictions", "device_id"), ("statistics", "metric"), ("rejects", "reason")):
        query = f"SELECT '{table}', kafka_partition, kafka_offset, {more} FROM '{folder}/{table}/**/*.parquet'"
        found += duckdb.execute(query).fetchall()
    return sorted(found)


def readable(folder: Path) -> list[tuple[Any, ...]] | None:
    """What a plain reader sees; None where it fails, as it must only while there is a notice."""
    with suppress(duckdb.InvalidInputException):  # no magic bytes
        return plain(folder)
    return None


class Before(Disk):
    """Calls ``hook`` once, just before it first does ``operation``."""

    def __init__(self, operation: str, hook: Callable[[], None]) -> None:
        self.waiting = [hook]
        self.operation = operation

    def _hook(self, operation: str) -> None:
        if operation == self.operation and self.waiting:
            self.waiting.pop()()

    def exchange(self, path: Path, target: Path) -> None:
        if "trial" not in str(path):
            self._hook("exchange")
        super().exchange(path, target)

    def write(self, path: Path, content: Any) -> None:
        if path.name.startswith("merged-"):
            self._hook("write")
        super().write(path, content)
