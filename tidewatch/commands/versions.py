"""Commands about the forecasters that were trained: which there are, and which is in force."""

from pathlib import Path
from typing import Annotated

import typer

from scorers.errors import ConfigError
from tidewatch.commands.flags import AsJson
from tidewatch.commands.models import Which, Yes, forget, show_run, tell, told
from tidewatch.console import emit, err, folded, out, plain, utc
from tidewatch.forecast.settings import model_file
from tidewatch.groups import Settings
from tidewatch.registry import Registry
from tidewatch.settings import InForce
from tidewatch.spans import moment


def register(load: typer.Typer) -> None:
    """Add the commands."""
    load.command()(models)
    load.command()(compare)
    load.command()(promote)
    load.command()(rollback)
    load.command()(delete)


def models(
    context: typer.Context,
    version: Annotated[
        str | None, typer.Argument(help="Number of one, or an alias such as champion, to be told all of it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every forecaster that was trained, the latest first; or one: how it was trained, and how it did."""
    registry, _ = _registry(context)
    if version is not None:
        _show(registry, version, as_json=as_json)
        return
    versions = registry.versions()
    if as_json:
        emit([{**told(one), "metrics": registry.metrics(one)[0]} for one in versions])
        return
    if not versions:
        err.print("No forecaster was recorded yet; run `tidewatch load train`.")
        return
    table = folded("version", "alias", "model", "trained to", "accuracy", "macro-F1", "ranked\nprob.", box=None)
    for one in versions:
        metrics, params = registry.metrics(one)
        figures = (metrics.get(f"test_{name}") for name in ("accuracy", "macro_f1", "rps"))
        shown = ("" if value is None else f"{value:.4f}" for value in figures)
        until = utc(int(params["until"]))[:10] if "until" in params else ""
        table.add_row(str(one.number), ", ".join(one.aliases), plain(params.get("model", "")), until, *shown)
    out.print(table)


def compare(
    context: typer.Context,
    champion: Annotated[str, typer.Argument(help="Number or alias of one.")],
    challenger: Annotated[str, typer.Argument(help="Number or alias of the other.")],
    features: Annotated[
        Path | None, typer.Option(help="Folder that `tidewatch load etl` wrote; load.folder by default.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Hours from this time on; by default those that neither has learned from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge two versions on the same recorded hours, by default on those that neither has learned from."""
    from tidewatch.forecast.contests import between  # noqa: PLC0415 - as below

    registry, settings = _registry(context)
    versions = registry.version(champion), registry.version(challenger)
    begins = moment(since, "--since") if since else None
    found = between(registry, versions, features or settings.load.folder, begins)
    sides = dict(zip(("champion", "challenger"), zip(versions, found.figures, strict=True), strict=True))
    won = found.figures[1].rps < found.figures[0].rps
    if as_json:
        told_of = {name: {"version": one.number, "rows": of.rows, **of.told()} for name, (one, of) in sides.items()}
        emit({"since": found.since, "until": found.until, "seen": found.seen, "won": won, **told_of})
        return
    heads = ("accuracy", "precision", "recall", "F1", "macro-F1", "ranked\nprob.")
    table = folded("version", *heads, box=None)
    for one, of in sides.values():
        figures = (of.accuracy, of.precision, of.recall, of.f1, of.macro_f1, of.rps)
        table.add_row(str(one.number), *(f"{value:.4f}" for value in figures))
    out.print(table)
    same = found.figures[0].rps == found.figures[1].rps
    out.print(
        f"{found.figures[0].rows:,} hours of servers from {utc(found.since)} to {utc(found.until)}: "
        + ("they are equally good" if same else f"version {versions[won].number} is better"),
        soft_wrap=True,
    )
    if found.seen:
        err.print("one of them has learned from some of these hours, which flatters it; give a later --since")


def promote(
    context: typer.Context,
    version: Which,
    force: Annotated[
        bool, typer.Option("--force", help="Though its training told why it should not be in force.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a forecaster in force; workers forecast by it within seconds, without losing a forecast."""
    from tidewatch.forecast.record import account  # noqa: PLC0415 - duckdb and more, which only those who ask are to pay

    registry, settings = _registry(context)
    found = registry.version(version)
    reasons = account(registry, found)["reasons"]
    if reasons and not force:
        raise ConfigError(
            f"Version {found.number} should not be in force, its training told: {'; '.join(reasons)}; add --force to "
            "promote it."
        )
    target = model_file(settings.load)
    registry.promote(found, target)
    tell(registry, found, target, as_json=as_json)


def rollback(context: typer.Context, as_json: AsJson = False) -> None:
    """Put the forecaster in force that was before the one that is."""
    registry, settings = _registry(context)
    target = model_file(settings.load)
    tell(registry, registry.rollback(target), target, as_json=as_json)


def delete(context: typer.Context, version: Which, yes: Yes = False, as_json: AsJson = False) -> None:
    """Forget a version that is not in force; the run that made it stays."""
    registry, _ = _registry(context)
    forget(registry, version, yes=yes, as_json=as_json)


def _show(registry: Registry, version: str, *, as_json: bool) -> None:
    from tidewatch.forecast.record import account  # noqa: PLC0415 - as above

    found = registry.version(version)
    metrics, params = registry.metrics(found)
    whole = account(registry, found)
    if as_json:
        emit({**told(found), "metrics": metrics, "params": params, "training": whole})
        return
    show_run(params, metrics)
    if whole["reasons"]:
        err.print(f"not to be in force, its training told: {'; '.join(whole['reasons'])}", soft_wrap=True)


def _registry(context: typer.Context) -> tuple[Registry, Settings]:
    from tidewatch.forecast.record import FORECASTERS, forecasters  # noqa: PLC0415 - as above

    in_force: InForce = context.obj
    settings = in_force.settings
    return Registry(forecasters(settings.models), FORECASTERS), settings
