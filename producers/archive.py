"""Session logs to records of ``server.sessions``: 17 columns without a header, in the order of the files.

What has 17 cells is sent, whatever they hold: the stream says what is wrong with it. A line that is no such row is
tallied.
"""

import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from producers.batch import Batch, Ints, columns_encoder, json_lines
from producers.formats import Tally, reported
from producers.logs import BLANKS
from producers.replay import Progress
from producers.sessions import COLUMNS, LOADS, stamped
from scorers.errors import ConfigError, InputError
from stream.decode import EARLIEST, LATEST

NUMBERS = {"ConcurrentConnectionCounts", "MbytesTransferred", "HTTP1", *LOADS, "SecureBytes_Load", "TotalLoad"}
TIMES = {"SessionStart", "SessionEnd"}
BLOCK = 4 << 20
"""Bytes that are read at once."""
LOOK = 64 << 10
"""Bytes that are looked at to tell a session log."""
# as JSON writes them
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"
_OFFSET = r"(Z|[+-]\d\d:?\d\d)$"


def files(path: Path) -> list[Path]:
    """The CSV files of a log, in order of their names."""
    found = [path] if path.is_file() else path.rglob("*.csv*")
    return sorted(file for file in found if file.name.lower().endswith((".csv", ".csv.gz")))


def is_log(path: Path) -> bool:
    """Whether a file or folder is a session log: most of its first lines have 17 cells, with a time in the second."""
    first = next(iter(files(path)), None)
    if first is None:
        return False
    with reported(first), first.open("rb") as raw, _unzipped(raw, first) as file:
        rows = [line.split(b",") for line in file.read(LOOK).split(b"\n")[:-1]]
    return bool(rows) and 2 * sum(map(_alike, rows)) > len(rows)


def _alike(cells: Sequence[bytes]) -> bool:
    if len(cells) != len(COLUMNS):
        return False
    times = pd.to_datetime(pd.Series([cells[1].decode(errors="replace")]), errors="coerce", utc=True, format="ISO8601")
    return bool(times.notna().all())


@dataclass
class Archive:
    """A session log to replay: the sessions that start in ``[since, until)`` (epoch ms).

    ``tally`` counts the lines that are no rows, ``last`` is the latest start so far.
    """

    path: Path
    since: int = EARLIEST
    until: int = LATEST
    tally: Tally = field(default_factory=Tally)
    last: int = EARLIEST

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise ConfigError(f"--from {self.since} is not before --to {self.until}; swap them.")

    def batches(self, progress: Progress | None = None) -> Iterator[Batch]:
        """The rows as records, keyed by server; ``progress`` hears of bytes read and bytes in all.

        Raises:
            InputError: a file cannot be read, or no session starts in the range.
        """
        encode, encoder = columns_encoder(COLUMNS), msgspec.json.Encoder()
        for table in self._tables(progress):
            ts, inside = self._placed(table)
            wanted = table.filter(pa.array(inside))
            columns = [_cells(name, wanted[name]) for name in COLUMNS]
            keys = [(server or "").encode() for server in columns[COLUMNS.index("ServerIP")]]
            yield Batch(keys, json_lines(encoder, list(map(encode, *columns))), ts[inside])
        if self.last == EARLIEST:
            raise InputError(f"No session of {str(self.path)!r} starts in that range; widen --from and --to.")

    def _placed(self, table: pa.Table) -> tuple[Ints, NDArray[np.bool_]]:
        """When each row is, epoch ms, one without a time with the row before it; and whether it is in range."""
        start, end = (_stamps(table[name]) for name in ("SessionStart", "SessionEnd"))
        ts = pd.Series(start).where(start > EARLIEST).ffill().fillna(max(self.last, self.since)).to_numpy(np.int64)
        inside = (ts >= self.since) & (ts < self.until)
        known = start[inside & (start > EARLIEST) & ((end == EARLIEST) | (start <= end))]
        self.last = max(self.last, int(known.max(initial=EARLIEST)))
        return ts, inside

    def _tables(self, progress: Progress | None) -> Iterator[pa.Table]:
        """Rows of 17 texts, block by block."""
        found = files(self.path)
        done, total = 0, sum(file.stat().st_size for file in found)
        for path in found:
            size = path.stat().st_size
            with reported(path), path.open("rb") as raw, _unzipped(raw, path) as file:
                while block := file.read(BLOCK) + file.readline():
                    yield self._rows(block)
                    if progress is not None:
                        progress(done + min(raw.tell(), size), total)
            done += size

    def _rows(self, block: bytes) -> pa.Table:
        """The rows of some whole lines; a line of column names is none."""
        # Arrow cannot tell of a line that is no UTF-8
        text = block if block.isascii() else block.decode(errors="replace").encode()
        text = text if b'"' not in text else self._balanced(text)
        table = csv.read_csv(
            pa.BufferReader(text + b"\n"),
            read_options=csv.ReadOptions(use_threads=False, column_names=COLUMNS, block_size=2 * len(text) + 2),
            parse_options=csv.ParseOptions(invalid_row_handler=self._malformed),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
        )
        names = pc.equal(table["SessionStart"], "SessionStart")
        for _ in range(pc.sum(names).as_py() or 0):
            self.tally.malformed(",".join(COLUMNS).encode())
        return table.filter(pc.invert(names))

    def _balanced(self, text: bytes) -> bytes:
        """The lines without those whose quotes do not close; they would take in what follows."""
        lines = text.split(b"\n")
        for line in lines:
            if line.count(b'"') % 2:
                self.tally.malformed(line)
        return b"\n".join(line for line in lines if not line.count(b'"') % 2)

    def _malformed(self, row: Any) -> str:
        self.tally.malformed(row.text.encode())
        return "skip"


def _unzipped(raw: IO[bytes], path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == ".gz" else raw


def _stamps(column: pa.ChunkedArray) -> Ints:
    """Moments, epoch ms ``(n,)``; a local time is UTC, what is no time is far in the past."""
    times = pd.to_datetime(column.to_pandas(), errors="coerce", utc=True, format="ISO8601")
    stamps: Ints = times.astype("datetime64[ms, UTC]").to_numpy("datetime64[ms]").astype(np.int64)
    return np.where((stamps >= EARLIEST) & (stamps < LATEST), stamps, EARLIEST)


def _cells(name: str, column: pa.ChunkedArray) -> list[Any]:
    """A column as JSON has it: numbers, to the digit, where they are some, moments with an offset, a blank as null."""
    column = pc.utf8_trim_whitespace(column)
    nothing = pc.is_in(pc.utf8_lower(column), value_set=pa.array(sorted(BLANKS)))
    column = pc.if_else(nothing, None, column)
    texts: list[Any] = column.to_pylist()
    if name in NUMBERS:
        fit = pc.match_substring_regex(column, _NUMBER).to_pylist()
        return [msgspec.Raw(text) if number else _number(text) for number, text in zip(fit, texts, strict=True)]
    if name in TIMES:
        local = pc.and_(pc.invert(pc.match_substring_regex(column, _OFFSET)), pa.array(_stamps(column) > EARLIEST))
        texts = pc.if_else(local, stamped(_stamps(column)), column).to_pylist()
    return texts


def _number(text: str | None) -> Any:
    """A number that JSON writes otherwise, such as ``.5`` or ``+1``; what is none, or not finite, stays text."""
    try:
        value = float("_" if text is None or "_" in text else text)  # Python's own 1_000 is nobody else's
    except ValueError:
        return text
    return value if math.isfinite(value) else text
