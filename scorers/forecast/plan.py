"""Forecast peaks to a plan: which servers can share one machine, and which need more than one.

First-fit decreasing: servers by falling peak, each to the first group that has room; at most 11/9 of the best possible
number of groups and 6/9 (Dósa 2007). It is tried on the peaks, and hour by hour, where servers that are busy at
different times fit together; the one with fewer groups is the plan. Loads are whole millionths inside, so that sums are
exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.errors import ConfigError, InputError
from scorers.forecast.schema import UNIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST = 1e9
"""No load is above this."""


@dataclass(frozen=True, slots=True)
class Group:
    """Servers that fit one machine, the largest first: it stays, the others move to it.

    ``peak`` is their largest load together, ``hour`` (epoch ms) when; planned by peaks it is the sum of their peaks.
    """

    servers: tuple[str, ...]
    peak: float
    hour: int


@dataclass(frozen=True, slots=True)
class Heavy:
    """A server that needs ``machines`` to spread its load over; ``hours`` of those forecast are too much for one."""

    server: str
    peak: float
    hour: int
    hours: int
    machines: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Who shares a machine, and who gets more than one; every server is in exactly one group or heavy.

    ``room`` is what a machine may be loaded with, ``by`` whether groups rest on ``peaks`` or on loads by ``hours``.
    """

    room: float
    by: str
    groups: tuple[Group, ...]
    heavy: tuple[Heavy, ...]

    @property
    def before(self) -> int:
        """Machines now: one a server."""
        return sum(len(group.servers) for group in self.groups) + len(self.heavy)

    @property
    def after(self) -> int:
        """Machines with the plan."""
        return len(self.groups) + sum(heavy.machines for heavy in self.heavy)


def plan(table: pa.Table, capacity: float, *, headroom: float = 0.2) -> Plan:
    """Group the servers that use little, and say over how many machines each heavy one is to be spread.

    Args:
        table: ``server`` (string), ``hour`` (int64, epoch ms) and ``peak`` (float64), a row a server and hour. An hour
            that a server lacks is taken to be as heavy as its heaviest.
        capacity: load that a machine bears.
        headroom: share of the capacity that is left free, from 0 to below 1.

    Raises:
        ConfigError: capacity or headroom makes no sense.
        InputError: no rows, a server and hour twice, or a peak that is no load.
    """
    room = _room(capacity, headroom)
    servers, hours, loads = _loads(table)
    order = np.lexsort((np.array(servers), -loads.max(axis=1)))
    peak = loads.max(axis=1)
    fit = order[peak[order] <= room]
    by, flat, timed = "peaks", _first_fit(peak[fit, None], room), _first_fit(loads[fit], room)
    chosen = flat
    if timed.max(initial=-1) < flat.max(initial=-1):
        by, chosen = "hours", timed
    groups = [fit[chosen == number] for number in range(chosen.max(initial=-1) + 1)]
    heavy = [_heavy(servers[row], loads[row], hours, room) for row in order[peak[order] > room].tolist()]
    names = [tuple(servers[row] for row in group.tolist()) for group in groups]
    tops = [_top(loads[group], hours, flat=by == "peaks") for group in groups]
    return Plan(room / UNIT, by, tuple(Group(name, *top) for name, top in zip(names, tops, strict=True)), tuple(heavy))


def likely(probabilities: Floats, limits: Sequence[float], confidence: float) -> Floats:
    """Peaks ``(n,)`` that hours stay below with ``confidence``, where only the class is forecast.

    Args:
        probabilities: of low, medium and high, ``(n, 3)``.
        limits: the load up to which an hour is low, up to which medium, and the most that a high one has; within a
            class any load is as likely.
        confidence: above 0, below 1.

    Raises:
        ConfigError: limits do not rise, or the confidence makes no sense.
    """
    edges = np.array([0.0, *limits])
    if len(edges) != 4 or (np.diff(edges) <= 0).any() or not np.isfinite(edges).all():  # noqa: PLR2004 - three classes
        raise ConfigError(f"limits are {', '.join(map(str, limits))}; give three rising loads, such as 100,500,1000.")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}; give a share above 0 and below 1.")
    until = np.cumsum(probabilities, axis=1)
    until /= until[:, -1:]
    place = (until < confidence).sum(axis=1)
    rows = np.arange(len(until))
    before = np.where(place > 0, until[rows, place - 1], 0.0)
    share = (confidence - before) / (until[rows, place] - before)
    peaks: Floats = edges[place] + share * (edges[place + 1] - edges[place])
    return peaks


def _room(capacity: float, headroom: float) -> int:
    if not 0 < capacity <= MOST:
        raise ConfigError(f"capacity is {capacity:g}; give the load that a machine bears, above 0.")
    if not 0 <= headroom < 1:
        raise ConfigError(f"headroom is {headroom:g}; give the share to be left free, from 0 to below 1.")
    return int(capacity * (1 - headroom) * UNIT)


def _loads(table: pa.Table) -> tuple[list[str], Ints, Ints]:
    """Names ``(s,)``, hours ``(h,)`` and loads in millionths ``(s, h)``."""
    frame = table.select(["server", "hour", "peak"]).to_pandas()
    if not len(frame):
        raise InputError("There are no forecasts to plan with; forecast first.")
    if frame.duplicated(["server", "hour"]).any():
        twice = frame[frame.duplicated(["server", "hour"])].iloc[0]
        raise InputError(f"Server {twice.server!r} has two forecasts for the hour {twice.hour}; keep the latest.")
    unfit = frame[~((frame.peak >= 0) & (frame.peak <= MOST))]
    if len(unfit):
        raise InputError(f"Server {unfit.server.iloc[0]!r} has a peak of {unfit.peak.iloc[0]}; peaks go from 0 to 1e9.")
    wide = frame.pivot_table(values="peak", index="server", columns="hour", aggfunc="first")
    known = wide.to_numpy(np.float64)
    filled = np.where(np.isnan(known), np.nanmax(known, axis=1, keepdims=True), known)
    return list(map(str, wide.index)), wide.columns.to_numpy(np.int64), np.rint(filled * UNIT).astype(np.int64)


def _first_fit(loads: Ints, room: int) -> Ints:
    """The group of each row of ``loads`` ``(n, h)``, ``(n,)``: the first in which every hour stays within ``room``."""
    left = np.full(loads.shape, room, np.int64)
    group = np.empty(len(loads), np.int64)
    opened = 0
    for row, load in enumerate(loads):
        fits = (left[:opened] >= load).all(axis=1)
        group[row] = fits.argmax() if fits.any() else opened
        opened = max(opened, int(group[row]) + 1)
        left[group[row]] -= load
    return group


def _top(loads: Ints, hours: Ints, *, flat: bool) -> tuple[float, int]:
    """The largest load together, and when."""
    together = loads.sum(axis=0)
    at = int(together.argmax())
    return float(loads.max(axis=1).sum() if flat else together[at]) / UNIT, int(hours[at])


def _heavy(server: str, load: Ints, hours: Ints, room: int) -> Heavy:
    at = int(load.argmax())
    machines = -(-int(load[at]) // room)
    return Heavy(server, int(load[at]) / UNIT, int(hours[at]), int((load > room).sum()), machines)
