"""Recorded statistics in, models out: every device on its own, all of them in parallel.

A device whose windows are not what they should be is refused, one at which training fails is told of, and one that
kills the process it is trained in is left out: the others get their models.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from threadpoolctl import threadpool_limits

from scorers import contest, pack
from scorers.apart import apart
from scorers.check import CheckSpec, check
from scorers.choose import Candidate, Tried, choose
from scorers.contest import Contest
from scorers.crew import Crew, Pool, at_most, single_threaded
from scorers.errors import ModelError
from scorers.fit import TrainSpec, fit_device, sampled
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.period import Period, Spans
from scorers.source import devices, halves, tables, windows
from scorers.statistics import Flags, Ints, Statistics

Progress = Callable[[int, int], None]
"""Called with devices done and devices in all."""


def still() -> int:
    """A clock that stands."""
    return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with each device."""

    spec: TrainSpec = field(default_factory=TrainSpec)
    check: CheckSpec = field(default_factory=CheckSpec)
    candidates: tuple[Candidate, ...] = ()
    """To choose from; without any, training is as the spec says."""
    champion: Path | None = None
    """File of the fleet in force, which the new models are to beat."""
    holdout: float = 0.2
    """Share of a device's windows, the latest, that champion and challenger are compared on."""
    labels: Mapping[str, Spans] = field(default_factory=dict)
    """When a device is known to have been faulty: not trained on, and what models are to find."""
    attempts: int = 2
    """Times that a device is tried at which something unexpected happens."""
    timeout_s: float | None = None
    """A device that takes longer is given up, where there are processes to train in."""
    clock: Callable[[], int] = still
    """Gives epoch ns."""


@dataclass(frozen=True, slots=True)
class Result:
    """How training went for one device."""

    device: str
    status: Literal["trained", "refused", "failed"]
    """``refused``: its data gives no sound model. ``failed``: something unexpected."""
    windows: int
    """Windows used, or found where there is no model."""
    reason: str = ""
    """Why there is no model."""
    support_vectors: int = 0
    false_alarm_rate: float | None = None
    """Share of held-out windows flagged."""
    spec: TrainSpec | None = None
    """How the model was trained."""
    tried: tuple[Tried, ...] = ()
    """What it was chosen from."""
    contest: Contest | None = None
    """How it did against the fleet in force, on windows that it was not trained on then."""
    since: int | None = None
    """End of the first window found, epoch ms."""
    until: int | None = None
    """End of the last."""
    attempts: int = 1
    started: int = field(default=0, compare=False)
    """Epoch ms."""
    seconds: float = field(default=0.0, compare=False)


Outcome = tuple[Result, DeviceModel | None]


@dataclass(frozen=True, slots=True)
class Training:
    """Models by device, and one result for every device, whether it has a model or not."""

    models: dict[str, DeviceModel] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    types: dict[str, DeviceModel] = field(default_factory=dict)
    """Models to lend, by type; see :mod:`scorers.panel`."""
    type_results: list[Result] = field(default_factory=list)
    """One for every type with devices enough, under its name."""

    def add(self, result: Result, model: DeviceModel | None) -> None:
        """Take in one device."""
        self.results.append(result)
        if model is not None:
            self.models[result.device] = model


def fit_fleet(
    blocks: Mapping[str, Statistics], spec: TrainSpec, window_end: Mapping[str, Ints] | None = None
) -> Training:
    """Train on windows in memory, by device, oldest first; without ``window_end`` they lie before all that comes."""
    training, plan = Training(), Plan(spec)
    with threadpool_limits(1, user_api="blas"):
        for device, statistics in blocks.items():
            ends = np.arange(len(statistics)) if window_end is None else window_end[device]
            training.add(*attempt(device, statistics, ends, plan))
    return training


def train(
    source: Path | ds.Dataset,
    plan: Plan | TrainSpec,
    *,
    period: Period | None = None,
    pool: Pool | None = None,
    progress: Progress = lambda _, __: None,
) -> Training:
    """Train a model for every device found in ``source``; arguments and errors as of :func:`outcomes`."""
    training = Training()
    whole = plan if isinstance(plan, Plan) else Plan(plan)
    for outcome, total in outcomes(source, whole, period=period, pool=pool):
        for result, model in outcome:
            training.add(result, model)
        progress(len(training.results), total)
    return training


def outcomes(
    source: Path | ds.Dataset,
    plan: Plan,
    *,
    period: Period | None = None,
    pool: Pool | None = None,
    done: Collection[str] = (),
) -> Iterator[tuple[list[Outcome], int]]:
    """What becomes of the devices found in ``source``, some dozens at a time, and how many there are in all.

    Args:
        source: window statistics, or a folder of Parquet files.
        plan: what is done with each device.
        period: which windows; all by default.
        pool: processes to train in; this one by default.
        done: devices to leave out.

    Raises:
        InputError: no files, or files that are not statistics.
        FleetFileError: the champion's file cannot be used.
    """
    if plan.champion is not None:
        pack.known(plan.champion)
    with tables(source, period or Period(), done) as (total, found):
        for outcome in _spread(found, plan, pool):
            yield outcome, total


