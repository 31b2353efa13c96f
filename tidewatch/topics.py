"""The topics of a broker, real or embedded: there they are made by asking for them."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from scorers.errors import ConfigError
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics, unreachable

EMBEDDED_PARTITIONS = 4
"""librdkafka's mock cluster cuts every topic into this many."""
EMBEDDED_CLUSTER = "mockCluster"
"""How the cluster id of every mock cluster begins."""


def quiet_admin(broker: Broker) -> AdminClient:
    """A client whose failures are told by its answers, not on the terminal.

    Raises:
        ConfigError: librdkafka does not take an option.
    """
    try:
        return AdminClient({**broker.config(), "log_level": 0})
    except KafkaException as error:
        raise ConfigError(
            f"kafka.options is wrong: {error.args[0].str()}; use the names librdkafka documents."
        ) from error


def is_embedded(broker: Broker) -> bool:
    """Whether ``broker`` is an embedded one.

    Raises:
        UnavailableError: it does not answer within 5 s.
    """
    try:
        cluster = quiet_admin(broker).list_topics(timeout=5).cluster_id
    except KafkaException as error:
        raise unreachable(broker, error) from error
    return str(cluster).startswith(EMBEDDED_CLUSTER)


def prepare_topics(broker: Broker, topics: Topics, *, partitions: int, replication: int = 1) -> int:
    """Make what topics are missing, by asking for them where the broker is embedded; their partitions.

    Raises:
        UnavailableError: no broker answered.
        ConfigError: the broker refused a topic.
    """
    if not is_embedded(broker):
        ensure_topics(broker, topics, partitions=partitions, replication=replication)
        return partitions
    admin = quiet_admin(broker)
    for name in topics.names():
        if admin.list_topics(name, timeout=10).topics[name].error:
            raise ConfigError(f"The embedded broker refused topic {name!r}; set TIDEWATCH_KAFKA to a real one.")
    return EMBEDDED_PARTITIONS


def remove_topics(broker: Broker, topics: Topics) -> None:
    """Delete what topics there are, with all they hold."""
    admin = quiet_admin(broker)
    present = admin.list_topics(timeout=10).topics
    for future in admin.delete_topics([name for name in topics.names() if name in present]).values():
        future.result()
