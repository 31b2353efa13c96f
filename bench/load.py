"""What `tidewatch load etl` costs against the size of the log: seconds and memory, and Spark on the smallest beside it.

Logs are made by ``tidewatch load generate``, one at a time; the hours and features of both engines must be the same to
the bit.
"""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE
from rich.table import Table

from bench import charts
from bench.process import Process, machine_cpu_s
from bench.setup import console, folder
from tidewatch.console import emit, out

NAP_S = 0.2
WARMING_GB = 0.005
"""A log that is read first, unrecorded: what is compiled once is compiled then."""
SIZES, QUICK = (1.0, 2.0, 4.0, 8.0), (0.05, 0.1, 0.2)
"""Gigabytes."""
SPARK = {"spark.master": "local[2]", "spark.options.spark.driver.memory": "2g"}


@dataclass(frozen=True, slots=True)
class Case:
    """What is read: logs of ``sizes`` (GB), each of a month; with ``longer`` only the smallest is.

    Larger ones then last as much longer, instead of being busier.
    """

    sizes: Sequence[float] = SIZES
    servers: int = 390
    days: int = 31
    longer: bool = False
    spark: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """One log, read by one engine. ``fingerprint`` is of its hours and features."""

    engine: str
    rows: int
    bytes: int
    generate_s: float
    seconds: float
    peak_mb: float
    """Of all its processes together."""
    cores: float
    """That were busy, ours or not."""
    fingerprint: Mapping[str, str]

    @property
    def rows_per_s(self) -> float:
        """Lines read a second."""
        return self.rows / self.seconds


def load(  # noqa: PLR0913 - one parameter a flag
    *,
    sizes: Annotated[
        list[float] | None, typer.Option("--size", min=0.001, help="Gigabytes; may be repeated: 1, 2, 4, 8.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small logs.")] = False,
    servers: Annotated[int, typer.Option(min=1, help="How many servers.")] = 390,
    longer: Annotated[
        bool, typer.Option("--longer", help="A larger log lasts longer, instead of being busier.")
    ] = False,
    spark: Annotated[bool, typer.Option(help="On Spark too, the smallest.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw seconds and memory into this file (SVG or PNG).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with every log.")] = False,
) -> None:
    """Seconds and memory of `tidewatch load etl` against the size of the session log, beside Spark; no Kafka."""
    case = Case(sizes or (QUICK if quick else SIZES), servers, longer=longer, spark=spark)
    result = run(case, os.getloadavg(), keep=keep)
    show(result)
    if plot:
        charts.load(result, plot)
    if as_json:
        emit(result)


def run(case: Case, busy: tuple[float, ...], *, keep: bool) -> dict[str, Any]:
    """Generate and read every log.

    Raises:
        UnavailableError: a command failed.
        AssertionError: Spark's hours or features are not DuckDB's.
    """
    points, sizes = list[Point](), sorted(case.sizes)
    with folder(keep=keep) as place:
        _point(place, case, WARMING_GB, "duckdb")
        for size in sizes:
            points.append(_point(place, case, size, "duckdb"))
            if case.spark and size == sizes[0]:
                points.append(_point(place, case, size, "spark"))
                _same(*points)
            shutil.rmtree(place / "log")
    own = [point for point in points if point.engine == "duckdb"]
    return {
        "case": asdict(case),
        "points": [asdict(point) | {"rows_per_s": round(point.rows_per_s)} for point in points],
        "fit": fit(own) if len(own) > 1 else {},
        "machine": {"cores": os.cpu_count(), "load": busy, "python": platform.python_version()},
    }


def fit(points: Sequence[Point]) -> dict[str, float]:
    """How seconds and memory grow with the log, by least squares.

    ``seconds`` = ``start_s`` + ``s_per_gb`` GB, with ``r2`` the share of the variance that this explains;
    ``seconds_power`` and ``memory_power`` are the slopes on logarithmic scales: 1 is linear, 0 flat.
    """
    size = np.array([point.bytes / 1e9 for point in points])
    seconds, memory = (np.array([getattr(point, name) for point in points]) for name in ("seconds", "peak_mb"))
    slope, start = np.polyfit(size, seconds, 1)
    left, spread = seconds - (start + slope * size), seconds - seconds.mean()
    found = {
        "start_s": start,
        "s_per_gb": slope,
        "r2": 1 - (left @ left) / (spread @ spread) if spread.any() else 1.0,
        "seconds_power": np.polyfit(np.log(size), np.log(seconds), 1)[0],
        "mb_per_gb": np.polyfit(size, memory, 1)[0],
        "memory_power": np.polyfit(np.log(size), np.log(memory), 1)[0],
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def show(result: Mapping[str, Any]) -> None:
    """For a person."""
    table = Table("engine", "GB", "rows", "seconds", "rows/s", "peak MB", "cores", "made in s", box=SIMPLE)
    for point in result["points"]:
        table.add_row(
            point["engine"], f"{point['bytes'] / 1e9:.2f}", f"{point['rows']:,}", f"{point['seconds']:.1f}",
            f"{point['rows_per_s']:,}", f"{point['peak_mb']:,.0f}", f"{point['cores']:.2f}",
            f"{point['generate_s']:.1f}",
        )  # fmt: skip
    out.print(table)
    if found := result["fit"]:
        out.print(
            f"seconds = {found['start_s']:.1f} + {found['s_per_gb']:.1f} GB (R² {found['r2']:.3f}),"
            f" as the {found['seconds_power']:.2f}th power of the size; memory as the {found['memory_power']:.2f}th"
        )


def _point(place: Path, case: Case, size: float, engine: str) -> Point:
    """Read a log; made first, unless an engine before has left it."""
    log, made = place / "log", place / "made.json"
    if not log.exists():
        days = round(case.days * size / min(case.sizes)) if case.longer else case.days
        words = ["generate", "--servers", case.servers, "--days", max(days, 1), "--gigabytes", size, "--out", log]
        told, used = _command(place, "generate", words)
        made.write_text(json.dumps(told | {"seconds": used["seconds"]}))
    truth = json.loads(made.read_bytes())
    target = place / engine
    told, used = _command(place, f"etl-{engine}", ["etl", "--in", log, "--out", target, "--engine", engine])
    shutil.rmtree(target)
    if size == WARMING_GB:
        shutil.rmtree(log)
    console.print(f"{engine}, {truth['bytes'] / 1e9:.2f} GB: {used['seconds']:.1f} s, {used['peak_mb']:,.0f} MB")
    return Point(engine, truth["rows"], truth["bytes"], truth["seconds"], **used, fingerprint=told["fingerprint"])


def _command(place: Path, name: str, words: Sequence[object]) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a command of ``tidewatch load`` to its end; what it told, and what it used."""
    settings = [f"--set={key}={value}" for key, value in SPARK.items()]
    began, busy, peak = time.monotonic(), machine_cpu_s(), 0.0
    command = [sys.executable, "-m", "tidewatch", *settings, "load", *map(str, words), "--json"]
    with Process(command, place / f"{name}.log") as process:
        while not process.ended:
            peak = max(peak, process.usage().peak_mb)
            time.sleep(NAP_S)
        process.succeeded()
    seconds = time.monotonic() - began
    lines = (place / f"{name}.log").read_bytes().splitlines()
    told: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith(b"{")))
    return told, {"seconds": seconds, "peak_mb": peak, "cores": (machine_cpu_s() - busy) / seconds}


def _same(first: Point, second: Point) -> None:
    if first.fingerprint != second.fingerprint:
        raise AssertionError(f"{first.engine} and {second.engine} differ: {first.fingerprint}, {second.fingerprint}")
