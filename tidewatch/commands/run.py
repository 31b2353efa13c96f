"""Commands that run for ever: the worker and the sinks."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stream import app as stream
from stream.outbox import Delivery
from stream.owners import Owners
from tidewatch.children import override
from tidewatch.console import Level, err, log_from
from tidewatch.follower import Follower
from tidewatch.settings import InForce
from tidewatch.stack import prepare_topics
from tidewatch.wiring import stream_spec, until_signalled, worker_spec
from tidewatch.writing import Kind, write, write_once


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(worker)
    app.command()(sink)


def worker(
    context: typer.Context,
    report: Annotated[
        Path | None, typer.Option(help="Keep a JSON file here with the counts of readings, windows, alerts, rejects.")
    ] = None,
    delivery: Annotated[Delivery | None, typer.Option(help="The same as `--set worker.delivery=…`.")] = None,
    log: Annotated[Level | None, typer.Option(case_sensitive=False, help="The same as `tidewatch --log`.")] = None,
) -> None:
    """Run the stream: readings in, scored windows, alerts and rejects out. Start more to share the work."""
    stream.share_memory()
    if log is not None:
        log_from(log)
    in_force: InForce = context.obj
    settings = override(in_force, {"worker.delivery": delivery} if delivery else {}).settings
    broker, topics = settings.kafka.broker(), settings.topics.names()
    prepare_topics(broker, topics, partitions=settings.topics.partitions, replication=settings.topics.replication)
    spec = worker_spec(settings)
    owners = Owners(broker, stream.scoring(topics, stream_spec(settings)), spec)
    owners.recovered = partial(err.print, soft_wrap=True)
    app = stream.build(broker, owners, spec)
    if settings.models.follow:
        follower = Follower(settings.models, settings.worker.fleet)
        follower.look()
        follower.start()
    stream.follow_fleet(app, settings.worker.fleet)
    if report is not None:
        stream.report_counts(app, report)
    stream.run(app)


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
