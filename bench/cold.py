"""Cold start on a simulated fleet: what own models of few windows and models of types promise, and what comes of it.

New devices are judged by the trained limits alone, in health and with faults of seven kinds, either by a model of their
own of so many windows or by their type's, of so many other devices.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.alarms import FIRST, READINGS
from producers.faults import KINDS
from producers.sensors import Fleet as Simulated
from producers.sensors import SensorFleet
from scorers import naming
from scorers.errors import ModelError
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.lend import fit_type
from scorers.model import DeviceModel
from scorers.statistics import Statistics
from stream.contracts import Fault
from tests.simulator import summarise

INTERVALS_MS = {"10 s": 1_000, "10 min": 60_000}
"""Between readings, by the size of a window."""
OWN = (10, 20, 30, 60, 120)
"""Windows of own models."""
LENT = (5, 10, 20, 50, 100)
"""Devices of types."""
PAST, AHEAD = 150, 150
"""Windows before and after training."""
FAULT, CALM = 6, 14
"""Windows that a fault lasts, and those between two."""
EACH = 120
"""Windows of each device that a type's model is made from, at most."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to simulate: of each of five types so many new devices."""

    new: int
    seed: int


class _Device(NamedTuple):
    healthy: Statistics
    faulty: Statistics
    faults: list[tuple[int, int]]
    """First and last window of each."""


def run(case: Case) -> dict[str, Any]:
    """Simulate, train and judge."""
    spec = TrainSpec()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(_rows, [case] * len(INTERVALS_MS), INTERVALS_MS)
        return {
            "new_devices": case.new * len(_kinds()),
            "asked": spec.false_alarm_rate,
            "rows": [row for part in rows for row in part],
        }


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("window", "model", "confidence", "flagged in health", "95 % of devices", "recall", box=SIMPLE)
    for row in result["rows"]:
        shown = (f"{row[name]:.4f}" for name in ("flagged", "flagged_p95"))
        table.add_row(row["window"], row["model"], f"{row['confidence']:.2f}", *shown, f"{row['recall']:.3f}")
    out = Console()
    out.print(table)
    out.print(f"{result['new_devices']} new devices; asked for: {result['asked']:g} of healthy windows flagged")


def _kinds() -> list[str]:
    return sorted({str(kind) for kind in naming.types(SensorFleet(5).build().devices, naming.DEFAULT)})


def _rows(case: Case, window: str) -> list[dict[str, Any]]:
    devices = _simulate(case, INTERVALS_MS[window])
    kin = {kind: [device for device in devices if device.startswith(f"{kind}-")] for kind in _kinds()}
    new = [device for alike in kin.values() for device in alike[-case.new :]]
    with threadpool_limits(1, user_api="blas"):
        rows = [_judged(f"own, {count} windows", _own(devices, new, count), devices) for count in OWN]
        rows += [_judged(f"type, {count} devices", _lent(devices, kin, new, count), devices) for count in LENT]
    return [{"window": window, **row} for row in rows]


def _own(devices: dict[str, _Device], new: list[str], count: int) -> Iterator[tuple[str, DeviceModel]]:
    past = np.arange(PAST - count, PAST)
    for device in new:
        try:
            yield device, fit_device(devices[device].healthy.take(past), past, TrainSpec(min_windows=count))
        except ModelError:
            continue


def _lent(
    devices: dict[str, _Device], kin: dict[str, list[str]], new: list[str], count: int
) -> Iterator[tuple[str, DeviceModel]]:
    past = np.arange(PAST - EACH, PAST)
    for alike in kin.values():
        known = {device: (devices[device].healthy.take(past), past) for device in alike[:count]}
        model = fit_type(known, TrainSpec())
        yield from ((device, model) for device in alike if device in new)


def _judged(name: str, models: Iterator[tuple[str, DeviceModel]], devices: dict[str, _Device]) -> dict[str, Any]:
    ahead = np.arange(PAST, PAST + AHEAD)
    flagged, found, confidence = [], [], []
    for device, model in models:
        healthy, faulty, faults = devices[device]
        fleet, of = Fleet.of({device: model}, ""), np.zeros(AHEAD, np.int64)
        flagged.append(fleet.score(of, healthy.take(ahead)).anomaly.mean())
        odd = fleet.score(of, faulty.take(ahead)).anomaly
        # two windows of a fault are an alert
        found += [odd[first - PAST : last - PAST + 1].sum() > 1 for first, last in faults]
        confidence.append(model.confidence)
    return {
        "model": name,
        "confidence": float(np.mean(confidence)),
        "flagged": float(np.mean(flagged)),
        "flagged_p95": float(np.quantile(flagged, 0.95)),
        "recall": float(np.mean(found)),
    }


def _simulate(case: Case, interval_ms: int) -> dict[str, _Device]:
    window = READINGS * interval_ms
    spec = SensorFleet(5 * (max(LENT) + case.new), case.seed, interval_ms, FIRST, fault_ms=FAULT * window)
    harmed = spec.build()
    faults = {device: _faults(harmed, number, device, window) for number, device in enumerate(harmed.devices)}
    for some in faults.values():
        harmed.inject(*some)
    healthy, faulty = (_windows(fleet) for fleet in (spec.build(), harmed))
    covered = {
        device: [((fault.start - FIRST) // window, (fault.end - 1 - FIRST) // window) for fault in some]
        for device, some in faults.items()
    }
    return {device: _Device(healthy[device], faulty[device], covered[device]) for device in healthy}


def _faults(fleet: Simulated, number: int, device: str, window: int) -> list[Fault]:
    """One after the other, kind by kind; none begins with a window."""
    begins = range(PAST + CALM // 2, PAST + AHEAD - FAULT - CALM // 2, FAULT + CALM)
    return [
        fleet.fault(
            device,
            KINDS[(number + place) % len(KINDS)],
            start=FIRST + begin * window + window // 3,
            duration_ms=FAULT * window,
        )
        for place, begin in enumerate(begins)
    ]


def _windows(fleet: Simulated) -> dict[str, Statistics]:
    frames, _ = fleet.frames((PAST + AHEAD) * READINGS)
    return {
        device: replace(summarise(frame.values[:, place], READINGS), metrics=frame.metrics)
        for frame in frames
        for place, device in enumerate(frame.devices)
    }
