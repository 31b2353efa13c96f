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

from confluent_kafka import Producer
from fakeredis import TcpFakeServer

from stream.kafka import Broker
from tidewatch.servers import HOST, RedisServer
from tidewatch.settings import InForce
from tidewatch.topics import prepare_topics


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
