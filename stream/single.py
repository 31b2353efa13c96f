"""Records by themselves: an object each, where no template fits; what is no JSON is told of without one."""

from contextlib import suppress

import numpy as np

from scorers.statistics import Ints
from stream.contracts import Reason
from stream.parse import UNREADABLE, Fault, Judge, Parse, Reading, epoch_ms
from stream.records import Texts
from stream.syntax import CUT, DEEP, EMPTY, LARGE, STRANGE, brackets, look

_DEEPEST = 200
"""Levels of nesting; a reading has two. Beyond it decoding would depend on how deep our own calls are."""
_BEGINNING = 8
"""Bytes shown of what is no object."""
_BRACE = ord("{")


def read(texts: Texts, rows: Ints, longest: int, fast: Parse, patient: Judge) -> list[Reading | Fault]:
    """What is in each of some rows, by ``fast`` if it takes all of them; more than ``longest`` bytes are too many."""
    values = texts.pick(rows)
    if _likely(texts, rows, longest):
        with suppress(*UNREADABLE):
            readings = list(map(fast, values))  # type: ignore[arg-type]  # a null is not likely
            return [one if type(one.ts) is int else _dated(one) for one in readings]
    codes, places = look(texts, rows, longest, _DEEPEST)
    return [
        _told(code, place, value or b"", longest) if code else patient(value)  # type: ignore[arg-type]  # nor fine
        for code, place, value in zip(codes.tolist(), places.tolist(), values, strict=True)
    ]


def _likely(texts: Texts, rows: Ints, longest: int) -> bool:
    """Whether all may be objects that are decoded as if nothing were around them."""
    size, first = texts.size[rows], np.frombuffer(texts.buffer, np.uint8)[texts.begin[rows]]
    if ((size <= 0) | (size > longest) | (first != _BRACE)).any():
        return False
    long = rows[size > 2 * _DEEPEST]
    return not len(long) or int(brackets(texts, long).max()) <= _DEEPEST


def _dated(reading: Reading) -> Reading | Fault:
    """With its stamp in epoch ms."""
    ts = epoch_ms(reading.ts)
    if isinstance(ts, tuple):
        return ts
    reading.ts = ts
    return reading


def _told(code: int, place: int, value: bytes, longest: int) -> Fault:
    """A code of ``look`` in words."""
    if code == EMPTY:
        return Reason.EMPTY, "the record has no value"
    if code == LARGE:
        return Reason.TOO_LARGE, f"{len(value)} bytes; max_bytes is {longest}"
    if code == STRANGE:
        return Reason.MALFORMED, f"a JSON object is expected, not what begins with {value[:_BEGINNING]!r}"
    if code == DEEP:
        return Reason.MALFORMED, f"nested deeper than {_DEEPEST}"
    if code == CUT:
        return Reason.MALFORMED, f"JSON is cut off: it ends at byte {place}"
    return Reason.MALFORMED, f"JSON is malformed: {value[place : place + 1]!r} at byte {place}"
