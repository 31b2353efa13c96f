"""Readings whose stamps are not believed yet, apart from the batch they came in."""

from typing import NamedTuple

import numpy as np

from stream.records import Records
from stream.state import Held

Place = tuple[int, int]
"""Offset of a record, and which reading of it."""


class Waiting(NamedTuple):
    """One of them."""

    records: Records
    """The one record; of many readings in a record the one by itself."""
    ts: int
    part: int

    @property
    def place(self) -> Place:
        """Where it stands in the log."""
        return int(self.records.offsets[0]), self.part

    def frozen(self) -> Held:
        """As it is remembered."""
        (offset, part), arrival = self.place, int(self.records.timestamps[0])
        return Held(offset, arrival, self.records.keys[0], self.records.values[0] or b"", self.ts, part)

    @classmethod
    def thawed(cls, topic: str, partition: int, held: Held) -> "Waiting":
        """As it was before."""
        offset, timestamp = np.array([held.offset]), np.array([held.timestamp])
        records = Records(topic, partition, offset, timestamp, [held.key], [held.value], [()])
        return cls(records, held.ts, held.part)
