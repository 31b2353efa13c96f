"""The forecaster's core: sessions of one partition in, forecasts out. Bytes to bytes, no clock, no I/O.

An hour is over once the partition's clock, the highest start of a session that is believed, has passed its end and
``grace``; then it joins the history, and every server that is there is forecast from its end. Sessions that come later
are late. They, and what is no session, are only counted: ``rejects`` is kept by the worker that scores.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from scorers.forecast.schema import HOUR_MS
from stream.clock import NEVER, Clocks
from stream.contracts import Reason, Topics
from stream.decode import Limits, decode
from stream.encode import forecast_message
from stream.forecast.history import History, Span
from stream.forecast.hours import Hours
from stream.forecast.issue import Champion, issue
from stream.forecast.sessions import ENDED, Sessions, chained, measured
from stream.forecast.state import (
    LoadState,
    held_key,
    held_record,
    hour_keys,
    hour_records,
    partition_record,
    recall,
)
from stream.message import Message, Output, tombstones
from stream.names import Names
from stream.records import Records, marks
from stream.texts import Texts
from stream.window import WindowSpec

_NEVER_SOON = -NEVER
_AT_ONCE = 48
"""Hours that are forecast from by one query, at most."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How hours end; all spans in milliseconds."""

    grace_ms: int = 300_000
    idle_ms: int = 600_000
    """How long a partition that is silent altogether lets its hours wait."""
    alive_ms: int = 24 * HOUR_MS
    exclude: tuple[Span, ...] = ()
    limits: Limits = field(default_factory=Limits)
    max_jump_ms: int = 24 * HOUR_MS
    """Further ahead of the partition's clock, and of its own arrival, a session waits to be confirmed."""
    app: str = ""
    """Whose state it is: another app on the same topics begins anew."""


