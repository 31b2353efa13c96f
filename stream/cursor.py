"""Which fetched records count: those asked for after the last seek, from where it went. Pure.

A client that goes on fetching while partitions change hands hands over what begins anywhere: before the
place that a new owner needs, or beyond it. Taken in, that would be counted twice, or hide a gap.
"""

from collections.abc import Mapping
from typing import Generic, Protocol, Self, TypeVar

from scorers.statistics import Ints


class Run(Protocol):
    """Consecutive records, at least one."""

    @property
    def offsets(self) -> Ints:
        """Of each of them, ascending."""

    def since(self, offset: int) -> Self:
        """Those from an offset on."""

    def __len__(self) -> int:
        """How many they are."""


Place = TypeVar("Place")
"""A partition."""
Some = TypeVar("Some", bound=Run)


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

    def take(self, place: Place, run: Some, ticket: int | None) -> Some | None:
        """The records that count, if any; the cursor moves past them. What does not count is ``overdue``."""
        if not self.holds(ticket) or place not in self._next:
            self.leave(place)
            return None
        run = run.since(self._next[place])
        if not len(run):
            return None
        self._next[place] = int(run.offsets[-1]) + 1
        return run

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
