"""Event time, drawn: a letter a device, its place on the line its stamp in seconds, line by line as it arrives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.statistics import Ints
from stream.clock import NEVER, Clocks
from stream.window import WindowSpec

SPEC = WindowSpec(size_ms=10_000, hop_ms=10_000, grace_ms=2_000, idle_ms=30_000)
JUMP = 20_000


def drawn(picture: str) -> list[tuple[int, int]]:
    """(device, ms) of every letter of a picture, top to bottom."""
    marks = []
    for line in picture.strip("\n").splitlines():
        mark = line.strip()
        marks.append((ord(mark) - ord("a"), 1000 * line.index(mark)))
    return marks


def heard(picture: str) -> tuple[Clocks, list[int]]:
    """The clocks after a picture, and what each reading found closed (in seconds, -1 for nothing)."""
    clocks = Clocks(SPEC, JUMP)
    clocks.grow(26)
    device, ts = (np.array(column, np.int64) for column in zip(*drawn(picture), strict=True))
    trace = clocks.trace(device, ts)
    clocks.advance(trace)
    return clocks, [int(until) // 1000 if until > NEVER // 2 else -1 for until in trace.closed]


def closed(clocks: Clocks) -> int:
    """Up to which second the windows of device a are closed."""
    return int(clocks.closed(np.array([0]))[0]) // 1000


def test_a_devices_clock_never_goes_back_and_waits_out_its_grace() -> None:
    clocks, found = heard(
        """
a
     a
   a
            a
  a
"""
    )

    assert found == [-1, -2, 3, 3, 10]
    assert closed(clocks) == 10


def test_another_devices_stamps_close_nothing_before_idle() -> None:
    _, found = heard(
        """
 a
                             b
  a
"""
    )

    assert found == [-1, -1, -1]


def test_a_quiet_device_is_closed_by_the_clock_of_the_partition() -> None:
    _, found = heard(
        """
 a
                                        b
  a
"""
    )

    assert found == [-1, -1, 10]


def test_no_more_is_closed_of_a_quiet_device_than_it_can_have_opened() -> None:
    clocks, _ = heard(
        """
 a
                                                                                           b
"""
    )
    changed = clocks.hush(2, clocks.partition)

    assert changed.tolist() == [0]
    assert closed(clocks) == 10


def test_a_device_that_lags_but_speaks_is_not_quiet() -> None:
    clocks, found = heard(
        """
                                        b
 a
                                                            b
  a
"""
    )
    clocks.hush(2, clocks.partition)

    assert found[3] == -1
    assert closed(clocks) == 0


def test_the_end_of_a_recording_closes_whoever_it_has_passed() -> None:
    clocks, _ = heard(
        """
 a
                         b
