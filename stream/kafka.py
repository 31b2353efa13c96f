"""How every part of Tidewatch reaches Kafka: one place for client settings and topics."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from scorers.errors import ConfigError, UnavailableError
from stream.contracts import Topics
from stream.producer import BatchProducer

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_REJECT_BYTES = 64 * 1024 * 1024
"""A reject is its record and headers, and may have been compressed better on its way in."""
DAY_MS = 86_400_000

_KEEP = {"max.message.bytes": str(MAX_MESSAGE_BYTES), "retention.ms": str(7 * DAY_MS)}
"""Of a topic of records: a week of them."""

Setting = str | int | float | bool
"""A librdkafka setting."""

_QUIET: dict[str, Setting] = {"log_level": 0}
"""Without the lines that librdkafka writes to stderr."""
_PRODUCING: dict[str, Setting] = {
    "enable_idempotence": True,
    "partitioner": "murmur2_random",
    "compression_type": "lz4",
    "linger_ms": 20,
    "message_max_bytes": MAX_MESSAGE_BYTES,
    "queue_buffering_max_messages": 500_000,
}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Kafka is; ``options`` are librdkafka settings such as ``security.protocol`` or ``sasl.password``."""

    bootstrap: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def config(self, **defaults: Setting) -> dict[str, Setting]:
        """A librdkafka configuration: ``defaults`` (underscores for dots), over which ``options`` have their way."""
        named = {name.replace("_", "."): value for name, value in defaults.items()}
        return {"bootstrap.servers": self.bootstrap, **named, **self.options}


def producer(broker: Broker, **overrides: Setting) -> Producer:
    """An idempotent, compressing producer that places keys where Java clients would."""
    return Producer(_heard(broker.config(**(_PRODUCING | overrides))))


def batch_producer(
    broker: Broker, report: Callable[[int, int, KafkaError | None], None] | None = None, **overrides: Setting
) -> BatchProducer:
    """The same, for thousands of messages at once."""
    config = _QUIET | broker.config(**(_PRODUCING | overrides))
    return BatchProducer(config, _tell, report)


def consumer(broker: Broker, group: str, **overrides: Setting) -> Consumer:
    """A consumer that sees committed records only and whose offsets are committed by hand."""
    defaults: dict[str, Setting] = {
        "group_id": group,
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "enable_auto_offset_store": False,
        "auto_offset_reset": "earliest",
        "session_timeout_ms": 10_000,
        "fetch_message_max_bytes": MAX_MESSAGE_BYTES,
    }
    return Consumer(_heard(broker.config(**(defaults | overrides))))


def new_topics(topics: Topics, *, partitions: int, replication: int = 1) -> list[NewTopic]:
    """Every topic with its partitions, retention and size limit.

    ``device.state`` and ``load.state`` are compacted and have as many partitions as the inputs: partition *p* of them
    holds what partition *p* of the inputs needs to resume.
    """
    size = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    # only closed segments are compacted: small ones keep a take-over as short as the state is small
    segment = {"segment.bytes": str(16 * 1024 * 1024), "segment.ms": str(10 * 60_000)}
    compact = size | segment | {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
    special = {
        topics.state: compact,
        topics.load: compact,
        topics.rejects: _KEEP | {"max.message.bytes": str(MAX_REJECT_BYTES)},
    }
    return [NewTopic(name, partitions, replication, config=special.get(name, _KEEP)) for name in topics.names()]


def ensure_topics(broker: Broker, topics: Topics, *, partitions: int = 8, replication: int = 1) -> list[str]:
    """Create what is missing; the names created.

    Raises:
        UnavailableError: no broker answered within 10 s.
        ConfigError: the broker refused a topic.
    """
    return _ensure(broker, new_topics(topics, partitions=partitions, replication=replication))


def ensure_topic(broker: Broker, name: str, *, partitions: int = 8, replication: int = 1) -> None:
    """Create a topic of records, if it is missing.

    Raises:
        UnavailableError: no broker answered within 10 s.
        ConfigError: the broker refused it.
    """
    _ensure(broker, [NewTopic(name, partitions, replication, config=_KEEP)])


def _ensure(broker: Broker, topics: Sequence[NewTopic]) -> list[str]:
    admin = AdminClient(_heard(broker.config(socket_timeout_ms=10_000)))
    try:
        present = admin.list_topics(timeout=10).topics
    except KafkaException as error:
        raise unreachable(broker, error) from error
    wanted = [topic for topic in topics if topic.topic not in present]
    created = []
    for name, future in (admin.create_topics(wanted, request_timeout=20) if wanted else {}).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ConfigError(f"Kafka refused to create topic {name!r}: {error.args[0].str()}.") from error
        else:
            created.append(name)
    return created


def _heard(config: dict[str, Setting]) -> dict[str, Any]:
    """The same, with Python's log in place of the lines that librdkafka writes to stderr."""
    return {**_QUIET, "error_cb": _tell, **config}


def _tell(error: KafkaError) -> None:
    """Log what librdkafka reports on its own; it keeps trying, so one refused connection is a detail."""
    passing = error.code() in {KafkaError._TRANSPORT, KafkaError._TIMED_OUT}  # noqa: SLF001 - librdkafka's names
    log.log(logging.DEBUG if passing else logging.WARNING, "Kafka: %s", error.str())


def unreachable(broker: Broker, error: Exception) -> UnavailableError:
    """The one sentence for a broker that does not answer."""
    reason = error.args[0].str() if isinstance(error, KafkaException) else error
    return UnavailableError(
        f"Kafka at {broker.bootstrap!r} does not answer ({reason}); start it, or set TIDEWATCH_KAFKA to where it is."
    )
