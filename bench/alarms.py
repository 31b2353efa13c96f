"""Alerts of a simulated fleet: how many while it is healthy, beside those asked for, and which faults they find.

Devices have daily cycles and wear slowly (``producers.signals``). A model is trained every day on the week before, as
``tidewatch train`` would on a schedule, and windows go the way of the stream: distance, limit in force, verdict, alert.
The same devices with a fault a day are judged by the same models.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.setup import console
from producers.faults import KINDS
from producers.schedule import seed_of
from producers.sensors import SensorFleet
from producers.signals import DAY_MS
from scorers.errors import ModelError
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.follow import FollowSpec, Trails
from scorers.metrics import runs
from scorers.statistics import Flags, Floats, Statistics
from stream.alert import AlertSpec
from stream.contracts import Fault
from tidewatch.protocols import firing

READING_MS = 60_000
READINGS = 10
"""Of a window."""
WINDOW_MS = READINGS * READING_MS
DAY = DAY_MS // WINDOW_MS
"""Windows of a day."""
WEEK = 7 * DAY
FAULT_MS = 12 * WINDOW_MS
FIRST = 1_700_006_400_000
"""A midnight, epoch ms."""
TOGETHER = 25
"""Devices simulated at a time."""
ALERT = AlertSpec()


@dataclass(frozen=True, slots=True)
class Case:
    """What to simulate."""

    devices: int
    weeks: int
    """With the one that is only trained on."""
    alerts_per_week: float
    seed: int


@dataclass(slots=True)
class Outcome:
    """Of some devices."""

    alerts: list[float]
    """Of each healthy device, a week."""
    delays: dict[str, list[int | None]]
    """By kind of fault: windows from its first to the one that alerted; None where none did."""


def run(case: Case) -> dict[str, Any]:
    """Simulate, train and judge, in as many processes as there are cores."""
    parts = [
        Case(min(TOGETHER, case.devices - first), case.weeks, case.alerts_per_week, case.seed + first)
        for first in range(0, case.devices, TOGETHER)
    ]
    whole = Outcome([], {kind: [] for kind in KINDS})
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for number, part in enumerate(pool.map(_judged, parts), 1):
            whole.alerts += part.alerts
            for kind, delays in part.delays.items():
                whole.delays[kind] += delays
            console.print(f"{number} of {len(parts)} parts of the fleet are judged")
    return _document(case, whole)


def _document(case: Case, whole: Outcome) -> dict[str, Any]:
    found = {kind: [delay for delay in delays if delay is not None] for kind, delays in whole.delays.items()}
    everything = [delay for delays in found.values() for delay in delays]
    return {
        "devices": case.devices,
        "weeks": case.weeks,
        "asked_alerts_per_week": case.alerts_per_week,
        "alerts_per_week": float(np.mean(whole.alerts)),
        "alerts_per_week_p95": float(np.quantile(whole.alerts, 0.95)),
        "faults": sum(map(len, whole.delays.values())),
        "recall": len(everything) / sum(map(len, whole.delays.values())),
        "median_delay_windows": median(everything),
        "kinds": {
            kind: {"recall": len(found[kind]) / len(delays), "median_delay_windows": median(found[kind] or [0])}
            for kind, delays in whole.delays.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("fault", "recall", "median delay, windows", box=SIMPLE)
    for kind, of in result["kinds"].items():
        table.add_row(kind, f"{of['recall']:.3f}", f"{of['median_delay_windows']:g}")
    table.add_row("all", f"{result['recall']:.3f}", f"{result['median_delay_windows']:g}")
    out = Console()
    out.print(table)
    out.print(
        f"healthy: {result['alerts_per_week']:.2f} alerts a device and week (95 % of devices at most "
        f"{result['alerts_per_week_p95']:.2f}), {result['asked_alerts_per_week']:g} asked for"
    )


# --- some devices ------------------------------------------------------------------------------


def _judged(case: Case) -> Outcome:
    spec = TrainSpec(alerts=case.alerts_per_week / WEEK, k=ALERT.k, n=ALERT.n)
    healthy, faulty, faults = _simulate(case)
    outcome = Outcome([], {kind: [] for kind in KINDS})
    with threadpool_limits(1, user_api="blas"):
        for device, windows in healthy.items():
            calm, odd = _alerts(windows, faulty[device], spec)
            outcome.alerts.append(len(runs(calm)) / (case.weeks - 1))
            for fault in faults[device]:
                outcome.delays[fault.kind].append(_delay(odd, fault))
    return outcome


def _simulate(case: Case) -> tuple[dict[str, Statistics], dict[str, Statistics], dict[str, list[Fault]]]:
    """Windows of each device in health, with faults, and these: one a day after the first week."""
    spec = SensorFleet(case.devices, case.seed, READING_MS, FIRST, fault_ms=FAULT_MS)
    harmed = spec.build()
    faults: dict[str, list[Fault]] = {device: [] for device in harmed.devices}
    for number, device in enumerate(harmed.devices):
        for day in range(7, 7 * case.weeks):
            kind = KINDS[(number + day) % len(KINDS)]
            hour = np.random.default_rng(seed_of(f"{device}-{day}")).uniform(1, 21)
            begin = FIRST + int((day * 24 + hour) * 3_600_000)
            faults[device].append(harmed.fault(device, kind, start=begin, duration_ms=FAULT_MS))
        harmed.inject(*faults[device])
    return dict(_windows(spec.build(), case.weeks)), dict(_windows(harmed, case.weeks)), faults


def _windows(fleet: Any, weeks: int) -> Iterator[tuple[str, Statistics]]:
    frames = [fleet.frames(DAY * READINGS)[0] for _ in range(7 * weeks)]
    for frame in zip(*frames, strict=True):
        for place, device in enumerate(frame[0].devices):
            yield device, summary(frame[0].metrics, np.concatenate([part.values[:, place] for part in frame]))


def summary(metrics: tuple[str, ...], values: Floats) -> Statistics:
    """Of consecutive readings, shape (n, m); NaN is none."""
    cube = values.reshape(-1, READINGS, values.shape[1])
    known = np.isfinite(cube)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, cube, 0.0).sum(axis=1) / count
        square = np.where(known, (cube - mean[:, None]) ** 2, 0.0).sum(axis=1)
        std = np.where(count > 1, np.sqrt(square / (count - 1)), np.nan)
    low = np.where(count > 0, np.where(known, cube, np.inf).min(axis=1), np.nan)
    high = np.where(count > 0, np.where(known, cube, -np.inf).max(axis=1), np.nan)
    return Statistics(metrics, count, mean, std, low, high, cube[:, -1])


def _alerts(healthy: Statistics, faulty: Statistics, spec: TrainSpec) -> tuple[Flags, Flags]:
    """Whether an alert fires, window by window, in health and with faults; never in the first week."""
    trails = Trails(FollowSpec())
    trails.grow(2)
    flags = np.zeros((2, len(healthy)), np.bool_)
    for first in range(WEEK, len(healthy), DAY):
        past, today = np.arange(first - WEEK, first), np.arange(first, first + DAY)
        try:
            fleet = Fleet.of({"": fit_device(healthy.take(past), past, spec)}, "")
        except ModelError:
            continue
        for number, windows in enumerate((healthy, faulty)):
            measured = fleet.measure(np.zeros(DAY, np.int64), windows.take(today))
            fresh = np.ones(DAY, np.bool_)
            share = trails.follow(np.full(DAY, number), measured.distance, measured.reach, fresh)
            flags[number, today] = fleet.judge(measured, share).anomaly
    return firing(flags[0], ALERT), firing(flags[1], ALERT)


def _delay(alerted: Flags, fault: Fault) -> int | None:
    """Windows from the fault's first to the one that alerted; an alert may yet begin in the last one's wake."""
    first, last = ((at - FIRST) // WINDOW_MS for at in (fault.start, fault.end - 1))
    found = np.flatnonzero(alerted[first : last + ALERT.n])
    return int(found[0]) + 1 if len(found) else None
