"""Messages out: one Kafka transaction an epoch, fenced by topic and partition."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from scorers.errors import TidewatchError, UnavailableError
from stream.encode import Message
from stream.kafka import Broker, consumer, producer

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
_OPERATION_S = 2.0
"""A call that takes longer is taken up again, if nobody has asked us to stop meanwhile."""
_TRANSACTION_MS = 60_000
_LARGEST = 1_000_000_000
"""librdkafka's own limit, before compression: what came in must go out, if only as a reject."""


class FencedError(TidewatchError):
    """Another worker owns the partition now; what this one still holds must be forgotten."""


class BrokenError(TidewatchError):
    """The producer cannot go on and the fate of its last epoch is unknown: start again from the state."""

    retryable = True


class StoppedError(UnavailableError):
    """The broker did not answer until we were told to stop."""


class Outbox:
    """A transactional producer for one partition; blocking, for use off the event loop."""

    def __init__(self, broker: Broker, identity: str, stop: threading.Event) -> None:
        self._stop = stop
        self._identity = identity
        self._producer: Producer = producer(
            broker,
            transactional_id=identity,
            transaction_timeout_ms=_TRANSACTION_MS,
            message_max_bytes=_LARGEST,
            linger_ms=5,
        )

    def open(self) -> None:
        """Fence whoever wrote for this partition before.

        Raises:
            StoppedError: no answer until the stop.
        """
        self._insist(lambda: self._producer.init_transactions(_OPERATION_S))

    def send(self, messages: Sequence[Message]) -> None:
        """Produce all of ``messages`` or none; waits out whatever passes.

        Raises:
            FencedError: another owner has taken over.
            BrokenError: the producer is beyond repair.
            StoppedError: no answer until the stop.
        """
        while not self._attempt(messages):
            log.warning("epoch of %s was aborted; once more", self._identity)
            self._wait()

    def close(self) -> None:
        """Drop what is unsent; an open transaction is aborted by the next owner or the broker."""
        self._producer.purge()
        self._producer.flush(0)

    def _attempt(self, messages: Sequence[Message]) -> bool:
        try:
            self._producer.begin_transaction()
            for message in messages:
                self._produce(message)
            self._insist(lambda: self._producer.commit_transaction(_OPERATION_S))
        except KafkaException as error:
            self._judge(error.args[0])
            self._insist(lambda: self._producer.abort_transaction(_OPERATION_S))
            return False
        return True

    def _produce(self, message: Message) -> None:
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    partition=message.partition,
                    headers=[*message.headers],
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _insist(self, operation: Callable[[], None]) -> None:
        while True:
            try:
                operation()
            except KafkaException as error:
                fault = error.args[0]
                if not fault.retriable():
                    raise
                log.warning("%s: %s; waiting", self._identity, fault.str())
                self._wait()
            else:
                return

    def _wait(self) -> None:
        if self._stop.wait(_PAUSE_S):
            raise StoppedError(f"Kafka did not answer for {self._identity!r} before the stop; the epoch is redone.")

    def _judge(self, fault: KafkaError) -> None:
        """Raise unless the transaction can be aborted and tried again."""
        if fault.code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001 - librdkafka's own codes carry the underscore
            raise FencedError(f"{self._identity} has another owner.")
        if fault.fatal() or not fault.txn_requires_abort():
            raise BrokenError(f"{self._identity}: {fault.str()}")


def remembered(broker: Broker, topic: str, partition: int, stop: threading.Event) -> Iterator[tuple[bytes, bytes]]:
    """Every committed (key, value) of one partition of the state topic, oldest first.

    Reads to the end of the log as it is now, through other owners' open transactions.

    Raises:
        StoppedError: no answer until the stop.
    """
    reader: Consumer = consumer(broker, "tidewatch-state", enable_partition_eof=True, fetch_wait_max_ms=10)
    place = TopicPartition(topic, partition, OFFSET_BEGINNING)
    try:
        end = _end(broker, place, stop)
        reader.assign([place])
        while True:
            if stop.is_set():
                raise StoppedError(f"Kafka did not give back the state in {topic!r} before the stop.")
            for message in reader.consume(10_000, 0.2):
                fault = message.error()
                if fault is None:
                    yield message.key() or b"", message.value() or b""
                elif fault.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= end:  # noqa: SLF001
                    return
                elif fault.code() != KafkaError._PARTITION_EOF and not fault.retriable():  # noqa: SLF001
                    raise UnavailableError(f"The state in {topic!r} cannot be read: {fault.str()}.")
    finally:
        reader.close()


def _end(broker: Broker, place: TopicPartition, stop: threading.Event) -> int:
    probe: Consumer = consumer(broker, "tidewatch-state", isolation_level="read_uncommitted")
    try:
        while True:
            try:
                _, end = probe.get_watermark_offsets(place, timeout=_OPERATION_S)
            except KafkaException as error:
                log.warning("the state in %r is out of reach: %s", place.topic, error.args[0].str())
                if stop.wait(_PAUSE_S):
                    raise StoppedError(f"Kafka did not answer for {place.topic!r} before the stop.") from error
            else:
                return int(end)
    finally:
        probe.close()
