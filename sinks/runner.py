"""Kafka to a sink: the loop that every sink runs in.

The store says where to read on and Kafka's committed offset is only told, for whoever watches the
lag. So there is one way to begin, and every failure ends in it: forget what is not durable, wait,
ask the store, read on from there.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from scorers.errors import UnavailableError
from sinks.base import Batch, Origin, Sink, Source, Tally
from stream.kafka import Broker, consumer, unreachable

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
_STEP = 16
"""Records taken between two looks at their bytes."""
_FETCH_BYTES = 1024 * 1024
MOCK_CLUSTER = "mockCluster"
"""How librdkafka's embedded broker names its cluster; it knows no topic ids and never answers for them."""

Clock = Callable[[], float]
"""Epoch seconds."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How a sink is run.

    ``batch`` records are taken at once, or ``batch_bytes``, or what came within ``poll_s``. A failure is followed by a
    pause of ``backoff_s``, twice as long each time up to ``max_backoff_s``. With ``until`` the run
    ends by itself once everything below these offsets is durable; this process must own the
    partitions named.
    """

    group: str
    batch: int = 5000
    batch_bytes: int = 32 * 1024 * 1024
    poll_s: float = 0.25
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    until: Mapping[Source, int] | None = None


def run(sink: Sink, broker: Broker, spec: RunSpec, *, stop: Callable[[], bool], clock: Clock = time.time) -> Tally:
    """Keep ``sink`` fed until ``stop``, or until ``spec.until`` is durable; what was made durable.

    What the sink cannot take while its store is away stays in Kafka. The sink is closed at the end.

    Raises:
        ConfigError: the store holds records of other topics.
        UnavailableError: Kafka or the store does not answer at the start, a topic is missing, or
            Kafka has shut this consumer out.
    """
    runner = _Runner(sink, broker, spec, clock)
    try:
        runner.open(broker)
        while not stop():
            runner.step()
            if runner.done() and runner.settle():
                return sink.tally
        runner.settle()
    finally:
        runner.close()
    return sink.tally


