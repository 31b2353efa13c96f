"""The core: records of one partition in, messages out. Bytes to bytes, no clock, no I/O.

``feed`` takes what was read, ``checkpoint`` gives what must be remembered with it, ``restore`` takes
that back. Readings, their order and the checkpoints alone decide what comes out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from scorers.fleet import Fleet
from scorers.follow import FollowSpec
from scorers.statistics import Ints
from stream.alert import AlertSpec
from stream.clock import NEVER, Clocks
from stream.contracts import Reason, Topics
from stream.decode import Decoded, Limits, Parser, both, decode
from stream.encode import reject_messages
from stream.held import Place, Waiting
from stream.intake import Batch, Intake, Mask
from stream.levels import RefusedError
from stream.message import Message, Output
from stream.names import Names
from stream.outcome import Outcomes
from stream.records import Records, join, marks
from stream.rejects import WHOLE, Rejects, chained
from stream.state import DeviceState, Memory, PartitionState, device_key, encode, partition_key, recall
from stream.texts import Texts
from stream.window import WindowSpec

_DETAIL = {
    Reason.LATE: "every window it belongs to is closed",
    Reason.DUPLICATE: "the device sent this timestamp before",
    Reason.TOO_MANY_METRICS: "the device would have more metrics than max_metrics",
    Reason.FUTURE: "the timestamp is far ahead and the device's next reading does not confirm it",
}
_UNLIMITED = Limits(*[2**62] * 4)


@dataclass(frozen=True, slots=True)
class Source:
    """An input topic and how its records are read."""

    topic: str
    parser: Parser
    sums: bool = False
    """Whether windows carry the sum of each metric."""
    distinct: bool = True
    """Whether a device's stamp tells its readings apart, so that a repetition can be known."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """How a stream windows, believes and alerts."""

    window: WindowSpec = field(default_factory=WindowSpec)
    alert: AlertSpec = field(default_factory=AlertSpec)
    follow: FollowSpec = field(default_factory=FollowSpec)
    limits: Limits = field(default_factory=Limits)
    max_jump_ms: int = 60_000
    dedupe: bool = True
    app: str = ""
    """Whose state it is: another app on the same topics begins anew."""


class _Believed(NamedTuple):
    records: Records
    decoded: Decoded
    device: Ints
    moved: Mask
    """Which readings count after others that stand behind them in the log."""
    refused: Rejects


