"""A small device for the scorers' tests: correlated metrics that follow one load, and seven faults."""

import warnings
from dataclasses import dataclass

import numpy as np

from scorers.statistics import Floats, Statistics

FAULTS = ("spike", "level_shift", "stuck", "drift", "noise_burst", "dropout", "broken_correlation")
READINGS = 10
"""Readings of a window."""


@dataclass
class Device:
    """Metrics = level + spread * (gain * load + noise); ``memory`` is the load's correlation from window to window."""

    seed: int
    metrics: int = 6
    memory: float = 0.5

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.level = self.random.uniform(10, 200, self.metrics)
        self.spread = self.level * 0.03
        self.gain = self.random.choice([-1.0, 1.0], self.metrics)
        self.load = self.random.normal()

    def readings(self, windows: int) -> Floats:
        """Healthy readings, shape (windows * READINGS, metrics)."""
        noise = 0.3 * self.random.standard_normal((windows * READINGS, self.metrics))
        return np.asarray(self.level + self.spread * (self.walk(windows)[:, None] * self.gain + noise))

    def walk(self, windows: int) -> Floats:
        """A load of unit variance, one value a reading, that goes on where it stopped."""
        memory = self.memory ** (1 / READINGS)
        shocks = self.random.standard_normal(windows * READINGS) * np.sqrt(1 - memory**2)
        load = np.empty(len(shocks))
        for tick, shock in enumerate(shocks):
            load[tick] = self.load = memory * self.load + shock
        return load

    def windows(self, windows: int) -> Statistics:
        return summarise(self.readings(windows))

    def faulty(self, fault: str, windows: int) -> Statistics:
        """Windows that a fault covers from the first to the last."""
        values = self.readings(windows)
        metric = int(self.random.integers(self.metrics))
        column, spread = values[:, metric], self.spread[metric]
        if fault == "spike":
            column[self.random.integers(READINGS, size=windows) + READINGS * np.arange(windows)] += 8 * spread
        elif fault == "level_shift":
            column += 6 * spread
        elif fault == "stuck":
            column[:] = column[0]
        elif fault == "drift":
            column += np.linspace(0, 10, len(column)) * spread
        elif fault == "noise_burst":
            column += 3 * spread * self.random.standard_normal(len(column))
        elif fault == "dropout":
            column[:] = np.nan
        elif fault == "broken_correlation":
            half = np.arange(self.metrics // 2)
            values[:, half] += self.spread[half] * self.gain[half] * (2.5 - self.walk(windows)[:, None])
        return summarise(values)


def summarise(values: Floats, readings: int = READINGS) -> Statistics:
    """Statistics of consecutive windows; NaN is no reading."""
    cube = values.reshape(-1, readings, values.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of windows without a reading
        return Statistics(
            metrics=tuple(f"metric{number}" for number in range(values.shape[1])),
            count=np.isfinite(cube).sum(axis=1),
            mean=np.nanmean(cube, axis=1),
            std=np.nanstd(cube, axis=1, ddof=1),
            min=np.nanmin(cube, axis=1),
            max=np.nanmax(cube, axis=1),
            last=cube[:, -1],
        )
