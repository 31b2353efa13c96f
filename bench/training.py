"""How long a fleet takes to train, with how much memory; killed half-way and gone on with; compared, and scored.

Statistics as the Parquet sink writes them are made first; everything else is done by ``tidewatch`` itself, in processes
of its own.
"""

import json
import os
import signal
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

from bench.process import Process, machine_cpu_s
from bench.setup import console, folder
from scorers.pack import load
from scorers.statistics import Floats
from sinks.table import STATISTICS
from tidewatch.console import out

STEP_MS = 600_000
START = 1_699_920_000_000
"""A midnight, epoch ms."""
PART = 72
"""Windows in a file."""
NAP_S = 0.5
KILL = 0.5
"""Share of the devices that are done when the first training is killed."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained."""

    devices: int
    windows: int
    metrics: int
    """Of five features each."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command."""

    name: str
    seconds: float
    peak_mb: float
    """Of all its processes together."""
    cores: float
    """That it kept busy."""


def run(case: Case, *, killed: bool, whole: bool, keep: bool) -> dict[str, Any]:
    """Train all devices; with ``killed`` again, cut off half-way; with ``whole`` the second time against the first.

    Raises:
        UnavailableError: a command failed.
    """
    with folder(keep=keep) as place:
        half = case.windows // 2 if whole else case.windows
        rows = write(case, place / "parquet", range(half))
        console.print(f"wrote {rows:,} rows of statistics")
        steps = [_command(place, "train", _train(place))]
        results = json.loads((place / "train.log").read_bytes().splitlines()[-1])
        told = {"rows": rows, "trained": results.get("trained", 0), "results": len(results["results"])}
        if killed:
            told |= _killed(place, case)
        if whole:
            write(case, place / "parquet", range(half, case.windows))
            steps.append(_command(place, "train again and compare", _train(place)))
            again = json.loads((place / "train again and compare.log").read_bytes().splitlines()[-1])
            told |= {"compared": again["contest"]["devices"], "registered": again["registered"]}
            scoring = ["score", "--in", str(place / "parquet"), "--out", str(place / "scored"), "--json"]
            steps.append(_command(place, "score", scoring))
        told["models"] = len(load(place / "fleet.arrow"))
    return {**asdict(case), **told, "steps": [asdict(step) for step in steps]}


def show(result: dict[str, Any]) -> None:
    """For a person."""
    title = f"{result['devices']:,} devices, {result['windows']:,} windows, {5 * result['metrics']} features"
    table = Table("", "seconds", "peak MB", "cores", box=SIMPLE, title=title)
    for step in result["steps"]:
        table.add_row(step["name"], f"{step['seconds']:.1f}", f"{step['peak_mb']:,.0f}", f"{step['cores']:.2f}")
    out.print(table)
    rest = {name: value for name, value in result.items() if name not in {"steps", "devices", "windows", "metrics"}}
    out.print(", ".join(f"{name} {value:,}" for name, value in rest.items()))


def write(case: Case, place: Path, windows: Sequence[int]) -> int:
    """Statistics of windows of ten readings that follow one load; how many rows."""
    random, shape = np.random.default_rng(windows[0]), (case.devices, 1, case.metrics)
    fixed = np.random.default_rng(0)
    level = fixed.uniform(10, 200, shape)
    gain = 0.03 * level * fixed.choice([-1.0, 1.0], shape)
    names = np.array([f"pump-{number:06d}" for number in range(case.devices)], object)
    metrics = np.array([f"metric{number}" for number in range(case.metrics)], object)
    rows = 0
    for first in range(windows[0], windows[-1] + 1, PART):
        some = np.arange(first, min(first + PART, windows[-1] + 1))
        size = (case.devices, len(some), case.metrics)
        noise = 0.3 * np.abs(gain) * np.sqrt(random.chisquare(9, size) / 9)
        mean = (
            level + gain * random.standard_normal((*size[:2], 1)) + noise * random.standard_normal(size) / np.sqrt(10)
        )
        low, high = (mean + side * noise * random.uniform(1.5, 1.8, size) for side in (-1, 1))
        table = _table(names, metrics, some, {"mean": mean, "std": noise, "min": low, "max": high, "last": mean})
        day = np.datetime64(START + int(some[0]) * STEP_MS, "ms").astype("datetime64[D]")
        path = place / "statistics" / f"date={day}"
        path.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table, path / f"device.scores-0-{first:020d}-{first + PART - 1:020d}.parquet", compression="zstd"
        )
        rows += len(table)
    return rows


