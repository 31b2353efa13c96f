"""What every worker has in common: its flags, its topics, its owners, and how it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stream import app as stream
from stream.contracts import Topics
from stream.core import Cores
from stream.outbox import Delivery
from stream.owners import Owners, WorkerSpec
from tidewatch.console import Level, err, log_from
from tidewatch.groups import Settings
from tidewatch.settings import InForce, override
from tidewatch.topics import prepare_topics

OnDelivery = Annotated[Delivery | None, typer.Option(help="The same as `--set worker.delivery=…`.")]
OnLog = Annotated[Level | None, typer.Option(case_sensitive=False, help="The same as `tidewatch --log`.")]


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker does with the partitions it owns."""

    cores: Callable[[Topics, Settings], Cores[Any]]
    group: Callable[[Settings], str]
    """Names the consumer group."""
    follow: Callable[[stream.App, Settings], None]
    """Has it keep to the models in force."""


def run(
    context: typer.Context, work: Work, report: Path | None, delivery: Delivery | None, log: Level | None
) -> NoReturn:
    """Do the work until a signal."""
    stream.share_memory()
    if log is not None:
        log_from(log)
    in_force: InForce = context.obj
    settings = override(in_force, {"worker.delivery": delivery} if delivery else {}).settings
    broker, topics, worker = settings.kafka.broker(), settings.topics.names(), settings.worker
    spec = WorkerSpec(app=work.group(settings), delivery=worker.delivery, epoch_s=worker.epoch_s)
    prepare_topics(broker, topics, partitions=settings.topics.partitions, replication=settings.topics.replication)
    owners = Owners(broker, work.cores(topics, settings), spec)
    owners.recovered = partial(err.print, soft_wrap=True)
    app = stream.build(broker, owners, spec)
    work.follow(app, settings)
    if report is not None:
        stream.report_counts(app, report)
    stream.run(app)
