"""Healthy windows in, faulty ones out: what models are tried on where nobody has told which windows are faulty.

Artificial outliers made from the data itself (Tax & Duin 2001), of the kinds that sensors have.
"""

import numpy as np

from scorers.statistics import BLOCKS, Flags, Floats, Ints, Statistics

KINDS = ("level", "spike", "noise", "stuck", "dropout", "broken correlation")
"""Every kind of planted fault."""
LEVEL, SPIKE, NOISE = 4.0, 8.0, 4.0
"""Spreads that a level moves by and that a spike is high; times that the spread within a window grows."""
CONSTANT = 0.01
"""The spread of a metric that never moves, relative to its level (absolute at level 0)."""


def plant(statistics: Statistics) -> tuple[Statistics, Ints]:
    """Every window with one fault in one metric, and which of ``KINDS`` it is, shape (n,).

    Window *i* has kind *i* modulo 6, and the metrics take turns, so that the same windows always have the same faults.
    A device of one metric has neither dropouts nor broken correlations, but levels in their place. A metric without
    readings in its window stays as it is.
    """
    windows, metrics = statistics.count.shape
    row = np.arange(windows)
    kind, metric = row % len(KINDS), row // len(KINDS) % max(metrics, 1)
    if metrics == 1:
        kind = np.where(kind >= KINDS.index("dropout"), 0, kind)
    planted = Statistics(statistics.metrics, **{name: getattr(statistics, name).copy() for name in BLOCKS})
    within, whole = _spreads(statistics)
    for number, name in reversed(list(enumerate(KINDS))):  # what is taken from other windows is taken first
        rows = (kind == number) & (statistics.count[row, metric] > 0)
        _PLANTERS[name](planted, (row[rows], metric[rows]), within, whole)
    return planted, kind


def _spreads(statistics: Statistics) -> tuple[Floats, Floats]:
    """One standard deviation of each metric within a window and over all, shapes (m,), positive."""
    known = statistics.count > 0
    level = np.abs(_mean(statistics.mean, known))
    least = CONSTANT * np.where(level > 0, level, 1.0)
    within = np.sqrt(_mean(statistics.std**2, np.isfinite(statistics.std)))
    between = _mean((statistics.mean - _mean(statistics.mean, known)) ** 2, known)
    return np.maximum(within, least), np.maximum(np.sqrt(within**2 + between), least)


def _mean(values: Floats, known: Flags) -> Floats:
    """Of each column's known values, shape (m,); 0 without one."""
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


_Cells = tuple[Ints, Ints]


def _level(planted: Statistics, cells: _Cells, _: Floats, whole: Floats) -> None:
    for name in ("mean", "min", "max", "last"):
        getattr(planted, name)[cells] += LEVEL * whole[cells[1]]


def _spike(planted: Statistics, cells: _Cells, _: Floats, whole: Floats) -> None:
    """One of the readings is that much higher."""
    height, count = SPIKE * whole[cells[1]], planted.count[cells]
    planted.mean[cells] += height / count
    planted.max[cells] = np.maximum(planted.max[cells], planted.mean[cells] + height)
    planted.std[cells] = np.sqrt(planted.std[cells] ** 2 + height**2 / count)


def _noise(planted: Statistics, cells: _Cells, within: Floats, _: Floats) -> None:
    mean = planted.mean[cells]
    for name in ("min", "max", "last"):
        values = getattr(planted, name)
        values[cells] = mean + NOISE * (values[cells] - mean)
    planted.std[cells] = NOISE * np.maximum(planted.std[cells], within[cells[1]])


def _stuck(planted: Statistics, cells: _Cells, _: Floats, __: Floats) -> None:
    planted.std[cells] *= 0.0  # what has no spread keeps none
    for name in ("mean", "min", "max"):
        getattr(planted, name)[cells] = planted.last[cells]


def _dropout(planted: Statistics, cells: _Cells, _: Floats, __: Floats) -> None:
    for name in BLOCKS:
        getattr(planted, name)[cells] = 0 if name == "count" else np.nan


def _break(planted: Statistics, cells: _Cells, _: Floats, __: Floats) -> None:
    """The metric goes as it went half of the recording before."""
    rows, columns = cells
    other = (rows + len(planted) // 2) % max(len(planted), 1)
    for name in BLOCKS:
        values = getattr(planted, name)
        values[rows, columns] = values[other, columns]


_PLANTERS = dict(zip(KINDS, (_level, _spike, _noise, _stuck, _dropout, _break), strict=True))
