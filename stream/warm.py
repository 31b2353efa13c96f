"""Everything compiled before the first record comes: seconds the first time ever, an instant later."""

from typing import Any

import numpy as np

from scorers.fleet import Fleet
from scorers.statistics import BLOCKS, Statistics
from stream.contracts import Topics
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.unpack import RecordBatch, unpack

_NOW = 1_700_000_000_000
_DEEP = b"[" * 500
_READING = b'{"device_id":"a","ts":%d,"values":{"x":%s}}'


def warm() -> None:
    """Let a record of brackets and two readings, one of them in many digits, go through the core."""
    values = [_DEEP, _READING % (_NOW, b"1.5"), _READING % (_NOW + 1, b"0.12345678901234567")]
    bodies = [b"\0\0" + bytes([2 * row, 1]) + _varint(len(value)) + value + b"\0" for row, value in enumerate(values)]
    body = b"".join(_varint(len(each)) + each for each in bodies)
    run = unpack("warm", 0, [RecordBatch(0, 3, 0, _NOW, _NOW, -1, 3, memoryview(body))])
    core = Partition(Source("warm", READINGS), 0, StreamSpec(), Topics())
    core.feed(run)


def warm_fleet(fleet: Fleet) -> None:
    """Score a window that holds nothing."""
    if len(fleet):
        metrics = fleet.groups[0].metrics
        blank: Any = {name: np.zeros((1, len(metrics)), np.int64 if name == "count" else np.float64) for name in BLOCKS}
        fleet.score(np.zeros(1, np.int64), Statistics(metrics, **blank))


def _varint(number: int) -> bytes:
    """Zigzag, as Kafka writes lengths."""
    left, out = number << 1, bytearray()
    while left > 0x7F:  # noqa: PLR2004 - what fits seven bits
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])
