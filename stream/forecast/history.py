"""Hours that are over: what each server did of late, and for how long that is needed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from scorers.forecast.schema import DAYS, HOUR_MS, HOURS, LAGS, LOADS
from scorers.statistics import Ints
from stream.clock import NEVER
from stream.forecast.hours import Peaks
from stream.names import Names
from stream.texts import Texts

RECENT = 24 * (max(DAYS) + 2)
"""Hours before the end of the last one that days may reach back to, whatever the timezone."""
KEPT = max(*LAGS, RECENT) + 1
"""Hours that are kept, or as long as a silent server is there."""
CLOSED = HOURS.append(pa.field("last", pa.int64()))
"""An hour's row, and when the server's last session in it began: null where it had none."""

Span = tuple[int, int]
"""Half-open, epoch ms."""


class History:
    """The closed hours of one partition's servers, and which of them are there still."""

    def __init__(self, names: Names, alive_ms: int, exclude: Sequence[Span] = ()) -> None:
        self._names = names
        self._alive_ms = alive_ms
        self._kept_ms = max(KEPT * HOUR_MS, alive_ms + HOUR_MS)
        self._exclude = exclude
        self._hours: dict[int, pa.Table] = {}
        """By start; each in ``CLOSED``."""
        self._last = np.empty(0, np.int64)
        """When the last session of each server began that is in a closed hour."""

    def __len__(self) -> int:
        """How many servers are known."""
        return int(np.count_nonzero(self._last != NEVER))

    def __getitem__(self, hour: int) -> pa.Table:
        """The rows of a closed hour that is kept."""
        return self._hours[hour]

    def close(self, hour: int, peaks: Peaks) -> None:
        """Take in an hour that is over.

        A server without a session has no load if its last one began less than ``alive_ms`` before the hour, and is
        missing after that.
        """
        self._grow(len(self._names))
        quiet = (self._last != NEVER) & (hour - self._last < self._alive_ms)
        quiet[peaks.server] = False
        idle = np.flatnonzero(quiet)
        self._hours[hour] = self._table(hour, peaks, idle)
        self._last[peaks.server] = peaks.latest

    def prune(self, until: int) -> dict[int, int]:
        """Forget what nobody needs once the hours before ``until`` are over; which hours, with how many rows."""
        oldest = until - self._kept_ms
        self._last[self._last < oldest] = NEVER
        return {kept: len(self._hours.pop(kept)) for kept in list(self._hours) if kept < oldest}

    def _table(self, hour: int, peaks: Peaks, idle: Ints) -> pa.Table:
        names = self._names.pick(np.concatenate([peaks.server, idle]))
        zeros = np.zeros(len(idle), np.int64)
        loads = np.concatenate([peaks.loads, np.zeros((len(idle), len(LOADS)), np.int64)])
        last = pa.array(np.concatenate([peaks.latest, zeros]), mask=np.arange(len(names)) >= len(peaks.server))
        sessions = np.concatenate([peaks.sessions, zeros])
        columns = [names, np.full(len(names), hour), sessions, *np.ascontiguousarray(loads.T), last]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, CLOSED, strict=True)]
        return pa.Table.from_arrays(arrays, schema=CLOSED)

    def recall(self, tables: Sequence[pa.Table]) -> None:
        """Take back hours that were closed in a former life, each maybe in parts."""
        for hour, parts in _by_hour(tables):
            self._hours[hour] = table = pa.concat_tables(parts)
            server = self._names.enter(Texts.of([name.encode() for name in table["server"].to_pylist()]))
            self._grow(len(self._names))
            self._last[server] = np.maximum(self._last[server], table["last"].fill_null(NEVER).to_numpy())

    def before(self, first: int, hours: int) -> pa.Table:
        """What the features of so many hours from ``first`` on rest on: ``HOURS``, without what is excluded."""
        needed = set((np.subtract.outer(np.arange(hours), LAGS) * HOUR_MS + first).ravel().tolist())
        chosen = [
            self._hours[hour]
            for hour in sorted(self._hours)
            if (hour in needed or hour >= first - RECENT * HOUR_MS) and not self._excluded(hour)
        ]
        return pa.concat_tables([CLOSED.empty_table(), *chosen]).select(HOURS.names)

    def _excluded(self, hour: int) -> bool:
        return any(begin < hour + HOUR_MS and hour < end for begin, end in self._exclude)

    def _grow(self, servers: int) -> None:
        more = servers - len(self._last)
        if more > 0:
            self._last = np.append(self._last, np.full(max(more, len(self._last) // 4), NEVER))


def _by_hour(tables: Sequence[pa.Table]) -> Iterator[tuple[int, list[pa.Table]]]:
    """Tables of one hour each, put together by it, ascending."""
    found: dict[int, list[pa.Table]] = {}
    for table in tables:
        found.setdefault(table["hour"][0].as_py(), []).append(table)
    yield from sorted(found.items())
