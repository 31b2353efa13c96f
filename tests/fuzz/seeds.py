"""What a target begins with: the contracts' records, whole, broken, and odd."""

import json
from collections.abc import Iterable, Iterator

import msgspec

from stream.contracts import Alert, Contributor, MetricStatistics, Score
from stream.sessions import LOADS
from tests.fuzz.targets import MARK, NOTHING, NOW, SEPARATOR

SESSION = {"ServerIP": "10.0.0.1", "SessionStart": NOW} | dict.fromkeys(LOADS, 1.5)
STATISTICS = MetricStatistics(3, 1.5, 0.5, 1.0, 2.0, 2.0)
SCORE = Score(
    "a", "t", NOW, NOW + 10_000, 3, {"x": STATISTICS}, "scored", 0.1, 50.0, 1.0, anomaly=True,
    contributors=[Contributor("x.mean", 0.5, 1.0, 2.0)], model_version="v1",
)  # fmt: skip
ALERT = Alert("1", "a", "t", "firing", NOW, NOW + 10_000, 51.0, 1.0, [])
PLAN = bytes([1, 9, 17, 40, 75, 8, 136])

WORDS = (
    "null", "true", "NaN", "-Infinity", "1e999", "1e-999", "-0", "1E100", "9223372036854775808", "\\ud800", "\\u0000",
    '"device_id":', '"ts":', '"values":', '"Device":', '"Sensor":', '"TS":', '"Value":', '"ServerIP":',
    '"SessionStart":', '"TotalLoad":', "2023-11-14T22:13:20Z", "0001-01-01T00:00:00+23:59", "1700000000000",
)  # fmt: skip
"""For libFuzzer's dictionary."""


def reading(device: str, second: float, **values: object) -> bytes:
    return json.dumps({"device_id": device, "ts": NOW + int(second * 1000), "values": values or {"x": 1.5}}).encode()


def session(second: float, **fields: object) -> bytes:
    return json.dumps(SESSION | {"SessionStart": NOW + int(second * 1000)} | fields).encode()


READINGS = (
    [reading("a", 1), reading("a", 2), reading("b", 3)],
    [reading("a", 1, x=1, y=2), reading("a", 13, y=None), NOTHING, b"", b"junk", reading("b", 90_000), reading("b", 2)],
    [b'{"TS":"2023-11-14T22:13:20Z","Device":1,"Sensor":5,"Value":1.2}', reading("a", 1), b"[" * 50],
    [reading("a", 1), MARK + str(NOW + 30_000).encode(), reading("a", 2), reading("a", 40)],
    [reading("key", 1), MARK + b'{"levels":{"x":2.5},"note":"n"}', reading("key", 20), MARK + b'{"revoke":true}'],
)
SESSIONS = (
    [session(1), session(2, TotalLoad=None), session(90_000)],
    [session(1), b'{"ServerIP":7}', NOTHING, session(2, TotalLoad="1")],
)
SINK = ([msgspec.json.encode(SCORE), msgspec.json.encode(ALERT)], [msgspec.json.encode(SCORE), b"", b"{}"])


def seeds(target: str) -> Iterator[bytes]:
    """Inputs for ``target``."""
    logs: dict[str, Iterable[list[bytes]]] = {
        "readings": READINGS,
        "sessions": SESSIONS,
        "stream": [[PLAN, *log] for log in READINGS],
        "sums": [[PLAN, *log] for log in SESSIONS],
        "sink": SINK,
    }
    yield from map(SEPARATOR.join, logs[target])
