"""Which metrics' levels have moved, and by how much: what an operator accepts when an odd device is well.

A device's windows lie where its load puts them today, and where a shift has put them for good. Only the shift may
become typical: were all of today's levels, the device would be judged around its load of today. So the shift is the
one over *few* metrics that takes windows nearest to typical, given all others and how they move together in health:
least squares in the whitened space, metrics chosen one after another by what each takes off the squared distance
(forward selection; Efroymson 1960). Only means move; other features are differences from them and stay.

What counts as moved is measured by the device's own limit: where its healthy windows go further than normally
distributed ones would, so may a metric before it has moved.
"""

import numpy as np

from scorers.features import KINDS, MEAN
from scorers.group import Group
from scorers.model import standardise
from scorers.statistics import Flags, Floats

PLAY = 9.0
"""Squared standard deviations, given all other metrics, within which a normal metric's level has not moved."""
USUAL = 3.0
"""Standard deviations of chi squared, above its mean, within which normally distributed features lie."""
_MEANS = slice(MEAN, None, len(KINDS))
_SINGULAR = 1e-9
"""Share of a metric's own variation below which the metrics chosen before leave nothing of it."""


def typical(group: Group, model: int) -> Floats:
    """Typical means of a model's metrics, shape (m,), in their own units."""
    return group.center[model, _MEANS]


def shift(group: Group, model: int, level: Floats, named: Flags) -> Floats:
    """What to take off each metric's level so that windows there are typical, shape (m,); 0 where it has not moved.

    Args:
        group: where the model is.
        model: its number there.
        level: means of windows that are odd, shape (m,); NaN where a metric has none.
        named: shape (m,), the metrics that may shift; without any all may, and all do where no few explain it.
    """
    scale, known = group.scale[model, _MEANS], np.isfinite(level)
    z = np.where(known, level - typical(group, model), 0.0) / scale
    grip = _grip(group, model)
    play = _play(group, model)
    moved = _moved(grip, grip @ z, known, PLAY * play) | (named & known)
    off = np.zeros(len(z))
    off[moved] = np.linalg.lstsq(grip[np.ix_(moved, moved)], (grip @ z)[moved], rcond=None)[0]
    if named.any():
        return np.where(named, off, 0.0) * scale
    rest, others = z - off, int((~moved).sum())
    ordinary = rest @ grip @ rest <= play * _usual(others)
    return (off if ordinary else z) * scale


def odd(group: Group, model: int, level: Floats) -> bool:
    """Whether windows about a level, shape (m,), lie beyond the trained limit where all else of them is typical."""
    shaped = group.center[[model]].copy()
    shaped[0, _MEANS] = level
    z = standardise(shaped, group.center[[model]], group.scale[[model]])
    return bool(group.measure(np.array([model]), z).kernel[0] > group.reach[model])


def _grip(group: Group, model: int) -> Floats:
    """How squared distances depend on means, shape (m, m): ``|y|² = z' grip z`` where all else is typical."""
    first, width = group.indptr[model], group.center.shape[1]
    columns = group.stack[first : first + width, _MEANS]
    return np.asarray(columns.T @ columns)


def _play(group: Group, model: int) -> float:
    """How many times as far as normally distributed windows, squared, a device's healthy ones may go; at least 1."""
    return max(float(group.reach[model]) / _usual(group.center.shape[1]), 1.0)


def _usual(features: int) -> float:
    """The squared distance that so many normally distributed features seldom exceed."""
    return features + USUAL * float(np.sqrt(2 * features))


def _moved(grip: Floats, pull: Floats, known: Flags, least: float) -> Flags:
    """The metrics, shape (m,), each of which takes more than ``least`` off what those before it have left."""
    moved, own = np.zeros(len(pull), np.bool_), grip.diagonal()
    while True:
        left = grip.diagonal()
        able = known & ~moved & (left > _SINGULAR * own)
        gain = np.where(able, pull**2 / np.where(able, left, 1.0), 0.0)
        best = int(gain.argmax())
        if gain[best] <= least:
            return moved
        moved[best] = True
        column = grip[:, best] / left[best]
        pull, grip = pull - column * pull[best], grip - np.outer(column, grip[best])
