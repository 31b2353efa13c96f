"""Session logs to hours and features on Apache Spark: the same reader and the same SQL as here.

Files are read in pieces by Spark's Python processes, which must see them under the same names, and the folder too.
Needs the extra ``spark``; import it where it is asked for.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from producers.logs import REJECTS
from scorers.forecast.hours import BUCKETS, PEAKS, SESSIONS
from scorers.forecast.schema import HOUR_MS, HOURS
from tidewatch.engines import Spark
from tidewatch.forecast.pieces import PARSED, parse, pieces
from tidewatch.forecast.spec import Choice, Progress, Tally
from tidewatch.places import Found
from tidewatch.spark import session

from pyspark.sql import DataFrame, Row, SparkSession  # isort: skip - tidewatch.spark says what to install

SHUFFLED = 128 * 1024 * 1024
"""Bytes of logs to a partition of what is summed."""
COUNTS = f"""
SELECT div(start, {HOUR_MS}) * {HOUR_MS} AS hour, reason, COUNT(server) AS sessions, COUNT(reason) AS refused,
  COUNT_IF({{within}}) AS within, COUNT_IF({{within}} AND {{chosen}}) AS chosen,
  MIN(start) FILTER (WHERE {{within}}) AS first, MAX(start) AS last, SUM(blank) AS blank
FROM parsed GROUP BY 1, 2
"""  # noqa: S608 - names and numbers of ours
"""What there is by hour and reason; a block's blanks have neither."""
TYPES = {pa.string(): "string", pa.int64(): "bigint", pa.binary(): "binary", pa.int32(): "int", pa.float64(): "double"}


@contextmanager
def engine(given: Spark, work: Path) -> Iterator["OnSpark"]:
    """Spark under these settings, with a folder of its own; errors as of :func:`tidewatch.spark.session`."""
    with session(given) as spark:
        yield OnSpark(spark, work)


def ddl(schema: pa.Schema) -> str:
    """A schema as Spark writes it."""
    return ", ".join(f"`{field.name}` {TYPES[field.type]}" for field in schema)


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
        work = [piece for file in files for piece in pieces(file)]
        numbers = self._spark.range(0, len(work), 1, len(work))
        parsed = self._kept(numbers.mapInArrow(partial(parse, work), ddl(PARSED)), "parsed")
        progress("reading", 1, 2)
        parsed.createOrReplaceTempView("parsed")
        within, chosen = _conditions(choice)
        tally = _tally(self._spark.sql(COUNTS.format(within=within, chosen=chosen)).collect())
        columns = ", ".join(SESSIONS.names)
        rows = f"SELECT {columns} FROM parsed WHERE {within} AND {chosen}"  # noqa: S608
        self._spark.sql(rows).createOrReplaceTempView("sessions")
        self._spark.sql(BUCKETS).createOrReplaceTempView("buckets")
        self._kept(self._spark.sql(PEAKS), "peaks").createOrReplaceTempView("peaks")
        self._aside(parsed, tally, rejects)
        progress("reading", 2, 2)
        return tally

    def days(self) -> list[int]:
        """See :class:`Engine`."""
        rows = self._spark.sql(f"SELECT DISTINCT div(hour, {24 * HOUR_MS}) AS day FROM peaks ORDER BY day")  # noqa: S608
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


def _conditions(choice: Choice) -> tuple[str, str]:
    """What sessions in time, and of the servers asked for, fulfil."""
    within = ["server IS NOT NULL"]
    within += [] if choice.since is None else [f"start >= {choice.since}"]
    within += [] if choice.until is None else [f"start < {choice.until}"]
    names = ", ".join(f"unhex('{name.encode().hex()}')" for name in sorted(choice.servers))
    return " AND ".join(within), f"CAST(server AS BINARY) IN ({names})" if names else "TRUE"


def _tally(rows: Iterable[Row]) -> Tally:
    """What ``COUNTS`` has found."""
    tally = Tally()
    for row in rows:
        tally.lines += row.sessions + row.refused
        tally.sessions += row.within
        tally.chosen += row.chosen
        tally.blank += row.blank or 0
        if row.reason is not None:
            tally.rejects[row.reason] += row.refused
        if row.last is not None:
            tally.last = max(tally.last or 0, row.last)
        if row.first is not None:
            tally.first = row.first if tally.first is None else min(tally.first, row.first)
            tally.busy.add(row.hour)
    return tally


def _address(path: Path) -> str:
    """A file by its name as Spark reads it, which takes brackets and the like for patterns."""
    return "file://" + re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path.absolute()))