def fit_apart(table: pa.Table, plan: Plan) -> Iterator[Outcome]:
    """Outcomes of the devices of one table, in a child of this process, which is somebody else's; see ``apart``.

    Args:
        table: window statistics as :func:`scorers.source.tables` gives them, sorted by device.
        plan: what is done with each device.
    """
    single_threaded()
    yield from apart(list(devices(table)), partial(_one, plan=plan), partial(_lost, plan=plan), plan.attempts)


def attempt(device: str, statistics: Statistics, window_end: Ints, plan: Plan) -> Outcome:
    """Train one device; whatever happens stays with this device.

    Args:
        device: its id.
        statistics: its windows, in any order.
        window_end: shape (n,), epoch ms.
        plan: what is done.
    """
    began, number = plan.clock(), 0
    since, until = (int(window_end.min()), int(window_end.max())) if len(window_end) else (None, None)
    while True:
        number += 1
        model = None
        try:
            result, model = _train(device, statistics, window_end, plan)
        except ModelError as error:
            result = Result(device, "refused", len(statistics), str(error))
        except Exception as error:  # noqa: BLE001  # one device must never stop the others
            result = Result(device, "failed", len(statistics), f"{type(error).__name__}: {error}")
        if result.status != "failed" or number >= plan.attempts:
            break
    seconds = (plan.clock() - began) / 1e9
    found = replace(result, attempts=number, started=began // 1_000_000, seconds=seconds, since=since, until=until)
    return found, model


def _train(device: str, statistics: Statistics, window_end: Ints, plan: Plan) -> tuple[Result, DeviceModel]:
    champion = None if plan.champion is None else pack.known(plan.champion)
    fault = within(window_end, plan.labels.get(device, ()))
    healthy, ends = statistics.take(~fault), window_end[~fault]
    faulty = statistics.take(fault) if fault.any() else None
    check(healthy, ends, plan.check, device, champion)
    spec, tried = choose(healthy, ends, plan.spec, plan.candidates, faulty) if plan.candidates else (plan.spec, ())
    model = fit_device(healthy, ends, spec)
    compared = None if champion is None else _compare(device, champion, (healthy, ends), faulty, (spec, plan.holdout))
    vectors = len(model.kernel.coefs)
    result = Result(device, "trained", model.windows, "", vectors, model.false_alarm_rate, spec, tried, compared)
    return result, model


def _compare(
    device: str,
    champion: Fleet,
    windows: tuple[Statistics, Ints],
    faulty: Statistics | None,
    how: tuple[TrainSpec, float],
) -> Contest | None:
    """How a model trained in this way does against the champion's; None where there are too few windows to tell."""
    (statistics, window_end), (spec, holdout) = windows, how
    order = sampled(window_end, spec)
    until = champion.until(device)
    before, held_out, seen = contest.later(window_end[order], holdout, until, spec.gap)
    if len(held_out) < contest.FEWEST or len(before) < spec.min_windows:
        return None
    try:
        trial = fit_device(statistics.take(order[before]), window_end[order[before]], spec)
    except ModelError:
        return None
    challenger = Fleet.of({device: trial}, "trial")
    return contest.contest((champion, challenger), device, statistics.take(order[held_out]), faulty, seen=seen)


def within(moments: Ints, spans: Spans) -> Flags:
    """Whether moments lie within any of the intervals."""
    inside = np.zeros(len(moments), np.bool_)
    for since, until in spans:
        inside |= (moments > since) & (moments <= until)
    return inside


def _spread(found: Iterator[pa.Table], plan: Plan, pool: Pool | None) -> Iterator[list[Outcome]]:
    """Outcomes of every table, in order; only a few tables are in memory at a time."""
    if pool is None:
        with threadpool_limits(1, user_api="blas"):
            yield from (_fit(table, plan) for table in found)
        return
    yield from Crew(pool, partial(_fit, plan=plan), halves, partial(lost, plan=plan), plan.attempts).run(found)


def _fit(table: pa.Table, plan: Plan) -> list[Outcome]:
    """Outcomes of the devices of one table, which is sorted by device."""
    return [_one(found, plan) for found in devices(table)]


def _one(found: tuple[str, pa.Table], plan: Plan) -> Outcome:
    device, rows = found
    with at_most(plan.timeout_s):
        return attempt(device, *windows(rows), plan)


def lost(table: pa.Table, plan: Plan, column: str = "device_id") -> list[Outcome]:
    """The outcome of the one device (or what else is in ``column``) of a table whose process ends each time."""
    return [_lost(found, plan) for found in devices(table, column)]


def _lost(found: tuple[str, pa.Table], plan: Plan) -> Outcome:
    name, rows = found
    limit = f"it takes longer than {plan.timeout_s:g} s, or " if plan.timeout_s else ""
    reason = f"its process ended at each of {plan.attempts} attempts: {limit}it needs more memory than there is."
    return Result(name, "failed", len(rows), reason, attempts=plan.attempts), None
