"""The laws of sinks on a real Redis, and both sinks on a real Kafka, disturbed."""

import itertools
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer, TopicPartition

from sinks.base import Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.redis import RedisSink, RedisSpec
from sinks.runner import RunSpec, origin, run
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics, producer
from tests.laws.sink_kit import ParquetStore, RedisStore, Store, alert, encoded, score
from tests.laws.test_sinks import (  # noqa: F401  # collected here once more, with the new_store below
    NewStore,
    test_an_empty_store_resumes_at_the_beginning,
    test_any_batching_repetition_and_restart_gives_the_same_content,
    test_feeding_twice_is_feeding_once,
    test_flush_tells_where_to_go_on,
    test_foreign_bytes_are_counted_and_stop_nothing,
    test_what_is_not_flushed_is_read_again,
)
from tidewatch.servers import KafkaServer

PARTITIONS = 4
WINDOWS = 400
"""In each partition."""
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def new_store(redis_url: str) -> NewStore:
    @contextmanager
    def real_store() -> Iterator[Store]:
        yield RedisStore(lambda: redis.Redis.from_url(redis_url), f"law-{uuid.uuid4().hex}")

    def fresh() -> AbstractContextManager[Store]:
        return real_store()

    return fresh


def values(partition: int) -> list[bytes]:
    return encoded([score(f"pump-{partition}", hour % 50, value=float(hour)) for hour in range(WINDOWS)])


@pytest.fixture
def ends(kafka: Broker, topics: Topics) -> dict[Source, int]:
    """The ends of the partitions of scores: committed in transactions, with aborted ones between them."""
    writer = producer(kafka, transactional_id=uuid.uuid4().hex)
    writer.init_transactions(30)
    records = {partition: values(partition) for partition in range(PARTITIONS)}
    for first in range(0, WINDOWS, 50):
        for commit in (False, True):
            writer.begin_transaction()
            for partition in range(PARTITIONS):
                for value in records[partition][first : first + 50]:
                    writer.produce(topics.scores, value if commit else b"never happened", partition=partition)
            if commit:
                writer.commit_transaction(30)
            else:
                writer.flush(30)
                writer.abort_transaction(30)
    return high_watermarks(kafka, topics.scores)


def high_watermarks(kafka: Broker, topic: str) -> dict[Source, int]:
    asking = Consumer(kafka.config(group_id="nobody"))
    sources = [Source(topic, partition) for partition in range(PARTITIONS)]
    high = {source: asking.get_watermark_offsets(TopicPartition(*source), timeout=10)[1] for source in sources}
    asking.close()
    return high


def windows(folder: Path) -> dict[str, list[float]]:
    """The values of the windows of each device, in order of offset."""
    rows = sorted(ParquetStore(folder).content()["predictions"], key=lambda row: row["kafka_offset"])
    return {device: [row["severity"] for row in rows if row["device_id"] == device] for device in devices()}


def devices() -> list[str]:
    return [f"pump-{partition}" for partition in range(PARTITIONS)]


UNDISTURBED = {device: [float(hour) for hour in range(WINDOWS)] for device in devices()}


def parquet(folder: Path, topics: Topics) -> ParquetSink:
    return ParquetSink(ParquetSpec(folder, max_rows=200), topics)


def test_committed_records_arrive_once_and_aborted_ones_never(
    kafka: Broker, topics: Topics, ends: dict[Source, int], tmp_path: Path
) -> None:
    tally = run(parquet(tmp_path, topics), kafka, RunSpec("once", until=ends), stop=lambda: False)

    assert (tally.records, tally.rejects) == (PARTITIONS * WINDOWS, 0)
    assert windows(tmp_path) == UNDISTURBED


SCRIPT = """
import json, sys
from pathlib import Path
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.runner import RunSpec, run
from stream.contracts import Topics
from stream.kafka import Broker

folder, broker, prefix = sys.argv[1:]
sink = ParquetSink(ParquetSpec(Path(folder), max_rows=200), Topics.prefixed(prefix))
run(sink, Broker(broker), RunSpec("killed", batch=20), stop=lambda: False)
"""


