"""Commands about models and how good they are: train, evaluate, compare."""

import os
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from producers.recordings import data_root
from scorers import pack
from scorers.errors import ModelError
from scorers.fleet import Fleet
from scorers.train import Period, Training
from scorers.train import train as train_fleet
from sinks.compare import compare as compare_folders
from tidewatch import evaluate as evaluation
from tidewatch.commands.feed import AsJson, moment
from tidewatch.console import emit, err, out, progress
from tidewatch.settings import InForce, Settings
from tidewatch.wiring import train_spec


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
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train one model per device from recorded windows, and put the fleet in force."""
    in_force: InForce = context.obj
    settings = in_force.settings
    period = Period(moment(since, "--since") if since else None, moment(until, "--until") if until else None)
    target = fleet or settings.worker.fleet
    training, version = fit(settings, (statistics or settings.parquet.folder) / "statistics", target, period, workers)
    counts = Counter(result.status for result in training.results)
    if as_json:
        results = [asdict(result) for result in training.results]
        emit({"fleet": str(target), "version": version, **{str(s): n for s, n in counts.items()}, "results": results})
        return
    for result in training.results:
        if result.status != "trained":
            err.print(f"  {result.device}: {result.status}, {result.reason}")
    out.print(f"{counts['trained']} of {len(training.results)} devices have a model in {target}, version {version}")


def fit(settings: Settings, folder: Path, target: Path, period: Period, workers: int | None) -> tuple[Training, str]:
    """Train on a folder of statistics and save the fleet; the results and the fleet's version.

    Raises:
        InputError: there are no statistics there.
        ModelError: not one device could be trained.
    """
    now = time.time_ns() // 1_000_000
    version = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    with progress("training") as show:
        cores = workers or os.cpu_count() or 1
        training = train_fleet(folder, train_spec(settings), period=period, workers=cores, progress=show)
    if not training.models:
        reasons = Counter(result.reason for result in training.results)
        reason = reasons.most_common(1)[0][0] if reasons else "there were no devices"
        raise ModelError(f"No device of {folder} could be trained, mostly because {reason}; record more first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    pack.save(Fleet.of(training.models, version), target, now)
    return training, version


class Through(StrEnum):
    """How readings reach the predictions."""

    CORE = "core"
    KAFKA = "kafka"


def evaluate(
    context: typer.Context,
    benchmark: Annotated[evaluation.Benchmark, typer.Argument(help="Which published recordings.")],
    data: Annotated[Path | None, typer.Option(help="Their folder; also TIDEWATCH_DATA.")] = None,
    through: Annotated[
        Through, typer.Option(help="The pure core, or a real broker and the whole stream.")
    ] = Through.CORE,
    keep: Annotated[Path | None, typer.Option(help="Keep predictions and fleet in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay labelled recordings through the stream and measure its verdicts by their protocol."""
    in_force: InForce = context.obj
    job = evaluation.Job(in_force, benchmark, data_root(data, os.environ))
    with evaluation.workplace(keep) as folder:
        result = (
            evaluation.through_core(job, folder) if through is Through.CORE else evaluation.through_kafka(job, folder)
        )
    if as_json:
        emit(asdict(result))
        return
    table = Table("benchmark", "through", "F1", "FAR %", "MAR %", "windows")
    table.add_row(
        benchmark, through, f"{result.f1:.3f}", f"{result.far:.1f}", f"{result.mar:.1f}", f"{result.windows:,}"
    )
    out.print(table)


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
        for table in result.tables:
            out.print(str(table))
    if not result.same:
        raise typer.Exit(1)
