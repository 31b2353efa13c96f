"""What every sink is: the protocol between the runner, which reads Kafka, and a store, which keeps what was read."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from scorers.errors import UnavailableError


class Source(NamedTuple):
    """One partition of one topic: what offsets count."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one source; ``offsets`` ascend, and may have gaps."""

    source: Source
    offsets: Sequence[int]
    values: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.offsets)

    def since(self, offset: int) -> "Batch":
        """The records at ``offset`` and after it."""
        first = bisect_left(self.offsets, offset)
        return Batch(self.source, self.offsets[first:], self.values[first:]) if first else self


@dataclass(slots=True)
class Tally:
    """What a sink has made durable since it began: records, of which rejects."""

    records: int = 0
    rejects: int = 0

    def add(self, records: int, rejects: int) -> None:
        """Count one durable write."""
        self.records += records
        self.rejects += rejects


class Origin(msgspec.Struct, frozen=True):
    """Where records come from, kept beside them: offsets mean nothing for another topic or cluster.

    ``topics`` maps names to topic ids, which change when a topic is made again; null where the broker has none.
    """

    cluster: str | None
    topics: Mapping[str, str | None]
    format: int = 1

    def matches(self, other: "Origin") -> bool:
        """Whether both can be the same; what is unknown on one side proves nothing."""
        return (
            self.format == other.format
            and self.topics.keys() == other.topics.keys()
            and _agree(self.cluster, other.cluster)
            and all(_agree(topic_id, other.topics[name]) for name, topic_id in self.topics.items())
        )

    def extends(self, older: "Origin") -> bool:
        """Whether it can be the same with more topics: those that are read since a later version."""
        known = {name: topic_id for name, topic_id in self.topics.items() if name in older.topics}
        return len(known) < len(self.topics) and Origin(self.cluster, known, self.format).matches(older)

    def __str__(self) -> str:
        topics = ", ".join(f"{name} ({topic_id or 'no id'})" for name, topic_id in sorted(self.topics.items()))
        return f"{topics} of cluster {self.cluster}, format {self.format}"


def _agree(left: str | None, right: str | None) -> bool:
    return left is None or right is None or left == right


class OvertakenError(UnavailableError):
    """The store moved without this sink: another one took the partition, or the store lost data."""


@runtime_checkable
class Sink(Protocol):
    """A store that says itself how far it has come.

    Only ``flush`` makes anything durable, and it does so for a whole range of offsets or not at all.
    What was written and not flushed may be forgotten at any time: after ``release`` and ``resume``
    the records since the returned offset come again. Records below that offset are ignored.
    """

    tally: Tally

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to read."""

    def bind(self, origin: Origin) -> None:
        """Open the store for records of ``origin``.

        Raises:
            ConfigError: the store holds records of another origin.
            UnavailableError: the store does not answer.
        """

    def resume(self, source: Source) -> int:
        """Own ``source`` from now on; the offset to read next, 0 where the store holds nothing.

        Raises:
            ConfigError: as ``bind``.
            UnavailableError: the store does not answer, or another process owns the source.
        """

    def write(self, batch: Batch) -> None:
        """Take records of an owned source; memory only."""

    def flush(self, now: float, *, force: bool = False) -> dict[Source, int]:
        """Make durable what is due at ``now`` (epoch seconds), or everything; offsets to read next, where they moved.

        Raises:
            UnavailableError: the store does not answer; what is not durable must be read again.
        """

    def release(self, source: Source) -> None:
        """Forget what is not durable, and let another process own ``source``."""

    def close(self) -> None:
        """Release everything."""


@dataclass(slots=True)
class Positions:
    """The offset that each owned source is read at next, durable or not."""

    offsets: dict[Source, int] = field(default_factory=dict)

    def fresh(self, batch: Batch) -> Batch:
        """The records not seen yet; they count as seen from now on.

        Raises:
            KeyError: the source is not owned.
        """
        unseen = batch.since(self.offsets[batch.source])
        if unseen:
            self.offsets[batch.source] = unseen.offsets[-1] + 1
        return unseen
