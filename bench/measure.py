"""One runner doing the job once: how long it takes and what it uses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from bench.arena import Arena
from bench.process import Process, machine_cpu_s, usage
from bench.runners.base import Runner
from scorers.errors import ConfigError
from stream.kafka import consumer, ensure_topics

START_S = 60.0
STALL_S = 120.0
"""Longest wait for the next window."""


@dataclass(frozen=True, slots=True)
class Run:
    """From the moment a runner holds its partitions until its last window is committed."""

    readings: int
    windows: int
    seconds: float
    startup_s: float
    """From starting its process until it holds its partitions; not in ``seconds``."""
    cpu_s: float
    """Of the runner's process."""
    kafka_cpu_s: float | None
    machine_cpu_s: float
    """Of all there is on the machine: these two, the consumer that counts, the kernel, whatever else runs."""
    peak_mb: float

    @property
    def busy_cores(self) -> float:
        """Of the machine, on average."""
        return self.machine_cpu_s / self.seconds

    @property
    def rate(self) -> float:
        """Readings a second."""
        return self.readings / self.seconds

    @property
    def total_cpu_s(self) -> float:
        """Of the runner and of Kafka, where that is ours."""
        return self.cpu_s + (self.kafka_cpu_s or 0.0)

    def per_million(self, seconds: float) -> float:
        """Seconds for each million readings."""
        return seconds / self.readings * 1e6


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    cpu_s: float
    kafka_cpu_s: float | None
    machine_cpu_s: float
    peak_mb: float


def measure(runner: Runner, arena: Arena) -> Run:
    """Let ``runner`` do the job, its output topics empty and the readings topic full.

    Raises:
        UnavailableError: it ended before it was done, or stopped making progress.
        ConfigError: the job is too short to be measured.
    """
    arena.clear()
    ensure_topics(arena.broker, arena.topics, partitions=arena.partitions)
    command = runner.command(arena)
    started = time.monotonic()
    log = arena.folder / f"{runner.name}.log"
    with watching(arena, arena.topics.scores) as reader, Process(command, log) as process:
        process.hear(runner.begins, START_S)
        before = _mark(process, arena)
        windows, readings = 0, arena.job.readings
        if runner.ends:
            process.hear(runner.ends, STALL_S)
        else:
            early = sum(message.error() is None for message in reader.consume(1_000_000, 0))
            windows = early + _await(reader, process, arena.results - early, runner.patience_s)
            readings = readings * (windows - early) // arena.results
        after = _mark(process, arena)
    if not readings:
        raise ConfigError(f"{runner.title} made all windows before measuring began; give it more --readings.")
    return _run(readings, windows, before.at - started, (before, after))


def _run(readings: int, windows: int, startup_s: float, marks: tuple[_Mark, _Mark]) -> Run:
    before, after = marks
    kafka = None
    if before.kafka_cpu_s is not None and after.kafka_cpu_s is not None:
        kafka = after.kafka_cpu_s - before.kafka_cpu_s
    return Run(
        readings, windows, after.at - before.at, startup_s, after.cpu_s - before.cpu_s, kafka,
        after.machine_cpu_s - before.machine_cpu_s, after.peak_mb,
    )  # fmt: skip


def _mark(process: Process, arena: Arena) -> _Mark:
    at, used = time.monotonic(), process.usage()
    kafka = usage(arena.kafka_pid).cpu_s if arena.kafka_pid else None
    return _Mark(at, used.cpu_s, kafka, machine_cpu_s(), used.peak_mb)


@contextmanager
def watching(arena: Arena, *topics: str) -> Iterator[Consumer]:
    """A reader that sees records of these topics once they are committed."""
    reader = consumer(arena.broker, "bench-watching", fetch_wait_max_ms=20)
    try:
        reader.assign([TopicPartition(topic, number, 0) for topic in topics for number in range(arena.partitions)])
        yield reader
    finally:
        reader.close()


def _await(reader: Consumer, process: Process, wanted: int, patience_s: float | None) -> int:
    """Count committed windows until there are as many as wanted, or patience ends."""
    deadline = time.monotonic() + (patience_s or float("inf"))
    count = 0

    def more() -> bool:
        nonlocal count
        arrived = sum(message.error() is None for message in reader.consume(10_000, 0.02))
        count += arrived
        return arrived > 0 or time.monotonic() > deadline

    while count < wanted and time.monotonic() <= deadline:
        process.wait(more, STALL_S)
    return count
