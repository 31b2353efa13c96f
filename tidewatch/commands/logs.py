"""Commands around session logs: `tidewatch load generate`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from producers.logs import LogSpec
from scorers.errors import ConfigError
from tidewatch.commands.feed import AsJson
from tidewatch.console import emit, err, progress
from tidewatch.forecast.generate import generate as write
from tidewatch.forecast.generate import sized
from tidewatch.settings import InForce
from tidewatch.spans import moment


def register(load: typer.Typer) -> None:
    """Add the commands."""
    load.command()(generate)


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
        monthly=monthly,
    )
    if gigabytes is not None:
        spec = sized(spec, _positive(gigabytes) * 1e9)
    with progress("writing days") as show:
        truth = write(spec, out, workers=workers or os.cpu_count() or 1, progress=show)
    if as_json:
        emit({"folder": str(out), **truth.plain()})
        return
    spoilt = truth.dirty.total()
    err.print(f"{truth.rows:,} rows, {truth.bytes / 1e9:.2f} GB in {out}; {spoilt:,} of them spoilt", soft_wrap=True)


def _number(text: str) -> float:
    try:
        return _positive(float(text))
    except ValueError:
        raise ConfigError(f"--sessions is {text!r}; give a number such as 5000000 or 5e6.") from None


def _positive(size: float) -> float:
    if not 0 < size < float("inf"):
        raise ConfigError(f"A log of size {size:g} cannot be; give a number above 0.")
    return size
