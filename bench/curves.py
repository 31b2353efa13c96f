"""How our worker scales: readings a second and memory against one thing at a time, and latency against load.

The worker is one process as anybody would start it, exactly once, measured as in ``bench stream``: from holding its
partitions until the last window is committed. 500 devices, 8 metrics, 10 s windows, 8 partitions, but for what a curve
changes. Windows are scored by a model for every device, trained anew for each number of metrics and always on 10 s
windows; those of another length are scored by the same models, which costs the same and means nothing. The windows are
counted and not compared with pandas, for they are the ones that ``bench stream`` checks.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import core, fleet, steady
from bench.arena import PARTITIONS, Arena
from bench.job import Job
from bench.measure import Run, measure
from bench.runners import ours
from bench.runners.base import Runner
from bench.setup import bare, console, machine
from producers.publish import Target
from scorers.model import DeviceModel
from stream.kafka import ensure_topics
from stream.window import WindowSpec

TITLES = {
    "metrics": "metrics a reading",
    "windows": "window length / hop",
    "partitions": "partitions of the topic",
    "workers": "workers",
    "batches": "records a call, no Kafka",
    "latency": "offered readings/s",
}
"""What each curve is against; its name is what ``--only`` takes."""
DEVICES, METRICS = 500, 8
METRIC_COUNTS = 1, 2, 4, 8, 16, 32, 64
WINDOWS = (60, 60), (10, 10), (60, 10), (10, 5), (10, 2), (10, 1), (1, 1)
"""Length and hop in seconds; the more windows a reading brings about, the later."""
PARTITION_COUNTS = 1, 2, 4, 8, 16, 32
RUNNERS = ours.EXACTLY_ONCE, ours.TWO_WORKERS
BATCHES = 10, 100, 1_000, 10_000
RATES = 2_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000
READINGS = 1_200_000
"""At 8 metrics and 10 s windows, for some five seconds and more; where a reading costs more, there are fewer."""
CORE_SHARE = 15
"""The core's batches take this part of them, and the devices that one of the partitions has."""
TAIL_S = 5.0
"""Saturated: windows have not come so long after the last reading, 8 s after the last one closed; ..."""
GROWTH_S = 2.0
"""... or the median wait for a score grew by more from the first measured window to the last; ..."""
LATE_S = 1.0
"""... or the sender itself was so late at its worst: the machine can offer no more, whatever the worker could take."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be measured."""

    curves: Sequence[str]
    readings: int = READINGS
    rates: Sequence[int] = RATES
    minutes: float = 1.0
    scored: bool = True
    """Whether there are models; latency, which tells of alerts, has them always."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run of the worker."""

    at: int | str
    job: Job
    partitions: int = PARTITIONS
    window: WindowSpec = field(default_factory=WindowSpec)
    runner: Runner = ours.EXACTLY_ONCE


# --- the plan ----------------------------------------------------------------------------------


