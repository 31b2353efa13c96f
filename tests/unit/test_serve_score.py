"""The service says of readings and windows what the stream and a batch say of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from serving.replay import columns
from stream.contracts import Score
from stream.partition import StreamSpec
from tests import batches
from tests.batches import live, readings, rows, train, write
from tests.services import Running, serving
from tidewatch.batch.run import Request, prepare, score
from tidewatch.groups import Settings
from tidewatch.hosting import spec
from tidewatch.wiring import stream_spec

Known = tuple[Settings, Running, dict[tuple[str, int], Score]]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A service, and what the stream gave, by device and end of window."""
    folder = tmp_path_factory.mktemp("score")
    current = batches.settings(folder)
    train(current)
    path = write(folder / "in", readings())
    live(path, current, folder / "live")
    status = score(
        current,
        Request(str(path), str(folder / "batch")),
        prepare(current, Request(str(path), str(folder / "batch")), None).id,
        workers=1,
    )
    assert status.state == "done"
    found = {key: value for key, value in _scores(folder / "live").items() if _scores(folder / "batch")[key] == value}
    assert len(found) == len(_scores(folder / "live"))
    with serving(spec(current), stream=stream_spec(current)) as running:
        yield current, running, found


def _scores(folder: Path) -> dict[tuple[str, int], Any]:
    """Decisions by device and end of window."""
    return {
        (str(row["device_id"]), int(row["window_end"].timestamp() * 1000)): (
            row["decision"],
            row["score"],
            row["anomaly"],
            row["state"],
        )
        for row in cast("Iterator[dict[str, Any]]", rows(folder, "predictions"))
    }


def told(results: list[dict[str, Any]]) -> dict[tuple[str, int], Any]:
    return {
        (one["device_id"], one["window_end"]): (one["decision"], one["score"], one["anomaly"], one["state"])
        for one in results
    }


def same(left: dict[tuple[str, int], Any], right: dict[tuple[str, int], Any]) -> None:
    assert left.keys() == right.keys()
    for key, (decision, value, *rest) in left.items():
        assert rest == list(right[key][2:])
        np.testing.assert_allclose(
            np.array([decision, value], float), np.array(right[key][:2], float), atol=1e-9, rtol=1e-9
        )


def test_readings_are_scored_as_the_stream_and_a_batch_score_them(known: Known) -> None:
    _, running, streamed = known
    table = readings().to_pylist()
    given = [
        {
            "device_id": row.pop("device_id"),
            "ts": row.pop("ts"),
            "values": {k: v for k, v in row.items() if v is not None},
        }
        for row in table
    ]
    status, answer = running.call("POST", "/score", {"model_name": "fleet", "data": {"readings": given}})

    assert status == 200
    same(told(answer["results"]), streamed)


def test_windows_are_scored_as_the_stream_scored_them(known: Known) -> None:
    _, running, streamed = known
    table = readings().to_pylist()
    one = sorted({row["device_id"] for row in table})[1]
    own = [
        {"ts": row["ts"], "values": {k: v for k, v in row.items() if k not in {"ts", "device_id"} and v is not None}}
        for row in table
        if row["device_id"] == one
    ]
    _, first = running.call("POST", f"/api/v1/service/{one}/score", {"data": {"readings": own}})
    windows = [
        {name: row[name] for name in ("device_id", "window_start", "window_end", "count", "metrics")}
        for row in reversed(first["results"])
    ]
    status, answer = running.call("POST", "/score", {"model_name": "fleet", "data": {"windows": windows}})

    assert status == 200
    same(told(answer["results"]), {key: value for key, value in streamed.items() if key[0] == one})
    assert [row["window_end"] for row in answer["results"]] == [row["window_end"] for row in windows]


def test_tensors_of_readings_are_windowed_too(known: Known) -> None:
    _, running, streamed = known
    table = [row for row in readings().to_pylist() if row["device_id"] == "pump-0001"]
    metrics = [name for name in table[0] if name not in {"ts", "device_id"} and table[0][name] is not None]
    inputs = [{"name": "ts", "datatype": "INT64", "shape": [len(table)], "data": [row["ts"] for row in table]}]
    inputs += [
        {"name": name, "datatype": "FP64", "shape": [len(table), 1], "data": [row[name] for row in table]}
        for name in metrics
    ]
    status, answer = running.call("POST", "/v2/models/pump-0001/infer", {"inputs": inputs})
    found = {one["name"]: one["data"] for one in answer["outputs"]}

    assert status == 200
    same(
        {
            ("pump-0001", end): row
            for end, *row in zip(
                found["window_end"], found["decision"], found["score"], found["anomaly"], found["state"], strict=True
            )
        },
        {key: value for key, value in streamed.items() if key[0] == "pump-0001"},
    )
    assert len(found["feature"]) == 3 * len(found["decision"])


def test_a_device_without_a_model_is_learning(known: Known) -> None:
    _, running, _ = known
    reading = {"device_id": "nobody", "ts": 1_700_000_000_000, "values": {"x": 1.0}}
    _, answer = running.call("POST", "/score", {"model_name": "fleet", "data": {"readings": [reading]}})

    assert [one["state"] for one in answer["results"]] == ["learning"]
    assert answer["results"][0]["decision"] is None


def test_scores_without_values_become_columns() -> None:
    score = Score("a", "s", 0, 10, 1, {}, "learning")
    found = columns([msgspec.Raw(msgspec.json.encode(score))])

    assert np.isnan(found["decision"]).all()
    assert found["state"].tolist() == ["learning"]
    assert StreamSpec().window.size_ms > 0
