"""Commands about the forecaster: train it, forecast, and see how good it would have been."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from producers.recordings import data_root
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, out, plain, progress, utc
from tidewatch.forecast.settings import Load, model_file
from tidewatch.settings import InForce, override
from tidewatch.spans import duration, moment

NAMED = 5
"""Features that are named."""
SIGNS = {"low": ".", "medium": "o", "high": "#"}


class Model(StrEnum):
    """What is trained."""

    FOREST = "forest"
    BOOSTING = "boosting"
    AUTO = "auto"


AModel = Annotated[
    Model,
    typer.Option(case_sensitive=False, help="The published forest, boosted trees, or the best on hours held out."),
]
Quantiles = Annotated[
    str | None, typer.Option(help="Class limits from the loads trained on, as `0.6,0.9`; also load.quantiles.")
]


def register(load: typer.Typer) -> None:
    """Add the commands."""
    load.command()(train)
    load.command()(forecast)
    load.command()(backtest)


def train(
    context: typer.Context,
    features: Annotated[
        Path | None, typer.Option(help="Folder that `tidewatch load etl` wrote; load.folder by default.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Train before this time, test after; by default the 28th of one month, else nine tenths."),
    ] = None,
    model: AModel = Model.AUTO,
    quantiles: Quantiles = None,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="After the test, train on all hours, the test's too, and keep that one."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Put it in force though it is no better.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the forecaster; put it in force if it beats the baselines and the one before on later hours.

    Exit code 1 where it does not.
    """
    from tidewatch.forecast import record, training  # noqa: PLC0415 - duckdb and more, which only those who train are to pay

    settings = _given(context, {"load.quantiles": quantiles}).settings
    order = training.Order(
        folder=features or settings.load.folder,
        model=model.value,
        split=moment(split, "--split") if split else None,
        force=force,
        refit=refit,
    )
    with _steps((6 if model is Model.FOREST else 11) + refit) as step:
        trained = training.train(settings.load, order, step)
        step("recording")
        version = record.keep(settings.models, settings.load, order, trained)
    if as_json:
        emit(training.told(trained) | {"registered": version and version.number})
    else:
        _say(trained, None if version is None else version.number, settings.load)
    if not trained.promoted:
        raise typer.Exit(1)


def _say(trained: Any, number: int | None, load: Load) -> None:
    facts = trained.tested.facts
    out.print(
        f"{facts['recipe']}, trained on {facts['trained_on']:,} hours of {len(trained.tested.servers)} servers from "
        f"{utc(facts['since'])} to {utc(trained.split)}, tested on {trained.test.rows:,} after",
        soft_wrap=True,
    )
    heads = ("accuracy", "precision", "recall", "F1", "macro-F1", "ranked\nprob.", "calibration")
    table = Table("", *heads, box=None, padding=(0, 1, 0, 0))  # for 80 columns
    rows = {"training": trained.training, "test": trained.test, **trained.baselines}
    if trained.contest is not None:
        rows["in force before"] = trained.contest.champion
        if trained.contest.champion.rows < trained.test.rows:
            rows["this on its hours"] = trained.contest.challenger
    for name, of in rows.items():
        shown = (of.accuracy, of.precision, of.recall, of.f1, of.macro_f1, of.rps, of.ece)
        table.add_row(name.replace("_", " "), *(f"{value:.4f}" for value in shown))
    out.print(table)
    for name, figures in zip(SIGNS, trained.test.by_class, strict=True):
        out.print(f"  {name:<7}" + "  ".join(f"{kind} {value:.3f}" for kind, value in zip(
            ("precision", "recall", "F1"), figures, strict=True)))  # fmt: skip
    if trained.contest is not None and trained.contest.champion.rows < trained.test.rows:
        out.print(
            f"the one in force had learned from part of the test: both are compared on the "
            f"{trained.contest.champion.rows:,} hours from {utc(trained.contest.since)} on",
            soft_wrap=True,
        )
    leading = ", ".join(list(trained.importance)[:NAMED])
    out.print(f"leans most on {leading}; {(trained.ended - trained.started) / 1000:.1f} s", soft_wrap=True)
    if trained.forecaster is not trained.tested:
        out.print(
            f"then trained again on all hours, {trained.forecaster.facts['trained_on']:,}, up to "
            f"{utc(trained.forecaster.facts['until'])}; the figures are of the model before",
            soft_wrap=True,
        )
    kept = "" if number is None else f", version {number} of the registry"
    if trained.promoted:
        forced = f", forced though {'; '.join(trained.reasons)}" if trained.reasons else ""
        out.print(f"in force in {model_file(load)}{kept}{forced}", soft_wrap=True)
    else:
        out.print(f"[red]not in force[/]{kept} (--force would put it): {'; '.join(trained.reasons)}", soft_wrap=True)


