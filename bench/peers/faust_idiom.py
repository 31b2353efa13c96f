"""The textbook Faust: a tumbling table that collects each device's readings, and a callback when a window closes.

It is the window aggregation among Faust's own examples, one event at a time. What that does not stand is replaying
a topic of several partitions: it closes windows by the wall clock, unfinished ones too, and drops all that do not
begin after the one closed last, whosever it was. ``EventTime`` and ``Table`` are there for no other reason.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import faust
import msgspec
from faust.serializers import codecs
from faust.utils.json import on_default

from bench.peers.scoring import features, moment, pipelines, profile, statistics

BEGINS = "reading begins"
CLEANUP_S = 1.0
"""How often Faust looks for windows to close."""
GRACE_S = 1.0
"""How long a window waits for stragglers, by the readings' own time."""


class Reading(faust.Record):
    """What a device sends."""

    device_id: str
    ts: int
    values: dict[str, float]


class Json(codecs.Codec):
    """Takes the place of Faust's codec for JSON, which is slow unless orjson is installed."""

    def _loads(self, s: bytes) -> Any:
        return msgspec.json.decode(s)

    def _dumps(self, s: Any) -> bytes:
        return msgspec.json.encode(s, enc_hook=on_default)


class EventTime(faust.TumblingWindow):
    """A window is over once every partition's readings are past it."""

    def __init__(self, size_s: float, partitions: int) -> None:
        super().__init__(size_s, expires=GRACE_S)
        self.reached = dict.fromkeys(range(partitions), 0.0)
        """How far each partition has got, epoch seconds."""

    def stale(self, timestamp: float, latest_timestamp: float) -> bool:  # noqa: ARG002 - Faust's signature
        """Whether a window that ends at ``timestamp`` is over; the other one is what the wall clock says."""
        return timestamp < min(self.reached.values()) - GRACE_S


class Table(faust.Table[Any, Any]):
    """Closes whatever window is over."""

    @property
    def last_closed_window(self) -> float:
        """No window: those of the other partitions begin just then, and would be dropped."""
        return 0.0

    @last_closed_window.setter
    def last_closed_window(self, begin: float) -> None:
        pass


def build(job: dict[str, Any]) -> faust.App:
    """An app that does the job."""
    models = pipelines(Path(job["past"]))
    size_ms = job["window_ms"]
    app = faust.App(
        job["name"],
        broker="kafka://" + job["bootstrap"].replace(",", ";kafka://"),
        datadir=Path(job["folder"]) / job["name"],
        topic_partitions=job["partitions"],
        topic_disable_leader=True,
        web_enabled=False,
        cython_optimizations=True,
        table_cleanup_interval=CLEANUP_S,
        # one changelog record a reading: sent one by one, they keep the broker busier than the worker
        producer_linger=0.05,
        producer_max_batch_size=256 * 1024,
        Table=Table,
    )
    app.producer.buffer.max_messages = 10_000  # at the usual 100 the stream stands still again and again
    loads = job["loads"].split(",") if job["loads"] else []
    kind: Any = {"value_serializer": "json"} if loads else {"value_type": Reading}
    readings = app.topic(job["readings"], key_type=str, **kind)
    scores = app.topic(job["scores"], key_type=str)

    def score(key: tuple[str, tuple[float, float]], rows: list[dict[str, float]]) -> None:
        device, (begin, _) = key
        start = round(begin * 1000)
        metrics = {name: statistics([row[name] for row in rows]) for name in rows[0]}
        model = models[profile(device, len(models))]
        record = {
            "device_id": device,
            "window_start": start,
            "window_end": start + size_ms,
            "metrics": metrics,
            "decision": float(model.decision_function([features(metrics)])[0]),
        }
        scores.send_soon(key=device, value=record)

    window = EventTime(size_ms / 1000, job["partitions"])
    table = app.Table("windows", default=list, on_window_close=score)
    wrapped: Any = table.using_window(window)
    windows = wrapped.relative_to(
        lambda event: (moment(event.value["SessionStart"]) if loads else event.value.ts) / 1000
    )

    @app.agent(readings)
    async def collect(stream: faust.StreamT[Reading]) -> None:
        async for event in stream.events():
            reading = _session(event.value, loads) if loads else event.value
            rows = windows[reading.device_id].value()
            rows.append(reading.values)
            windows[reading.device_id] = rows
            window.reached[event.message.partition] = reading.ts / 1000

    @table.on_recover
    async def ready() -> None:
        print(BEGINS, flush=True)

    return app


def _session(session: dict[str, Any], loads: list[str]) -> Reading:
    """A session as a reading."""
    values = {name: session[name] for name in loads}
    return Reading(device_id=session["ServerIP"], ts=moment(session["SessionStart"]), values=values)


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 50)  # as Tidewatch does
    codecs.register("json", Json())
    worker = faust.Worker(build(json.loads(sys.argv[1])), loglevel="WARNING", redirect_stdouts=False)
    worker.execute_from_commandline()
