"""Logs to feed sinks with, and what a store then holds in a form that can be compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fakeredis
import msgspec
import redis

from sinks.base import Batch, Origin, Sink, Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.redis import RedisSink, RedisSpec
from sinks.table import SCHEMAS
from stream.contracts import Alert, Contributor, Forecast, ForecastHour, MetricStatistics, Score, Topics

TOPICS = Topics()
ORIGIN = Origin("cluster-1", {TOPICS.scores: "id-1", TOPICS.alerts: "id-2", TOPICS.forecasts: "id-3"})
NOON = 1_700_049_600_000
"""2023-11-15 12:00 UTC."""
HOUR = 3_600_000
NOW = 1_700_000_000.0

Log = Mapping[Source, Sequence[bytes]]
"""What each partition holds, from offset 0."""


def score(device: str = "pump-1", hour: int = 0, *, value: float = 1.5, scored: bool = True) -> Score:
    """One window of an hour; ``hour`` counts from ``NOON``."""
    start = NOON + hour * HOUR
    metrics = {
        "temperature": MetricStatistics(60, value, 0.1 + value, value - 1, value + 1, value),
        "load": MetricStatistics(1, value / 3, None, 2.0, 2.0, 2.0, sum=7.5),
    }
    learning = Score(device, "sensors", start, start + HOUR, 61, metrics, "learning")
    if not scored:
        return learning
    contributors = [Contributor("temperature.mean", 0.75, value, 1.0), Contributor("load.std", 0.25, None, 0.5)]
    return msgspec.structs.replace(
        learning, state="scored", decision=-value, score=50.0 + value, severity=value, anomaly=value > 1,
        contributors=contributors, model_version="v1", model="type", confidence=0.75,
    )  # fmt: skip


def alert(number: int, state: Any) -> Alert:
    """One change of the alert ``alert-<number>``."""
    return Alert(f"alert-{number}", "pump-1", "sensors", state, NOON, NOON + HOUR, 90.0, 3.5, [])


def forecast(server: str = "10.0.0.1", hour: int = 0, *, high: float = 0.25, ahead: int = 48) -> Forecast:
    """What was foretold at an hour."""
    issued = NOON + hour * HOUR
    hours = [ForecastHour(issued + n * HOUR, "low", (0.75 - high, 0.25, high)) for n in range(ahead)]
    return Forecast(server, issued, "own", "v1", hours)


def encoded(records: Sequence[Score | Alert | Forecast]) -> list[bytes]:
    """The bytes that go over the wire."""
    return [msgspec.json.encode(record) for record in records]


class Store:
    """Something that outlives a sink: opens sinks on itself, and shows what it holds."""

    def open(self) -> Sink:
        """A new sink, as a new process would make it."""
        raise NotImplementedError

    def content(self) -> Any:
        """Everything a reader can see, comparable."""
        raise NotImplementedError


@dataclass
class ParquetStore(Store):
    """A folder."""

    folder: Path

    def open(self) -> Sink:
        """A sink that rolls when it holds 20 rows, about seven windows."""
        return ParquetSink(ParquetSpec(self.folder, max_rows=20), TOPICS)

    def content(self) -> Any:
        """The rows of all tables; offsets are among them, so two rows are never the same."""
        return {name: sorted(dataset(self.folder, name).to_table().to_pylist(), key=repr) for name in SCHEMAS}


@dataclass
class RedisStore(Store):
    """A database."""

    connect: Callable[[], "redis.Redis"]
    prefix: str = "tw"

    def open(self) -> Sink:
        """A sink with a short memory."""
        return RedisSink(RedisSpec("redis://", self.prefix, history=3, alerts=4), TOPICS, client=self.connect())

    def content(self) -> Any:
        """Every key's value; streams without their ids, which are arrival times."""
        client: Any = self.connect()
        read = {
            b"hash": client.hgetall,
            b"string": client.get,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": lambda key: [fields for _, fields in client.xrange(key)],
        }
        keys = {key.removeprefix(self.prefix.encode()): key for key in client.scan_iter(f"{self.prefix}:*")}
        return {name: read[client.type(key)](key) for name, key in keys.items()}


@contextmanager
def parquet_store() -> Iterator[Store]:
    """A new folder."""
    with TemporaryDirectory() as folder:
        yield ParquetStore(Path(folder))


@contextmanager
def redis_store() -> Iterator[Store]:
    """A new Redis inside this process."""
    server = fakeredis.FakeServer()
    yield RedisStore(lambda: fakeredis.FakeRedis(server=server))


STORES: dict[type[Sink], Callable[[], AbstractContextManager[Store]]] = {
    ParquetSink: parquet_store,
    RedisSink: redis_store,
}
"""Every sink, and where it is tried."""


def started(store: Store, log: Log) -> tuple[Sink, dict[Source, int]]:
    """A sink that owns every source it reads, and where it goes on."""
    sink = store.open()
    sink.bind(Origin(ORIGIN.cluster, {topic: ORIGIN.topics[topic] for topic in sink.topics}))
    return sink, {source: sink.resume(source) for source in log if source.topic in sink.topics}


def batch(log: Log, source: Source, first: int, last: int) -> Batch:
    """Records ``first`` to ``last - 1``."""
    values = log[source][first:last]
    return Batch(source, range(first, first + len(values)), values)


def feed(store: Store, log: Log) -> Any:
    """What the store holds once everything went through in one piece."""
    sink, ahead = started(store, log)
    for source, offset in ahead.items():
        sink.write(batch(log, source, offset, len(log[source])))
    sink.flush(NOW, force=True)
    sink.close()
    return store.content()
