"""When faults begin and end: those asked for, and random ones; shared by sensor and server fleets."""

import zlib
from collections.abc import Callable, Iterator

import numpy as np

from scorers.errors import ConfigError
from stream.contracts import Fault

HOUR_MS = 3_600_000

Draw = Callable[[int, int, np.random.Generator], Fault]
"""Device number, start (epoch ms) and random numbers to a fault."""


class Schedule:
    """The faults to come and under way; at most one at a time on a device."""

    def __init__(self, draw: Draw, rate: float, devices: int, *, start: int, seed: int) -> None:
        self._draw = draw
        self._random = np.random.default_rng([seed, zlib.crc32(b"faults")])
        self._arrivals = arrivals(rate, devices, start=start, random=self._random)
        self._next = next(self._arrivals, None)
        self._faults: list[Fault] = []

    def add(self, fault: Fault, *, now: int) -> None:
        """Schedule a fault.

        Raises:
            ConfigError: it begins before ``now``, ends before it begins, or meets another on its device.
        """
        if fault.start < now:
            raise ConfigError(f"Fault {fault.fault_id!r} begins in the past; let it begin at {now} or later.")
        if fault.end <= fault.start:
            raise ConfigError(f"Fault {fault.fault_id!r} ends before it begins; give a duration above 0.")
        if self._taken(fault):
            raise ConfigError(f"Device {fault.device_id!r} already has a fault at that time; choose another time.")
        self._faults.append(fault)

    def advance(self, since: int, until: int) -> tuple[tuple[Fault, ...], list[Fault]]:
        """The faults that begin within ``[since, until)`` by start, and all that touch it."""
        self._faults = [fault for fault in self._faults if fault.end > since]
        self._arrive(until)
        underway = [fault for fault in self._faults if fault.start < until]
        begun = sorted((fault for fault in underway if fault.start >= since), key=lambda fault: fault.start)
        return tuple(begun), underway

    def _arrive(self, until: int) -> None:
        """Add the random faults that begin before ``until``; one that would meet another does not happen."""
        while self._next is not None and self._next[0] < until:
            start, number = self._next
            fault = self._draw(number, start, self._random)
            if not self._taken(fault):
                self._faults.append(fault)
            self._next = next(self._arrivals, None)

    def _taken(self, fault: Fault) -> bool:
        return any(overlap(fault, other) for other in self._faults)


def overlap(one: Fault, other: Fault) -> bool:
    """Whether both touch the same device at the same time."""
    return one.device_id == other.device_id and one.start < other.end and other.start < one.end


def arrivals(rate: float, devices: int, *, start: int, random: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Endless ``(epoch ms, device number)`` of a Poisson process of ``rate`` faults per device and hour."""
    at = float(start)
    while rate > 0:
        at += random.exponential(HOUR_MS / (rate * devices))
        yield int(at), int(random.integers(devices))


def seed_of(name: str) -> int:
    """A seed that belongs to a name, the same in every process."""
    return zlib.crc32(name.encode())
