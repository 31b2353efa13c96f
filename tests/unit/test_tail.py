"""Small readers: where topics end, what is there, what arrives."""

import uuid
from collections.abc import Iterator
from itertools import islice

import pytest
from confluent_kafka import TopicPartition

from scorers.errors import UnavailableError
from stream.kafka import Broker, consumer, producer
from tidewatch.servers import HOST, free_ports
from tidewatch.stack import embedded_broker
from tidewatch.tail import backlog, drained, ends, follow, gather


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with embedded_broker() as running:
        yield running


@pytest.fixture
def topic(broker: Broker) -> str:
    """A topic with three records in partition 0 and two in partition 1."""
    name = f"tail-{uuid.uuid4().hex}"
    send(broker, name, {0: [b"a", b"b", b"c"], 1: [b"d", b"e"]})
    return name


def send(broker: Broker, topic: str, records: dict[int, list[bytes]]) -> None:
    client = producer(broker)
    for partition, values in records.items():
        for value in values:
            client.produce(topic, value, partition=partition)
    assert client.flush(10) == 0


def commit(broker: Broker, group: str, topic: str, offsets: dict[int, int]) -> None:
    reader = consumer(broker, group)
    places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
    reader.commit(offsets=places, asynchronous=False)
    reader.close()


def test_ends_are_told_of_every_partition(broker: Broker, topic: str) -> None:
    assert ends(broker, [topic]) == {(topic, 0): 3, (topic, 1): 2, (topic, 2): 0, (topic, 3): 0}


def test_a_backlog_is_what_a_group_has_not_committed(broker: Broker, topic: str) -> None:
    commit(broker, "behind", topic, {0: 1, 1: 2})
    left = backlog(broker, "behind", [topic])

    assert left == {(topic, 0): 2, (topic, 1): 0, (topic, 2): 0, (topic, 3): 0}
    assert sum(backlog(broker, "newcomer", [topic]).values()) == 5


def test_a_group_is_drained_once_all_is_committed(broker: Broker, topic: str) -> None:
    before = drained(broker, "busy", [topic], within_s=0)
    commit(broker, "busy", topic, {0: 3, 1: 2})

    assert not before
    assert drained(broker, "busy", [topic], within_s=10)


def test_gathering_gives_everything_and_ends(broker: Broker, topic: str) -> None:
    assert sorted(message.value() or b"" for message in gather(broker, [topic])) == [b"a", b"b", b"c", b"d", b"e"]


def test_following_from_the_beginning_gives_past_and_present(broker: Broker, topic: str) -> None:
    arriving = follow(broker, [topic], beginning=True, stop=lambda: False)
    past = [message.value() for message in islice(arriving, 5)]
    send(broker, topic, {2: [b"new"]})

    assert sorted(value or b"" for value in past) == [b"a", b"b", b"c", b"d", b"e"]
    assert next(arriving).value() == b"new"


def test_following_ends_when_told_to(broker: Broker, topic: str) -> None:
    assert list(follow(broker, [topic], beginning=True, stop=lambda: True)) == []


def test_a_missing_topic_is_told_with_the_way_to_make_it(broker: Broker) -> None:
    with pytest.raises(UnavailableError, match="start the worker, which makes it"):
        ends(broker, ["nothing-here"])


def test_a_broker_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.tail.TIMEOUT_S", 0.5)
    (port,) = free_ports(1)

    with pytest.raises(UnavailableError, match="TIDEWATCH_KAFKA") as told:
        next(follow(Broker(f"{HOST}:{port}"), ["any"], beginning=False, stop=lambda: False))
    assert "KafkaError{" not in str(told.value)
