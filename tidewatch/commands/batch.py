"""Commands of batches: score, and the jobs they run as."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from producers.columns import Columns
from stream.decode import EARLIEST, LATEST
from tidewatch.batch import run as batch
from tidewatch.batch.spec import Format, Span
from tidewatch.commands.flags import AsJson, OnEngine
from tidewatch.console import emit, err, folded, out, plain, progress
from tidewatch.engines import Engine
from tidewatch.jobs import Cancelled, Jobs, State, Status
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.spans import moment

SHOWN = 20
"""Failures that are told one by one."""
COLOURS = {State.DONE: "green", State.FAILED: "red", State.LOST: "red", State.CANCELLED: "yellow"}

jobs = typer.Typer(help="What became of long work: see it, read its log, stop it.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="Its id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(score)
    app.add_typer(jobs, name="jobs")


def score(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--in", help="File, folder, pattern, file:// or s3://; recordings or statistics.")
    ],
    target: Annotated[
        str, typer.Option("--out", help="Folder, file:// or s3://, for predictions, statistics and alerts.")
    ],
    devices: Annotated[
        list[str] | None,
        typer.Option(help="Names and patterns such as pump-*, or @file; may be repeated. All by default."),
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only windows ending at or after this time.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only windows ending before this time.")] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds read before --from to let limits settle; all there is when left out."),
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="Fleet file; the worker's. `none`: windows without verdicts, to train on.")
    ] = None,
    kind: Annotated[list[Format] | None, typer.Option("--format", help="May be repeated. Parquet by default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core when left out.")] = None,
    engine: OnEngine = Engine.LOCAL,
    job_id: Annotated[
        str | None, typer.Option(help="Name of the job; the same again goes on where it stopped.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Column with the device; several as `store,brand`.")] = None,
    ts: Annotated[str | None, typer.Option(help="Column with the time.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Columns with metrics, separated by commas.")] = None,
    start: Annotated[str | None, typer.Option(help="Time of row 0, where the time column numbers rows.")] = None,
    step: Annotated[
        float | None, typer.Option(help="Seconds between rows, where the time column numbers rows.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score recordings as the live stream would: same windows, models and limits, without a broker.

    Exit code 1 where some file or device failed; the others are scored all the same.
    """
    in_force: InForce = context.obj
    request = batch.Request(
        source,
        target,
        fleet,
        tuple(devices or ()),
        Span(
            EARLIEST if since is None else moment(since, "--from"),
            LATEST if until is None else moment(until, "--to"),
            None if warm_up is None else round(warm_up * 1000),
        ),
        Columns(
            device=device,
            ts=ts,
            metrics=tuple(metrics.split(",")) if metrics else None,
            start=None if start is None else moment(start, "--start"),
            step=None if step is None else round(step * 1000),
        ),
        tuple(dict.fromkeys(kind or [Format.PARQUET])),
    )
    job = batch.prepare(in_force.settings, request, job_id)
    before = job.state
    if before is State.DONE:
        err.print(f"Job {job.id} is done already; give another --job-id to score again.")
    status = _run(in_force, request, job.id, workers, engine) if before is not State.DONE else job
    _told(status, as_json=as_json, target=target)
    if status.failures:
        raise typer.Exit(1)


def _run(in_force: InForce, request: batch.Request, name: str, workers: int | None, engine: Engine) -> Status:
    err.print(f"job {name}")
    stage, settings = "", in_force.settings
    with until_signalled() as stop, progress("scoring") as show:

        def advance(words: str, done: int, total: int) -> None:
            nonlocal stage
            stage = words
            show(done, total)

        try:
            return batch.score(
                settings, request, name, workers=workers, engine=engine, stop=stop.is_set, progress=advance
            )
        except Cancelled:
            err.print(
                f"Stopped while {stage or 'beginning'}; the same command with --job-id {name} goes on from there."
            )
            raise typer.Exit(130) from None