def test_a_killed_sink_neither_loses_nor_doubles_windows(
    kafka: Broker, topics: Topics, ends: dict[Source, int], tmp_path: Path
) -> None:
    prefix = topics.scores.removesuffix(Topics().scores)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), kafka.bootstrap, prefix]
    with subprocess.Popen(command, cwd=PROJECT) as process:
        while not list(tmp_path.glob("predictions/*/*.parquet")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    run(parquet(tmp_path, topics), kafka, RunSpec("killed", until=ends), stop=lambda: False)

    assert windows(tmp_path) == UNDISTURBED


@contextmanager
def running(sink: ParquetSink, kafka: Broker) -> Iterator[None]:
    """A sink at work in a thread of its own, stopped gracefully at the end."""
    stop = Event()
    spec = RunSpec("shared", batch=20, poll_s=0.05)
    thread = Thread(target=run, args=(sink, kafka, spec), kwargs={"stop": stop.is_set})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_partitions_change_hands_without_loss(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    writer = producer(kafka, linger_ms=1)
    hours = itertools.count()
    first, second = (ParquetSink(ParquetSpec(tmp_path, max_seconds=0.05), topics) for _ in range(2))

    def produced_until(condition: Callable[[], bool]) -> int:
        """Produce a window of each device, again and again; how many there are."""
        for hour in itertools.islice(hours, 5000):
            for partition, device in enumerate(devices()):
                (value,) = encoded([score(device, hour, value=float(hour))])
                writer.produce(topics.scores, value, partition=partition)
            writer.flush(10)
            if condition():
                return hour + 1
        raise AssertionError(first.tally, second.tally)

    with running(second, kafka):
        with running(first, kafka):
            produced_until(lambda: first.tally.records > 0 and second.tally.records > 0)
        before = second.tally.records
        total = produced_until(lambda: second.tally.records > before)
    last = ParquetSink(ParquetSpec(tmp_path), topics)
    run(last, kafka, RunSpec("shared", until=high_watermarks(kafka, topics.scores)), stop=lambda: False)

    assert windows(tmp_path) == {device: [float(hour) for hour in range(total)] for device in devices()}


def test_a_broker_that_is_killed_only_delays(own_kafka: KafkaServer, tmp_path: Path) -> None:
    topics = Topics.prefixed("killed.")
    ensure_topics(own_kafka.broker, topics, partitions=PARTITIONS)
    quiet = Broker(own_kafka.broker.bootstrap, {**own_kafka.broker.options, "log_level": "0"})
    sink = ParquetSink(ParquetSpec(tmp_path, max_seconds=0.05), topics)

    def produce(half: int) -> None:
        writer = producer(own_kafka.broker)
        for partition in range(PARTITIONS):
            for value in values(partition)[half * WINDOWS // 2 : (half + 1) * WINDOWS // 2]:
                writer.produce(topics.scores, value, partition=partition)
        writer.flush(30)

    def wait_for(records: int) -> None:
        for _ in range(600):
            if sink.tally.records >= records:
                return
            Event().wait(0.1)
        raise AssertionError(sink.tally)

    with running(sink, quiet):
        produce(0)
        wait_for(PARTITIONS * WINDOWS // 2)
        own_kafka.kill()
        own_kafka.start()
        produce(1)
        wait_for(PARTITIONS * WINDOWS)

    assert windows(tmp_path) == UNDISTURBED


def test_redis_is_filled_by_scores_and_alerts(
    kafka: Broker, topics: Topics, ends: dict[Source, int], redis_url: str
) -> None:
    writer = producer(kafka)
    for record in encoded([alert(1, "firing"), alert(2, "firing"), alert(1, "resolved")]):
        writer.produce(topics.alerts, record, partition=0)
    writer.flush(10)
    spec = RedisSpec(redis_url, prefix=uuid.uuid4().hex, history=10)
    until = ends | high_watermarks(kafka, topics.alerts)
    for _ in range(2):
        run(RedisSink(spec, topics), kafka, RunSpec("redis", until=until), stop=lambda: False)
    client: Any = redis.Redis.from_url(redis_url, decode_responses=True)

    assert client.zrange(f"{spec.prefix}:oddest", 0, -1, withscores=True) == [(name, WINDOWS - 1) for name in devices()]
    assert {client.xlen(f"{spec.prefix}:history:{device}") for device in devices()} == {10}
    assert [json.loads(value)["alert_id"] for value in client.hvals(f"{spec.prefix}:alerts:open")] == ["alert-2"]
    assert client.xlen(f"{spec.prefix}:alerts:log") == 3
    client.close()


def test_a_topic_has_an_id_that_changes_when_it_is_made_again(kafka: Broker, topics: Topics) -> None:
    found = origin(kafka, [topics.scores, topics.alerts])

    assert len({found.cluster, *found.topics.values()} - {None}) == 3
