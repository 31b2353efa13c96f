"""Training under the settings in force: recorded windows in; a fleet compared, registered and put in its place."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from scorers import pack
from scorers.contest import Ballot, ballot
from scorers.crew import Pool
from scorers.errors import ConfigError, FleetFileError, ModelError
from scorers.fleet import Fleet
from scorers.panel import train_types
from scorers.period import Period, Spans
from scorers.source import extent
from scorers.train import Plan, Result, Training, outcomes
from sinks.read import dataset
from tidewatch.console import err, progress
from tidewatch.engines import Engine
from tidewatch.groups import Settings
from tidewatch.planning import plan, type_spec
from tidewatch.record import record
from tidewatch.registry import Registry, Version
from tidewatch.runs import TIMES, Run, begin, contests

AGE_MS = 86_400_000
"""A training that was cut off is gone on with unless it is older than this."""
Lots = Generator[tuple[int, int], None, None]
"""As lots of devices are kept: how many, and how many devices there were to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to train on, and what to do with what comes out."""

    folder: Path
    """Of the Parquet sink."""
    target: Path
    """The fleet file in force."""
    period: Period = field(default_factory=Period)
    last_ms: int | None = None
    """Only windows that end within so long of the last one there is."""
    workers: int | None = None
    """Processes; None: one a core."""
    name: str | None = None
    """Of the run; None: the time, or that of a run like this which was cut off."""
    labels: Mapping[str, Spans] = field(default_factory=dict)
    """When devices are known to have been faulty."""
    force: bool = False
    """Whether the new fleet is put in force though it is not better."""
    engine: Engine = Engine.LOCAL


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    run: str
    results: pa.Table
    """With the schema of ``runs.RESULTS``."""
    kept: list[str]
    """Devices that keep the model they had."""
    ballot: Ballot | None
    """How the new fleet did against the one in force; None where there was none."""
    version: Version | None
    """In the registry, if there is one."""
    promoted: bool
    why: str
    types: list[Result]
    """Of models that types lend."""
    kept_types: tuple[str, ...]
    """Types that lend the model they had."""

    @property
    def counts(self) -> Counter[str]:
        """Devices by status."""
        return Counter(self.results["status"].to_pylist())


def train(settings: Settings, order: Order) -> Trained:
    """Train on recorded statistics, compare with the fleet in force, register, and put in force what is better.

    Raises:
        InputError: there are no statistics there, or the run cannot be written.
        ConfigError: the run of that name was begun with other data or settings.
        ModelError: not one device could be trained.
        UnavailableError: the registry does not answer; running it again registers what has been trained.
    """
    source = dataset(order.folder, "statistics")
    with _pool(order) as pool:
        return _train(settings, order, source, pool)


def _train(settings: Settings, order: Order, source: ds.Dataset, pool: Pool | None) -> Trained:
    registry = Registry(settings.models) if settings.models.registry.get_secret_value() else None
    with _run(settings, order, source) as run:
        champion = _champion(order.target, registry, run)
        how, period = replace(plan(settings), champion=champion, labels=order.labels), _period(run, order)
        if not run.finished:
            if order.engine is Engine.LOCAL:
                _devices(run, _local(run, source, how, period, pool))
            else:
                _devices(run, _spark(run, source, how, period, settings))
        results, reigning, types = run.results(), pack.known(champion) if champion else None, type_spec(settings)
        training = _done(results)
        with progress("types") as show:
            train_types(source, training, how, types, period=period, pool=pool, progress=show)
        lent = Fleet.of({}, run.name, training.types, types.rule if training.types else "")
        older = _older(reigning, training.type_results, types.rule)
        kept = run.finish(results, reigning, Fleet.union([lent, older], run.name))
        if not any(status == "trained" for status in results["status"].to_pylist()) and not lent.types:
            raise ModelError(_nothing(order.folder, results, run))
        compared = ballot(contests(results)) if champion else None
        made = _register(registry, run, results, compared, source)
        promoted, why = judge(compared, force=order.force)
        if registry and made:
            registry.promote(made) if promoted else registry.challenge(made)
            made = registry.version(str(made.number))
        if promoted:
            pack.install(run.fleet, order.target)
        trained = Trained(run.name, results, kept, compared, made, promoted, why, training.type_results, older.types)
        if registry or promoted:
            shutil.rmtree(run.path)
    return trained


def judge(compared: Ballot | None, *, force: bool) -> tuple[bool, str]:
    """Whether a new fleet is put in force, and why."""
    if compared is None:
        return True, "there was no fleet in force"
    if compared.won:
        return True, f"it is better than the fleet in force by {compared.gain:.4f}"
    if compared.devices == 0:
        return True, "no device has windows enough to compare it with the fleet in force"
    if force:
        return True, f"it was forced, though it is worse than the fleet in force by {-compared.gain:.4f}"
    if compared.gain == 0:
        return False, "it is no better than the fleet in force"
    return False, f"it is worse than the fleet in force by {-compared.gain:.4f}"


@contextmanager
def _run(settings: Settings, order: Order, source: ds.Dataset) -> Iterator[Run]:
    """The run to go on with, or a new one; no other process has it meanwhile."""
    now = time.time_ns() // 1_000_000
    facts = _facts(settings, order, source, now)
    runs = settings.models.folder
    name = order.name or next(_cut_off(runs, facts, now), None) or _stamp(now)
    run = begin(runs, name, facts)
    differ = [key for key in ("source", "asked", "plan", "engine") if run.facts[key] != facts[key]]
    if differ:
        raise ConfigError(f"The run {name} was begun with another {differ[0]}; choose another --run.")
    with _locked(run.path, name):
        if done := run.done():
            err.print(f"going on with the run {name}: {len(done)} devices are done")
        yield run


def _cut_off(folder: Path, facts: Mapping[str, Any], now: int) -> Iterator[str]:
    """Runs like this one that were begun lately and that nobody is at, the latest first."""
    for path in sorted((folder / "runs").glob("*/run.json"), reverse=True):
        run = begin(folder, path.parent.name, {})
        alike = all(run.facts.get(key) == facts[key] for key in ("source", "asked", "plan", "engine"))
        if alike and now - run.facts["started"] < AGE_MS and _free(path.parent):
            yield run.name


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with (path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"The run {name} is under way in another process; wait, or choose another --run."
            ) from error
        yield


def _free(path: Path) -> bool:
    with (path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def _facts(settings: Settings, order: Order, source: ds.Dataset, now: int) -> dict[str, Any]:
    """What the run is; ``since`` and ``until`` are fixed now, so that rows which come meanwhile change nothing."""
    there, how = extent(source, order.period), plan(settings)
    if order.last_ms is not None and there.until is not None:
        there = extent(source, replace(order.period, since=there.until - order.last_ms + 1))
    asked = {
        **asdict(order.period),
        "last_ms": order.last_ms,
        "labels": {device: list(map(list, of)) for device, of in order.labels.items()},
    }
    return {
        "started": now,
        "version": version("tidewatch"),
        "source": str(order.folder.resolve()),
        "asked": _plain(asked),
        "since": there.since,
        "until": None if there.until is None else there.until + 1,
        "rows": there.rows,
        "fingerprint": _fingerprint(source),
        "engine": order.engine,
        "plan": _plain(
            {
                **{f"train.{name}": value for name, value in asdict(how.spec).items()},
                **{f"check.{name}": value for name, value in asdict(how.check).items()},
                "candidates": len(how.candidates),
                "holdout": how.holdout,
            }
        ),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return {
        name: [list(one) for one in value] if isinstance(value, tuple) else getattr(value, "value", value)
        for name, value in values.items()
    }


def _fingerprint(source: ds.Dataset) -> str:
    """Of the names and sizes of its files."""
    digest = hashlib.sha256()
    for name in sorted(source.files):
        digest.update(f"{Path(name).name} {Path(name).stat().st_size if Path(name).exists() else 0}\n".encode())
    return digest.hexdigest()


def _stamp(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


def _champion(target: Path, registry: Registry | None, run: Run) -> Path | None:
    """The file of the fleet in force: the registry's, else the one in its place."""
    reigning = registry.champion() if registry else None
    if registry and reigning:
        path = run.path / "champion.arrow"
        registry.fetch(reigning, path)
        return path
    if not target.exists():
        return None
    try:
        pack.known(target)
    except FleetFileError as error:
        err.print(f"nothing is compared with the fleet in force: {error}")
        return None
    return target


