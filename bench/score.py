"""The fleet's scoring on its own: microseconds a window, beside scikit-learn, with the same decisions."""

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sklearn.svm import OneClassSVM

from bench.setup import console
from scorers.errors import ModelError
from scorers.features import features, transform
from scorers.fit import TOLERANCE, TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.statistics import Floats, Ints, Statistics

METRICS = 7
"""Of five features each: the first multiple of five above 32."""
VECTORS = 50
TRAINED = 400
SPEC = TrainSpec(nu=VECTORS / TRAINED)
PROFILES = 20
"""Models that are trained; the other devices have copies."""
CHUNK = 20_000
"""Windows scored by one call."""
EQUAL = 1e-9
_REPEAT = 5
_SINGLE = 500
"""Windows for scikit-learn one at a time."""


def run(devices: int, windows: int) -> dict[str, Any]:
    """Train, compare with scikit-learn, measure.

    Raises:
        ModelError: the decisions differ.
    """
    pasts = [_statistics(number, TRAINED) for number in range(PROFILES)]
    models = [fit_device(past, np.arange(TRAINED), SPEC) for past in pasts]
    fleet = Fleet.of({f"device-{number:05d}": models[number % PROFILES] for number in range(devices)}, "bench")
    model = np.random.default_rng(1).integers(devices, size=windows)
    block = _statistics(PROFILES, windows)
    console.print(f"trained {PROFILES} models; {devices:,} devices, {windows:,} windows")
    fleet.score(model[:1], block.take(np.arange(1)))  # compiled
    machines = [_machine(one, past) for one, past in zip(models, pasts, strict=True)]
    worst = _worst(fleet, models, machines, model, block)
    if worst > EQUAL:
        raise ModelError(f"Decisions differ from scikit-learn's by {worst:g}, more than {EQUAL:g}.")
    chunks = [np.arange(begin, min(begin + CHUNK, windows)) for begin in range(0, windows, CHUNK)]
    parts = [(model[rows], block.take(rows)) for rows in chunks]
    ours = _best(lambda: [fleet.score(*part) for part in parts]) / windows
    measured = [(fleet.groups[0], own, fleet.groups[0].standardise(own, features(part))) for own, part in parts]
    kernel = _best(lambda: [group.measure(own, z) for group, own, z in measured]) / windows
    shaped = [
        (machine, _whitened(one, block.take(np.arange(CHUNK)))) for machine, one in zip(machines, models, strict=True)
    ]
    bulk = _best(lambda: [machine.decision_function(rows) for machine, rows in shaped]) / (CHUNK * PROFILES)
    machine, rows = shaped[0]
    single = _best(lambda: [machine.decision_function(row[None]) for row in rows[:_SINGLE]]) / _SINGLE
    return {
        "us_per_window": {
            "score": round(ours * 1e6, 3),
            "distance": round(kernel * 1e6, 3),
            "scikit_learn_bulk": round(bulk * 1e6, 3),
            "scikit_learn_single": round(single * 1e6, 3),
        },
        "features": models[0].space.center.size,
        "support_vectors": median(one.kernel.coefs.size for one in models),
        "devices": devices,
        "windows": windows,
        "worst_difference": worst,
    }


def _statistics(seed: int, windows: int) -> Statistics:
    """Windows of ten readings each: noise around a level that wanders."""
    random = np.random.default_rng(seed)
    level = 50 + np.cumsum(0.05 * random.standard_normal((windows, METRICS)), axis=0) % 5
    cube = level[:, None] + random.standard_normal((windows, 10, METRICS))
    names = tuple(f"metric_{number}" for number in range(METRICS))
    count: Ints = np.full((windows, METRICS), 10)
    return Statistics(
        names, count, cube.mean(axis=1), cube.std(axis=1, ddof=1), cube.min(axis=1), cube.max(axis=1), cube[:, -1]
    )


def _whitened(model: DeviceModel, block: Statistics) -> Floats:
    return model.space.whiten(transform(features(block), model.space.softening))


def _machine(model: DeviceModel, past: Statistics) -> OneClassSVM:
    """Scikit-learn's own machine on what the model compares."""
    tolerance = TOLERANCE * min(10.0, SPEC.nu * TRAINED)
    return OneClassSVM(nu=SPEC.nu, gamma=model.kernel.gamma, tol=tolerance).fit(_whitened(model, past))


def _worst(
    fleet: Fleet, models: list[DeviceModel], machines: list[OneClassSVM], model: Ints, block: Statistics
) -> float:
    """The largest difference of a decision, both measured from the model's threshold."""
    rows = np.arange(min(CHUNK, len(model)))
    part = block.take(rows)
    decision = fleet.score(model[rows], part).decision
    profile = model[rows] % PROFILES
    worst = 0.0
    for number, (one, machine) in enumerate(zip(models, machines, strict=True)):
        own = np.flatnonzero(profile == number)
        expected = machine.decision_function(_whitened(one, part.take(own))) - one.threshold
        worst = max(worst, float(np.abs(decision[own] - expected).max(initial=0.0)))
    return worst


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few turns."""
    times = []
    for _ in range(_REPEAT):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def show(result: Mapping[str, Any]) -> None:
    """Print the table."""
    out = Console(file=sys.stdout, highlight=False)
    table = Table("", title="scoring a window", box=SIMPLE)
    table.add_column("µs a window", justify="right")
    titles = {
        "score": "Tidewatch: decision, score, severity, contributors",
        "distance": "of which distances to the support vectors",
        "scikit_learn_bulk": f"scikit-learn, {CHUNK:,} windows of one device a call",
        "scikit_learn_single": "scikit-learn, a window a call",
    }
    for name, title in titles.items():
        table.add_row(title, f"{result['us_per_window'][name]:,.2f}")
    out.print(table)
    out.print(
        f"{result['windows']:,} windows of {result['devices']:,} devices in random order, one thread, "
        f"{CHUNK:,} a call; {result['features']} features, {result['support_vectors']:g} support vectors\n"
        f"decisions equal scikit-learn's to {result['worst_difference']:.1e}",
        soft_wrap=True,
    )
