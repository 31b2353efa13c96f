"""Predictions are collected by day behind the service's back, and never in its way."""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaError, KafkaException

from scorers.errors import UnavailableError
from serving.collect import Collector, CollectSpec, Folder, Kafka, Store, Taken
from serving.trace import Context, current, request_id, trace

SPEC = CollectSpec(every_s=0.05)
INPUTS = {"features": np.array([[1.0, np.nan]]), "device": np.array(["pump-1"], object), "raw": [b"x"]}
OUTPUTS = {"score": np.array([50.5]), "anomaly": np.array([True])}
PLAIN = {"features": [[1.0, None]], "device": ["pump-1"], "raw": ["x"]}


def collected(store: Store, count: int, spec: CollectSpec = SPEC, **options: Any) -> Collector:
    collector = Collector(store, spec, **options)
    for number in range(count):
        collector.take("pump-1", f"v{number}", INPUTS, OUTPUTS)
    collector.close()
    return collector


def today() -> str:
    return f"date={datetime.now(UTC).date().isoformat()}"


def test_json_lines_are_cloud_events_by_day(tmp_path: Path) -> None:
    token = current.set(Context(request_id(b"order-66"), trace(None)))
    collector = collected(Folder(tmp_path, parquet=False), 3)
    current.reset(token)
    (file,) = tmp_path.glob("date=*/*.jsonl")
    events = [json.loads(line) for line in file.read_text().splitlines()]

    assert file.parent.name >= today() or events
    assert [event["data"]["version"] for event in events] == ["v0", "v1", "v2"]
    assert {event["specversion"] for event in events} == {"1.0"}
    assert len({event["id"] for event in events}) == 3
    assert events[0]["data"]["inputs"] == PLAIN
    assert events[0]["data"]["outputs"] == {"score": [50.5], "anomaly": [True]}
    assert events[0]["data"]["request_id"] == "order-66"
    assert collector.counts == {"written": 3, "dropped": 0}


def test_parquet_files_appear_whole(tmp_path: Path) -> None:
    collected(Folder(tmp_path, parquet=True), 5, CollectSpec(every_s=0.05, batch=2))
    rows = [
        row for file in sorted(tmp_path.glob("date=*/*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()
    ]

    assert [row["version"] for row in rows] == [f"v{number}" for number in range(5)]
    assert json.loads(rows[0]["inputs"]) == PLAIN
    assert not list(tmp_path.glob("date=*/.*"))


class Producer:
    """What the Kafka store needs of a producer; it loses every third message, and takes none that is too large."""

    def __init__(self, lost: int = 0) -> None:
        self.sent: list[Any] = []
        self.lost = lost
        self.waiting: list[Any] = []

    def produce(
        self, topic: str, value: bytes, *, key: bytes, headers: list[tuple[str, bytes]], on_delivery: Any
    ) -> None:
        if b"large" in value:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.sent.append((topic, value, key, dict(headers)))
        self.waiting.append(on_delivery)

    def flush(self) -> None:
        for number, heard in enumerate(self.waiting):
            heard("gone" if number < self.lost else None, None)
        self.waiting.clear()


def test_kafka_gets_binary_cloud_events() -> None:
    producer = Producer()
    collected(Kafka(producer, "service.predictions"), 1)
    ((topic, value, key, headers),) = producer.sent

    assert (topic, key) == ("service.predictions", b"pump-1")
    assert headers["content-type"] == b"application/json"
    assert {name for name in headers if name.startswith("ce_")} == {
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time",
    }  # fmt: skip
    assert json.loads(value)["inputs"] == PLAIN


def test_what_kafka_does_not_acknowledge_or_take_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(Kafka(Producer(lost=2), "predictions"), SPEC)
    for number in range(5):
        collector.take("pump-1", f"v{number}", {"x": "large" if number == 4 else ""}, {})
    collector.close()

    assert collector.counts == {"written": 2, "dropped": 3}
    assert "3 predictions could not be written: " in caplog.text


def test_a_topic_is_made_before_the_first_message_once_that_can_be() -> None:
    calls: list[int] = []

    def prepare() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise UnavailableError("nobody answers")

    collector = Collector(Kafka(Producer(), "predictions", prepare), CollectSpec(batch=1, every_s=0.05))
    for number in range(3):
        collector.take("pump-1", f"v{number}", INPUTS, OUTPUTS)
    collector.close()

    assert collector.counts == {"written": 2, "dropped": 1}
    assert calls == [0, 1]


def test_what_cannot_be_written_in_time_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    store = Stuck()
    collector = Collector(store, CollectSpec(batch=1, every_s=0.05))
    for _ in range(3):
        collector.take("m", "v", {}, {})
    collector.close(0.1)
    store.go.set()

    assert "3 predictions are not collected" in caplog.text


class Stuck:
    """A store that takes its time."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.written = 0

    def write(self, taken: Sequence[Taken], source: str) -> None:
        assert source
        self.entered.set()
        self.go.wait(10)
        self.written += len(taken)

    def close(self) -> None:
        """Nothing to close."""


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    store = Stuck()
    collector = Collector(store, CollectSpec(queue=5, batch=1, every_s=0.05))
    collector.take("m", "v", {}, {})
    assert store.entered.wait(10)
    for _ in range(20):
        collector.take("m", "v", {}, {})
    store.go.set()
    collector.close()

    assert collector.counts["dropped"] == 15
    assert collector.counts["written"] == store.written == 6


def test_a_disk_that_fails_costs_nothing_but_what_it_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    collector = collected(Folder(tmp_path / "file", parquet=False), 3)

    assert collector.counts == {"written": 0, "dropped": 3}
    assert "could not be collected" in caplog.text


def test_a_share_is_collected(tmp_path: Path) -> None:
    chances = iter([0.1, 0.9, 0.4, 0.5])
    collector = collected(
        Folder(tmp_path, parquet=False), 4, CollectSpec(share=0.5, every_s=0.05), chance=lambda: next(chances)
    )

    assert collector.counts["written"] == 2
