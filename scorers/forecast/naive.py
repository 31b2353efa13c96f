"""Forecasts without a model, which any model must beat: an hour is as it was two days or a week ago."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scorers.errors import ModelError
from scorers.forecast.labels import CLASSES, Floats, Ints, Thresholds, classes
from scorers.forecast.schema import HORIZON, HOUR_MS

SEASONAL = tuple(range(48, 24 * 15, 24))
"""Hours back, the nearest first: the same hour of the day that is known last, or of an older one if that is missing."""
WEEKLY = tuple(range(168, 168 * 9, 168))
"""The same hour of last week, or of an older one."""
BASELINES: Mapping[str, Sequence[int]] = {"seasonal_naive": SEASONAL, "last_week": WEEKLY, "frequencies": ()}
"""``frequencies`` says of every hour how often each class was in training."""
RIVALS = ("seasonal_naive", "last_week")
"""Whom a model must beat before it is put in force."""


@dataclass(frozen=True, slots=True)
class History:
    """The loads known, to be looked up by server and hour."""

    servers: pa.Array
    """Distinct, as they came."""
    keys: Ints
    """Server and hour in one number, in order, shape (n,)."""
    loads: Floats

    @classmethod
    def of(cls, rows: pa.Table) -> "History":
        """From a table with ``server``, ``hour`` (epoch ms) and ``load``; rows without a load are not known."""
        rows = rows.filter(pc.is_valid(rows["load"]))
        servers = pc.unique(rows["server"].cast(pa.string()))
        keys = _keys(servers, rows)
        order = np.argsort(keys, kind="stable")
        return cls(servers, keys[order], rows["load"].to_numpy()[order])

    def back(self, targets: pa.Table, hours: int) -> Floats:
        """The load so many hours before each target, shape (n,); NaN where it is not known.

        Raises:
            ModelError: it would be nearer than what may be known of an hour to forecast.
        """
        if hours < HORIZON:
            raise ModelError(f"{hours} hours before is nearer than the horizon; look {HORIZON} hours back or more.")
        wanted = _keys(self.servers, targets, hours)
        if not len(self.keys):
            return np.full(len(wanted), np.nan)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.loads[place], np.nan)

    def latest(self, targets: pa.Table, lags: Sequence[int]) -> Floats:
        """The load at the first of some lags at which it is known, shape (n,); NaN where at none."""
        found = np.full(len(targets), np.nan)
        for hours in lags:
            missing = np.isnan(found)
            if not missing.any():
                break
            found = np.where(missing, self.back(targets, hours), found)
        return found


def baseline(name: str, history: History, targets: pa.Table, teaching: tuple[Ints, Thresholds]) -> Floats:
    """Probabilities (n, 3) that a baseline gives for some hours: of one class all, or each class's frequency.

    Args:
        name: one of ``BASELINES``.
        history: the loads known.
        targets: with ``server`` and ``hour``.
        teaching: the classes of the training rows, and the thresholds.
    """
    frequencies = np.bincount(teaching[0], minlength=len(CLASSES)) / max(len(teaching[0]), 1)
    lags = BASELINES[name]
    if not lags:
        return np.tile(frequencies, (len(targets), 1))
    found = classes(history.latest(targets, lags), teaching[1])
    found[found < 0] = int(frequencies.argmax())
    return np.asarray(np.eye(len(CLASSES))[found])


def _keys(servers: pa.Array, rows: pa.Table, back: int = 0) -> Ints:
    """One number a row; unknown servers share one that no known hour has."""
    place = pc.index_in(rows["server"].cast(pa.string()), value_set=servers)
    codes = pc.fill_null(place, -1).to_numpy().astype(np.int64)
    hours = rows["hour"].to_numpy() // HOUR_MS - back
    return np.where(codes < 0, np.int64(-1), (codes << 32) + hours)
