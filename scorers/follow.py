"""A limit that follows: how far a device's own healthy windows went of late, in place of how far any might.

The limit that training sets must hold for weeks, for every load; most days a device keeps far below it, and a
fault that moves it to twice its usual distance stays below it too. So each device has a *trail*: the moments,
forgetting exponentially, of the distances of its own recent windows, and a window is judged by
``mean + deviations * standard deviation`` of it, never by more than training allows nor by less than a share of
that. It is the EWMA chart's way of following a level (Roberts 1959; Montgomery 2013, ch. 9) and the rule of
streaming peaks over threshold that what is beyond the limit is not learned from (Siffer et al. 2017, SPOT).
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
    """Only the last of so many calm windows in a row is learned from, so that none is while an alert is open."""

    def __post_init__(self) -> None:
        hold("following", self, (
            ("deviations", 0 <= self.deviations < np.inf, "0 or more"),
            ("memory", self.memory >= 1, "at least 1"),
            ("warmup", self.warmup >= 2, "at least 2"),  # noqa: PLR2004 - said beside it
            ("least", 0 < self.least <= 1, "above 0 and at most 1"),
            ("calm", self.calm >= 1, "at least 1"),
        ))  # fmt: skip


_SPARE = 4
"""What is full grows by one part in so many, at least."""

Trail = tuple[float, int, float, float, int]
"""A device's, to be remembered: reach of the model it belongs to, windows, mean, variance, calm windows in a row."""


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

    @property
    def _columns(self) -> tuple[Floats, Ints, Floats, Floats, Ints]:
        """As a :data:`Trail` has them."""
        return self.reach, self.count, self.mean, self.variance, self.calm

    def grow(self, devices: int) -> None:
        """Make room for so many devices, and some to come."""
        more = devices - len(self.count)
        if more > 0:
            spare = max(more, len(self.count) // _SPARE)
            floats, ints = np.zeros(spare), np.zeros(spare, np.int64)
            self.reach, self.mean, self.variance = (
                np.append(column, floats) for column in (self.reach, self.mean, self.variance)
            )
            self.count, self.calm = np.append(self.count, ints), np.append(self.calm, ints)

    def follow(self, device: Ints, distance: Floats, reach: Floats, fresh: Flags) -> Floats:
        """The share of ``reach`` beyond which each window is an anomaly, in (0, 1]; the trails learn as they go.

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
            rule = spec.deviations, spec.memory, spec.warmup, spec.least, spec.calm
            _follow(device, distance, reach, fresh, share, *self._columns, *rule)
        return share

    def recall(self, device: int, trail: Trail) -> None:
        """Put a trail back."""
        for column, value in zip(self._columns, trail, strict=True):
            column[device] = value

    def remember(self, devices: Ints) -> list[Trail | None]:
        """Those of some devices; None without one."""
        columns = (column[devices].tolist() for column in self._columns)
        return [(reach, *rest) if reach else None for reach, *rest in zip(*columns, strict=True)]


@compiled
def _follow(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    device: Ints, distance: Floats, reach: Floats, fresh: Flags, share: Floats,
    of: Floats, count: Ints, mean: Floats, variance: Floats, calm: Ints,
    deviations: float, memory: int, warmup: int, least: float, wanted: int,
) -> None:  # fmt: skip
    """Distances are compared as their roots, for they are squares."""
    for i in range(len(device)):
        at = device[i]
        if not (fresh[i] and distance[i] >= 0):
            continue
        if of[at] != reach[i]:
            of[at], count[at], mean[at], variance[at], calm[at] = reach[i], 0, 0.0, 0.0, wanted
        ratio = np.sqrt(distance[i] / reach[i])
        limit = 1.0
        if count[at] >= warmup:
            limit = min(max(mean[at] + deviations * np.sqrt(variance[at]), least), 1.0)
        share[i] = limit * limit
        if distance[i] > reach[i] * share[i]:
            calm[at] = 0
            continue
        calm[at] = min(calm[at] + 1, wanted)
        if calm[at] == wanted:
            count[at] += 1
            weight = max(1.0 / count[at], 1.0 / memory)
            off = ratio - mean[at]
            mean[at] += weight * off
            variance[at] = (1.0 - weight) * (variance[at] + weight * off * off)
