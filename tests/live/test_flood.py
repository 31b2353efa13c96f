"""Far more at once than memory holds: the worker takes what it can, the rest waits in Kafka, and nothing is lost."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from stream.contracts import MetricStatistics, Score, Topics
from stream.kafka import Broker, consumer, ensure_topics
from tests.live.support import (
    PARTITIONS,
    Emitted,
    Recording,
    Sent,
    Site,
    Worker,
    drained,
    eventually,
    expected,
    finish,
    read,
    send,
)
from tidewatch.tail import backlog

log = logging.getLogger(__name__)

RECORDS, SIZE = 8_000, 200_000
CAP_MB = 700
"""Of a worker at its peak, on any machine; less than half of what the flood unpacks to."""

Windows = dict[tuple[str, int], dict[str, MetricStatistics]]


def new_site(kafka: Broker, folder: Path) -> Site:
    topics = Topics.prefixed(f"t{uuid.uuid4().hex[:12]}.")
    ensure_topics(kafka, topics, partitions=PARTITIONS)
    return Site(kafka, topics, folder)


def flood() -> Iterator[list[Sent]]:
    """Records that no reader can use and that take hardly any room in Kafka, a thousand at a time."""
    for begin in range(0, RECORDS, 1_000):
        yield [(b"key-%d" % (n % 64), b"%07d" % n + b"x" * (SIZE - 7)) for n in range(begin, begin + 1_000)]


def washed_up(site: Site) -> tuple[int, int]:
    """How many records of the flood are rejects, and how many different ones."""
    reader = consumer(site.broker, "tests", enable_partition_eof=True, fetch_message_max_bytes=100_000)
    reader.assign([TopicPartition(site.topics.rejects, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    found, left = list[bytes](), PARTITIONS
    while left:
        for message in reader.consume(20, 0.5):
            left -= message.error() is not None
            value = message.value() or b""
            if message.error() is None and len(value) == SIZE:
                found.append(value[:7])
    reader.close()
    return len(found), len({*found})


def windows(values: Iterator[bytes]) -> Windows:
    scores = [msgspec.json.decode(value, type=Score) for value in values]
    return {(score.device_id, score.window_start): score.metrics for score in scores}


def scores(site: Site) -> Windows:
    return windows(message.value() or b"" for message in read(site.broker, [site.topics.scores]))


def undisturbed(kafka: Broker, folder: Path, recording: Recording) -> Windows:
    """The windows of a recording without a flood."""
    site = new_site(kafka, folder)
    send(site, recording.sent)
    finish(site, recording)
    records: list[Emitted] = expected(site)
    return windows(value for topic, _, value, _ in records if topic == site.topics.scores)


def test_a_flood_fills_no_memory_and_stops_no_score_and_drains(kafka: Broker, tmp_path: Path) -> None:
    site, recording = new_site(kafka, tmp_path), Recording(seconds=30)
    third = len(recording.sent) // 3
    send(site, recording.sent[:third])
    with Worker(site) as worker:
        eventually(lambda: bool(scores(site)), "windows come out", [worker])
        for part in flood():
            send(site, part)
        send(site, recording.sent[third:])
        finish(site, recording)
        lag = sum(backlog(site.broker, site.app, [site.topics.readings]).values())
        eventually(lambda: drained(site, site.topics.readings), "the flood has passed", [worker], within_s=180)
        peak = worker.peak_mb
    log.info("lag %d records; peak %.0f MB", lag, peak)

    assert lag > 0
    assert peak < CAP_MB
    assert washed_up(site) == (RECORDS, RECORDS)
    assert scores(site) == undisturbed(kafka, tmp_path, recording)
