"""A topic, a sink and the loop between them, on the broker embedded in librdkafka."""

import errno
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from confluent_kafka import Producer, TopicPartition

from scorers.errors import ConfigError, UnavailableError
from sinks.base import Batch, Origin, Sink, Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.redis import RedisSink, RedisSpec
from sinks.runner import RunSpec, origin, run
from stream.contracts import Topics
from stream.kafka import Broker, consumer
from tests.disks import Countdown, Hooked
from tests.laws.sink_kit import ParquetStore, alert, encoded, score

PARTITIONS = 4
"""As many as the embedded broker gives every topic."""
VALUES = {partition: encoded([score(f"pump-{partition}", hour) for hour in range(30)]) for partition in range(3)}
"""Partition 3 stays empty."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (address,) = owner.list_topics(timeout=10).brokers.values()
    yield Broker(f"{address.host}:{address.port}", {"log_level": "0"})
    owner.flush(1)


numbers = itertools.count()


@pytest.fixture
def topics(broker: Broker) -> Topics:
    """Topics nobody else uses, of which that of forecasts is there and empty."""
    mine = Topics.prefixed(f"t{next(numbers)}.")
    filled(broker, mine.forecasts, {})
    return mine


@pytest.fixture
def until(broker: Broker, topics: Topics) -> dict[Source, int]:
    """The ends of the topic of scores, which now holds ``VALUES``."""
    return filled(broker, topics.scores, VALUES)


def filled(broker: Broker, topic: str, values: dict[int, list[bytes]]) -> dict[Source, int]:
    writer = Producer(broker.config())
    for partition, records in values.items():
        for record in records:
            writer.produce(topic, record, partition=partition)
    writer.flush(10)
    writer.list_topics(topic, timeout=10)  # makes it, where nothing was produced
    return {Source(topic, partition): len(values.get(partition, [])) for partition in range(PARTITIONS)}


def ticking() -> Callable[[], float]:
    """A clock that is a second later each time it is asked."""
    seconds = itertools.count(1_700_000_000)
    return lambda: float(next(seconds))


def ran(
    sink: Sink, broker: Broker, until: dict[Source, int], *, group: str = "", stop: Callable[[], bool] = lambda: False
) -> int:
    """How many records the sink took until it had them all, in a group of its own."""
    spec = RunSpec(group or f"group-{next(numbers)}", batch=25, poll_s=0.05, until=until)
    return run(sink, broker, spec, stop=stop, clock=ticking()).records


def values_in(folder: Path) -> dict[str, int]:
    """Windows by device."""
    rows = ParquetStore(folder).content()["predictions"]
    windows = {(row["device_id"], row["window_start"]) for row in rows}

    assert len(windows) == len(rows)
    return {device: sum(device == name for name, _ in windows) for device in {name for name, _ in windows}}


ALL = {"pump-0": 30, "pump-1": 30, "pump-2": 30}


def test_a_run_ends_when_everything_is_durable_and_kafka_told(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path
) -> None:
    records = ran(ParquetSink(ParquetSpec(tmp_path), topics), broker, until, group=topics.scores)
    reader = consumer(broker, topics.scores)
    told = reader.committed([TopicPartition(topics.scores, partition) for partition in range(3)], timeout=10)
    reader.close()

    assert records == 90
    assert values_in(tmp_path) == ALL
    assert [place.offset for place in told] == [30, 30, 30]


class Weighing(ParquetSink):
    """Keeps the sizes of the batches that it was given."""

    def __init__(self, spec: ParquetSpec, topics: Topics) -> None:
        super().__init__(spec, topics)
        self.weights: list[int] = []

    def write(self, batch: Batch) -> None:
        self.weights.append(sum(map(len, batch.values)))
        super().write(batch)


def test_large_records_come_a_few_at_a_time(broker: Broker, topics: Topics, tmp_path: Path) -> None:
    until = filled(broker, topics.scores, {0: [b"x" * 10_000] * 300})
    sink = Weighing(ParquetSpec(tmp_path), topics)
    run(sink, broker, RunSpec(topics.scores, batch_bytes=100_000, until=until), stop=lambda: False)

    assert sum(sink.weights) == 3_000_000
    assert max(sink.weights) < 300_000


def test_a_stopped_sink_goes_on_where_its_files_end(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path
) -> None:
    sink = ParquetSink(ParquetSpec(tmp_path), topics)
    first = ran(sink, broker, until, stop=lambda: len(sink._pending) > 0)  # noqa: SLF001  # stop in the middle
    second = ran(ParquetSink(ParquetSpec(tmp_path), topics), broker, until)

    assert 0 < first < 90
    assert first + second == 90
    assert values_in(tmp_path) == ALL


def test_the_files_are_the_truth_and_kafkas_offset_is_advice(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path
) -> None:
    writer = consumer(broker, topics.scores)
    writer.commit(offsets=[TopicPartition(topics.scores, 0, 30)], asynchronous=False)
    writer.close()

    assert ran(ParquetSink(ParquetSpec(tmp_path), topics), broker, until, group=topics.scores) == 90


def test_a_disk_that_fills_up_only_delays(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = Countdown(20, OSError(errno.ENOSPC, "No space left on device"))
    failures = itertools.count()

    def hook() -> None:
        try:
            full()
        except OSError:
            if next(failures) == 3:
                full.left = 1_000_000
            raise

    records = ran(ParquetSink(ParquetSpec(tmp_path, max_rows=60), topics, disk=Hooked(hook)), broker, until)

    assert (records, next(failures)) == (90, 4)
    assert values_in(tmp_path) == ALL
    assert sum("What is not durable will be read again" in message for message in caplog.messages) == 4


def test_a_redis_that_vanishes_only_delays(broker: Broker, topics: Topics, until: dict[Source, int]) -> None:
    server = fakeredis.FakeServer()
    calls = itertools.count()

    def clock() -> float:
        call = next(calls)
        server.connected = not 40 < call < 80
        return 1_700_000_000.0 + call

    sink = RedisSink(RedisSpec("redis://", history=100), topics, client=fakeredis.FakeRedis(server=server))
    later = filled(broker, topics.alerts, {0: encoded([alert(1, "firing")])})
    spec = RunSpec(f"group-{next(numbers)}", batch=1, poll_s=0.05, until=until | later)
    tally = run(sink, broker, spec, stop=lambda: False, clock=clock)
    client: Any = fakeredis.FakeRedis(server=server)

    assert tally.records == 91
    assert {client.xlen(f"tw:history:{device}") for device in ALL} == {30}
    assert client.xlen("tw:alerts:log") == 1


def test_a_folder_of_another_cluster_ends_the_run(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path
) -> None:
    sink = ParquetSink(ParquetSpec(tmp_path), topics)
    sink.bind(Origin("another cluster", {topics.scores: None}))

    with pytest.raises(ConfigError, match="another cluster"):
        ran(sink, broker, until)


def test_a_topic_made_again_is_waited_for_and_named(
    broker: Broker, topics: Topics, until: dict[Source, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = ParquetSink(ParquetSpec(tmp_path), topics)
    first.bind(origin(broker, [topics.scores]))
    (tmp_path / "_log" / f"{topics.scores}-0000-{0:020d}-{999:020d}").mkdir()
    turns = itertools.count()
    ran(
        ParquetSink(ParquetSpec(tmp_path), topics),
        broker,
        until,
        stop=lambda: bool(caplog.messages) or next(turns) > 500,
    )

    assert "up to offset 1000, Kafka only to 30; if the topic was made again" in caplog.messages[0]


def test_without_kafka_a_run_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.runner.TIMEOUT_S", 0.5)
    nowhere = Broker("127.0.0.1:1", {"log_level": "0"})

    with pytest.raises(UnavailableError, match="TIDEWATCH_KAFKA"):
        ran(ParquetSink(ParquetSpec(tmp_path), Topics()), nowhere, {})


def test_a_missing_topic_is_named(broker: Broker, topics: Topics, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"Topic '{topics.scores}' does not exist; start the worker"):
        ran(ParquetSink(ParquetSpec(tmp_path), topics), broker, {})


def test_nothing_to_read_ends_at_once(broker: Broker, topics: Topics, tmp_path: Path) -> None:
    empty = filled(broker, topics.scores, {})

    assert ran(ParquetSink(ParquetSpec(tmp_path), topics), broker, empty) == 0


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
