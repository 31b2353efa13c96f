"""Readings a second and memory against the number of devices: a window open for each, no models, nothing closes."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.arena import PARTITIONS, Arena
from bench.job import SIZE_MS, Job
from bench.measure import STALL_S, START_S
from bench.process import Process, rss_mb
from bench.runners import ours
from bench.setup import console
from producers.batch import Batch, ReadingEncoder
from producers.publish import Target, publish
from scorers.errors import ConfigError
from stream.kafka import ensure_topics

_CHUNK = 50_000


def run(arena: Arena, numbers: Sequence[int], readings: int) -> dict[str, Any]:
    """The same number of readings for each number of devices.

    Raises:
        ConfigError: there are too few devices for so many readings.
        UnavailableError: a worker stopped making progress.
    """
    fewest = -(-readings // SIZE_MS)
    if min(numbers) < fewest:
        raise ConfigError(f"{readings:,} readings in one window need {fewest:,} devices at least: a stamp for each.")
    rows = [_play(replace(arena, job=Job(1, devices, arena.job.metrics)), readings) for devices in numbers]
    for row in rows:
        row["ratio"] = round(row["readings_per_s"] / rows[0]["readings_per_s"], 3)
    return {"metrics": arena.job.metrics, "devices": rows, "kafka": arena.kafka}


def _play(arena: Arena, readings: int) -> dict[str, Any]:
    arena.clear(everything=True)
    ensure_topics(arena.broker, arena.topics, partitions=PARTITIONS)
    job = arena.job
    rounds = -(-readings // job.devices)
    sent = publish(_batches(job, rounds), Target(arena.broker, arena.topics.readings)).readings
    runner, report = ours.EXACTLY_ONCE, arena.folder / f"report-{job.devices}.json"
    command = [*runner.command(arena), "--report", str(report)]
    with Process(command, arena.folder / f"{runner.name}-{job.devices}.log") as process:
        process.hear(runner.begins, START_S)
        seen: list[tuple[float, int]] = []

        def more() -> bool:
            now = _counted(report)
            if not now or (seen and now[1] == seen[-1][1]):
                return False
            seen.append(now)
            return True

        while not seen or seen[-1][1] < sent:
            process.wait(more, STALL_S)
        used, resident = process.usage(), rss_mb(process.pid)
    # the first report with readings may come at any time after the first of them
    (began, before), (ended, after) = next(one for one in seen if one[1]), seen[-1]
    row = {
        "devices": job.devices,
        "readings": sent,
        "readings_per_s": round((after - before) / (ended - began)) if ended > began else 0,
        "resident_mb": round(resident, 1),
        "peak_mb": round(used.peak_mb, 1),
        "cpu_s_per_million": round(used.cpu_s / sent * 1e6, 2),
    }
    console.print(f"{job.devices:,} devices: {row['readings_per_s']:,} readings/s, {row['peak_mb']:,} MB")
    return row


def _counted(report: Path) -> tuple[float, int] | None:
    """When the worker last told how many readings it has counted, and how many."""
    try:
        told = msgspec.json.decode(report.read_bytes())
        return report.stat().st_mtime, int(told.get("readings", 0))
    except FileNotFoundError:
        return None


def _batches(job: Job, rounds: int) -> Iterator[Batch]:
    """A reading of each device a round, all within one window."""
    start = int(time.time() * 1000) - SIZE_MS  # as live readings are: far from now, each would wait for a second one
    start -= start % SIZE_MS
    encoder, names, random = ReadingEncoder(job.metric_names), job.names, np.random.default_rng(job.seed)
    for turn in range(rounds):
        for begin in range(0, job.devices, _CHUNK):
            here = names[begin : begin + _CHUNK]
            ts = np.full(len(here), start + turn * SIZE_MS // rounds)
            values = np.round(random.normal(50, 10, (len(here), job.metrics)), 2)
            yield Batch([name.encode() for name in here], encoder.encode(here, ts, values), ts)


def show(result: Mapping[str, Any]) -> None:
    """Print what there is to know."""
    out = Console(file=sys.stdout, highlight=False)
    table = Table(title=f"{result['metrics']} metrics, a window open for each device", box=SIMPLE)
    for heading in ("devices", "readings", "readings/s", "÷ first", "resident MB", "peak MB", "CPU s/M"):
        table.add_column(heading, justify="right")
    for row in result["devices"]:
        table.add_row(
            f"{row['devices']:,}", f"{row['readings']:,}", f"{row['readings_per_s']:,}", f"{row['ratio']:.2f}",
            f"{row['resident_mb']:,.0f}", f"{row['peak_mb']:,.0f}", f"{row['cpu_s_per_million']:.1f}",
        )  # fmt: skip
    out.print(table)
    out.print(f"{result['kafka']}; CPU with the start of the worker, which compiles nothing but loads what is compiled")
