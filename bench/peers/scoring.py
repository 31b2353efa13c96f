"""Models for the peers: a scaler and a one-class SVM of scikit-learn for every profile, fitted when the peer starts.

Runs in the environments of the peers, which know numpy and scikit-learn and nothing of Tidewatch.
"""

from datetime import UTC, datetime, timedelta
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

_EPOCH, _MILLISECOND = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)


def pipelines(path: Path) -> list[Any]:
    """A fitted pipeline for each profile; ``path`` holds what they learn from, ``(profiles, windows, features)``.

    Features are mean, std, min and max of every metric: ``[mean of the first, std of the first, ...]``.
    """
    past = np.load(path)
    return [make_pipeline(StandardScaler(), OneClassSVM(nu=0.05, gamma="scale")).fit(windows) for windows in past]


def moment(stamp: str) -> int:
    """Epoch ms of an ISO-8601 stamp with an offset."""
    return (datetime.fromisoformat(stamp) - _EPOCH) // _MILLISECOND


class Scorer:
    """The same decisions as the pipelines' ``decision_function``, a window at a time and without scikit-learn's checks.

    Its pipelines take some 200 microseconds for a single row, nearly all of it validation.
    """

    def __init__(self, path: Path) -> None:
        self._models = [_parts(pipeline) for pipeline in pipelines(path)]

    def decide(self, device: str, features: list[float]) -> float:
        """The decision for one window of ``device-00012``: above 0 is normal."""
        mean, scale, vectors, weights, bias, gamma = self._models[profile(device, len(self._models))]
        apart = vectors - (np.array(features) - mean) / scale
        return float(weights @ np.exp(-gamma * np.einsum("ij,ij->i", apart, apart)) + bias)


def statistics(values: list[float]) -> dict[str, float]:
    """What a window says of a metric; ``std`` is the sample standard deviation, 0 for a single value."""
    count = len(values)
    mean = sum(values) / count
    std = sqrt(sum([(value - mean) ** 2 for value in values]) / (count - 1)) if count > 1 else 0.0
    return {"count": count, "mean": mean, "std": std, "min": min(values), "max": max(values), "last": values[-1]}


def features(metrics: dict[str, dict[str, float]]) -> list[float]:
    """What a model sees of a window's statistics, in the order that :func:`pipelines` learns."""
    return [one[name] for one in metrics.values() for name in ("mean", "std", "min", "max")]


def profile(device: str, profiles: int) -> int:
    """Which model is a device's."""
    return int(device.rpartition("-")[2]) % profiles


def _parts(pipeline: Any) -> tuple[Any, ...]:
    scaler, svm = pipeline[0], pipeline[1]
    vectors, weights, bias = svm.support_vectors_, svm.dual_coef_[0], float(svm.intercept_[0])
    return scaler.mean_, scaler.scale_, vectors, weights, bias, svm._gamma  # noqa: SLF001 - what "scale" came to
