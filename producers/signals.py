"""The healthy signal of one device type: loads, surroundings, cycles, noise and drift, all devices at once."""

from dataclasses import dataclass

import numpy as np

from producers.batch import Floats, Ints
from producers.devices import AMBIENT_SWING, LOAD_SWING, DeviceType

DAY_MS = 86_400_000
NOISE_MS = 2_000
"""Time constant of the measurement noise."""
AMBIENT_MS = 300_000
"""Time constant of the ambient temperature."""
MEAN_LOAD = 0.55
DAILY_LOAD = 0.05
DAILY_AMBIENT = 2.0
OFFSET = 0.04
"""Spread between devices of one type, as a fraction of a metric's typical value."""
WEAR = 0.2
"""Spread of the slow drift, in spreads a day."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Readings of the ``d`` devices of one type over ``t`` ticks.

    ``devices`` has ``d`` ids, ``ts`` shape ``(t, d)`` int64 epoch ms, ``values`` shape ``(t, d, m)`` float64 with
    NaN where a metric is absent, ``load`` shape ``(t, d)`` the load behind them as a fraction of full load.
    """

    kind: DeviceType
    devices: list[str]
    ts: Ints
    values: Floats
    load: Floats

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the last axis of ``values``."""
        return self.kind.names


class Signal:
    """The running signal of the devices of one type. Every draw is made tick by tick, so batching changes nothing."""

    def __init__(
        self, kind: DeviceType, devices: list[str], *, seed: list[int], interval_ms: int, swing_ms: int
    ) -> None:
        self.kind = kind
        self.devices = devices
        self._interval = interval_ms
        fixed, shocks, jitter = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
        self._shocks, self._jitter = shocks, jitter
        self._place(fixed)
        self._recall = _recall(kind, interval_ms, swing_ms)
        self._state = shocks.standard_normal((len(devices), len(self._recall)))

    def _place(self, draw: np.random.Generator) -> None:
        """What stays fixed: offsets, wear, the phase of the day and the moment within the interval."""
        shape = (len(self.devices), len(self.kind.metrics))
        spread = self.kind.column("spread")
        self._offset = self.kind.column("typical") * (1 + OFFSET * draw.standard_normal(shape))
        self._wear = WEAR * spread * draw.standard_normal(shape) / DAY_MS
        self._phase = draw.normal(0.0, 0.03, shape[0])
        self._moment = draw.integers(0, max(1, self._interval * 8 // 10), shape[0])

    def frame(self, start: int, ticks: Ints) -> Frame:
        """The readings of the given ticks (consecutive, each asked for once) counted from ``start`` (epoch ms)."""
        at = start + ticks * self._interval
        walk = self._walk(len(ticks))
        day = 2 * np.pi * (((at % DAY_MS) / DAY_MS)[:, None] + self._phase)
        load = MEAN_LOAD - DAILY_LOAD * np.cos(day) + LOAD_SWING * walk[..., 0]
        ambient = -DAILY_AMBIENT * np.cos(day) + AMBIENT_SWING * walk[..., 1]
        values = walk[..., 2:] * self.kind.column("noise")
        values += self._offset + self._wear * (at - start)[:, None, None]
        values += (load - MEAN_LOAD)[..., None] * self.kind.column("load")
        values += ambient[..., None] * self.kind.column("ambient")
        return Frame(self.kind, self.devices, self._stamps(at), values, load)

    def _walk(self, ticks: int) -> Floats:
        """First-order autoregressive noise of unit variance, shape ``(ticks, d, 2 + m)``: load, ambient, metrics."""
        walk = self._shocks.standard_normal((ticks, *self._state.shape))
        walk *= np.sqrt(1 - self._recall**2)
        for tick in range(ticks):
            walk[tick] += self._recall * self._state
            self._state = walk[tick].copy()
        return walk

    def _stamps(self, at: Ints) -> Ints:
        """Each device at its own moment within the interval plus a jitter below a tenth of it."""
        jitter = self._jitter.random((len(at), len(self.devices))) * (self._interval / 10)
        return at[:, None] + self._moment + jitter.astype(np.int64)


def _recall(kind: DeviceType, interval_ms: int, swing_ms: int) -> Floats:
    """How much of each walk survives one tick, shape ``(2 + m,)``."""
    constants = np.array([swing_ms, AMBIENT_MS] + [NOISE_MS] * len(kind.metrics), dtype=np.float64)
    return np.exp(-interval_ms / constants)
