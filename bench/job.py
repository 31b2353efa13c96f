"""The job every runner does: a topic of JSON readings, cut into tumbling windows whose number is known."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import msgspec
import numpy as np

from producers.batch import Batch, ReadingEncoder, columns_encoder, json_lines
from producers.publish import Published, Target, publish
from producers.sessions import COLUMNS
from scorers.statistics import Floats, Ints
from stream.sessions import LOADS
from stream.window import WindowSpec

START = 1_700_000_000_000
"""Event time of the first reading (epoch ms); a window begins here."""
INTERVAL_MS = 1_000
"""Every device sends one reading in each."""
SIZE_MS = 10_000
"""Length of a window."""
TICKS = SIZE_MS // INTERVAL_MS
"""Readings of a device in each window."""
CLOSING_MS = 30_000
"""From the end of the last window to the readings that close it: longer than any runner waits for stragglers."""
PROFILES = 500
"""Devices beyond these behave as one of these does, so that its model fits them too."""
_DESCRIBED = {
    "TrafficType": "http",
    "ServiceGrade": "silver",
    "HTTP1": 0,
    "ServerType": "web",
    "ClientIP": "172.16.4.20",
}
LIVE, PAST = 0, 1
"""What is measured, and what came before and models are trained on; a part of the seed."""


@dataclass(frozen=True, slots=True)
class Block:
    """The readings of one window of every device; rows are ticks, columns devices."""

    ts: Ints
    """Shape ``(ticks, devices)``, epoch ms."""
    cube: Floats
    """Shape ``(ticks, devices, metrics)``, two decimals."""


class SessionEncoder:
    """Columns in, JSON of the ``server.sessions`` contract out."""

    def __init__(self) -> None:
        self._row = columns_encoder(COLUMNS)
        self._encoder = msgspec.json.Encoder()

    def encode(self, servers: Sequence[str], ts: Ints, values: Floats) -> list[bytes]:
        """A session a row; what is not measured is the same in all, but for the start and the server."""
        start = np.datetime_as_string(ts.astype("datetime64[ms]"), timezone="UTC").tolist()
        columns: dict[str, Iterable[Any]] = {name: repeat(word) for name, word in _DESCRIBED.items()}
        columns |= {"SessionStart": start, "SessionEnd": start, "ServerIP": servers}
        columns |= dict(zip(LOADS, values.T.tolist(), strict=True))
        return json_lines(self._encoder, list(map(self._row, *(columns[name] for name in COLUMNS))))


@dataclass(frozen=True, slots=True)
class Job:
    """What is in the topic; the same job gives the same bytes."""

    windows: int
    """Windows of each device."""
    devices: int = 500
    metrics: int = 8
    seed: int = 1
    sessions: bool = False
    """Whether what is sent are sessions of servers: 17 columns each, of which ``LOADS`` are the metrics."""

    @classmethod
    def of(cls, readings: int, devices: int, metrics: int) -> "Job":
        """At least so many readings, in whole windows."""
        return cls(max(1, -(-readings // (devices * TICKS))), devices, metrics)

    @classmethod
    def of_sessions(cls, sessions: int, servers: int) -> "Job":
        """At least so many sessions, in whole windows."""
        return replace(cls.of(sessions, servers, len(LOADS)), sessions=True)

    @property
    def readings(self) -> int:
        """How many readings, or sessions, there are."""
        return self.windows * TICKS * self.devices

    @property
    def results(self) -> int:
        """How many windows they make."""
        return self.windows * self.devices

    def count(self, window: WindowSpec) -> int:
        """How many windows of another kind the last readings have closed; its lengths are whole seconds."""
        first = (START - window.size_ms) // window.hop_ms + 1
        begun = (self.end - 1) // window.hop_ms
        closed = (self.end + CLOSING_MS - window.grace_ms - window.size_ms) // window.hop_ms
        return max(0, min(begun, closed) - first + 1) * self.devices

    @property
    def end(self) -> int:
        """Event time at which the last window ends (epoch ms)."""
        return START + self.windows * SIZE_MS

    @property
    def names(self) -> list[str]:
        """Device ids."""
        return [f"device-{number:05d}" for number in range(self.devices)]

    @property
    def metric_names(self) -> list[str]:
        """Metrics of every device."""
        return list(LOADS) if self.sessions else [f"metric_{number:02d}" for number in range(self.metrics)]

    @property
    def encoder(self) -> "ReadingEncoder | SessionEncoder":
        """How they travel."""
        return SessionEncoder() if self.sessions else ReadingEncoder(self.metric_names)

    def block(self, window: int, era: int = LIVE) -> Block:
        """Window ``window`` of every device: a level of its own, a slow cycle, noise."""
        random = np.random.default_rng([self.seed, era, window])
        shape = (TICKS, self.devices, self.metrics)
        offset = (window * TICKS + np.arange(TICKS)) * INTERVAL_MS
        ts = START + offset[:, None] + random.integers(INTERVAL_MS, size=shape[:2])
        level = np.random.default_rng(self.seed).uniform(10, 100, (PROFILES, self.metrics))
        cycle = 0.05 * np.sin(offset / 600_000 * 2 * np.pi)[:, None, None]
        noise = 0.01 * random.standard_normal(shape)
        values = level[np.arange(self.devices) % PROFILES] * (1 + cycle + noise)
        return Block(ts, np.round(values, 2))

    def batches(self, era: int = LIVE, windows: int | None = None) -> Iterator[Batch]:
        """Every reading as it travels, in order of event time."""
        encoder = self.encoder
        for window in range(self.windows if windows is None else windows):
            devices, ts, values = self.rows(window, era)
            yield Batch([name.encode() for name in devices], encoder.encode(devices, ts, values), ts)

    def rows(self, window: int, era: int = LIVE) -> tuple[list[str], Ints, Floats]:
        """The readings of a window in order of event time: device, epoch ms and values of each."""
        block = self.block(window, era)
        order = np.argsort(block.ts.ravel(), kind="stable")
        names = np.array(self.names, dtype=object)[order % self.devices]
        return names.tolist(), block.ts.ravel()[order], block.cube.reshape(-1, self.metrics)[order]

    def load(self, target: Target) -> Published:
        """Fill the topic; last comes one reading more of each device, from after every window has closed."""
        return publish(chain(self.batches(), [self.last()]), target)

    def last(self) -> Batch:
        """A reading more of each device, from after every window has closed."""
        keys = [name.encode() for name in self.names]
        ts = np.full(self.devices, self.end + CLOSING_MS)
        values = self.encoder.encode(self.names, ts, np.zeros((self.devices, self.metrics)))
        return Batch(keys, values, ts)
