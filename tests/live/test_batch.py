"""A recording scored in batch is row for row what Kafka, a worker and the Parquet sink made of it."""

from pathlib import Path

import pytest

from sinks.compare import compare
from stream.contracts import Topics
from stream.kafka import Broker
from tests.live.scored import scored
from tidewatch.batch.run import Request, prepare, score


@pytest.mark.live
def test_a_batch_gives_what_the_live_stream_gave(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    found = scored(kafka, topics, tmp_path, workers=2)
    settings = found.in_force.settings
    again = Request(str(found.live), str(tmp_path / "again"))
    score(settings, again, prepare(settings, again).id, workers=1)
    result = compare(found.live, found.batch, tolerance=1e-9)

    assert found.status.failures == 0
    assert found.status.counts["anomalies"] > 0
    assert result.same, result
    assert result.tables[0].left_rows == found.status.counts["windows"]
    assert compare(found.live, tmp_path / "again", tolerance=1e-9).same
