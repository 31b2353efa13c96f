"""Event time of one partition: when a window is closed, and which stamps to believe.

Three rules, each a function of the readings and their order alone, so that replay speed, batching
and restarts change nothing:

* A device's clock is the highest stamp it sent. A window is closed once the clock has passed
  ``end + grace``.
* The partition's clock is the highest stamp of any device. A device not heard from while the
  partition's clock moved by ``idle`` is quiet, and its windows that ended ``idle`` ago are closed.
* A stamp more than ``max_jump`` ahead of the partition's clock, and as far from its record's own
  Kafka timestamp, is held until the device's next reading confirms or refutes it, or the
  partition's clock comes near: one reading from the future must never close a window.

Unknown clocks are ``NEVER``. All times are epoch milliseconds, int64.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.window import WindowSpec

NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Trace:
    """What each of ``n`` readings found when it arrived, and what it leaves behind."""

    closed: Ints
    """Windows ending at or before this were closed."""
    clock: Ints
    """The device's clock before the reading."""
    partition: Ints
    """The partition's clock before the reading."""
    after: "_After"


@dataclass(frozen=True, slots=True)
class _After:
    device: Ints
    clock: Ints
    heard: Ints
    quiet: Ints
    partition: int


class Clocks:
    """The clocks of one partition's devices, numbered from 0 as they appear."""

    def __init__(self, spec: WindowSpec, max_jump_ms: int) -> None:
        self._spec = spec
        self._jump = max_jump_ms
        self.partition = NEVER
        self.clock = np.empty(0, np.int64)
        self.heard = np.empty(0, np.int64)
        self.quiet = np.empty(0, np.int64)

    def grow(self, devices: int) -> None:
        """Make room for device numbers below ``devices``."""
        more = devices - len(self.clock)
        if more > 0:
            pad = np.full(max(more, len(self.clock) // 4), NEVER, np.int64)
            self.clock, self.heard, self.quiet = (np.append(a, pad) for a in (self.clock, self.heard, self.quiet))

    def closed(self, device: Ints | slice = slice(None)) -> Ints:
        """Windows of ``device`` ending at or before this are closed."""
        result: Ints = np.maximum(self.quiet[device], self.clock[device] - self._spec.grace_ms)
        return result

    def trace(self, device: Ints, ts: Ints, *, again: bool = False) -> Trace:
        """What readings of ``device`` with stamps ``ts`` find, in this order; nothing is changed.

        ``again``: they were heard before, and what their silences closed is remembered. Clocks may be ahead of them
        then, and would close more.
        """
        order = np.argsort(device, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        d, t = device[order], ts[order]
        first = np.append(True, d[1:] != d[:-1])
        last = np.append(first[1:], True)
        partition = np.maximum.accumulate(np.append(self.partition, ts))
        before, after = partition[:-1][order], partition[1:][order]
        clock_after = _running_max(np.where(first, np.maximum(t, self.clock[d]), t), first)
        clock = np.where(first, self.clock[d], _shift(clock_after))
        heard = np.where(first, self.heard[d], _shift(after))
        silent = (heard != NEVER) & (before - heard >= self._spec.idle_ms)
        quiet = self.quiet[d]
        if silent.any() and not again:
            quiet = np.maximum(quiet, np.where(silent, self._passed(clock, before), NEVER))
            quiet = _running_max(quiet, first)
        closed = np.maximum(quiet, clock - self._spec.grace_ms)
        left = _After(d[last], clock_after[last], after[last], quiet[last], int(partition[-1]))
        return Trace(closed[back], clock[back], partition[:-1], left)

    def advance(self, trace: Trace) -> Ints:
        """Make the traced readings history; the devices found quiet on the way."""
        after = trace.after
        changed = after.device[after.quiet > self.quiet[after.device]]
        self.clock[after.device] = after.clock
        # when the log is read again, what is remembered may be ahead of it
        self.heard[after.device] = np.maximum(self.heard[after.device], after.heard)
        self.quiet[after.device] = after.quiet
        self.partition = after.partition
        return changed

    def hush(self, devices: int, now: int) -> Ints:
        """Close what is idle when the partition's clock reads ``now``; the devices changed."""
        silent = (self.heard[:devices] != NEVER) & (now - self.heard[:devices] >= self._spec.idle_ms)
        device = np.flatnonzero(silent)
        return self._close(device, self._passed(self.clock[device], np.int64(now)))

    def punctuate(self, devices: int, now: int) -> Ints:
        """Close the windows of every device whose clock is at or before ``now``; the devices changed."""
        clock = self.clock[:devices]
        device = np.flatnonzero((clock != NEVER) & (clock <= now))
        return self._close(device, self._spec.last_end(self.clock[device]))

    def _close(self, device: NDArray[np.intp], until: Ints) -> Ints:
        changed = until > self.quiet[device]
        self.quiet[device[changed]] = until[changed]
        result: Ints = device[changed]
        return result

    def _passed(self, clock: Ints, now: Ints | np.int64) -> Ints:
        return np.minimum(now - self._spec.idle_ms, self._spec.last_end(clock))

    def leaps(self, ts: Ints, arrival: Ints) -> bool:
        """Whether any of the next stamps needs :meth:`judge`."""
        known = np.maximum.accumulate(np.append(self.partition, ts))[:-1]
        return bool(((ts - known > self._jump) & (np.abs(ts - arrival) > self._jump)).any())

    def judge(self, device: Ints, ts: Ints, arrival: Ints, waiting: int = 0) -> "Judgement":
        """Decide stamp by stamp which to believe; the first ``waiting`` are held from before.

        ``arrival`` are the records' Kafka timestamps.
        """
        _, code = np.unique(device, return_inverse=True)
        return Judgement(*_judge(code, ts, arrival, waiting, self.partition, self._jump))


class Judgement(NamedTuple):
    """Rows: those to believe in the order they count, those from the future, those still held."""

    accepted: Ints
    refused: Ints
    held: Ints


@compiled
def _judge(  # noqa: PLR0913, PLR0917 - numba compiles functions, not objects
    device: Ints, ts: Ints, arrival: Ints, waiting: int, partition: int, jump: int
) -> tuple[Ints, Ints, Ints]:
    accepted, refused = np.empty(len(ts), np.int64), np.empty(len(ts), np.int64)
    taken, left = 0, 0
    held = np.full(len(ts), -1)  # by device
    soonest = [(0, 0) for _ in range(0)]  # a heap of held stamps, some of them decided meanwhile
    for row in range(len(ts)):
        stamp, before = ts[row], held[device[row]]
        if row >= waiting:
            if before >= 0:
                held[device[row]] = -1
                if stamp - partition > jump and ts[before] - stamp <= jump:
                    taken, partition = _believe(before, ts, device, partition, jump, held, soonest, accepted, taken)
                else:
                    refused[left] = before
                    left += 1
            if stamp - partition <= jump or abs(stamp - arrival[row]) <= jump:
                taken, partition = _believe(row, ts, device, partition, jump, held, soonest, accepted, taken)
                continue
        held[device[row]] = row
        heapq.heappush(soonest, (stamp, row))
    return accepted[:taken], refused[:left], np.sort(held[held >= 0])


@compiled
def _believe(  # noqa: PLR0913, PLR0917 - as above
    row: int, ts: Ints, device: Ints, partition: int, jump: int,
    held: Ints, soonest: list[tuple[int, int]], accepted: Ints, taken: int,
) -> tuple[int, int]:  # fmt: skip
    """Take in a row, and every held one that the partition's clock comes near by it."""
    accepted[taken] = row
    taken += 1
    partition = max(partition, ts[row])
    while soonest and soonest[0][0] - partition <= jump:
        _, near = heapq.heappop(soonest)
        if held[device[near]] == near:
            held[device[near]] = -1
            accepted[taken] = near
            taken += 1
            partition = max(partition, ts[near])
    return taken, partition


def _shift(values: Ints) -> Ints:
    return np.append(NEVER, values[:-1])


def _running_max(values: Ints, first: NDArray[np.bool_]) -> Ints:
    """Running maximum that starts anew where ``first``: segments are lifted apart, then lowered."""
    known = values[values != NEVER]
    if not len(known):
        return values
    low = int(known.min()) - 1
    span = int(known.max()) - low + 1
    segment = np.cumsum(first) - 1
    if span * (int(segment[-1]) + 1) >= -NEVER:
        return np.concatenate([np.maximum.accumulate(part) for part in np.split(values, np.flatnonzero(first)[1:])])
    lift = segment * span
    result = np.maximum.accumulate(np.maximum(values, low) - low + lift) - lift + low
    return np.where(result == low, NEVER, result)
