"""Messages out: epochs of outputs and state, fenced by topic and partition; exactly or at least once."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from enum import StrEnum
from functools import partial
from itertools import count
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from scorers.errors import TidewatchError, UnavailableError
from stream.kafka import Broker, batch_producer, consumer
from stream.message import Output, singly
from stream.producer import Load, RefusedMessage

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
_POLL_S = 0.1
_OPERATION_S = 2.0
"""A call that takes longer is taken up again, if nobody has asked us to stop meanwhile."""
_LINGER_MS = 5
_FOR_EVER = 0
_TRANSACTION_MS = 60_000
_LARGEST = 1_000_000_000
"""librdkafka's own limit, before compression: what came in must go out, if only as a reject."""
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001 - librdkafka's own codes carry the underscore
_SPOILED = {KafkaError._STATE, KafkaError._FATAL}  # noqa: SLF001 - as above
"""What producing says in a transaction that is lost already."""


_Refused = dict[int, list[tuple[int, KafkaError]]]
"""Of each load on its way, by its tag: the rows that were refused, and why."""


class FencedError(TidewatchError):
    """Another worker owns the partition now; what this one still holds must be forgotten."""


class BrokenError(TidewatchError):
    """The producer cannot go on and the fate of its last epoch is unknown: start again from the state."""

    retryable = True


class RefusedError(TidewatchError):
    """Kafka does not take a message, now or later; nothing of its transaction is out."""


class StoppedError(UnavailableError):
    """The broker did not answer until we were told to stop."""


class Delivery(StrEnum):
    """What a crash may do to scores, alerts and rejects."""

    EXACTLY_ONCE = "exactly-once"
    """Nothing."""
    AT_LEAST_ONCE = "at-least-once"
    """Those of its last epoch come out once more, with the same values."""


class Outbox(Protocol):
    """The way out of one partition; blocking, for use off the event loop. Fenced or broken, it can only be closed."""

    def open(self, stop: threading.Event) -> None:
        """Fence whoever wrote for this partition before.

        Raises:
            StoppedError: no answer until ``stop``.
        """

    def send(self, outputs: Sequence[Output], state: Sequence[Output]) -> None:
        """Send an epoch, never its state without all of its outputs; waits out whatever passes.

        Raises:
            FencedError: another owner has taken over.
            BrokenError: the producer is beyond repair.
            StoppedError: no answer until the stop.
        """

    def close(self) -> None:
        """Drop what is unsent; an open transaction is aborted by the next owner or the broker."""


def outboxes(broker: Broker, delivery: Delivery, stop: threading.Event) -> Callable[[str], Outbox]:
    """What makes the outbox of each identity; they give up once ``stop`` is set."""
    if delivery is Delivery.EXACTLY_ONCE:
        return partial(ExactlyOnce, broker, stop)
    return partial(AtLeastOnce, broker, stop, Outlet(broker, stop))


class ExactlyOnce:
    """Outputs and state in one transaction: a producer for each partition."""

    def __init__(self, broker: Broker, stop: threading.Event, identity: str) -> None:
        self._stop = stop
        self._identity = identity
        self._producer = batch_producer(
            broker,
            transactional_id=identity,
            transaction_timeout_ms=_TRANSACTION_MS,
            message_max_bytes=_LARGEST,
            linger_ms=_LINGER_MS,
        )

    def open(self, stop: threading.Event) -> None:
        """Fence by initialising transactions."""
        self._insist(lambda: self._producer.init_transactions(_OPERATION_S), stop)

    def send(self, outputs: Sequence[Output], state: Sequence[Output], *, hopeless: Collection[int] = ()) -> None:
        """Produce all or none.

        Raises:
            RefusedError: for a reason among these of Kafka's codes.
        """
        while (fault := self._attempt([*outputs, *state])) is not None:
            if fault.code() in hopeless:
                raise RefusedError(fault.str())
            log.warning("%s: %s; the epoch is sent again", self._identity, fault.str())
            self._wait(self._stop)

    def close(self) -> None:
        """Leave it at that."""
        self._producer.purge()
        self._producer.flush(0)

    def _attempt(self, messages: Sequence[Output]) -> KafkaError | None:
        """Why it was taken back, if it was."""
        try:
            self._producer.begin_transaction()
            self._produce(messages)
            self._insist(lambda: self._producer.commit_transaction(_OPERATION_S), self._stop)
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            self._abort(fault)
            return fault
        return None

    def _produce(self, messages: Sequence[Output]) -> None:
        load, row = Load(messages), 0
        try:
            while (row := self._producer.enqueue(load, row)) < len(load):
                self._producer.poll(_POLL_S)
        except RefusedMessage as error:
            if error.args[0].code() in _SPOILED:
                # what was produced before has failed: a commit cannot succeed any more, and tells why
                self._producer.commit_transaction(_OPERATION_S)
            raise

    def _abort(self, fault: KafkaError) -> None:
        """Make room for another attempt, or raise because there cannot be one."""
        if not fault.fatal():
            try:
                self._insist(lambda: self._producer.abort_transaction(_OPERATION_S), self._stop)
            except KafkaException as error:
                fault = error.args[0]
            else:
                return
        if fault.code() in _FENCED:
            raise FencedError(f"{self._identity} has another owner, or Kafka aborted what it had open for too long.")
        raise BrokenError(f"{self._identity}: {fault.str()}")

    def _insist(self, operation: Callable[[], None], stop: threading.Event) -> None:
        """Repeat what timed out: librdkafka takes up where it was."""
        level = logging.WARNING
        while True:
            try:
                operation()
            except KafkaException as error:
                fault = error.args[0]
                # a conflict would stay one: the call before was given up for good
                if not fault.retriable() or fault.code() == KafkaError._CONFLICT:  # noqa: SLF001 - librdkafka's name
                    raise
                log.log(level, "%s: %s; waiting", self._identity, fault.str())
                level = logging.DEBUG  # said once
                self._wait(stop)
            else:
                return

    def _wait(self, stop: threading.Event) -> None:
        if stop.wait(_PAUSE_S):
            raise StoppedError(f"Kafka did not answer for {self._identity!r} before the stop; the epoch is redone.")


