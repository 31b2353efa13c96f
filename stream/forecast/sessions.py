"""Sessions as the forecaster needs them: columns of servers, starts and loads in whole millionths."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.forecast.schema import LOADS, UNIT
from scorers.statistics import Floats, Ints
from stream.contracts import Flaw, Reason
from stream.decode import EARLIEST, LATEST, Decoded, Parser
from stream.parse import Fault, Reading, Refused, Stamp, epoch_ms, numbers, parse_object, unfit
from stream.sessions import LOADS as COLUMNS
from stream.sessions import Session, cells

NAMES = (
    "TotalLoad",
    "MbytesTransferred",
    *(f"SubService_{number}_Load" for number in range(1, 6)),
    "SecureBytes_Load",
)
"""The column of a session that each of ``LOADS`` sums."""
MOST = 1e9
"""A load beyond it, or below 0, makes a session a reject."""


_NAME = 255
"""Bytes of a server's name, at most."""


class _Ended(Session, gc=False):
    SessionEnd: Stamp | None = None


_decode = msgspec.json.Decoder(_Ended).decode


def read_fast(value: bytes) -> Reading:
    """A complete session in which nothing is wrong."""
    server, stamp, _, *loads, end = msgspec.structs.astuple(_decode(value))
    start, ended = epoch_ms(stamp), None if end is None else epoch_ms(end)
    if isinstance(start, tuple) or isinstance(ended, tuple) or not (ended is None or start <= ended < LATEST):
        raise ValueError(stamp)
    if min(loads) < 0 or max(loads) > MOST or not named(server):
        raise ValueError(loads)
    return Reading(server, start, dict(zip(COLUMNS[1:], loads, strict=True)))


def read_patiently(value: bytes) -> Reading | Fault:
    """A session with blanks as ``load etl`` takes it from a log, or what is wrong with it, in the same order."""
    record = parse_object(value)
    if isinstance(record, tuple):
        return record
    try:
        return _session(record)
    except Refused as refused:
        return refused.args[0], refused.args[1]


def _session(record: dict[str, Any]) -> Reading:
    server = record.get("ServerIP")
    if not isinstance(server, str):
        raise Refused(*unfit("ServerIP", server, "a string"))
    if not named(server):
        raise Refused(Reason.WRONG_TYPE, f"ServerIP must be a name of 1 to {_NAME} bytes, and no number")
    loads = _loads(cells(record))
    if NAMES[0] not in loads:
        raise Refused(*unfit(NAMES[0], None, "a number"))
    start, end = (_moment(name, record.get(name)) for name in ("SessionStart", "SessionEnd"))
    if start is None:
        raise Refused(*unfit("SessionStart", None, "a moment"))
    if end is not None and end < start:
        raise Refused(Flaw.SWAPPED, f"SessionEnd is {start - end} ms before SessionStart")
    return Reading(server, start, loads)


@lru_cache(maxsize=1 << 16)
def named(server: str) -> bool:
    """Whether it is the name of a server, and not a number from another column."""
    try:
        float(server)
    except ValueError:
        return 0 < len(server.encode()) <= _NAME
    return False


def _loads(told: dict[str, Any]) -> dict[str, float]:
    """Those that are there, all of them within bounds."""
    found = numbers(told)
    if isinstance(found, tuple) or not math.isfinite(found.pop(COLUMNS[0], 0.0)) or not _fine(found.values()):
        raise _first(told)
    return found


def _fine(loads: Iterable[float]) -> bool:
    return all(0 <= load <= MOST for load in loads)


def _first(told: dict[str, Any]) -> Refused:
    """What is wrong with the first load that cannot be."""
    for name in (COLUMNS[0], *NAMES):
        found = numbers({name: told[name]})
        if isinstance(found, tuple):
            return Refused(*found)
        load = found.get(name, 0.0)
        if not math.isfinite(load):
            return Refused(Reason.NOT_FINITE, f"{name} is {load}, which is not a measurement")
        if name in NAMES and not _fine([load]):
            break
    return Refused(Flaw.OUT_OF_RANGE, f"{name} is {load:g}, not from 0 to {MOST:g}")


def _moment(name: str, stamp: Any) -> int | None:
    if stamp is None:
        return None
    found = epoch_ms(stamp)
    if isinstance(found, tuple):
        raise Refused(found[0], f"{name}: {found[1]}")
    if not EARLIEST <= found < LATEST:
        raise Refused(Reason.BAD_TIMESTAMP, f"{name} {found} is before 1980 or after 2199")
    return found


ENDED = Parser(read_fast, read_patiently)
"""How the forecaster reads ``server.sessions``: what it takes in is what ``load etl`` takes from a log."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """``n`` sessions, in the order they count."""

    offset: Ints
    server: Ints
    """Their servers' numbers."""
    ts: Ints
    """When they began, epoch ms."""
    arrival: Ints
    """When their records arrived, epoch ms."""
    loads: Ints
    """Shape ``(n, 8)``: ``LOADS`` in whole millionths."""

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, chosen: Ints | NDArray[np.bool_] | slice) -> "Sessions":
        """The chosen ones, in that order."""
        return Sessions(
            self.offset[chosen], self.server[chosen], self.ts[chosen], self.arrival[chosen], self.loads[chosen]
        )


def chained(parts: Sequence[Sessions]) -> Sessions:
    """One after the other."""
    return Sessions(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Sessions)))


def measured(decoded: Decoded) -> Ints:
    """The loads of sessions that ``ENDED`` has decoded, shape ``(n, 8)``, whole millionths; absent ones are 0.

    A load is rounded here, once, half to even; all that follows adds whole numbers.
    """
    values: Floats = np.zeros((len(decoded), len(LOADS)))
    for number, shape in enumerate(decoded.shapes):
        rows = np.flatnonzero(decoded.shape == number)
        for column, name in enumerate(NAMES):
            if name in shape:
                values[rows, column] = decoded.flat[decoded.start[rows] + shape.index(name)]
    return np.rint(values * UNIT).astype(np.int64)
