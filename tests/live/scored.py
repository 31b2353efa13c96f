"""A recording scored twice: live through Kafka, a worker and the Parquet sink, and as a batch."""

from dataclasses import dataclass
from pathlib import Path

from producers.publish import Pace
from producers.recordings import recording
from producers.replay import Replay
from scorers import pack
from scorers.fleet import Fleet
from stream.contracts import Topics
from stream.kafka import Broker
from stream.window import WindowSpec
from tests.batches import models, readings, write
from tests.live.support import PARTITIONS, Site, Worker, drained, eventually
from tidewatch.batch.run import Request, prepare, score
from tidewatch.commands.feed import send
from tidewatch.jobs import Status
from tidewatch.settings import InForce, load
from tidewatch.writing import Kind, write_once


@dataclass(frozen=True, slots=True)
class Scored:
    """Where what came of it lies."""

    in_force: InForce
    live: Path
    batch: Path
    status: Status
    """Of the batch."""


def scored(kafka: Broker, topics: Topics, folder: Path, workers: int) -> Scored:
    """Score ``tests.batches.readings`` in both ways; the batch in so many processes."""
    site = Site(kafka, topics, folder, WindowSpec(10_000, 10_000, 2_000, 30_000))
    live, batch = folder / "live", folder / "batch"
    changes = {
        "kafka.bootstrap": kafka.bootstrap,
        "topics.prefix": site.prefix,
        "topics.partitions": PARTITIONS,
        "worker.app": site.app,
        "worker.fleet": site.fleet,
        "parquet.folder": live,
        "jobs.folder": folder / "jobs",
        "serving.folder": folder / "fleets",
        "load.folder": folder / "load",
    }
    in_force = load(changes, environ={})
    path = write(folder / "in", readings(), files=3)
    pack.save(Fleet.of(models(), "v1"), site.fleet, 0)
    with Worker(site) as worker:
        send(in_force, Replay(recording(path)), Pace())
        eventually(lambda: drained(site, topics.readings), "every window closed", [worker])
    write_once(in_force.settings, Kind.PARQUET)
    request = Request(str(path), str(batch))
    status = score(in_force.settings, request, prepare(in_force.settings, request).id, workers=workers)
    return Scored(in_force, live, batch, status)
