"""Live, in a batch and over HTTP the same windows get the same scores, to 1e-9."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sinks.compare import compare
from stream.contracts import Score, Topics
from stream.kafka import Broker
from tests.batches import readings
from tests.live.scored import scored
from tests.live.support import read
from tests.services import serving
from tidewatch.hosting import spec
from tidewatch.wiring import stream_spec

Told = dict[tuple[str, int], tuple[Any, ...]]
"""State, anomaly, decision, score, severity and shares of contributors, by device and end of window."""


def told(scores: list[dict[str, Any]]) -> Told:
    return {
        (one["device_id"], one["window_end"]): (
            one["state"],
            one["anomaly"],
            tuple(contributor["feature"] for contributor in one["contributors"]),
            (one["decision"], one["score"], one["severity"]),
            tuple(contributor["share"] for contributor in one["contributors"]),
        )
        for one in scores
    }


def same(left: Told, right: Told) -> None:
    assert left.keys() == right.keys()
    for key, (state, anomaly, features, *numbers) in left.items():
        assert (state, anomaly, features) == right[key][:3]
        for ours, theirs in zip(numbers, right[key][3:], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.live
def test_live_batch_and_http_scores_of_the_same_windows_are_equal(
    kafka: Broker, topics: Topics, tmp_path: Path
) -> None:
    found = scored(kafka, topics, tmp_path, workers=1)
    settings = found.in_force.settings
    live = [msgspec.json.decode(message.value() or b"") for message in read(kafka, [topics.scores])]
    table = readings()
    metrics = [name for name in table.schema.names if name not in {"device_id", "ts"}]
    given = [
        {
            "device_id": row["device_id"],
            "ts": row["ts"],
            "values": {name: row[name] for name in metrics if row[name] is not None},
        }
        for row in table.to_pylist()
    ]
    windows = [
        {name: one[name] for name in ("device_id", "window_start", "window_end", "count", "metrics")} for one in live
    ]
    with serving(spec(settings), stream=stream_spec(settings)) as running:
        calls = [
            running.call("POST", "/score", {"model_name": "fleet", "data": data})
            for data in ({"readings": given}, {"windows": windows})
        ]

    assert compare(found.live, found.batch, tolerance=1e-9).same
    assert len(live) > 300
    assert {msgspec.convert(one, Score).state for one in live} == {"scored"}
    assert any(one["anomaly"] for one in live)
    for status, answer in calls:
        assert status == 200
        same(told(answer["results"]), told(live))
