"""Session logs in, sessions in columns out: CSV without header, dirty as it comes, in blocks of whole lines.

::

    file ──blocks──▶ whole lines ──read──▶ sessions (SESSIONS)
                                  └──────▶ what is none, with its reason and original line (REJECTS)

Nearly all lines go through the compiled loop of ``producers.lines``; what is not plain is read here, line by line, with
the rules and words of the live topic.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from producers import lines
from producers.sessions import COLUMNS
from scorers.errors import InputError
from scorers.forecast.hours import SESSIONS
from scorers.forecast.schema import LOADS, UNIT
from stream.contracts import Flaw, Reason
from stream.decode import EARLIEST, LATEST
from stream.parse import SHOWN, epoch_ms

BLOCK = 16 * 1024 * 1024
LONGEST = 1024 * 1024
"""Bytes of the longest line that is read."""
KEPT = 65_536
"""Bytes that are kept of a line that is too long."""
AT_ONCE = 200_000
"""Lines read at once: a bound on memory where lines are short."""
BLANKS = frozenset({"", "null", "na", "n/a", "none", "\\n", "-"})
"""Ways to write nothing, in small letters."""

REJECTS = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("value", pa.binary()),
    ]
)
"""Lines kept aside: ``line`` counts from 1, and is null where a file was not read from its beginning; ``offset`` is the
line's first byte in the (uncompressed) file; ``value`` its bytes without the line end."""


class NoRow(StrEnum):
    """Why a line is no row, where the live topic has no word for it, as it never comes there."""

    HEADER = "header"
    """The names of the columns, wherever they come."""
    COLUMNS = "columns"
    """Not 17 columns."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, where they begin in it, and the number of the first, if that is known."""

    text: bytes
    offset: int
    line: int | None


@dataclass(frozen=True)
class Read:
    """What became of the lines of a block."""

    sessions: pa.Table
    """``SESSIONS``; a blank load is 0."""
    rejects: pa.Table
    """``REJECTS``."""
    blank: int
    """Loads that were left blank in sessions."""

    @cached_property
    def lines(self) -> int:
        """Lines there were."""
        return len(self.sessions) + len(self.rejects)


class _Refused(Exception):  # noqa: N818 - a verdict on a line, not an error of ours
    """A reason and what exactly is wrong, as its ``args``."""


def blocks(read: Callable[[int], bytes], begin: int = 0, end: int | None = None) -> Iterator[Block]:
    """The lines of a file that begin in ``[begin, end)``, in blocks.

    Args:
        read: gives the next bytes, at most so many; from ``begin - 1`` on where that is not 0.
        begin: the first byte of the piece.
        end: the byte behind it; None for the file's end.
    """
    held, at, line = b"", begin, 1 if begin == 0 else None
    if begin:
        held, skipped = _skip(read)
        at = begin - 1 + skipped
    while end is None or at < end:
        data = read(BLOCK)
        held += data
        cut = held.rfind(b"\n") + 1 if data else len(held)
        last = -1 if end is None or at + len(held) < end else held.find(b"\n", end - at - 1)
        cut = last + 1 or cut
        if not cut and len(held) > LONGEST:
            head, (rest, skipped) = held[: LONGEST + 1], _skip(read)
            yield Block(head, at, line)
            at, held, line = at + len(held) + skipped, rest, line and line + 1
            continue
        if cut:
            text = held[:cut]
            yield Block(text, at, line)
            line = line and line + text.count(b"\n")
            at, held = at + cut, held[cut:]
        if last >= 0 or not data:
            return


def _skip(read: Callable[[int], bytes]) -> tuple[bytes, int]:
    """Go behind the next line end: what was read of the line there, and how many bytes were gone past."""
    skipped = 0
    while data := read(BLOCK):
        at = data.find(b"\n") + 1
        if at:
            return data[at:], skipped + at
        skipped += len(data)
    return b"", skipped