def _devices(run: Run, lots: Lots) -> None:
    """Train every device that has no result yet, a lot at a time."""
    before = count = len(run.done())
    with progress("training") as show, closing(lots):
        for devices, total in lots:
            count += devices
            show(count, before + total)


def _local(run: Run, source: ds.Dataset, how: Plan, period: Period, pool: Pool | None) -> Lots:
    for lot, total in outcomes(source, how, period=period, pool=pool, done=run.done()):
        run.keep(lot)
        yield len(lot), total


def _spark(run: Run, source: ds.Dataset, how: Plan, period: Period, settings: Settings) -> Lots:
    spark = import_module("tidewatch.spark")  # PySpark is an extra
    with spark.session(settings.spark) as session:
        for (results, fleet), total in spark.trained(session, source, how, period, run.done()):
            run.take(results, fleet)
            yield len(results), total


@contextmanager
def _pool(order: Order) -> Iterator[Pool | None]:
    """Processes to train in; none where it is to be done in this one."""
    workers = order.workers or os.cpu_count() or 1
    if workers == 1:
        yield None
        return
    with Pool(workers) as pool:
        if order.engine is Engine.LOCAL:
            pool.start()
        yield pool


def _period(run: Run, order: Order) -> Period:
    return replace(order.period, since=run.facts["since"], until=run.facts["until"])


