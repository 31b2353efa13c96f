"""The stream's core, bytes in, bytes out: windows by an oracle, and by any batching or restart the same."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.contracts import Reason, Score, Topics
from stream.decode import Limits
from stream.message import Message, singly
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import PUNCTUATION, Headers, Records
from stream.window import WindowSpec
from tests.lives import committed, cuts
from tidewatch.rejects import Id

TOPICS = Topics()
SOURCE = Source(TOPICS.readings, READINGS)
BASE = 1_700_000_000_000
ARRIVAL = BASE + 400_000_000
TUMBLING = WindowSpec(size_ms=10_000, hop_ms=10_000, grace_ms=2_000, idle_ms=30_000)
HOPPING = WindowSpec(size_ms=10_000, hop_ms=3_000, grace_ms=0, idle_ms=15_000)


def spec(window: WindowSpec = TUMBLING, **changes: Any) -> StreamSpec:
    return StreamSpec(window=window, limits=Limits(max_bytes=2_000, max_metrics=4), **changes)


def reading(device: str, second: float, **values: float) -> bytes:
    return json.dumps(
        {"device_id": device, "ts": BASE + int(second * 1000), "values": values or {"x": second}}
    ).encode()


def log(values: Sequence[bytes | None], headers: Sequence[Headers] | None = None) -> Records:
    count = len(values)
    whole = np.arange(count)
    arrival = np.full(count, ARRIVAL)
    return Records(SOURCE.topic, 0, whole, arrival, [b"key"] * count, list(values), list(headers or [()] * count))


def end_of(recording: Sequence[bytes | None], second: float = 10_000) -> Records:
    mark = str(BASE + int(second * 1000)).encode()
    return log([*recording, None], [*[()] * len(recording), [(PUNCTUATION, mark)]])


@dataclass
class Out:
    """What came out, by topic."""

    messages: list[Message] = field(default_factory=list)

    @property
    def scores(self) -> dict[tuple[str, int], Score]:
        found = [msgspec.json.decode(m.value, type=Score) for m in self.messages if m.topic == TOPICS.scores]
        keyed = {(score.device_id, score.window_start - BASE): score for score in found}
        assert len(keyed) == len(found), "a window came out twice"
        return keyed

    @property
    def rejects(self) -> list[tuple[int, str]]:
        headers = [dict(m.headers) for m in self.messages if m.topic == TOPICS.rejects]
        return sorted((Id.parse(h["ce_id"].decode()).offset, h["tw_reason"].decode()) for h in headers)

    def counts(self) -> dict[tuple[str, int], int]:
        return {key: score.count for key, score in self.scores.items()}


def run(records: Records, how: StreamSpec, lengths: Iterator[int] | None = None) -> Out:
    partition, out = Partition(SOURCE, 0, how, TOPICS), Out()
    for batch in cuts(records, lengths or iter([len(records)] * len(records))):
        out.messages += singly(partition.feed(batch))
    return out


def run_with_crashes(records: Records, how: StreamSpec, lengths: Iterator[int], fates: Iterator[str]) -> Out:
    """Feed batch by batch; an epoch may be committed after any, a crash may follow any."""
    return Out(committed(lambda: Partition(SOURCE, 0, how, TOPICS), records, lengths, fates))


# --- windows in the plain ----------------------------------------------------------------------


def test_a_window_closes_once_its_devices_clock_has_passed_end_and_grace() -> None:
    # seconds  0         10  12
    #          |--- w0 ---|gr|
    #           1  5  9      12
    before = run(log([reading("a", s) for s in (1, 5, 9, 11.9)]), spec())
    after = run(log([reading("a", s) for s in (1, 5, 9, 12)]), spec())

    assert before.counts() == {}
    assert after.counts() == {("a", 0): 3}


def test_a_straggler_within_grace_counts_and_one_after_it_is_rejected_as_late() -> None:
    # log order 1  11  9  12  8
    out = run(log([reading("a", s) for s in (1, 11, 9, 12, 8)]), spec())

    assert out.counts() == {("a", 0): 2}
    assert out.rejects == [(4, Reason.LATE)]


def test_a_quiet_device_closes_on_the_partitions_clock() -> None:
    # a  1
    # b     2 .. 40 (a's window ended at 10; idle 30 s has passed at 40)
    out = run(log([reading("a", 1), *(reading("b", s) for s in range(2, 41))]), spec())

    assert out.counts()[("a", 0)] == 1


def test_a_device_that_lags_but_speaks_keeps_its_windows() -> None:
    ahead, behind = [], []
    for s in range(100):
        ahead.append(reading("ahead", 1_000 + s))
        behind.append(reading("behind", s))
    out = run(log([value for pair in zip(ahead, behind, strict=True) for value in pair]), spec())

    assert [out.counts()[("behind", w * 10_000)] for w in range(8)] == [10] * 8
    assert out.rejects == []


def test_silence_of_the_whole_partition_closes_as_its_clock_would() -> None:
    partition = Partition(SOURCE, 0, spec(), TOPICS)
    partition.feed(log([reading("a", s) for s in (1, 5)]))

    assert partition.hush(34_999) == []
    assert Out([*singly(partition.hush(35_000))]).counts() == {("a", 0): 2}


def test_the_end_of_a_recording_closes_everything() -> None:
    out = run(end_of([reading("a", 1), reading("b", 700)]), spec())

    assert out.counts() == {("a", 0): 1, ("b", 700_000): 1}


def test_hopping_windows_overlap_by_their_hop() -> None:
    # hop 3, size 10: the reading at 10 lies in [3,13) [6,16) [9,19)
    out = run(end_of([reading("a", 10)]), spec(HOPPING))

    starts = sorted((start + BASE) % 3_000 for _, start in out.counts())
    assert len(starts) in {3, 4}
    assert set(starts) == {0}


def test_metrics_may_differ_by_device_and_appear_later() -> None:
    recording = [reading("a", 1, x=1.0), reading("b", 1, y=2.0), reading("a", 2, x=3.0, z=5.0), reading("a", 3, z=7.0)]
    scores = run(end_of(recording), spec()).scores

    a = scores[("a", 0)]
    assert {name: (m.count, m.mean) for name, m in a.metrics.items()} == {"x": (2, 2.0), "z": (2, 6.0)}
    assert a.count == 3
    assert set(scores[("b", 0)].metrics) == {"y"}


def test_one_metric_too_many_is_rejected_and_the_device_goes_on() -> None:
    recording = [reading("a", 1, p=1, q=1, r=1, s=1), reading("a", 2, t=1), reading("a", 3, p=2)]
    out = run(end_of(recording), spec())

    assert out.rejects == [(1, Reason.TOO_MANY_METRICS)]
    assert out.counts() == {("a", 0): 2}


def test_who_comes_first_has_the_room_in_any_batching() -> None:
    # b's shape is known before a's, but a's first reading comes before a sends that shape
    recording = [reading("b", 1, x=0, y=0), reading("a", 1, u=1, v=1, w=1), reading("a", 2, x=0, y=0)]
    whole = run(end_of(recording), spec())
    parts = run(end_of(recording), spec(), forever([], 1))

    assert whole.rejects == parts.rejects == [(2, Reason.TOO_MANY_METRICS)]


# --- what must not disturb ---------------------------------------------------------------------


def test_one_reading_from_the_future_closes_nothing_and_is_rejected() -> None:
    recording = [reading("a", 1), reading("a", 86_400), reading("a", 2), reading("a", 9)]
    out = run(end_of(recording, 50), spec())

    assert out.counts() == {("a", 0): 3}
    assert out.rejects == [(1, Reason.FUTURE)]


def test_a_first_reading_from_the_future_is_rejected_too() -> None:
    out = run(end_of([reading("a", 86_400), reading("a", 1), reading("a", 2)], 50), spec())

    assert out.counts() == {("a", 0): 2}
    assert out.rejects == [(0, Reason.FUTURE)]


def test_a_gap_that_the_next_reading_confirms_loses_nothing() -> None:
    out = run(end_of([reading("a", s) for s in (1, 2, 5_000, 5_001)]), spec())

    assert out.counts() == {("a", 0): 2, ("a", 5_000_000): 2}
    assert out.rejects == []


def test_a_repeated_reading_counts_once() -> None:
    out = run(end_of([reading("a", 1), reading("a", 2), reading("a", 1), reading("a", 2)]), spec())

    assert out.counts() == {("a", 0): 2}
    assert out.rejects == [(2, Reason.DUPLICATE), (3, Reason.DUPLICATE)]


def test_two_metrics_of_one_moment_in_two_readings_are_no_repetition() -> None:
    out = run(end_of([reading("a", 1, x=1), reading("a", 1, y=1)]), spec())

    assert out.counts() == {("a", 0): 2}


def test_repetitions_count_where_dedupe_is_off() -> None:
    out = run(end_of([reading("a", 1), reading("a", 1)]), spec(dedupe=False))

    assert out.counts() == {("a", 0): 2}


BAD = {
    b"": Reason.EMPTY,
    b"junk": Reason.MALFORMED,
    b"[1, 2]": Reason.MALFORMED,
    b'{"device_id": "a", "ts": 1700000001000, "values": {"x": NaN}}': Reason.NOT_FINITE,
    b'{"device_id": "a", "ts": 1700000001000, "values": {"x": 1e999}}': Reason.NOT_FINITE,
    b'{"device_id": "a", "ts": 1700000001000, "values": {"x": 1e120}}': Reason.NOT_FINITE,
    b'{"device_id": "a", "ts": 1700000001000, "values": {"x": "7"}}': Reason.WRONG_TYPE,
    b'{"device_id": 7, "ts": 1700000001000, "values": {"x": 7}}': Reason.WRONG_TYPE,
    b'{"ts": 1700000001000, "values": {"x": 7}}': Reason.MISSING_FIELD,
    b'{"device_id": "a", "values": {"x": 7}}': Reason.MISSING_FIELD,
    b'{"device_id": "a", "ts": 1700000001000, "values": {}}': Reason.NO_VALUES,
    b'{"device_id": "a", "ts": 1700000001, "values": {"x": 7}}': Reason.BAD_TIMESTAMP,
    b'{"device_id": "a", "ts": "2023-11-14T22:13:21", "values": {"x": 7}}': Reason.BAD_TIMESTAMP,
    b'{"device_id": "a", "ts": 4700000001000, "values": {"x": 7}}': Reason.FUTURE,
    b"x" * 2_001: Reason.TOO_LARGE,
}


@pytest.mark.parametrize(("value", "reason"), BAD.items(), ids=lambda case: str(case)[:40])
def test_a_bad_record_is_rejected_with_its_reason_and_the_rest_is_untouched(value: bytes, reason: Reason) -> None:
    out = run(end_of([reading("a", 1), value, reading("a", 2)]), spec())

    assert out.rejects == [(1, reason)]
    assert out.counts() == {("a", 0): 2}


def test_a_reject_keeps_the_original_bytes_and_says_where_it_came_from() -> None:
    (reject,) = (m for m in run(log([reading("a", 1), b"junk"]), spec()).messages if m.topic == TOPICS.rejects)
    headers = dict(reject.headers)

    assert (reject.key, reject.value) == (b"key", b"junk")
    assert (headers["ce_id"], headers["ce_source"]) == (b"sensor.readings/0/1", b"sensor.readings")
    assert headers["ce_specversion"] == b"1.0"


def test_iso_stamps_and_the_narrow_shape_are_read_too() -> None:
    wide = b'{"device_id": "a", "ts": "2023-11-14T23:13:21+01:00", "values": {"x": 7, "y": null}}'
    narrow = b'{"TS": "2023-11-14T22:13:22Z", "Device": 1, "Sensor": 5, "Value": 100.2}'
    scores = run(end_of([wide, narrow]), spec()).scores

    assert scores[("a", 0)].metrics["x"].mean == 7
    assert scores[("1", 0)].metrics["5"].last == 100.2


# --- oracle and properties ---------------------------------------------------------------------

SECONDS = st.integers(0, 600).map(lambda tenth: tenth / 10)
VALUES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
RECORDINGS = st.lists(
    st.builds(lambda d, s, x, y: reading(d, s, x=x, y=y), st.sampled_from("abc"), SECONDS, VALUES, VALUES),
    min_size=1,
    max_size=80,
)
NARROW = st.builds(lambda d, s, x: reading(d, s, x=x), st.sampled_from("abc"), SECONDS, VALUES)
JUNK = st.sampled_from([b"", b"junk", reading("a", 86_400), reading("b", 40_000, z=1), reading("c", 7, w=1, v=2, u=3)])
STREAMS = st.lists(st.one_of(RECORDINGS, st.lists(NARROW, max_size=9), JUNK.map(lambda junk: [junk])), max_size=8).map(
    lambda runs: list(chain.from_iterable(runs))
)
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)
FATES = st.lists(st.sampled_from(["go", "commit", "crash"]), min_size=1, max_size=20)
WINDOWS = st.sampled_from([TUMBLING, HOPPING])


def forever(items: Sequence[Any], then: Any) -> Iterator[Any]:
    yield from items
    while True:
        yield then


@settings(max_examples=150)
@given(recording=RECORDINGS)
def test_windows_equal_a_pandas_groupby(recording: list[bytes]) -> None:
    wide = spec(WindowSpec(grace_ms=100_000, idle_ms=10**9), dedupe=False)
    rows = pd.DataFrame([{**r["values"], "device": r["device_id"], "ts": r["ts"]} for r in map(json.loads, recording)])
    rows["start"] = rows.ts // 10_000 * 10_000 - BASE
    ordered = rows.sort_values("ts", kind="stable").groupby(["device", "start"])
    expected = ordered[["x", "y"]].agg(["count", "mean", "std", "min", "max", "last"])
    scores = run(end_of(recording), wide).scores

    assert set(scores) == set(expected.index)
    for key, row in expected.iterrows():
        for metric in ("x", "y"):
            got = scores[key].metrics[metric]  # type: ignore[index]
            assert (got.count, got.min, got.max, got.last) == tuple(row[metric][["count", "min", "max", "last"]])
            assert got.mean == pytest.approx(row[metric]["mean"], rel=1e-12, abs=1e-9)
            assert (got.std or 0.0) == pytest.approx(np.nan_to_num(row[metric]["std"]), rel=1e-9, abs=1e-6)


@settings(max_examples=150)
@given(stream=STREAMS, lengths=LENGTHS, window=WINDOWS)
def test_any_batching_gives_the_same_windows_to_the_last_bit(
    stream: list[bytes], lengths: list[int], window: WindowSpec
) -> None:
    whole = run(end_of(stream), spec(window))
    parts = run(end_of(stream), spec(window), forever(lengths, 1))

    assert parts.scores == whole.scores
    assert parts.rejects == whole.rejects


HELD = [reading("a", 10.1), *[reading("b", 0)] * 2, *[reading("a", 0)] * 4, reading("a", 40)]
"""The first counts only once b has been heard: the clock b meets is not in the log before it."""


@settings(max_examples=300)
@given(stream=STREAMS, lengths=LENGTHS, fates=FATES, window=WINDOWS)
@example(
    stream=[*HELD, *[reading("a", 0)] * 6, reading("b", 0.1)],
    lengths=[1],
    fates=["go", "commit", "crash"],
    window=TUMBLING,
)
def test_any_restart_gives_the_same_windows_to_the_last_bit(
    stream: list[bytes], lengths: list[int], fates: list[str], window: WindowSpec
) -> None:
    whole = run(end_of(stream), spec(window))
    broken = run_with_crashes(end_of(stream), spec(window), forever(lengths, 7), forever(fates, "commit"))

    assert broken.scores == whole.scores
    assert broken.rejects == whole.rejects


@settings(max_examples=100)
@given(recording=st.lists(SECONDS, min_size=1, max_size=60, unique=True), data=st.data())
def test_any_order_within_grace_gives_the_same_windows(recording: list[float], data: st.DataObject) -> None:
    wide = spec(WindowSpec(grace_ms=60_000, idle_ms=10**9))
    shuffled = data.draw(st.permutations(recording))
    ordered = run(end_of([reading("a", s) for s in sorted(recording)]), wide).scores
    mixed = run(end_of([reading("a", s) for s in shuffled]), wide).scores

    assert set(mixed) == set(ordered)
    for key, score in ordered.items():
        other = mixed[key].metrics["x"]
        same = score.metrics["x"]
        assert (other.count, other.min, other.max, other.last) == (same.count, same.min, same.max, same.last)
        assert other.mean == pytest.approx(same.mean, rel=1e-12)


ODD = [b"", b"junk", reading("a", 86_400), reading("c", 7, w=1, v=2, u=3), reading("d", 100), reading("b", 130, z=2)]


def life(random: Random) -> Iterator[bytes]:
    """What five devices send: time passes, leaps and is disordered, metrics come and go, and some of it is junk."""
    clock = 0.0
    for _ in range(random.randint(1, 150)):
        clock += random.choice([0, 0, 0, 0, 0.1, 1, 3, 8, 40, 100])
        second = max(0.0, round(clock - random.choice([0, 0, 0, 1, 5, 30]), 1))
        more = {"y": 1.5} if random.random() < 0.7 else {}
        odd = random.random() < 0.1
        yield random.choice(ODD) if odd else reading(random.choice("abcde"), second, x=random.uniform(-9, 9), **more)


@pytest.mark.parametrize("seed", range(100))
def test_a_long_life_is_the_same_in_any_batching_and_through_any_crash(seed: int) -> None:
    random = Random(seed)
    recording, window = end_of(list(life(random))), random.choice([TUMBLING, HOPPING])
    lengths = iter(lambda: random.randint(1, 40), 0)
    fates = iter(lambda: random.choice(["go", "commit", "commit", "crash"]), "")
    whole = run(recording, spec(window))

    for other in (run(recording, spec(window), lengths), run_with_crashes(recording, spec(window), lengths, fates)):
        assert other.scores == whole.scores
        assert other.rejects == whole.rejects
