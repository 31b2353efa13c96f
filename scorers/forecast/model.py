"""A trained forecaster: rows of features in, probabilities of low, medium and high out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.forecast.encode import HISTORY, Encoder, strange
from scorers.forecast.features import FeatureSpec
from scorers.forecast.labels import CLASSES, Floats, Ints, Thresholds
from scorers.trees import Forest

WEEK = 168
"""Hours of a week, Monday at midnight first, in the fleet's timezone."""


class Kind(StrEnum):
    """How trees make probabilities of three classes."""

    FOREST = "forest"
    """The mean over a random forest's trees (Breiman 2001), as published."""
    ORDINAL = "ordinal"
    """Two boosted models, one a threshold: above the first, above the second (Frank and Hall 2001)."""
    MULTICLASS = "multiclass"
    """One boosted model of all classes by softmax."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """The model of all servers, with all that its features and classes mean."""

    version: str
    kind: Kind
    spec: FeatureSpec
    thresholds: Thresholds
    encoder: Encoder
    profile: Floats
    """The fleet's mean of ``HISTORY`` by hour of the week, shape (168, 20); NaN where nothing was known."""
    seen: tuple[int, ...]
    """The classes that training rows had, in order."""
    ensembles: tuple[Forest, ...]
    """Two of an ordinal model of three classes, else one, of the classes seen."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a person may want to know of the training; plain values."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers it was trained on."""
        return self.encoder.servers

    def predict(self, features: pa.Table) -> NDArray[np.float64]:
        """Probabilities of low, medium and high for rows of FEATURES, in their order, shape (n, 3)."""
        if not len(features):
            return np.empty((0, len(CLASSES)))
        matrix = self.encoder.matrix(features).astype(np.float64)
        given = [trees.predict(matrix) for trees in self.ensembles]
        if len(given) > 1:
            return stacked(given[0][:, 1], given[1][:, 1])
        made = np.zeros((len(features), len(CLASSES)))
        made[:, self.seen] = given[0]
        return made

    def fill(self, features: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
        """Give rows without any history the fleet's, as it is at that hour of the week.

        Returns:
            The rows with the columns of ``HISTORY`` filled where a row had none of them, and which rows that were,
            shape (n,). A row with some history keeps what it lacks missing.
        """
        unknown = strange(features)
        if not unknown.any():
            return features, unknown
        fleet = self.profile[week_hours(features)]
        for at, name in enumerate(HISTORY):
            own = features[name].to_numpy()
            values = np.where(unknown, fleet[:, at], own)
            column = pa.array(values, pa.float64(), from_pandas=True)  # NaN is null
            features = features.set_column(features.schema.get_field_index(name), features.schema.field(name), column)
        return features, unknown


def stacked(above_low: Floats, above_medium: Floats) -> Floats:
    """Probabilities (n, 3) from those of being above each threshold, (n,) each; the second never above the first."""
    above_medium = np.minimum(above_low, above_medium)
    return np.stack([1 - above_low, above_low - above_medium, above_medium], axis=1)


def week_hours(features: pa.Table) -> Ints:
    """The hour of the week of each row, shape (n,), from 0 to 167."""
    weekday, hour = (features[name].to_numpy().astype(np.int64) for name in ("weekday", "hour_of_day"))
    return np.asarray(24 * weekday + hour)


def profile(training: pa.Table) -> Floats:
    """The fleet's mean of ``HISTORY`` by hour of the week, shape (168, 20), from training rows.

    An hour of the week that no row had gets the mean over all; NaN where nothing was known at all.
    """
    hours = week_hours(training)
    made = np.full((WEEK, len(HISTORY)), np.nan)
    for at, name in enumerate(HISTORY):
        values = training[name].to_numpy()
        known = ~np.isnan(values)
        rows, total = (np.bincount(hours[known], weights, WEEK) for weights in (None, values[known]))
        if known.any():
            made[:, at] = np.where(rows > 0, total / np.maximum(rows, 1), values[known].mean())
    return made
