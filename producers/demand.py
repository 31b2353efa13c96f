"""How busy each server of a fleet is at any moment: cycles, holidays, trends, levels that last, bursts and gaps.

Nothing is carried from one moment to the next: whatever is random is drawn for a knot in time, from the seed and the
knot alone. So any moment may be asked for, in any order and by any process, and the answer is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from producers.batch import Floats, Ints
from producers.sessions import GROUPS
from scorers.errors import ConfigError
from scorers.forecast.calendar import FeatureSpec

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
FORTNIGHT = 14
"""Days between two possible changes of a group's level."""
OWN = ((4, 0.15), (30, 0.2), (160, 0.25), (720, 0.3))
"""A server's own ups and downs: hours from knot to knot, and standard deviation (of the logarithm) at the knots."""
SHARED = ((36, 0.1), (200, 0.2))
"""Those that all servers of a group have together."""
STEP = 0.3
"""Standard deviation of a group's level, which changes at once, somewhere in each fortnight."""
SIZES = 1.1
"""Standard deviation of the logarithm of the servers' sizes."""
BURSTS, OUTAGES = 0.15, 0.004
"""A server's bursts and unplanned outages a day."""
LATE, RETIRED = 0.04, 0.02
"""Shares of servers that come later, and that go away."""


@dataclass(frozen=True, slots=True)
class DemandSpec:
    """A fleet's demand; the same spec gives the same. ``start`` (epoch ms) is where trends and ages count from."""

    servers: int
    seed: int = 0
    start: int = 0
    timezone: str = "UTC"
    country: str = "US"

    def __post_init__(self) -> None:
        if self.servers < 1:
            raise ConfigError(f"There are {self.servers} servers; give at least 1.")
        self.where  # noqa: B018 - see that it is somewhere

    @property
    def where(self) -> FeatureSpec:
        """Timezone and holidays.

        Raises:
            ConfigError: there are none of that name.
        """
        return FeatureSpec(self.timezone, self.start, self.country)

    def build(self) -> "Demand":
        """The demand, ready to be asked."""
        return Demand(self)


