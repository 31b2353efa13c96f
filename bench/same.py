"""The same recording scored live through Kafka, in batch here, and in batch on Spark: row for row the same?

Readings once a minute with gaps; every third device has a fault. Models are trained on the first third of the time.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE
from rich.table import Table

from bench.arena import Arena
from bench.job import Job
from bench.process import Process
from bench.setup import bare, console
from scorers.errors import UnavailableError
from sinks.compare import compare
from tidewatch.console import out
from tidewatch.tail import drained

DAY_MS = 86_400_000
START = 1_759_968_000_000
"""A midnight, epoch ms."""
STEP_MS = 60_000
METRICS = 4
MISSING = 0.02
"""Share of the readings that are not there."""
START_S, PATIENCE_S, NAP_S = 60.0, 900.0, 0.2


@dataclass(frozen=True, slots=True)
class Case:
    """What is scored."""

    devices: int
    days: int
    tolerance: float = 1e-9
    spark: bool = True


def run(case: Case, *, keep: bool) -> dict[str, Any]:
    """Score it everywhere, and compare.

    Raises:
        UnavailableError: a command failed.
    """
    with bare(Job(1, case.devices), keep=keep) as arena:
        readings = record(case, arena.folder / "recording.parquet")
        console.print(f"recorded {readings:,} readings")
        seconds = {"train": _trained(arena, case), "live": _live(arena)}
        batch = ["score", "--in", "recording.parquet", "--out"]
        seconds["local"] = _command(arena, "local", [*batch, "local"])
        if case.spark:
            seconds["spark"] = _command(arena, "spark", [*batch, "spark", "--engine", "spark"])
        compared = {name: _compared(arena, name, case) for name in ("local", "spark") if name in seconds}
        return {**asdict(case), "readings": readings, "seconds": seconds, "beside_live": compared}


def show(result: dict[str, Any]) -> None:
    """For a person."""
    title = f"{result['devices']:,} devices, {result['days']} days, {result['readings']:,} readings; beside live"
    table = Table("engine", "table", "rows", "largest difference", "same", box=SIMPLE, title=title)
    for engine, found in result["beside_live"].items():
        for each in found["tables"]:
            row = (engine, each["table"], f"{each['left_rows']:,}", f"{each['largest']:.3g}", str(found["same"]))
            table.add_row(*row)
    out.print(table)


def record(case: Case, path: Path) -> int:
    """The recording, in order of time; how many readings."""
    random, minutes = np.random.default_rng(0), case.days * DAY_MS // STEP_MS
    load = np.sin(2 * np.pi * np.arange(minutes) * STEP_MS / DAY_MS)[:, None, None]
    metric = np.arange(METRICS)
    shared = load + 0.3 * random.standard_normal((minutes, case.devices, 1))
    values = 50 + 10 * metric + np.where(metric % 2, -2.0, 2.0) * shared
    values = values + 0.5 * random.standard_normal(values.shape)
    for device in range(0, case.devices, 3):
        begin = minutes * 2 // 3 + 100 * device % (minutes // 4)
        values[begin : begin + 300, device, 1] += 15
    minute, number = np.nonzero(random.random((minutes, case.devices)) >= MISSING)
    columns: dict[str, Any] = {
        "device": pa.array([f"pump-{each:04d}" for each in range(case.devices)]).take(pa.array(number)),
        "ts": pa.array(START + minute * STEP_MS, pa.timestamp("ms", "UTC")),
    }
    columns |= {f"metric{each}": values[minute, number, each] for each in range(METRICS)}
    pq.write_table(pa.table(columns), path)
    return len(minute)


def _trained(arena: Arena, case: Case) -> float:
    until = str(np.datetime64(START + case.days // 3 * DAY_MS, "ms")) + "Z"
    words = ["--in", "recording.parquet", "--out", "past", "--fleet", "none", "--to", until]
    return _command(arena, "past", ["score", *words]) + _command(arena, "train", ["train", "--statistics", "past"])


def _live(arena: Arena) -> float:
    """Seconds to play all of it back through the worker, and to keep what comes out."""
    began = time.monotonic()
    with Process([*_tidewatch(arena), "worker"], arena.folder / "worker.log") as worker:
        _command(arena, "replay", ["replay", "recording.parquet", "--speed", "max"])
        if not drained(arena.broker, "tidewatch", [arena.topics.readings], within_s=PATIENCE_S) or worker.ended:
            raise UnavailableError(f"the worker is not done after {PATIENCE_S:g} s; its log is {arena.folder}.")
        _command(arena, "sink", ["sink", "parquet", "--once"])
    return time.monotonic() - began


def _compared(arena: Arena, name: str, case: Case) -> dict[str, Any]:
    found = compare(arena.folder / "live", arena.folder / name, tolerance=case.tolerance)
    return {"same": found.same, "tables": [asdict(table) for table in found.tables]}


def _command(arena: Arena, name: str, words: Sequence[str]) -> float:
    """Run a command to its end; the seconds it took."""
    began = time.monotonic()
    with Process([*_tidewatch(arena), *words], arena.folder / f"{name}.log") as process:
        while not process.ended:
            time.sleep(NAP_S)
        process.succeeded()
    console.print(f"{name}: {time.monotonic() - began:.1f} s")
    return time.monotonic() - began


def _tidewatch(arena: Arena) -> list[str]:
    settings = {
        "kafka.bootstrap": arena.broker.bootstrap,
        "topics.prefix": arena.prefix,
        "window.size_s": 600,
        "window.idle_s": 3600,
        "worker.fleet": "fleet.arrow",
        "parquet.folder": "live",
        "models.registry": "",
        "models.folder": "models",
        "jobs.folder": "jobs",
    }
    return [sys.executable, "-m", "tidewatch", *(f"--set={name}={value}" for name, value in settings.items())]
