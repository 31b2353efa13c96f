"""Records become rows with every value in its column."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sinks.base import Batch, Source
from sinks.decode import ALERTS, SCORES, Decoded, decode
from sinks.table import PREDICTIONS, REJECTS, STATISTICS, by_date, concat, tables
from stream.contracts import Score
from tests.laws.sink_kit import HOUR, NOON, encoded, score

SOURCE = Source("device.scores", 3)


def taken(*values: bytes, first: int = 100) -> Decoded[Score]:
    return decode(Batch(SOURCE, range(first, first + len(values)), values), SCORES)


def test_a_score_is_one_prediction() -> None:
    (row,) = tables(SOURCE, taken(*encoded([score(value=1.5)]))).predictions.to_pylist()

    assert row == {
        "device_id": "pump-1",
        "source": "sensors",
        "window_start": datetime(2023, 11, 15, 12, tzinfo=UTC),
        "window_end": datetime(2023, 11, 15, 13, tzinfo=UTC),
        "count": 61,
        "state": "scored",
        "decision": -1.5,
        "score": 51.5,
        "severity": 1.5,
        "anomaly": True,
        "contributors": [
            {"feature": "temperature.mean", "share": 0.75, "actual": 1.5, "typical": 1.0},
            {"feature": "load.std", "share": 0.25, "actual": None, "typical": 0.5},
        ],
        "model_version": "v1",
        "kafka_partition": 3,
        "kafka_offset": 100,
        "model": "type",
        "confidence": 0.75,
    }


def test_a_learning_device_has_no_verdict() -> None:
    (row,) = tables(SOURCE, taken(*encoded([score(scored=False)]))).predictions.to_pylist()

    assert {row[name] for name in ("decision", "score", "severity", "model_version")} == {None}
    assert (row["state"], row["anomaly"], row["contributors"]) == ("learning", False, [])


def test_each_metric_is_one_row_of_statistics() -> None:
    temperature, load = tables(SOURCE, taken(*encoded([score(value=1.5)]))).statistics.to_pylist()

    assert (temperature["metric"], load["metric"]) == ("temperature", "load")
    assert (temperature["device_id"], temperature["kafka_offset"]) == ("pump-1", 100)
    assert [load[name] for name in ("count", "mean", "median", "std", "min", "max", "last")] == [
        1, 0.5, None, None, 2.0, 2.0, 2.0,
    ]  # fmt: skip


def test_the_sum_is_the_records_own_or_mean_times_count() -> None:
    statistics = tables(SOURCE, taken(*encoded([score(value=1.5)]))).statistics

    assert statistics["sum"].to_pylist() == [90.0, 7.5]


def test_schemas_are_the_same_with_and_without_rows() -> None:
    for found in (tables(SOURCE, taken()), tables(SOURCE, taken(*encoded([score()]), b"junk"))):
        assert (found.predictions.schema, found.statistics.schema, found.rejects.schema) == (
            PREDICTIONS,
            STATISTICS,
            REJECTS,
        )


def test_any_batching_gives_the_same_tables() -> None:
    values = [*encoded([score(hour=hour) for hour in range(5)]), b"junk"]
    whole = tables(SOURCE, taken(*values))
    parts = concat([tables(SOURCE, taken(value, first=100 + row)) for row, value in enumerate(values)])

    assert parts == whole
    assert whole.rows == 5 + 10 + 1


def test_rows_are_cut_by_the_date_their_window_starts() -> None:
    predictions = tables(SOURCE, taken(*encoded([score(hour=hour) for hour in (12, -13, 11, 0)]))).predictions
    cut = {date: part["kafka_offset"].to_pylist() for date, part in by_date(predictions)}

    assert cut == {"2023-11-14": [101], "2023-11-15": [102, 103], "2023-11-16": [100]}


def test_a_window_before_1970_has_a_date() -> None:
    early = msgspec.structs.replace(score(), window_start=-1, window_end=HOUR)
    ((date, _),) = by_date(tables(SOURCE, taken(*encoded([early]))).predictions)

    assert date == "1969-12-31"


GOOD = score()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"NaN",
        b"\xff",
        b'{"a":' * 5000,
        msgspec.json.encode(msgspec.structs.replace(GOOD, device_id=7)),
        msgspec.json.encode(msgspec.structs.replace(GOOD, window_start=NOON * 1000)),
        msgspec.json.encode(msgspec.structs.replace(GOOD, count=2**63)),
        msgspec.json.encode(msgspec.structs.replace(GOOD, count=-1)),
        msgspec.json.encode(GOOD).replace(b"1.5", b"1e999"),
        msgspec.json.encode(GOOD).replace(b"pump-1", b"\\ud800"),
        msgspec.json.encode(GOOD).replace(b'"count":60', b'"count":9223372036854775808'),
    ],
    ids=[
        "empty", "cut", "list", "NaN", "no UTF-8", "too deep", "type", "microseconds", "count too large",
        "count negative", "number too large", "half a character", "metric count too large",
    ],
)  # fmt: skip
def test_what_is_no_score_is_kept_aside(value: bytes) -> None:
    good = msgspec.json.encode(GOOD)
    decoded = taken(good, value, good)

    assert (len(decoded.records), list(decoded.offsets)) == (2, [100, 102])
    assert [(reject.offset, reject.value) for reject in decoded.rejects] == [(101, value)]
    assert tables(SOURCE, decoded).rows == 2 + 4 + 1


def test_many_rejects_are_logged_in_short(caplog: pytest.LogCaptureFixture) -> None:
    taken(*[b"junk"] * 100)

    assert len(caplog.messages) == 6
    assert caplog.messages[0].startswith("device.scores/3 offset 100 keeps no contract: ")
    assert caplog.messages[-1] == "device.scores/3: 95 more records up to offset 199 keep none"


def test_an_alert_at_no_date_is_no_alert() -> None:
    value: Any = b'{"alert_id":"a","device_id":"d","source":"s","state":"firing","since":0,"at":99999999999999,'
    decoded = decode(Batch(SOURCE, [0], [value + b'"score":1,"severity":1,"contributors":[]}']), ALERTS)

    assert len(decoded.rejects) == 1
