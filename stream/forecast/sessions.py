"""Sessions as the forecaster needs them: columns of servers, starts and loads in whole millionths."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.forecast.schema import LOADS, UNIT
from scorers.statistics import Floats, Ints
from stream.contracts import Reason
from stream.decode import Decoded, Parser
from stream.parse import Fault, Reading, Stamp, epoch_ms, parse_object, unfit
from stream.sessions import LOADS as COLUMNS
from stream.sessions import SESSIONS, Session

NAMES = (
    "TotalLoad",
    "MbytesTransferred",
    *(f"SubService_{number}_Load" for number in range(1, 6)),
    "SecureBytes_Load",
)
"""The column of a session that each of ``LOADS`` sums."""
MOST = 1e9
"""A load beyond it, or below 0, makes a session a reject."""


class _Ended(Session, gc=False):
    SessionEnd: Stamp | None = None


_decode = msgspec.json.Decoder(_Ended).decode


def read_fast(value: bytes) -> Reading:
    """A complete session that does not end before it starts."""
    server, stamp, *loads, end = msgspec.structs.astuple(_decode(value))
    start, ended = epoch_ms(stamp), None if end is None else epoch_ms(end)
    if isinstance(start, tuple) or isinstance(ended, tuple) or (ended is not None and ended < start):
        raise ValueError(stamp)
    return Reading(server, start, dict(zip(COLUMNS, loads, strict=True)))


def read_patiently(value: bytes) -> Reading | Fault:
    """A session with blanks, as ``load etl`` would take it: with a total, and ending no sooner than it starts."""
    found, record = SESSIONS.patient(value), parse_object(value)
    if isinstance(found, tuple) or isinstance(record, tuple):
        return found
    if NAMES[0] not in found.values:
        return unfit(NAMES[0], None, "a number")
    end = record.get("SessionEnd")
    ended = None if end is None else epoch_ms(end)
    if isinstance(ended, tuple):
        return ended
    if ended is not None and ended < int(found.ts):
        return Reason.BAD_TIMESTAMP, f"SessionEnd is {int(found.ts) - ended} ms before SessionStart"
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


def measured(decoded: Decoded) -> tuple[Ints, NDArray[np.bool_]]:
    """The loads of decoded sessions, shape ``(n, 8)``, and which of them are within bounds; absent ones are 0.

    A load is rounded here, once, half to even; all that follows adds whole numbers.
    """
    values: Floats = np.zeros((len(decoded), len(LOADS)))
    for number, shape in enumerate(decoded.shapes):
        rows = np.flatnonzero(decoded.shape == number)
        for column, name in enumerate(NAMES):
            if name in shape:
                values[rows, column] = decoded.flat[decoded.start[rows] + shape.index(name)]
    fine: NDArray[np.bool_] = np.all((values >= 0) & (values <= MOST), axis=1)
    return np.rint(np.where(fine[:, None], values, 0.0) * UNIT).astype(np.int64), fine
