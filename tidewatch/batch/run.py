"""A batch from beginning to end: plan, stages in parallel, and what was staged put in its place."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from producers.columns import Columns
from scorers import pack
from scorers.errors import ConfigError, InputError
from scorers.whole import replacing
from sinks.base import Source
from sinks.names import Range
from tidewatch.batch import shards, spool, windows
from tidewatch.batch.inputs import find
from tidewatch.batch.report import report
from tidewatch.batch.spec import DISK, Choice, Format, Kind, Plan, Result, Span, Task, leave, receive
from tidewatch.batch.spread import Pool, spread
from tidewatch.engines import Engine
from tidewatch.groups import Settings
from tidewatch.jobs import Cancelled, Jobs, Run, Status
from tidewatch.places import Found, Place, put, remove
from tidewatch.wiring import stream_spec

Progress = Callable[[str, int, int], None]
"""Called with the stage, and pieces of work done and in all."""
MANIFESTS = "_jobs"
"""The folder of an output that says which jobs are done, and which files are theirs."""
NONE = "none"
"""In place of a fleet file: windows without verdicts."""
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What to score: ``source`` and ``target`` are paths or URIs."""

    source: str
    target: str
    fleet: Path | None = None
    """None: the worker's; ``none`` as a path: no models, only windows."""
    devices: tuple[str, ...] = ()
    span: Span = field(default_factory=Span)
    columns: Columns = field(default_factory=Columns)
    formats: tuple[Format, ...] = (Format.PARQUET,)

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """What a job of this request is asked for, as it is kept; whoever takes it up must ask for the same."""
        span, columns, fleet = self.span, self.columns, self.fleet or settings.worker.fleet
        return {
            "in": str(Place.of(self.source)),
            "out": str(Place.of(self.target)),
            "fleet": NONE if str(fleet) == NONE else str(fleet.absolute()),
            "devices": list(self.devices),
            "since": span.since,
            "until": span.until,
            "warm_ms": span.warm_ms,
            "columns": {
                name: getattr(columns, name)
                for name in ("device", "ts", "metrics", "start", "step")
                if getattr(columns, name) is not None
            },
            "formats": [str(kind) for kind in self.formats],
            "shards": settings.batch.shards,
            "stream": repr(stream_spec(settings)),
        }


def prepare(settings: Settings, request: Request, job_id: str | None = None) -> Status:
    """Make the job, or find the one of that id; nothing is read or written beside it.

    Raises:
        ConfigError: an address, a device list or the id makes no sense, or the job was begun with other arguments.
    """
    endpoint = settings.batch.s3_endpoint
    source, target = Place.of(request.source, endpoint), Place.of(request.target, endpoint)
    if source.scheme == target.scheme and f"{target.path}/".startswith(f"{source.path}/"):
        raise ConfigError(f"--out {request.target} lies within --in; name a folder beside it.")
    Choice.of(request.devices)
    return Jobs(settings.jobs.folder).create("score", request.arguments(settings), job_id)


def score(  # noqa: PLR0913 - a job is where everything meets
    settings: Settings,
    request: Request,
    name: str,
    *,
    workers: int | None = None,
    engine: Engine = Engine.LOCAL,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda _, __, ___: None,
) -> Status:
    """Run a job that was prepared; a job that is done is told as it is.

    Args:
        settings: windows, alerts, limits and folders.
        request: what was asked for.
        name: the job's id.
        workers: processes; one a core by default. The calling script needs its ``__main__`` guard.
        engine: where tasks are done; on Spark, executors must see the job's folder under the same name.
        stop: asked now and then whether to stop.
        progress: called as pieces of work are done.

    Returns:
        the status; ``failures`` tells how many files, shards and devices failed.

    Raises:
        Cancelled: it was asked to stop; run it again to go on.
        InputError: there is nothing to score.
        ModelError: the fleet cannot be used.
        UnavailableError: a disk or server does not answer; run it again to go on.
    """
    jobs = Jobs(settings.jobs.folder)
    if jobs.get(name).state == "done":
        return jobs.get(name)
    with jobs.run(name, stop) as run, _engine(settings, engine, workers) as pool:
        batch = _Batch(run, pool, progress)
        batch.run_all(_plan(settings, request, run))
        return run.status


@contextmanager
def _engine(settings: Settings, engine: Engine, workers: int | None) -> Iterator[int | Pool]:
    """Processes here, or Spark."""
    if engine is Engine.LOCAL:
        yield workers or os.cpu_count() or 1
        return
    spark = import_module("tidewatch.spark")  # PySpark is an extra
    with spark.session(settings.spark) as session:
        yield spark.pool(session)


def _plan(settings: Settings, request: Request, run: Run) -> Plan:
    """What tasks are told; the fleet is copied first, so that the whole job is judged by one."""
    DISK.make(run.work)
    fleet = _fleet(run, request.fleet or settings.worker.fleet)
    shutil.rmtree(run.work / "fetched", ignore_errors=True)
    (run.work / "halt").unlink(missing_ok=True)
    source = Place.of(request.source, settings.batch.s3_endpoint)
    return Plan(
        source=source,
        target=Place.of(request.target, settings.batch.s3_endpoint),
        work=run.work.absolute(),
        fleet=fleet,
        job=run.status.id,
        stream=stream_spec(settings),
        topics=settings.topics.names(),
        asof=round(datetime.fromisoformat(run.status.created).timestamp() * 1000),
        columns=request.columns,
        choice=Choice.of(request.devices),
        span=request.span,
        formats=request.formats,
        shards=settings.batch.shards,
        memory=settings.batch.memory_mb * MB,
    )


