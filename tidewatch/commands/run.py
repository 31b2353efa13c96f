"""Commands that run for ever: the worker and the sinks."""

from pathlib import Path
from typing import Annotated

import typer

from stream import app as stream
from tidewatch.commands import working
from tidewatch.commands.working import OnDelivery, OnLog
from tidewatch.console import err
from tidewatch.follower import Follower
from tidewatch.groups import Settings
from tidewatch.settings import InForce
from tidewatch.stack import prepare_topics
from tidewatch.wiring import stream_spec, until_signalled, worker_spec
from tidewatch.writing import Kind, write, write_once


def _follow(app: stream.App, settings: Settings) -> None:
    """Score by the fleet in force, which is the registry's where it is to be followed."""
    if settings.models.follow:
        follower = Follower(settings.models, settings.worker.fleet)
        follower.look()
        follower.start()
    stream.follow_fleet(app, settings.worker.fleet)


SCORING = working.Work(
    cores=lambda topics, settings: stream.scoring(topics, stream_spec(settings)), spec=worker_spec, follow=_follow
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(worker)
    app.command()(sink)


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


def sink(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="Where to.")],
    once: Annotated[bool, typer.Option("--once", help="Stop once everything that is there now is written.")] = False,
) -> None:
    """Write scored windows and forecasts to Parquet, or scores, alerts and forecasts to Redis, exactly once."""
    in_force: InForce = context.obj
    settings, named = in_force.settings, in_force.settings.topics
    broker = settings.kafka.broker()
    prepare_topics(broker, named.names(), partitions=named.partitions, replication=named.replication)
    with until_signalled() as stop:
        tally = write_once(settings, kind) if once else write(settings, kind, stop=stop.is_set)
    err.print(f"{kind}: {tally.records} records written, {tally.rejects} rejected")
