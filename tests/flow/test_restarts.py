"""Breaks that a fuzzer found in what a restart brings back, each by the shortest log that shows it."""

from dataclasses import replace
from itertools import chain

import numpy as np

from stream.partition import Partition
from stream.records import Records
from stream.window import WindowSpec
from tests.flow.test_partition import BASE, SOURCE, TOPICS, end_of, forever, log, reading, run, run_with_crashes, spec


def arriving(values: list[bytes], seconds: list[float]) -> Records:
    return replace(log(values), timestamps=np.array([BASE + int(1000 * second) for second in seconds]))


def test_the_floor_is_the_lowest_offset_whatever_the_order_of_shapes() -> None:
    # offsets 0 b{y}  1 a{x}  2 a{y}: the shape {y} is known first, yet a's window opens at 1
    partition = Partition(SOURCE, 0, spec(), TOPICS)
    partition.feed(arriving([reading("b", 1, y=1), reading("a", 1, x=1), reading("a", 2, y=1)], [0, 0, 0]))
    partition.feed(replace(arriving([reading("b", 12, y=1)], [0]), offsets=np.array([3])))

    assert partition.floor == 1


def test_what_was_refused_before_a_held_reading_stays_refused() -> None:
    stamps = [
        ("c", 29, "x"),
        ("c", 11, "x"),
        ("a", 59, "y"),
        ("a", 39, "x"),
        ("c", 160, "y"),
        ("c", 160, "x"),
        ("a", 160, "x"),
    ]
    values = [reading(device, second, **{metric: 1}) for device, second, metric in stamps]
    records = arriving(values, [141.001, 41.001, 144.001, 1069.001, 170.001, 70.001, 70.001])
    how = spec(WindowSpec(10_000, 10_000, 2_000, 60_000), max_jump_ms=10_000)
    fates = forever(["commit", "commit", "commit", "crash", "go", "go", "go"], "commit")
    broken = run_with_crashes(records, how, forever([3, 1, 1, 1, 3, 3, 1, 2], 1), fates)
    whole = run(records, how)

    assert broken.rejects == whole.rejects
    assert broken.scores == whole.scores


def test_a_silence_heard_again_closes_no_more_than_it_did() -> None:
    # e lags and keeps the log from 0 on; b is silent from 20 to 158, when the others are at 190
    steps = ([reading("a", second), reading("e", 1.1 + second / 1000)] for second in range(30, 195, 10))
    values = [reading("e", 1), reading("b", 20), *chain.from_iterable(steps), reading("b", 158)]
    fates = forever(["commit", "crash"], "go")
    whole = run(end_of(values), spec())
    broken = run_with_crashes(end_of(values), spec(), forever([len(values), 1], 100), fates)

    assert whole.counts()[("b", 150_000)] == 1
    assert broken.scores == whole.scores
