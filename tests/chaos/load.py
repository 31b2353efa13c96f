"""What goes in, and what must come of it: readings whose windows, rejects and alerts are known as they are made."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import pandas as pd

from producers.sessions import ServerFleet
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.train import fit_fleet
from stream.contracts import Reason
from stream.decode import Limits
from stream.window import WindowSpec
from tests.simulator import summarise

WINDOW = WindowSpec(size_ms=10_000, hop_ms=10_000, grace_ms=2_000, idle_ms=180_000)
"""A quiet device waits longer than any outage here lasts: outages then close nothing that the log would not."""
METRICS = ("flow", "pressure", "temperature")
LEVELS = np.array([20.0, 3.0, 70.0])
SPREADS = np.array([0.5, 0.1, 1.0])
TICK_MS = 1_000
"""Every device sends one reading in each."""
LATE_MS = WINDOW.size_ms + WINDOW.grace_ms + 20_000
FUTURE_MS = 1_800_000
SERVERS = 24
LARGE = 1_000

Sent = tuple[bytes, bytes]
"""Key and value of a record."""
Row = tuple[int, int, tuple[float, ...]]
"""Device number, timestamp and values of a reading that counts."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How much there is of it; ``start`` is epoch ms and lies so far back that nothing reaches the present."""

    seed: int
    start: int
    devices: int = 400


@dataclass(frozen=True, slots=True)
class Tick:
    """What is sent in one second of event time."""

    readings: list[Sent]
    sessions: list[Sent]


@dataclass(slots=True)
class Truth:
    """What must come of all that was sent so far."""

    rows: list[Row] = field(default_factory=list)
    rejects: Counter[tuple[bytes, bytes, str]] = field(default_factory=Counter)
    """Key, ``short`` bytes and reason of every record that must be rejected."""
    sent: int = 0
    """Records of the readings topic."""
    sessions: int = 0

    def reject(self, record: Sent, reason: Reason) -> Sent:
        """Account for a record that must be rejected."""
        key, value = record
        self.rejects[(key, short(value), reason.value)] += 1
        return record

    def windows(self) -> pd.DataFrame:
        """Every window by device and start: ``count``, and ``mean``, ``min`` and ``max`` of each metric."""
        device, ts, values = zip(*self.rows, strict=True)
        frame = pd.DataFrame(values, columns=list(METRICS))
        frame["device"] = np.char.add("dev-", np.array(device).astype(str))
        frame["start"] = np.array(ts) // WINDOW.size_ms * WINDOW.size_ms
        wanted = {f"{name}_{how}": (name, how) for name in METRICS for how in ("mean", "min", "max")}
        return frame.groupby(["device", "start"]).agg(count=(METRICS[0], "size"), **wanted)


