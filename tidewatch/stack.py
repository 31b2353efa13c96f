"""The local stack: a broker and a Redis that need nothing but Python, unless real ones are configured.

The broker is the mock cluster inside librdkafka. Other processes reach it over TCP. What it can do,
tried with confluent-kafka 2.16 and aiokafka 0.14:

* produce (idempotent, compressed, keyed), fetch, seek, watermarks, committed offsets;
* consumer groups with one member. A second member of aiokafka never gets an assignment;
* transactions, as far as a producer can see. But an aborted record stays visible to
  ``read_committed``, a zombie is not fenced, and aiokafka refuses the mark at a transaction's end
  for its checksum: what a worker reads must come outside of transactions;
* topics are made when a client first asks for them, always with 4 partitions. It cannot create or
  configure topics, look up offsets by time, or compact, and keeps 5 MB or 100 000 batches a partition.

It is for a look. For anything else set ``TIDEWATCH_KAFKA``.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from fakeredis import TcpFakeServer

from scorers.errors import ConfigError
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics, unreachable
from tidewatch.servers import HOST, RedisServer, quiet_admin
from tidewatch.settings import InForce

EMBEDDED_PARTITIONS = 4
"""librdkafka's mock cluster cuts every topic into this many."""
EMBEDDED_CLUSTER = "mockCluster"
"""How the cluster id of every mock cluster begins."""


@dataclass(frozen=True, slots=True)
class LocalRedis:
    """A Redis of our own: where it is, and what it is."""

    url: str
    name: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A broker with its topics, and a Redis; ``notes`` say in sentences what they are."""

    broker: Broker
    redis_url: str
    partitions: int
    notes: tuple[str, ...]


@contextmanager
def local_stack(in_force: InForce) -> Iterator[Stack]:
    """Everything ``tidewatch up`` needs: what is configured, and embedded stand-ins for the rest.

    Raises:
        UnavailableError: the configured Kafka does not answer.
        ConfigError: the configured Kafka refused a topic.
    """
    settings, notes = in_force.settings, []
    broker, redis_url = settings.kafka.broker(), settings.redis.url.get_secret_value()
    with ExitStack() as stack:
        if not in_force.configured("kafka.bootstrap"):
            broker = stack.enter_context(embedded_broker())
            notes.append(
                "The broker is embedded: one worker, memory only, 5 MB a partition; set TIDEWATCH_KAFKA for a real one."
            )
        if not in_force.configured("redis.url"):
            local = stack.enter_context(embedded_redis())
            redis_url = local.url
            notes.append(f"Redis is {local.name}, memory only; set TIDEWATCH_REDIS for one that lasts.")
        named = settings.topics
        partitions = prepare_topics(broker, named.names(), partitions=named.partitions, replication=named.replication)
        yield Stack(broker, redis_url, partitions, tuple(notes))


@contextmanager
def embedded_broker() -> Iterator[Broker]:
    """A broker inside this process, gone with the block; its limits are told above."""
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (node,) = owner.list_topics(timeout=10).brokers.values()
    yield Broker(f"{node.host}:{node.port}")
    del owner  # librdkafka ends the cluster with the client that owns it


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


@contextmanager
def embedded_redis() -> Iterator[LocalRedis]:
    """A ``redis-server`` of our own where one is installed, else fakeredis in a thread of this process.

    fakeredis takes hashes, streams, sorted sets, MULTI and pub/sub, about 5 000 commands a second.
    """
    if shutil.which("redis-server"):
        with tempfile.TemporaryDirectory(prefix="tidewatch-redis-") as folder, RedisServer(Path(folder)) as server:
            yield LocalRedis(server.url, f"a redis-server {server.version} of our own")
    else:
        with fake_redis() as url:
            yield LocalRedis(url, "fakeredis inside this process")


@contextmanager
def fake_redis() -> Iterator[str]:
    """A TCP port with fakeredis behind it, in a thread of this process; its URL."""
    with TcpFakeServer((HOST, 0)) as server:
        thread = threading.Thread(target=server.serve_forever, name="fakeredis", daemon=True)
        thread.start()
        try:
            yield f"redis://{HOST}:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()
