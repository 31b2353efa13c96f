"""Which behaviour alerts name, beside the faults that were injected: a confusion table of a simulated fleet.

Models are trained again and again on the healthy past, and windows go through the stream's own outcomes: limits that
follow, alerts, labels. Faults of seven kinds, in three sizes and three lengths each, at two paces: a reading a
second, where a load outlasts a window, and one a minute, where it does not and days have cycles.
"""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.alarms import READINGS
from bench.setup import console
from producers.faults import KINDS
from producers.sensors import SensorFleet
from scorers.behaviour import Behaviour
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.follow import FollowSpec
from scorers.statistics import Statistics
from stream.alert import AlertSpec
from stream.contracts import Alert, Fault, Topics
from stream.message import Message
from stream.names import Names
from stream.outcome import Outcomes
from stream.texts import Texts
from stream.window import Closed
from tests.simulator import summarise

FIRST = 1_700_006_400_000
"""A midnight, epoch ms."""
NAMED = {
    "spike": Behaviour.SPIKE,
    "level_shift": Behaviour.LEVEL,
    "stuck": Behaviour.STUCK,
    "drift": Behaviour.DRIFT,
    "noise_burst": Behaviour.NOISE,
    "dropout": Behaviour.DROPOUT,
    "broken_correlation": Behaviour.CORRELATION,
}
"""What each kind of fault should be called."""
SIZES = (0.5, 1.0, 2.0)
"""Times the usual magnitude."""
LENGTHS = (6, 12, 24)
"""Windows."""
APART = 12
"""Windows between faults, at least."""
MISSED = "missed"
TOGETHER = 25
"""Devices simulated at a time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a device is read, and on how much of its past it is trained."""

    reading_ms: int
    past: int
    """Windows trained on."""
    again: int
    """Windows after which it is trained again."""

    @property
    def window_ms(self) -> int:
        """Length of a window."""
        return READINGS * self.reading_ms


PACES = {"second": Pace(1_000, 360, 360), "minute": Pace(60_000, 1_008, 144)}


@dataclass(frozen=True, slots=True)
class Case:
    """What to simulate."""

    devices: int
    pace: str
    seed: int


@dataclass(slots=True)
class Outcome:
    """How often which was told of which; keys are kind, size and what was told."""

    firing: Counter[tuple[str, float, str]] = field(default_factory=Counter)
    """By the record that began the alert."""
    resolved: Counter[tuple[str, float, str]] = field(default_factory=Counter)
    """By the one that ended it."""
    metrics: Counter[bool] = field(default_factory=Counter)
    """Whether the metric named in the end was one of the fault's."""


def run(devices: int, seed: int) -> dict[str, Any]:
    """Simulate, train, judge and count, in as many processes as there are cores."""
    cases = [
        Case(min(TOGETHER, devices - first), pace, seed + first)
        for pace, first in product(PACES, range(0, devices, TOGETHER))
    ]
    whole = {pace: Outcome() for pace in PACES}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for case, part in zip(cases, pool.map(judged, cases), strict=True):
            whole[case.pace].firing += part.firing
            whole[case.pace].resolved += part.resolved
            whole[case.pace].metrics += part.metrics
            console.print(f"{case.devices} devices with a reading a {case.pace} are judged")
    return {"devices": devices, "paces": {pace: document(of) for pace, of in whole.items()}}


def document(outcome: Outcome) -> dict[str, Any]:
    """Counts by kind and what was told, and shares of what was told rightly among the faults that were found."""
    return {
        "firing": _table(outcome.firing),
        "resolved": _table(outcome.resolved),
        "right": {
            when: _right(counts) for when, counts in (("firing", outcome.firing), ("resolved", outcome.resolved))
        },
        "right_by_size": {
            str(size): _right(Counter({key: count for key, count in outcome.resolved.items() if key[1] == size}))
            for size in SIZES
        },
        "metric_right": outcome.metrics[True] / max(outcome.metrics.total(), 1),
    }


