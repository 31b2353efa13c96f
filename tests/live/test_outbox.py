"""The transactions of one partition on real Kafka: what a zombie began is never seen."""

import threading

import pytest
from confluent_kafka import KafkaException

from stream.contracts import Topics
from stream.kafka import Broker, batch_producer
from stream.message import Bulk, Message, header, tombstones
from stream.outbox import ExactlyOnce, FencedError, remembered
from stream.producer import Load
from tests.live.support import read


def outbox(broker: Broker, topics: Topics) -> ExactlyOnce:
    opened = ExactlyOnce(broker, threading.Event(), f"{topics.scores}-0")
    opened.open(threading.Event())
    return opened


def messages(topics: Topics, value: bytes) -> list[Message]:
    return [Message(topics.scores, b"dev-1", value), Message(topics.state, b"state", value, partition=0)]


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(kafka: Broker, topics: Topics) -> None:
    zombie = outbox(kafka, topics)
    zombie.send(messages(topics, b"first"), [])
    heir = outbox(kafka, topics)
    with pytest.raises(FencedError, match="another owner"):
        zombie.send(messages(topics, b"zombie"), [])
    heir.send(messages(topics, b"heir"), [])

    assert {message.value() for message in read(kafka, [topics.scores, topics.state])} == {b"first", b"heir"}


def test_what_a_zombie_left_open_is_taken_back(kafka: Broker, topics: Topics) -> None:
    zombie = outbox(kafka, topics)
    zombie._producer.begin_transaction()  # noqa: SLF001 - frozen between two steps of send
    zombie._produce(messages(topics, b"zombie"))  # noqa: SLF001
    zombie._producer.flush(30)  # noqa: SLF001
    heir = outbox(kafka, topics)
    heir.send(messages(topics, b"heir"), [])
    with pytest.raises(KafkaException):
        zombie._producer.commit_transaction(30)  # noqa: SLF001

    assert {message.value() for message in read(kafka, [topics.scores, topics.state])} == {b"heir"}


def test_messages_arrive_as_they_were_sent_however_little_room_there_is(kafka: Broker, topics: Topics) -> None:
    client = batch_producer(kafka, queue_buffering_max_messages=100)
    heads = header("own", b""), header("n\u00e4me", bytes(300)), header("shared", b"x")
    keys = None, b"", b"key"
    sent = [
        Message(topics.scores, keys[at % 3], b"%d" % at, heads[at % 2], at % 2, at + 1, heads[2]) for at in range(999)
    ]
    load, row, rounds = Load([*sent[:300], Bulk.of(sent[300:700]), Bulk.of(sent[700:900]), *sent[900:]]), 0, 0
    while (row := client.enqueue(load, row)) < len(load):
        client.poll(0.01)
        rounds += 1
    assert client.flush(30) == 0
    found = sorted(read(kafka, [topics.scores]), key=lambda message: int(message.value() or b""))

    assert rounds > 1
    assert [(m.key(), m.value(), m.headers(), m.partition(), m.timestamp()[1]) for m in found] == [
        (m.key, m.value, m.headers, m.partition, m.timestamp) for m in sent
    ]


def test_a_setting_librdkafka_does_not_know_is_named(kafka: Broker) -> None:
    with pytest.raises(KafkaException, match=r'No such configuration property: "no\.such"'):
        batch_producer(kafka, no_such=1)


def test_an_outbox_that_was_fenced_closes_in_peace(kafka: Broker, topics: Topics) -> None:
    zombie = outbox(kafka, topics)
    outbox(kafka, topics).close()
    with pytest.raises(FencedError):
        zombie.send(messages(topics, b"zombie"), [])

    zombie.close()


def test_a_tombstone_has_no_value_and_is_remembered_as_empty(kafka: Broker, topics: Topics) -> None:
    opened = outbox(kafka, topics)
    opened.send([], [Message(topics.load, key, b"v", partition=0) for key in (b"a", b"b")])
    opened.send([], [tombstones(topics.load, [b"b"], 0)])
    values = [(message.key(), message.value()) for message in read(kafka, [topics.load])]

    assert values == [(b"a", b"v"), (b"b", b"v"), (b"b", None)]
    assert remembered(kafka, topics.load, 0, threading.Event()) == {b"a": b"v", b"b": b""}
