"""Forecasts of every server known, issued at the end of an hour: features, model and messages, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.forecast.features import FeatureSpec, features
from scorers.forecast.schema import HORIZON, HOUR_MS
from scorers.statistics import Floats
from stream.contracts import Forecast, ForecastHour, LoadClass

CLASSES: tuple[LoadClass, ...] = ("low", "medium", "high")


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


def issue(forecaster: Forecaster, hours: pa.Table, servers: Sequence[str], issued: int) -> list[Forecast]:
    """Forecasts of each server's next hours.

    Args:
        forecaster: the model.
        hours: ``HOURS`` before ``issued``.
        servers: their names, sorted.
        issued: epoch ms, the end of the last hour that is known.
    """
    ahead = issued + np.arange(HORIZON) * HOUR_MS
    targets = pa.table({"server": np.repeat(np.array(servers, object), HORIZON), "hour": np.tile(ahead, len(servers))})
    rows, filled = forecaster.fill(features(hours, targets, forecaster.spec))
    probabilities = forecaster.predict(rows)
    strange = np.any(filled.reshape(len(servers), HORIZON), axis=1)
    likeliest = probabilities.argmax(axis=1).tolist()
    told = [
        ForecastHour(hour, CLASSES[place], (low, medium, high))
        for hour, place, (low, medium, high) in zip(
            rows["hour"].to_pylist(), likeliest, probabilities.tolist(), strict=True
        )
    ]
    return [
        Forecast(
            server,
            issued,
            "fleet" if new else "own",
            forecaster.version,
            told[number * HORIZON : (number + 1) * HORIZON],
        )
        for number, (server, new) in enumerate(zip(servers, strange.tolist(), strict=True))
    ]
