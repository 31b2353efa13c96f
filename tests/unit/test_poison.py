"""The kinds of poison that the bench sends: each is rejected for the reason it is there for."""

from collections import Counter

import numpy as np
import pytest

from bench.kinds import KINDS, Kind
from bench.poison import plan
from stream.app import sources
from stream.contracts import Reason, Topics
from stream.message import Message, singly
from stream.partition import Partition, StreamSpec
from stream.records import Records

NOW = 1_700_000_000_000
GOOD = b'{"device_id":"device-00001","ts":%d,"values":{"metric_00":1.5}}'


def fed(*values: bytes | None) -> list[Message]:
    """The rejects of a partition of ``device-00001``."""
    topics, count = Topics(), len(values)
    records = Records(
        topics.readings, 0, np.arange(count), np.full(count, NOW), [b"device-00001"] * count, list(values), [()] * count
    )
    messages = singly(Partition(sources(topics)[0], 0, StreamSpec(), topics).feed(records))
    return [message for message in messages if message.topic == topics.rejects]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_poison_is_rejected_for_its_reason(kind: Kind) -> None:
    before, after = GOOD % NOW, GOOD % (NOW + 1_000)
    value = kind.make("device-00001", NOW + 500, before)
    (reject,) = fed(before, value, after)

    assert dict(reject.headers)["tw_reason"].decode() == kind.reason
    assert reject.value == (value or b"")


def test_there_are_fifty_kinds_and_every_reason() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 50
    assert {kind.reason for kind in KINDS} == set(Reason) - {Reason.NOT_ACCEPTED}  # of an operator's word, no reading


def test_a_plan_has_as_many_of_each_kind_but_fewer_large_ones() -> None:
    kinds = Counter(plan(100_000, 1).tolist())

    assert sum(kinds.values()) == 100_000
    assert len(kinds) == len(KINDS)
    assert kinds[0] > 1_600
    assert kinds[2] == 100_000 * 40 // 300_000
