"""Hours that are not over: the sums of every server's five minutes, and their peaks once an hour ends."""

from typing import NamedTuple

import numpy as np

from scorers.forecast.schema import BUCKET_MS, HOUR_MS, LOADS
from scorers.statistics import Ints
from stream.forecast.sessions import Sessions

_PATIENCE = 4096
"""So many sessions wait before they are summed, or as many as there are sums."""


class Peaks(NamedTuple):
    """What an hour came to: one entry for each server that had sessions in it."""

    server: Ints
    sessions: Ints
    """In the five minutes with the largest total, the first of them where equal."""
    loads: Ints
    """Shape ``(n, 8)``: the sums of those five minutes, millionths."""
    latest: Ints
    """When the server's last session of the hour began, epoch ms."""


class _Sums(NamedTuple):
    """Rows by server and five minutes, ascending."""

    server: Ints
    bucket: Ints
    sessions: Ints
    loads: Ints
    latest: Ints

    def take(self, chosen: Ints) -> "_Sums":
        return _Sums._make(column[chosen] for column in self)


class Hours:
    """The open hours of one partition's servers."""

    def __init__(self) -> None:
        self._sums = _Sums(_NONE, _NONE, _NONE, np.empty((0, len(LOADS)), np.int64), _NONE)
        self._waiting: list[_Sums] = []
        self._count = 0
        self._floors: dict[int, int] = {}
        """By hour, the lowest offset that it needs."""

    def __len__(self) -> int:
        return len(self._floors)

    @property
    def floor(self) -> int | None:
        """The lowest offset that an open hour needs; None where none is open."""
        return min(self._floors.values(), default=None)

    @property
    def first(self) -> int | None:
        """The start of the first open hour."""
        return min(self._floors, default=None)

    def add(self, sessions: Sessions) -> None:
        """Sum sessions into their five minutes."""
        if not len(sessions):
            return
        hours = sessions.ts - sessions.ts % HOUR_MS
        for hour in np.unique(hours).tolist():
            lowest = int(sessions.offset[hours == hour].min())
            self._floors[hour] = min(lowest, self._floors.get(hour, lowest))
        bucket = sessions.ts - sessions.ts % BUCKET_MS
        one = np.ones(len(sessions), np.int64)
        self._waiting.append(_Sums(sessions.server, bucket, one, sessions.loads, sessions.ts))
        self._count += len(sessions)
        if self._count >= max(_PATIENCE, len(self._sums.server)):
            self._merge()

    def end(self, hour: int) -> Peaks:
        """The peaks of the hour that begins at ``hour``, which is open no longer."""
        self._floors.pop(hour, None)
        self._merge()
        inside = (self._sums.bucket >= hour) & (self._sums.bucket < hour + HOUR_MS)
        over = self._sums.take(np.flatnonzero(inside))
        self._sums = self._sums.take(np.flatnonzero(~inside))
        # of each server the largest total first, and of those the earliest
        best = over.take(np.lexsort((over.bucket, -over.loads[:, 0], over.server)))
        first = _first(best.server)
        latest = np.maximum.reduceat(best.latest, first) if len(first) else _NONE
        return Peaks(best.server[first], best.sessions[first], best.loads[first], latest)

    def _merge(self) -> None:
        if not self._waiting:
            return
        parts = [self._sums, *self._waiting]
        rows = _Sums._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
        rows = rows.take(np.lexsort((rows.bucket, rows.server)))
        first = _first(rows.server, rows.bucket)
        sessions, loads = (np.add.reduceat(column, first) for column in (rows.sessions, rows.loads))
        latest = np.maximum.reduceat(rows.latest, first)
        self._sums = _Sums(rows.server[first], rows.bucket[first], sessions, loads, latest)
        self._waiting, self._count = [], 0


_NONE = np.empty(0, np.int64)


def _first(*keys: Ints) -> Ints:
    """Where in sorted rows another key begins."""
    if not len(keys[0]):
        return _NONE
    new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(np.append(True, new))
