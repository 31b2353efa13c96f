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
    """What the Kafka store needs of a producer."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def produce(self, topic: str, value: bytes, *, key: bytes, headers: list[tuple[str, bytes]]) -> None:
        self.sent.append((topic, value, key, dict(headers)))

    def poll(self, _: float) -> None:
        """Nothing to report."""

    def flush(self, _: float) -> None:
        self.sent.append("flushed")


def test_kafka_gets_binary_cloud_events() -> None:
    producer = Producer()
    collected(Kafka(producer, "service.predictions"), 1)
    (topic, value, key, headers), last = producer.sent

    assert (topic, key, last) == ("service.predictions", b"pump-1", "flushed")
    assert headers["content-type"] == b"application/json"
    assert {name for name in headers if name.startswith("ce_")} == {
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time",
    }  # fmt: skip
    assert json.loads(value)["inputs"] == PLAIN


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
