"""Held-out distances in, a threshold out: how far is too far for the false-alarm rate asked for."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scorers.statistics import Floats

TAIL = 0.1
"""Share of the held-out distances taken as the tail."""
FEWEST = 15
"""Exceedances below which the tail reaches further into the body (at most a quarter of it)."""


def blocks(rows: int, folds: int, gap: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Training and held-out row numbers of each fold.

    Held-out rows are contiguous in time, and ``gap`` rows on both sides of them are in neither set, for
    neighbouring windows resemble each other (López de Prado 2018, purged k-fold with embargo).
    """
    edges = np.linspace(0, rows, folds + 1).astype(np.intp)
    everything = np.arange(rows)
    for first, last in pairwise(edges):
        away = (everything < first - gap) | (everything >= last + gap)
        yield everything[away], everything[first:last]


def limit(distances: Floats, rate: float) -> float:
    """The distance that a healthy window exceeds with probability ``rate``.

    Peaks over a high threshold, with an exponential tail (Siffer et al. 2017 with shape 0), in its
    predictive form: with N exceedances of mean b, a new excess is larger than ``N b (q^(-1/N) - 1)`` with
    probability q exactly, so few held-out windows give a wider limit instead of an over-confident one.

    Args:
        distances: shape (n,), held-out, in any order.
        rate: false alarms per window asked for, in (0, 1).
    """
    ordered = np.sort(distances)
    peaks = int(max(TAIL * len(ordered), min(FEWEST, len(ordered) / 4), 1))
    base = ordered[-peaks - 1]
    beyond = rate * len(ordered) / peaks
    if beyond >= 1:
        return float(np.quantile(ordered, 1 - rate))
    excess = (ordered[-peaks:] - base).mean()
    return float(base + peaks * excess * (beyond ** (-1 / peaks) - 1))