class Demand:
    """What a spec comes to. ``size`` ``(s,)`` is how large each server is; 1 is usual."""

    def __init__(self, spec: DemandSpec) -> None:
        self.spec = spec
        random = np.random.default_rng([spec.seed, 10])
        self.group = np.arange(spec.servers) % len(GROUPS)
        self.size = np.exp(random.normal(0.0, SIZES, spec.servers))
        self._peak = _of("peak_hour")[self.group] + random.normal(0.0, 1.2, spec.servers)
        self._depth = np.clip(_of("depth")[self.group] * random.uniform(0.8, 1.25, spec.servers), 0.0, 0.92)
        self._weekend = _of("weekend")[self.group] * np.exp(random.normal(0.0, 0.15, spec.servers))
        drift = np.random.default_rng([spec.seed, 11]).normal(0.0, 0.005, len(GROUPS))
        self._growth = drift[self.group] + random.normal(0.002, 0.006, spec.servers)
        self._born, self._gone = self._ages(random)
        self._where = spec.where

    def activity(self, at: Ints) -> Floats:
        """How busy each server is at each moment ``at`` (epoch ms, ``(t,)``), shape ``(t, s)``.

        1 is a server's usual; 0 while it is away.
        """
        at = np.asarray(at, np.int64)
        level = self._level(at)
        for start, end, server, factor in self._events(at):
            level[(at >= start) & (at < end), server] *= factor
        level[(at[:, None] < self._born) | (at[:, None] >= self._gone)] = 0.0
        return level

    def _level(self, at: Ints) -> Floats:
        """Cycles, trend and what lasts."""
        hour, weekday, free = self._calendar(at)
        angle = (hour[:, None] - self._peak) * (2 * np.pi / 24)
        cycle = 1 + self._depth * np.cos(angle) + 0.12 * self._depth * np.cos(2 * angle)
        off = (weekday >= 5) | free  # noqa: PLR2004 - Saturday and Sunday
        days = (at[:, None] - self.spec.start) / DAY_MS
        trend = 0.8 * np.tanh(self._growth * days / 0.8)  # grows, but not for ever
        level: Floats = np.where(off[:, None], self._weekend, 1.0) * cycle
        level *= np.where((free & (weekday < 5))[:, None], np.sqrt(self._weekend), 1.0)  # noqa: PLR2004 - as above
        level *= np.exp(trend + self._wander(at))
        level[self._maintained(hour, weekday, at)] = 0.0
        return level

    def _wander(self, at: Ints) -> Floats:
        """Logarithms of the ups and downs, shape ``(t, s)``: own ones, those of groups, and groups' steps."""
        shared = self._steps(at)
        for place, wave in enumerate(SHARED, 30):
            shared += self._between(at, place, wave, len(GROUPS))
        logarithm = shared[:, self.group]
        for place, wave in enumerate(OWN, 40):
            logarithm += self._between(at, place, wave, self.spec.servers)
        return logarithm

    def _between(self, at: Ints, place: int, wave: tuple[int, float], width: int) -> Floats:
        """A line from knot to knot, ``(t, width)``."""
        hours, deviation = wave
        knot, rest = np.divmod(at, hours * HOUR_MS)
        share = (rest / (hours * HOUR_MS))[:, None]
        low, high = (self._knots(place, knot + ahead, width) for ahead in (0, 1))
        return deviation * (low * (1 - share) + high * share)

    def _knots(self, place: int, knot: Ints, width: int) -> Floats:
        """Normal numbers of each knot, ``(t, width)``."""
        distinct, which = np.unique(knot, return_inverse=True)
        return np.array([_normal(self.spec.seed, place, int(one), width) for one in distinct])[which]

    def _steps(self, at: Ints) -> Floats:
        """The level of each group, ``(t, groups)``; it changes at one moment in each fortnight."""
        block, rest = np.divmod(at, FORTNIGHT * DAY_MS)
        share = rest / (FORTNIGHT * DAY_MS)
        when = np.abs(self._knots(50, block, len(GROUPS))) % 1.0
        before, after = (self._knots(51, block + ahead, len(GROUPS)) for ahead in (0, 1))
        return STEP * np.where(share[:, None] < when, before, after)

    def _events(self, at: Ints) -> Iterator[tuple[int, int, int, float]]:
        """Bursts and outages that may touch these moments: start, end (epoch ms), server, what activity is times by."""
        if not len(at):
            return
        for day in range(int(at.min()) // DAY_MS - 2, int(at.max()) // DAY_MS + 1):
            yield from _events(self.spec.seed, day, self.spec.servers)

    def _maintained(self, hour: Floats, weekday: Ints, at: Ints) -> NDArray[np.bool_]:
        """Who is down as planned, ``(t, s)``: a group for two hours of its night, a quarter of it each week."""
        week = at // (7 * DAY_MS)
        night = (_of("peak_hour")[self.group] + 12) % 24
        now = (hour[:, None] - night) % 24 < 2  # noqa: PLR2004 - hours
        turn = (week[:, None] + np.arange(self.spec.servers) // len(GROUPS)) % 4 == 0
        result: NDArray[np.bool_] = now & turn & (weekday[:, None] == 1 + self.group)
        return result

    def _calendar(self, at: Ints) -> tuple[Floats, Ints, NDArray[np.bool_]]:
        """Hour of the day, weekday (Monday 0) and whether it is a holiday, where the servers are; each ``(t,)``."""
        local = pd.DatetimeIndex(at.astype("datetime64[ms]"), tz="UTC").tz_convert(self._where.zone).tz_localize(None)
        stamps = local.to_numpy().astype("datetime64[ms]").astype(np.int64)
        days, rest = np.divmod(stamps, DAY_MS)
        distinct, which = np.unique(days, return_inverse=True)
        free = np.array([day in self._where.holidays for day in distinct.astype("datetime64[D]").tolist()], np.bool_)
        return rest / HOUR_MS, (days + 3) % 7, free[which]  # 1970-01-01 was a Thursday

    def _ages(self, random: np.random.Generator) -> tuple[Ints, Ints]:
        """When each server comes and goes, epoch ms."""
        chance, days = random.random((2, self.spec.servers)), random.uniform(2, 40, (2, self.spec.servers))
        moments = self.spec.start + (days * 24).astype(np.int64) * HOUR_MS
        ever = np.iinfo(np.int64)
        born = np.where(chance[0] < LATE, moments[0], ever.min)
        return born, np.where(chance[1] < RETIRED, np.maximum(moments[1], born) + 10 * DAY_MS, ever.max)


@lru_cache(256)
def _normal(seed: int, place: int, knot: int, width: int) -> Floats:
    return np.random.default_rng([seed, place, knot + 2**40]).standard_normal(width)


@lru_cache(8)
def _events(seed: int, day: int, servers: int) -> tuple[tuple[int, int, int, float], ...]:
    """The bursts and outages that begin on a day; none lasts longer than two days."""
    random = np.random.default_rng([seed, 60, day + 2**40])
    found = []
    for burst, often in ((True, BURSTS), (False, OUTAGES)):
        for _ in range(random.poisson(often * servers)):
            start = day * DAY_MS + int(random.integers(DAY_MS))
            lasts = random.lognormal(np.log(0.7 if burst else 3.0), 0.8 if burst else 1.2)
            factor = 1.5 + random.exponential(1.2) if burst else 0.0
            found.append((start, start + int(min(lasts, 48.0) * HOUR_MS), int(random.integers(servers)), factor))
    return tuple(found)


def _of(field: str) -> Floats:
    return np.array([getattr(group, field) for group in GROUPS], np.float64)
