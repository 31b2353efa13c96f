"""Session logs to hours and features on Apache Spark: the same reader and the same SQL as here.

Files are read in pieces by Spark's Python processes, which must see them under the same names, and the folder too.
Needs the extra ``spark``; import it where it is asked for.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from producers import logs
from producers.logs import REJECTS
from scorers.forecast.hours import BUCKETS, PEAKS, SESSIONS
from scorers.forecast.schema import HOUR_MS, HOURS
from tidewatch.engines import Spark
from tidewatch.forecast.local import DAY_MS, reading
from tidewatch.forecast.spec import Choice, Progress, Tally
from tidewatch.places import Found, Place
from tidewatch.spark import session

from pyspark.sql import DataFrame, SparkSession  # isort: skip - tidewatch.spark says what to install

PIECE = 64 * 1024 * 1024
"""Bytes of a file that are read as one task; a packed file is one."""
SHUFFLED = 128 * 1024 * 1024
"""Bytes of logs to a partition of what is summed."""
PARSED = pa.schema([*SESSIONS, *REJECTS, pa.field("blank", pa.int64())])
"""A session, or a reject where there is a reason, or else how many loads of a block were blank."""
TYPES = {pa.string(): "string", pa.int64(): "bigint", pa.binary(): "binary", pa.int32(): "int", pa.float64(): "double"}


@contextmanager
def engine(given: Spark, work: Path) -> Iterator["OnSpark"]:
    """Spark under these settings, with a folder of its own; errors as of :func:`tidewatch.spark.session`."""
    with session(given) as spark:
        yield OnSpark(spark, work)


def ddl(schema: pa.Schema) -> str:
    """A schema as Spark writes it."""
    return ", ".join(f"`{field.name}` {TYPES[field.type]}" for field in schema)


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of a file that begin in ``[begin, end)``."""

    place: Place
    begin: int
    end: int | None


