"""Which readings have been seen: against a set, through runs, merges and forgetting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.errors import ConfigError
from stream.dedupe import Seen

NOW = 1_700_000_000_000
SIZE = 10_000

Pair = tuple[int, int]
"""(device, stamp)."""
Clock = dict[int, int]
"""The highest stamp of each device."""


class Oracle:
    """A device's clock and a set of pairs, one reading at a time."""

    def __init__(self) -> None:
        self.known: set[Pair] = set()

    def repeated(self, pairs: list[Pair]) -> list[bool]:
        found = []
        for pair in pairs:
            found.append(pair in self.known)
            self.known.add(pair)
        return found


def repeated(seen: Seen, pairs: list[Pair], clock: Clock) -> list[bool]:
    """As the stream asks: suspect is what is not newer than its device's clock."""
    suspect = []
    for device, ts in pairs:
        suspect.append(ts <= clock.get(device, -1))
        clock[device] = max(ts, clock.get(device, -1))
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    found: list[bool] = seen.repeated(columns[:, 0], columns[:, 1], np.array(suspect, np.bool_)).tolist()
    return found


PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15).map(lambda step: NOW + 1000 * step)), max_size=12)


@settings(max_examples=300)
@given(batches=st.lists(PAIRS, max_size=30))
def test_repetitions_are_those_of_a_set(batches: list[list[Pair]]) -> None:
    seen, oracle = Seen(), Oracle()
    clock: Clock = {}
    found = [repeated(seen, batch, clock) for batch in batches]

    assert found == [oracle.repeated(batch) for batch in batches]
    assert len(seen) == len(oracle.known)


def test_an_orderly_stream_is_never_found_repeating() -> None:
    seen = Seen()
    clock: Clock = {}
    found = [repeated(seen, [(0, NOW + tick)], clock) for tick in range(100)]

    assert found == [[False]] * 100
    assert len(seen) == 100


def test_what_came_in_any_of_many_batches_is_known() -> None:
    seen = Seen()
    clock: Clock = {}
    for tick in range(100):
        repeated(seen, [(0, NOW + tick), (1, NOW + tick)], clock)
        if tick % 7 == 0:
            assert repeated(seen, [(0, NOW + tick // 2)], clock) == [True]

    assert repeated(seen, [(1, NOW + tick) for tick in range(100)], clock) == [True] * 100


def test_the_extremes_of_device_and_stamp_do_not_collide() -> None:
    highest, latest = 2**21 - 1, 7_258_118_399_999
    pairs = [(0, 315_532_800_000), (0, latest), (1, 315_532_800_000), (highest, latest), (highest, 315_532_800_000)]

    assert repeated(Seen(), pairs, {}) == [False] * 5
    assert repeated(Seen(), pairs + pairs, {}) == [False] * 5 + [True] * 5


def test_more_devices_than_a_key_holds_are_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="more partitions"):
        repeated(Seen(), [(2**21, NOW)], {})


@settings(max_examples=200)
@given(batches=st.lists(PAIRS, max_size=10), closed=st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_forgetting_drops_only_what_lies_in_closed_windows(batches: list[list[Pair]], closed: list[int]) -> None:
    seen, oracle = Seen(), Oracle()
    clock: Clock = {}
    for batch in batches:
        repeated(seen, batch, clock)
        oracle.repeated(batch)
    until = np.array([NOW + 1000 * step for step in closed])
    seen.forget(until, SIZE)
    kept = sorted(pair for pair in oracle.known if pair[1] + SIZE > until[pair[0]])

    assert len(seen) == len(kept)
    assert all(repeated(seen, kept, clock))
