"""Commands about the forecasters that were trained: which there are, and which is in force."""

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


def register(load: typer.Typer) -> None:
    """Add the commands."""
    load.command()(models)
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
