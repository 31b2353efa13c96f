"""Commands about models and how good they are: train, evaluate, compare."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.box import SIMPLE
from rich.table import Column, Table

from producers.recordings import data_root
from scorers.errors import ConfigError
from scorers.fit import Detector
from sinks.compare import compare as compare_folders
from tidewatch import evaluate as evaluation
from tidewatch import page, series, training
from tidewatch import report as evaluated
from tidewatch.commands.flags import AsJson, OnEngine
from tidewatch.console import emit, err, out, plain, progress
from tidewatch.engines import Engine
from tidewatch.protocols import SERIES, Benchmark, Result, Sweep
from tidewatch.rivals import RIVALS, rivals
from tidewatch.settings import InForce, override
from tidewatch.spans import duration, faults, period
from tidewatch.tracks import tracks
from tidewatch.training import Order, Trained


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(compare)


def train(
    context: typer.Context,
    statistics: Annotated[Path | None, typer.Option(help="Folder with `statistics/`; the Parquet sink's.")] = None,
    fleet: Annotated[Path | None, typer.Option(help="Fleet file to write; the worker's.")] = None,
    since: Annotated[str | None, typer.Option(help="Only windows ending at or after this time.")] = None,
    until: Annotated[str | None, typer.Option(help="Only windows ending before this time.")] = None,
    last: Annotated[
        str | None, typer.Option(help="Only the last so many hours or days there are, as `36h` or `14d`.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out windows between two times, as `FROM/TO`; may be repeated.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with device_id, start, end of known faults: not trained on, but to be found."),
    ] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Try twelve ways to train each device; `--set training.choose=true`.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Put the new fleet in force though it is no better than the one before.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="Name of the run; one of that name that was cut off is gone on with.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core when left out.")] = None,
    engine: OnEngine = Engine.LOCAL,
    as_json: AsJson = False,
) -> None:
    """Train one model per device from recorded windows; put the fleet in force if it is better than the one before.

    A run that was cut off is gone on with. Exit code 1 where the new fleet is no better.
    """
    in_force: InForce = context.obj
    settings = override(in_force, {"training.choose": True} if choose else {}).settings
    order = Order(
        folder=statistics or settings.parquet.folder,
        target=fleet or settings.worker.fleet,
        period=period(since, until, exclude or []),
        last_ms=duration(last, "--last") if last else None,
        workers=workers,
        name=run,
        labels=faults(labels) if labels else {},
        force=force,
        engine=engine,
    )
    trained = training.train(settings, order)
    if as_json:
        emit(training.told(trained, order.target))
    else:
        _say(trained, order.target)
    if not trained.promoted:
        raise typer.Exit(1)


SHOWN = 20
"""Devices without a model that are named."""


def _say(trained: Trained, target: Path) -> None:
    without = [row for row in trained.results.select(["device", "status", "reason"]).to_pylist() if row["reason"]]
    for row in without[:SHOWN]:
        kept = ", keeps the model it had" if row["device"] in trained.kept else ""
        err.print(f"  {plain(row['device'])}: {row['status']}{kept}, {plain(row['reason'])}")
    if len(without) > SHOWN:
        err.print(f"  and {len(without) - SHOWN} more; --json tells of all")
    version = f", version {trained.version.number} of the registry" if trained.version else ""
    out.print(
        f"{trained.counts['trained']} of {len(trained.results)} devices have a new model: {trained.run}{version}",
        soft_wrap=True,
    )
    for of in trained.types:
        if of.status != "trained":
            kept = ", lends the model it had" if of.device in trained.kept_types else ""
            err.print(f"  type {plain(of.device)}: {of.status}{kept}, {plain(of.reason)}")
    if lent := [plain(of.device) for of in trained.types if of.status == "trained"]:
        more = f" and {len(lent) - SHOWN} more" if len(lent) > SHOWN else ""
        out.print(f"new devices are lent a model by their types: {', '.join(lent[:SHOWN])}{more}", soft_wrap=True)
    if trained.ballot:
        before, now = trained.ballot.champion, trained.ballot.challenger
        out.print(
            f"on {trained.ballot.devices} devices' held-out windows: false alarms {before.false_alarms:.4f} before, "
            f"{now.false_alarms:.4f} now; faults found {before.detection:.3f} before, {now.detection:.3f} now",
            soft_wrap=True,
        )
    state = f"in force in {target}" if trained.promoted else "[red]not in force[/] (--force would put it)"
    out.print(f"{state}: {trained.why}", soft_wrap=True)


class Through(StrEnum):
    """How readings reach the predictions."""

    CORE = "core"
    KAFKA = "kafka"


def evaluate(
    context: typer.Context,
    benchmark: Annotated[Benchmark, typer.Argument(help="Which published recordings.")],
    data: Annotated[Path | None, typer.Option(help="Their folder; also TIDEWATCH_DATA.")] = None,
    through: Annotated[
        Through, typer.Option(help="The pure core, or a real broker and the whole stream.")
    ] = Through.CORE,
    keep: Annotated[Path | None, typer.Option(help="Keep predictions and fleet in this folder.")] = None,
    beside: Annotated[
        bool, typer.Option("--rivals", help="Also every other detector, and scikit-learn's as they come.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Also write a page with figures and plots of each recording: an HTML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay labelled recordings through the stream and measure its verdicts by their protocol."""
    in_force: InForce = context.obj
    job = evaluation.Job(in_force, benchmark, data_root(data, os.environ))
    if benchmark in SERIES and through is Through.KAFKA:
        raise ConfigError(f"{benchmark} fits its models again as the series go on, which only --through core does.")
    if report is not None:
        page.check(report, "--report")
    with evaluation.workplace(keep) as folder:
        if benchmark in SERIES:
            results, more = _series(job, folder, every=beside)
        else:
            run = evaluation.through_core if through is Through.CORE else evaluation.through_kafka
            ours = job.settings.training.detector.value
            results, more = {ours: run(job, folder)} | (_rivals(job, folder) if beside else {}), {}
        _tell(f"{benchmark}, through {through}", results, more, as_json=as_json, beside=beside)
        if report is not None:  # after the figures, which took longer
            _report(report, evaluated.Evaluation(benchmark, job.in_force, results, more), job, folder)


