"""Commands about how good it is: evaluate, compare."""

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
from tidewatch import page, series
from tidewatch import report as evaluated
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, out, plain, progress
from tidewatch.protocols import SERIES, Benchmark, Result, Sweep
from tidewatch.rivals import RIVALS, rivals
from tidewatch.settings import InForce
from tidewatch.tracks import tracks


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(evaluate)
    app.command()(compare)


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
