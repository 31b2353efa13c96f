"""What kind of behaviour odd windows show: from features to a name, by the definitions of the kinds.

A window shows a *sign* in one metric: the one whose features are far out by themselves and beside what all others let
expect; and in it, of the feature that explains most (by its reconstruction-based contribution, the largest of all
where a fault is in one feature alone; Alcala & Qin 2009). An alert's windows together are the *evidence* from which
its behaviour is told; the course of a mean over them tells a level from a drift, and both from a metric that wanders
on its own. All thresholds are standard deviations of the device's own healthy windows, or shares.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np

from scorers.features import COUNT, KINDS, MAX, MEAN, MIN, STD
from scorers.statistics import Floats, Ints

FAR = 3.0
"""Standard deviations from typical beyond which a single feature is far out (Shewhart's three sigma)."""
CONSTANT = 0.05
"""Share of its typical standard deviation up to which a metric stands still: the floor that stands for its noise."""
SIDED = float(np.log(2))
"""A spike makes its side of the window so much longer than the other, beside what is typical; a logarithm."""
SIDES = 5
"""Readings of a metric from which on a window has two sides that can be compared."""
COURSE = 5
"""Windows from which on a mean has a course."""
STRAIGHT = 0.8
"""Share of a course's variance that a straight line explains, at least, if it is a drift. Of one step it explains no
more than 0.78 from five windows on, wherever the step is, and three quarters in the long run."""
GROWN = 1 / 3
"""Share of where a drift has got to that was added while it was watched, at least."""
SURE = 3.0
"""Standard errors, by the spread of healthy windows, that it has grown by, at least."""
OVERSHOT = 1.5
"""What grew by more than so many times where it has got to came from the other side: it wanders."""
STEADY = 0.7
"""Standard deviation of a level over its mean, at most."""


class Behaviour(StrEnum):
    """What an alert shows."""

    LEVEL = "level"
    """A mean has moved and stays."""
    DRIFT = "drift"
    """A mean moves on and on."""
    NOISE = "noise"
    """Readings spread wider, to both sides."""
    SPIKE = "spike"
    """Few readings jump to one side; the others are as usual."""
    STUCK = "stuck"
    """A metric that varies stands still."""
    DROPOUT = "dropout"
    """A metric has fewer readings than usual, or none."""
    CORRELATION = "broken_correlation"
    """No feature is far out by itself, or a mean wanders: metrics no longer go together."""
    UNKNOWN = "unknown"
    """None of these in at least half of its windows."""


class Sign(IntEnum):
    """What one window shows."""

    UNCLEAR = 0
    DROPOUT = 1
    STUCK = 2
    SPREAD = 3
    """Readings spread wider: noise, spikes, or a level that begins or ends."""
    MOVED = 4
    """A mean has moved, by itself or beside the others."""


_SIGNS = tuple(Sign)


class Finding(NamedTuple):
    """One odd window, by the metric that explains most of it."""

    metric: str
    sign: Sign
    level: float
    """Its mean's standard deviations from typical."""
    sides: float | None
    """How much farther it reaches to one side than to the other, a logarithm; None for too few readings."""
    courses: Mapping[str, float]
    """By metric, how far its mean is from what all other features let expect: of unit variance in health. Those alone
    whose spread is usual, so that the mean is that of one state."""


def find(metrics: Sequence[str], z: Floats, apart: Floats, actual: Floats, typical: Floats) -> list[Finding]:
    """What each of ``n`` odd windows shows.

    Args:
        metrics: the model's ``m``.
        z: standard deviations from typical, shape (n, 5 m), as of :func:`scorers.model.standardise`.
        apart: signed roots of each feature's reconstruction-based contribution, shape (n, 5 m).
        actual: features in the metrics' own units, shape (n, 5 m), NaN where missing.
        typical: typical ones, shape (n, 5 m).
    """
    z, apart, actual, typical = (block.reshape(len(block), -1, len(KINDS)) for block in (z, apart, actual, typical))
    metric, kind = _leading(z, apart)
    wide = (z[..., STD] >= FAR) | (z[..., MIN] >= FAR) | (z[..., MAX] >= FAR)
    settled = ~wide & np.isfinite(actual[..., MEAN])
    courses = [
        {name: value for name, value, use in zip(metrics, *row, strict=True) if use}
        for row in zip(apart[..., MEAN].tolist(), settled.tolist(), strict=True)
    ]
    row = np.arange(len(z))
    z, apart, actual, typical = (block[row, metric] for block in (z, apart, actual, typical))
    still = (z[:, STD] <= -FAR) & (actual[:, STD] <= CONSTANT * typical[:, STD])
    counted = kind == COUNT
    usual = np.abs(z).max(axis=1) < FAR
    rules = (
        (counted & (z[:, COUNT] < 0), Sign.DROPOUT),
        (counted, Sign.UNCLEAR),
        (still, Sign.STUCK),
        (wide[row, metric] & (kind != MEAN), Sign.SPREAD),
        (usual | (kind == MEAN) | (np.abs(apart[:, MEAN]) >= FAR), Sign.MOVED),
    )
    sign = np.select([rule for rule, _ in rules], [int(sign) for _, sign in rules], int(Sign.UNCLEAR))
    columns = (metric, sign, z[:, MEAN], _sides(actual, typical))
    return [
        Finding(metrics[which], _SIGNS[shown], level, None if sides != sides else sides, course)  # noqa: PLR0124 - NaN
        for which, shown, level, sides, course in zip(*(column.tolist() for column in columns), courses, strict=True)
    ]


def _leading(z: Floats, apart: Floats) -> tuple[Ints, Ints]:
    """Metric and feature kind that explain most of each window, shape (n,) both; from shape (n, m, 5).

    Where several metrics move together, one that does not is as far from what they let expect; but it is not far out.
    """
    metric = np.einsum("nmk,nmk->nm", z, apart).argmax(axis=1)
    return metric, np.abs(apart[np.arange(len(z)), metric]).argmax(axis=1)


def _sides(actual: Floats, typical: Floats) -> Floats:
    """By how much one side is longer than the other, beside what is typical; shape (n,), NaN for too few readings."""
    least = CONSTANT * actual[:, STD] + np.finfo(np.float64).tiny
    up, down = ((np.abs(actual[:, side] - actual[:, MEAN]) + least) for side in (MAX, MIN))
    usual_up, usual_down = ((np.abs(typical[:, side] - typical[:, MEAN]) + least) for side in (MAX, MIN))
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.abs(np.log(up / down) - np.log(usual_up / usual_down))
    return np.where((actual[:, COUNT] >= SIDES) & np.isfinite(sides), sides, np.nan)


@dataclass(slots=True)
class Course:
    """How far apart a metric's mean was over time: moments of both, merged as Welford's (1962)."""

    windows: int = 0
    first: int = 0
    """Epoch ms."""
    last: int = 0
    time: float = 0.0
    """Mean, epoch ms."""
    apart: float = 0.0
    """Mean."""
    times: float = 0.0
    """Sum of squared deviations from the mean."""
    aparts: float = 0.0
    both: float = 0.0
    """Sum of the products of both deviations."""

    def add(self, at: int, apart: float) -> None:
        """One more window."""
        self.first = at if not self.windows else self.first
        self.windows += 1
        self.last = at
        off, away = at - self.time, apart - self.apart
        self.time += off / self.windows
        self.apart += away / self.windows
        self.times += off * (at - self.time)
        self.aparts += away * (apart - self.apart)
        self.both += off * (apart - self.apart)

    @property
    def drifts(self) -> bool:
        """Whether it grew along a straight line, by more than health explains and much of where it has got to."""
        if self.windows < COURSE or self.times <= 0 or self.aparts <= 0:
            return False
        slope, span = self.both / self.times, self.last - self.first
        rise, end = slope * span, self.apart + slope * (self.last - self.time)
        straight = self.both**2 >= STRAIGHT * self.times * self.aparts
        sure = abs(rise) >= SURE * span / self.times**0.5
        return straight and sure and GROWN <= (rise / end if end else 0.0) <= OVERSHOT

    @property
    def wanders(self) -> bool:
        """Whether it is now here, now there."""
        return self.windows > 1 and self.aparts > (STEADY * self.apart) ** 2 * (self.windows - 1)


@dataclass(slots=True)
class Evidence:
    """What an alert's odd windows showed in one metric; a few numbers, however many windows."""

    signs: list[int] = field(default_factory=lambda: [0] * len(Sign))
    """Windows of each sign."""
    far: int = 0
    """Those that moved and whose mean is far out by itself."""
    sided: int = 0
    """Those of wider spread that have two sides."""
    sides: float = 0.0
    """Their sum."""
    course: Course = field(default_factory=Course)


Told = tuple[Behaviour, str | None]
"""A behaviour and the metric that shows it most."""


def tell(evidence: dict[str, Evidence], finding: Finding, at: int) -> Told:
    """Add what the window that ends at ``at`` (epoch ms) showed, and tell what all of them show together.

    A sign counts that at least half of the windows show; of two halves that of the latest one.
    """
    _add(evidence.setdefault(finding.metric, Evidence()), finding)
    for name in evidence.keys() & finding.courses.keys():
        evidence[name].course.add(at, finding.courses[name])
    votes = [*map(sum, zip(*(known.signs for known in evidence.values()), strict=True))]
    sign = finding.sign if 2 * votes[finding.sign] >= sum(votes) else Sign(votes.index(max(votes)))
    if sign is Sign.UNCLEAR or 2 * votes[sign] < sum(votes):
        return Behaviour.UNKNOWN, None
    metric = max(evidence, key=lambda name: (evidence[name].signs[sign], name == finding.metric))
    if sign is Sign.SPREAD:
        return _spread(evidence.values()), metric
    return (_moved(evidence[metric]) if sign is Sign.MOVED else _PLAIN[sign]), metric


_PLAIN = {Sign.DROPOUT: Behaviour.DROPOUT, Sign.STUCK: Behaviour.STUCK}


def _add(known: Evidence, finding: Finding) -> None:
    known.signs[finding.sign] += 1
    if finding.sign is Sign.SPREAD and finding.sides is not None:
        known.sided += 1
        known.sides += finding.sides
    if finding.sign is Sign.MOVED:
        known.far += abs(finding.level) >= FAR


def _spread(evidence: Iterable[Evidence]) -> Behaviour:
    sided, sides = map(sum, zip(*((known.sided, known.sides) for known in evidence), strict=True))
    if not sided:
        return Behaviour.UNKNOWN
    return Behaviour.SPIKE if sides >= SIDED * sided else Behaviour.NOISE


def _moved(known: Evidence) -> Behaviour:
    if known.course.drifts:
        return Behaviour.DRIFT
    if known.course.wanders or 2 * known.far < known.signs[Sign.MOVED]:
        return Behaviour.CORRELATION
    return Behaviour.LEVEL
