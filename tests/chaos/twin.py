"""An undisturbed run: the same log on a broker of its own, one worker, each sink once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer

from scorers.errors import UnavailableError
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics, producer
from tests.chaos.scene import JARS, PARTITIONS, SINKS, settings
from tidewatch.children import Child
from tidewatch.servers import KafkaServer, RedisServer
from tidewatch.settings import InForce
from tidewatch.tail import drained, gather

INPUTS = (Topics().readings, Topics().sessions)
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Twin:
    """Where the undisturbed run's results are."""

    broker: Broker
    redis_url: str
    parquet: Path
    records: int
    """Records copied."""


@contextmanager
def twin(log: Broker, folder: Path, fleet: Path) -> Iterator[Twin]:
    """Copy the input topics of ``log``, record by record, and run on the copy."""
    folder.mkdir()
    (folder / "fleet.arrow").write_bytes(fleet.read_bytes())
    with KafkaServer(JARS, folder / "kafka") as kafka, RedisServer(folder / "redis") as redis:
        ensure_topics(kafka.broker, Topics(), partitions=PARTITIONS)
        records = _copy(log, kafka.broker)
        in_force = settings(folder, kafka.broker.bootstrap, redis.url, folder / "parquet")
        with Child(in_force, folder / "worker.log", "worker"):
            group = in_force.settings.worker.app
            if not drained(kafka.broker, group, INPUTS, within_s=PATIENCE_S):
                raise UnavailableError(f"The undisturbed worker was not done in {PATIENCE_S:g} s.")
        once(in_force, folder)
        yield Twin(kafka.broker, redis.url, folder / "parquet", records)


def once(in_force: InForce, folder: Path) -> None:
    """Write all that is there to both sinks."""
    for kind in SINKS:
        child = Child(in_force, folder / f"{kind}-once.log", "sink", kind, "--once")
        child.start()
        code = child.wait(PATIENCE_S)
        if code:
            raise UnavailableError(f"`tidewatch sink {kind} --once` ended with {code}:\n{child.tail()}")


def _produce(client: Producer, message: Message) -> None:
    headers: Any = message.headers() or []
    while True:
        try:
            client.produce(
                str(message.topic()),
                message.value(),
                message.key(),
                partition=message.partition() or 0,
                timestamp=message.timestamp()[1],
                headers=headers,
            )
            break
        except BufferError:
            client.poll(0.1)


def _copy(source: Broker, target: Broker) -> int:
    client, records = producer(target), 0
    for message in gather(source, INPUTS):
        _produce(client, message)
        records += 1
    while client.flush(1.0):
        pass
    return records
