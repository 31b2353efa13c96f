"""Features as numbers for trees: the lags standardised, the servers in order of their load, what is missing NaN."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scorers.errors import ModelError
from scorers.forecast.labels import Floats
from scorers.forecast.schema import CALENDAR, LAGS, LOADS

HISTORY = (*(f"day_{name}" for name in LOADS), *(f"lag_{hours}" for hours in LAGS))
"""The twenty features that are standardised; a row without any of them has no history."""
INPUTS = ("server", *CALENDAR, "trend", *HISTORY)

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoder:
    """What training rows say of scales and servers; frozen with the model, so that all rows are encoded alike."""

    inputs: tuple[str, ...]
    """Columns of the matrix: those of ``INPUTS`` that told training rows apart."""
    servers: tuple[str, ...]
    """By mean load, the lowest first: a tree then parts them by one cut (Breiman et al. 1984, 9.4)."""
    mean: Floats
    """Of ``HISTORY``, shape (20,)."""
    std: Floats

    @classmethod
    def fit(cls, training: pa.Table) -> "Encoder":
        """From rows of FEATURES with known loads; give it those of training alone.

        Raises:
            ModelError: they are all alike.
        """
        means = training.group_by("server").aggregate([("load", "mean")])
        means = means.sort_by([("load_mean", "ascending"), ("server", "ascending")])
        history = np.stack([_floats(training, name) for name in HISTORY], axis=1)
        known = np.maximum((~np.isnan(history)).sum(axis=0), 1)
        mean = np.nansum(history, axis=0) / known
        std = np.sqrt(np.nansum((history - mean) ** 2, axis=0) / known)
        encoder = cls(INPUTS, tuple(means["server"].to_pylist()), mean, np.where(std > 0, std, 1.0))
        matrix = encoder.matrix(training)
        tell = [name for name, column in zip(INPUTS, matrix.T, strict=True) if _distinct(column)]
        if not tell:
            raise ModelError("The rows to train on are all alike; record more hours first.")
        return cls(tuple(tell), encoder.servers, encoder.mean, encoder.std)

    def matrix(self, features: pa.Table) -> Matrix:
        """One row a row of FEATURES, shape (n, inputs); NaN for what is missing and for a server not trained on."""
        columns = np.empty((len(self.inputs), len(features)), np.float32)
        for place, name in enumerate(self.inputs):
            columns[place] = self._column(features, name)
        return np.ascontiguousarray(columns.T)

    def _column(self, features: pa.Table, name: str) -> Floats:
        if name == "server":
            place = pc.index_in(features["server"], value_set=pa.array(self.servers, pa.string()))
            return _floats(pa.table({"server": place}), "server")
        values = _floats(features, name)
        if name not in HISTORY:
            return values
        at = HISTORY.index(name)
        return np.asarray((values - self.mean[at]) / self.std[at])


def strange(features: pa.Table) -> NDArray[np.bool_]:
    """Which rows have no history at all, shape (n,)."""
    unknown = np.ones(len(features), np.bool_)
    for name in HISTORY:
        unknown &= features[name].is_null().to_numpy()
    return unknown


def _floats(features: pa.Table, name: str) -> Floats:
    return np.asarray(pc.cast(features[name], pa.float64()).to_numpy(), np.float64)


def _distinct(column: Matrix) -> bool:
    """Whether there are two values at least that are known; the boosting's bins need them."""
    known = column[~np.isnan(column)]
    return bool(len(known)) and bool((known != known[0]).any())
