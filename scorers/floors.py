"""How little a feature may vary: floors under scales, from what a metric's noise and range were."""

import numpy as np

from scorers.features import KINDS, MAX, MEAN, MIN, STD
from scorers.statistics import Floats

CONSTANT = 1e-9
"""Spread, relative to the level, below which a metric counts as constant."""
VISIBLE = 1e-3
"""One standard deviation of a constant metric, relative to its level (absolute at level 0)."""
RELATIVE = 0.05
"""Floor under a scale, relative to the metric's own noise."""
REST = 0.01
"""Floor under a scale, relative to the range that the metric covered: what rests most of the time may stir a little."""
LOGARITHMIC = 0.1
"""Floor under the scale of ``log std`` and ``log count``: 10 %."""


def floors_of(actual: Floats) -> tuple[Floats, Floats]:
    """Softening of the standard deviations, shape (m,), and the floor under each scale, shape (p,)."""
    cube = actual.reshape(len(actual), -1, len(KINDS))
    level = _median(np.abs(cube[..., MEAN]))
    drift = np.nanstd(cube[..., MEAN], axis=0)
    within = _median(cube[..., STD])
    constant = np.where(level > 0, level, 1.0)
    noise = np.where(within > CONSTANT * constant, within, drift)
    still = noise <= CONSTANT * constant
    softening = np.where(still, VISIBLE * constant, np.maximum(RELATIVE * noise, REST * _range(cube)))
    floors = np.full(cube.shape[1:], LOGARITHMIC)
    floors[:, MEAN] = floors[:, MIN] = floors[:, MAX] = softening
    return softening, floors.ravel()


def _range(cube: Floats) -> Floats:
    """From the lowest to the highest reading of each metric, shape (m,); 0 without one."""
    low = np.where(np.isfinite(cube[..., MIN]), cube[..., MIN], np.inf).min(axis=0)
    high = np.where(np.isfinite(cube[..., MAX]), cube[..., MAX], -np.inf).max(axis=0)
    return np.asarray(np.maximum(high - low, 0.0))


def _median(values: Floats) -> Floats:
    """Lower median of each column without its NaNs, shape (m,); 0 for a column without values."""
    middle = np.maximum(np.isfinite(values).sum(axis=0) - 1, 0) // 2
    ordered: Floats = np.sort(values, axis=0)  # NaNs last
    return np.asarray(np.nan_to_num(ordered[middle, np.arange(len(middle))]))
