"""Exactly once and at least once on real Kafka: what a crash, a former owner and a refusal leave in the topics."""

import logging
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic

from stream.contracts import Topics
from stream.kafka import Broker
from stream.message import Message, header
from stream.outbox import Delivery, FencedError, Outbox, StoppedError, outboxes
from tests.live.support import (
    PARTITIONS,
    Recording,
    Site,
    Worker,
    drained,
    emitted,
    eventually,
    expected,
    finish,
    read,
    send,
)

AT_LEAST_ONCE = ("--delivery", "at-least-once")


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    return Site(kafka, topics, tmp_path)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def opened(site: Site, delivery: Delivery, stop: threading.Event) -> Outbox:
    outbox = outboxes(site.broker, delivery, stop)(site.app)
    outbox.open(stop)
    return outbox


def epoch(site: Site, *values: bytes, topic: str = "") -> tuple[list[Message], list[Message]]:
    """Outputs, and one record of state."""
    outputs = [Message(topic or site.topics.alerts, b"key", value, header("name", b"told")) for value in values]
    return outputs, [Message(site.topics.state, b"key", values[-1], partition=0)]


def values(site: Site, topic: str) -> list[bytes]:
    return sorted(message.value() or b"" for message in read(site.broker, [topic]))


def cramped(site: Site) -> str:
    """A topic that takes small messages only."""
    topic = f"{site.prefix}cramped"
    admin = AdminClient(site.broker.config())
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"max.message.bytes": "5000"})])[topic].result(30)
    return topic


def widen(site: Site, topic: str) -> None:
    """Let the topic take large messages too."""
    entry = ConfigEntry("max.message.bytes", "1000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(site.broker.config())
    admin.incremental_alter_configs([resource])[resource].result(30)


def test_at_least_once_gives_the_same_as_exactly_once_where_nothing_happens(site: Site) -> None:
    recording = Recording()
    send(site, recording.sent)
    finish(site, recording)
    with Worker(site, *AT_LEAST_ONCE) as worker:
        eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", [worker])
        code = worker.end(signal.SIGTERM, 10)

    assert emitted(site) == expected(site)
    assert code == 0


def test_at_least_once_a_crash_loses_nothing_and_doubles_to_the_byte(site: Site) -> None:
    recording = Recording()
    send(site, recording.sent)
    finish(site, recording)
    for _ in range(3):
        before = len(emitted(site))
        with Worker(site, *AT_LEAST_ONCE) as worker:
            eventually(lambda: len(emitted(site)) > before or drained(site, site.topics.readings), "outputs", [worker])  # noqa: B023 - called at once
            worker.end(signal.SIGKILL, 10)
    with Worker(site, *AT_LEAST_ONCE) as worker:
        eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", [worker])
    found, due = Counter(emitted(site)), Counter(expected(site))

    assert found.keys() == due.keys()
    assert found >= due


@pytest.mark.parametrize("delivery", Delivery)
def test_what_is_sent_is_there_once(site: Site, delivery: Delivery, stop: threading.Event) -> None:
    outbox = opened(site, delivery, stop)
    many = [b"%d" % number for number in range(5_000)]
    outbox.send(*epoch(site, *many))
    outbox.send([], epoch(site, b"later")[1])
    outbox.close()
    (first, *_) = read(site.broker, [site.topics.alerts])

    assert values(site, site.topics.alerts) == sorted(many)
    assert values(site, site.topics.state) == [b"4999", b"later"]
    assert first.headers() == [("name", b"told")]


@pytest.mark.parametrize(
    ("delivery", "visible"), [(Delivery.EXACTLY_ONCE, [b"new"]), (Delivery.AT_LEAST_ONCE, [b"new", b"old"])]
)
def test_a_former_owner_may_double_outputs_at_most(
    site: Site, delivery: Delivery, visible: list[bytes], stop: threading.Event
) -> None:
    former = opened(site, delivery, stop)
    former.send([], epoch(site, b"before")[1])
    owner = opened(site, delivery, stop)
    owner.send(*epoch(site, b"new"))

    with pytest.raises(FencedError):
        former.send(*epoch(site, b"old"))
    former.close()

    assert values(site, site.topics.alerts) == visible
    assert values(site, site.topics.state) == [b"before", b"new"]


@pytest.mark.parametrize("delivery", Delivery)
def test_a_former_owner_is_told_so_however_much_it_has_to_say(
    site: Site, delivery: Delivery, stop: threading.Event
) -> None:
    former = opened(site, delivery, stop)
    opened(site, delivery, stop)
    outputs, _ = epoch(site, *[b"x" * 100] * 60_000)
    state = [Message(site.topics.state, b"key", b"x" * 100, partition=0)] * 60_000

    with pytest.raises(FencedError):
        former.send(outputs, state)

    assert values(site, site.topics.state) == []


@pytest.mark.parametrize("delivery", Delivery)
def test_what_kafka_refuses_is_sent_until_kafka_takes_it(
    site: Site, delivery: Delivery, stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    topic = cramped(site)
    outbox = opened(site, delivery, stop)
    small = [b"%d" % number for number in range(3_000)]
    large = random.Random(1).randbytes(10_000)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(outbox.send, *epoch(site, *small[:1_000], large, *small[1_000:], topic=topic))
        eventually(lambda: "sent again" in caplog.text, "a refusal is told")
        before = values(site, site.topics.state)
        widen(site, topic)
        sending.result(30)

    assert before == []
    assert values(site, topic) == sorted([*small, large])
    assert values(site, site.topics.state) == [b"2999"]
    assert "Message size too large" in caplog.text


@pytest.mark.parametrize("delivery", Delivery)
def test_an_epoch_that_kafka_does_not_take_ends_with_the_stop(
    site: Site, delivery: Delivery, stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    topic = cramped(site)
    outbox = opened(site, delivery, stop)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(outbox.send, *epoch(site, random.Random(1).randbytes(10_000), topic=topic))
        eventually(lambda: "sent again" in caplog.text, "a refusal is told")
        stop.set()
        with pytest.raises(StoppedError):
            sending.result(30)
    outbox.close()

    assert values(site, topic) == values(site, site.topics.state) == []
