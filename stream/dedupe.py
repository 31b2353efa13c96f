"""Which readings have been seen before: (device, stamp) pairs of the windows still open.

Only a reading that is not newer than its device's clock can be a repetition, so an orderly stream
is never looked up; what it leaves behind is appended and sorted when first needed.
"""

import numpy as np
from numpy.typing import NDArray

from scorers.errors import ConfigError
from scorers.statistics import Ints

_STAMP_BITS = 43
_MOST_DEVICES = 1 << (64 - _STAMP_BITS)
_MOST_RUNS = 16

Keys = NDArray[np.uint64]


class Seen:
    """The readings of one partition's open windows."""

    def __init__(self) -> None:
        self._runs: list[Keys] = []
        self._sorted = 0

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def repeated(self, device: Ints, ts: Ints, suspect: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of ``n`` readings repeat an earlier one; only the ``suspect`` can.

        The others are remembered.
        """
        key = _key(device, ts)
        result = np.zeros(len(key), np.bool_)
        if suspect.any():
            order = np.argsort(key, kind="stable")
            again = np.append(False, key[order][1:] == key[order][:-1])
            result[order[again]] = True
            result[suspect] |= self._known(key[suspect])
        self._runs.append(key[~result])
        return result

    def _known(self, key: Keys) -> NDArray[np.bool_]:
        for number in range(self._sorted, len(self._runs)):
            self._runs[number].sort()
        if len(self._runs) > _MOST_RUNS:
            self._runs = [np.sort(np.concatenate(self._runs))]
        self._sorted = len(self._runs)
        found = np.zeros(len(key), np.bool_)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, key), max(len(run) - 1, 0))
            if len(run):
                found |= run[at] == key
        return found

    def forget(self, closed: Ints, size_ms: int) -> None:
        """Drop what lies in closed windows alone; ``closed`` is per device."""
        everything = np.concatenate([*self._runs, np.empty(0, np.uint64)])
        device = (everything >> np.uint64(_STAMP_BITS)).astype(np.int64)
        ts = (everything & np.uint64((1 << _STAMP_BITS) - 1)).astype(np.int64)
        # the last window that holds ts ends no later than ts + size
        self._runs = [everything[ts + size_ms > closed[device]]]
        self._sorted = 0


def _key(device: Ints, ts: Ints) -> Keys:
    if len(device) and int(device.max()) >= _MOST_DEVICES:
        raise ConfigError(f"More than {_MOST_DEVICES} devices in one partition; give the topic more partitions.")
    key: Keys = (device.astype(np.uint64) << np.uint64(_STAMP_BITS)) | ts.astype(np.uint64)
    return key
