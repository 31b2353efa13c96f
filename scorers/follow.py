"""A limit that follows: how far a device's own healthy windows went of late, in place of how far any might.

The limit that training sets must hold for weeks, for every load; most days a device keeps far below it, and a
fault that moves it to twice its usual distance stays below it too. So each device has a *trail*: the moments,
forgetting exponentially, of the distances of its own recent windows, and a window is judged by
``mean + deviations * standard deviation`` of it, never by more than training allows nor by less than a share of
that. It is the EWMA chart's way of following a level (Roberts 1959; Montgomery 2013, ch. 9) and the rule of
streaming peaks over threshold that what is beyond the limit is not learned from (Siffer et al. 2017, SPOT). A
distance is a sum over many features, so that in quiet times it hardly varies at all: five deviations may be a hundredth
of it, which nobody would call odd. What is odd lies a margin beyond the mean at least.

Windows that overlap share readings, so a few odd readings make many odd windows, and a neighbour confirms nothing. What
is compared is therefore the geometric mean of a window's distance and of the trailing mean of distances, over as many
windows as a reading belongs to: what lasts counts for more than what flashes up, and both have to be odd.

A device that stays odd but steady, past the *patience* of whoever saw its alert, has changed for good as far as a
limit can tell: it has *settled*, and what lies a margin beyond that place is odd from then on. One that stays odd and
unsteady is rather faulty still, or its limit was a little too low: its odd windows beyond the share that is tolerated
add up, and past the patience the limit rises with each of them, but not far, and falls back as they grow fewer:
adaptive conformal inference (Gibbs & Candès 2021), but for what is overlooked at first. Whoever has been as healthy
as ever for so many windows as are remembered was mended, and is judged as before.
"""

from dataclasses import dataclass, field

import numpy as np

from scorers.compiled import compiled
from scorers.errors import hold
from scorers.statistics import Flags, Floats, Ints


@dataclass(frozen=True, slots=True)
class FollowSpec:
    """How a limit follows.

    Raises:
        ConfigError: a value is out of range.
    """

    deviations: float = 5.0
    """Standard deviations above the mean of a device's recent distances; 0: the trained limit alone."""
    memory: int = 1000
    """Windows after which what was is forgotten to 1/e, at least 1."""
    warmup: int = 60
    """Windows of a trail before it is judged by, at least 2."""
    least: float = 0.05
    """The lowest limit, as a share of the trained one; in (0, 1]."""
    calm: int = 3
    """A window is learned from at the end of so many calm ones in a row, so that none is while an alert is open."""
    patience: int = 300
    """Odd windows at one distance after which a device has settled there, and of all beyond 2 % before its limit
    rises; 0: neither ever happens."""
    overlap: int = 1
    """Windows that a reading belongs to; where it is 1, each window speaks for itself."""

    def __post_init__(self) -> None:
        hold("following", self, (
            ("deviations", 0 <= self.deviations < np.inf, "0 or more"),
            ("memory", self.memory >= 1, "at least 1"),
            ("warmup", self.warmup >= 2, "at least 2"),  # noqa: PLR2004 - said beside it
            ("least", 0 < self.least <= 1, "above 0 and at most 1"),
            ("calm", self.calm >= 1, "at least 1"),
            ("patience", self.patience >= 0, "0 or more"),
            ("overlap", self.overlap >= 1, "at least 1"),
        ))  # fmt: skip


TOLERATED = 0.02
"""Share of a device's windows that may be odd for ever."""
HIGHEST = 5.0
"""No limit is more than so many times the usual one, in roots of distances; what lies beyond is always odd."""
RAISED = 1.4
"""A limit rises to so many times the one it would be, in roots of distances: to twice the distance."""
MARGIN = 0.12
"""So much farther than usual, or than where a device has settled, is what is odd at least, in roots of distances."""
STEADY = 0.04
"""A device is steady while the roots of its distances keep within this share of their mean."""
_SPARE = 4
"""What is full grows by one part in so many, at least."""

_TINY = 1e-12
"""What a trailing mean is at least, so that it may be divided by."""

Trail = tuple[float, ...]
"""A device's, to be remembered: reach of the model it belongs to, windows, mean, variance, calm windows in a row,
odd ones beyond those tolerated, trailing mean of distances as a share of reach, and of severities squared; where it is
while it is odd, as a root of the share of reach, windows in a row there, and where it has settled, 0 if nowhere."""


_COLUMNS = (
    "reach", "count", "mean", "variance", "calm", "excess", "lasting", "severe", "place", "steady", "settled",
)  # fmt: skip
"""Of trails, as a :data:`Trail` has them."""


