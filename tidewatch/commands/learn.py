"""The command that trains a fleet."""

from pathlib import Path
from typing import Annotated

import typer

from tidewatch import training
from tidewatch.commands.flags import AsJson, OnEngine
from tidewatch.console import emit, err, out, plain
from tidewatch.engines import Engine
from tidewatch.settings import InForce, override
from tidewatch.spans import duration, faults, period
from tidewatch.training import Order, Trained


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


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
