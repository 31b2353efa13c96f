"""Commands of the load forecaster, all under `tidewatch load`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from scorers.errors import ConfigError
from tidewatch.commands import forecaster, live, logs, versions
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, out, plain, progress, utc
from tidewatch.forecast.etl import Manifest, Request, Runner
from tidewatch.forecast.etl import etl as make
from tidewatch.forecast.spec import Choice, Progress
from tidewatch.jobs import Cancelled
from tidewatch.settings import InForce, override
from tidewatch.signals import until_signalled
from tidewatch.spans import moment

SHOWN = 5
"""Silent spans that are named one by one."""

load = typer.Typer(
    help="How much load each server will have: low, medium or high, 48 hours ahead.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    forecaster.register(load)
    live.register(load)
    versions.register(load)
    app.add_typer(load, name="load")
    logs.register(load)


@load.command()
def etl(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Option("--in", help="Session logs: file, folder, pattern, file:// or s3://; may be repeated."),
    ],
    target: Annotated[
        Path | None, typer.Option("--out", help="Folder for hours, features and rejects; load.folder by default.")
    ] = None,
    servers: Annotated[
        str | None, typer.Option(help="Only these, separated by commas, to look at a sample first.")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only sessions that start at or after this time.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only sessions that start before this time.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="FROM/TO: hours to leave out as unknown; may be repeated.")
    ] = None,
    engine: Annotated[
        Runner,
        typer.Option(
            case_sensitive=False,
            help="DuckDB here, or Apache Spark as the group `spark` of the settings says (extra `spark`).",
        ),
    ] = Runner.DUCKDB,
    memory: Annotated[str, typer.Option(help="What DuckDB may take; the rest goes to disk.")] = "2GB",
    as_json: AsJson = False,
) -> None:
    """Make hours and features of session logs; what is no session is counted by reason and kept aside.

    Same code for two servers, a month or everything; more than memory holds may be read.
    """
    in_force: InForce = context.obj
    names = frozenset(name.strip() for name in (servers or "").split(",") if name.strip())
    if servers is not None and not names:
        raise ConfigError("--servers names none; separate them by commas, or leave it out for all.")
    begin, end = (moment(text, flag) if text else None for text, flag in ((since, "--from"), (until, "--to")))
    if begin is not None and end is not None and end <= begin:
        raise ConfigError("--to is not later than --from; change one of them.")
    if exclude:
        in_force = override(in_force, {"load.exclude": (*in_force.settings.load.exclude, *exclude)})
    target = target or in_force.settings.load.folder
    request = Request(tuple(sources), target, Choice(names, begin, end), engine, memory)
    try:
        with until_signalled() as stop, _stages(stop.is_set) as advance:
            told = make(in_force.settings, request, advance)
    except Cancelled:
        err.print(f"Stopped; {target} is as it was.", soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        emit(told)
    else:
        _show(told, target)


@contextmanager
def _stages(stop: Callable[[], bool]) -> Iterator[Progress]:
    """A bar for each stage in turn, until somebody asks to stop."""
    with ExitStack() as held:
        bars = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stop():
                raise Cancelled
            if stage not in bars:
                held.close()
                bars[stage] = held.enter_context(progress(stage))
            bars[stage](done, total)

        yield advance


def _show(told: Manifest, target: Path) -> None:
    """The account, for a person."""
    spans = told["silent"]
    for begin, end in spans[:SHOWN]:
        span = f"{utc(begin)} to {utc(end)} UTC"
        flag = f"--exclude {utc(begin)[:16].replace(' ', 'T')}/{utc(end)[:16].replace(' ', 'T')}"
        err.print(f"[yellow]warning:[/] no server had a session from {span}; if the log has a hole there, {flag}",
                  soft_wrap=True)  # fmt: skip
    if len(spans) > SHOWN:
        err.print(f"  and {len(spans) - SHOWN} more such spans; --json tells all", soft_wrap=True)
    rejected = sum(told["rejects"].values())
    out.print(f"{told['sessions']:,} sessions of {told['servers']:,} servers, {utc(told['start'])} to "
              f"{utc(told['end'])} UTC", soft_wrap=True)  # fmt: skip
    out.print(f"{told['hours']:,} hours and {told['features']:,} rows of features in {plain(str(target))}",
              soft_wrap=True, markup=False)  # fmt: skip
    if told["blank"]:
        out.print(f"{told['blank']:,} blank loads left out")
    if rejected:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in told["rejects"].items())
        share = rejected / told["lines"]
        out.print(f"{rejected:,} of {told['lines']:,} lines kept aside ({share:.2%}): {reasons}", soft_wrap=True)
