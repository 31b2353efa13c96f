"""`tidewatch load worker`: forecasts as sessions come in."""

from pathlib import Path
from typing import Annotated

import typer

from stream.app import App
from stream.forecast.worker import follow_forecaster, forecasting
from tidewatch.commands import working
from tidewatch.commands.working import OnDelivery, OnLog
from tidewatch.follower import Follower
from tidewatch.forecast.live import group, load_spec
from tidewatch.forecast.settings import model_file
from tidewatch.groups import Settings


def _follow(app: App, settings: Settings) -> None:
    """Forecast by the forecaster in force, which is the registry's where it is to be followed."""
    target = model_file(settings.load)
    if settings.models.follow:
        from tidewatch.forecast.record import FORECASTERS, forecasters  # noqa: PLC0415 - only those who follow are to pay

        follower = Follower(forecasters(settings.models), target, FORECASTERS)
        follower.look()
        follower.start()
    follow_forecaster(app, target)


FORECASTING = working.Work(
    cores=lambda topics, settings: forecasting(topics, load_spec(settings)), group=group, follow=_follow
)


def register(load: typer.Typer) -> None:
    """Add the command."""
    load.command()(worker)


def worker(
    context: typer.Context,
    report: Annotated[
        Path | None, typer.Option(help="Keep a JSON file here with the counts of sessions, hours, forecasts, rejects.")
    ] = None,
    delivery: OnDelivery = None,
    log: OnLog = None,
) -> None:
    """Forecast every server's next 48 hours whenever an hour ends, from live sessions. Start more to share the work.

    Runs beside `tidewatch worker`, which scores the same sessions and keeps what is none of them.
    """
    working.run(context, FORECASTING, report, delivery, log)
