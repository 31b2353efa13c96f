"""`tidewatch load worker`: forecasts as sessions come in."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stream import app as stream
from stream.forecast.worker import follow_forecaster, forecasting
from stream.outbox import Delivery
from stream.owners import Owners
from tidewatch.children import override
from tidewatch.console import Level, err, log_from
from tidewatch.forecast.live import load_spec, worker_spec
from tidewatch.forecast.store import model_file
from tidewatch.settings import InForce
from tidewatch.stack import prepare_topics


def register(load: typer.Typer) -> None:
    """Add the command."""
    load.command()(worker)


def worker(
    context: typer.Context,
    report: Annotated[
        Path | None, typer.Option(help="Keep a JSON file here with the counts of sessions, hours, forecasts, rejects.")
    ] = None,
    delivery: Annotated[Delivery | None, typer.Option(help="The same as `--set worker.delivery=…`.")] = None,
    log: Annotated[Level | None, typer.Option(case_sensitive=False, help="The same as `tidewatch --log`.")] = None,
) -> None:
    """Forecast every server's next 48 hours whenever an hour ends, from live sessions. Start more to share the work.

    Runs beside `tidewatch worker`, which scores the same sessions and keeps what is none of them.
    """
    stream.share_memory()
    if log is not None:
        log_from(log)
    in_force: InForce = context.obj
    settings = override(in_force, {"worker.delivery": delivery} if delivery else {}).settings
    broker, topics = settings.kafka.broker(), settings.topics.names()
    prepare_topics(broker, topics, partitions=settings.topics.partitions, replication=settings.topics.replication)
    spec = worker_spec(settings)
    owners = Owners(broker, forecasting(topics, load_spec(settings)), spec)
    owners.recovered = partial(err.print, soft_wrap=True)
    app = stream.build(broker, owners, spec)
    follow_forecaster(app, model_file(settings.load))
    if report is not None:
        stream.report_counts(app, report)
    stream.run(app)