def _table(counts: Counter[tuple[str, float, str]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for (kind, _, told), count in sorted(counts.items()):
        table[kind][told] = table[kind].get(told, 0) + count
    return table


def _right(counts: Counter[tuple[str, float, str]]) -> float:
    found = {key: count for key, count in counts.items() if key[2] != MISSED}
    return sum(count for (kind, _, told), count in found.items() if told == NAMED[kind]) / max(sum(found.values()), 1)


def show(result: dict[str, Any]) -> None:
    """Print the tables: a row a kind of fault, a column a behaviour that was told when the alert ended."""
    out = Console()
    told = [*NAMED.values(), Behaviour.UNKNOWN, MISSED]
    for pace, of in result["paces"].items():
        for when in ("firing", "resolved"):
            table = Table(f"{when}, a reading a {pace}", *told, "right", box=SIMPLE)
            for kind, row in of[when].items():
                found = sum(row.values()) - row.get(MISSED, 0)
                right = f"{row.get(NAMED[kind], 0) / found:.2f}" if found else ""
                table.add_row(kind, *(str(row.get(one, "")) for one in told), right)
            out.print(table)
        sizes = ", ".join(f"{right:.2f} at {size} times the usual size" for size, right in of["right_by_size"].items())
        out.print(
            f"right {of['right']['firing']:.3f} when firing, {of['right']['resolved']:.3f} when resolved ({sizes}); "
            f"a metric of the fault is named in {of['metric_right']:.3f}"
        )


# --- some devices ------------------------------------------------------------------------------


def judged(case: Case) -> Outcome:
    """Of all faults of some devices, what their alerts said."""
    pace, outcome = PACES[case.pace], Outcome()
    spec = SensorFleet(case.devices, case.seed, pace.reading_ms, FIRST, fault_ms=2 * pace.window_ms)
    harmed = spec.build()
    faults = {device: _faults(harmed, device, number, pace) for number, device in enumerate(harmed.devices)}
    for of in faults.values():
        harmed.inject(*(fault for fault, _ in of))
    windows = -(-(max(of[-1][0].end for of in faults.values()) - FIRST) // pace.window_ms) + APART
    healthy = dict(_windows(spec.build(), windows))
    with threadpool_limits(1, user_api="blas"):
        for device, statistics in _windows(harmed, windows):
            _count(outcome, faults[device], _alerts(device, healthy[device], statistics, pace), pace)
    return outcome


def _faults(fleet: Any, device: str, number: int, pace: Pace) -> list[tuple[Fault, float]]:
    """One of every kind, size and length, in an order of the device's own; with its size."""
    random = np.random.default_rng(number)
    plans = list(product(KINDS, SIZES, LENGTHS))
    at, faults = pace.past + APART, []
    for place in random.permutation(len(plans)):
        kind, size, length = plans[place]
        start = FIRST + int((at + random.random()) * pace.window_ms)
        fault: Fault = fleet.fault(device, kind, start=start, duration_ms=length * pace.window_ms)
        faults.append((msgspec.structs.replace(fault, magnitude=fault.magnitude * size), size))
        at += length + APART
    return faults


def _windows(fleet: Any, windows: int) -> Iterator[tuple[str, Statistics]]:
    for frame in fleet.frames(windows * READINGS)[0]:
        for place, device in enumerate(frame.devices):
            yield device, replace(summarise(frame.values[:, place], READINGS), metrics=frame.metrics)


def _alerts(device: str, healthy: Statistics, faulty: Statistics, pace: Pace) -> list[Alert]:
    """The alerts of a device with faults, by the stream's own outcomes."""
    names, topics = Names(), Topics()
    names.enter(Texts.of([device.encode()]))
    outcomes = Outcomes("", topics, AlertSpec(), FollowSpec(), names, sums=False)
    outputs = []
    for first in range(pace.past, len(faulty), pace.again):
        past = np.arange(first - pace.past, first)
        model = fit_device(healthy.take(past), FIRST + past * pace.window_ms, TrainSpec())
        outcomes.use(Fleet.of({device: model}, ""))
        rows = np.arange(first, min(first + pace.again, len(faulty)))
        start = FIRST + rows * pace.window_ms
        seen = faulty.take(rows)
        outputs += outcomes.tell(
            Closed(np.zeros(len(rows), np.int64), start, start + pace.window_ms, seen.count.max(axis=1), seen)
        )
    return [msgspec.json.decode(output.value, type=Alert) for output in outputs if isinstance(output, Message)]


def _count(outcome: Outcome, faults: list[tuple[Fault, float]], alerts: list[Alert], pace: Pace) -> None:
    """Each fault by the first alert that began while it lasted, or in its wake."""
    ended = {alert.alert_id: alert for alert in alerts if alert.state == "resolved"}
    begun = [alert for alert in alerts if alert.state == "firing"]
    for fault, size in faults:
        until = fault.end + AlertSpec().n * pace.window_ms
        found = [
            alert for alert in begun if fault.start - pace.window_ms < alert.since and fault.start < alert.at <= until
        ]
        last = ended.get(found[0].alert_id, found[0]) if found else None
        outcome.firing[fault.kind, size, found[0].behaviour or MISSED if found else MISSED] += 1
        outcome.resolved[fault.kind, size, last.behaviour or MISSED if last else MISSED] += 1
        if last and last.metric:
            outcome.metrics[last.metric in fault.metrics] += 1
