"""The worker: the stream, for ever."""

from pathlib import Path
from typing import Annotated

import typer

from stream import app as stream
from tidewatch.commands import working
from tidewatch.commands.working import OnDelivery, OnLog
from tidewatch.follower import Follower
from tidewatch.groups import Settings
from tidewatch.wiring import stream_spec


def _follow(app: stream.App, settings: Settings) -> None:
    """Score by the fleet in force, which is the registry's where it is to be followed."""
    if settings.models.follow:
        follower = Follower(settings.models, settings.worker.fleet)
        follower.look()
        follower.start()
    stream.follow_fleet(app, settings.worker.fleet)


SCORING = working.Work(
    cores=lambda topics, settings: stream.scoring(topics, stream_spec(settings)),
    group=lambda settings: settings.worker.app,
    follow=_follow,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    context: typer.Context,
    report: Annotated[
        Path | None, typer.Option(help="Keep a JSON file here with the counts of readings, windows, alerts, rejects.")
    ] = None,
    delivery: OnDelivery = None,
    log: OnLog = None,
) -> None:
    """Run the stream: readings in, scored windows, alerts and rejects out. Start more to share the work."""
    working.run(context, SCORING, report, delivery, log)
