"""A steady load for minutes: how long after a window closes its score and its alert are there, and how much memory."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.arena import Arena
from bench.job import INTERVAL_MS, SIZE_MS, TICKS, Job
from bench.measure import START_S, watching
from bench.process import Process, rss_mb
from bench.runners import ours
from producers.batch import ReadingEncoder
from scorers.errors import UnavailableError
from scorers.statistics import Floats
from stream.kafka import ensure_topics, producer
from tidewatch.groups import Window

SLICE_MS = 50
"""Readings are sent in slices of so much event time, each as soon as it is over."""
SLICES = INTERVAL_MS // SLICE_MS
WARM = 2
"""Windows of each device before anything is measured."""
FAULTY = 0.01
"""Share of the devices that go wrong at a time ..."""
EVERY, LASTS = 6, 2
"""... every so many windows, for so many: as many as make an alert."""
_SAMPLE_S = 5.0
_PATIENCE_S = 15.0
_NAP_S = 0.02


class _Told(msgspec.Struct):
    """What is read of a score or an alert."""

    device_id: str
    window_end: int | None = None
    at: int | None = None
    state: str = ""


@dataclass(slots=True)
class Series:
    """What was seen, by the second."""

    scores: list[float] = field(default_factory=list)
    """Seconds from sending the reading that closes a window until its score is there to be read; likewise below."""
    alerts: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, MB."""
    missing: int = 0
    """Windows that had not come when patience ended."""