def _done(results: pa.Table) -> Training:
    """What became of the devices, without their models."""
    return Training(results=[Result(**row) for row in results.select(["device", "status", "windows"]).to_pylist()])


def _older(reigning: Fleet | None, types: list[Result], rule: str) -> Fleet:
    """What types lend on because training gave them no model; nothing where their names mean something else now."""
    if reigning is None or reigning.rule != rule:
        return Fleet.empty()
    return reigning.only((), {of.device for of in types if of.status != "trained"})


def _register(
    registry: Registry | None, run: Run, results: pa.Table, compared: Ballot | None, source: ds.Dataset
) -> Version | None:
    if registry is None:
        return None
    run.facts["ended"] = time.time_ns() // 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        return registry.record(record(run, results, compared, source, Path(folder)))


def _nothing(folder: Path, results: pa.Table, run: Run) -> str:
    reasons = Counter(results["reason"].to_pylist())
    reason = reasons.most_common(1)[0][0] if reasons else "there were no devices"
    shutil.rmtree(run.path)
    return f"No device of {folder} could be trained, mostly because {reason.rstrip('.')}; record more first."


def told(trained: Trained, target: Path) -> dict[str, Any]:
    """All of it, as plain values."""
    rows = trained.results.to_pylist()
    for row in rows:
        row |= {name: moment and int(moment.timestamp() * 1000) for name, moment in row.items() if name in TIMES}
        row |= {"tried": json.loads(row["tried"]) if row["tried"] else None, "kept": row["device"] in trained.kept}
    compared = trained.ballot and {**asdict(trained.ballot), "won": trained.ballot.won}
    return {
        "fleet": str(target),
        "version": trained.run,
        "registered": trained.version and trained.version.number,
        **{str(status): count for status, count in trained.counts.items()},
        "kept": len(trained.kept),
        "contest": compared,
        "promoted": trained.promoted,
        "why": trained.why,
        "results": rows,
        "types": [
            {
                "type": of.device,
                "status": of.status,
                "windows": of.windows,
                "reason": of.reason,
                "kept": of.device in trained.kept_types,
            }
            for of in trained.types
        ],
    }
