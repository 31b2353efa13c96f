"""Which fetched records count: those asked for after the last seek, from where it went. Pure.

A client that goes on fetching while partitions change hands hands over what begins anywhere: before the
place that a new owner needs, or beyond it. Taken in, that would be counted twice, or hide a gap.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar


class Record(Protocol):
    """What has an offset."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""


Place = TypeVar("Place")
"""A partition."""
Some = TypeVar("Some", bound=Record)


class Cursor(Generic[Place]):
    """The next offset of each partition, while they are ours."""

    def __init__(self) -> None:
        self._next: dict[Place, int] = {}
        self._seeks = 0
        self._placed = False
        self._left_out: set[Place] = set()

    def lift(self) -> None:
        """Partitions change hands: nothing counts until ``place``."""
        self._placed = False

    def place(self, starts: Mapping[Place, int]) -> None:
        """Every partition of ours has been sought to its start."""
        self._next = dict(starts)
        self._left_out.clear()
        self._seeks += 1
        self._placed = True

    @property
    def ticket(self) -> int | None:
        """What to show with the records of a fetch that is asked for now; None: they will not count."""
        return self._seeks if self._placed else None

    def holds(self, ticket: int | None) -> bool:
        """Whether no partition has changed hands since the ticket was given."""
        return ticket is not None and ticket == self.ticket

    def take(self, place: Place, records: Sequence[Some], ticket: int | None) -> Sequence[Some]:
        """The records that count; the cursor moves past them. What does not count is ``overdue``."""
        if not self.holds(ticket) or place not in self._next:
            self.leave(place)
            return ()
        start = self._next[place]
        if records and records[0].offset < start:
            records = [record for record in records if record.offset >= start]
        if records:
            self._next[place] = records[-1].offset + 1
        return records

    def leave(self, place: Place) -> None:
        """Records of a partition were not taken, and the client is past them."""
        self._left_out.add(place)

    def overdue(self) -> dict[Place, int]:
        """Where to seek before the next fetch, to get back what was left out; told once."""
        if not self._placed:
            return {}
        back = {place: self._next[place] for place in self._left_out if place in self._next}
        self._left_out.clear()
        return back