def forecast(
    context: typer.Context,
    hours: Annotated[int, typer.Option(min=1, max=48, help="How many hours ahead.")] = 48,
    servers: Annotated[
        str | None, typer.Option(help="Only these, separated by commas; all that had sessions of late by default.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="As it would have been at this time; the end of the hours by default.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option("--in", help="Folder that `tidewatch load etl` wrote; load.folder by default.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The forecaster; the one in force by default.")] = None,
    target: Annotated[
        Path | None, typer.Option("--out", help="Write to this file: .parquet, or .jsonl as in `server.forecasts`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast each server's next 48 hours: low, medium or high, with probabilities.

    A server without any history is forecast from the fleet's average and marked `fleet`.
    """
    from scorers.forecast.issue import messages  # noqa: PLC0415 - duckdb, which only those who forecast are to pay
    from tidewatch.forecast import ahead  # noqa: PLC0415 - as above

    load = _given(context, {}).settings.load
    if target is not None:
        ahead.check(target)
    found = ahead.forecast(
        load,
        ahead.Wish(
            folder=known or load.folder,
            model=model,
            servers=tuple(name.strip() for name in servers.split(",") if name.strip()) if servers else (),
            at=moment(at, "--at") if at else None,
            hours=hours,
        ),
    )
    if target is not None:
        ahead.write(found, target)
    if as_json:
        emit(list(messages(found)))
    elif target is None:
        _show(list(messages(found)))
    else:
        err.print(f"{len(found):,} hours to come are in {target}")


def _show(told: list[dict[str, Any]]) -> None:
    first = told[0]["hours"]
    table = Table("server", "basis", "hours", "first high", box=None)
    for one in told:
        strip = "".join(SIGNS[hour["load"]] for hour in one["hours"])
        peak = next((utc(hour["hour"]) for hour in one["hours"] if hour["load"] == "high"), "")
        table.add_row(plain(one["server"]), one["basis"], strip, peak[5:16])
    out.print(f"{len(first)} hours from {utc(first[0]['hour'])} UTC by {told[0]['model_version']}", soft_wrap=True)
    out.print("  ".join(f"{sign} {name}" for name, sign in SIGNS.items()))
    out.print(table)


def backtest(
    context: typer.Context,
    origins: Annotated[int, typer.Option(min=1, help="How many times to train and forecast.")] = 5,
    every: Annotated[str, typer.Option(help="Time between two origins, as `7d` or `36h`.")] = "7d",
    horizon: Annotated[int, typer.Option(min=1, max=48, help="Hours ahead to forecast.")] = 48,
    model: AModel = Model.AUTO,
    quantiles: Quantiles = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder that `tidewatch load etl` wrote; load.folder by default.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Instead, a published load curve, such as worldcup, nasa or appserver.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the recordings; also TIDEWATCH_DATA.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write a page with figures and a plot: an HTML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train before each of several moments and forecast after it: how good that was, beside the baselines.

    Exit code 1 where the model does not beat them.
    """
    from scorers.forecast.calendar import FeatureSpec  # noqa: PLC0415 - duckdb and more, which only those who test are to pay
    from scorers.forecast.metrics import better  # noqa: PLC0415 - as above
    from scorers.forecast.naive import RIVALS  # noqa: PLC0415 - as above
    from tidewatch import page as pages  # noqa: PLC0415 - as above
    from tidewatch.forecast import backtest as tests  # noqa: PLC0415 - as above
    from tidewatch.forecast import page, store  # noqa: PLC0415 - as above
    from tidewatch.forecast.traces import trace as curve  # noqa: PLC0415 - as above

    load = _given(context, {"load.quantiles": quantiles}).settings.load
    if report is not None:
        pages.check(report, "--report")
    roll = tests.Roll(origins, duration(every, "--every"), horizon, model.value)
    if trace is None:
        folder = store.root(features or load.folder)
        spec, rows = store.spec(folder), store.features(folder / "features")
    else:
        hours = curve(trace, data_root(data, os.environ))
        spec = FeatureSpec(load.timezone, min(hours["hour"].to_pylist()), load.country)
        rows = tests.rows_of(hours, spec)
    with progress("backtest") as show:
        found = tests.backtest(rows, spec, load, roll, show)
    if as_json:
        emit(found.told())
    else:
        _compare(found, page.HEADS)
    if report is not None:
        page.write(report, trace or str(features or load.folder), found)
        err.print(f"The report is in {report}")
    ours = next(iter(found.figures.values())).told()
    if not all(better(ours, found.figures[name].told()) for name in RIVALS):
        raise typer.Exit(1)


def _compare(found: Any, heads: dict[str, str]) -> None:
    first, last = (utc(found.origins[at])[:16] for at in (0, -1))
    out.print(
        f"{len(found.origins)} origins from {first} to {last} UTC, {found.servers} servers, {len(found.truth):,} hours",
        soft_wrap=True,
    )
    table = Table("", *heads.values(), box=None)
    for name, of in found.figures.items():
        table.add_row(name.replace("_", " "), *(f"{getattr(of, figure):.4f}" for figure in heads))
    out.print(table)
    ahead = Table("accuracy by hours ahead", *(f"{a}-{b}" for a, b, _ in next(iter(found.blocks.values()))), box=None)
    for name, blocks in found.blocks.items():
        ahead.add_row(name.replace("_", " "), *(f"{of.accuracy:.3f}" for _, _, of in blocks))
    out.print(ahead)


@contextmanager
def _steps(total: int) -> Iterator[Any]:
    """A bar that says what is being done; steps of unequal length."""
    done = 0
    with progress("training") as show:

        def step(_: str) -> None:
            nonlocal done
            show(min(done, total), total)
            done += 1

        yield step


def _given(context: typer.Context, flags: dict[str, object]) -> InForce:
    in_force: InForce = context.obj
    return override(in_force, {name: value for name, value in flags.items() if value is not None})
