"""A recording scored in batch is row for row what Kafka, a worker and the Parquet sink made of it."""

from pathlib import Path

import pytest

from producers.publish import Pace
from producers.recordings import recording
from producers.replay import Replay
from scorers import pack
from scorers.fleet import Fleet
from sinks.compare import compare
from stream.contracts import Topics
from stream.kafka import Broker
from stream.window import WindowSpec
from tests.batches import models, readings, write
from tests.live.support import PARTITIONS, Site, Worker, drained, eventually
from tidewatch.batch.run import Request, prepare, score
from tidewatch.commands.feed import send
from tidewatch.settings import load
from tidewatch.writing import Kind, write_once


@pytest.mark.live
def test_a_batch_gives_what_the_live_stream_gave(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    site = Site(kafka, topics, tmp_path, WindowSpec(10_000, 10_000, 2_000, 30_000))
    current = {
        "kafka.bootstrap": kafka.bootstrap,
        "topics.prefix": site.prefix,
        "topics.partitions": PARTITIONS,
        "worker.app": site.app,
        "worker.fleet": site.fleet,
        "parquet.folder": tmp_path / "live",
        "jobs.folder": tmp_path / "jobs",
    }
    in_force = load(current, environ={})
    path = write(tmp_path / "in", readings(), files=3)
    pack.save(Fleet.of(models(), "v1"), site.fleet, 0)
    with Worker(site) as worker:
        send(in_force, Replay(recording(path)), Pace())
        eventually(lambda: drained(site, topics.readings), "every window closed", [worker])
    write_once(in_force.settings, Kind.PARQUET)
    request = Request(str(path), str(tmp_path / "batch"))
    status = score(in_force.settings, request, prepare(in_force.settings, request).id, workers=2)
    again = Request(str(tmp_path / "live"), str(tmp_path / "again"))
    score(in_force.settings, again, prepare(in_force.settings, again).id, workers=1)
    result = compare(tmp_path / "live", tmp_path / "batch", tolerance=1e-9)

    assert status.failures == 0
    assert status.counts["anomalies"] > 0
    assert result.same, result
    assert result.tables[0].left_rows == status.counts["windows"]
    assert compare(tmp_path / "live", tmp_path / "again", tolerance=1e-9).same
