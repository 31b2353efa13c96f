"""A limit that follows: how far a device's own healthy windows went of late, in place of how far any might.

The limit that training sets must hold for weeks, for every load; most days a device keeps far below it, and a
fault that moves it to twice its usual distance stays below it too. So each device has a *trail*: the moments,
forgetting exponentially, of the distances of its own recent windows, and a window is judged by
``mean + deviations * standard deviation`` of it, never by more than training allows nor by less than a share of
that. It is the EWMA chart's way of following a level (Roberts 1959; Montgomery 2013, ch. 9) and the rule of
streaming peaks over threshold that what is beyond the limit is not learned from (Siffer et al. 2017, SPOT).

Windows that overlap share readings, so a few odd readings make many odd windows, and a neighbour confirms nothing. What
is compared is therefore the geometric mean of a window's distance and of the trailing mean of distances, over as many
windows as a reading belongs to: what lasts counts for more than what flashes up, and both have to be odd.

A device that stays odd has changed for good, as far as a limit can tell, and its alert has been seen. Its odd windows
beyond the share that is tolerated add up; past the *patience* the limit rises with each of them, and falls back as they
grow fewer: adaptive conformal inference (Gibbs & Candès 2021), but for what is overlooked at first. Whoever has been as
healthy as ever for so many windows as are remembered was mended, and is judged as before.
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
    """Odd windows, beyond 2 % of all, that a device may have before its limit rises; 0: it never does."""
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
"""A limit rises to so many times the one it would be, in roots of distances; what lies beyond is always odd."""
_SPARE = 4
"""What is full grows by one part in so many, at least."""

_TINY = 1e-12
"""What a trailing mean is at least, so that it may be divided by."""

Trail = tuple[float, ...]
"""A device's, to be remembered: reach of the model it belongs to, windows, mean, variance, calm windows in a row,
odd ones beyond those tolerated, trailing mean of distances as a share of reach, and of severities squared."""


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

    @property
    def _columns(self) -> tuple[Floats, Ints, Floats, Floats, Ints, Floats, Floats, Floats]:
        """As a :data:`Trail` has them."""
        return self.reach, self.count, self.mean, self.variance, self.calm, self.excess, self.lasting, self.severe

    def grow(self, devices: int) -> None:
        """Make room for so many devices, and some to come."""
        more = devices - len(self.count)
        if more > 0:
            spare = max(more, len(self.count) // _SPARE)
            floats, ints = np.zeros(spare), np.zeros(spare, np.int64)
            self.reach, self.mean, self.variance, self.excess, self.lasting, self.severe = (
                np.append(column, floats)
                for column in (self.reach, self.mean, self.variance, self.excess, self.lasting, self.severe)
            )
            self.count, self.calm = np.append(self.count, ints), np.append(self.calm, ints)

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
            _follow(device, distance, reach, fresh, share, *self._columns[:-1], *rule)
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
        """Put a trail back; of one that an earlier version wrote, the trailing means begin anew."""
        for column, value in zip(self._columns, (*trail, 0.0, 0.0), strict=False):
            column[device] = value

    def forgive(self, device: int) -> None:
        """Count none of a device's odd windows any more: it was well. What its healthy ones were like remains."""
        self.calm[device], self.excess[device] = 0, 0.0

    def remember(self, devices: Ints) -> list[Trail | None]:
        """Those of some devices; None without one."""
        columns = (column[devices].tolist() for column in self._columns)
        return [(reach, *rest) if reach or rest[-1] else None for reach, *rest in zip(*columns, strict=True)]


@compiled
def _follow(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    device: Ints, distance: Floats, reach: Floats, fresh: Flags, share: Floats,
    of: Floats, count: Ints, mean: Floats, variance: Floats, calm: Ints, excess: Floats, lasting: Floats,
    deviations: float, memory: int, warmup: int, least: float, wanted: int, patience: int, overlap: int,
) -> None:  # fmt: skip
    """Distances are compared as their roots, for they are squares."""
    for i in range(len(device)):
        at = device[i]
        if not (fresh[i] and distance[i] >= 0):
            continue
        if of[at] != reach[i]:
            of[at], count[at], mean[at], variance[at], calm[at], excess[at] = reach[i], 0, 0.0, 0.0, wanted, 0.0
            lasting[at] = 0.0
        far = distance[i] / reach[i]
        lasting[at] = max(lasting[at] + (far - lasting[at]) / overlap if lasting[at] else far, _TINY)
        ratio = far**0.25 * lasting[at] ** 0.25 if overlap > 1 else np.sqrt(far)
        usual = raised = 1.0
        if count[at] >= warmup:
            usual = min(max(mean[at] + deviations * np.sqrt(variance[at]), least), 1.0)
        if patience:
            raised = min(np.exp(max(excess[at] - patience, 0.0) / memory), HIGHEST)
        share[i] = (usual * raised) ** 2
        if overlap > 1:  # far * lasting is compared with share²
            share[i] = share[i] ** 2 / lasting[at]
        odd = distance[i] > reach[i] * share[i]
        # no more than what lifts the limit to its highest, or it would stay there long after
        excess[at] = min(max(excess[at] + odd - TOLERATED, 0.0), patience + memory * np.log(HIGHEST))
        if odd or ratio > usual:  # odd, or overlooked for the limit has risen
            calm[at] = 0
            continue
        calm[at] += 1
        if calm[at] >= memory:
            excess[at] = 0.0
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