class Load:
    """A fleet with all that goes wrong in the field, seeded; ``truth`` grows as ticks are taken."""

    def __init__(self, spec: LoadSpec) -> None:
        self.truth = Truth()
        self.now = spec.start
        """Event time of the next tick, epoch ms."""
        self._spec = spec
        self._chance = random.Random(spec.seed)
        self._noise = np.random.default_rng(spec.seed)
        self._delayed: list[Sent] = []
        self._quiet = dict.fromkeys(range(spec.devices), 0)
        self._odd = dict.fromkeys(range(spec.devices), 0)
        servers = ServerFleet(SERVERS, seed=spec.seed, start=spec.start).build()
        self._sessions = servers.batches(1)

    def tick(self) -> Tick:
        """The next second of event time."""
        readings: list[Sent] = []
        overdue, self._delayed = self._delayed, []
        values = np.round(LEVELS + SPREADS * self._noise.standard_normal((self._spec.devices, 3)), 4)
        for device in range(self._spec.devices):
            readings += self._moment(device, values[device])
        readings += overdue
        self.now += TICK_MS
        batch = next(self._sessions)
        sessions = list(zip(batch.keys, batch.values, strict=True))
        self.truth.sent += len(readings)
        self.truth.sessions += len(sessions)
        return Tick(readings, sessions)

    def rest(self) -> list[Sent]:
        """What was still on its way."""
        rest, self._delayed = self._delayed, []
        self.truth.sent += len(rest)
        return rest

    def poison(self, count: int) -> list[Sent]:
        """Records that are no readings."""
        self.truth.sent += count
        return [self._poison(self._chance.randrange(self._spec.devices)) for _ in range(count)]

    @property
    def end(self) -> int:
        """No reading is later, epoch ms."""
        return self.now + FUTURE_MS

    def _moment(self, device: int, values: np.ndarray) -> Iterator[Sent]:
        """What a device sends in this tick."""
        chance = self._chance
        if self._quiet[device] > self.now:
            return
        if chance.random() < 0.0005:
            self._quiet[device] = self.now + chance.randrange(20, 120) * TICK_MS
        if chance.random() < 0.0005:
            self._odd[device] = self.now + chance.randrange(30, 120) * TICK_MS
        if self._odd[device] > self.now:
            values = np.round(values + 8 * SPREADS, 4)
        ts = self.now + chance.randrange(TICK_MS // 2 - 1)
        record = self._accept(device, ts, values)
        fate = chance.random()
        if fate < 0.02 and self.now > self._spec.start:
            self._delayed.append(record)
            return
        yield record
        yield from self._trouble(device, record, ts, fate)

    def _trouble(self, device: int, record: Sent, ts: int, fate: float) -> Iterator[Sent]:
        """What comes with a reading now and then."""
        truth, usual = self.truth, tuple(LEVELS.tolist())
        if 0.02 <= fate < 0.025:
            yield truth.reject(record, Reason.DUPLICATE)
        elif fate < 0.030:
            # half a tick more: no reading that counts has this stamp
            yield truth.reject(reading(device, ts - LATE_MS + TICK_MS // 2, usual), Reason.LATE)
        elif fate < 0.032:
            yield truth.reject(reading(device, ts + FUTURE_MS, usual), Reason.FUTURE)
            yield self._accept(device, ts + 1, LEVELS)
        elif fate < 0.035:
            yield self._poison(device)

    def _poison(self, device: int) -> Sent:
        reason, poison = self._chance.choice(POISON)
        return self.truth.reject((b"dev-%d" % device, poison(self.now)), reason)

    def _accept(self, device: int, ts: int, values: np.ndarray) -> Sent:
        row = (device, ts, tuple(values.tolist()))
        self.truth.rows.append(row)
        return reading(*row)


def short(value: bytes) -> bytes:
    """A value, or what stands for it where it is too large to keep."""
    return value if len(value) < LARGE else blake2b(value).digest()


def reading(device: int, ts: int, values: tuple[float, ...]) -> Sent:
    """One record of the readings topic."""
    told = ", ".join(f'"{name}": {value}' for name, value in zip(METRICS, values, strict=True))
    return b"dev-%d" % device, f'{{"device_id": "dev-{device}", "ts": {ts}, "values": {{{told}}}}}'.encode()


def models(spec: LoadSpec) -> Fleet:
    """What every device measures while nothing is odd, for all but every tenth of them."""
    noise = np.random.default_rng(spec.seed).standard_normal((6_000, 3))
    statistics = replace(summarise(LEVELS + SPREADS * noise), metrics=METRICS)
    known = [f"dev-{number}" for number in range(spec.devices) if number % 10]
    model = fit_fleet({"any": statistics}, TrainSpec()).models["any"]
    return Fleet.of(dict.fromkeys(known, model), "chaos")


Poison = Callable[[int], bytes]
"""Bytes, given the event time."""


def _json(template: str) -> Poison:
    return lambda now: template.replace("@", str(now)).encode()


POISON: tuple[tuple[Reason, Poison], ...] = (
    (Reason.EMPTY, _json("")),
    (Reason.MALFORMED, _json("junk")),
    (Reason.MALFORMED, _json("[1, 2]")),
    (Reason.MALFORMED, lambda now: b"\xff\xfe %d" % now),
    (Reason.MALFORMED, _json('{"device_id": "dev-1", "ts": @, "values": {"flow": 1')),
    (Reason.MISSING_FIELD, _json("{}")),
    (Reason.MISSING_FIELD, _json('{"device_id": "dev-1", "values": {"flow": 1}}')),
    (Reason.WRONG_TYPE, _json('{"device_id": 7, "ts": @, "values": {"flow": 1}}')),
    (Reason.WRONG_TYPE, _json('{"device_id": "dev-1", "ts": @, "values": {"flow": "hot"}}')),
    (Reason.NOT_FINITE, _json('{"device_id": "dev-1", "ts": @, "values": {"flow": 1e999}}')),
    (Reason.NO_VALUES, _json('{"device_id": "dev-1", "ts": @, "values": {}}')),
    (Reason.BAD_TIMESTAMP, _json('{"device_id": "dev-1", "ts": 5, "values": {"flow": 1}}')),
    (Reason.BAD_TIMESTAMP, _json('{"device_id": "dev-1", "ts": "noon", "values": {"flow": 1}}')),
    (Reason.TOO_LARGE, lambda _: b"x" * (Limits().max_bytes + 1)),
)
"""Records that are no readings, and why."""
