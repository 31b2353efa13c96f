"""The scoring of the Numenta Anomaly Benchmark (Lavin & Ahmad 2015, 1510.03336; https://github.com/numenta/NAB). Pure.

Of a labelled window only the detection that came best counts, early ones more than late ones; every detection outside
costs, more the further behind a window; a window without any costs too. One threshold for the whole corpus is chosen
by its score, and scores are scaled so that a detector that never speaks has 0 and a perfect one 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.statistics import Floats

PROBATION = 0.15
"""Share of a series that is not scored ..."""
LONGEST_PROBATION = 750
"""... at most so many rows."""
_STEEP = 5
_FAR = 3.0
"""Widths behind a window from where on a detection costs all that it can."""
_OUTSIDE = -1

Spans = Sequence[tuple[int, int]]
"""First and last row of each labelled window, in order."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What counts how much."""

    found: float = 1.0
    false: float = 0.11
    missed: float = 1.0


PROFILES = {
    "standard": Profile(),
    "low_fp": Profile(false=0.22),
    "low_fn": Profile(missed=2.0),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One series: how odd each row is, shape (n,), any scale; and the windows that are labelled."""

    oddness: Floats
    spans: Spans


def probation(rows: int) -> int:
    """How many of the first rows are not scored."""
    return min(int(PROBATION * rows), LONGEST_PROBATION)


def score(corpus: Sequence[Series], profile: Profile, threshold: float | None = None) -> float:
    """The corpus's score at a threshold, rows as odd as that being detections; without one at the best there is."""
    odd, raw = _course(corpus, profile)
    reached = raw[np.count_nonzero(odd >= threshold)] if threshold is not None else raw[_best(odd, raw)]
    windows = sum(len(series.spans) for series in corpus)
    return float(100 * (reached - raw[0]) / (profile.found * windows - raw[0]))


def best(corpus: Sequence[Series], profile: Profile) -> float:
    """The threshold of the best score; infinite where that is to say nothing."""
    odd, raw = _course(corpus, profile)
    said = _best(odd, raw)
    return float(odd[said - 1]) if said else float("inf")


def _course(corpus: Sequence[Series], profile: Profile) -> tuple[Floats, Floats]:
    """Oddness of all rows that are scored, falling, shape (n,), and the raw score once so many are said, (n + 1,)."""
    odd, window, worth = _rows(corpus, profile)
    windows = sum(len(series.spans) for series in corpus)
    order = np.argsort(-odd, kind="stable")
    gains = _gains(window[order], worth[order], windows, profile)
    return odd[order], np.cumsum(np.append(0.0, gains)) - profile.missed * windows


def _best(odd: Floats, raw: Floats) -> int:
    """How many rows to say for the highest score; equals are said together."""
    apart = np.concatenate([[True], odd[1:] != odd[:-1], [True]]) if len(odd) else np.array([True])
    return int(np.flatnonzero(apart)[raw[apart].argmax()])


def _gains(window: NDArray[np.int64], worth: Floats, windows: int, profile: Profile) -> Floats:
    """What each detection adds to the raw score, one after the other."""
    gains = np.where(window == _OUTSIDE, worth, 0.0)
    best = np.full(windows, -profile.missed)
    for row in np.flatnonzero(window != _OUTSIDE).tolist():
        gains[row] = max(worth[row] - best[window[row]], 0.0)
        best[window[row]] += gains[row]
    return gains


def _rows(corpus: Sequence[Series], profile: Profile) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Of every row that is scored: how odd it is, its window among all or ``_OUTSIDE``, what detecting it is worth."""
    odd, window, worth, before = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0)], 0
    for series in corpus:
        own, value = _places(len(series.oddness), series.spans, profile)
        first = probation(len(own))
        odd.append(np.asarray(series.oddness[first:], np.float64))
        window.append(np.where(own == _OUTSIDE, _OUTSIDE, own + before)[first:])
        worth.append(value[first:])
        before += len(series.spans)
    return np.concatenate(odd), np.concatenate(window), np.concatenate(worth)


def _places(rows: int, spans: Spans, profile: Profile) -> tuple[NDArray[np.int64], Floats]:
    """The window of each row, or ``_OUTSIDE``, and what detecting the row is worth."""
    window, worth = np.full(rows, _OUTSIDE), np.full(rows, -profile.false)
    most = _sigmoid(np.array([-1.0]))
    for number, (first, last) in enumerate(spans):
        inside = np.arange(first, last + 1)
        window[inside] = number
        worth[inside] = profile.found * _sigmoid((inside - last - 1) / len(inside)) / most
        behind = np.arange(last + 1, spans[number + 1][0] if number + 1 < len(spans) else rows)
        worth[behind] = profile.false * _sigmoid((behind - last) / max(len(inside) - 1, 1))
    return window, worth


def _sigmoid(place: Floats) -> Floats:
    """From 1 well before the end of a window (-1 is its begin) to -1 well behind it."""
    return np.where(place >= _FAR, -1.0, 2 / (1 + np.exp(_STEEP * np.minimum(place, _FAR))) - 1)


def peaks(oddness: Floats, memory: int, factor: float) -> Floats:
    """Oddness where it is ``factor`` times that of each of the ``memory`` rows before, shape (n,); elsewhere 0.

    Who has been woken need not be woken again by the same.
    """
    before = np.concatenate([np.zeros(memory), np.nan_to_num(oddness)])
    highest = np.lib.stride_tricks.sliding_window_view(before, memory)[: len(oddness)].max(axis=1)
    return np.where(oddness > factor * highest, oddness, 0.0)


def spans(window: NDArray[np.integer]) -> Spans:
    """First and last row of each window, from the number of each row's window, negative outside; shape (n,)."""
    found = []
    for number in np.unique(window[window >= 0]).tolist():
        rows = np.flatnonzero(window == number)
        found.append((int(rows[0]), int(rows[-1])))
    return sorted(found)
