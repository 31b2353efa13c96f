"""The simulated sensor fleet: any number of devices, correlated metrics, faults with ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from producers.batch import Batch, ReadingEncoder
from producers.devices import DEVICE_TYPES, DeviceType
from producers.faults import KINDS, Active, check, usual
from producers.schedule import Schedule, seed_of
from producers.signals import Frame, Signal
from scorers.errors import ConfigError
from stream.contracts import Fault


@dataclass(frozen=True, slots=True)
class SensorFleet:
    """A fleet to simulate; the same spec gives the same bytes.

    ``start`` is the event time of the first tick (epoch ms), ``interval_ms`` the time between a device's readings,
    ``fault_rate`` the random faults per device and hour, ``fault_ms`` their mean duration, ``swing_ms`` the time
    constant of the load.
    """

    devices: int
    seed: int = 0
    interval_ms: int = 1_000
    start: int = 0
    fault_rate: float = 0.0
    fault_ms: int = 60_000
    swing_ms: int = 20_000

    def __post_init__(self) -> None:
        if min(self.devices, self.interval_ms, self.swing_ms) < 1:
            raise ConfigError(
                "A fleet needs devices, interval_ms and swing_ms of at least 1; raise the one that is not."
            )
        if not 0 <= self.fault_rate < np.inf:
            raise ConfigError(f"fault_rate is {self.fault_rate}; give faults per device and hour, 0 or more.")
        if self.fault_ms < 2 * self.interval_ms:
            raise ConfigError(
                f"fault_ms is {self.fault_ms}; make it at least twice the interval of {self.interval_ms}."
            )

    def build(self) -> "Fleet":
        """A fleet at its first tick."""
        return Fleet(self)


class Fleet:
    """A running fleet. Time is simulated: it moves only as batches are taken."""

    def __init__(self, spec: SensorFleet) -> None:
        self.spec = spec
        self._tick = 0
        self._ids = _device_ids(spec.devices)
        self._signals = [
            Signal(kind, ids, seed=[spec.seed, place], interval_ms=spec.interval_ms, swing_ms=spec.swing_ms)
            for place, (kind, ids) in enumerate(zip(DEVICE_TYPES, self._ids, strict=True))
            if ids
        ]
        self._encoders = [ReadingEncoder(signal.kind.names) for signal in self._signals]
        self._names = np.array([name for ids in self._ids for name in ids], dtype=object)
        self._keys = np.array([name.encode() for name in self._names], dtype=object)
        self._schedule = Schedule(self._random_fault, spec.fault_rate, spec.devices, start=spec.start, seed=spec.seed)
        self._active: dict[str, Active] = {}

    @property
    def now(self) -> int:
        """Event time (epoch ms) up to which readings have been given; a fault may begin here or later."""
        return self.spec.start + self._tick * self.spec.interval_ms

    @property
    def devices(self) -> list[str]:
        """Every device id."""
        return [name for ids in self._ids for name in ids]

    def fault(self, device: str, kind: str, *, start: int, duration_ms: int) -> Fault:
        """A fault of usual metrics and magnitude; change it with ``msgspec.structs.replace``, then ``inject`` it.

        Raises:
            ConfigError: no such device or kind.
        """
        name = f"{device}-{kind}-{start}"
        metrics, magnitude = usual(kind, self._kind(device), np.random.default_rng(seed_of(name)))
        return Fault(name, device, kind, metrics, start, start + duration_ms, magnitude)

    def inject(self, *faults: Fault) -> None:
        """Schedule faults; each is announced by the batch in which it begins.

        Raises:
            ConfigError: a fault begins before ``now``, overlaps another of its device, or does not fit the device.
        """
        for fault in faults:
            check(fault, self._kind(fault.device_id))
            self._schedule.add(fault, now=self.now)

    def frames(self, ticks: int) -> tuple[list[Frame], tuple[Fault, ...]]:
        """The next ``ticks`` readings of every device, one frame a device type, and the faults that begin."""
        since = self.now
        steps = np.arange(self._tick, self._tick + ticks)
        self._tick += ticks
        begun, underway = self._schedule.advance(since, self.now)
        frames = [signal.frame(self.spec.start, steps) for signal in self._signals]
        self._active = {fault.fault_id: self._active.get(fault.fault_id) or Active(fault) for fault in underway}
        for active in self._active.values():
            place, column = self._place(active.fault.device_id)
            active.apply(frames[place], column)
        for frame in frames:
            _round(frame)
        return frames, begun

    def batches(self, rows: int = 8_192) -> Iterator[Batch]:
        """Endless batches of about ``rows`` readings, at least one tick each; their size changes no byte.

        A fault injected between two batches takes part from the next one on: take few rows to inject live.
        """
        ticks = max(1, rows // self.spec.devices)
        while True:
            frames, faults = self.frames(ticks)
            yield self._encode(frames, faults)

    def _encode(self, frames: list[Frame], faults: tuple[Fault, ...]) -> Batch:
        """All types in one batch, ordered by event time."""
        ts = np.concatenate([frame.ts for frame in frames], axis=1)
        order = np.argsort(ts, axis=1, kind="stable")
        lines = [_lines(encoder, frame) for encoder, frame in zip(self._encoders, frames, strict=True)]
        values = np.take_along_axis(np.concatenate(lines, axis=1), order, axis=1)
        stamps = np.take_along_axis(ts, order, axis=1)
        return Batch(self._keys[order].ravel().tolist(), values.ravel().tolist(), stamps.ravel(), faults)

    def _random_fault(self, number: int, start: int, random: np.random.Generator) -> Fault:
        kind = KINDS[int(random.integers(len(KINDS)))]
        duration = int(self.spec.fault_ms * random.uniform(0.5, 1.5))
        return self.fault(str(self._names[number]), kind, start=start, duration_ms=duration)

    def _kind(self, device: str) -> DeviceType:
        return self._signals[self._place(device)[0]].kind

    def _place(self, device: str) -> tuple[int, int]:
        """Which signal a device belongs to, and its column there."""
        name, _, number = device.rpartition("-")
        for place, signal in enumerate(self._signals):
            if signal.kind.name == name and number.isdigit() and device in signal.devices[int(number) - 1 :][:1]:
                return place, int(number) - 1
        first, last = self._names[0], self._names[-1]
        raise ConfigError(f"The fleet has no device {device!r}; ids go from {first!r} to {last!r}.")


def _device_ids(devices: int) -> list[list[str]]:
    """Ids such as ``pump-0007`` by device type; the types take turns."""
    width = max(4, len(str(devices)))
    return [
        [f"{kind.name}-{number:0{width}d}" for number in range(1, len(range(place, devices, len(DEVICE_TYPES))) + 1)]
        for place, kind in enumerate(DEVICE_TYPES)
    ]


def _round(frame: Frame) -> None:
    """Each metric to the decimals its sensor gives."""
    for column, metric in enumerate(frame.kind.metrics):
        np.round(frame.values[..., column], metric.decimals, out=frame.values[..., column])


def _lines(encoder: ReadingEncoder, frame: Frame) -> NDArray[np.object_]:
    """The frame's readings as JSON, shape ``(t, d)``."""
    ticks, devices = frame.ts.shape
    lines = encoder.encode(frame.devices * ticks, frame.ts.ravel(), frame.values.reshape(ticks * devices, -1))
    return np.array(lines, dtype=object).reshape(ticks, devices)
