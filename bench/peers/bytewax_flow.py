"""Bytewax: a dataflow from Kafka to Kafka through its own window operator; runs in an environment of its own."""

import gc
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from bench.peers.scoring import Scorer, features, moment, statistics

BEGINS = "reading begins"
BATCH = 5_000
"""Records taken from a partition at a time, at most."""
GRACE = timedelta(seconds=1)
"""How long a window waits for stragglers, by the readings' own time."""
EPOCH = datetime.fromtimestamp(0, UTC)


class Reading(msgspec.Struct, gc=False):
    """What a device sends."""

    device_id: str
    ts: int
    values: dict[str, float]


_readings = msgspec.json.Decoder(Reading).decode
_encode = msgspec.json.Encoder().encode


class Source(KafkaSource):
    """Tells when the last of the partitions is opened."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job["bootstrap"].split(","), [job["readings"]], batch_size=BATCH)
        self._left = job["partitions"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Any:
        """Open one partition."""
        part = super().build_part(step_id, for_part, resume_state)
        self._left -= 1
        if not self._left:
            print(BEGINS, flush=True)
        return part


def build(job: dict[str, Any]) -> Dataflow:
    """A dataflow that does the job."""
    scorer, size_ms = Scorer(Path(job["past"])), job["window_ms"]

    def score(item: tuple[str, tuple[int, list[dict[str, float]]]]) -> Any:
        device, (number, rows) = item
        metrics = {name: statistics([row[name] for row in rows]) for name in rows[0]}
        record = {
            "device_id": device,
            "window_start": number * size_ms,
            "window_end": (number + 1) * size_ms,
            "metrics": metrics,
            "decision": scorer.decide(device, features(metrics)),
        }
        return KafkaSinkMessage(device.encode(), _encode(record))

    # the topic is from the past: by default the wall clock would move the windows on while a partition waits for
    # its turn, and readings be late; and each key would be woken, again and again, for windows due long ago
    clock = win.EventClock(_time, GRACE, now_getter=lambda: EPOCH, to_system_utc=lambda _: None)
    windower = win.TumblingWindower(timedelta(milliseconds=size_ms), EPOCH)
    flow = Dataflow("bench")
    decode = _sessions(job["loads"].split(",")) if job["loads"] else _readings
    readings = op.map("decode", op.input("readings", flow, Source(job)), _keyed(decode))
    # a device's readings come in order, and need not be put in order
    windows = win.fold_window("windows", readings, clock, windower, list, _collect, list.__add__, ordered=False)
    scores = op.map("score", windows.down, score)
    op.output("scores", scores, KafkaSink(job["bootstrap"].split(","), job["scores"]))
    return flow


def _sessions(loads: list[str]) -> Callable[[bytes], Reading]:
    """What reads a session as a reading."""
    fields = [("ServerIP", str), ("SessionStart", str), *((name, float) for name in loads)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Session", fields, gc=False)).decode

    def read(value: bytes) -> Reading:
        server, start, *values = msgspec.structs.astuple(decode(value))
        return Reading(server, moment(start), dict(zip(loads, values, strict=True)))

    return read


def _keyed(decode: Callable[[bytes], Reading]) -> Callable[[Any], tuple[str, Reading]]:
    def keyed(message: Any) -> tuple[str, Reading]:
        reading = decode(message.value)
        return reading.device_id, reading

    return keyed


def _time(reading: Reading) -> datetime:
    return datetime.fromtimestamp(reading.ts / 1000, UTC)


def _collect(rows: list[dict[str, float]], reading: Reading) -> list[dict[str, float]]:
    rows.append(reading.values)
    return rows


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 50)  # as Tidewatch does
    cli_main(build(json.loads(sys.argv[1])))
