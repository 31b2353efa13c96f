"""Rejects back to where they came from, once: a batch and the receipts for it are one Kafka transaction.

What a receipt tells of is never sent again, and without its receipt nothing was sent. Whoever opens the
outbox shuts out every other replay first, and so finds in the log all that was ever sent.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

from scorers.errors import ConfigError, InputError, UnavailableError
from stream.contracts import Receipt, Topics
from stream.encode import receipt_message
from stream.kafka import Broker
from stream.message import Message
from stream.outbox import BrokenError, ExactlyOnce, FencedError, RefusedError, StoppedError
from tidewatch.console import progress
from tidewatch.rejects import Id, Ledger, Reject, Selection
from tidewatch.shelf import Shelf, inputs
from tidewatch.tail import Place, ends, retention
from tidewatch.topics import is_embedded

RECORDS = 1_000
"""At most so many rejects a transaction."""
BYTES = 16 * 1024 * 1024
"""At most so many bytes a transaction, unless one reject alone is larger."""
NAMED = 5
"""So many of those refused for one reason are named; `rejects list --pending` has all."""
MARGIN_MS = 3_600_000
"""How long before Kafka may delete a record it is too late to send it."""
HOPELESS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
    }
)
"""Kafka's refusals that no waiting helps against."""


@dataclass(slots=True)
class Resent:
    """What came of a replay."""

    pending: int = 0
    """Asked for and not sent before."""
    already: int = 0
    """Asked for and sent before."""
    sent: int = 0
    empty: int = 0
    """Left out: there is nothing to send."""
    refused: dict[str, list[Id]] = field(default_factory=dict)
    """Not sent, or not taken by Kafka: by why, the first few of them."""
    kept: int = 0
    """How many were refused in all."""

    def refuse(self, reject: Id, why: str) -> None:
        """Leave it where it is."""
        self.kept += 1
        named = self.refused.setdefault(why, [])
        if len(named) < NAMED:
            named.append(reject)

    @property
    def done(self) -> int:
        """How many of the pending were looked at."""
        return self.sent + self.empty + self.kept


def resend(broker: Broker, topics: Topics, selection: Selection, app: str, *, stop: threading.Event) -> Resent:
    """Send back what is asked for and was not sent before, until ``stop``.

    Raises:
        ConfigError: the broker is the embedded one.
        InputError: an id asked for is not among the rejects.
        FencedError: another replay has begun.
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    if is_embedded(broker):
        raise ConfigError(
            "The embedded broker fences nobody, and a transaction on its inputs stops the worker: "
            "set TIDEWATCH_KAFKA to a real one to replay."
        )
    target = Inputs.look(broker, topics)
    outbox = ExactlyOnce(broker, stop, f"{app}-{topics.rejects}-replay")
    resender = Resender(outbox, topics.rejects, target, _now)
    try:
        outbox.open(stop)
        shelf = Shelf.look(broker, topics, selection, settled=True)
        _run(resender, shelf, stop)
    except FencedError as error:
        raise FencedError(
            f"Another `rejects replay` began and this one ended, after {resender.resent.sent:,} rejects; "
            "none goes twice: run it again for what the other was not asked for."
        ) from error
    except (BrokenError, StoppedError) as error:
        raise UnavailableError(
            f"Kafka took {resender.resent.sent:,} rejects and did not say what became of the next ({error}); "
            "run it again: what was sent is known and not sent twice."
        ) from error
    finally:
        outbox.close()
    return resender.resent


def _run(resender: "Resender", shelf: Shelf, stop: threading.Event) -> None:
    ledger, resent = shelf.survey(), resender.resent
    check(shelf.selection, ledger)
    resent.pending, resent.already = ledger.waiting.total(), ledger.replayed.total()
    with progress("sending back") as show:
        for _ in resender.run(reject for reject in shelf.rejects() if ledger.pending(reject)):
            show(resent.done, resent.pending)
            if stop.is_set():
                return


def check(selection: Selection, ledger: Ledger) -> None:
    """Make sure that every id asked for is there.

    Raises:
        InputError: one is not.
    """
    for name in sorted(selection.ids - ledger.found):
        raise InputError(f"There is no reject {str(name)!r}; `rejects list` tells which there are.")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where originals go: the partitions there are, and the time (epoch ms) before which each topic keeps nothing."""

    places: Collection[Place]
    oldest: Mapping[str, int]

    @classmethod
    def look(cls, broker: Broker, topics: Topics) -> "Inputs":
        """As they are now.

        Raises:
            UnavailableError: Kafka does not answer, or a topic is missing.
        """
        names = inputs(topics)
        places = ends(broker, names).keys()
        kept = retention(broker, names)
        return cls(places, {topic: _now() - span_ms + MARGIN_MS for topic, span_ms in kept.items()})

    def obstacle(self, reject: Reject) -> str | None:
        """Why it cannot go back, if it cannot."""
        topic, *_ = reject.id
        if reject.id[:2] not in self.places:
            return "its partition is not there any more"
        if 0 <= reject.timestamp < self.oldest.get(topic, 0):
            # a worker that is away would never see it
            return f"{topic} does not keep records as old as this: raise its retention.ms first"
        return None