@dataclass(slots=True)
class Trails:
    """The trails of devices by number, all as arrays with a place a device, and some to spare."""

    spec: FollowSpec
    reach: Floats = field(default_factory=lambda: np.zeros(0))
    """Of the model whose distances these are; another model's trail begins anew."""
    count: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    variance: Floats = field(default_factory=lambda: np.zeros(0))
    calm: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    excess: Floats = field(default_factory=lambda: np.zeros(0))
    lasting: Floats = field(default_factory=lambda: np.zeros(0))
    severe: Floats = field(default_factory=lambda: np.zeros(0))
    place: Floats = field(default_factory=lambda: np.zeros(0))
    steady: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    settled: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def _columns(self) -> tuple[Floats | Ints, ...]:
        return tuple(getattr(self, name) for name in _COLUMNS)

    def grow(self, devices: int) -> None:
        """Make room for so many devices, and some to come."""
        more = devices - len(self.count)
        if more > 0:
            spare = max(more, len(self.count) // _SPARE)
            for name, column in zip(_COLUMNS, self._columns, strict=True):
                setattr(self, name, np.append(column, np.zeros(spare, column.dtype)))

    def follow(self, device: Ints, distance: Floats, reach: Floats, fresh: Flags) -> Floats:
        """The share of ``reach`` beyond which each window is an anomaly, positive; the trails learn as they go.

        Args:
            device: shape (n,), each device's windows in order of time.
            distance: shape (n,), as :class:`scorers.model.DeviceModel` has them; NaN without a model.
            reach: shape (n,), the trained limits.
            fresh: shape (n,), whether the window is later than all the model was trained on. Others lie closer
                than new ones do, and are not learned from.
        """
        share = np.ones(len(device))
        spec = self.spec
        if spec.deviations > 0:
            rule = spec.deviations, spec.memory, spec.warmup, spec.least, spec.calm, spec.patience, spec.overlap
            of = self.reach, self.count, self.mean, self.variance, self.calm, self.excess, self.lasting
            _follow(device, distance, reach, fresh, share, *of, self.place, self.steady, self.settled, *rule)
        return share

    def last(self, device: Ints, severity: Floats) -> Floats:
        """Severities of lasting oddness, shape (n,): the geometric mean of each with its trailing mean.

        Args:
            device: shape (n,), each device's windows in order of time.
            severity: shape (n,), as :class:`scorers.verdicts.Verdicts` has them; NaN without a model.
        """
        if self.spec.overlap == 1:
            return severity
        lasting = np.full(len(device), np.nan)
        _last(device, severity, lasting, self.severe, self.spec.overlap)
        return lasting

    def recall(self, device: int, trail: Trail) -> None:
        """Put a trail back; of one that an earlier version wrote, what it did not have begins anew."""
        for column, value in zip(self._columns, (*trail, *[0.0] * (len(_COLUMNS) - len(trail))), strict=True):
            column[device] = value

    def forgive(self, device: int) -> None:
        """Count none of a device's odd windows any more: it was well. What its healthy ones were like remains."""
        self.calm[device], self.excess[device], self.steady[device], self.settled[device] = 0, 0.0, 0, 0.0

    def remember(self, devices: Ints) -> list[Trail | None]:
        """Those of some devices; None without one."""
        known = (self.reach[devices] != 0) | (self.severe[devices] != 0)
        columns = (column[devices].tolist() for column in self._columns)
        return [tuple(row) if any_ else None for any_, *row in zip(known.tolist(), *columns, strict=True)]


@compiled
def _follow(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    device: Ints, distance: Floats, reach: Floats, fresh: Flags, share: Floats,
    of: Floats, count: Ints, mean: Floats, variance: Floats, calm: Ints, excess: Floats, lasting: Floats,
    place: Floats, steady: Ints, settled: Floats,
    deviations: float, memory: int, warmup: int, least: float, wanted: int, patience: int, overlap: int,
) -> None:  # fmt: skip
    """Distances are compared as their roots, for they are squares."""
    for i in range(len(device)):
        at = device[i]
        if not (fresh[i] and distance[i] >= 0):
            continue
        if of[at] != reach[i]:
            of[at], count[at], mean[at], variance[at], calm[at], excess[at] = reach[i], 0, 0.0, 0.0, wanted, 0.0
            lasting[at], place[at], steady[at], settled[at] = 0.0, 0.0, 0, 0.0
        far = distance[i] / reach[i]
        lasting[at] = max(lasting[at] + (far - lasting[at]) / overlap if lasting[at] else far, _TINY)
        ratio = far**0.25 * lasting[at] ** 0.25 if overlap > 1 else np.sqrt(far)
        usual = raised = 1.0
        if count[at] >= warmup:
            usual = max(mean[at] + deviations * np.sqrt(variance[at]), (1.0 + MARGIN) * mean[at])
            usual = min(max(usual, least), 1.0)
        if patience:
            raised = np.exp(max(excess[at] - patience, 0.0) / memory)
        limit = min(max(usual, (1.0 + MARGIN) * settled[at]) * raised, HIGHEST * usual)
        share[i] = limit**2
        if overlap > 1:  # far * lasting is compared with share²
            share[i] = share[i] ** 2 / lasting[at]
        odd = distance[i] > reach[i] * share[i]
        # no more than what lifts the limit to its highest, or it would stay there long after
        excess[at] = min(max(excess[at] + odd - TOLERATED, 0.0), patience + memory * np.log(RAISED))
        if odd or ratio > usual:  # odd, or overlooked for the limit has risen
            calm[at] = 0
            if abs(ratio - place[at]) > STEADY * place[at]:
                place[at], steady[at] = ratio, 0
            steady[at] += 1
            place[at] += (ratio - place[at]) / max(min(steady[at], patience), 1)
            if 0 < patience <= steady[at]:
                settled[at] = place[at]
            continue
        calm[at] += 1
        if calm[at] >= wanted:
            steady[at] = 0
        if calm[at] >= memory:
            excess[at] = settled[at] = 0.0
        if calm[at] >= wanted:
            count[at] += 1
            weight = max(1.0 / count[at], 1.0 / memory)
            off = ratio - mean[at]
            mean[at] += weight * off
            variance[at] = (1.0 - weight) * (variance[at] + weight * off * off)


@compiled
def _last(device: Ints, severity: Floats, lasting: Floats, severe: Floats, overlap: int) -> None:
    for i in range(len(device)):
        square, at = severity[i] ** 2, device[i]
        if square >= 0:
            severe[at] = severe[at] + (square - severe[at]) / overlap if severe[at] else square
            lasting[i] = (square * severe[at]) ** 0.25
