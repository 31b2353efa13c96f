"""What comes off a partition: columns of raw records, before anything is understood."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from scorers.statistics import Ints

Headers = Sequence[tuple[str, bytes | None]]

_FAR = 2**60
_OVERHEAD = 256
"""Bytes of a record's objects."""
_DIGITS = 18
"""A punctuation of more would not fit 64 bits."""

PUNCTUATION = "tw_punctuation"
"""Header of an empty record that says: no reading before this epoch ms is still to come.

It closes what its time has passed, so that a recording ends when it ends (Tucker et al. 2003).
"""


@dataclass(frozen=True, slots=True)
class Records:
    """``n`` consecutive records of one partition, in offset order."""

    topic: str
    partition: int
    offsets: Ints
    timestamps: Ints
    """The records' own Kafka timestamps, epoch ms."""
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def arrival(self) -> Ints:
        """When the records arrived, epoch ms: their Kafka timestamps, within what may be reckoned with.

        A client may have written any 64 bits there.
        """
        return np.clip(self.timestamps, -_FAR, _FAR)

    @property
    def size(self) -> int:
        """Bytes they take in memory, about."""
        parts = chain(filter(None, self.values), filter(None, self.keys))
        told = sum(len(name) + len(value or b"") for headers in filter(None, self.headers) for name, value in headers)
        return sum(map(len, parts)) + told + _OVERHEAD * len(self)

    def pick(self, rows: Sequence[int]) -> "Records":
        """The chosen rows, in that order."""
        at = np.asarray(rows, dtype=np.intp)
        return Records(
            self.topic,
            self.partition,
            self.offsets[at],
            self.timestamps[at],
            [self.keys[row] for row in at],
            [self.values[row] for row in at],
            [self.headers[row] for row in at],
        )


def join(parts: Sequence[Records]) -> Records:
    """One run of records out of several of the same partition; order is kept."""
    return Records(
        parts[0].topic,
        parts[0].partition,
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        [headers for part in parts for headers in part.headers],
    )


def punctuation(records: Records) -> list[tuple[int, int]]:
    """(row, epoch ms) of every punctuation."""
    if all(records.values):
        return []
    return [
        (row, int(stamp))
        for row, value in enumerate(records.values)
        if not value
        for name, stamp in records.headers[row] or ()
        if name == PUNCTUATION and stamp and stamp.isdigit() and len(stamp) <= _DIGITS
    ]
