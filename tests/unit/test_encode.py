"""What goes out: records by their contract, and the CloudEvents headers that say what they are."""

from datetime import datetime

import msgspec
import numpy as np
import pytest

from scorers.fleet import Fleet
from scorers.statistics import Statistics
from scorers.verdicts import Verdicts
from stream.contracts import Alert, MetricStatistics, Reason, Score
from stream.encode import alert_message, reject_messages
from stream.message import Message
from stream.records import Records
from stream.rejects import Rejects
from stream.score import Origin, score_bulk
from stream.texts import Texts
from stream.window import Closed

START = 1_700_000_000_000
NAN = float("nan")
CLOSED = Closed(
    device=np.array([0, 1]),
    start=np.array([START, START]),
    end=np.array([START + 10_000, START + 10_000]),
    count=np.array([3, 1]),
    statistics=Statistics(
        ("x", "y"),
        count=np.array([[3, 1], [0, 1]]),
        mean=np.array([[2.0, 7.0], [NAN, 8.0]]),
        std=np.array([[1.0, NAN], [NAN, NAN]]),
        min=np.array([[1.0, 7.0], [NAN, 8.0]]),
        max=np.array([[3.0, 7.0], [NAN, 8.0]]),
        last=np.array([[2.5, 7.0], [NAN, 8.0]]),
    ),
)
SCORED = Verdicts(
    scored=np.array([True, False]),
    decision=np.array([-0.5, NAN]),
    score=np.array([81.0, NAN]),
    severity=np.array([4.0, NAN]),
    anomaly=np.array([True, False]),
    names=("x.mean", "y.mean"),
    feature=np.array([[1, 0], [-1, -1]]),
    share=np.array([[0.75, 0.25], [NAN, NAN]]),
    actual=np.array([[NAN, 2.0], [NAN, NAN]]),
    typical=np.array([[6.5, 2.0], [NAN, NAN]]),
    lent=np.array([True, False]),
    confidence=np.array([0.875, NAN]),
)
ALERT = Alert("t/a/1", "a", "t", "firing", START, START + 10_000, 81.0, 4.0, [])


def sent(*, sums: bool = False) -> list[Message]:
    return list(score_bulk("device.scores", CLOSED, SCORED, Texts.of([b"a", b"b"]), Origin("t", sums, "v7")))


def told(*, sums: bool = False) -> list[Score]:
    return [msgspec.json.decode(message.value, type=Score) for message in sent(sums=sums)]


def headers(message: Message) -> dict[str, str]:
    names = [name for name, _ in message.headers]
    assert len(names) == len(set(names))
    return {name: value.decode() for name, value in message.headers}


def rejected(value: bytes | None, key: bytes | None = b"k", arrival: int = START, detail: str = "why") -> Message:
    records = Records("in", 3, np.array([41, 42]), np.array([0, arrival]), [None, key], [b"", value], [(), ()])
    (message,) = reject_messages("rejects", records, Rejects.of(np.array([1]), [(Reason.MALFORMED, detail)]))
    return message


def test_a_scored_window_tells_its_verdict_and_its_statistics() -> None:
    scored, _ = told()

    assert (scored.state, scored.anomaly, scored.decision, scored.score, scored.severity) == (
        "scored", True, -0.5, 81.0, 4.0,
    )  # fmt: skip
    assert (scored.device_id, scored.source, scored.window_start, scored.window_end) == (
        "a",
        "t",
        START,
        START + 10_000,
    )
    assert scored.count == 3
    assert scored.metrics == {
        "x": MetricStatistics(3, 2.0, 1.0, 1.0, 3.0, 2.5),
        "y": MetricStatistics(1, 7.0, None, 7.0, 7.0, 7.0),
    }
    assert scored.model_version == "v7"


def test_contributors_come_in_order_and_an_absent_feature_has_no_actual() -> None:
    scored, _ = told()

    assert [(c.feature, c.share, c.actual, c.typical) for c in scored.contributors] == [
        ("y.mean", 0.75, None, 6.5),
        ("x.mean", 0.25, 2.0, 2.0),
    ]


def test_a_device_without_a_model_is_learning_and_has_no_verdict() -> None:
    _, learning = told()
    verdict = (learning.decision, learning.score, learning.severity, learning.model_version)

    assert (learning.state, learning.anomaly, learning.contributors) == ("learning", False, [])
    assert verdict == (None, None, None, None)


def test_a_metric_without_a_reading_is_left_out() -> None:
    _, learning = told()

    assert list(learning.metrics) == ["y"]


def test_sums_are_told_only_where_windows_sum() -> None:
    plain, summed = told()[0], told(sums=True)[0]

    assert b"sum" not in msgspec.json.encode(plain)
    assert summed.metrics["x"].sum == pytest.approx(6.0)


def test_a_score_is_keyed_by_its_device() -> None:
    placed = [(message.topic, message.key, message.partition) for message in sent()]

    assert placed == [("device.scores", b"a", -1), ("device.scores", b"b", -1)]


@pytest.mark.parametrize(
    ("message", "kind", "identity"),
    [
        (sent()[0], "io.tidewatch.score.v1", f"t/a/{START}"),
        (alert_message("o", ALERT), "io.tidewatch.alert.v1", "t/a/1/firing"),
        (rejected(b"junk"), "io.tidewatch.reject.v1", "in/3/42"),
    ],
    ids=["score", "alert", "reject"],
)
def test_every_output_is_a_cloud_event(message: Message, kind: str, identity: str) -> None:
    told_by = headers(message)

    assert (told_by["ce_specversion"], told_by["ce_type"], told_by["ce_id"]) == ("1.0", kind, identity)
    assert told_by["ce_source"] == ("in" if "reject" in kind else "t")
    assert "reject" in kind or datetime.fromisoformat(told_by["ce_time"]).utcoffset() is not None


def test_json_says_so_and_a_reject_claims_nothing() -> None:
    assert headers(sent()[0])["content-type"] == "application/json"
    assert headers(alert_message("o", ALERT))["content-type"] == "application/json"
    assert "content-type" not in headers(rejected(b"junk"))


def test_the_time_of_an_event_is_the_end_of_its_window() -> None:
    assert headers(sent()[0])["ce_time"] == "2023-11-14T22:13:30.000Z"
    assert headers(alert_message("o", ALERT))["ce_time"] == "2023-11-14T22:13:30.000Z"


def test_a_reject_keeps_its_bytes_and_key_and_says_where_it_came_from_and_why() -> None:
    message = rejected(b"\xff\x00junk")
    found = {name: value for name, value in headers(message).items() if name.startswith("tw_")}

    assert (message.topic, message.key, message.value) == ("rejects", b"k", b"\xff\x00junk")
    assert found == {"tw_reason": "malformed", "tw_detail": "why", "tw_timestamp": str(START)}


@pytest.mark.parametrize(("value", "key", "arrival", "detail"), [(None, None, -1, ""), (b"x", b"", 0, "\ud800 ü")])
def test_the_oddest_record_can_be_rejected(value: bytes | None, key: bytes | None, arrival: int, detail: str) -> None:
    message = rejected(value, key, arrival, detail)

    assert (message.key, message.value) == (key, value or b"")
    assert headers(message)["tw_timestamp"] == str(arrival)


def test_an_empty_fleet_scores_nothing() -> None:
    verdicts = Fleet.empty().score(np.array([-1, -1]), CLOSED.statistics)
    found = score_bulk("device.scores", CLOSED, verdicts, Texts.of([b"a", b"b"]), Origin("t", False, ""))

    assert [msgspec.json.decode(message.value, type=Score).state for message in found] == ["learning", "learning"]
