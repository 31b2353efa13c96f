"""Commands of the load forecaster, all under `tidewatch load`."""

import typer

from tidewatch.commands import logs

load = typer.Typer(
    help="How much load each server will have: low, medium or high, 48 hours ahead.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(load, name="load")
    logs.register(load)
