"""Pieces of session logs: where a file is opened, and what one task reads of it.

Imports little, for Spark's processes do too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from producers import logs
from producers.logs import REJECTS
from scorers.errors import InputError, UnavailableError
from scorers.forecast.hours import SESSIONS
from tidewatch.places import Found, Place, reported

PIECE = 64 * 1024 * 1024
"""Bytes of a file that are read as one task."""
PARSED = pa.schema([*SESSIONS, *REJECTS, pa.field("blank", pa.int64())])
"""A session, or a reject where there is a reason, or else how many loads of a block were blank."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of a file that begin in ``[begin, end)``."""

    place: Place
    begin: int
    end: int | None


@contextmanager
def reading(place: Place, begin: int = 0) -> Iterator[tuple[Callable[[int], bytes], Callable[[], int]]]:
    """Reads a file from ``begin - 1`` on, unpacked where its name ends in ``.gz``; and tells how far it is.

    Raises:
        InputError: it is not there, or torn.
        UnavailableError: the disk or server does not answer.
    """
    with reported(place):
        raw = place.system().open_input_file(place.path)
    with raw:
        if begin:
            raw.seek(begin - 1)
        packed = place.name.endswith(".gz")
        stream = pa.CompressedInputStream(raw, "gzip") if packed else raw

        def read(size: int) -> bytes:
            try:
                return bytes(stream.read(size))
            except (OSError, pa.ArrowException) as error:
                reason = str(error).splitlines()[0]
                if packed:
                    raise InputError(f"{place} cannot be unpacked ({reason}); leave it out, or mend it.") from error
                raise UnavailableError(f"{place} cannot be read ({reason}); see that it is there.") from error

        yield read, lambda: int(raw.tell())


def pieces(file: Found) -> Iterator[Piece]:
    """The pieces of a file; a packed one is one."""
    if file.place.name.endswith(".gz"):
        yield Piece(file.place, 0, None)
        return
    begins = range(0, max(file.size, 1), PIECE)
    for begin in begins:
        yield Piece(file.place, begin, None if begin == begins[-1] else begin + PIECE)


def parse(pieces: Sequence[Piece], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What is in some pieces, as ``PARSED``; the batches have numbers of pieces as ``id``."""
    for batch in batches:
        for number in batch["id"].to_pylist():
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