def _table(names: Any, metrics: Any, windows: Any, cubes: dict[str, Floats]) -> pa.Table:
    """Rows by window, device and metric, from arrays by device, window and metric."""
    count = len(names) * len(windows) * len(metrics)
    place = np.indices((len(windows), len(names), len(metrics)), np.int32).reshape(3, -1)
    start = START + windows[place[0]].astype(np.int64) * STEP_MS
    flat = {name: np.ascontiguousarray(cube.transpose(1, 0, 2)).ravel() for name, cube in cubes.items()}
    columns: dict[str, Any] = {
        "device_id": pa.DictionaryArray.from_arrays(place[1], pa.array(names)).cast(pa.string()),
        "source": pa.repeat("sensor.readings", count),
        "window_start": pa.array(start, pa.timestamp("ms", "UTC")),
        "window_end": pa.array(start + STEP_MS, pa.timestamp("ms", "UTC")),
        "metric": pa.DictionaryArray.from_arrays(place[2], pa.array(metrics)).cast(pa.string()),
        "count": np.full(count, 10),
        "median": pa.nulls(count, pa.float64()),
        "sum": 10 * flat["mean"],
        "kafka_partition": np.zeros(count, np.int32),
        "kafka_offset": np.arange(count),
    }
    return pa.table(columns | flat, schema=STATISTICS)


def _tidewatch(place: Path) -> list[str]:
    settings = {
        "models.registry": f"sqlite:///{place}/mlflow.db",
        "models.folder": place / "models",
        "worker.fleet": place / "fleet.arrow",
        "parquet.folder": place / "parquet",
        "jobs.folder": place / "jobs",
    }
    return [sys.executable, "-m", "tidewatch", *(f"--set={name}={value}" for name, value in settings.items())]


def _train(place: Path) -> list[str]:
    return ["train", "--statistics", str(place / "parquet"), "--json", "--force"]


def _command(place: Path, name: str, words: Sequence[str]) -> Step:
    """Run a command to its end."""
    began, busy, peak = time.monotonic(), machine_cpu_s(), 0.0
    with Process([*_tidewatch(place), *words], place / f"{name}.log") as process:
        while not process.ended:
            peak = max(peak, process.usage().peak_mb)
            time.sleep(NAP_S)
        process.succeeded()
    seconds = time.monotonic() - began
    console.print(f"{name}: {seconds:.1f} s")
    return Step(name, seconds, peak, (machine_cpu_s() - busy) / seconds)


def _killed(place: Path, case: Case) -> dict[str, int]:
    """Train once more from nothing, kill it half-way, and go on."""
    again = place / "killed"
    words = [*_tidewatch(again), "train", "--statistics", str(place / "parquet"), "--json"]
    again.mkdir()
    with Process(words, again / "first.log") as process:
        process.wait(lambda: _done(again) >= KILL * case.devices, 600.0)
        os.killpg(process.pid, signal.SIGKILL)
        while not process.ended:
            time.sleep(NAP_S)
    before = _done(again)
    with Process(words, again / "second.log") as process:
        while not process.ended:
            time.sleep(NAP_S)
        process.succeeded()
    log = (again / "second.log").read_text()
    if f"{before} devices are done" not in log:
        raise AssertionError(f"the second training does not say that {before} devices are done: {log[:500]}")
    return {"done_when_killed": before, "models_after": len(load(again / "fleet.arrow"))}


def _done(place: Path) -> int:
    return sum(pq.read_metadata(lot).num_rows for lot in place.glob("models/runs/*/tasks/*.parquet"))
