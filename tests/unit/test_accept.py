"""`tidewatch accept` as a person gives it, on the embedded broker; the core plays the worker's part."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from typer.testing import CliRunner

from scorers.errors import InputError, UnavailableError
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.statistics import Floats
from scorers.train import fit_fleet
from stream.app import sources
from stream.contracts import Accepted, Alert, Level, Topics
from stream.kafka import Broker, consumer, producer
from stream.message import singly
from stream.partition import Partition, StreamSpec
from stream.records import Headers, Records
from tests.compaction import fill
from tests.simulator import READINGS, Device, summarise
from tidewatch.accept import levels
from tidewatch.cli import app
from tidewatch.console import alert_line
from tidewatch.stack import embedded_broker
from tidewatch.topics import prepare_topics

START = 1_700_000_000_000
TOPICS = Topics()


class Worker:
    """Takes in what partition 0 of the readings holds, and gives what that brings about with each checkpoint."""

    def __init__(self, broker: Broker, fleet: Fleet) -> None:
        self._core = Partition(sources(TOPICS)[0], 0, StreamSpec(app="tidewatch"), TOPICS)
        self._core.use(fleet)
        self._broker = broker

    def step(self) -> None:
        with closing(consumer(self._broker, "core", enable_partition_eof=True)) as reader:
            reader.assign([TopicPartition(TOPICS.readings, 0, OFFSET_BEGINNING)])
            found = [*reader.consume(1_000, 0.2)]
            while not found or found[-1].error() is None:
                found += reader.consume(1_000, 0.2)
        new = [one for one in found if one.error() is None and (one.offset() or 0) >= self._core.next_offset]
        columns = np.array([(one.offset(), one.timestamp()[1]) for one in new], np.int64).reshape(-1, 2).T
        keys, values = [one.key() for one in new], [one.value() for one in new]
        heads: list[Headers] = [[*dict(one.headers() or ()).items()] for one in new]
        offsets, stamps = columns
        outputs = self._core.feed(Records(TOPICS.readings, 0, offsets, stamps, keys, values, heads))
        client = producer(self._broker)
        for message in [*singly(outputs), *self._core.checkpoint()]:
            client.produce(message.topic, message.value, message.key, 0, headers=list(message.headers))
        assert client.flush(10) == 0

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                self.step()

        thread = threading.Thread(target=run)
        thread.start()
        yield
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(4)


@pytest.fixture(scope="module")
def fleet(device: Device) -> Fleet:
    return Fleet.of(fit_fleet({"pump-1": summarise(device.readings(200))}, TrainSpec()).models, "v1")


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.chdir(tmp_path)
    for variable in ("TIDEWATCH_KAFKA", "TIDEWATCH_REDIS", "TIDEWATCH_DATA", "LOG_LEVEL"):
        monkeypatch.delenv(variable, raising=False)
    with embedded_broker() as broker:
        yield broker


def send(broker: Broker, values: Floats, second: int) -> None:
    client = producer(broker)
    for tick, row in enumerate(values):
        metrics = {f"metric{number}": float(value) for number, value in enumerate(row)}
        record = {"device_id": "pump-1", "ts": START + 1000 * (second + tick), "values": metrics}
        client.produce(TOPICS.readings, json.dumps(record).encode(), b"pump-1", 0)
    assert client.flush(10) == 0


def run(broker: Broker, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--kafka", broker.bootstrap, "accept", *words])
    if isinstance(result.exception, UnavailableError):
        return 4, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_person_accepts_is_refused_lists_and_takes_back(broker: Broker, device: Device, fleet: Fleet) -> None:
    prepare_topics(broker, TOPICS, partitions=1)
    worker = Worker(broker, fleet)
    send(broker, device.readings(3), 0)
    send(broker, device.readings(6) + 6 * device.spread * np.eye(6)[0], 3 * READINGS)
    worker.step()
    with worker.running():
        told = run(broker, "pump-1", "pump-2", "--note", "[bold]new[/] setpoint")
    listed = run(broker, "--list")
    with worker.running():
        gone = json.loads(run(broker, "pump-1", "--revoke", "--metric", "metric0", "--json")[1])
        twice = run(broker, "pump-1", "--revoke")

    assert told[0] == 1
    assert re.search(r"accepted pump-1 +metric0 .* \[bold\]new\[/\] setpoint", told[1])
    assert "no worker of 'tidewatch' has heard of it" in told[1]
    assert listed[0] == 0
    assert "pump-1" in listed[1]
    assert "metric0" in listed[1]
    assert [(one["outcome"], one["accepted"]) for one in gone] == [("revoked", None)]
    assert (twice[0], "no shift of the device is in force" in twice[1]) == (1, True)


def test_where_no_worker_ever_ran_nothing_is_accepted(broker: Broker) -> None:
    prepare_topics(broker, TOPICS, partitions=1)

    assert run(broker, "--list") == (0, "Nothing is accepted.\n")
    assert "no worker of 'tidewatch' has heard of it" in run(broker, "pump-1")[1]


def test_an_alert_tells_what_was_accepted_and_why() -> None:
    accepted = Accepted({"load": Level(1.5, 2.25)}, START, "[bold]more[/]\x1b users")
    alert = Alert("s/a/1", "a", "s", "resolved", START, START, 99.0, 8.0, [], "v1", accepted=accepted)

    assert alert_line(alert).endswith(r"accepted: load 2.25 (before 1.5); \[bold]more\[/]\x1b users")
    assert msgspec.json.decode(msgspec.json.encode(alert), type=Alert) == alert


def test_levels_since_a_time_are_means_of_windows_in_parquet(tmp_path: Path) -> None:
    fill(tmp_path)
    found = levels(tmp_path, ["pump-0", "nobody"], 0)
    late = levels(tmp_path, ["pump-0"], 2**42)

    assert found["nobody"] == {}
    assert found["pump-0"]
    assert late == {"pump-0": {}}
    with pytest.raises(InputError, match="statistics"):
        levels(tmp_path / "nowhere", ["pump-0"], 0)
