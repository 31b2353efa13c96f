"""Everything compiled before the first record comes: seconds the first time ever, an instant later."""

from typing import Any

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from scorers.fleet import Fleet
from scorers.follow import FollowSpec
from scorers.statistics import BLOCKS, Statistics
from stream.contracts import Topics
from stream.message import Message
from stream.partition import Partition, Source, StreamSpec
from stream.producer import BatchProducer, Load
from stream.readings import READINGS
from stream.unpack import batches, unpack

_NOW = 1_700_000_000_000
_DEEP = b'{"a":' * 250
_LEAP_MS = 5 * 60 * 1000
_READING = b'{"device_id":"a","ts":%d,"values":{"x":%s}}'


def warm() -> None:
    """Let brackets and readings, one in many digits and one far ahead, go through the core and out; close a window."""
    readings = (_NOW, b"1.5"), (_NOW + 1, b"0.12345678901234567"), (_NOW + _LEAP_MS, b"1.5")
    values = [_DEEP, *(_READING % reading for reading in readings)]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1_000_000)
    for row, value in enumerate(values):
        builder.append(row, _NOW, None, value, [])
    whole = list(batches(memoryview(bytes(builder.build())), lambda data: calc_crc32c(bytes(data))))
    run = unpack("warm", 0, whole)
    core = Partition(Source("warm", READINGS), 0, StreamSpec(follow=FollowSpec(overlap=2)), Topics())
    nowhere = BatchProducer({"log_level": 0}, lambda _: None)
    nowhere.enqueue(Load([Message("warm", None, b"")]))
    nowhere.purge()
    core.feed(run)
    core.hush(_LEAP_MS)


def warm_fleet(fleet: Fleet) -> None:
    """Score a window that holds nothing."""
    if len(fleet):
        metrics = fleet.groups[0].metrics
        blank: Any = {name: np.zeros((1, len(metrics)), np.int64 if name == "count" else np.float64) for name in BLOCKS}
        fleet.score(np.zeros(1, np.int64), Statistics(metrics, **blank))
