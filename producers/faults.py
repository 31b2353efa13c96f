"""Faults of the sensor fleet: what each kind does to a device's readings."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from producers.batch import Floats, Ints
from producers.devices import LOAD_SWING, DeviceType
from producers.schedule import seed_of
from producers.signals import MEAN_LOAD, Frame
from scorers.errors import ConfigError
from stream.contracts import Fault

SPIKE_SHARE = 0.2
"""Share of the readings that a spike fault hits after its first."""


@dataclass(slots=True)
class Cover:
    """The rows and metrics of one device that a fault covers in one frame.

    ``ts`` shape ``(n,)``; ``values`` shape ``(n, k)``; ``spread`` and ``gain`` (change per unit of load) shape
    ``(k,)``; ``load`` shape ``(n,)``; ``first`` whether the fault begins here.
    """

    fault: Fault
    ts: Ints
    values: Floats
    spread: Floats
    gain: Floats
    load: Floats
    first: bool

    @property
    def shift(self) -> Floats:
        """The fault's magnitude in units of each metric."""
        return self.fault.magnitude * self.spread

    @property
    def progress(self) -> Floats:
        """How far into the fault each row is, 0 to 1, shape ``(n, 1)``."""
        return ((self.ts - self.fault.start) / (self.fault.end - self.fault.start))[:, None]


@dataclass(slots=True)
class Active:
    """A fault under way: its own random numbers, and the values that a stuck sensor holds."""

    fault: Fault
    random: np.random.Generator = field(init=False)
    held: Floats | None = None

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(seed_of(self.fault.fault_id))

    def apply(self, frame: Frame, device: int) -> None:
        """Change, in place, the rows of ``device`` (its column in the frame) that lie within the fault."""
        low, high = np.searchsorted(frame.ts[:, device], (self.fault.start, self.fault.end))
        if low == high:
            return
        cover = self._cover(frame, device, slice(int(low), int(high)))
        frame.values[low:high, device, self._columns(frame.kind)] = EFFECTS[self.fault.kind](self, cover)
        self.held = cover.values[0] if self.held is None else self.held

    def _columns(self, kind: DeviceType) -> list[int]:
        return [kind.names.index(metric) for metric in self.fault.metrics]

    def _cover(self, frame: Frame, device: int, rows: slice) -> Cover:
        columns = self._columns(frame.kind)
        return Cover(
            self.fault,
            frame.ts[rows, device],
            frame.values[rows, device][:, columns],
            frame.kind.column("spread")[columns],
            frame.kind.column("load")[columns],
            frame.load[rows, device],
            self.held is None,
        )


def _spike(active: Active, cover: Cover) -> Floats:
    """Single readings jump; the first one always does."""
    hit = active.random.random(len(cover.ts)) < SPIKE_SHARE
    hit[0] |= cover.first
    return cover.values + hit[:, None] * cover.shift


def _level_shift(_: Active, cover: Cover) -> Floats:
    return cover.values + cover.shift


def _stuck(active: Active, cover: Cover) -> Floats:
    """Every reading repeats the first one."""
    held = cover.values[0] if active.held is None else active.held
    return np.broadcast_to(held, cover.values.shape)


def _drift(_: Active, cover: Cover) -> Floats:
    """A ramp that reaches the magnitude at the end."""
    return cover.values + cover.progress * cover.shift


def _noise_burst(active: Active, cover: Cover) -> Floats:
    return cover.values + active.random.standard_normal(cover.values.shape) * cover.shift


def _dropout(_: Active, cover: Cover) -> Floats:
    """The metrics vanish; the device keeps sending the others."""
    return np.full_like(cover.values, np.nan)


def _broken_correlation(_: Active, cover: Cover) -> Floats:
    """The metrics follow a swing of their own, within their usual range, in place of the device's load."""
    own = MEAN_LOAD + cover.fault.magnitude * LOAD_SWING * np.cos(4 * np.pi * cover.progress)
    return cover.values + (own - cover.load[:, None]) * cover.gain


EFFECTS: dict[str, Callable[[Active, Cover], Floats]] = {
    "spike": _spike,
    "level_shift": _level_shift,
    "stuck": _stuck,
    "drift": _drift,
    "noise_burst": _noise_burst,
    "dropout": _dropout,
    "broken_correlation": _broken_correlation,
}

MAGNITUDES = {
    "spike": 12.0,
    "level_shift": 6.0,
    "stuck": 0.0,
    "drift": 10.0,
    "noise_burst": 4.0,
    "dropout": 0.0,
    "broken_correlation": 2.0,
}
"""Usual magnitude by kind, in spreads of the metric; for a broken correlation, in spreads of the load."""

KINDS = tuple(EFFECTS)
"""Every kind of sensor fault."""


def usual(kind: str, device: DeviceType, random: np.random.Generator) -> tuple[list[str], float]:
    """Metrics and magnitude of an unspecified fault.

    A broken correlation takes half of the metrics, any other kind one to three.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in EFFECTS:
        raise ConfigError(f"There is no fault kind {kind!r}; use one of {', '.join(KINDS)}.")
    many = len(device.names) // 2 if kind == "broken_correlation" else int(random.integers(1, 4))
    chosen = sorted(random.choice(len(device.names), many, replace=False))
    return [device.names[place] for place in chosen], MAGNITUDES[kind]


def check(fault: Fault, device: DeviceType) -> None:
    """Refuse a fault that cannot be injected as its truth says.

    Raises:
        ConfigError: unknown kind or metric, or nothing left to send.
    """
    usual(fault.kind, device, np.random.default_rng(0))
    unknown = sorted(set(fault.metrics) - set(device.names))
    if unknown or not fault.metrics:
        raise ConfigError(f"A {device.name} has no metric {unknown}; choose some of {', '.join(device.names)}.")
    if fault.kind == "dropout" and set(fault.metrics) == set(device.names):
        raise ConfigError(f"A dropout of every metric of {fault.device_id!r} leaves no reading; leave one metric out.")
