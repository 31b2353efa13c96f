"""What is kept aside of a run of records, in columns: which of them, and why."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from scorers.statistics import Ints
from stream.contracts import Flaw, Reason
from stream.parse import Fault

WHOLE = -1
"""In place of a reading's number within its record: the record is the reading."""


class Reject(NamedTuple):
    """A record, or one of many readings in one: its row in the run, why, what exactly, its number in the record."""

    row: int
    reason: Reason | Flaw
    detail: str
    part: int = WHOLE
    value: bytes | None = None
    """What is kept where it is not the record's own bytes."""


@dataclass(frozen=True, slots=True)
class Rejects:
    """``n`` of them, in any order."""

    row: Ints
    part: Ints
    fault: Ints
    """Which of ``faults``."""
    faults: list[Fault]
    values: Mapping[tuple[int, int], bytes] = field(default_factory=dict)
    """By row and part, what is kept where it is not the record's own bytes."""

    @classmethod
    def of(cls, rows: Ints, faults: Sequence[Fault]) -> "Rejects":
        """Whole records, with the fault of each."""
        known: dict[Fault, int] = {}
        fault = np.array([known.setdefault(fault, len(known)) for fault in faults], np.int64)
        return cls(rows, np.full(len(rows), WHOLE), fault, list(known))

    @classmethod
    def none(cls) -> "Rejects":
        """Nothing."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, [])

    def __len__(self) -> int:
        return len(self.row)

    def __iter__(self) -> Iterator[Reject]:
        for row, part, fault in zip(self.row.tolist(), self.part.tolist(), self.fault.tolist(), strict=True):
            reason, detail = self.faults[fault]
            yield Reject(row, reason, detail, part, self.values.get((row, part)))

    def in_order(self) -> "Rejects":
        """The same, row by row."""
        order = np.argsort(self.row, kind="stable")
        return replace(self, row=self.row[order], part=self.part[order], fault=self.fault[order])

    def behind(self, rows: int) -> "Rejects":
        """The same, with so many records before theirs."""
        values = {(row + rows, part): value for (row, part), value in self.values.items()}
        return replace(self, row=self.row + rows, values=values)

    def reasons(self) -> Counter[Reason | Flaw]:
        """How many there are for each reason."""
        found = Counter[Reason | Flaw]()
        for (reason, _), count in zip(self.faults, np.bincount(self.fault, minlength=1).tolist(), strict=False):
            found[reason] += count
        return +found


def chained(parts: Sequence[Rejects]) -> Rejects:
    """One after the other; of the same run of records."""
    parts = [part for part in parts if len(part)]
    if len(parts) <= 1:
        return parts[0] if parts else Rejects.none()
    before = np.cumsum([0, *(len(part.faults) for part in parts)]).tolist()
    return Rejects(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.part for part in parts]),
        np.concatenate([part.fault + first for part, first in zip(parts, before, strict=False)]),
        list(chain.from_iterable(part.faults for part in parts)),
        {at: value for part in parts for at, value in part.values.items()},
    )
