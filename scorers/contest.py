"""Champion and challenger on the same windows, held out from both: which of them is the better model.

A model is worth the faults it finds less what its false alarms cost. Devices are compared each by itself, and a fleet
by the mean over its devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorers.fleet import Fleet
from scorers.plant import plant
from scorers.statistics import Flags, Ints, Statistics, concat

COST = 10.0
"""A false alarm in so many healthy windows weighs as much as a fault missed."""
FEWEST = 20
"""Windows held out below which nothing is said of a device."""


@dataclass(frozen=True, slots=True)
class Side:
    """One model on the held-out windows."""

    false_alarms: float
    """Share of the healthy windows beyond its trained limit."""
    detection: float
    """Share of the faulty windows beyond it."""

    @property
    def worth(self) -> float:
        """What it finds less what it costs; a device without a model is worth 0."""
        return self.detection - COST * self.false_alarms


NOBODY = Side(0.0, 0.0)
"""A device without a model: never a false alarm, never a fault found."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Both models of one device on the same windows."""

    windows: int
    """Healthy windows held out."""
    champion: Side
    challenger: Side
    agreement: float
    """Share of all windows, healthy and faulty, that both flag or neither does."""
    seen: bool
    """Whether the champion was trained on some of them, for want of later ones."""

    @property
    def gain(self) -> float:
        """What the challenger is worth more; negative if it is worse."""
        return self.challenger.worth - self.champion.worth


@dataclass(frozen=True, slots=True)
class Ballot:
    """What the contests of a fleet's devices come to."""

    devices: int
    better: int
    worse: int
    gain: float
    """The mean over devices."""
    champion: Side
    """The mean over devices, as the next."""
    challenger: Side
    agreement: float

    @property
    def won(self) -> bool:
        """Whether the challenger is the better fleet."""
        return self.devices > 0 and self.gain > 0


def contest(
    fleets: tuple[Fleet, Fleet], device: str, held_out: Statistics, faulty: Statistics | None, *, seen: bool
) -> Contest:
    """Both fleets' models of one device, by their trained limits.

    Args:
        fleets: the one in force, and a new one whose model has not seen ``held_out``.
        device: whose windows these are.
        held_out: healthy windows.
        faulty: windows known to be faulty; None: a fault is planted in each of ``held_out``.
        seen: whether the champion has seen some of ``held_out``.
    """
    odd = plant(held_out)[0] if faulty is None else faulty.align(held_out.metrics)
    windows = concat([held_out, odd])
    healthy = np.arange(len(windows)) < len(held_out)
    one, other = (_flags(fleet, device, windows) for fleet in fleets)
    return Contest(len(held_out), _side(one, healthy), _side(other, healthy), float((one == other).mean()), seen)


def later(window_end: Ints, holdout: float, until: int, gap: int) -> tuple[Ints, Ints, bool]:
    """Rows to try a challenger's training on, rows to hold out, and whether the champion has seen some of these.

    Args:
        window_end: shape (n,), epoch ms, in order of time.
        holdout: share of the windows, the latest, to hold out.
        until: end of the last window that the champion was trained on, epoch ms.
        gap: windows left out between the two.
    """
    first = len(window_end) - int(holdout * len(window_end))
    rows = np.arange(len(window_end))
    fresh = rows[(rows >= first) & (window_end > until)]
    seen = len(fresh) < FEWEST
    return rows[: max(first - gap, 0)], rows[first:] if seen else fresh, seen


def ballot(contests: Sequence[Contest]) -> Ballot:
    """What contests come to."""
    if not contests:
        return Ballot(0, 0, 0, 0.0, NOBODY, NOBODY, 1.0)
    gains = np.array([one.gain for one in contests])
    return Ballot(
        len(contests),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
        float(gains.mean()),
        _mean([one.champion for one in contests]),
        _mean([one.challenger for one in contests]),
        float(np.mean([one.agreement for one in contests])),
    )


def _flags(fleet: Fleet, device: str, windows: Statistics) -> Flags:
    return fleet.score(np.repeat(fleet.index([device]), len(windows)), windows, top=1).anomaly


def _side(flags: Flags, healthy: Flags) -> Side:
    return Side(float(flags[healthy].mean()), float(flags[~healthy].mean()) if (~healthy).any() else 0.0)


def _mean(sides: Sequence[Side]) -> Side:
    return Side(
        float(np.mean([side.false_alarms for side in sides])), float(np.mean([side.detection for side in sides]))
    )