class Partition:
    """The stream's state for one partition of one input topic."""

    def __init__(self, source: Source, number: int, spec: StreamSpec, topics: Topics) -> None:
        self.source = source
        self.number = number
        self.scope = f"{spec.app}/{source.topic}"
        """What its keys in the state topic begin with."""
        self.next_offset = 0
        """The first record not yet fed."""
        self._spec = spec
        self._topics = topics
        self._names = Names()
        self._clocks = Clocks(spec.window, spec.max_jump_ms)
        self._intake = Intake(spec.window, dedupe=spec.dedupe and source.distinct, max_metrics=spec.limits.max_metrics)
        self._outcomes = Outcomes(source.topic, topics, spec.alert, spec.follow, self._names, sums=source.sums)
        self._held: dict[int, Waiting] = {}
        self._excluded: list[Place] = []
        self._dirty: set[int] = set()
        self._steady = self._lifted = NEVER
        """The highest stamp that counted in its place in the log, and of those that counted after their place."""
        self._then: PartitionState | None = None

    @property
    def topic(self) -> str:
        """The input."""
        return self.source.topic

    @property
    def reliving(self) -> bool:
        """Whether the log must still be read again up to the last checkpoint; nothing comes out till then."""
        return self._then is not None

    @property
    def counts(self) -> Counter[str]:
        """What has happened here: readings, windows, scores, anomalies, alerts, rejects by reason."""
        return self._outcomes.counts

    @property
    def open_windows(self) -> int:
        """How many windows are open."""
        return len(self._intake.windows)

    @property
    def floor(self) -> int:
        """The first record that an open window still needs."""
        floor = self._intake.windows.floor()
        return floor[0] if floor else self.next_offset

    # --- what happens --------------------------------------------------------------------------

    def use(self, fleet: Fleet) -> None:
        """Score by ``fleet`` from the next window on."""
        self._dirty.update(self._outcomes.use(fleet))

    def feed(self, records: Records) -> list[Output]:
        """Take in the next records; the scores, alerts and rejects they bring about."""
        if self._then:
            records = self._relive(records, self._then)
        if not len(records):
            return []
        found = marks(records)
        messages = self._marked(records, found) if found else self._take(records)
        self.next_offset = int(records.offsets[-1]) + 1
        self._intake.forget(self._clocks)
        return messages

    def hush(self, silent_ms: int) -> list[Output]:
        """The partition has been silent for so long: close what its clock would have closed by now."""
        if self.reliving or self._clocks.partition == NEVER:
            return []
        return self._close(self._clocks.partition + silent_ms)

    def _decode(self, records: Records) -> Decoded:
        return decode(records, self._spec.limits, self.source.parser)

    def _take(self, records: Records) -> list[Output]:
        next_offset = int(records.offsets[-1]) + 1
        believed = self._believe(records)
        left_out = self._admit(believed) if len(believed.decoded) else Rejects.none()
        rejects = chained([believed.decoded.rejects, believed.refused, left_out])
        self.next_offset = next_offset
        return self._refuse(believed.records, rejects) + self._close(self._clocks.partition)

    def _admit(self, believed: _Believed) -> Rejects:
        decoded, device = believed.decoded, believed.device
        trace = self._clocks.trace(device, decoded.ts)
        self._dirty.update(self._clocks.advance(trace).tolist())
        if self._out_of_place(believed.moved, decoded.ts):
            # read again, the log would not say how far the partition's clock was when these were heard
            self._dirty.update(device.tolist())
        batch = Batch(decoded, device, believed.records.offsets[decoded.row], trace)
        left_out = self._intake.admit(batch)
        # a reading with a metric too many moved its device's clock and opened no window to tell of it
        self._dirty.update(int(device[at]) for at, reason in left_out if reason is Reason.TOO_MANY_METRICS)
        rows = np.array([at for at, _ in left_out], np.int64)
        return decoded.refuse(rows, [(reason, _DETAIL[reason]) for _, reason in left_out])

    def _out_of_place(self, moved: Mask, ts: Ints) -> bool:
        """Whether the partition's clock is now, or is in these readings, ahead of what stands in the log before it."""
        lifted = self._lifted > self._steady
        self._lifted = max(self._lifted, int(ts[moved].max(initial=NEVER)))
        self._steady = max(self._steady, int(ts[~moved].max(initial=NEVER)))
        return lifted or bool(moved.any())

    def _exclude(self, records: Records, decoded: Decoded, refused: Ints) -> Rejects:
        """Refuse as from the future, and remember it: the log alone cannot tell."""
        rejects = decoded.refuse(refused, [(Reason.FUTURE, _DETAIL[Reason.FUTURE])] * len(refused))
        self._excluded += zip(records.offsets[rejects.row].tolist(), rejects.part.tolist(), strict=True)
        return rejects

    def _refuse(self, records: Records, rejects: Rejects) -> list[Output]:
        if not len(rejects):
            return []
        for reason, count in rejects.reasons().items():
            self.counts["rejects"] += count
            self.counts[f"rejects.{reason}"] += count
        return [reject_messages(self._topics.rejects, records, rejects.in_order())]

    def _close(self, now: int) -> list[Output]:
        """What has closed when the partition's clock reads ``now``."""
        self._dirty.update(self._clocks.hush(len(self._names), now).tolist())
        messages: list[Output] = []
        for closed in self._intake.windows.close(self._clocks.closed()):
            self._dirty.update(closed.device.tolist())
            messages += self._outcomes.tell(closed)
        return messages

    def _marked(self, records: Records, found: list[tuple[int, int | bytes]]) -> list[Output]:
        messages, begin = [], 0
        for row, mark in [*found, (len(records), NEVER)]:
            part = records.part(begin, row)
            if len(part):
                messages += self._take(part)
            if isinstance(mark, bytes):
                messages += self._accept(records.pick([row]), mark)
            elif mark != NEVER:
                messages += self._punctuate(mark)
            begin = row + 1
        return messages

    def _accept(self, record: Records, word: bytes) -> list[Output]:
        """Do as an operator says of the device that is the record's key."""
        device = self._names.find(Texts.of(record.keys))
        at = max(int(self._clocks.closed(device)[0]), 0) if device[0] >= 0 else 0
        try:
            messages = self._outcomes.accept(int(device[0]), word, at)
        except RefusedError as error:
            self.counts["readings"] += 1  # as whatever is in rejects
            return self._refuse(record, Rejects.of(np.array([0]), [error.fault]))
        self._dirty.update(device.tolist())
        return [*messages]

    def _punctuate(self, now: int) -> list[Output]:
        messages = []
        for number in [number for number, held in self._held.items() if held.ts <= now]:
            records, decoded = self._reread([self._held.pop(number)])
            self._dirty.add(number)
            believed = _Believed(records, decoded, np.array([number]), np.array([True]), Rejects.none())
            messages += self._refuse(records, self._admit(believed))
        self._dirty.update(self._clocks.punctuate(len(self._names), now).tolist())
        return messages + self._close(self._clocks.partition)

    def _number(self, decoded: Decoded) -> Ints:
        """The number of each reading's device."""
        known = self._names.find(decoded.names)
        device = known[decoded.device]
        new = device < 0
        if not new.any():
            return device
        codes, first = np.unique(decoded.device[new], return_index=True)
        codes = codes[np.argsort(first)]  # as they appear, so that batching changes no number
        known[codes] = self._meet(decoded.names.gather(codes))
        return known[decoded.device]

    def _meet(self, names: Texts) -> Ints:
        """The number of each device, given to those that have none."""
        device = self._names.enter(names)
        self._outcomes.meet()
        self._clocks.grow(len(self._names))
        self._intake.windows.grow(len(self._names))
        return device

    # --- which stamps to believe ---------------------------------------------------------------

    def _believe(self, records: Records) -> _Believed:
        """The readings to take in, in the order they count, with those held before that count now."""
        decoded = self._decode(records)
        self.counts["readings"] += len(decoded) + len(decoded.rejects)
        device = self._number(decoded)
        arrival = records.arrival[decoded.row]
        if not (self._stirred(device, decoded.ts) or self._clocks.leaps(decoded.ts, arrival)):
            return _Believed(records, decoded, device, np.zeros(len(decoded), np.bool_), Rejects.none())
        waiting = list(self._held.values())
        if waiting:
            apart, before = self._reread(waiting)
            decoded, records = both(before, decoded, len(apart)), join([apart, records])
            device = np.append(self._number(before), device)
        judgement = self._clocks.judge(device, decoded.ts, records.arrival[decoded.row], len(waiting))
        known, fresh = set(self._held), set(device[len(waiting) :].tolist())
        # those that go on waiting come first, as they were
        self._held = {
            int(device[at]): waiting[at] if at < len(waiting) else self._hold(records, decoded, int(at))
            for at in judgement.held
        }
        self._dirty.update(known ^ self._held.keys(), fresh & self._held.keys())
        order = judgement.accepted
        moved = order < np.maximum(np.maximum.accumulate(order), len(waiting))
        refused = self._exclude(records, decoded, judgement.refused)
        return _Believed(records, decoded.take(order), device[order], moved, refused)

    def _hold(self, records: Records, decoded: Decoded, at: int) -> Waiting:
        """A reading by itself."""
        one, part = records.pick([int(decoded.row[at])]), int(decoded.part[at])
        if part != WHOLE:
            one = replace(one, values=[decoded.alone(at)])
        return Waiting(one, int(decoded.ts[at]), part)

    def _reread(self, waiting: Sequence[Waiting]) -> tuple[Records, Decoded]:
        """The records of held readings, and what they hold: one each, read before, maybe under other limits."""
        records = join([held.records for held in waiting])
        decoded = decode(records, _UNLIMITED, self.source.parser)
        decoded.part = np.array([held.part for held in waiting], np.int64)
        return records, decoded

    def _stirred(self, device: Ints, ts: Ints) -> bool:
        """Whether the next readings may decide on a held one."""
        if not self._held or not len(ts):
            return False
        soonest = min(held.ts for held in self._held.values())
        near = soonest - max(self._clocks.partition, int(ts.max())) <= self._spec.max_jump_ms
        return near or bool(np.isin(device, np.fromiter(self._held, np.int64)).any())

    # --- what must be remembered ---------------------------------------------------------------

    def checkpoint(self) -> list[Message]:
        """What changed since the last checkpoint, for the state topic."""
        messages = self._remembered(np.array(sorted(self._dirty), np.int64))
        self._dirty.clear()
        floor, clock = self._intake.windows.floor() or (self.next_offset, self._clocks.partition)
        # a held reading that is believed after all opens its window below the floor of today
        needed = min([floor, *(held.place[0] for held in self._held.values())])
        self._excluded = [place for place in self._excluded if place[0] >= needed]
        excluded = [offset if part == WHOLE else (offset, part) for offset, part in self._excluded]
        state = PartitionState(self.next_offset, self._clocks.partition, floor, clock, excluded)
        key = partition_key(self.scope, self.number)
        return [*messages, Message(self._topics.state, key, encode(state), partition=self.number)]

    def _remembered(self, devices: Ints) -> list[Message]:
        clocks, levels, states = self._clocks, self._outcomes.levels, []
        times = (column.tolist() for column in (clocks.clock[devices], clocks.closed(devices), clocks.heard[devices]))
        rest = self._intake.metrics(devices), self._outcomes.trails.remember(devices)
        for number, clock, closed, heard, metrics, trail in zip(devices.tolist(), *times, *rest, strict=True):
            state = DeviceState(clock, closed, metrics, self._outcomes.alerting.watched.get(number))
            state.held = self._held[number].frozen() if number in self._held else None
            state.heard = None if heard == NEVER else heard
            state.trail = trail
            state.accepted, state.odd = levels.accepted.get(number), levels.odd.get(number)
            states.append(encode(state))
        keys = [device_key(self.scope, name) for name in self._names.pick(devices)]
        about = zip(keys, states, strict=True)
        return [Message(self._topics.state, key, state, partition=self.number) for key, state in about]

    def recall(self, records: Mapping[bytes, bytes]) -> int | None:
        """Restore what the state topic holds, by key."""
        return self.restore(recall(self.scope, self.number, records.items()))

    def restore(self, memory: Memory) -> int | None:
        """Become what the last checkpoint was, once the log has been fed again from the offset returned.

        None: nothing is remembered; start wherever the group does.
        """
        device = self._meet(Texts.of([name.encode() for name in memory.devices]))
        for number, state in zip(device.tolist(), memory.devices.values(), strict=True):
            self._clocks.clock[number], self._clocks.quiet[number] = state.clock, state.closed
            if state.heard is not None:
                self._clocks.heard[number] = state.heard
            if state.watch:
                self._outcomes.alerting.watched[number] = state.watch
            if state.trail:
                self._outcomes.trails.recall(number, state.trail)
            if state.held:
                self._held[number] = Waiting.thawed(self.source.topic, self.number, state.held)
            if state.accepted:
                self._outcomes.levels.accepted[number] = state.accepted
            if state.odd:
                self._outcomes.levels.odd[number] = state.odd
        self._dirty.update(self._outcomes.settle())
        self._intake.recall(zip(device.tolist(), (state.metrics for state in memory.devices.values()), strict=True))
        if memory.partition is None:
            return None
        then = memory.partition
        self._clocks.partition = then.floor_clock
        self.next_offset = then.next_offset
        self._excluded = [(place, WHOLE) if isinstance(place, int) else place for place in then.excluded]
        self._lifted = then.clock
        self._then = then if then.floor < then.next_offset else None
        return then.floor

    def _relive(self, records: Records, then: PartitionState) -> Records:
        """Put back into open windows what a former life took in, and said all about; the records after it."""
        past = int(np.searchsorted(records.offsets, then.next_offset))
        old, new = records.part(0, past), records.part(past, len(records))
        decoded = self._decode(old)
        decoded = decoded.take(self._counted(old.offsets[decoded.row], decoded.part))
        if len(decoded):
            device = self._number(decoded)
            trace = self._clocks.trace(device, decoded.ts, again=True)
            self._clocks.advance(trace)
            self._intake.admit(Batch(decoded, device, old.offsets[decoded.row], trace))
        if len(new) or int(old.offsets[-1]) + 1 == then.next_offset:
            self._clocks.partition = max(self._clocks.partition, then.clock)
            self._then = None
        return new

    def _counted(self, offsets: Ints, parts: Ints) -> Ints:
        """Which readings of the log are neither refused as from the future nor held."""
        out = {*self._excluded, *(held.place for held in self._held.values())}
        doubtful = np.isin(offsets, np.array([offset for offset, _ in out], np.int64))
        for at in np.flatnonzero(doubtful).tolist():
            doubtful[at] = (int(offsets[at]), int(parts[at])) in out
        return np.flatnonzero(~doubtful)
