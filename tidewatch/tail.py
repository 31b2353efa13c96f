"""Where topics end, how far a group has come, and what arrives: small readers for the command line."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource

from scorers.errors import UnavailableError
from stream.kafka import Broker, Setting, consumer, unreachable

TIMEOUT_S = 10.0
SETTLE_S = 90.0
"""Kafka ends a transaction that its producer has left within a minute or so."""
_AT_ONCE = 200
"""Records taken from the client at once; they may be large."""

_STEP = 1_000
"""Offsets that are looked at first for what is written often."""
_LEADERLESS = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
"""What a broker says of a partition that has just been made, or moves."""
_WITHHELD = "Kafka at {!r} does not give all of {!r}: it is away, or a transaction is open there; try again."

Place = tuple[str, int]
"""Topic and partition."""


class Span(NamedTuple):
    """Offsets of one partition, half-open."""

    first: int
    end: int


def ends(broker: Broker, topics: Sequence[str]) -> dict[Place, int]:
    """The offset after the last record of every partition.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    with _reader(broker, "tidewatch-tail") as reader:
        return _ends(reader, _places(reader, topics))


def spans(broker: Broker, topics: Sequence[str], *, stable: bool = False) -> dict[Place, Span]:
    """What every partition holds now; with ``stable``, before the first transaction that is open there.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    isolation = "read_committed" if stable else "read_uncommitted"
    with _reader(broker, "tidewatch-tail", isolation_level=isolation) as reader:
        return {place: _span(reader, place) for place in _places(reader, topics)}


def _span(reader: Consumer, place: Place) -> Span:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return Span(*reader.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def within(broker: Broker, wanted: Mapping[Place, Span], *, settled: bool = False) -> Iterator[Message]:
    """The committed records of these spans, each partition's in order.

    A transaction still open there hides what lies behind its beginning; with ``settled`` its end is waited for.

    Raises:
        UnavailableError: Kafka does not answer, or does not give a partition.
    """
    left = {place: span for place, span in wanted.items() if span.first < span.end}
    with _at(broker, {place: span.first for place, span in left.items()}) as reader:
        heard = time.monotonic()
        while left:
            for place, offset, message in _arrivals(reader, left):
                end = left[place].end
                if message is not None and offset < end:
                    yield message
                # a record without bytes is false
                if offset >= end - (message is not None) or (message is None and not settled):
                    del left[place]
                    reader.pause([TopicPartition(*place)])
                heard = time.monotonic()
            if time.monotonic() - heard > (SETTLE_S if settled else TIMEOUT_S):
                raise UnavailableError(_WITHHELD.format(broker.bootstrap, min(left)[0]))


def heads(broker: Broker, starts: Mapping[Place, int]) -> dict[Place, Message]:
    """The first committed record at or after an offset of each partition; without those where there is none.

    Raises:
        UnavailableError: Kafka does not answer, or does not give a partition.
    """
    found, left = {}, set(starts)
    narrow: dict[str, Setting] = {"fetch_message_max_bytes": 65_536, "queued_max_messages_kbytes": 1_024}
    with _at(broker, starts, **narrow) as reader:
        deadline = time.monotonic() + TIMEOUT_S
        while left:
            for place, _, message in _arrivals(reader, left):
                if message is not None:
                    found[place] = message
                left.discard(place)
                reader.pause([TopicPartition(*place)])
            if left and time.monotonic() > deadline:
                raise UnavailableError(_WITHHELD.format(broker.bootstrap, min(left)[0]))
    return found


def latest(broker: Broker, topic: str, wanted: Mapping[int, Collection[bytes]]) -> dict[bytes, bytes]:
    """The last committed value of each key in its partition, as far as there is one.

    Looked for backwards from the end, in steps that grow tenfold: what is written often is found in the first.

    Raises:
        UnavailableError: Kafka does not answer, or the topic is missing.
    """
    held = {place: span for place, span in spans(broker, [topic], stable=True).items() if place[1] in wanted}
    found: dict[bytes, bytes] = {}
    step = _STEP
    while held:
        last = {place: Span(max(span.first, span.end - step), span.end) for place, span in held.items()}
        seen = {}
        for message in within(broker, last):
            if message.key() in wanted[message.partition() or 0]:
                seen[message.key() or b""] = message.value() or b""
        found = seen | found
        held = {
            place: Span(span.first, last[place].first)
            for place, span in held.items()
            if span.first < last[place].first and not found.keys() >= set(wanted[place[1]])
        }
        step *= 10
    return found


@contextmanager
def _at(broker: Broker, starts: Mapping[Place, int], **options: Setting) -> Iterator[Consumer]:
    """A consumer of committed records that stands at these offsets and is told where partitions end."""
    # a few megabytes fetched may hold 100,000 records well compressed, a kilobyte each once they are unpacked
    modest: dict[str, Setting] = {"fetch_message_max_bytes": 262_144, "queued_max_messages_kbytes": 16_384}
    told: dict[str, Setting] = {"enable_partition_eof": True, "fetch_wait_max_ms": 10}
    reader = consumer(broker, "tidewatch-at", **(modest | told | options))
    try:
        reader.assign([TopicPartition(*place, start) for place, start in starts.items()])
        yield reader
    except KafkaException as error:
        raise unreachable(broker, error) from error
    finally:
        reader.close()


def _arrivals(reader: Consumer, places: Collection[Place]) -> Iterator[tuple[Place, int, Message | None]]:
    """Place, offset and record of what arrives for ``places`` while it is among them; no record at an end."""
    for message in reader.consume(_AT_ONCE, 0.5):
        place, fault = (message.topic() or "", message.partition() or 0), message.error()
        if fault is None or fault.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name for it
            if place in places:
                yield place, message.offset() or 0, message if fault is None else None
        elif not fault.retriable():
            raise KafkaException(fault)


def backlog(broker: Broker, group: str, topics: Sequence[str]) -> dict[Place, int]:
    """How many records of each partition the group has yet to be done with.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    with _reader(broker, group) as reader:
        return _backlog(reader, _places(reader, topics))


