"""Publishing against librdkafka's own mock broker: what is sent arrives, what fails is said."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from producers.batch import Batch
from producers.publish import Pace, Published, Target, Timer, publish, punctuate
from producers.sensors import SensorFleet
from scorers.errors import ConfigError, UnavailableError
from stream.contracts import Fault
from stream.kafka import Broker
from stream.records import PUNCTUATION

START = 1_700_000_000_000


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker inside librdkafka, alive as long as its client."""
    host = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = host.list_topics(timeout=10).brokers.values()
    yield Broker(",".join(f"{node.host}:{node.port}" for node in brokers))
    host.flush(1)


class Watch:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def timer(self) -> Timer:
        return Timer(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def fetch(broker: Broker, topic: str) -> list[Message]:
    """Everything in a topic; the records of a partition in their order."""
    consumer = Consumer(broker.config(group_id="test", enable_partition_eof=True, auto_offset_reset="earliest"))
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: dict[int | None, list[Message]] = defaultdict(list)
        ended: set[int | None] = set()
        while len(ended) < len(partitions):
            message = consumer.poll(10)
            if message is None:
                pytest.fail(f"no answer while reading {topic}")
            elif message.error():
                ended.add(message.partition())
            else:
                found[message.partition()].append(message)
        return [message for messages in found.values() for message in messages]
    finally:
        consumer.close()


def batch(count: int, *, step: int = 1_000, size: int = 20) -> Batch:
    """``count`` records of one device, ``step`` ms apart."""
    ts = START + np.arange(count) * step
    return Batch([b"pump-0001"] * count, [b"%d" % number + b"x" * size for number in range(count)], ts)


def test_every_record_arrives_once_in_order_of_its_device(broker: Broker) -> None:
    batches = list(islice(SensorFleet(40, start=START).build().batches(2_000), 3))
    report = publish(batches, Target(broker, "every"))
    sent: dict[bytes, list[bytes]] = defaultdict(list)
    for each in batches:
        for key, value in zip(each.keys, each.values, strict=True):
            sent[key].append(value)
    arrived: dict[bytes | None, list[bytes | None]] = defaultdict(list)
    for message in fetch(broker, "every"):
        arrived[message.key()].append(message.value())

    assert arrived == sent
    assert report.readings == 6_000
    assert report.bytes == sum(len(value) for each in batches for value in each.values)
    assert report.failed == 0


def test_truth_reaches_topic_and_file(broker: Broker, tmp_path: Path) -> None:
    fleet = SensorFleet(10, start=START).build()
    faults = [fleet.fault(name, "spike", start=START + 5_000, duration_ms=9_000) for name in ("pump-0001", "fan-0002")]
    fleet.inject(*faults)
    target = Target(broker, "with-truth", truth="truth", truth_file=tmp_path / "truth.jsonl")
    publish(islice(fleet.batches(100), 3), target)
    records = fetch(broker, "truth")
    written = [msgspec.json.decode(line, type=Fault) for line in (tmp_path / "truth.jsonl").read_bytes().splitlines()]

    assert {message.key() for message in records} == {b"pump-0001", b"fan-0002"}
    assert {message.value() for message in records} == {msgspec.json.encode(fault) for fault in faults}
    assert written == faults


def test_a_truth_file_that_cannot_be_written_is_named(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"truth file .*missing"):
        publish([batch(1)], Target(broker, "no-file", truth_file=tmp_path / "missing" / "truth.jsonl"))


def test_an_unreachable_broker_is_named_with_the_topic() -> None:
    target = Target(Broker("127.0.0.1:1", {"log_level": "0"}), "nowhere", timeout_ms=300)

    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1.*'nowhere'"):
        publish([batch(3)], target)


def test_a_full_queue_waits_and_loses_nothing(broker: Broker) -> None:
    small = Broker(broker.bootstrap, {"queue.buffering.max.kbytes": "200"})
    report = publish([batch(25_000, size=1_000)], Target(small, "full"))

    assert report.readings == len(fetch(broker, "full")) == 25_000


def test_a_record_too_large_for_kafka_is_counted_and_the_rest_sent(broker: Broker) -> None:
    mixed = Batch([b"a", b"b", b"c"], [b"1", b"2" * 5_000_000, b"3"], START + np.arange(3))
    report = publish([mixed], Target(broker, "large"))

    assert (report.readings, report.failed, report.bytes) == (2, 1, 2)
    assert {message.value() for message in fetch(broker, "large")} == {b"1", b"3"}


def test_stop_ends_the_sending_and_what_was_sent_is_delivered(broker: Broker) -> None:
    looks = iter(range(1_000))
    report = publish([batch(100_000)], Target(broker, "stopped"), stop=lambda: next(looks) >= 3)

    assert 0 < report.readings == len(fetch(broker, "stopped")) < 100_000


def test_ctrl_c_flushes_first(broker: Broker) -> None:
    def interrupted() -> Iterator[Batch]:
        yield batch(500)
        raise KeyboardInterrupt

    report = publish(interrupted(), Target(broker, "interrupted"))

    assert report.readings == len(fetch(broker, "interrupted")) == 500


def test_a_rate_is_kept(broker: Broker) -> None:
    report = publish([batch(500), batch(500)], Target(broker, "rate"), pace=Pace(rate=100.0), timer=Watch().timer())

    assert report.seconds == pytest.approx(10.0, abs=0.1)


def test_event_time_passes_at_the_speed_asked_for(broker: Broker) -> None:
    # 600 records 1 s apart at 60 times real time: the last is due after 599 / 60 s
    report = publish([batch(600)], Target(broker, "speed"), pace=Pace(speed=60.0), timer=Watch().timer())

    assert report.seconds == pytest.approx(599 / 60, abs=0.1)


def test_the_pace_lets_records_go_when_they_are_due() -> None:
    ts = START + np.array([0, 1_000, 1_500, 4_000])

    assert Pace().due(ts, elapsed=0.0, sent=0, origin=START) == 4
    assert Pace(speed=1.0).due(ts, elapsed=1.5, sent=0, origin=START) == 3
    assert Pace(rate=2.0).due(ts, elapsed=2.0, sent=3, origin=START) == 1


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": -1.0}, {"speed": float("nan")}, {"speed": float("inf")}])
def test_a_pace_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give a number above 0"):
        Pace(**wrong)


def test_punctuation_reaches_every_partition(broker: Broker) -> None:
    count = punctuate(Target(broker, "ended"), START)
    messages = fetch(broker, "ended")

    assert count == len({message.partition() for message in messages}) == len(messages)
    assert all(message.headers() == [(PUNCTUATION, b"%d" % START)] and not message.value() for message in messages)


def test_a_report_tells_its_rate() -> None:
    assert Published(1_000, 1, 0, 2.0).rate == 500.0
    assert Published(0, 0, 0, 0.0).rate == 0.0
