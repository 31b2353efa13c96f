"""Statistics in, features out: the one definition that live scoring, batch scoring and training share.

Each metric of a window gives five features, named ``temperature.mean`` and so on. What a person reads
(:func:`features`) and what a model learns from (:func:`transform`) differ: a level moves only ``mean``,
a spike only ``min`` or ``max``, noise and a stuck sensor ``std``, a dropout ``count``.
"""

from collections.abc import Sequence

import numpy as np

from scorers.statistics import Floats, Statistics

DEFINITION = "mean,log std,mean-min,max-mean,log count/1"
"""Names this definition in a fleet file; a file with another one is refused."""

KINDS = ("mean", "std", "min", "max", "count")
MEAN, STD, MIN, MAX, COUNT = range(len(KINDS))
HALF_READING = 0.5
"""Keeps the logarithm of a count finite at zero."""


def names(metrics: Sequence[str]) -> tuple[str, ...]:
    """Feature names in column order.

    >>> names(["load"])
    ('load.mean', 'load.std', 'load.min', 'load.max', 'load.count')
    """
    return tuple(f"{metric}.{kind}" for metric in metrics for kind in KINDS)


def features(statistics: Statistics) -> Floats:
    """Actual values, shape (n, 5 m), in the metrics' own units; NaN where a window has no such value."""
    blocks = [getattr(statistics, kind) for kind in KINDS]
    return np.stack(blocks, axis=-1, dtype=np.float64).reshape(len(statistics), -1)


def transform(actual: Floats, softening: Floats) -> Floats:
    """What a model learns from, shape (n, 5 m).

    Args:
        actual: shape (n, 5 m), from :func:`features`.
        softening: shape (m,) or (n, m), in the metric's unit; added to ``std`` before the logarithm, so
            that a collapse to 0 is far away but finite.

    Returns:
        Per metric: mean, log(std + softening), mean - min, max - mean, log(count + 0.5). Features of
        spread are NaN for fewer than two readings: one reading says nothing about spread.
    """
    cube = actual.reshape(len(actual), -1, len(KINDS))
    mean, count = cube[..., MEAN], cube[..., COUNT]
    shaped = np.empty_like(cube)
    shaped[..., MEAN] = mean
    with np.errstate(invalid="ignore"):  # an overflowed mean makes inf - inf
        shaped[..., STD] = np.log(cube[..., STD] + softening)
        shaped[..., MIN] = mean - cube[..., MIN]
        shaped[..., MAX] = cube[..., MAX] - mean
    shaped[..., COUNT] = np.log(count + HALF_READING)
    alone = count < 2  # noqa: PLR2004  # the sample standard deviation needs two
    shaped[..., STD : MAX + 1][alone] = np.nan
    return shaped.reshape(actual.shape)


def inverse(shaped: Floats, softening: Floats) -> Floats:
    """Actual values behind transformed ones, shapes as in :func:`transform`."""
    cube = shaped.reshape(len(shaped), -1, len(KINDS))
    mean = cube[..., MEAN]
    actual = np.empty_like(cube)
    actual[..., MEAN] = mean
    actual[..., STD] = np.maximum(np.exp(cube[..., STD]) - softening, 0.0)
    actual[..., MIN] = mean - cube[..., MIN]
    actual[..., MAX] = mean + cube[..., MAX]
    actual[..., COUNT] = np.exp(cube[..., COUNT]) - HALF_READING
    return actual.reshape(shaped.shape)