def _tell(title: str, results: Mapping[str, Result], more: Mapping[str, float], *, as_json: bool, beside: bool) -> None:
    first, *others = results
    if as_json:
        rivals = {"rivals": _plain({name: results[name] for name in others})} if beside else {}
        emit(asdict(results[first]) | {"detector": first} | dict(more) | rivals)
        return
    out.print(_table(title, results))
    for name, value in more.items():
        out.print(f"{name}: {value:.3f}")


def _table(title: str, results: Mapping[str, Result]) -> Table:
    """A detector a row; what is counted of all alike goes below."""
    figures = _plain(results)
    alike = [name for name in ("windows", "scored", "rows") if name in next(iter(figures.values()))]
    counted = ", ".join(f"{next(iter(figures.values()))[name]:,} {name}" for name in alike)
    left_out = {*alike, "false_alerts_per_day"}  # the same a week is there, and 80 columns hold no more
    heads = [name.replace("_", "\n") for name in next(iter(figures.values())) if name not in left_out]
    table = Table(Column(min_width=18), *heads, title=title, caption=counted, box=SIMPLE, padding=(0, 1, 0, 0))
    for name, of in figures.items():
        table.add_row(name, *(f"{value:.3f}" for figure, value in of.items() if figure not in left_out))
    return table


def _series(job: evaluation.Job, folder: Path, *, every: bool) -> tuple[dict[str, Result], dict[str, float]]:
    """Figures by detector, and for NAB what tells that its scoring is right."""
    judging, parts = series.judges(job.in_force, every=every), []
    with progress("judging series") as show:
        for _, rows in series.oddness(job, judging):
            parts.append(rows)
            show(len(parts), job.rows.device.nunique())
    found = pd.concat(parts, ignore_index=True)
    found.to_parquet(folder / "oddness.parquet")
    if job.benchmark is Benchmark.MSCLOUD:
        return {name: series.events(found, name, job.settings) for name in judging}, {}
    results: dict[str, Result] = {name: series.sweep(found, name) for name in judging}
    svm = results[Detector.ONE_CLASS_SVM]
    told = {"score_ocsvm": svm.score} if isinstance(svm, Sweep) else {}
    return results, told | series.verification(found)


def _report(path: Path, told: evaluated.Evaluation, job: evaluation.Job, folder: Path) -> None:
    devices = job.rows.device.nunique()
    with progress("drawing recordings") as show:
        evaluated.write(path, told, tracks(job, folder, next(iter(told.results))), lambda done: show(done, devices))
    err.print(f"The report is in {path}")


def _rivals(job: evaluation.Job, folder: Path) -> dict[str, Result]:
    known: dict[str, Result] = {}
    with progress("judging rivals") as show:
        for name, result in rivals(job, folder):
            known[name] = result
            show(len(known), RIVALS)
    return known


def _plain(results: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    return {name: asdict(result) for name, result in results.items()}


def compare(
    left: Annotated[Path, typer.Argument(help="A folder the Parquet sink wrote.")],
    right: Annotated[Path, typer.Argument(help="Another.")],
    tolerance: Annotated[float, typer.Option(help="Largest difference between equal numbers.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Compare two folders of windows row by row; exit code 1 where they differ."""
    result = compare_folders(left, right, tolerance=tolerance)
    if as_json:
        emit({"same": result.same, "tables": [asdict(table) for table in result.tables]})
    else:
        for line in "\n".join(map(str, result.tables)).splitlines():
            out.print(plain(line), soft_wrap=True, markup=False)
    if not result.same:
        raise typer.Exit(1)