class OnSpark:
    """Spark as an engine; see :class:`tidewatch.forecast.spec.Engine`."""

    def __init__(self, spark: SparkSession, work: Path) -> None:
        self._spark = spark
        self._work = work

    def read(self, files: Sequence[Found], choice: Choice, rejects: Path, progress: Progress) -> Tally:
        """See :class:`Engine`."""
        cores = self._spark.sparkContext.defaultParallelism
        size = sum(file.size for file in files)
        self._spark.conf.set("spark.sql.shuffle.partitions", str(max(2 * cores, size // SHUFFLED)))
        progress("reading", 0, 2)
        pieces = [piece for file in files for piece in _pieces(file)]
        lots = self._spark.sparkContext.parallelize(range(len(pieces)), len(pieces)).map(lambda place: (place,))
        rows = self._spark.createDataFrame(lots, "place int").mapInArrow(partial(_parse, pieces), ddl(PARSED))
        parsed = self._kept(rows, "parsed")
        progress("reading", 1, 2)
        within = parsed.where("server IS NOT NULL").select(*SESSIONS.names)
        tally = _tally(parsed, within, choice)
        chosen = _in_time(within, choice)
        if choice.servers:
            chosen = chosen.where(chosen["server"].isin(*sorted(choice.servers)))
        tally.chosen = chosen.count()
        chosen.createOrReplaceTempView("sessions")
        self._spark.sql(BUCKETS).createOrReplaceTempView("buckets")
        self._kept(self._spark.sql(PEAKS), "peaks").createOrReplaceTempView("peaks")
        self._aside(parsed, tally, rejects)
        progress("reading", 2, 2)
        return tally

    def days(self) -> list[int]:
        """See :class:`Engine`."""
        rows = self._spark.sql(f"SELECT DISTINCT div(hour, {DAY_MS}) AS day FROM peaks ORDER BY day")  # noqa: S608
        return [row.day for row in rows.collect()]

    def give(self, hours: Sequence[Path], since: int) -> list[int]:
        """See :class:`Engine`."""
        known = self._rows(*hours).where(f"hour >= {since}")
        known.createOrReplaceTempView("hours")
        self._rows(hours[-1]).select("server", "hour").createOrReplaceTempView("targets")
        return [row.hour for row in known.select("hour").distinct().collect()]

    def calendar(self, table: pa.Table) -> None:
        """See :class:`Engine`."""
        self._spark.createDataFrame(table, ddl(table.schema)).createOrReplaceTempView("calendar")

    def write(self, query: str, schema: pa.Schema, path: Path) -> None:
        """See :class:`Engine`."""
        rows = self._spark.sql(query).select(*schema.names)
        self._one(rows.coalesce(1).sortWithinPartitions("server", "hour"), path)

    def _rows(self, *paths: Path) -> DataFrame:
        return self._spark.read.schema(ddl(HOURS)).parquet(*map(_address, paths))

    def _kept(self, rows: DataFrame, name: str) -> DataFrame:
        """The same, from disk."""
        folder = _address(self._work / name)
        rows.write.parquet(folder)
        return self._spark.read.schema(rows.schema).parquet(folder)

    def _aside(self, parsed: DataFrame, tally: Tally, rejects: Path) -> None:
        if tally.rejects:
            rows = parsed.where("reason IS NOT NULL").select(*REJECTS.names)
            self._one(rows.coalesce(1).sortWithinPartitions("file", "offset"), rejects / "rejects.parquet")

    def _one(self, rows: DataFrame, path: Path) -> None:
        """Write one partition to one file."""
        folder = self._work / "one"
        rows.write.mode("overwrite").option("compression", "zstd").parquet(_address(folder))
        files = list(folder.glob("*.parquet"))
        if files:
            shutil.move(files[0], path)
        else:
            pq.write_table(HOURS.empty_table(), path)
        shutil.rmtree(folder)


def _pieces(file: Found) -> Iterator[Piece]:
    if file.place.name.endswith(".gz"):
        yield Piece(file.place, 0, None)
        return
    begins = range(0, max(file.size, 1), PIECE)
    for begin in begins:
        yield Piece(file.place, begin, None if begin == begins[-1] else begin + PIECE)


def _parse(pieces: Sequence[Piece], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What is in some pieces, as ``PARSED``; in a process of Spark's."""
    for batch in batches:
        for number in batch["place"].to_pylist():
            piece = pieces[number]
            with reading(piece.place, piece.begin) as (read, _):
                for block in logs.blocks(read, piece.begin, piece.end):
                    done = logs.read(block, str(piece.place))
                    blank = pa.table({"blank": pa.array([done.blank], pa.int64())})
                    for table in (done.sessions, done.rejects, blank):
                        yield from _wide(table).to_batches()


def _wide(table: pa.Table) -> pa.Table:
    """The same with the columns of ``PARSED``."""
    have = set(table.column_names)
    columns = [table[f.name] if f.name in have else pa.nulls(len(table), f.type) for f in PARSED]
    return pa.table(columns, schema=PARSED)


def _in_time(sessions: DataFrame, choice: Choice) -> DataFrame:
    if choice.since is not None:
        sessions = sessions.where(f"start >= {choice.since}")
    return sessions if choice.until is None else sessions.where(f"start < {choice.until}")


def _tally(parsed: DataFrame, sessions: DataFrame, choice: Choice) -> Tally:
    """What there is, but for the sessions chosen."""
    within = _in_time(sessions, choice)
    blank, lines = _only(parsed, "SUM(blank)", "COUNT(server) + COUNT(reason)")
    (last,) = _only(sessions, "MAX(start)")
    first, count = _only(within, "MIN(start)", "COUNT(*)")
    rejects = parsed.where("reason IS NOT NULL").groupBy("reason").count().collect()
    busy = within.selectExpr(f"div(start, {HOUR_MS}) * {HOUR_MS} AS hour").distinct().collect()
    counted = Counter({row["reason"]: row["count"] for row in rejects})
    return Tally(lines or 0, count, 0, blank or 0, counted, first, last, {row.hour for row in busy})


def _only(rows: DataFrame, *wanted: str) -> Any:
    return rows.selectExpr(*wanted).collect()[0]


def _address(path: Path) -> str:
    """A file by its name as Spark reads it, which takes brackets and the like for patterns."""
    return "file://" + re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path.absolute()))
