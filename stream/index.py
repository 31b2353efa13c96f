"""Which row holds a device's window: a hash table of row numbers beside the columns that hold the keys.

Open addressing with linear probing; what leaves is followed up, so that no gravestones stay (Knuth, The Art of
Computer Programming 3, section 6.4, algorithms L and R). Eight bytes a row where a dict of tuples takes some 230.
"""

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints

_FREE = -1
_ROOM = 2
"""Places a row, at least; probes stay short."""
_DEVICE, _WINDOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(32)

Table = NDArray[np.int32]


class Index:
    """Rows by (device, window); ``devices`` and ``windows`` are always the columns that say what each row is about."""

    def __init__(self) -> None:
        self._table: Table = np.full(_ROOM, _FREE, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, devices: Ints, windows: Ints, device: Ints, window: Ints) -> Ints:
        """The row of each pair, -1 where there is none."""
        rows = np.empty(len(device), np.int64)
        _find(self._table, devices, windows, device, window, rows)
        return rows

    def enter(self, devices: Ints, windows: Ints, rows: Ints) -> None:
        """Take in rows, none of which is there."""
        self._count += len(rows)
        if self._count * _ROOM > len(self._table):
            old = self._table[self._table != _FREE].astype(np.int64)
            self._table = np.full(1 << (self._count * _ROOM).bit_length(), _FREE, np.int32)
            _enter(self._table, devices, windows, old)
        _enter(self._table, devices, windows, rows)

    def leave(self, devices: Ints, windows: Ints, rows: Ints) -> None:
        """Forget rows, all of which are there."""
        self._count -= len(rows)
        _leave(self._table, devices, windows, rows)


@compiled
def _home(device: int, window: int, mask: int) -> np.int64:
    """Where a pair belongs in a table of ``mask + 1`` places."""
    mixed = np.uint64(device) * _DEVICE ^ np.uint64(window) * _WINDOW
    return np.int64((mixed ^ (mixed >> _SHIFT)) & np.uint64(mask))


@compiled
def _find(table: Table, devices: Ints, windows: Ints, device: Ints, window: Ints, found: Ints) -> None:  # noqa: PLR0913, PLR0917 - numba compiles functions, not objects
    mask = len(table) - 1
    for i in range(len(device)):
        place = _home(device[i], window[i], mask)
        row = table[place]
        while row != _FREE and not (devices[row] == device[i] and windows[row] == window[i]):
            place = (place + 1) & mask
            row = table[place]
        found[i] = row


@compiled
def _enter(table: Table, devices: Ints, windows: Ints, rows: Ints) -> None:
    mask = len(table) - 1
    for row in rows:
        place = _home(devices[row], windows[row], mask)
        while table[place] != _FREE:
            place = (place + 1) & mask
        table[place] = row


@compiled
def _leave(table: Table, devices: Ints, windows: Ints, rows: Ints) -> None:
    mask = len(table) - 1
    for row in rows:
        hole = _home(devices[row], windows[row], mask)
        while table[hole] != row:
            hole = (hole + 1) & mask
        place = (hole + 1) & mask
        while table[place] != _FREE:
            other = table[place]
            home = _home(devices[other], windows[other], mask)
            # it may stand in the hole unless its home lies behind it
            if (place - home) & mask >= (place - hole) & mask:
                table[hole] = other
                hole = place
            place = (place + 1) & mask
        table[hole] = _FREE
