"""Commands about the fleets that were trained: which there are, which is in force, and which is to be."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from scorers.errors import ConfigError
from sinks.read import dataset
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, out, plain, utc
from tidewatch.contests import between
from tidewatch.groups import Settings
from tidewatch.registry import CHAMPION, Registry, Version
from tidewatch.runs import contest_of
from tidewatch.settings import InForce
from tidewatch.spans import duration, faults, period

app = typer.Typer(help="Look at the fleets that were trained, and choose the one in force.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="Number of a version, or an alias such as champion.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="models")


@app.command("list")
def listed(context: typer.Context, as_json: AsJson = False) -> None:
    """Every version, the latest first."""
    registry, settings = _registry(context)
    versions = registry.versions()
    if as_json:
        emit([told(version) for version in versions])
        return
    if not versions:
        err.print(f"There is no version of {settings.models.name} yet; run `tidewatch train`.")
        return
    table = folded("version", "alias", "trained", "devices", "false alarms", "faults found", "gain")
    for version in versions:
        metrics, _ = registry.metrics(version)
        figures = ("mean_false_alarm_rate", "contest_challenger_detection", "contest_gain")
        table.add_row(
            str(version.number),
            ", ".join(version.aliases),
            utc(version.created),
            f"{metrics.get('devices_trained', 0):,.0f}",
            *(f"{metrics[name]:.4f}" if name in metrics else "" for name in figures),
        )
    out.print(table)


@app.command()
def show(
    context: typer.Context,
    version: Which = CHAMPION,
    device: Annotated[list[str] | None, typer.Option(help="Only these devices; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """One version: how it was trained, and each device's result."""
    registry, _ = _registry(context)
    found = registry.version(version)
    metrics, params = registry.metrics(found)
    with tempfile.TemporaryDirectory() as folder:
        rows = pq.read_table(registry.kept(found, "results.parquet", Path(folder))).to_pylist()
    rows = [row for row in rows if not device or row["device"] in device]
    if as_json:
        plainly = [{name: _plain(value) for name, value in row.items()} for row in rows]
        emit({**told(found), "metrics": metrics, "params": params, "results": plainly})
        return
    show_run(params, metrics)
    table = folded("device", "status", "windows", "detector", "false alarms", "gain", "reason")
    for row in rows[:_ROWS]:
        compared = contest_of(row)
        gain = "" if compared is None else f"{compared.gain:+.3f}"
        alarms = "" if row["false_alarm_rate"] is None else f"{row['false_alarm_rate']:.4f}"
        cells = row["device"], row["status"], str(row["windows"]), row["detector"] or "", alarms, gain, row["reason"]
        table.add_row(*(plain(cell) for cell in cells))
    out.print(table)
    if len(rows) > _ROWS:
        err.print(f"and {len(rows) - _ROWS:,} more devices; --device or --json tells of them")


_ROWS = 50


@app.command()
def compare(
    context: typer.Context,
    challenger: Which = "challenger",
    champion: Which = CHAMPION,
    statistics: Annotated[Path | None, typer.Option(help="Folder with `statistics/`; the Parquet sink's.")] = None,
    since: Annotated[str | None, typer.Option(help="Only windows ending at or after this time.")] = None,
    until: Annotated[str | None, typer.Option(help="Only windows ending before this time.")] = None,
    last: Annotated[str | None, typer.Option(help="Only the last so many hours or days, as `36h`.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with device_id, start, end of known faults.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge two versions on the same recorded windows: false alarms, faults found, agreement.

    Windows that one of them was trained on flatter it: give a period later than both.
    """
    registry, settings = _registry(context)
    folder = statistics or settings.parquet.folder
    one, other = registry.version(champion), registry.version(challenger)
    chosen = period(since, until, [])
    length = duration(last, "--last") if last else None
    known = faults(labels) if labels else {}
    found = between(registry, (one, other), dataset(folder, "statistics"), (chosen, length), known)
    if as_json:
        emit(
            {
                "champion": one.number,
                "challenger": other.number,
                **asdict(found.ballot),
                "won": found.ballot.won,
                "devices_seen": found.seen,
                "results": [
                    {"device": device, **asdict(single), "gain": single.gain} for device, single in found.contests
                ],
            }
        )
        return
    ballot = found.ballot
    table = folded("", f"version {one.number}", f"version {other.number}", title=f"{ballot.devices:,} devices")
    for name in ("false_alarms", "detection"):
        sides = getattr(ballot.champion, name), getattr(ballot.challenger, name)
        table.add_row(name.replace("_", " "), *(f"{side:.4f}" for side in sides))
    out.print(table)
    out.print(
        f"agreement {ballot.agreement:.4f}, gain {ballot.gain:+.4f}: {ballot.better:,} better, {ballot.worse:,} worse"
    )
    if found.seen:
        err.print(f"{found.seen:,} devices' models were trained on some of these windows; give a later --since")


@app.command()
def promote(
    context: typer.Context,
    version: Which,
    force: Annotated[bool, typer.Option("--force", help="Though it lost against the fleet in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a version in force; workers take it up within seconds, without losing a window."""
    registry, settings = _registry(context)
    found = registry.version(version)
    metrics, _ = registry.metrics(found)
    if metrics.get("contest_devices") and metrics["contest_gain"] <= 0 and not force:
        raise ConfigError(
            f"Version {found.number} is no better than the fleet it was compared with (gain "
            f"{metrics['contest_gain']:+.4f}); add --force to promote it."
        )
    target = settings.worker.fleet
    registry.promote(found, target)
    tell(registry, found, target, as_json=as_json)


@app.command()
def rollback(context: typer.Context, as_json: AsJson = False) -> None:
    """Put the version in force that was before the one that is."""
    registry, settings = _registry(context)
    target = settings.worker.fleet
    tell(registry, registry.rollback(target), target, as_json=as_json)


@app.command()
def delete(context: typer.Context, version: Which, yes: Yes = False, as_json: AsJson = False) -> None:
    """Forget a version that is not in force; the run that made it stays."""
    registry, _ = _registry(context)
    forget(registry, version, yes=yes, as_json=as_json)


def _registry(context: typer.Context) -> tuple[Registry, Settings]:
    in_force: InForce = context.obj
    return Registry(in_force.settings.models), in_force.settings


def forget(registry: Registry, version: str, *, yes: bool, as_json: bool) -> None:
    """Delete a version, if somebody says so, and say it."""
    found = registry.version(version)
    if not yes:
        typer.confirm(f"Delete version {found.number}?", abort=True)
    registry.delete(found)
    if as_json:
        emit({"deleted": found.number})
    else:
        out.print(f"version {found.number} is deleted")


def tell(registry: Registry, version: Version, target: Path, *, as_json: bool) -> None:
    """Say what is in force now: here, for workers that read the file; those that follow the alias fetch it."""
    if as_json:
        emit(told(registry.version(str(version.number))))
    else:
        out.print(f"version {version.number} is in force, in {target}", soft_wrap=True)


def show_run(params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """How a version was trained, for a person."""
    for title, values in (("how", params), ("figures", metrics)):
        table = folded(title, "", show_header=True)
        for name, value in sorted(values.items()):
            table.add_row(name, plain(f"{value:.6g}" if isinstance(value, float) else str(value)))
        out.print(table)


def told(version: Version) -> dict[str, Any]:
    """It as plain values."""
    return {**asdict(version), "aliases": list(version.aliases), "tags": dict(version.tags)}


def _plain(value: Any) -> Any:
    return int(value.timestamp() * 1000) if hasattr(value, "timestamp") else value
