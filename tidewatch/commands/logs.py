"""Commands before and after the forecast: `tidewatch load generate` and `tidewatch load plan`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape

from producers.synthesis import LogSpec
from scorers.errors import ConfigError
from scorers.forecast.plan import Plan, plan
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, plain, progress, utc
from tidewatch.console import out as console
from tidewatch.forecast.generate import generate as write
from tidewatch.forecast.generate import sized
from tidewatch.forecast.peaks import limits_of, peaks
from tidewatch.jobs import Cancelled
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.spans import moment


def register(load: typer.Typer) -> None:
    """Add the commands."""
    load.command()(generate)
    load.command("plan")(arrange)


def generate(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The folder that is to hold the log.")],
    servers: Annotated[int, typer.Option(min=1, help="How many servers.")] = 390,
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 31,
    sessions: Annotated[str | None, typer.Option(help="About how many sessions; 5e6 when left out.")] = None,
    gigabytes: Annotated[float | None, typer.Option(help="About how large, instead of --sessions.")] = None,
    dirty: Annotated[float, typer.Option(min=0, max=1, help="The share of rows that are spoilt.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same log.")] = 0,
    start: Annotated[str, typer.Option(help="Its first day: a midnight UTC.")] = "2024-01-01",
    timezone: Annotated[str | None, typer.Option(help="Where the servers' day begins; `load.timezone`.")] = None,
    monthly: Annotated[bool, typer.Option("--monthly", help="A file a month, not a day.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a session log as a fleet of servers would: 17 columns, no header, files YYYY/MM/DD/request.csv.

    Servers belong to groups with days and weeks of their own, grow or shrink, burst, and go down at times; some come
    later, some leave. truth.json says how many rows are spoilt, by kind.
    """
    if sessions is not None and gigabytes is not None:
        raise ConfigError("--sessions and --gigabytes both say how large the log is; give one.")
    in_force: InForce = context.obj
    spec = LogSpec(
        servers=servers,
        days=days,
        sessions=_number("5e6" if sessions is None else sessions),
        dirty=dirty,
        seed=seed,
        start=moment(start, "--start"),
        timezone=timezone or in_force.settings.load.timezone,
        country=in_force.settings.load.country,
        monthly=monthly,
    )
    if gigabytes is not None:
        spec = sized(spec, _positive(gigabytes) * 1e9)
    try:
        with until_signalled() as stop, progress("writing days") as show:
            truth = write(spec, out, workers=workers or os.cpu_count() or 1, progress=_unless(stop, show))
    except Cancelled:
        err.print(f"Stopped; nothing was written to {out}.", soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        emit({"folder": str(out), **truth.plain()})
        return
    spoilt = truth.dirty.total()
    err.print(f"{truth.rows:,} rows, {truth.bytes / 1e9:.2f} GB in {out}; {spoilt:,} of them spoilt", soft_wrap=True)


def arrange(
    context: typer.Context,
    forecasts: Annotated[Path, typer.Argument(help="Parquet (file or folder) or JSON lines of server.forecasts.")],
    capacity: Annotated[float, typer.Option(help="The load that a machine bears.")],
    headroom: Annotated[float, typer.Option(help="The share of it that is left free.")] = 0.2,
    confidence: Annotated[
        float, typer.Option(help="That a load stays below its peak, where only classes are forecast.")
    ] = 0.9,
    limits: Annotated[
        str | None,
        typer.Option(
            help="Loads up to which an hour is low, medium, high, where only classes are forecast; by default those of "
            "load.thresholds, and twice the last."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which servers use so little that they can share a machine, and which are to be spread over several."""
    in_force: InForce = context.obj
    ends = limits_of(in_force.settings.load) if limits is None else _limits(limits)
    made = plan(peaks(forecasts, ends, confidence), capacity, headroom=headroom)
    if as_json:
        emit({"before": made.before, "after": made.after, **asdict(made)})
        return
    _show(made, capacity)


def _show(made: Plan, capacity: float) -> None:
    shared = [group for group in made.groups if len(group.servers) > 1]
    if shared:
        table = folded("stays", "move to it", "peak", "of capacity", "at", box=SIMPLE, title="Group")
        for group in shared:
            names = ", ".join(map(plain, group.servers[1:]))
            share = f"{group.peak / capacity:.0%}"
            table.add_row(escape(plain(group.servers[0])), escape(names), f"{group.peak:,.1f}", share, utc(group.hour))
        console.print(table)
    if made.heavy:
        table = folded("server", "peak", "at", "hours too heavy", "machines", box=SIMPLE, title="Spread")
        for heavy in made.heavy:
            numbers = f"{heavy.peak:,.1f}", utc(heavy.hour), f"{heavy.hours}", f"{heavy.machines}"
            table.add_row(escape(plain(heavy.server)), *numbers)
        console.print(table)
    saved = made.before - made.after
    told = f"{saved} fewer" if saved >= 0 else f"{-saved} more, for the heavy ones"
    share = f", {saved / made.before:.0%}" if saved > 0 else ""
    console.print(f"{made.before:,} machines before, {made.after:,} after: {told}{share} (planned by {made.by})")


def _limits(text: str) -> Sequence[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--limits is {text!r}; give three rising loads, such as 100,500,1000.") from None


def _unless(stop: Event, show: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Show how far it is, until somebody asks to stop."""

    def advance(done: int, total: int) -> None:
        if stop.is_set():
            raise Cancelled
        show(done, total)

    return advance


def _number(text: str) -> float:
    try:
        return _positive(float(text))
    except ValueError:
        raise ConfigError(f"--sessions is {text!r}; give a number such as 5000000 or 5e6.") from None


def _positive(size: float) -> float:
    if not 0 < size < float("inf"):
        raise ConfigError(f"A log of size {size:g} cannot be; give a number above 0.")
    return size
