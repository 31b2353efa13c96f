"""The records of ``device.scores``, written by columns: what the contract would encode, object by object."""

from typing import Any, Literal

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.statistics import Statistics
from scorers.verdicts import Verdicts
from stream.contracts import Contributor, MetricStatistics, Score
from stream.score import Origin, score_bulk
from stream.texts import Texts
from stream.window import Closed

START = 1_700_000_000_000
DOUBLES = st.floats(-1e300, 1e300) | st.floats(-1e6, 1e6) | st.just(float("nan"))
CONFIDENCE = st.integers(0, 100).map(lambda percent: percent / 100) | st.just(float("nan"))
TEXT = st.text(max_size=6) | st.sampled_from(['say "so"', "back\\slash", "tab\t", "\x00\x1f", "pümp", "水"])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Closed, Verdicts, list[str]]:
    """Some closed windows, what the fleet says of them, and whose they are."""
    rows, metrics = draw(st.integers(0, 4)), tuple(draw(st.lists(TEXT, unique=True, max_size=3)))
    shape = rows, len(metrics)

    def doubles(*size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        count = int(np.prod(size))
        return np.array(draw(st.lists(DOUBLES, min_size=count, max_size=count)), np.float64).reshape(size)

    def integers(low: int, high: int, *size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        count = int(np.prod(size))
        numbers = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        return np.array(numbers, np.int64).reshape(size)

    start = START + 1_000 * integers(-5, 5, rows)
    statistics = Statistics(metrics, integers(0, 3, *shape), *(doubles(*shape) for _ in range(5)))
    names = tuple(draw(st.lists(TEXT, min_size=1, max_size=3, unique=True)))
    verdicts = Verdicts(
        scored=integers(0, 1, rows).astype(bool),
        decision=doubles(rows), score=doubles(rows), severity=doubles(rows),
        anomaly=integers(0, 1, rows).astype(bool),
        names=names,
        feature=integers(-1, len(names) - 1, rows, 2),
        share=doubles(rows, 2), actual=doubles(rows, 2), typical=doubles(rows, 2),
        lent=integers(0, 1, rows).astype(bool),
        confidence=np.array(draw(st.lists(CONFIDENCE, min_size=rows, max_size=rows)), np.float64),
    )  # fmt: skip
    closed = Closed(np.arange(rows), start, start + 10_000, integers(0, 9, rows), statistics)
    return closed, verdicts, draw(st.lists(TEXT, min_size=rows, max_size=rows))


def oracle(closed: Closed, verdicts: Verdicts, names: list[str], origin: Origin) -> list[bytes]:
    """What msgspec encodes of the contract's own objects."""
    encoded, block = [], closed.statistics
    for row, name in enumerate(names):
        metrics = {}
        for column, metric in enumerate(block.metrics):
            count = int(block.count[row, column])
            about: list[Any] = [
                float(part[row, column]) for part in (block.mean, block.std, block.min, block.max, block.last)
            ]
            about.append(float(block.mean[row, column] * count) if origin.sums else None)
            if count:
                metrics[metric] = MetricStatistics(count, *about)
        window = name, origin.source, int(closed.start[row]), int(closed.end[row]), int(closed.count[row]), metrics
        if not verdicts.scored[row]:
            encoded.append(msgspec.json.encode(Score(*window, "learning")))
            continue
        parts = verdicts.feature[row], verdicts.share[row], verdicts.actual[row], verdicts.typical[row]
        contributors = [
            Contributor(verdicts.names[feature], *numbers)
            for feature, *numbers in zip(*(part.tolist() for part in parts), strict=True)
            if feature >= 0
        ]
        judged = float(verdicts.decision[row]), float(verdicts.score[row]), float(verdicts.severity[row])
        verdict = *judged, bool(verdicts.anomaly[row]), contributors, origin.version
        whose: Literal["own", "type"] = "type" if verdicts.lent[row] else "own"
        score = Score(*window, "scored", *verdict, whose, float(verdicts.confidence[row]))
        encoded.append(msgspec.json.encode(score))
    return encoded


@settings(max_examples=300)
@given(windows(), st.booleans(), TEXT, TEXT)
def test_records_are_what_the_contract_encodes(
    made: tuple[Closed, Verdicts, list[str]], sums: bool, source: str, version: str
) -> None:
    closed, verdicts, names = made
    origin = Origin(source, sums, version)
    keys = [name.encode() for name in names]
    messages = list(score_bulk("device.scores", closed, verdicts, Texts.of(keys), origin))

    expected = [msgspec.json.decode(record) for record in oracle(closed, verdicts, names, origin)]
    assert [msgspec.json.decode(message.value) for message in messages] == expected
    assert [message.key for message in messages] == keys
    for message, name, start, end in zip(messages, names, closed.start.tolist(), closed.end.tolist(), strict=True):
        headers = dict(message.headers)
        assert headers["ce_id"] == f"{source}/{name}/{start}".encode()
        assert headers["ce_source"] == source.encode()
        assert headers["ce_time"] == b"%s.%03dZ" % (
            np.datetime64(end // 1000, "s").astype(str).encode(), end % 1000,
        )  # fmt: skip
