"""Records of many readings: the same windows as of the same readings one by one, however they are packed."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.arrow import BatchEncoder
from stream.contracts import Reason
from stream.partition import Partition, StreamSpec
from stream.rejects import WHOLE
from stream.state import DeviceState, PartitionState, recall
from stream.window import WindowSpec
from tests.flow.test_partition import (
    BASE,
    FATES,
    LENGTHS,
    SOURCE,
    STREAMS,
    TOPICS,
    TUMBLING,
    WINDOWS,
    Out,
    end_of,
    forever,
    life,
    log,
    reading,
    run,
    run_with_crashes,
    spec,
)
from tidewatch.rejects import Id

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=9)


def packed(*readings: bytes) -> bytes:
    """One record of JSON readings."""
    rows = [json.loads(one) for one in readings]
    names = list(dict.fromkeys(chain.from_iterable(row["values"] for row in rows)))
    cells = [[row["values"].get(name, np.nan) for name in names] for row in rows]
    ts = np.array([row["ts"] for row in rows], np.int64)
    matrix = np.array(cells, np.float64).reshape(len(rows), len(names))
    return BatchEncoder(names).encode([row["device_id"] for row in rows], ts, matrix)


def pack(stream: Sequence[bytes], sizes: Iterator[int]) -> list[bytes]:
    """So many of the next readings in one record, 0: one as JSON; what is no reading stays as it is."""
    out: list[bytes] = []
    some: list[bytes] = []
    size = next(sizes)
    for value in stream:
        if not value.startswith(b"{") or size == 0:
            out += [*([packed(*some)] if some else []), value]
            some, size = [], next(sizes)
            continue
        some.append(value)
        if len(some) >= size:
            out.append(packed(*some))
            some, size = [], next(sizes)
    return out + ([packed(*some)] if some else [])


def refused(out: Out) -> Counter[tuple[str, str]]:
    """How often each reading, or whole record, was refused for each reason."""
    found = [(m.value, dict(m.headers)["tw_reason"].decode()) for m in out.messages if m.topic == TOPICS.rejects]
    return Counter((repr(plain(value) if value[:1] == b"{" else value), reason) for value, reason in found)


def plain(value: bytes) -> tuple[str, int, list[tuple[str, float]]]:
    """What a reading says."""
    told = json.loads(value)
    return told["device_id"], told["ts"], sorted((name, float(number)) for name, number in told["values"].items())


def places(out: Out) -> list[tuple[int, int, str]]:
    """Offset, part and reason of every reject."""
    headers = [dict(m.headers) for m in out.messages if m.topic == TOPICS.rejects]
    told = [(Id.parse(h["ce_id"].decode()), h["tw_reason"].decode()) for h in headers]
    return sorted((origin.offset, origin.part, reason) for origin, reason in told)


@settings(max_examples=150)
@given(stream=STREAMS, sizes=SIZES, lengths=LENGTHS, window=WINDOWS)
def test_any_packing_gives_the_same_windows_to_the_last_bit(
    stream: list[bytes], sizes: list[int], lengths: list[int], window: WindowSpec
) -> None:
    singles = run(end_of(stream), spec(window))
    batches = run(end_of(pack(stream, forever(sizes, 3))), large(spec(window)), forever(lengths, 1))

    assert batches.scores == singles.scores
    assert refused(batches) == refused(singles)


@settings(max_examples=300)
@given(stream=STREAMS, sizes=SIZES, lengths=LENGTHS, fates=FATES, window=WINDOWS)
def test_any_restart_gives_the_same_windows_of_any_packing(
    stream: list[bytes], sizes: list[int], lengths: list[int], fates: list[str], window: WindowSpec
) -> None:
    recording, how = end_of(pack(stream, forever(sizes, 3))), large(spec(window))
    whole = run(recording, how)
    broken = run_with_crashes(recording, how, forever(lengths, 2), forever(fates, "commit"))

    assert broken.scores == whole.scores
    assert places(broken) == places(whole)


def large(how: Any) -> Any:
    """The same with room for batches."""
    return replace(how, limits=replace(how.limits, max_bytes=100_000))


@pytest.mark.parametrize("seed", range(100))
def test_a_long_life_is_the_same_in_any_packing_and_through_any_crash(seed: int) -> None:
    random = Random(seed)
    stream = list(life(random))
    how = large(spec(random.choice([TUMBLING, WindowSpec(10_000, 3_000, 0, 15_000)])))
    recording = end_of(pack(stream, iter(lambda: random.randint(0, 20), -1)))
    singles = run(end_of(stream), how)
    lengths = iter(lambda: random.randint(1, 6), 0)
    fates = iter(lambda: random.choice(["go", "commit", "commit", "crash"]), "")

    whole = run(recording, how)
    assert (whole.scores, refused(whole)) == (singles.scores, refused(singles))
    for other in (run(recording, how, lengths), run_with_crashes(recording, how, lengths, fates)):
        assert other.scores == whole.scores
        assert places(other) == places(whole)


# --- one of many -------------------------------------------------------------------------------


def test_a_reading_refused_of_a_batch_is_kept_alone_as_json() -> None:
    batch = packed(reading("a", 1), reading("b", 1, x=np.inf), reading("a", 1), reading("b", 2))
    out = run(log([reading("a", 0), batch]), large(spec()))
    empty, again = (message for message in out.messages if message.topic == TOPICS.rejects)
    told = dict(again.headers)

    assert json.loads(empty.value) == {"device_id": "b", "ts": BASE + 1_000, "values": {}}
    assert json.loads(again.value) == json.loads(reading("a", 1))
    assert (again.key, told["tw_reason"]) == (b"key", b"duplicate")
    assert (told["ce_id"], dict(empty.headers)["ce_id"]) == (b"sensor.readings/0/1/2", b"sensor.readings/0/1/1")


def test_a_reject_of_a_batch_is_taken_in_once_what_was_wrong_is_put_right() -> None:
    crowded = packed(reading("a", 1, p=1, q=1, r=1, s=1, t=1), reading("a", 2, p=1))
    (reject,) = (m for m in run(log([crowded]), large(spec())).messages if m.topic == TOPICS.rejects)
    scores = run(end_of([reject.value]), StreamSpec()).scores

    assert set(scores[("a", 0)].metrics) == set("pqrst")


def test_a_batch_that_cannot_be_read_is_kept_as_it_came() -> None:
    broken = packed(reading("a", 1))[:-1]
    (reject,) = run(log([broken]), large(spec())).messages

    assert (reject.value, dict(reject.headers)["ce_id"]) == (broken, b"sensor.readings/0/0")


def test_readings_are_counted_and_not_records() -> None:
    partition = Partition(SOURCE, 0, large(spec()), TOPICS)
    partition.feed(log([packed(reading("a", 1), reading("a", 1), reading("b", 1)), b"junk", reading("a", 2)]))

    assert partition.counts["readings"] == 5
    assert partition.counts["rejects"] == 2


def test_one_of_many_is_held_alone_and_remembered_by_its_part() -> None:
    partition = Partition(SOURCE, 0, large(spec()), TOPICS)
    partition.feed(log([packed(reading("a", 1), reading("b", 86_400, x=7), reading("a", 2))]))
    memory = recall(partition.scope, 0, [(m.key or b"", m.value) for m in partition.checkpoint()])
    held = memory.devices["b"].held

    assert held is not None
    assert (held.offset, held.part, json.loads(held.value)["values"]) == (0, 1, {"x": 7})


def test_what_was_refused_of_many_stays_refused_and_the_others_count_again() -> None:
    # b's 86,400 is refuted by its next reading; a's window needs the record again
    values = [packed(reading("a", 1), reading("b", 86_400), reading("b", 2)), reading("a", 3), reading("a", 4)]
    whole = run(end_of(values, 50), large(spec()))
    fates = forever(["commit", "crash"], "go")
    broken = run_with_crashes(end_of(values, 50), large(spec()), forever([1, 1], 9), fates)

    assert whole.counts() == {("a", 0): 3, ("b", 0): 1}
    assert broken.scores == whole.scores
    assert places(broken) == places(whole) == [(0, 1, Reason.FUTURE)]


def test_a_checkpoint_of_before_there_were_batches_is_read() -> None:
    held = b'{"offset": 3, "timestamp": 1, "key": null, "value": "e30=", "ts": 5}'
    device = msgspec.json.decode(b'{"clock": 1, "closed": 2, "held": %s}' % held, type=DeviceState)
    whole = b'{"next_offset": 9, "clock": 1, "floor": 3, "floor_clock": 0, "excluded": [4, 5]}'

    assert device.held is not None
    assert device.held.part == WHOLE
    assert msgspec.json.decode(whole, type=PartitionState).excluded == [4, 5]