def read(block: Block, file: str) -> Read:
    """The sessions of a block, and what is none.

    Raises:
        InputError: a header names the columns in another order.
    """
    text = np.frombuffer(block.text, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.concatenate([[0], ends + 1])
    if begins[-1] == len(text):
        begins = begins[:-1]
    else:
        ends = np.append(ends, len(text))
    begins, ends = begins.astype(np.int64), ends.astype(np.int64)
    if block.offset == 0 and block.text.startswith(b"\xef\xbb\xbf"):
        begins[0] = 3
    found = [
        _read(block, file, (begins[at : at + AT_ONCE], ends[at : at + AT_ONCE]), at)
        for at in range(0, len(begins), AT_ONCE)
    ]
    return Read(
        pa.concat_tables([SESSIONS.empty_table(), *(part.sessions for part in found)]),
        pa.concat_tables([REJECTS.empty_table(), *(part.rejects for part in found)]),
        sum(part.blank for part in found),
    )


def _read(block: Block, file: str, bounds: tuple[lines.Ints, lines.Ints], first: int) -> Read:
    """The same of lines ``first`` and on, whose bounds these are."""
    begins, ends = bounds
    count = len(begins)
    start, odd = np.empty(count, np.int64), np.empty(count, np.int64)
    loads = np.empty((len(LOADS), count), np.int64)
    names, offsets = np.empty(int((ends - begins).sum()), np.uint8), np.empty(count + 1, np.int32)
    text = np.frombuffer(block.text, np.uint8)
    rows, strange, blank = lines.read(text, begins, ends, start, loads, names, offsets, odd)
    buffers = [None, pa.py_buffer(offsets[: rows + 1]), pa.py_buffer(names[: offsets[rows]])]
    servers = pa.StringArray.from_buffers(rows, buffers[1], buffers[2])
    plain = pa.table([servers, start[:rows], *(column[:rows] for column in loads)], schema=SESSIONS)
    sessions, rejects = [], []
    for number in odd[:strange].tolist():
        offset = int(begins[number])
        value = block.text[offset : int(ends[number])].removesuffix(b"\r")
        try:
            session, empty = _session(value, file)
        except _Refused as refused:
            line = None if block.line is None else block.line + first + number
            rejects.append((file, line, block.offset + offset, *refused.args, value[:KEPT]))
            continue
        sessions.append(session)
        blank += empty
    others = [_table(sessions, SESSIONS)] if sessions else []
    return Read(pa.concat_tables([plain, *others]), _table(rejects, REJECTS), blank)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table([list(column) for column in columns], schema=schema)


def _session(value: bytes, file: str) -> tuple[tuple[Any, ...], int]:
    """A row of ``SESSIONS``, and how many of its loads are blank."""
    row = dict(zip(COLUMNS, _fields(value, file), strict=True))
    server = _server(row["ServerIP"])
    _number("ConcurrentConnectionCounts", row["ConcurrentConnectionCounts"])
    loads = [_load(COLUMNS[place], row[COLUMNS[place]]) for place in lines.MEASURED]
    if loads[0] is None:
        _refuse(Reason.MISSING_FIELD, "TotalLoad is missing")
    start, end = (_moment(name, row[name]) for name in ("SessionStart", "SessionEnd"))
    if start is None:
        _refuse(Reason.MISSING_FIELD, "SessionStart is missing")
    if end is not None and end < start:
        _refuse(Flaw.SWAPPED, f"it ends {start - end} ms before it starts")
    return (server, start, *(load or 0 for load in loads)), loads.count(None)


def _fields(value: bytes, file: str) -> list[str]:
    if len(value) > LONGEST:
        _refuse(Reason.TOO_LARGE, f"more than {LONGEST} bytes")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        _refuse(Reason.MALFORMED, f"not UTF-8 ({error.reason} at byte {error.start})")
    if not text.strip():
        _refuse(Reason.EMPTY, "a line without anything")
    if "\0" in text:
        _refuse(Reason.MALFORMED, "a byte that is 0")
    try:
        fields = [field.strip() for field in next(csv.reader([text], strict=True, skipinitialspace=True))]
    except (csv.Error, StopIteration) as error:
        _refuse(Reason.MALFORMED, f"not CSV ({error})")
    if fields[: len(COLUMNS)] == list(COLUMNS):
        _refuse(NoRow.HEADER, "names of columns")
    if sorted(fields) == sorted(COLUMNS):
        raise InputError(f"{file} has its columns in another order; bring them into this one: {', '.join(COLUMNS)}.")
    if len(fields) != len(COLUMNS):
        _refuse(NoRow.COLUMNS, f"{len(fields)} columns, not {len(COLUMNS)}")
    return fields


def _server(text: str) -> str:
    if text.lower() in BLANKS:
        _refuse(Reason.MISSING_FIELD, "ServerIP is missing")
    with suppress(ValueError):
        float(text)
        _refuse(Reason.WRONG_TYPE, f"ServerIP must be a name, not the number {text[:SHOWN]}")
    if len(text.encode()) > lines.NAME:
        _refuse(Reason.WRONG_TYPE, f"ServerIP has more than {lines.NAME} bytes")
    return text


def _number(name: str, text: str) -> float | None:
    """A number, or None for nothing."""
    if text.lower() in BLANKS:
        return None
    try:
        value = float("_" if "_" in text else text)  # Python's own 1_000 is nobody else's
    except ValueError:
        _refuse(Reason.WRONG_TYPE, f"{name} must be a number, not {text[:SHOWN]!r}")
    if not math.isfinite(value):
        _refuse(Reason.NOT_FINITE, f"{name} is {text[:SHOWN]}")
    return value


def _load(name: str, text: str) -> int | None:
    """Whole millionths, or None for nothing."""
    value = _number(name, text)
    if value is None:
        return None
    if not 0 <= value <= lines.LARGEST:
        _refuse(Flaw.OUT_OF_RANGE, f"{name} is {text[:SHOWN]}, not from 0 to {lines.LARGEST:g}")
    return round(value * UNIT)


def _moment(name: str, text: str) -> int | None:
    """Epoch ms, or None for nothing; a time without an offset is UTC."""
    if text.lower() in BLANKS:
        return None
    stamp: Any = text
    if text.isdecimal() and text.isascii():
        stamp = int(text[:20])
    else:
        with suppress(ValueError):
            naive = datetime.fromisoformat(text)
            stamp = (naive if naive.tzinfo else naive.replace(tzinfo=UTC)).isoformat()
    found = epoch_ms(stamp)
    if isinstance(found, tuple):
        _refuse(found[0], f"{name}: {found[1]}")
    if not EARLIEST <= found < LATEST:
        _refuse(Reason.BAD_TIMESTAMP, f"{name} {text[:SHOWN]} is before 1980 or after 2199")
    return found


def _refuse(reason: StrEnum, detail: str) -> NoReturn:
    raise _Refused(str(reason), detail)
