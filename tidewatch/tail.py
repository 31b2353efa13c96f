"""Where topics end, how far a group has come, and what arrives: small readers for the command line."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from scorers.errors import UnavailableError
from stream.kafka import Broker, consumer, unreachable

TIMEOUT_S = 10.0

Place = tuple[str, int]
"""Topic and partition."""


def ends(broker: Broker, topics: Sequence[str]) -> dict[Place, int]:
    """The offset after the last record of every partition.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    with _reader(broker, "tidewatch-tail") as reader:
        return _ends(reader, _places(reader, topics))


def backlog(broker: Broker, group: str, topics: Sequence[str]) -> dict[Place, int]:
    """How many records of each partition the group has yet to be done with.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    with _reader(broker, group) as reader:
        return _backlog(reader, _places(reader, topics))


def drained(broker: Broker, group: str, topics: Sequence[str], *, within_s: float) -> bool:
    """Wait until the group is done with everything; whether it was in time.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    deadline = time.monotonic() + within_s
    with _reader(broker, group) as reader:
        places = _places(reader, topics)
        while not _done(reader, places, late=time.monotonic() > deadline):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
    return True


def _done(reader: Consumer, places: Sequence[Place], *, late: bool) -> bool:
    try:
        return not any(_backlog(reader, places).values())
    except KafkaException:  # a broker that has just started does not know its groups yet
        if late:
            raise
        return False


def _ends(reader: Consumer, places: Sequence[Place]) -> dict[Place, int]:
    return {place: int(reader.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)[1]) for place in places}


def _backlog(reader: Consumer, places: Sequence[Place]) -> dict[Place, int]:
    last = _ends(reader, places)
    told = reader.committed([TopicPartition(*place) for place in places], timeout=TIMEOUT_S)
    done = {(place.topic, place.partition): max(place.offset, 0) for place in told}
    return {place: end - done.get(place, 0) for place, end in last.items()}


@contextmanager
def _reader(broker: Broker, group: str) -> Iterator[Consumer]:
    """A consumer that asks and joins nothing; what Kafka does not answer becomes one sentence."""
    reader = consumer(broker, group, isolation_level="read_uncommitted")
    try:
        yield reader
    except KafkaException as error:
        raise unreachable(broker, error) from error
    finally:
        reader.close()


def follow(broker: Broker, topics: Sequence[str], *, beginning: bool, stop: Callable[[], bool]) -> Iterator[Message]:
    """Committed records as they arrive, from the beginning or from now on.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    reader = consumer(broker, "tidewatch-follow", auto_offset_reset="earliest" if beginning else "latest")
    try:
        start = OFFSET_BEGINNING if beginning else OFFSET_END
        reader.assign([TopicPartition(topic, partition, start) for topic, partition in _places(reader, topics)])
        while not stop():
            yield from (message for message in reader.consume(1_000, 0.2) if message.error() is None)
    except KafkaException as error:
        raise unreachable(broker, error) from error
    finally:
        reader.close()


def gather(broker: Broker, topics: Sequence[str]) -> Iterator[Message]:
    """Every committed record there is now.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    left = {place for place, end in ends(broker, topics).items() if end}
    reader = consumer(broker, "tidewatch-gather", enable_partition_eof=True)
    try:
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in left])
        while left:
            for message in reader.consume(1_000, 0.5):
                fault = message.error()
                if fault is None:
                    yield message
                elif fault.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name for it
                    left.discard((message.topic(), message.partition()))
    except KafkaException as error:
        raise unreachable(broker, error) from error
    finally:
        reader.close()


def _places(reader: Consumer, topics: Sequence[str]) -> list[Place]:
    known = reader.list_topics(timeout=TIMEOUT_S).topics
    for topic in topics:
        if topic not in known:
            raise UnavailableError(
                f"Topic {topic!r} does not exist; start the worker, which makes it, or set topics.prefix."
            )
    return [(topic, partition) for topic in topics for partition in known[topic].partitions]