def origin(broker: Broker, topics: Collection[str]) -> Origin:
    """The cluster and the ids of ``topics``.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    admin = AdminClient(broker.config())
    try:
        present = admin.list_topics(timeout=TIMEOUT_S)  # all: to ask for one by name may create it
        missing = [topic for topic in topics if topic not in present.topics]
        if missing:
            raise UnavailableError(
                f"Topic {missing[0]!r} does not exist; start the worker, which makes it, or set topics.prefix."
            )
        return Origin(present.cluster_id, _topic_ids(admin, present.cluster_id, topics))
    except KafkaException as error:
        raise unreachable(broker, error) from error


def _topic_ids(admin: AdminClient, cluster: str | None, topics: Collection[str]) -> dict[str, str | None]:
    """The id of each topic, None where the broker has none."""
    if cluster and cluster.startswith(MOCK_CLUSTER):
        return dict.fromkeys(topics)
    described = admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT_S)
    return {topic: str(described[topic].result().topic_id) for topic in topics}


class _Runner:
    """One consumer and one sink.

    A source is *waiting* from the group's assignment until the sink has said where to begin, then *owned*.
    """

    def __init__(self, sink: Sink, broker: Broker, spec: RunSpec, clock: Clock) -> None:
        self._sink = sink
        self._spec = spec
        self._clock = clock
        self._consumer = _consumer(broker, spec)
        self._waiting: list[Source] = []
        self._owned: set[Source] = set()
        self._reached: dict[Source, int] = {}
        self._retry_at = float("-inf")
        self._pause = spec.backoff_s

    def open(self, broker: Broker) -> None:
        self._sink.bind(origin(broker, self._sink.topics))
        self._consumer.subscribe(
            list(self._sink.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def step(self) -> None:
        """One turn: place, flush, read."""
        now = self._clock()
        if now >= self._retry_at:
            self._attempt(lambda: self._advance(now), now)
        self._take(self._read())

    def done(self) -> bool:
        """Whether everything below ``until`` was read."""
        until = self._spec.until
        return until is not None and all(self._reached.get(Source(*source), 0) >= end for source, end in until.items())

    def settle(self) -> bool:
        """Make durable what was read; whether that went well."""
        now = self._clock()
        return self._attempt(lambda: self._commit(self._sink.flush(now, force=True)), now)

    def close(self) -> None:
        self._forget()
        self._consumer.close()
        self._sink.close()

    def _attempt(self, action: Callable[[], None], now: float) -> bool:
        try:
            action()
        except UnavailableError as error:
            log.warning("%s What is not durable will be read again.", error)
            self._retry_at = now + self._pause
            self._pause = min(2 * self._pause, self._spec.max_backoff_s)
            self._rewind()
            return False
        return True

    def _advance(self, now: float) -> None:
        if self._waiting:
            self._place()
        moved = self._sink.flush(now)
        if moved:
            self._pause = self._spec.backoff_s
            self._commit(moved)

    def _place(self) -> None:
        """Read on where the store ends."""
        starts = {source: self._start(source) for source in self._waiting}
        self._consumer.assign([TopicPartition(*source, start) for source, start in starts.items()])
        self._owned, self._waiting = set(starts), []
        self._reached.update(starts)

    def _start(self, source: Source) -> int:
        durable = self._sink.resume(source)
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*source), timeout=TIMEOUT_S)
        except KafkaException as error:
            raise UnavailableError(f"Kafka does not answer for {source} ({error}); start it.") from error
        if durable > high:
            raise UnavailableError(
                f"The sink holds {source} up to offset {durable}, Kafka only to {high}; "
                "if the topic was made again, give the sink an empty place."
            )
        if 0 < durable < low:
            log.warning("%s: offsets %d to %d are gone, Kafka keeps them no longer", source, durable, low - 1)
        return max(durable, int(low))

    def _read(self) -> list[Message]:
        """A batch."""
        taken: list[Message] = []
        size, end = 0, time.monotonic() + self._spec.poll_s
        while len(taken) < self._spec.batch and size < self._spec.batch_bytes:
            most = min(_STEP, self._spec.batch - len(taken))
            found = self._consumer.consume(most, max(0.0, end - time.monotonic()))
            if not found:
                break
            taken += found
            size += sum(len(message.value() or b"") for message in found)
        return taken

    def _take(self, messages: Sequence[Message]) -> None:
        taken: dict[Source, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is None:
                taken.setdefault(_source(message), []).append(message)
            else:
                self._note(message, error)
        for source, records in taken.items():
            if source in self._owned:  # else it was revoked while these were handed over
                self._write(source, records)

    def _write(self, source: Source, records: Sequence[Message]) -> None:
        offsets = [_offset(record) for record in records]
        self._sink.write(Batch(source, offsets, [record.value() or b"" for record in records]))
        # the end of the partition, past a last transaction marker, may have been told with these records
        self._reached[source] = max(self._reached.get(source, 0), offsets[-1] + 1)

    def _note(self, message: Message, error: KafkaError) -> None:
        """Take notice of what is no record.

        Raises:
            UnavailableError: Kafka has shut this consumer out.
        """
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes are spelt so
            if _source(message) in self._owned:
                self._reached[_source(message)] = _offset(message)
        elif error.fatal():
            raise UnavailableError(f"Kafka shut this consumer out ({error.str()}); start the sink again.")
        else:
            log.warning("Kafka: %s", error.str())

    def _commit(self, moved: Mapping[Source, int]) -> None:
        """Tell Kafka; the store knows it already."""
        if not moved:
            return
        offsets = [TopicPartition(*source, offset) for source, offset in moved.items()]
        try:
            self._consumer.commit(offsets=offsets)
        except KafkaException as error:
            log.info("Kafka took no offsets: %s", error)

    def _assigned(self, assigning: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is read until ``_place`` has asked the store, which may take longer than a callback should."""
        assigning.assign([])
        self._waiting = [Source(str(partition.topic), partition.partition) for partition in partitions]

    def _revoked(self, _: Consumer, __: Sequence[TopicPartition]) -> None:
        """Hand over: everything goes, as rebalances here are eager."""
        try:
            self._commit(self._sink.flush(self._clock(), force=True))
        except UnavailableError as error:
            log.warning("%s The next owner reads it again.", error)
        self._forget()

    def _lost(self, _: Consumer, __: Sequence[TopicPartition]) -> None:
        self._forget()

    def _rewind(self) -> None:
        """Read nothing until the sources are placed again."""
        held = [*self._owned, *self._waiting]
        self._forget()
        self._waiting = held
        self._consumer.assign([])

    def _forget(self) -> None:
        for source in (*self._owned, *self._waiting):
            self._sink.release(source)
        self._owned, self._waiting, self._reached = set(), [], {}


def _consumer(broker: Broker, spec: RunSpec) -> Consumer:
    return consumer(
        broker,
        spec.group,
        enable_partition_eof=spec.until is not None,
        fetch_message_max_bytes=_FETCH_BYTES,  # larger records come too, one by one
        queued_max_messages_kbytes=spec.batch_bytes // 1024,
        partition_assignment_strategy="range,roundrobin",  # eager ones, as _Runner places all sources at once
    )


def _source(message: Message) -> Source:
    return Source(message.topic() or "", message.partition() or 0)


def _offset(message: Message) -> int:
    return message.offset() or 0
