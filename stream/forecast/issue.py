"""Forecasts of every server known, issued at the end of an hour: features, model and messages, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.forecast.features import FeatureSpec, features
from scorers.forecast.labels import CLASSES
from scorers.forecast.metrics import named
from scorers.forecast.schema import HORIZON, HOUR_MS
from scorers.statistics import Floats
from stream.contracts import Basis, Forecast, ForecastHour, LoadClass


class Forecaster(Protocol):
    """What is asked of ``scorers.forecast.model.Forecaster``."""

    @property
    def version(self) -> str:
        """Names it."""

    @property
    def spec(self) -> FeatureSpec:
        """How the features that it was trained on were made."""

    def fill(self, features: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
        """Rows without history get the fleet's; which those are."""

    def predict(self, features: pa.Table) -> Floats:
        """Probabilities of low, medium and high, shape ``(n, 3)``."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The forecaster in force, if there is one."""

    forecaster: Forecaster | None = None

    def __len__(self) -> int:
        return int(self.forecaster is not None)


def issue(
    forecaster: Forecaster, known: Callable[[int, int], pa.Table], ends: Sequence[tuple[int, Sequence[str]]]
) -> list[Forecast]:
    """Forecasts for the servers of hours that have ended one after the other, all by one query and one prediction.

    Features of an hour rest on what was over 48 hours before it: whenever they are made, they are the same.

    Args:
        forecaster: the model.
        known: what is known of the hours that features of so many hours (second) from an epoch ms on (first) rest on.
        ends: when each hour ended, epoch ms, ascending, and the servers to forecast from there, sorted.
    """
    servers = sorted({server for _, some in ends for server in some})
    first, count = ends[0][0], len(ends) + HORIZON - 1
    ahead = first + np.arange(count) * HOUR_MS
    names = pa.array(servers, pa.string()).take(pa.array(np.repeat(np.arange(len(servers)), count)))
    targets = pa.table({"server": names, "hour": np.tile(ahead, len(servers))})
    rows, filled = forecaster.fill(features(known(first, count), targets, forecaster.spec))
    probabilities = forecaster.predict(rows)
    classes: list[LoadClass] = np.array(CLASSES)[named(probabilities)].tolist()
    likely = zip(np.tile(ahead, len(servers)).tolist(), classes, probabilities.tolist(), strict=True)
    told = [ForecastHour(hour, load, (low, medium, high)) for hour, load, (low, medium, high) in likely]
    begins = {server: number * count for number, server in enumerate(servers)}
    found = []
    for issued, some in ends:
        for server in some:
            begin = begins[server] + (issued - first) // HOUR_MS
            basis: Basis = "fleet" if filled[begin : begin + HORIZON].any() else "own"
            found.append(Forecast(server, issued, basis, forecaster.version, told[begin : begin + HORIZON]))
    return found
