"""What a forecast is of: the class of an hour's peak load; and which hours may teach a model which test it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scorers.errors import ConfigError, ModelError
from scorers.forecast.schema import HOUR_MS

CLASSES = ("low", "medium", "high")
THRESHOLDS = (100.0, 500.0)
"""The published ones: low <= 100 < medium <= 500 < high."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Thresholds = tuple[float, float]


def classes(load: Floats, thresholds: Thresholds) -> Ints:
    """Classes of loads, both of shape (n,): 0 low, 1 medium, 2 high, -1 where the load is NaN.

    >>> classes(np.array([0.0, 100.0, 100.5, 500.1, np.nan]), (100.0, 500.0))
    array([ 0,  0,  1,  2, -1])
    """
    found = np.searchsorted(np.array(thresholds), load, side="left")
    return np.where(np.isnan(load), -1, found).astype(np.int64)


def scaled(thresholds: Thresholds, scale: float) -> Thresholds:
    """Thresholds of a log that holds ``scale`` times the sessions they were set for."""
    return thresholds[0] * scale, thresholds[1] * scale


def quantiles(load: Floats, shares: Thresholds) -> Thresholds:
    """Thresholds that leave such shares of the loads, shape (n,), below them; give it the loads of training alone.

    Raises:
        ConfigError: shares are not in order between 0 and 1.
        ModelError: the loads are so alike that both thresholds would be the same.
    """
    if not 0 < shares[0] < shares[1] < 1:
        raise ConfigError(f"load.quantiles is {shares}; make it two numbers in order between 0 and 1, such as 0.5,0.9.")
    low, high = (float(value) for value in np.quantile(load[~np.isnan(load)], shares))
    if low >= high:
        raise ModelError(f"Both quantiles {shares} of the load are {low:g}; choose others, or load.thresholds.")
    return low, high


def halves(features: pa.Table, split: int) -> tuple[pa.Table, pa.Table]:
    """Rows of FEATURES whose load is known: hours that are over by ``split`` (epoch ms), and those that begin later.

    An hour that is under way at ``split`` is in neither. Features look at least 48 hours back, so that no row of the
    first has seen an hour of the second.
    """
    known = pc.is_valid(features["load"])
    over = pc.less_equal(features["hour"], split - HOUR_MS)
    ahead = pc.greater_equal(features["hour"], split)
    return features.filter(pc.and_(known, over)), features.filter(pc.and_(known, ahead))
