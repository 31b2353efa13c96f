"""The simulated server fleet: sessions with the 17 columns of the workload log, daily and weekly cycles."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from producers.batch import Batch, Floats, Ints, columns_encoder, json_lines
from producers.schedule import Schedule, seed_of
from scorers.errors import ConfigError
from stream.contracts import Fault

COLUMNS = (
    "TrafficType",
    "SessionStart",
    "SessionEnd",
    "ConcurrentConnectionCounts",
    "MbytesTransferred",
    "ServiceGrade",
    "HTTP1",
    "ServerType",
    "SubService_1_Load",
    "SubService_2_Load",
    "SubService_3_Load",
    "SubService_4_Load",
    "SubService_5_Load",
    "SecureBytes_Load",
    "TotalLoad",
    "ServerIP",
    "ClientIP",
)
"""The log's columns in their real order."""

KINDS = {"surge": 4.0, "loss": 0.95}
"""Faults of a server and their usual magnitude: traffic times this, and the share of sessions that vanish."""

DAY_MS = 86_400_000
_MINUTE_MS = 60_000
CLIENTS = [f"172.16.{number // 256}.{number % 256}" for number in range(4096)]
GRADES = ("bronze", "silver", "gold")
LOADS = ("SubService_1_Load", "SubService_2_Load", "SubService_3_Load", "SubService_4_Load", "SubService_5_Load")


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of server: its busiest hour (UTC), the depth of its day, its weekend, and what its sessions look like."""

    name: str
    traffic: str
    peak_hour: float
    depth: float
    weekend: float
    megabytes: float
    minutes: float
    shares: tuple[float, float, float, float, float, float]
    """Part of the load by sub-service 1 to 5 and secure bytes."""


GROUPS = (
    Group("web", "http", 14.0, 0.6, 0.7, 3.0, 4.0, (0.35, 0.2, 0.15, 0.1, 0.05, 0.15)),
    Group("media", "stream", 20.0, 0.8, 1.4, 60.0, 25.0, (0.1, 0.55, 0.1, 0.1, 0.1, 0.05)),
    Group("api", "rpc", 11.0, 0.5, 0.4, 0.8, 1.0, (0.15, 0.1, 0.4, 0.1, 0.05, 0.2)),
    Group("batch", "bulk", 2.0, 0.7, 1.0, 150.0, 40.0, (0.05, 0.05, 0.1, 0.5, 0.25, 0.05)),
)
"""Server number ``n`` of a fleet belongs to group ``n mod 4``."""


@dataclass(frozen=True, slots=True)
class ServerFleet:
    """A server fleet to simulate; the same spec gives the same bytes.

    ``start`` is epoch ms, ``rate`` the mean sessions per server and second, ``interval_ms`` the grain of
    simulated time, ``fault_rate`` the random faults per server and hour, ``fault_ms`` their mean duration.
    """

    servers: int
    seed: int = 0
    start: int = 0
    rate: float = 1.0
    interval_ms: int = 1_000
    fault_rate: float = 0.0
    fault_ms: int = 600_000

    def __post_init__(self) -> None:
        if min(self.servers, self.interval_ms, self.fault_ms) < 1:
            raise ConfigError(
                "A fleet needs servers, interval_ms and fault_ms of at least 1; raise the one that is not."
            )
        if not 0 < self.rate < np.inf or not 0 <= self.fault_rate < np.inf:
            raise ConfigError(
                f"rate is {self.rate} and fault_rate {self.fault_rate}; give sessions above 0, faults from 0."
            )

    def build(self) -> "Servers":
        """A fleet at its first tick."""
        return Servers(self)


@dataclass(frozen=True, slots=True)
class Sessions:
    """``n`` sessions in columns: the server's number and start (epoch ms), int64 ``(n,)``; draws behind the rest.

    ``normal`` has shape ``(n, 8)``, ``uniform`` ``(n, 3)``.
    """

    server: Ints
    start: Ints
    normal: Floats
    uniform: Floats

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Sessions":
        """The chosen sessions, in that order."""
        return Sessions(self.server[rows], self.start[rows], self.normal[rows], self.uniform[rows])


class _Source:
    """Random sessions, drawn tick by tick, so that batching changes nothing."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._counts, self._normal, self._uniform = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
        )

    def draw(self, at: Ints, mean: Floats, servers: Ints, interval_ms: int) -> Sessions:
        """Poisson sessions of ``mean`` ``(t, s)`` in each tick ``at`` ``(t,)`` for ``servers`` ``(s,)``."""
        counts = self._counts.poisson(mean).ravel()
        server = np.tile(servers, len(at)).repeat(counts)
        tick = at.repeat(len(servers)).repeat(counts)
        uniform = self._uniform.random((len(server), 3))
        start = tick + (uniform[:, 0] * interval_ms).astype(np.int64)
        return Sessions(server, start, self._normal.standard_normal((len(server), 8)), uniform)

    def lost(self, sessions: Sessions, server: int, fault: Fault) -> NDArray[np.bool_]:
        """Which sessions of ``server`` a loss takes, shape ``(n,)``."""
        gone: NDArray[np.bool_] = (sessions.server == server) & _within(fault, sessions.start)
        gone[gone] = self._uniform.random(int(gone.sum())) < fault.magnitude
        return gone


