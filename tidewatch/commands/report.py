"""The command that tells what became of the fleet in a period."""

from pathlib import Path
from typing import Annotated

import typer

from scorers.errors import ConfigError
from tidewatch import brief, page
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, out, utc
from tidewatch.digest import Asked, digest
from tidewatch.settings import InForce
from tidewatch.spans import moment
from tidewatch.wiring import stream_spec


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="The Parquet sink's folder; `parquet.folder`.")] = None,
    target: Annotated[Path, typer.Option("--out", help="The page: an HTML file.")] = Path("report.html"),
    since: Annotated[
        str | None,
        typer.Option("--from", help="First window end, ISO-8601 or epoch ms. A day before `--to` by default."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Window end to stop before. By default the last window is the last one.")
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, max=brief.LINES, help="How many of the oddest devices the page names.")
    ] = 20,
    gap: Annotated[
        int, typer.Option(min=1, help="So many windows of a device missing in a row are a gap, or silence.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Tell on one page what became of the fleet in a period, by what the Parquet sink kept.

    Odd windows and devices, alerts, those that look false, silence, gaps and model versions.
    """
    in_force: InForce = context.obj
    page.check(target, "--out")
    begin, end = (moment(text, flag) if text else None for text, flag in ((since, "--from"), (until, "--to")))
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"--to {until!r} is not later than --from {since!r}; change one of them.")
    source = folder or in_force.settings.parquet.folder
    asked = Asked(begin, end, gap, stream_spec(in_force.settings).alert)
    told = digest(source, asked)
    brief.write(target, told, source, asked, top)
    if as_json:
        emit(told.told() | {"page": str(target)})
        return
    err.print(f"from {utc(told.since)} to {utc(told.until)} UTC")
    for name, count, meaning in brief.figures(told):
        out.print(f"{count:>12}  {name}{f', {meaning}' if meaning else ''}")
    out.print(f"the page is {target}", soft_wrap=True)
