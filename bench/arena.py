"""Where runners compete: a broker with the topic full, a fleet, a folder."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient

from bench.job import Job
from scorers.errors import UnavailableError
from stream.contracts import Topics
from stream.kafka import Broker
from stream.window import WindowSpec

PARTITIONS = 8
_DELETION_S = 30.0


@dataclass(frozen=True, slots=True)
class Arena:
    """What a runner finds."""

    job: Job
    broker: Broker
    prefix: str
    folder: Path
    kafka: str
    """What Kafka is."""
    kafka_pid: int | None
    """Its process, where we started it."""
    partitions: int = PARTITIONS
    """Of every topic."""
    window: WindowSpec = field(default_factory=WindowSpec)
    """What our own worker makes of the readings; the others make windows of the default."""

    @property
    def topics(self) -> Topics:
        """The topics, which nobody else uses."""
        return Topics.prefixed(self.prefix)

    @property
    def results(self) -> int:
        """How many windows the job makes."""
        return self.job.count(self.window)

    @property
    def source(self) -> str:
        """The topic that the job fills."""
        return self.topics.sessions if self.job.sessions else self.topics.readings

    @property
    def fleet(self) -> Path:
        """The models."""
        return self.folder / "fleet.arrow"

    @property
    def past(self) -> Path:
        """What the peers train their models on."""
        return self.folder / "past.npy"

    def clear(self, *, everything: bool = False) -> None:
        """Delete every topic but the one that the job fills, or this too.

        Raises:
            UnavailableError: Kafka does not get it done.
        """
        doomed = [name for name in self.topics.names() if everything or name != self.source]
        admin = AdminClient(self.broker.config())
        present = admin.list_topics(timeout=10).topics
        there = [name for name in doomed if name in present]
        for future in admin.delete_topics(there).values() if there else ():
            future.result(_DELETION_S)
        deadline = time.monotonic() + _DELETION_S
        while set(doomed) & set(admin.list_topics(timeout=10).topics):
            if time.monotonic() > deadline:
                raise UnavailableError(f"Kafka at {self.broker.bootstrap!r} does not delete topics; look at its log.")
            time.sleep(0.05)