def committed(broker: Broker, group: str, topics: Sequence[str]) -> dict[Place, int]:
    """Where the group has told that it goes on, for the partitions where it has.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    with _reader(broker, group) as reader:
        told = reader.committed([TopicPartition(*place) for place in _places(reader, topics)], timeout=TIMEOUT_S)
    return {(place.topic, place.partition): place.offset for place in told if place.offset >= 0}


def retention(broker: Broker, topics: Sequence[str]) -> dict[str, int]:
    """For how many ms by their own timestamps records are kept, where that is how it goes.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    admin = AdminClient({**broker.config(), "log_level": 0})
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    kept = {}
    try:
        for about, answer in admin.describe_configs(asked, request_timeout=TIMEOUT_S).items():
            config = {entry.name: entry.value for entry in answer.result().values()}
            by_age = "delete" in config["cleanup.policy"] and int(config["retention.ms"]) >= 0
            if by_age and config["message.timestamp.type"] == "CreateTime":
                kept[about.name] = int(config["retention.ms"])
    except KafkaException as error:
        raise unreachable(broker, error) from error
    return kept


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
    return {place: _span(reader, place).end for place in places}


def _backlog(reader: Consumer, places: Sequence[Place]) -> dict[Place, int]:
    last = _ends(reader, places)
    told = reader.committed([TopicPartition(*place) for place in places], timeout=TIMEOUT_S)
    done = {(place.topic, place.partition): max(place.offset, 0) for place in told}
    return {place: end - done.get(place, 0) for place, end in last.items()}


@contextmanager
def _reader(broker: Broker, group: str, *, isolation_level: str = "read_uncommitted") -> Iterator[Consumer]:
    """A consumer that asks and joins nothing; what Kafka does not answer becomes one sentence."""
    reader = consumer(broker, group, isolation_level=isolation_level)
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