"""
    )
    changed = clocks.punctuate(2, 24_000)

    assert changed.tolist() == [0]
    assert closed(clocks) == 10


def test_silence_changes_nothing_twice() -> None:
    clocks, _ = heard(" a")
    first, second = clocks.hush(1, 40_000), clocks.hush(1, 40_000)

    assert (first.tolist(), second.tolist()) == ([0], [])


def test_an_unknown_device_is_never_quiet() -> None:
    clocks = Clocks(SPEC, JUMP)
    clocks.grow(3)

    assert clocks.hush(3, 10**15).tolist() == []
    assert clocks.punctuate(3, 10**15).tolist() == []


DEVICES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 120_000) | st.integers(10**12, 10**12 + 9)), min_size=1, max_size=60
)


@settings(max_examples=200)
@given(stamps=DEVICES, cut=st.integers(0, 60))
def test_a_batch_finds_what_its_readings_find_one_by_one(stamps: list[tuple[int, int]], cut: int) -> None:
    together = [part for part in (stamps[:cut], stamps[cut:]) if part]

    assert trail(together) == trail([[stamp] for stamp in stamps])


def trail(batches: list[list[tuple[int, int]]]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """What every reading found, and where all clocks stand at the end."""
    clocks, found = Clocks(SPEC, JUMP), []
    clocks.grow(4)
    for batch in batches:
        device, ts = np.array(batch, np.int64).T
        trace = clocks.trace(device, ts)
        clocks.advance(trace)
        found += list(zip(*(column.tolist() for column in (trace.closed, trace.clock, trace.partition)), strict=True))
    return found, [array.tolist() for array in (clocks.clock[:4], clocks.heard[:4], clocks.quiet[:4])]


def oracle(stamps: list[tuple[int, int]]) -> list[int]:
    """What each reading finds closed, by the three sentences of the module."""
    clock: dict[int, int] = {}
    last: dict[int, int] = {}
    quiet: dict[int, int] = {}
    partition, found = NEVER, []
    for device, ts in stamps:
        if device in clock and partition - last[device] >= SPEC.idle_ms:
            until = min(partition - SPEC.idle_ms, clock[device] // 10_000 * 10_000 + 10_000)
            quiet[device] = max(quiet.get(device, NEVER), until)
        found.append(max(quiet.get(device, NEVER), clock.get(device, NEVER) - SPEC.grace_ms))
        clock[device] = max(clock.get(device, NEVER), ts)
        partition = last[device] = max(partition, ts)
    return found


@settings(max_examples=200)
@given(stamps=DEVICES)
def test_readings_find_closed_what_the_rules_say(stamps: list[tuple[int, int]]) -> None:
    clocks = Clocks(SPEC, JUMP)
    clocks.grow(4)
    device, ts = np.array(stamps, np.int64).T

    assert clocks.trace(device, ts).closed.tolist() == oracle(stamps)


# --- which stamps to believe -------------------------------------------------------------------


def columns(stamps: list[tuple[int, int]], arrival: int) -> tuple[Ints, Ints, Ints]:
    device, ts = np.array(stamps, np.int64).reshape(-1, 2).T
    return device, ts, np.full(len(stamps), arrival)


def judged(picture: str, clock: int, arrival: int) -> str:
    """What becomes of each stamp of a picture: yes, no, or ? while it is held; seconds."""
    clocks = Clocks(SPEC, JUMP)
    clocks.partition = clock * 1000
    stamps = drawn(picture)
    judgement = clocks.judge(*columns(stamps, arrival * 1000))
    fate = dict.fromkeys(judgement.accepted.tolist(), "y") | dict.fromkeys(judgement.refused.tolist(), "n")
    assert len(fate) == len(judgement.accepted) + len(judgement.refused)
    assert set(judgement.held.tolist()).isdisjoint(fate)
    return "".join(fate.get(row, "?") for row in range(len(stamps)))


FAR = 10_000


@pytest.mark.parametrize(
    ("picture", "fates"),
    [
        ("a\n    b\n        a", "yyy"),
        # 21 s ahead: held, and refuted by the next
        (" a\n                      a\n  a", "yny"),
        # held, and confirmed by the next
        (" a\n                      a\n                       a", "yyy"),
        # held to the end
        (" a\n                         a\n  b", "y?y"),
        # held until the partition's clock comes near, though b it is that says so
        (" a\n                      a\n    b", "yyy"),
        # a second leap confirms the first and is refuted itself
        (" a\n                      a\n                                                    a\n  a", "yyny"),
    ],
)
def test_a_leap_is_held_until_the_next_stamp_decides(picture: str, fates: str) -> None:
    assert judged(picture, clock=0, arrival=FAR) == fates


def test_a_leap_that_the_brokers_clock_confirms_is_believed_at_once() -> None:
    assert judged("                      a", clock=0, arrival=23) == "y"


def test_one_that_was_held_counts_before_the_one_that_confirms_it() -> None:
    clocks = Clocks(SPEC, JUMP)
    clocks.partition = 0
    judgement = clocks.judge(*columns([(0, 50_000), (0, 51_000)], FAR * 1000), waiting=1)

    assert judgement.accepted.tolist() == [0, 1]
    assert not len(judgement.held)


@settings(max_examples=200)
@given(stamps=DEVICES, arrival=st.integers(0, 130_000))
def test_every_stamp_is_believed_refused_or_held(stamps: list[tuple[int, int]], arrival: int) -> None:
    clocks = Clocks(SPEC, JUMP)
    judgement = clocks.judge(*columns(stamps, arrival))

    assert sorted(np.concatenate(judgement).tolist()) == list(range(len(stamps)))


@settings(max_examples=500)
@given(stamps=DEVICES, arrival=st.integers(0, 130_000), clock=st.integers(0, 130_000), waiting=st.integers(0, 3))
def test_stamps_are_judged_by_the_rule(stamps: list[tuple[int, int]], arrival: int, clock: int, waiting: int) -> None:
    held = {device: (device, ts) for device, ts in stamps[:waiting]}
    stamps = [*held.values(), *stamps[waiting:]]
    clocks = Clocks(SPEC, JUMP)
    clocks.partition = clock
    found = clocks.judge(*columns(stamps, arrival), waiting=len(held))
    rule = Rule(clock, len(held), arrival, stamps)

    assert found.accepted.tolist() == rule.accepted
    assert found.refused.tolist() == rule.refused
    assert found.held.tolist() == sorted(rule.held.values())


class Rule:
    """The rule as the module tells it, a stamp at a time."""

    def __init__(self, clock: int, waiting: int, arrival: int, stamps: list[tuple[int, int]]) -> None:
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.held: dict[int, int] = {}
        self._clock, self._stamps = clock, stamps
        for row, (device, ts) in enumerate(stamps):
            if row < waiting:
                self.held[device] = row
                continue
            before = self.held.pop(device, None)
            if before is not None and not self._near(row) and stamps[before][1] - ts <= JUMP:
                self._believe(before)
            elif before is not None:
                self.refused.append(before)
            if self._near(row) or abs(ts - arrival) <= JUMP:
                self._believe(row)
            else:
                self.held[device] = row

    def _near(self, row: int) -> bool:
        return self._stamps[row][1] - self._clock <= JUMP

    def _believe(self, row: int) -> None:
        self.accepted.append(row)
        self._clock = max(self._clock, self._stamps[row][1])
        while near := sorted(filter(self._near, self.held.values()), key=lambda row: (self._stamps[row][1], row)):
            del self.held[self._stamps[near[0]][0]]
            self._believe(near[0])


def leap(ts: list[int], arrival: int) -> bool:
    clocks = Clocks(SPEC, JUMP)
    clocks.partition = 0
    column: Ints = np.array(ts, np.int64)
    return clocks.leaps(column, np.full(len(ts), arrival))


def test_an_orderly_batch_needs_no_judgement() -> None:
    assert not leap([1_000, 15_000, 30_000, 49_000], arrival=10**9)
    assert not leap([1_000, 90_000], arrival=90_000)
    assert leap([1_000, 90_000], arrival=10**9)