class Load(threading.Thread):
    """Sends every device's reading once a second, in the order of their phases."""

    def __init__(self, arena: Arena, minutes: float) -> None:
        super().__init__(daemon=True)
        self._arena = arena
        self.job = arena.job
        self.windows = max(WARM + 1, round(minutes * 60_000 / SIZE_MS))
        """Of each device."""
        self.began = (int(time.time() * 1000) // SIZE_MS + 1) * SIZE_MS
        self.sent = np.zeros((self.windows * TICKS + TICKS) * SLICES)
        """When each slice was sent, epoch s."""
        self.late = 0.0
        """By how many seconds the worst slice was sent too late."""
        self.ended = float("inf")
        """When the last slice had been sent, epoch s."""
        self._stopped = threading.Event()

    def closing(self, device: int, window_end: int, grace_ms: int) -> int:
        """The slice of the reading that closes a window."""
        phase = device * INTERVAL_MS // self.job.devices
        tick = -((self.began + phase - window_end - grace_ms) // INTERVAL_MS)
        return int(tick) * SLICES + phase // SLICE_MS

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()

    def run(self) -> None:
        """Send until every window is closed."""
        job = self.job
        encoder = ReadingEncoder(job.metric_names)
        names, client = job.names, producer(self._arena.broker, linger_ms=5)
        edges = np.arange(SLICES + 1) * job.devices // SLICES
        phase = np.arange(job.devices) * INTERVAL_MS // job.devices
        for tick, values in enumerate(self._ticks(job)):
            for part in range(SLICES):
                here = slice(edges[part], edges[part + 1])
                ts = self.began + tick * INTERVAL_MS + phase[here]
                due = (self.began + tick * INTERVAL_MS + (part + 1) * SLICE_MS) / 1000
                records = encoder.encode(names[here], ts, values[here])
                if self._stopped.wait(max(0.0, due - time.time())):
                    break
                for name, record in zip(names[here], records, strict=True):
                    _put(client, self._arena.topics.readings, record, name)
                client.poll(0)
                self.sent[tick * SLICES + part] = now = time.time()
                self.late = max(self.late, now - due)
            if self._stopped.is_set():
                break
        self.ended = time.time()
        client.flush()

    def _ticks(self, job: Job) -> Iterator[Floats]:
        """The values of every device, second by second; and a window more, which closes the last ones."""
        random = np.random.default_rng(job.seed)
        faulty = np.empty(0, np.int64)
        for window in range(self.windows + 1):
            if window % EVERY == WARM:
                faulty = random.choice(job.devices, max(1, int(job.devices * FAULTY)), replace=False)
            if window % EVERY == WARM + LASTS:
                faulty = faulty[:0]
            cube = job.block(window).cube
            cube[:, faulty, 0] *= 1.5
            yield from cube


def _put(client: Producer, topic: str, record: bytes, name: str) -> None:
    """Send a record, as soon as there is room for it."""
    while True:
        try:
            client.produce(topic, record, name)
        except BufferError:
            client.poll(_NAP_S)
        else:
            return


def run(arena: Arena, minutes: float) -> dict[str, Any]:
    """Let one worker have the load.

    Raises:
        UnavailableError: it stopped making progress.
    """
    result = attempt(arena, minutes)
    if result["missing"]:
        came, missing = result["windows"], result["missing"]
        raise UnavailableError(f"Only {came:,} of {came + missing:,} windows came; see {arena.folder}.")
    return result


def attempt(arena: Arena, minutes: float, *, tail_s: float = float("inf")) -> dict[str, Any]:
    """Let one worker have the load; what is ``missing`` is told, not raised.

    Windows are missing that have not come ``tail_s`` seconds after the last reading was sent, or when none came
    for too long, or when the worker has ``ended``.
    """
    ensure_topics(arena.broker, arena.topics, partitions=arena.partitions)
    runner = ours.EXACTLY_ONCE
    with (
        watching(arena, arena.topics.scores, arena.topics.alerts) as reader,
        Process(runner.command(arena), arena.folder / f"{runner.name}.log") as process,
    ):
        process.hear(runner.begins, START_S)
        load = Load(arena, minutes)
        load.start()
        series = _listen(reader, process, load, tail_s)
        if series.missing:
            load.stop()
        load.join()
        used, ended = process.usage(), process.ended
    readings = load.windows * TICKS * arena.job.devices
    return {
        "rate": arena.job.devices * 1000 // INTERVAL_MS,
        "minutes": round(load.windows * SIZE_MS / 60_000, 2),
        "devices": arena.job.devices,
        "windows": len(series.scores),
        "missing": series.missing,
        "ended": ended,
        "score_s": _quantiles(series.scores),
        "score_p50_s": medians(series.scores, arena.job.devices),
        "alert_s": _quantiles(series.alerts),
        "alerts": len(series.alerts),
        "memory_mb": series.memory,
        "peak_mb": round(used.peak_mb, 1),
        "cpu_s_per_million": round(used.cpu_s / readings * 1e6, 2),
        "sender_late_s": round(load.late, 3),
        "kafka": arena.kafka,
    }


def _listen(reader: Consumer, process: Process, load: Load, tail_s: float) -> Series:
    """Everything the load brings about, and the worker's memory meanwhile."""
    job = load.job
    grace_ms, decode = Window().grace_ms, msgspec.json.Decoder(_Told).decode
    series, began, place = Series(), time.time(), {name: number for number, name in enumerate(job.names)}
    warm_until = load.began + WARM * SIZE_MS
    due = (load.windows - WARM) * job.devices
    heard, sampled = time.time(), 0.0
    while len(series.scores) < due:
        messages = reader.consume(5_000, 0.02)
        now = time.time()
        for message in messages:
            told = decode(message.value() or b"")
            end = told.window_end if told.at is None else told.at
            if end is None or end <= warm_until or told.state == "resolved":
                continue
            heard = now
            latency = now - load.sent[load.closing(place[told.device_id], end, grace_ms)]
            (series.scores if told.at is None else series.alerts).append(latency)
        if now - sampled >= _SAMPLE_S:
            sampled = now
            series.memory.append((round(now - began, 1), round(rss_mb(process.pid), 1)))
        silent_s = now - max(heard, (warm_until + SIZE_MS) / 1000)
        if silent_s > _PATIENCE_S + SIZE_MS / 1000 or now - load.ended > tail_s or process.ended:
            break
    series.missing = max(0, due - len(series.scores))
    return series


def medians(seconds: Sequence[float], count: int) -> list[float]:
    """The median of each ``count`` in turn: of a window of every device, where they come in order."""
    return [round(float(np.median(seconds[at : at + count])), 3) for at in range(0, len(seconds), count)]


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    p50, p99, most = np.quantile(seconds, [0.5, 0.99, 1.0])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


def show(result: Mapping[str, Any]) -> None:
    """Print what there is to know."""
    out = Console(file=sys.stdout, highlight=False)
    table = Table("from the reading that closes a window", title=title(result), box=SIMPLE)
    for heading in ("p50 s", "p99 s", "max s", "count"):
        table.add_column(heading, justify="right")
    for name, words, count in (("score_s", "to its score", "windows"), ("alert_s", "to its alert", "alerts")):
        table.add_row(words, *(f"{value:.2f}" for value in result[name].values()), f"{result[count]:,}")
    out.print(table)
    memory = [mb for _, mb in result["memory_mb"]]
    half = memory[len(memory) // 2 :]
    out.print(
        f"memory: {memory[0]:,.0f} MB at first, {max(memory):,.0f} at most, in the second half {min(half):,.0f} to "
        f"{max(half):,.0f}; {result['cpu_s_per_million']:.1f} s of CPU a million readings; the sender was late by "
        f"{result['sender_late_s']:.2f} s at most; {result['kafka']}",
        soft_wrap=True,
    )


def title(result: Mapping[str, Any]) -> str:
    """What the load was."""
    return f"{result['rate']:,} readings/s of {result['devices']:,} devices for {result['minutes']:g} minutes"
