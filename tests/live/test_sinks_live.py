"""Sinks on what real workers put out: rows equal records, and a recording played twice gives the same Parquet."""

import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pyarrow as pa
import redis

from scorers.pack import save
from sinks.base import Sink, Source
from sinks.compare import compare
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.redis import RedisSink, RedisSpec
from sinks.runner import RunSpec, run
from stream.contracts import Alert, Score, Topics
from stream.kafka import Broker, Setting, ensure_topics
from tests.live.support import (
    PARTITIONS,
    Recording,
    Site,
    Worker,
    drained,
    eventually,
    finish,
    read,
    send,
    trained,
)
from tidewatch.servers import KafkaServer
from tidewatch.tail import ends


def play(site: Site, recording: Recording, chunks: Sequence[Setting], *, workers: int) -> None:
    """Send the recording in parts, one with each ``linger_ms``, while ``workers`` share it; wait until it is out."""
    with ExitStack() as stack:
        team = [stack.enter_context(Worker(site)) for _ in range(workers)]
        share = 2 * PARTITIONS // workers  # of readings and sessions together
        eventually(lambda: all(worker.partitions == share for worker in team), "all own their share", team)
        size = -(-len(recording.sent) // len(chunks))
        for number, linger in enumerate(chunks):
            send(site, recording.sent[number * size : (number + 1) * size], linger_ms=linger)
        finish(site, recording)
        eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", team)
        for worker in team:
            worker.end(signal.SIGTERM, 10)


def fill(site: Site, sink: Sink) -> None:
    """Let a sink take all that is there now."""
    until = {Source(*place): end for place, end in ends(site.broker, sink.topics).items()}
    run(sink, site.broker, RunSpec(f"{site.prefix}{type(sink).__name__}", until=until), stop=lambda: False)


def parquet(site: Site) -> Path:
    """The folder of a Parquet sink that has taken everything."""
    folder = site.folder / "parquet"
    fill(site, ParquetSink(ParquetSpec(folder), site.topics))
    return folder


def scores(site: Site) -> list[Score]:
    return [
        msgspec.json.decode(message.value() or b"", type=Score) for message in read(site.broker, [site.topics.scores])
    ]


def rows(folder: Path, table: str) -> list[dict[str, object]]:
    found: pa.Table = dataset(folder, table).to_table()
    whole: list[dict[str, object]] = found.to_pylist()
    return whole


def test_parquet_and_redis_hold_what_the_records_say(
    kafka: Broker, topics: Topics, redis_url: str, tmp_path: Path
) -> None:
    site, recording = Site(kafka, topics, tmp_path), Recording(seconds=40)
    save(trained(recording), site.fleet, created=recording.end)
    play(site, recording, [20], workers=1)
    found = scores(site)
    folder = parquet(site)
    fill(site, RedisSink(RedisSpec(redis_url, prefix=site.prefix), topics))

    assert Counter((row["device_id"], row["score"], row["count"]) for row in rows(folder, "predictions")) == Counter(
        (score.device_id, score.score, score.count) for score in found
    )
    assert Counter(
        (row["device_id"], row["metric"], row["mean"], row["std"], row["last"]) for row in rows(folder, "statistics")
    ) == Counter(
        (score.device_id, name, metric.mean, metric.std, metric.last)
        for score in found
        for name, metric in score.metrics.items()
    )
    check_redis(site, redis_url, found)


def check_redis(site: Site, url: str, found: list[Score]) -> None:
    newest = {score.device_id: score for score in sorted(found, key=lambda score: score.window_start)}
    changes = [msgspec.json.decode(m.value() or b"", type=Alert) for m in read(site.broker, [site.topics.alerts])]
    firing = Counter(alert.alert_id for alert in changes if alert.state == "firing")
    firing.subtract(alert.alert_id for alert in changes if alert.state == "resolved")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for device, score in newest.items():
            held = client.hgetall(f"{site.prefix}:device:{device}")

            assert (held["window_start"], held["state"]) == (str(score.window_start), score.state)
            assert client.xlen(f"{site.prefix}:history:{device}") == Counter(s.device_id for s in found)[device]
        ranked = client.zrange(f"{site.prefix}:oddest", 0, -1)
        open_now = client.hkeys(f"{site.prefix}:alerts:open")

    assert set(ranked) == {device for device, score in newest.items() if score.state == "scored"}
    assert set(open_now) == set(+firing)


def test_a_recording_played_twice_by_one_worker_and_by_two_gives_the_same_parquet(
    kafka: Broker, own_kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    ensure_topics(own_kafka.broker, topics, partitions=PARTITIONS)
    recording = Recording(seconds=60)
    sites = []
    for number, broker in enumerate((kafka, own_kafka.broker), 1):
        folder = tmp_path / f"by-{number}"
        folder.mkdir()
        sites.append(Site(broker, topics, folder))
        save(trained(recording), sites[-1].fleet, created=recording.end)
    one, two = sites
    play(one, recording, [20], workers=1)
    play(two, recording, [0, 500, 5, 0, 50, 1, 0], workers=2)
    found = compare(parquet(one), parquet(two))

    assert found.same, found
    assert min(table.left_rows for table in found.tables) > 100