class Servers:
    """A running server fleet. Time is simulated: it moves only as batches are taken."""

    def __init__(self, spec: ServerFleet) -> None:
        self.spec = spec
        self.ips = [address(number) for number in range(spec.servers)]
        fixed = np.random.default_rng([spec.seed, 1])
        self._scale = np.exp(fixed.normal(0.0, 0.3, spec.servers))
        self._source = _Source([spec.seed, 2])
        self._sources: dict[str, _Source] = {}
        self._schedule = Schedule(self._random_fault, spec.fault_rate, spec.servers, start=spec.start, seed=spec.seed)
        self._row = columns_encoder(COLUMNS)
        self._json = msgspec.json.Encoder()
        self._tick = 0

    @property
    def now(self) -> int:
        """Event time (epoch ms) up to which sessions have been given."""
        return self.spec.start + self._tick * self.spec.interval_ms

    def fault(self, server: str, kind: str, *, start: int, duration_ms: int) -> Fault:
        """A fault of usual magnitude, to be given to ``inject``.

        Raises:
            ConfigError: no such server or kind.
        """
        if kind not in KINDS:
            raise ConfigError(f"There is no server fault {kind!r}; use one of {', '.join(KINDS)}.")
        self._number(server)
        return Fault(f"{server}-{kind}-{start}", server, kind, ["TotalLoad"], start, start + duration_ms, KINDS[kind])

    def inject(self, *faults: Fault) -> None:
        """Schedule faults; each is announced by the batch in which it begins.

        Raises:
            ConfigError: unknown server or kind, a start before ``now``, or an overlap with another fault.
        """
        for fault in faults:
            self.fault(fault.device_id, fault.kind, start=fault.start, duration_ms=1)
            self._schedule.add(fault, now=self.now)

    def sessions(self, ticks: int) -> tuple[Sessions, tuple[Fault, ...]]:
        """The sessions that start in the next ``ticks``, in order of start, and the faults that begin."""
        spec, since = self.spec, self.now
        at = since + np.arange(ticks) * spec.interval_ms
        self._tick += ticks
        begun, underway = self._schedule.advance(since, self.now)
        self._sources = {fault.fault_id: self._fault_source(fault) for fault in underway}
        everyone = np.arange(spec.servers)
        parts = [self._source.draw(at, self._mean(at, everyone), everyone, spec.interval_ms)]
        for fault in underway:
            parts = self._apply(fault, parts, at)
        order = np.argsort(np.concatenate([part.start for part in parts]), kind="stable")
        return _concat(parts).take(order), begun

    def batches(self, rows: int = 8_192) -> Iterator[Batch]:
        """Endless batches of about ``rows`` sessions, at least one tick each; their size changes no byte."""
        per_tick = self.spec.servers * self.spec.rate * self.spec.interval_ms / 1_000
        ticks = max(1, int(rows / per_tick))
        while True:
            sessions, faults = self.sessions(ticks)
            table = self.columns(sessions)
            lines = json_lines(self._json, list(map(self._row, *(table[name] for name in COLUMNS))))
            yield Batch([ip.encode() for ip in table["ServerIP"]], lines, sessions.start, faults)

    def columns(self, sessions: Sessions) -> Mapping[str, list[Any]]:
        """The 17 columns in their real order; times are ISO-8601 UTC."""
        load = 0.5 * np.exp(0.5 * sessions.normal[:, 0])
        columns: dict[str, list[Any]] = table(sessions, load, self.ips).to_pydict()
        return columns

    def _mean(self, at: Ints, servers: Ints) -> Floats:
        """Expected sessions per tick, shape ``(t, s)``."""
        groups = servers % len(GROUPS)
        hour = (at % DAY_MS / 3_600_000)[:, None]
        weekday = ((at // DAY_MS + 3) % 7)[:, None]  # 1970-01-01 was a Thursday
        cycle = 1 + _of(groups, "depth") * np.cos((hour - _of(groups, "peak_hour")) * (2 * np.pi / 24))
        week = np.where(weekday >= 5, _of(groups, "weekend"), 1.0)  # noqa: PLR2004 - Saturday and Sunday
        return self.spec.rate * self.spec.interval_ms / 1_000 * self._scale[servers] * cycle * week

    def _apply(self, fault: Fault, parts: list[Sessions], at: Ints) -> list[Sessions]:
        """A surge adds sessions to its server, a loss takes some of them away."""
        server = np.array([self._number(fault.device_id)])
        source = self._sources[fault.fault_id]
        if fault.kind == "surge":
            during = at[(at + self.spec.interval_ms > fault.start) & (at < fault.end)]
            mean = self._mean(during, server) * (fault.magnitude - 1)
            extra = source.draw(during, mean, server, self.spec.interval_ms)
            return [*parts, extra.take(_within(fault, extra.start))]
        return [part.take(~source.lost(part, server[0], fault)) for part in parts]

    def _fault_source(self, fault: Fault) -> _Source:
        return self._sources.get(fault.fault_id) or _Source([self.spec.seed, seed_of(fault.fault_id)])

    def _random_fault(self, number: int, start: int, random: np.random.Generator) -> Fault:
        kind = sorted(KINDS)[int(random.integers(len(KINDS)))]
        return self.fault(
            self.ips[number], kind, start=start, duration_ms=int(self.spec.fault_ms * random.uniform(0.5, 1.5))
        )

    def _number(self, server: str) -> int:
        try:
            return self.ips.index(server)
        except ValueError as error:
            raise ConfigError(
                f"The fleet has no server {server!r}; addresses go from {self.ips[0]} to {self.ips[-1]}."
            ) from error


def table(sessions: Sessions, load: Floats, ips: Sequence[str]) -> pa.Table:
    """The 17 columns of ``n`` sessions in their real order, times as ISO-8601 UTC text.

    ``load`` ``(n,)`` is about what each comes to; ``ips`` are the addresses of the servers by number.
    """
    groups = sessions.server % len(GROUPS)
    normal, uniform = sessions.normal, sessions.uniform
    parts = np.round(load[:, None] * _of(groups, "shares") * np.exp(0.3 * normal[:, 1:7]), 4)
    minutes = _of(groups, "minutes") * np.exp(0.6 * normal[:, 7])
    traffic = np.sqrt(load * 0.5 * np.exp(0.5 * normal[:, 0]))  # heavy sessions move more, though not as much
    megabytes = _of(groups, "megabytes") * traffic * np.exp(0.4 * normal[:, 6])
    filled = {
        "TrafficType": _words(groups, [group.traffic for group in GROUPS]),
        "SessionStart": stamped(sessions.start),
        "SessionEnd": stamped(sessions.start + (minutes * 60_000).astype(np.int64)),
        "ConcurrentConnectionCounts": np.rint(40 * traffic + 8 * uniform[:, 1]).astype(np.int64),
        "MbytesTransferred": np.round(megabytes, 3),
        "ServiceGrade": _words((uniform[:, 2] * len(GRADES)).astype(np.int64), GRADES),
        "HTTP1": (uniform[:, 1] < 0.3).astype(np.int64),  # noqa: PLR2004 - share of old clients
        "ServerType": _words(groups, [group.name for group in GROUPS]),
        "SecureBytes_Load": parts[:, 5],
        "TotalLoad": np.round(parts.sum(axis=1), 4),
        "ServerIP": _words(sessions.server, ips),
        "ClientIP": _words((uniform[:, 2] * len(CLIENTS)).astype(np.int64), CLIENTS),
    }
    filled |= {name: parts[:, place] for place, name in enumerate(LOADS)}
    return pa.table({name: filled[name] for name in COLUMNS})


def to_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """The sessions as the original log has them: CSV without header, in the real column order."""
    return lines(pa.table(dict(columns)))


def lines(sessions: pa.Table) -> bytes:
    """The same of a table; cells without commas and quotes, as ours are."""
    buffer = io.BytesIO()
    csv.write_csv(sessions, buffer, csv.WriteOptions(include_header=False, quoting_style="none"))
    return buffer.getvalue()


def address(number: int) -> str:
    """The IP of a fleet's server."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _concat(parts: Sequence[Sessions]) -> Sessions:
    names = ("server", "start", "normal", "uniform")
    return Sessions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _within(fault: Fault, start: Ints) -> NDArray[np.bool_]:
    return (start >= fault.start) & (start < fault.end)


def _of(groups: Ints, field: str) -> Floats:
    """One field of each session's group."""
    return np.array([getattr(group, field) for group in GROUPS], dtype=np.float64)[groups]


def _words(codes: Ints, words: Sequence[str]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(codes))


def stamped(ts: Ints) -> pa.Array:
    """Moments ``(n,)`` (epoch ms) as ISO-8601 UTC text, put together from the minute and the milliseconds in it."""
    minute, rest = np.divmod(ts, _MINUTE_MS)
    distinct, which = np.unique(minute, return_inverse=True)
    minutes = np.char.add(np.datetime_as_string(distinct.astype("datetime64[m]")).astype("S16"), b":")
    text = np.empty(len(ts), dtype=[("minute", "S17"), ("rest", "S7")])
    text["minute"] = minutes[which]
    text["rest"] = _rests()[rest]
    ends = np.arange(len(ts) + 1, dtype=np.int32) * text.itemsize
    return pa.StringArray.from_buffers(len(ts), pa.py_buffer(ends), pa.py_buffer(text))


@cache
def _rests() -> NDArray[np.bytes_]:
    """Seconds and milliseconds of every millisecond in a minute."""
    return np.array([f"{ms // 1000:02}.{ms % 1000:03}Z" for ms in range(_MINUTE_MS)], "S7")
