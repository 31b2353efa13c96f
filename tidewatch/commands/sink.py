"""The sinks: from Kafka to a store, for ever or to what is its end now."""

from typing import Annotated

import typer

from tidewatch.console import err
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.topics import prepare_topics
from tidewatch.writing import Kind, write, write_once


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sink)


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