class Forecasting:
    """The forecaster's state for one partition of the sessions."""

    def __init__(self, number: int, spec: LoadSpec, topics: Topics) -> None:
        self.topic = topics.sessions
        self.number = number
        self.scope = f"{spec.app}/{topics.sessions}"
        """What its keys in the state topic begin with."""
        self.next_offset = 0
        self.counts = Counter[str]()
        """Sessions, late ones, rejects by reason, hours and forecasts."""
        self._spec = spec
        self._topics = topics
        self._names = Names()
        self._clocks = Clocks(WindowSpec(), spec.max_jump_ms)
        self._closed = NEVER
        self._hours = Hours()
        self._history = History(self._names, spec.alive_ms, spec.exclude)
        self._champion = Champion()
        self._held: dict[int, Sessions] = {}
        """By server, one session each that is not believed yet."""
        self._soonest = _NEVER_SOON
        """When the first of them began."""
        self._excluded: list[int] = []
        self._then: LoadState | None = None
        self._ended: list[int] = []
        """Hours that have closed since the last checkpoint; likewise:"""
        self._gone: list[bytes] = []
        self._dirty: set[int] = set()

    @property
    def reliving(self) -> bool:
        """Whether the log must still be read again up to the last checkpoint."""
        return self._then is not None

    @property
    def floor(self) -> int:
        """The first record that an open hour still needs."""
        floor = self._hours.floor
        return self.next_offset if floor is None else floor

    @property
    def open_windows(self) -> int:
        """Hours that are open, and servers known: each further hour is one of theirs."""
        return len(self._hours) + len(self._history)

    # --- what happens --------------------------------------------------------------------------

    def use(self, champion: Champion) -> None:
        """Forecast by another model from the next hour's end on."""
        self._champion = champion

    def feed(self, records: Records) -> list[Output]:
        """Take in the next records; the forecasts they bring about."""
        if self._then:
            records = self._relive(records, self._then)
        if not len(records):
            return []
        messages, begin = [], 0
        for row, mark in [*marks(records), (len(records), b"")]:
            if row > begin:
                messages += self._take(records.part(begin, row))
            if isinstance(mark, int):
                messages += self._punctuate(mark, int(records.arrival[row]))
            begin = row + 1
        self.next_offset = int(records.offsets[-1]) + 1
        return messages

    def hush(self, silent_ms: int) -> list[Output]:
        """The partition has been silent for so long: close what its clock would have closed by now."""
        if self.reliving or self._closed == NEVER:
            return []
        return self._close(self._clocks.partition + silent_ms - max(self._spec.idle_ms, self._spec.grace_ms))

    def _take(self, records: Records) -> list[Output]:
        fresh = self._read(records, self.counts)
        if not self._held and not self._clocks.leaps(fresh.ts, fresh.arrival):
            return self._admit(fresh)
        messages, begin = [], 0
        for row in self._doubtful(fresh):
            messages += self._admit(fresh.take(slice(begin, row)))
            messages += self._admit(self._believe(fresh.take(slice(row, row + 1))), together=True)
            begin = row + 1
        return messages + self._admit(fresh.take(slice(begin, len(fresh))))

    def _doubtful(self, fresh: Sessions) -> Iterator[int]:
        """Rows that leap ahead, or may decide on a session that is held; what is before each counts by then."""
        jump, clock = self._spec.max_jump_ms, self._clocks.partition
        columns = (column.tolist() for column in (fresh.server, fresh.ts, fresh.arrival))
        for row, (server, ts, arrival) in enumerate(zip(*columns, strict=True)):
            leaps = ts - clock > jump and abs(ts - arrival) > jump
            if leaps or server in self._held or self._soonest - max(clock, ts) <= jump:
                yield row
                clock = self._clocks.partition
            else:
                clock = max(clock, ts)

    def _read(self, records: Records, counts: Counter[str]) -> Sessions:
        """What is in records, but for what is none; in the order of the log."""
        decoded = decode(records, self._spec.limits, ENDED)
        counts["sessions"] += len(decoded) + len(decoded.rejects)
        for reason, count in decoded.rejects.reasons().items():
            _refuse(counts, reason, count)
        rows = decoded.row
        codes, code = np.unique(decoded.device, return_inverse=True)
        server = self._names.enter(decoded.names.gather(codes))[code]
        return Sessions(records.offsets[rows], server, decoded.ts, records.arrival[rows], measured(decoded))

    def _believe(self, one: Sessions) -> Sessions:
        """What counts now that this session is here: itself, held ones, or nothing."""
        waiting, before = list(self._held.values()), set(self._held)
        both = chained([*waiting, one])
        judgement = self._clocks.judge(both.server, both.ts, both.arrival, len(waiting))
        self._hold([both.take(np.array([at])) for at in judgement.held.tolist()])
        self._dirty.update(before ^ self._held.keys(), self._held.keys() & {int(one.server[0])})
        self._excluded += both.offset[judgement.refused].tolist()
        _refuse(self.counts, Reason.FUTURE, len(judgement.refused))
        return both.take(judgement.accepted)

    def _hold(self, sessions: Iterable[Sessions]) -> None:
        """Let these wait to be believed, and no others."""
        self._held = {int(one.server[0]): one for one in sessions}
        self._soonest = min((int(one.ts[0]) for one in self._held.values()), default=_NEVER_SOON)

    def _admit(self, sessions: Sessions, *, together: bool = False) -> list[Output]:
        """Sum what is not late, and close what has ended: session by session, or once all of them are in."""
        if not len(sessions):
            return []
        clock, grace = self._clocks.partition, self._spec.grace_ms
        if self._closed == NEVER:
            self._closed = _hour(int(sessions.ts.min() if together else sessions.ts[0]) - grace)
        before = np.maximum.accumulate(np.append(max(clock, self._closed), sessions.ts))[:-1]
        over = self._closed if together else np.maximum(self._closed, before - grace - (before - grace) % HOUR_MS)
        late = sessions.ts < over
        self.counts["late"] += int(np.count_nonzero(late))
        self._hours.add(sessions.take(~late))
        self._clocks.partition = max(clock, int(sessions.ts.max()))
        return self._close(self._clocks.partition - grace)

    def _punctuate(self, at: int, arrival: int) -> list[Output]:
        """Nothing that began before ``at`` is still to come."""
        told = [held for held in self._held.values() if held.ts[0] <= at]
        self._dirty.update(int(held.server[0]) for held in told)
        self._hold([held for held in self._held.values() if held.ts[0] > at])
        messages = self._admit(chained(told), together=True) if told else []
        if self._closed == NEVER:
            return messages
        if at > arrival + self._spec.limits.max_ahead_ms:  # no clock says so: only what is open is over
            at = min(at, _hour(self._clocks.partition) + HOUR_MS)
        return messages + self._close(at)

    def _close(self, now: int) -> list[Output]:
        """End the hours that are over at ``now``, and forecast from the end of each."""
        messages: list[Output] = []
        while self._closed < _hour(now):
            messages += self._issue(self._end(_hour(now)))
            for hour, rows in self._history.prune(self._closed).items():
                if hour in self._ended:
                    self._ended.remove(hour)  # nobody has heard of it
                else:
                    self._gone += hour_keys(self.scope, hour, rows)
        return messages

    def _end(self, until: int) -> list[tuple[int, list[str]]]:
        """End hours up to ``until``, a few at most; when each ended, and the servers that are there."""
        ends = []
        for _ in range(_AT_ONCE):
            if not len(self._history):
                first = self._hours.first
                self._closed = until if first is None else max(self._closed, min(first, until))
            if self._closed >= until:
                break
            hour = self._closed
            self._history.close(hour, self._hours.end(hour))
            self._ended.append(hour)
            self._closed = hour + HOUR_MS
            self.counts["hours"] += 1
            ends.append((self._closed, sorted(self._history[hour]["server"].to_pylist())))
        return ends

    def _issue(self, ends: list[tuple[int, list[str]]]) -> list[Output]:
        """Forecasts of servers that are there; one that is missing is forecast again once it is heard."""
        forecaster = self._champion.forecaster
        if forecaster is None or not any(servers for _, servers in ends):
            return []
        found = issue(forecaster, self._history.before, ends)
        self.counts["forecasts"] += len(found)
        return [forecast_message(self._topics.forecasts, self.topic, forecast) for forecast in found]

    # --- what must be remembered ---------------------------------------------------------------

    def checkpoint(self) -> list[Output]:
        """What changed since the last checkpoint, for the state topic."""
        records = [pair for hour in self._ended for pair in hour_records(self.scope, hour, self._history[hour])]
        for server, name in zip(sorted(self._dirty), self._names.pick(sorted(self._dirty)), strict=True):
            if server in self._held:
                records.append(held_record(self.scope, name, self._held[server]))
            else:
                self._gone.append(held_key(self.scope, name))
        # a held session that is believed after all opens its hour below the floor of today
        needed = min([self.floor, *(int(held.offset[0]) for held in self._held.values())])
        self._excluded = [offset for offset in self._excluded if offset >= needed]
        state = LoadState(self.next_offset, self.floor, self._clocks.partition, self._closed, self._excluded)
        records.append(partition_record(self.scope, self.number, state))
        gone, self._gone, self._ended = self._gone, [], []
        self._dirty.clear()
        messages: list[Output] = [Message(self._topics.load, *record, partition=self.number) for record in records]
        return [*messages, tombstones(self._topics.load, gone, self.number)] if gone else messages

    def recall(self, records: Mapping[bytes, bytes]) -> int | None:
        """Become what the last checkpoint was, once the log has been fed again from the offset returned."""
        then, hours, held = recall(self.scope, self.number, records)
        if then is None:
            return None
        self._history.recall(hours)
        names = Texts.of([name.encode() for name in held])
        numbers = self._names.enter(names).tolist()
        self._hold([one.session(server) for server, one in zip(numbers, held.values(), strict=True)])
        self.next_offset = then.next_offset
        self._clocks.partition, self._closed = then.clock, then.closed
        self._excluded = then.excluded
        self._then = then if then.floor < then.next_offset else None
        return then.floor

    def _relive(self, records: Records, then: LoadState) -> Records:
        """Put back into open hours what a former life took in; the records after it."""
        past = int(np.searchsorted(records.offsets, then.next_offset))
        old, new = records.part(0, past), records.part(past, len(records))
        sessions = self._read(old, Counter())
        out = [*self._excluded, *(int(held.offset[0]) for held in self._held.values())]
        # what was late then is before what is closed now
        counted = (sessions.ts >= self._closed) & ~np.isin(sessions.offset, np.array(out, np.int64))
        self._hours.add(sessions.take(counted))
        if len(new) or int(old.offsets[-1]) + 1 == then.next_offset:
            self._then = None
        return new


def _refuse(counts: Counter[str], reason: str, count: int) -> None:
    if count:
        counts["rejects"] += count
        counts[f"rejects.{reason}"] += count


def _hour(ts: int) -> int:
    return ts - ts % HOUR_MS