def _told(status: Status, *, as_json: bool, target: str) -> None:
    if as_json:
        emit(msgspec.to_builtins(status))
        return
    failed = [row for row in status.results if row["status"] == "failed"]
    for row in failed[:SHOWN]:
        err.print(f"  [red]failed[/] {row['what']} {plain(row['name'])}: {plain(row['reason'])}", soft_wrap=True)
    if len(failed) > SHOWN:
        err.print(f"  and {len(failed) - SHOWN} more; `tidewatch jobs show {status.id}`")
    counts = status.counts
    shown = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("windows", "anomalies", "alerts", "rejects"))
    out.print(f"{shown} of {counts.get('devices', 0):,} devices in {target}", soft_wrap=True)


@jobs.command("list")
def list_jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """All jobs, the oldest first."""
    found = _jobs(context).list()
    if as_json:
        emit([_short(status) for status in found])
        return
    table = folded("job", "state", "stage", "done", "begun", "ended", "failures")
    for status in found:
        state = f"[{COLOURS.get(status.state, 'default')}]{status.state}[/]"
        done = f"{status.done} of {status.total}" if status.total else ""
        table.add_row(
            status.id, state, status.stage, done, status.started or "", status.ended or "", str(status.failures)
        )
    out.print(table)


@jobs.command("show")
def show_job(context: typer.Context, name: JobId, as_json: AsJson = False) -> None:
    """All about one job; exit code 1 where it failed, was lost, or something of it failed."""
    found = _jobs(context)
    status = found.get(name)
    rows = found.place(name) / "devices.json"
    if as_json:
        devices = msgspec.json.decode(rows.read_bytes())["devices"] if rows.exists() else []
        emit(msgspec.to_builtins(status) | {"devices": devices})
    else:
        _show(status)
    if status.state in {State.FAILED, State.LOST} or status.failures:
        raise typer.Exit(1)


def _show(status: Status) -> None:
    facts = {name: value for name, value in _short(status).items() if value not in (None, "", {})}
    for name, value in facts.items():
        text = ", ".join(f"{key} {shown}" for key, shown in value.items()) if isinstance(value, dict) else str(value)
        out.print(f"{name:<10} {plain(text)}", soft_wrap=True, markup=False)
    for row in status.results:
        if row["status"] == "failed":
            out.print(
                f"failed     {row['what']} {plain(row['name'])}: {plain(row['reason'])}", soft_wrap=True, markup=False
            )
    if status.state is State.LOST:
        err.print(f"Its process is gone; run it again with --job-id {status.id} to go on, or cancel it.")


@jobs.command("logs")
def job_log(
    context: typer.Context,
    name: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job is over.")] = False,
) -> None:
    """What a job has done, a line each."""
    found = _jobs(context)
    found.get(name)
    with until_signalled() as stop:
        for line in _lines(found, name, follow=follow, stop=stop.is_set):
            sys.stdout.write(plain(line.rstrip("\n")) + "\n")
            sys.stdout.flush()


def _lines(found: Jobs, name: str, *, follow: bool, stop: Any) -> Iterator[str]:
    path = found.place(name) / "log"
    if not path.exists() and not follow:
        return
    at = 0
    while True:
        over = found.get(name).state not in {State.RUNNING, State.QUEUED}
        if path.exists():
            with path.open(encoding="utf-8") as file:
                file.seek(at)
                yield from file
                at = file.tell() if not file.closed else at
        if over or not follow or stop():
            return
        time.sleep(0.2)


@jobs.command("cancel")
def cancel_job(context: typer.Context, name: JobId, as_json: AsJson = False) -> None:
    """Ask a job to stop: it leaves nothing half-written, and may be run again to go on."""
    status = _jobs(context).cancel(name)
    if as_json:
        emit(_short(status))
    elif status.state is State.RUNNING:
        out.print(f"{name} was asked to stop")
    else:
        out.print(f"{name} is cancelled")


@jobs.command("delete")
def delete_job(context: typer.Context, name: JobId) -> None:
    """Forget a job that is not running, and free what it kept to go on; what it wrote to --out stays."""
    _jobs(context).delete(name)
    out.print(f"{name} is gone")


def _jobs(context: typer.Context) -> Jobs:
    in_force: InForce = context.obj
    return Jobs(in_force.settings.jobs.folder)


def _short(status: Status) -> dict[str, Any]:
    """All but the rows of results."""
    facts: dict[str, Any] = msgspec.to_builtins(status)
    return {name: value for name, value in facts.items() if name != "results"}