def _now() -> int:
    return time.time_ns() // 1_000_000


class Resender:
    """Sends rejects back; ``clock`` gives epoch ms."""

    def __init__(self, outbox: ExactlyOnce, topic: str, target: Inputs, clock: Callable[[], int]) -> None:
        self.resent = Resent()
        self._outbox = outbox
        self._topic = topic
        self._target = target
        self._clock = clock

    def run(self, rejects: Iterable[Reject]) -> Iterator[None]:
        """Send them all, in order; pauses after every batch.

        Raises:
            FencedError: another replay has begun.
            BrokenError: what became of the last batch is unknown.
            StoppedError: Kafka did not answer until the stop.
        """
        for batch in batches(self._fit(rejects)):
            self._deliver(batch)
            yield

    def _fit(self, rejects: Iterable[Reject]) -> Iterator[Reject]:
        for reject in rejects:
            if not reject.value:
                self.resent.empty += 1
            elif obstacle := self._target.obstacle(reject):
                self.resent.refuse(reject.id, obstacle)
            else:
                yield reject

    def _deliver(self, batch: list[Reject]) -> None:
        """Send what Kafka takes; halves find out what it does not."""
        try:
            self._outbox.send(originals(batch), receipts(self._topic, batch, self._clock()), hopeless=HOPELESS)
        except RefusedError as error:
            if len(batch) == 1:
                self.resent.refuse(batch[0].id, str(error))
                return
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            self._deliver(batch[middle:])
        else:
            self.resent.sent += len(batch)


def batches(rejects: Iterable[Reject], records: int = RECORDS, size: int = BYTES) -> Iterator[list[Reject]]:
    """Runs of at most so many rejects and bytes, but for a single one that is larger."""
    batch: list[Reject] = []
    held = 0
    for reject in rejects:
        if batch and (len(batch) == records or held + reject.size > size):
            yield batch
            batch, held = [], 0
        batch.append(reject)
        held += reject.size
    if batch:
        yield batch


def originals(batch: Iterable[Reject]) -> list[Message]:
    """Key, bytes and timestamp as they came.

    Each goes to the partition it came from, not to the one its key asks for: all that its device has sent
    is there, and the clock it is judged by.
    """
    return [
        Message(reject.id.topic, reject.key, reject.value, b"", reject.id.partition, max(reject.timestamp, 0))
        for reject in batch
    ]


def receipts(topic: str, batch: Iterable[Reject], now: int) -> list[Message]:
    """One for each partition of ``topic``, that of rejects, which the batch is kept in."""
    kept: dict[int, list[int]] = {}
    for reject in batch:
        kept.setdefault(reject.partition, []).append(reject.offset)
    return [receipt_message(topic, partition, Receipt(offsets), now) for partition, offsets in kept.items()]
