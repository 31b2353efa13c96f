"""Windows of many devices of a type in, one model out, lent to a device of that type until it has its own.

Devices of a type differ in level. A window of a new one varies as theirs do about their own level and, independently,
as levels do from device to device: the components of variance of a one-way layout (Searle, Casella & McCulloch 1992).
Each has a covariance, the second from no more levels than there are devices. The limit is calibrated on devices held
out whole, for windows held out would be judged by models that know their device.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers import calibration
from scorers.calibration import Limit
from scorers.errors import ModelError
from scorers.features import features, transform
from scorers.fit import (
    Learned,
    TrainSpec,
    Trial,
    complete,
    directions,
    fit_kernel,
    sampled,
    settle,
)
from scorers.floors import floors_of
from scorers.model import DeviceModel, Space
from scorers.statistics import Floats, Ints, Statistics, concat
from scorers.whitening import shrunk, whitening

FOLDS = 10
"""Parts that the devices are held out in, at most."""


class _Windows(NamedTuple):
    """Of several devices, one after the other."""

    shaped: Floats
    """Transformed features, shape (n, p); NaN where missing."""
    owner: Ints
    """Number of each window's device, shape (n,), from 0, ascending."""

    def take(self, devices: NDArray[np.intp]) -> "_Windows":
        """Those of some devices, numbered anew."""
        kept = np.isin(self.owner, devices)
        return _Windows(self.shaped[kept], np.unique(self.owner[kept], return_inverse=True)[1])


def fit_type(devices: Mapping[str, tuple[Statistics, Ints]], spec: TrainSpec, fewest: int = 3) -> DeviceModel:
    """A calibrated model of what devices of a type have in common.

    Args:
        devices: healthy windows and their ends (epoch ms) by device, in any order.
        spec: how to train; of each device as many windows as of any other are used, evenly chosen from its most recent
            ones, ``max_windows`` of all.
        fewest: devices that a type needs, at least 3.

    Raises:
        ModelError: too few devices or windows, no metric that most of them have, or what comes out is degenerate.
    """
    if len(devices) < fewest:
        raise ModelError(f"{len(devices)} devices are too few for a type; {fewest} are needed.")
    each = max(1, spec.max_windows // len(devices))
    blocks = [_spaced(complete(known.take(sampled(ends, spec))), each) for known, ends in devices.values()]
    metrics = sorted({name for block in blocks for name in block.metrics})
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    whole = _common(concat([block.align(metrics) for block in blocks]), spec)
    actual = features(whole)
    softening, floors = floors_of(actual)
    windows = _Windows(transform(actual, softening), owner)

    def trial(spec: TrainSpec) -> Trial:
        far, plain = _held_out(windows, softening, floors, spec)
        return Trial(far, plain, _limit(far, owner, spec))

    space = _space(windows, softening, floors, spec)
    until = max(int(ends.max()) for _, ends in devices.values())
    return settle(Learned(whole.metrics, space, space.whiten(windows.shaped), until), spec, trial)


def _spaced(statistics: Statistics, most: int) -> Statistics:
    """So many of the windows, as evenly as they come."""
    rows = np.linspace(0, len(statistics) - 1, min(most, len(statistics)))
    return statistics.take(rows.round().astype(np.intp))


def _common(statistics: Statistics, spec: TrainSpec) -> Statistics:
    """The metrics that most windows have, if there are windows enough."""
    if len(statistics) < spec.min_windows:
        raise ModelError(f"{len(statistics)} windows are too few for a model; collect {spec.min_windows}.")
    seen = (statistics.count > 0).mean(axis=0)
    metrics = [name for name, share in zip(statistics.metrics, seen, strict=True) if 2 * share > 1]
    if not metrics:
        raise ModelError("Its devices have no metric in common; narrow the type.")
    return statistics.align(metrics)


def _space(windows: _Windows, softening: Floats, floors: Floats, spec: TrainSpec) -> Space:
    """As :func:`scorers.whitening.space_of`, from both components of variance."""
    shaped, owner = windows
    known = np.isfinite(shaped)
    heard = _sums(known.astype(np.float64), owner)
    levels = _sums(np.where(known, shaped, 0.0), owner) / np.where(heard > 0, heard, np.nan)
    off = np.where(known, shaped - levels[owner], 0.0)
    devices = (heard > 0).sum(axis=0)
    center = np.where(devices > 0, np.nansum(levels, axis=0) / np.maximum(devices, 1), 0.0)
    apart = np.nan_to_num(levels - center)
    within = np.sqrt((off**2).sum(axis=0) / np.maximum(heard.sum(axis=0) - devices, 1) + floors**2)
    # a new level is unknown, and so is the mean of them all
    between = np.sqrt((apart**2).sum(axis=0) / np.maximum(devices - 1, 1) * (1 + 1 / np.maximum(devices, 1)))
    scale = np.hypot(within, between)
    solid = np.where(between > 0, between, 1.0)
    parts = ((within, shrunk(off / within)), (between, shrunk(apart / solid)))
    covariance = sum(np.outer(size, size) * correlation for size, correlation in parts)
    return Space(softening, center, scale, whitening(covariance / np.outer(scale, scale), directions(spec)))


def _sums(values: Floats, owner: Ints) -> Floats:
    """Of rows (n, p) by device, shape (d, p)."""
    return np.asarray(np.add.reduceat(values, np.flatnonzero(np.diff(owner, prepend=-1)), axis=0))


def _held_out(windows: _Windows, softening: Floats, floors: Floats, spec: TrainSpec) -> tuple[Floats, Floats]:
    """Kernel and whitened distances of every window, each from a model that does not know its device."""
    far, plain = np.empty(len(windows.owner)), np.empty(len(windows.owner))
    for train, test in _folds(int(windows.owner[-1]) + 1):
        known = windows.take(train)
        space = _space(known, softening, floors, spec)
        kernel = fit_kernel(space.whiten(known.shaped), spec)
        rows = np.isin(windows.owner, test)
        whitened = space.whiten(windows.shaped[rows])
        far[rows] = kernel.distance(whitened)
        plain[rows] = np.sqrt((whitened**2).sum(axis=1))
    return far, plain


def _folds(devices: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    everyone = np.arange(devices)
    for held in range(min(FOLDS, devices)):
        out = everyone % FOLDS == held
        yield everyone[~out], everyone[out]


def _limit(far: Floats, owner: Ints, spec: TrainSpec) -> Limit:
    """Where windows of new devices seldom lie."""
    if spec.alerts is None:
        return calibration.limit(far, spec.false_alarm_rate, owner)
    return calibration.alert_limit(far, spec.alerts * len(far), 1, 1, owner)