class AtLeastOnce:
    """Outputs through the outlet; then the state, in a transaction that a former owner cannot commit."""

    def __init__(self, broker: Broker, stop: threading.Event, outlet: "Outlet", identity: str) -> None:
        self._outlet = outlet
        self._state = ExactlyOnce(broker, stop, identity)

    def open(self, stop: threading.Event) -> None:
        """Fence by initialising transactions."""
        self._state.open(stop)

    def send(self, outputs: Sequence[Output], state: Sequence[Output]) -> None:
        """Outputs are there for all to see before the state is; a crash between doubles them."""
        self._outlet.send(outputs)
        self._state.send((), state)

    def close(self) -> None:
        """Leave it at that."""
        self._state.close()


class Outlet:
    """One idempotent producer for the outputs of all partitions of a worker; blocking, for many threads."""

    def __init__(self, broker: Broker, stop: threading.Event) -> None:
        self._stop = stop
        self._turn = threading.Lock()
        """Its holder serves the reports of all, and has served them when it lets go."""
        self._tags = count()
        self._refused: _Refused = {}
        self._producer = batch_producer(
            broker,
            report=partial(_report, self._refused),
            message_timeout_ms=_FOR_EVER,
            message_max_bytes=_LARGEST,
            linger_ms=_LINGER_MS,
            delivery_report_only_error=True,
        )

    def send(self, messages: Sequence[Output]) -> None:
        """Return once Kafka has acknowledged every message; what it refuses is sent again.

        Raises:
            BrokenError: the producer is beyond repair.
            StoppedError: no answer until the stop.
        """
        while messages and (refused := self._attempt(messages)):
            one_by_one, fault = list(singly(messages)), refused[0][1]
            messages = [one_by_one[row] for row, _ in refused]
            log.warning("%d for %s: %s; they are sent again", len(messages), messages[0].topic, fault.str())
            self._wait(_PAUSE_S)

    def _attempt(self, messages: Sequence[Output]) -> list[tuple[int, KafkaError]]:
        """The rows that were refused, and why."""
        load = Load(messages, next(self._tags) % 2**31)
        refused = self._refused[load.tag] = []
        try:
            row = 0
            while row < len(load):
                row = self._enqueue(load, row, refused)
            while not self._flushed():
                self._wait(0)
        finally:
            del self._refused[load.tag]
        return refused

    def _enqueue(self, load: Load, row: int, refused: list[tuple[int, KafkaError]]) -> int:
        """The next row to be enqueued."""
        try:
            row = self._producer.enqueue(load, row)
        except RefusedMessage as error:
            fault = error.args[0]
            if fault.code() == KafkaError._FATAL:  # noqa: SLF001 - librdkafka's name
                raise BrokenError(f"The producer of outputs: {fault.str()}") from error
            refused.append((error.row, fault))
            return error.row + 1
        if row < len(load):
            self._flushed()
            self._wait(0)
        return row

    def _flushed(self) -> bool:
        """Whether everything so far is acknowledged or refused; waits a moment for it."""
        with self._turn:
            return self._producer.flush(_POLL_S) == 0

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError("Kafka did not take all outputs before the stop; the epoch is redone.")


def _report(refused: _Refused, tag: int, row: int, fault: KafkaError | None) -> None:
    """Without its outlet, which a client that must tell it would keep for ever."""
    load = refused.get(tag)  # its sender may have been stopped
    if fault is not None and load is not None:
        load.append((row, fault))


def remembered(broker: Broker, topic: str, partition: int, stop: threading.Event) -> dict[bytes, bytes]:
    """The last committed value of every key in one partition of the state topic.

    Reads to the end of the log as it is now, through other owners' open transactions.

    Raises:
        StoppedError: no answer until ``stop``.
    """
    while True:
        try:
            return _read(broker, TopicPartition(topic, partition), stop)
        except KafkaException as error:
            # with clients of its own the next time: one that met Kafka waking up may never learn of the topic
            log.warning("the state in %r is out of reach: %s", topic, error.args[0].str())
            if stop.wait(_PAUSE_S):
                raise _silent(topic) from error


def _read(broker: Broker, place: TopicPartition, stop: threading.Event) -> dict[bytes, bytes]:
    with (
        closing(consumer(broker, "tidewatch-state", isolation_level="read_uncommitted")) as probe,
        closing(consumer(broker, "tidewatch-state", enable_partition_eof=True, fetch_wait_max_ms=10)) as reader,
    ):
        _, end = probe.get_watermark_offsets(place, timeout=_OPERATION_S)
        # asked of the reader itself: knowing the leader it begins at once, and not half a second later
        begin, _ = reader.get_watermark_offsets(place, timeout=_OPERATION_S)
        reader.assign([TopicPartition(place.topic, place.partition, begin)])
        found: dict[bytes, bytes] = {}
        while not stop.is_set():
            for message in reader.consume(10_000, 0.02):
                fault = message.error()
                if fault is None:
                    found[message.key() or b""] = message.value() or b""
                elif fault.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name
                    if (message.offset() or 0) >= end:
                        return found
                elif not fault.retriable():
                    raise KafkaException(fault)
    raise _silent(str(place.topic))


def _silent(topic: str) -> StoppedError:
    return StoppedError(f"Kafka did not give back the state in {topic!r} before the stop.")