def points(curve: str, readings: int) -> list[Point]:
    """The runs of a curve, in order; none of ``batches`` and ``latency``, which are made in other ways."""
    usual = Job.of(readings, DEVICES, METRICS)
    match curve:
        case "metrics":
            return [
                Point(count, Job.of(readings * 2 * METRICS // (METRICS + count), DEVICES, count))
                for count in METRIC_COUNTS
            ]
        case "windows":
            return [
                Point(f"{size} s / {hop} s", Job.of(readings * 3 * hop // (2 * hop + 10), DEVICES, METRICS),
                      window=WindowSpec(size * 1000, hop * 1000))
                for size, hop in WINDOWS
            ]  # fmt: skip
        case "partitions":
            return [Point(count, usual, count) for count in PARTITION_COUNTS]
        case "workers":
            # the first of two works on alone until the second has come
            longer = Job.of(2 * readings, DEVICES, METRICS)
            return [Point(count, longer, runner=runner) for count, runner in enumerate(RUNNERS, 1)]
        case _:
            return []


def saturation(result: Mapping[str, Any]) -> str | None:
    """Why a steady load was more than the worker, or the machine, can keep up with; None: it kept up."""
    waits = result["score_p50_s"]
    if result["ended"]:
        return "the worker ended; --keep keeps its log"
    if result["missing"]:
        return f"{result['missing']:,} windows had not come {TAIL_S:g} s after the last reading"
    if waits[-1] - waits[0] > GROWTH_S:
        return f"the wait for a score grew from {waits[0]:.1f} to {waits[-1]:.1f} s"
    if result["sender_late_s"] > LATE_S:
        return f"the sender was late by {result['sender_late_s']:.1f} s"
    return None


# --- measuring ---------------------------------------------------------------------------------


def run(ask: Ask, load: tuple[float, ...], *, keep: bool) -> dict[str, Any]:
    """Measure every curve asked for, all that need Kafka with one broker.

    Raises:
        UnavailableError: a worker stopped making progress, other than under a load that saturates it.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    kafka = "no Kafka"
    if "batches" in ask.curves:
        job = Job.of(ask.readings // CORE_SHARE, DEVICES // PARTITIONS, METRICS)
        curves["batches"] = core.batches(job, _models(METRICS) if ask.scored else None, BATCHES)
    rest = [curve for curve in ask.curves if curve != "batches"]
    if rest:
        with bare(Job(1, DEVICES, METRICS), keep=keep) as built:
            kafka = built.kafka
            for curve in rest:
                rows = _latency(ask, built) if curve == "latency" else _throughput(curve, ask, built)
                curves[curve] = _told(curve, rows)
    return document(ask, curves, machine(kafka, load))


def _told(curve: str, rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, each told as soon as it is there."""
    kept = []
    for row in rows:
        kept.append(row)
        cells = zip(_HEADINGS[curve], _cells(curve, row), strict=True)
        told = ", ".join(f"{name} {cell}" for name, cell in cells if cell)
        console.print(f"{curve}, {row['at']}: {told}", soft_wrap=True)
    return kept


def _throughput(curve: str, ask: Ask, built: Arena) -> Iterator[dict[str, Any]]:
    """A row for each point, after one unrecorded run of the first."""
    first, *others = points(curve, ask.readings)
    small = replace(first, job=replace(first.job, windows=max(1, first.job.windows // 10)))
    filled = None
    for point in (small, first, *others):
        arena = replace(built, job=point.job, partitions=point.partitions, window=point.window)
        if filled != (point.job, point.partitions):
            _fill(arena, scored=ask.scored)
            filled = point.job, point.partitions
        measured = measure(point.runner, arena)
        if point is not small:
            yield facts(point.at, measured)


def _latency(ask: Ask, built: Arena) -> Iterator[dict[str, Any]]:
    """A row for each rate; the first windows of each are not measured."""

    def attempt(rate: int) -> dict[str, Any]:
        arena = replace(built, job=Job(1, rate, METRICS))
        arena.clear(everything=True)
        fleet.save(_models(METRICS), arena.job, arena.fleet)
        result = steady.attempt(arena, ask.minutes, tail_s=TAIL_S)
        kept = result.keys() - {"rate", "memory_mb", "kafka"}
        return {"at": rate, **{name: result[name] for name in sorted(kept)}, "saturated": saturation(result)}

    return climb(ask.rates, attempt)


def climb(rates: Sequence[int], attempt: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the rates come to, the lowest first, up to the first that is too much."""
    for rate in sorted(rates):
        row = attempt(rate)
        yield row
        if row["saturated"]:
            return


def _fill(arena: Arena, *, scored: bool) -> None:
    """New topics, the readings in them, and the models."""
    arena.clear(everything=True)
    ensure_topics(arena.broker, arena.topics, partitions=arena.partitions)
    if scored:
        fleet.save(_models(arena.job.metrics), arena.job, arena.fleet)
    arena.job.load(Target(arena.broker, arena.source))


@cache
def _models(metrics: int) -> Mapping[str, DeviceModel]:
    console.print(f"training {DEVICES:,} models, metrics a reading: {metrics}")
    return fleet.models(Job(1, DEVICES, metrics))


# --- told --------------------------------------------------------------------------------------

_WIDTH = 120
"""Columns the widest table needs, where a pipe has none."""
_RUN = "readings/s", "÷ most", "peak MB", "CPU s/M", "Kafka s/M", "windows", "s"
_HEADINGS = {
    **dict.fromkeys(TITLES, _RUN),
    "batches": ("readings/s", "µs of CPU a reading"),
    "latency": (
        "score p50 s", "p99 s", "max s", "alert p50 s", "p99 s", "max s", "peak MB", "CPU s/M", "keeps up",
    ),
}  # fmt: skip


def facts(at: int | str, run: Run) -> dict[str, Any]:
    """What is told of a run."""
    kafka = None if run.kafka_cpu_s is None else round(run.per_million(run.kafka_cpu_s), 2)
    return {
        "at": at,
        "readings": run.readings,
        "windows": run.windows,
        "seconds": round(run.seconds, 2),
        "readings_per_s": round(run.rate),
        "peak_mb": round(run.peak_mb, 1),
        "cpu_s_per_million": round(run.per_million(run.cpu_s), 2),
        "kafka_cpu_s_per_million": kafka,
    }


def document(ask: Ask, curves: Mapping[str, list[dict[str, Any]]], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object: curves in the order of ``TITLES``; a rate also as a share of the largest of its curve."""
    for rows in curves.values():
        most = max((row.get("readings_per_s", 0) for row in rows), default=0)
        for row in rows:
            if "readings_per_s" in row:
                row["ratio"] = round(row["readings_per_s"] / most, 3)
    return {
        "curves": {name: curves[name] for name in TITLES if name in curves},
        "scored": ask.scored,
        "machine": dict(machine),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print a table for each curve, and the machine."""
    out = Console(file=sys.stdout, highlight=False)
    out.width = max(out.width, _WIDTH)
    for curve, rows in result["curves"].items():
        table = Table(box=SIMPLE)
        for heading in (TITLES[curve], *_HEADINGS[curve]):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            at = row["at"]
            table.add_row(f"{at:,}" if isinstance(at, int) else at, *_cells(curve, row))
        out.print(table)
        for row in rows:
            if row.get("saturated"):
                out.print(f"too much at {row['at']:,} readings/s: {row['saturated']}\n", soft_wrap=True)
    machine = result["machine"]
    out.print(
        f"{'scored by a model for every device' if result['scored'] else 'without models'}; {machine['kafka']}, "
        f"Python {machine['python']}, {machine['cores']} cores, load before the runs {machine['load'][0]:.1f}",
        soft_wrap=True,
    )


def _cells(curve: str, row: Mapping[str, Any]) -> list[str]:
    if curve == "latency":
        waits = [row[name].get(part) for name in ("score_s", "alert_s") for part in ("p50", "p99", "max")]
        cells = ["" if wait is None else f"{wait:.2f}" for wait in waits]
        return [
            *cells,
            f"{row['peak_mb']:,.0f}",
            f"{row['cpu_s_per_million']:.1f}",
            "no" if row["saturated"] else "yes",
        ]
    rate = f"{row['readings_per_s']:,}"
    if curve == "batches":
        return [rate, f"{row['us_per_reading']:.2f}"]
    kafka, ratio = row["kafka_cpu_s_per_million"], row.get("ratio")
    return [
        rate,
        "" if ratio is None else f"{ratio:.2f}",
        f"{row['peak_mb']:,.0f}",
        f"{row['cpu_s_per_million']:.1f}",
        "" if kafka is None else f"{kafka:.1f}",
        f"{row['windows']:,}",
        f"{row['seconds']:.1f}",
    ]
