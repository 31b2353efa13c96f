"""Held-out distances in, a threshold out: how far is too far for the false-alarm rate asked for."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers.metrics import runs
from scorers.statistics import Floats, Ints

TAIL = 0.1
"""Share of the held-out distances taken as the tail."""
TAILS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25)
"""The same of windows that alert: the least with peaks enough, for the farther out it begins, the better it fits."""
PARTS, BEGUN = 7, 4
"""Of a device's windows, and how many of these a model needs to be tried on the next."""
FEWEST = 15
"""Exceedances below which the tail reaches further into the body (at most a quarter of it)."""


class Limit(NamedTuple):
    """How far is too far, and how sure that is."""

    distance: float
    ample: float
    """What it would be if as many windows as one likes had the same tail; at most ``distance``."""


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


def ahead(rows: int, gap: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The same for each of the later parts, by what came before it alone: as a model is used once it is trained.

    Where a device drifts, blocks held out from the middle look closer than what is to come, and those from the ends
    farther (Dawid 1984, prequential).
    """
    edges = np.linspace(0, rows, PARTS + 1).astype(np.intp)
    for first, last in pairwise(edges[BEGUN:]):
        yield np.arange(max(first - gap, 1)), np.arange(first, last)


def alert_limit(distances: Floats, expected: float, k: int, n: int, owner: Ints | None = None) -> Limit:
    """The distance beyond which ``k`` of ``n`` healthy windows in a row lie ``expected`` times in as many windows.

    Windows that alert together are one alert, so the peaks of such runs are what the tail is fitted to, as in
    :func:`limit` (declustering; Coles 2001, section 5.3.2).

    Args:
        distances: shape (m,), held-out, in order of time, at least ``n``.
        expected: alerts asked for, positive.
        k: so many windows ...
        n: ... of so many are an alert.
        owner: whose each is, as in :func:`limit`.
    """
    before = np.concatenate([np.zeros(n - 1), distances])
    lasting = np.sort(np.lib.stride_tricks.sliding_window_view(before, n), axis=1)[:, n - k]
    wanted = max(FEWEST, 2 * expected)
    base, peaks, begun = lasting.max(), np.zeros(0), np.zeros(0, np.intp)
    for share in TAILS:
        base = np.quantile(lasting, 1 - share)
        above = runs(lasting > base)
        begun = np.array([first for first, _ in above], np.intp)
        peaks = np.array([lasting[first:last].max() for first, last in above])
        if len(peaks) >= wanted:
            break
    if len(peaks) <= expected:
        return Limit(float(base), float(base))
    sure = len(peaks) if owner is None else len(np.unique(owner[begun]))
    return _beyond(float(base), float((peaks - base).mean()), expected / len(peaks), sure)


def limit(distances: Floats, rate: float, owner: Ints | None = None) -> Limit:
    """The distance that a healthy window exceeds with probability ``rate``.

    Peaks over a high threshold, with an exponential tail (Siffer et al. 2017 with shape 0), in its
    predictive form: with N exceedances of mean b, a new excess is larger than ``N b (q^(-1/N) - 1)`` with
    probability q exactly, so few held-out windows give a wider limit instead of an over-confident one.

    Args:
        distances: shape (n,), held-out, in any order.
        rate: false alarms per window asked for, in (0, 1).
        owner: shape (n,), the number of the device each is of, where they are of several: windows of one device are
            far together, so that N counts the devices among the exceedances.
    """
    ordered = np.sort(distances)
    peaks = int(max(TAIL * len(ordered), min(FEWEST, len(ordered) / 4), 1))
    base = ordered[-peaks - 1]
    beyond = rate * len(ordered) / peaks
    if beyond >= 1:
        within = float(np.quantile(ordered, 1 - rate))
        return Limit(within, within)
    sure = peaks if owner is None else len(np.unique(owner[distances > base]))
    return _beyond(float(base), float((ordered[-peaks:] - base).mean()), beyond, sure)


def _beyond(base: float, excess: float, share: float, sure: int) -> Limit:
    """Where an exponential tail of that mean is exceeded by that share, known from ``sure`` exceedances."""
    count = max(sure, 1)
    return Limit(base + count * excess * (share ** (-1 / count) - 1), base - excess * np.log(share))