def _fleet(run: Run, models: Path) -> Path | None:
    """The job's own copy of a fleet file."""
    kept = run.work.absolute() / "fleet.arrow"
    if str(models) == NONE:
        return None
    if not kept.exists():
        pack.load(models)
        with models.open("rb") as given, replacing(kept) as file:
            shutil.copyfileobj(given, file)
    return kept


class _Batch:
    """One run of a job."""

    def __init__(self, run: Run, workers: int | Pool, progress: Progress) -> None:
        self._run = run
        self._workers = workers
        self._progress = progress

    def run_all(self, plan: Plan) -> None:
        """All stages; each goes on where an earlier run stopped."""
        if plan.target.local and (Path(plan.target.path) / "_tidewatch.json").exists():
            raise ConfigError(f"--out {plan.target} is a folder of the Parquet sink; name another.")
        plan, files = self._inputs(plan)
        stage = spool.spool if plan.kind is Kind.READINGS else windows.spool
        read = self._stage("reading files", plan, "read", stage, list(enumerate(files)))
        if all(result["status"] == "failed" for result in read):
            raise InputError(f"No file of {plan.source} could be read; the first: {read[0]['reason']}")
        work = _shards(read, narrow=spool.together(read))
        if not work:
            raise InputError(
                f"Nothing at {plan.source} is of these devices and times; widen --devices, --from or --to."
            )
        scored = self._stage("scoring shards", plan, "scored", shards.score, work)
        devices = report(self._run.status, plan.choice, files, read, scored)
        leave(self._run.folder / "devices.json", {"devices": devices})
        self._publish(plan, read, scored)

    def _inputs(self, plan: Plan) -> tuple[Plan, list[Found]]:
        """The files to read: those that the first run found."""
        path = plan.work / "files.json"
        listed = receive(path)
        if listed is None:
            kind, files = find(plan.source)
            told = [[file.place.path, file.within, file.size] for file in files]
            listed = leave(path, {"kind": kind, "files": told})
            self._run.log(f"{len(files)} files of {kind} at {plan.source}")
        files = [Found(replace(plan.source, path=path), within, size) for path, within, size in listed["files"]]
        return replace(plan, kind=Kind(listed["kind"])), files

    def _stage(self, words: str, plan: Plan, stage: str, task: Task, items: Sequence[Any]) -> list[Result]:
        """Do what is left of a stage; the results of all its tasks, in their order."""
        status = self._run.status
        results: dict[int, Result | None] = {item[0]: receive(plan.receipt(stage, item[0])) for item in items}
        if not (plan.work / "scored").exists():  # no shard counts on it yet: what failed is tried again
            results = {
                number: known if known and known["status"] == "done" else None for number, known in results.items()
            }
        left = [item for item in items if results[item[0]] is None]
        if len(left) < len(items):
            self._run.log(f"{words}: {len(items) - len(left)} of {len(items)} were done before")
        status.stage, status.done, status.total = words, len(items) - len(left), len(items)
        self._run.save()
        self._progress(words, status.done, status.total)
        for item, result in spread(self._run, plan, task, left, self._workers):
            results[item[0]] = leave(plan.receipt(stage, item[0]), result)
            status.done += 1
            self._run.save()
            self._progress(words, status.done, status.total)
            if result["status"] == "failed":
                self._run.log(f"{words}: number {item[0]} failed: {result['reason']}")
        return [known for item in items if (known := results[item[0]]) is not None]

    def _publish(self, plan: Plan, read: Sequence[Result], scored: Sequence[Result]) -> None:
        """Put the staged files in their place, and say last of all that they are whole."""
        staged = list(_staged(plan, read, scored))
        status = self._run.status
        status.stage, status.done, status.total = "writing files", 0, len(staged)
        self._run.save()
        try:
            for path, target, _ in staged:
                self._run.check()
                put(path, plan.target.under(target))
                status.done += 1
                self._progress(status.stage, status.done, status.total)
        except Cancelled:
            for _, target, _ in staged:  # an earlier run may have come further
                remove(plan.target.under(target))
            raise
        files = [{"path": target, "rows": rows} for _, target, rows in staged]
        manifest = plan.work / "manifest.json"
        leave(manifest, {"job": plan.job, "counts": status.counts, "failures": status.failures, "files": files})
        put(manifest, plan.target.under(MANIFESTS, f"{plan.job}.json"))
        self._run.log(f"{len(files)} files in {plan.target}")


def _shards(read: Sequence[Result], *, narrow: bool) -> list[tuple[int, list[dict[str, Any]], bool]]:
    """What there is for each shard, in the order of the files."""
    found: dict[int, list[dict[str, Any]]] = {}
    for number, result in enumerate(read):
        for one in result.get("runs", ()):
            found.setdefault(one["shard"], []).append({**one, "path": f"runs/{number:06d}/{one['file']}"})
    return [(shard, found[shard], narrow) for shard in sorted(found)]


def _staged(plan: Plan, read: Sequence[Result], scored: Sequence[Result]) -> Iterator[tuple[Path, str, int]]:
    """Each file that was staged, where it belongs within the output, and its rows."""
    for result in scored:
        for file in result.get("files", ()):
            yield plan.work / "staged" / f"{result['number']:06d}" / file["path"], file["path"], file["rows"]
    for number, result in enumerate(read):
        if result.get("rejects"):
            span = Range(Source(f"score.{plan.job}.read", number), 0, result["rows"])
            yield plan.work / "runs" / f"{number:06d}" / "rejects.parquet", f"rejects/{span}.parquet", result["rejects"]
