"""Session logs to hours and features on this machine: threads that read, DuckDB that sums; in bounded memory.

Five-minute sums of each batch go to a table on disk; then hours are made of it a stretch of time at a time, so that a
log of any length takes the same memory.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producers import logs
from producers.logs import REJECTS
from scorers.errors import ConfigError, InputError, UnavailableError
from scorers.forecast.features import DIV
from scorers.forecast.hours import BUCKETS, PEAKS, SESSIONS
from scorers.forecast.schema import HOUR_MS
from tidewatch.forecast.pieces import reading
from tidewatch.forecast.spec import Choice, Progress, Tally
from tidewatch.places import Found

DAY_MS = 24 * HOUR_MS
SUMMED = 500_000
"""Sessions that are summed at once."""
ROWS = 100_000
"""Rows that are written at once."""
STRETCH = 4_000_000
"""Rows of five-minute sums that hours are made of at once."""
MB = 1_000_000


class Local:
    """DuckDB in a folder of its own, with a limit to its memory such as ``2GB``."""

    def __init__(self, work: Path, memory: str) -> None:
        self._work = work
        self._threads = os.cpu_count() or 1
        config: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": str(work / "spill"),
            "threads": self._threads,
        }
        try:
            self._database = duckdb.connect(str(work / "etl.duckdb"), config=config)
        except duckdb.Error as error:
            raise ConfigError(
                f"--memory {memory} is no size that DuckDB knows ({error}); use one such as 2GB."
            ) from error

    def __enter__(self) -> Self:
        self._database.execute(DIV)
        self._database.execute("SET preserve_insertion_order = false")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def read(self, files: Sequence[Found], choice: Choice, rejects: Path, progress: Progress) -> Tally:
        """See :class:`Engine`."""
        tally = Tally()
        with _told(), ExitStack() as held:
            self._sum(SESSIONS.empty_table(), "CREATE TABLE sums AS")
            aside = _Rejects(rejects)
            held.callback(aside.close)
            waiting: list[pa.Table] = []
            for done in self._reads(files, progress):
                aside.write(done.rejects)
                waiting.append(count(tally, done, choice))
                if sum(map(len, waiting)) >= SUMMED:
                    self._sum(pa.concat_tables(waiting), "INSERT INTO sums")
                    waiting.clear()
            self._sum(pa.concat_tables([SESSIONS.empty_table(), *waiting]), "INSERT INTO sums")
            self._peaks(progress)
        return tally

    def days(self) -> list[int]:
        """See :class:`Engine`."""
        rows = self._database.execute(f"SELECT DISTINCT div(hour, {DAY_MS}) FROM peaks ORDER BY 1").fetchall()  # noqa: S608
        return [int(day) for (day,) in rows]

    def give(self, hours: Sequence[Path], since: int) -> list[int]:
        """See :class:`Engine`."""
        *_, last = names = [str(path) for path in hours]
        with _told():
            rows = "SELECT * FROM read_parquet($names) WHERE hour >= $since"
            self._database.execute(f"CREATE OR REPLACE TEMP TABLE hours AS {rows}", {"names": names, "since": since})
            rows = "SELECT server, hour FROM read_parquet($last)"
            self._database.execute(f"CREATE OR REPLACE TEMP TABLE targets AS {rows}", {"last": last})
            found = self._database.execute("SELECT DISTINCT hour FROM hours").fetchall()
        return [int(hour) for (hour,) in found]

    def calendar(self, table: pa.Table) -> None:
        """See :class:`Engine`."""
        self._database.register("calendar", table)

    def write(self, query: str, schema: pa.Schema, path: Path) -> None:
        """See :class:`Engine`."""
        with _told(), pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in self._database.sql(query).to_arrow_reader(ROWS):
                writer.write_batch(batch.cast(schema))

    def _reads(self, files: Sequence[Found], progress: Progress) -> Iterator[logs.Read]:
        """What is in the files, in their order; a few blocks are read ahead."""
        total, before = sum(file.size for file in files), 0
        ahead: deque[Future[logs.Read]] = deque()
        with ThreadPoolExecutor(self._threads) as threads:
            try:
                for file in files:
                    with reading(file.place) as (read, at):
                        for block in logs.blocks(read):
                            ahead.append(threads.submit(logs.read, block, str(file.place)))
                            if len(ahead) > self._threads:
                                yield ahead.popleft().result()
                            progress("reading MB", (before + at()) // MB, max(total // MB, 1))
                    before += file.size
                    progress("reading MB", before // MB, max(total // MB, 1))
                while ahead:
                    yield ahead.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _sum(self, sessions: pa.Table, into: str) -> None:
        self._database.register("sessions", sessions)
        self._database.execute(f"{into} {BUCKETS}")
        self._database.unregister("sessions")

    def _peaks(self, progress: Progress) -> None:
        """Make ``peaks``, a stretch of whole hours at a time."""
        found = self._database.execute(
            f"SELECT div(bucket, {HOUR_MS}) AS hour, count(*) FROM sums GROUP BY hour ORDER BY hour"  # noqa: S608
        ).fetchall()
        stretches = [(0, 0), *_stretches(found)]
        for done, (begin, end) in enumerate(stretches):
            progress("busiest minutes", done, len(stretches))
            rows = f"SELECT * FROM sums WHERE bucket >= {begin * HOUR_MS} AND bucket < {end * HOUR_MS}"  # noqa: S608
            self._database.execute(f"CREATE OR REPLACE TEMP VIEW buckets AS {rows}")
            self._database.execute(f"{'INSERT INTO' if done else 'CREATE TABLE'} peaks {'' if done else 'AS'} {PEAKS}")
        self._database.execute("DROP VIEW buckets; DROP TABLE sums")


def count(tally: Tally, done: logs.Read, choice: Choice) -> pa.Table:
    """Count what was read; the sessions that were chosen."""
    tally.lines += done.lines
    tally.blank += done.blank
    tally.rejects.update(done.rejects["reason"].to_pylist())
    within = choice.within(done.sessions)
    if len(done.sessions):
        tally.last = max(tally.last or 0, pc.max(done.sessions["start"]).as_py())
    if len(within):
        first = pc.min(within["start"]).as_py()
        tally.first = first if tally.first is None else min(tally.first, first)
        tally.busy.update((np.unique(within["start"].to_numpy() // HOUR_MS) * HOUR_MS).tolist())
    chosen = choice.chosen(within)
    tally.sessions += len(within)
    tally.chosen += len(chosen)
    return chosen


class _Rejects:
    """A Parquet file of lines that are no sessions; none where there are none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rejects.parquet"
        self._writer: Any = None

    def write(self, rejects: pa.Table) -> None:
        """Add some."""
        if len(rejects):
            self._writer = self._writer or pq.ParquetWriter(self._path, REJECTS, compression="zstd")
            self._writer.write_table(rejects)

    def close(self) -> None:
        """Finish the file."""
        if self._writer:
            self._writer.close()


def _stretches(counts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Hours ``[begin, end)`` with about so many rows each, of ``(hour, rows)`` in order."""
    begin, rows = None, 0
    for hour, more in counts:
        if begin is not None and rows + more > STRETCH:
            yield begin, hour
            begin, rows = None, 0
        begin, rows = hour if begin is None else begin, rows + more
    if begin is not None:
        yield begin, counts[-1][0] + 1


@contextmanager
def _told() -> Iterator[None]:
    """What DuckDB raises as an error of ours."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(f"DuckDB had too little memory ({_line(error)}); give --memory more.") from error
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise InputError(f"Loads add up to more than 9.2e12 ({_line(error)}); see what is wrong with them.") from error
    except (duckdb.IOException, OSError) as error:
        raise UnavailableError(f"The disk does not take it ({_line(error)}); see that it has room.") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
