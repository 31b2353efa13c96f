"""What comes off a partition: columns of raw records, before anything is understood."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from scorers.statistics import Ints
from stream.texts import Texts

Headers = Sequence[tuple[str, bytes | None]]

_FAR = 2**60
_OVERHEAD = 256
"""Bytes of a record's objects."""
_COLUMNS = 128
"""Bytes of a record's numbers, here and in what is made of them."""
_DIGITS = 18
"""A punctuation of more would not fit 64 bits."""

PUNCTUATION = "tw_punctuation"
"""Header of an empty record that says: no reading before this epoch ms is still to come.

It closes what its time has passed, so that a recording ends when it ends (Tucker et al. 2003).
"""
ACCEPTANCE = "tw_accept"
"""Header of an empty record, keyed by a device: ``stream.contracts.Acceptance`` as JSON."""


@dataclass(frozen=True, slots=True)
class Records:
    """``n`` consecutive records of one partition, in offset order."""

    topic: str
    partition: int
    offsets: Ints
    timestamps: Ints
    """The records' own Kafka timestamps, epoch ms."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

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
        """Bytes they take in memory, about; headers are not looked into."""
        if isinstance(self.values, Texts):
            return len(self.values.buffer) + _COLUMNS * len(self)
        parts = chain(filter(None, self.values), filter(None, self.keys))
        return sum(map(len, parts)) + _OVERHEAD * len(self)

    def since(self, offset: int) -> "Records":
        """Those from an offset on."""
        return self.part(int(np.searchsorted(self.offsets, offset)), len(self))

    def part(self, begin: int, end: int) -> "Records":
        """The rows from ``begin`` to before ``end``."""
        if begin == 0 and end == len(self):
            return self
        at = slice(begin, end)
        return Records(
            self.topic, self.partition, self.offsets[at], self.timestamps[at],
            self.keys[at], self.values[at], self.headers[at],
        )  # fmt: skip

    def pick(self, rows: Sequence[int]) -> "Records":
        """The chosen rows, in that order, apart from the others in memory."""
        at = np.asarray(rows, dtype=np.intp)
        return Records(
            self.topic,
            self.partition,
            self.offsets[at],
            self.timestamps[at],
            Texts.of(self.keys).pick(at),
            Texts.of(self.values).pick(at),
            [self.headers[row] for row in at],
        )


def join(parts: Sequence[Records]) -> Records:
    """One run of records out of several of the same partition; order is kept."""
    return Records(
        parts[0].topic,
        parts[0].partition,
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        Texts.of([key for part in parts for key in part.keys]),
        Texts.of([value for part in parts for value in part.values]),
        [headers for part in parts for headers in part.headers],
    )


def marks(records: Records) -> list[tuple[int, int | bytes]]:
    """Every record that is no reading, by row: the time of a punctuation, epoch ms, or the JSON of an acceptance."""
    found: list[tuple[int, int | bytes]] = []
    for row in np.flatnonzero(Texts.of(records.values).size <= 0).tolist():
        for name, value in records.headers[row] or ():
            if name == PUNCTUATION and value and value.isdigit() and len(value) <= _DIGITS:
                found.append((row, int(value)))
            elif name == ACCEPTANCE and value:
                found.append((row, value))
    return found
