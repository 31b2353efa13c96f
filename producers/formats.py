"""Files to tables: Parquet, CSV and JSON lines, a chunk at a time, whatever their size.

Parquet keeps its types. CSV and JSON lines give text columns: what a text means is decided by what is
asked of it, so that one odd cell never changes how the others are read.
"""

import gzip
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import csv, parquet

from producers.rows import sound
from scorers.errors import InputError
from stream.contracts import Reason

DELIMITERS = ",;\t|"
BLOCK = 2 << 20
"""Bytes of CSV that are read at once, and the rest of the line."""
VALUES = "values"
"""The field of a ``sensor.readings`` record that holds its metrics; they are read as columns."""


@dataclass(slots=True)
class Tally:
    """What was left out, and why: whole rows, and single cells of rows that were kept."""

    rows: Counter[Reason] = field(default_factory=Counter)
    cells: Counter[Reason] = field(default_factory=Counter)
    keep: Callable[[bytes], None] | None = None
    """Is given the original of each row that cannot be taken apart."""

    def malformed(self, original: bytes) -> None:
        """Note a row that cannot be taken apart."""
        self.drop(Reason.MALFORMED, 1)
        if self.keep is not None:
            self.keep(original)

    def drop(self, reason: Reason, count: int) -> None:
        """Note ``count`` rows that are left out."""
        if count:
            self.rows[reason] += count

    def blank(self, reason: Reason, count: int) -> None:
        """Note ``count`` cells that are left out of rows."""
        if count:
            self.cells[reason] += count


Chunks = Callable[[Path, Sequence[str], int, Tally], Iterator[pa.Table]]
"""Path, columns wanted, rows a chunk, tally of malformed rows to tables of just those columns."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of file is read."""

    names: Callable[[Path], list[str]]
    chunks: Chunks


def columns_of(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        InputError: the file cannot be read, or is of no known kind.
    """
    with reported(path):
        return _format(path).names(path)


def read(path: Path, columns: Sequence[str], *, rows: int, tally: Tally) -> Iterator[pa.Table]:
    """Tables of at most ``rows`` rows with the wanted columns, in file order; malformed rows are tallied.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    with reported(path):
        yield from _format(path).chunks(path, columns, rows, tally)


def require(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a file whose columns ``names`` lack one of ``columns``.

    Raises:
        InputError: naming the column that is missing and those that are there.
    """
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(f"{str(path)!r} has no column {missing[0]!r}; its columns are {', '.join(names)}.")


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the readers raise into one sentence that names the file."""
    try:
        yield
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{str(path)!r} cannot be read ({reason}); check that it is a whole Parquet, CSV or JSON lines file,"
            " named by its kind."
        ) from error


def _format(path: Path) -> Format:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    known = FORMATS.get(suffixes[-1] if suffixes else "")
    if known is None:
        raise InputError(
            f"{str(path)!r} is of no known kind; name it {', '.join(FORMATS)}, the text ones also with .gz."
        )
    return known


def _parquet_names(path: Path) -> list[str]:
    names: list[str] = parquet.read_schema(path).names
    return names


def _parquet_chunks(path: Path, columns: Sequence[str], rows: int, _: Tally) -> Iterator[pa.Table]:
    with parquet.ParquetFile(path) as file:
        require(path, columns, file.schema_arrow.names)
        for batch in file.iter_batches(rows, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _csv_header(path: Path) -> tuple[list[str], str]:
    """Column names and the delimiter, which is the commonest candidate in the header."""
    with _open(path) as file:
        header = file.readline().decode("utf-8-sig")
    delimiter = max(DELIMITERS, key=header.count)
    options = csv.ParseOptions(delimiter=delimiter)
    names: list[str] = csv.read_csv(pa.py_buffer(header.encode()), parse_options=options).column_names
    return names, delimiter


def _csv_names(path: Path) -> list[str]:
    return _csv_header(path)[0]


def _csv_chunks(path: Path, columns: Sequence[str], rows: int, tally: Tally) -> Iterator[pa.Table]:
    names, delimiter = _csv_header(path)
    require(path, columns, names)

    def skip(row: Any) -> str:
        tally.malformed(row.text.encode())
        return "skip"

    parse = csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=list(columns),
        strings_can_be_null=True,
        check_utf8=False,  # sound() has
    )
    with _open(path) as file:
        file.readline()
        while block := file.read(BLOCK) + file.readline():
            text = sound(block, delimiter, tally.malformed) + b"\n"
            whole = csv.ReadOptions(use_threads=False, column_names=names, block_size=len(text) + 1)
            table = csv.read_csv(
                pa.BufferReader(text), read_options=whole, parse_options=parse, convert_options=convert
            )
            for start in range(0, len(table), rows):
                yield table.slice(start, rows)


def _json_names(path: Path) -> list[str]:
    """Every key that occurs; the whole file is read, as a metric may first appear in its last line."""
    names: dict[str, None] = {}
    for records in _json_records(path, 10_000, Tally()):
        names.update(dict.fromkeys(key for record in records for key in record))
    return list(names)


def _json_chunks(path: Path, columns: Sequence[str], rows: int, tally: Tally) -> Iterator[pa.Table]:
    for records in _json_records(path, rows, tally):
        yield pa.table(
            {name: pa.array([_text(record.get(name)) for record in records], pa.string()) for name in columns}
        )


def _json_records(path: Path, rows: int, tally: Tally) -> Iterator[list[Mapping[str, Any]]]:
    decode = msgspec.json.Decoder().decode
    with _open(path) as file:
        while lines := list(islice(file, rows)):
            yield [record for line in lines if (record := _json_record(decode, line, tally)) is not None]


def _json_record(decode: Callable[[bytes], Any], line: bytes, tally: Tally) -> Mapping[str, Any] | None:
    """One line's object with the metrics of ``values`` beside the other fields; None if it is no object."""
    try:
        record = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        record = None
    if not isinstance(record, dict):
        if line.strip():
            tally.malformed(line)
        return None
    nested = record.get(VALUES)
    return {**{key: record[key] for key in record if key != VALUES}, **nested} if isinstance(nested, dict) else record


def _text(cell: Any) -> str | None:
    """A cell as text; numbers in the shortest form that reads back equal."""
    if cell is None or isinstance(cell, str):
        return cell
    return repr(cell) if isinstance(cell, int | float) else msgspec.json.encode(cell).decode()


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


FORMATS = {
    ".parquet": Format(_parquet_names, _parquet_chunks),
    ".csv": Format(_csv_names, _csv_chunks),
    ".jsonl": Format(_json_names, _json_chunks),
    ".ndjson": Format(_json_names, _json_chunks),
}
