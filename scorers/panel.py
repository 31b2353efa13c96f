"""Models to lend, from recorded statistics: a panel of each type's devices, some windows of each.

A type's windows are few by choice, so that memory does not depend on how much was recorded, nor on how many devices a
type has. Which devices are on the panel follows from their ids alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from threadpoolctl import threadpool_limits

from scorers import naming
from scorers.crew import Crew, Pool, at_most
from scorers.errors import ConfigError, ModelError, hold
from scorers.fit import TrainSpec
from scorers.lend import fit_type
from scorers.period import Period
from scorers.source import TASK_ROWS, chosen_of, devices, halves, opened, whole, windows
from scorers.statistics import BLOCKS, Ints, Statistics
from scorers.train import Outcome, Plan, Progress, Result, Training, lost, within

MOST = 100
"""Devices of a panel."""
LEAST_WINDOWS = 10
"""A device with fewer is not on it."""


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """Which devices are of a type.

    Raises:
        ConfigError: a value is out of range, or the rule is none.
    """

    rule: str = naming.DEFAULT
    """A regular expression with a group named ``type`` (see :mod:`scorers.naming`); empty: devices have no types."""
    devices: int = 5
    """A type with fewer lends no model; at least 3."""

    def __post_init__(self) -> None:
        hold("types", self, (("devices", self.devices >= 3, "at least 3"),))  # noqa: PLR2004 - said beside it
        if why := naming.flaw(self.rule):
            raise ConfigError(f"types.rule {why}.")


def panels(results: Iterable[Result], spec: TypeSpec, fewest: int) -> dict[str, list[str]]:
    """Devices by type, at most ``MOST`` of each, of types that have devices enough.

    Args:
        results: how training went; devices that it refused for anything but their few windows are left out.
        spec: which devices are of a type.
        fewest: windows that a model of a device's own needs.
    """
    fit = [
        result.device for result in results if result.status == "trained" or LEAST_WINDOWS <= result.windows < fewest
    ]
    kin: dict[str, list[str]] = defaultdict(list)
    for device, name in zip(fit, naming.types(fit, spec.rule), strict=True):
        if name is not None:
            kin[name].append(device)
    return {
        name: sorted(sorted(devices, key=_chance)[:MOST])
        for name, devices in sorted(kin.items())
        if len(devices) >= spec.devices
    }


def _chance(device: str) -> bytes:
    """The same for the same id, as good as random."""
    return blake2b(device.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def train_types(  # noqa: PLR0913 - as scorers.train.train, and what came of it
    source: Path | ds.Dataset,
    training: Training,
    plan: Plan | TrainSpec,
    types: TypeSpec,
    *,
    period: Period | None = None,
    pool: Pool | None = None,
    progress: Progress = lambda _, __: None,
) -> None:
    """Train a model for every type among the devices of ``training``, and add it there with its result.

    Args and errors as of :func:`scorers.train.train`; ``training`` is what that returned. Of the plan only how the spec
    trains counts, and which windows are labelled.
    """
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    chosen = panels(training.results, types, plan.spec.min_windows)
    if not chosen:
        return
    with opened(source) as database:
        rows = chosen_of(period or Period())
        tables = whole(_read(database, rows, _listed(chosen, plan.spec)), "type")
        for outcome in _spread(tables, plan, types.devices, pool):
            for result, model in outcome:
                training.type_results.append(result)
                if model is not None:
                    training.types[result.device] = model
            progress(len(training.type_results), len(chosen))


def _listed(chosen: dict[str, list[str]], spec: TrainSpec) -> pa.Table:
    """The devices of all panels: how many windows of each, and of how many recent ones."""
    rows = [(name, device, len(devices)) for name, devices in chosen.items() for device in devices]
    names, ids, sizes = zip(*rows, strict=True)
    each = [max(1, spec.max_windows // size) for size in sizes]
    recent = [spec.max_windows * max(spec.gap, 1)] * len(rows)
    return pa.table({"type": names, "device_id": ids, "each": each, "recent": recent})


_QUERY = """
WITH kept AS (SELECT device_id, window_end, metric, {blocks} {chosen} AND device_id IN (SELECT device_id FROM panel)),
placed AS (
    SELECT type, device_id, window_end, "each", row_number() OVER recently - 1 AS place,
        least(count(*) OVER (PARTITION BY device_id), recent) AS known
    FROM (SELECT DISTINCT device_id, window_end FROM kept) JOIN panel USING (device_id)
    WINDOW recently AS (PARTITION BY device_id ORDER BY window_end DESC)
),
picked AS (
    SELECT type, device_id, window_end FROM placed
    WHERE place < known AND (place = 0 OR (place * "each") // known <> ((place - 1) * "each") // known)
)
SELECT type, device_id, epoch_ms(window_end) AS window_end, metric, {blocks}
FROM kept JOIN picked USING (device_id, window_end) ORDER BY type, device_id
"""


def _read(database: duckdb.DuckDBPyConnection, rows: str, panel: pa.Table) -> pa.RecordBatchReader:
    """The rows of the windows chosen, evenly from the recent ones of each device, sorted by type and device."""
    database.register("panel", panel)
    query = _QUERY.format(blocks=", ".join(f'"{name}"' for name in BLOCKS), chosen=rows)
    return database.sql(query).to_arrow_reader(TASK_ROWS)


def _spread(tables: Iterator[pa.Table], plan: Plan, fewest: int, pool: Pool | None) -> Iterator[list[Outcome]]:
    """Outcomes of the types of every table; whatever happens stays with its type."""
    fit = partial(_fit, plan=plan, fewest=fewest)
    if pool is not None:
        split, gone = partial(halves, column="type"), partial(lost, plan=plan, column="type")
        yield from Crew(pool, fit, split, gone, plan.attempts).run(tables)
        return
    with threadpool_limits(1, user_api="blas"):
        yield from map(fit, tables)


def _fit(table: pa.Table, plan: Plan, fewest: int) -> list[Outcome]:
    found = []
    for name, rows in devices(table, "type"):
        with at_most(plan.timeout_s):
            found.append(_attempt(name, rows, plan, fewest))
    return found


def _attempt(name: str, rows: pa.Table, plan: Plan, fewest: int) -> Outcome:
    count = 0
    try:
        known = {device: _healthy(device, own, plan) for device, own in devices(rows, "device_id")}
        count = sum(len(ends) for _, ends in known.values())
        model = fit_type({device: found for device, found in known.items() if len(found[1])}, plan.spec, fewest)
    except ModelError as error:
        return Result(name, "refused", count, str(error)), None
    except Exception as error:  # noqa: BLE001  # one type must never stop the others
        return Result(name, "failed", count, f"{type(error).__name__}: {error}"), None
    vectors = len(model.kernel.coefs)
    return Result(name, "trained", model.windows, "", vectors, model.false_alarm_rate, plan.spec), model


def _healthy(device: str, rows: pa.Table, plan: Plan) -> tuple[Statistics, Ints]:
    """A device's windows but for those labelled as faulty."""
    statistics, ends = windows(rows)
    kept = ~within(ends, plan.labels.get(device, ()))
    return statistics.take(kept), ends[kept]
