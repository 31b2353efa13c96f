"""A device's windows before a model is trained on them: are they what they say, enough, and like those before?"""

from dataclasses import dataclass

import numpy as np

from scorers.errors import ModelError, hold
from scorers.features import features, transform
from scorers.fleet import Fleet
from scorers.statistics import Flags, Floats, Ints, Statistics

SLACK = 1e-9
"""Relative error that sums of readings may have."""
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """What windows must be like.

    Raises:
        ConfigError: a value is out of range.
    """

    max_missing: float = 0.2
    """Share of the windows in which a metric may have readings but no finite mean, in [0, 1]."""
    min_hours: float = 0.0
    """From the first window to the last, at least so long."""
    max_shift: float = 20.0
    """Standard deviations by which a metric may have moved since the model in force was trained; 0: any number."""

    def __post_init__(self) -> None:
        hold("training", self, (
            ("max_missing", 0 <= self.max_missing <= 1, "0 to 1"),
            ("min_hours", 0 <= self.min_hours < np.inf, "0 or more"),
            ("max_shift", 0 <= self.max_shift < np.inf, "0 or more"),
        ))  # fmt: skip


def check(
    statistics: Statistics, window_end: Ints, spec: CheckSpec, device: str = "", before: Fleet | None = None
) -> None:
    """See that a model may be trained on windows.

    Args:
        statistics: the device's windows, in any order.
        window_end: shape (n,), epoch ms.
        spec: what they must be like.
        device: whose they are.
        before: the fleet in force, whose model of the device they are compared with.

    Raises:
        ModelError: it may not; names the metric and the fix.
    """
    _possible(statistics)
    _present(statistics, spec.max_missing)
    span = (int(window_end.max()) - int(window_end.min())) / HOUR_MS if len(window_end) else 0.0
    if span < spec.min_hours:
        raise ModelError(f"The windows cover {span:.1f} hours; record {spec.min_hours:g}, or lower training.min_hours.")
    if before is not None and spec.max_shift:
        _alike(statistics, spec.max_shift, device, before)


def _possible(statistics: Statistics) -> None:
    """Statistics that no readings have are refused."""
    if (statistics.count < 0).any():
        raise ModelError(f"{_first(statistics, statistics.count < 0)} has a negative count; record it anew.")
    slack = SLACK * np.maximum(np.abs(statistics.mean), 1.0)
    with np.errstate(invalid="ignore"):
        crossed = (statistics.min > statistics.mean + slack) | (statistics.mean > statistics.max + slack)
    if crossed.any():
        raise ModelError(
            f"{_first(statistics, crossed)} has a mean that is not between its minimum and maximum, "
            f"in {int(crossed.any(axis=1).sum())} windows; leave these out with --exclude."
        )
    if (statistics.std < 0).any():
        raise ModelError(f"{_first(statistics, statistics.std < 0)} has a negative standard deviation; record it anew.")


def _present(statistics: Statistics, most: float) -> None:
    heard = statistics.count > 0
    broken = (heard & ~np.isfinite(statistics.mean)).sum(axis=0) / np.maximum(heard.sum(axis=0), 1)
    if (broken > most).any():
        column = int(broken.argmax())
        raise ModelError(
            f"{statistics.metrics[column]} has no finite mean in {broken[column]:.0%} of its windows; at most "
            f"{most:.0%} may be so (training.max_missing)."
        )


def _alike(statistics: Statistics, most: float, device: str, before: Fleet) -> None:
    """Medians of the transformed means against the model's centre, in its standard deviations."""
    place = int(before.index([device])[0])
    if place < 0:
        return
    group, own = before.locate(place)
    actual = features(statistics.align(group.metrics))
    shaped = transform(actual, group.softening[own])
    with np.errstate(invalid="ignore"):
        z = np.abs((shaped - group.center[own]) / group.scale[own])[:, :: len(shaped[0]) // len(group.metrics)]
    moved = _medians(z)
    if moved.max(initial=0.0) > most:
        column = int(moved.argmax())
        raise ModelError(
            f"{group.metrics[column]} has moved by {moved[column]:.0f} standard deviations since the model in force "
            f"was trained, more than {most:g}; if it is there to stay, train with --set training.max_shift=0."
        )


def _medians(values: Floats) -> Floats:
    """Of each column's finite values, shape (m,); 0 without one."""
    return np.array(
        [np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in values.T]
    )


def _first(statistics: Statistics, wrong: Flags) -> str:
    return statistics.metrics[int(wrong.any(axis=0).argmax())]
