"""The local stack: real servers that come back, and embedded ones that say what they cannot do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer

from scorers.errors import UnavailableError
from stream.contracts import Topics
from stream.kafka import Broker, consumer, ensure_topics, producer
from tidewatch.servers import KafkaServer
from tidewatch.settings import load
from tidewatch.stack import embedded_broker, embedded_redis, fake_redis, local_stack
from tidewatch.topics import EMBEDDED_PARTITIONS, is_embedded, prepare_topics, quiet_admin


@pytest.fixture
def embedded() -> Iterator[Broker]:
    with embedded_broker() as broker:
        yield broker


def values(broker: Broker, topic: str, expected: int) -> list[bytes]:
    """What a new group reads of ``topic``: ``expected`` records, then whatever comes within a second."""
    reader = consumer(broker, "reader")
    reader.subscribe([topic])
    found = reader.consume(expected, timeout=20) + reader.consume(1, timeout=1)
    reader.close()
    return sorted(message.value() or b"" for message in found)


def transactional(broker: Broker) -> Producer:
    writer = producer(broker, transactional_id="writer")
    writer.init_transactions(20)
    writer.begin_transaction()
    return writer


def test_topics_are_created_once(kafka: Broker, topics: Topics) -> None:
    created_again = ensure_topics(kafka, topics, partitions=4)
    present = quiet_admin(kafka).list_topics(timeout=10).topics

    assert created_again == []
    assert {len(present[name].partitions) for name in topics.names()} == {4}


def test_committed_records_are_read(kafka: Broker, topics: Topics) -> None:
    writer = transactional(kafka)
    writer.produce(topics.scores, b"committed")
    writer.commit_transaction(20)

    assert values(kafka, topics.scores, 1) == [b"committed"]


def test_aborted_records_are_not_read(kafka: Broker, topics: Topics) -> None:
    writer = transactional(kafka)
    writer.produce(topics.scores, b"aborted")
    writer.flush(20)
    writer.abort_transaction(20)
    writer.begin_transaction()
    writer.produce(topics.scores, b"committed")
    writer.commit_transaction(20)

    assert values(kafka, topics.scores, 1) == [b"committed"]


def test_a_killed_broker_comes_back_with_its_records(own_kafka: KafkaServer) -> None:
    names = Topics.prefixed("restart.")
    ensure_topics(own_kafka.broker, names, partitions=1)
    writer = transactional(own_kafka.broker)
    writer.produce(names.scores, b"kept")
    writer.commit_transaction(20)
    own_kafka.kill()
    stopped = own_kafka.answers()
    own_kafka.start()

    assert not stopped
    assert values(own_kafka.broker, names.scores, 1) == [b"kept"]


def test_a_frozen_broker_goes_on_where_it_was(own_kafka: KafkaServer) -> None:
    own_kafka.pause()
    frozen = own_kafka.answers()
    own_kafka.resume()

    assert not frozen
    assert quiet_admin(own_kafka.broker).list_topics(timeout=20).brokers


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(kafka_jars: Path, tmp_path: Path) -> None:
    server = KafkaServer(kafka_jars, tmp_path)
    (tmp_path / "data").write_text("a file where the data folder belongs")

    with pytest.raises(UnavailableError, match="could not format"):
        server.start()


def test_an_unreachable_broker_is_named_with_the_fix() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1.*TIDEWATCH_KAFKA"):
        is_embedded(Broker("127.0.0.1:1", {"socket.connection.setup.timeout.ms": "1000", "log_level": "0"}))


def test_the_embedded_broker_makes_topics_on_first_use(embedded: Broker) -> None:
    partitions = prepare_topics(embedded, Topics(), partitions=8)
    present = quiet_admin(embedded).list_topics(timeout=10).topics

    assert partitions == EMBEDDED_PARTITIONS
    assert {len(present[name].partitions) for name in Topics().names()} == {EMBEDDED_PARTITIONS}


def test_the_embedded_broker_carries_transactions(embedded: Broker) -> None:
    prepare_topics(embedded, Topics(), partitions=4)
    writer = transactional(embedded)
    writer.produce(Topics().scores, b"committed")
    writer.commit_transaction(20)

    assert values(embedded, Topics().scores, 1) == [b"committed"]


def test_a_real_broker_is_not_taken_for_the_embedded_one(kafka: Broker, embedded: Broker) -> None:
    assert is_embedded(embedded)
    assert not is_embedded(kafka)


def test_configured_servers_are_used_as_they_are(kafka: Broker, redis_url: str) -> None:
    environ = {"TIDEWATCH_KAFKA": kafka.bootstrap, "TIDEWATCH_REDIS": redis_url, "TIDEWATCH_TOPICS__PREFIX": "stack."}
    with local_stack(load(environ=environ)) as stack:
        given = (stack.broker.bootstrap, stack.redis_url, stack.partitions, stack.notes)

    assert given == (kafka.bootstrap, redis_url, 8, ())


def test_without_settings_the_stack_is_embedded_and_says_so() -> None:
    with local_stack(load(environ={})) as stack, redis.Redis.from_url(stack.redis_url) as client:
        answered = client.ping()

    assert answered
    assert "embedded" in stack.notes[0]
    assert "TIDEWATCH_REDIS" in stack.notes[1]


def test_fakeredis_carries_what_the_sink_needs() -> None:
    with fake_redis() as url, redis.Redis.from_url(url, decode_responses=True) as client:
        batch = client.pipeline(transaction=True)
        batch.hset("device", mapping={"score": 1})
        batch.xadd("history", {"score": 1}, maxlen=10)
        batch.zadd("odd", {"device": 1})
        batch.expire("device", 60)
        done = batch.execute()
        listener = client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe("alerts")
        listener.get_message(timeout=5)
        client.publish("alerts", "hello")
        heard = listener.get_message(timeout=5)
        listener.close()

    assert len(done) == 4
    assert heard is not None
    assert heard["data"] == "hello"


ORPHAN = """
import sys, time
from tidewatch.stack import embedded_redis
with embedded_redis() as local:
    print(local.url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_our_redis_does_not_outlive_a_killed_parent(redis_url: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        alive = redis.Redis.from_url(url).ping()
        os.kill(parent.pid, signal.SIGKILL)

    assert alive
    assert url != redis_url
    with redis.Redis.from_url(url, retry=None) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_our_redis_starts_empty_each_time() -> None:
    with embedded_redis() as first, redis.Redis.from_url(first.url) as client:
        client.set("left", "over")
    with embedded_redis() as second, redis.Redis.from_url(second.url) as client:
        keys = client.dbsize()

    assert keys == 0
