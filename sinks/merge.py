"""Many Parquet files of a table into few, sorted, with the same rows; in bounded memory.

DuckDB sorts, on disk where the rows are more than it may hold; here one row group is in memory at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from scorers.errors import InputError, UnavailableError
from sinks.disk import Disk
from sinks.folder import unreadable
from sinks.table import SCHEMAS

PLACE = ("kafka_partition", "kafka_offset")
IDENTITY = {
    "predictions": PLACE,
    "statistics": (*PLACE, "metric"),
    "rejects": ("kafka_topic", *PLACE),
    "forecasts": (*PLACE, "hour"),
}
"""What tells two rows of a table apart, wherever they are."""
ORDER = {
    "predictions": ("device_id", "window_start", *PLACE),
    "statistics": ("device_id", "window_start", *PLACE, "metric"),
    "rejects": ("kafka_topic", *PLACE),
    "forecasts": ("server", "issued", "hour", *PLACE),
}
BATCH_ROWS = 10_000
GROUP_BYTES = 64 * 1024 * 1024
"""A row group is no larger in memory than this and one batch, however wide its rows are."""


@dataclass(frozen=True, slots=True)
class MergeSpec:
    """What merged files are like; ``memory_mb`` is what DuckDB may use before it sorts on disk."""

    target_bytes: int
    row_group_rows: int
    compression: str
    memory_mb: int


class Merger:
    """Merges files of one table; a context, for it holds a database. ``spill`` is a folder for temporary files."""

    def __init__(self, table: str, spec: MergeSpec, disk: Disk, spill: Path) -> None:
        self._table = table
        self._spec = spec
        self._disk = disk
        self._database = duckdb.connect(config={"memory_limit": f"{spec.memory_mb}MB", "temp_directory": str(spill)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def merge(self, files: Sequence[Path], name: Callable[[int], Path], progress: Callable[[int], None]) -> list[Path]:
        """Write the rows of ``files`` to new files, and compare.

        Args:
            files: whole files of the table.
            name: the path of each new file, from 0.
            progress: called with the number of rows written since it was called last.

        Returns:
            the new files, each as large as ``target_bytes`` or a row group larger, but for the last.

        Raises:
            InputError: a row is there twice, or a file is damaged.
            UnavailableError: memory or disk do not suffice.
            OSError: the disk does not answer.
        """
        try:
            self._refuse_doubles(files)
            written = self._write(files, name, progress)
            if self._digest(files) != self._digest(written):
                raise InputError(f"{written[0]} has not the rows of the files merged into it; nothing was replaced.")
        except duckdb.Error as error:
            raise _culprit(files) or UnavailableError(
                f"Cannot merge {files[0].parent} ({error}); free disk or memory, then compact again."
            ) from error
        return written

    def _refuse_doubles(self, files: Sequence[Path]) -> None:
        keys = ", ".join(IDENTITY[self._table])
        double = self._ask(f"SELECT {keys} {_FROM} GROUP BY ALL HAVING count(*) > 1 LIMIT 1", files)
        if double:
            same = " AND ".join(f"{key} = ${key}" for key in IDENTITY[self._table])
            row = dict(zip(IDENTITY[self._table], double[0], strict=True))
            query = f"SELECT DISTINCT filename {_FROM} WHERE {same} ORDER BY 1"
            where = " and ".join(name for (name,) in self._ask(query, files, row))
            shown = ", ".join(f"{key} {value}" for key, value in row.items())
            raise InputError(f"A row ({shown}) is there twice, in {where}; move one of the files away.")

    def _digest(self, files: Sequence[Path]) -> list[tuple[Any, ...]]:
        """Equal for equal rows in any order and any files."""
        query = f"SELECT count(*), sum(hash(r)) FROM ({self._rows()}) r"  # noqa: S608  # our own schemas
        return self._ask(query, files)

    def _rows(self) -> str:
        """SQL for the rows of files with every column of today."""
        self._database.register("nothing", SCHEMAS[self._table].empty_table())
        columns = ", ".join(SCHEMAS[self._table].names)
        return f"SELECT {columns} FROM (SELECT * {_FROM} UNION ALL BY NAME FROM nothing)"  # noqa: S608  # as above

    def _ask(self, query: str, files: Sequence[Path], more: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._database.execute(query, {"files": _literal(files), **(more or {})}).fetchall()

    def _write(self, files: Sequence[Path], name: Callable[[int], Path], progress: Callable[[int], None]) -> list[Path]:
        query = f"{self._rows()} ORDER BY {', '.join(ORDER[self._table])}"
        relation = self._database.sql(query, params={"files": _literal(files)})
        groups = _groups(relation.to_arrow_reader(BATCH_ROWS), SCHEMAS[self._table], self._spec.row_group_rows)
        written: list[Path] = []
        waiting = next(groups, SCHEMAS[self._table].empty_table())
        while waiting is not None:

            def fill(file: BinaryIO, first: pa.Table = waiting) -> None:
                nonlocal waiting
                waiting = self._fill(file, first, groups, progress)

            written.append(name(len(written)))
            self._disk.write(written[-1], fill)
        return written

    def _fill(
        self, file: BinaryIO, group: pa.Table, groups: Iterator[pa.Table], progress: Callable[[int], None]
    ) -> pa.Table | None:
        """Write row groups until the file is large enough; the first one of the next file, if there is more."""
        with pq.ParquetWriter(file, group.schema, compression=self._spec.compression) as writer:
            while group is not None:
                if file.tell() >= self._spec.target_bytes:
                    return group
                writer.write_table(group, row_group_size=self._spec.row_group_rows)
                progress(len(group))
                group = next(groups, None)
        return None


_FROM = "FROM read_parquet($files, hive_partitioning = false, filename = true, union_by_name = true)"


def _literal(files: Sequence[Path]) -> list[str]:
    """Paths that DuckDB does not take for patterns."""
    return ["".join(f"[{c}]" if c in "*?[" else c for c in str(file)) for file in files]


def _groups(batches: pa.RecordBatchReader, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of ``rows`` rows, fewer where they are wide, and at the end."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch]).cast(schema)])
        while len(held) >= rows or held.nbytes >= GROUP_BYTES:
            yield held.slice(0, rows)
            held = held.slice(rows)
    if len(held):
        yield held


def _culprit(files: Sequence[Path]) -> InputError | UnavailableError | None:
    """The error about the first file that cannot be read to its end."""
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for _ in file.iter_batches(BATCH_ROWS):
                    pass
        except FileNotFoundError:
            return UnavailableError(f"{path} was deleted while it was merged; compact again.")
        except (pa.ArrowException, OSError) as error:
            return InputError(f"{path} {unreadable(error)}; move it away, and write the folder anew if it is needed.")
    return None
