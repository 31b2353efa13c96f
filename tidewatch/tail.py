"""Where topics end, how far a group has come, and what arrives: small readers for the command line."""

import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from scorers.errors import UnavailableError
from stream.kafka import Broker, consumer, unreachable
from tidewatch.servers import quiet_admin

TIMEOUT_S = 10.0

Place = tuple[str, int]
"""Topic and partition."""


def ends(broker: Broker, topics: Sequence[str]) -> dict[Place, int]:
    """The offset after the last record of every partition.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    reader = consumer(broker, "tidewatch-tail", isolation_level="read_uncommitted")
    try:
        return {place: _watermarks(reader, place)[1] for place in _places(reader, topics)}
    except KafkaException as error:
        raise unreachable(broker, error) from error
    finally:
        reader.close()


def backlog(broker: Broker, group: str, topics: Sequence[str]) -> dict[Place, int]:
    """How many records of each partition the group has yet to be done with; empty partitions are left out.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    last = {place: end for place, end in ends(broker, topics).items() if end}
    wanted = [TopicPartition(*place) for place in last]
    if not wanted:
        return {}
    admin = quiet_admin(broker)  # kept until the answer is there
    try:
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
        (answer,) = (future.result(TIMEOUT_S) for future in asked.values())
    except KafkaException as error:
        raise unreachable(broker, error) from error
    done = {(p.topic, p.partition): max(p.offset, 0) for p in answer.topic_partitions}
    return {place: end - done.get(place, 0) for place, end in last.items()}


def drained(broker: Broker, group: str, topics: Sequence[str], *, within_s: float) -> bool:
    """Wait until the group is done with everything; whether it was in time."""
    deadline = time.monotonic() + within_s
    while any(backlog(broker, group, topics).values()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


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


def _watermarks(reader: Consumer, place: Place) -> tuple[int, int]:
    low, high = reader.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
    return int(low), int(high)
