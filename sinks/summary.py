"""What Redis keeps of a device, as fields of hashes: the pure half of the Redis sink.

A field that is absent is null; booleans are 0 and 1; lists and mappings are JSON.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import msgspec

from stream.contracts import MetricStatistics, Score

Fields = dict[str, str | bytes | int | float]

_PLAIN = ("source", "window_start", "window_end", "count", "state", "decision", "score", "severity", "model_version")
_WINDOW = ("count", "mean", "std", "min", "max", "last", "sum")


@dataclass(frozen=True, slots=True)
class Rolling:
    """Statistics of one metric over all its windows, where a window counts half as much every half-life.

    ``count`` is the sum of weighted counts, ``m2`` of weighted squared deviations from ``mean``. With
    every weight 1 this is the merge of Chan, Golub and LeVeque (1983); the fields determine the next
    state alone, so a restart goes on where it was, to the last bit.
    """

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0

    def merge(self, window: MetricStatistics, keep: float) -> "Rolling":
        """The statistics one window later; ``keep`` is the weight that a window passes on (0 to 1)."""
        if not window.count:
            return self
        before = self.count * keep
        count = before + window.count
        delta = window.mean - self.mean
        std = window.std or 0.0
        share = window.count / count
        spread = std * std * (window.count - 1) + delta * delta * before * share
        return Rolling(count, self.mean + delta * share, self.m2 * keep + spread)

    @property
    def std(self) -> float | None:
        """Sample standard deviation, None below two readings."""
        return sqrt(self.m2 / (self.count - 1)) if self.count >= 2 else None  # noqa: PLR2004  # ddof is 1


def roll(
    rolling: Mapping[str, Rolling], windows: Iterable[Mapping[str, MetricStatistics]], keep: float
) -> dict[str, Rolling]:
    """The rolling statistics of every metric after ``windows``, oldest first."""
    after = dict(rolling)
    for metrics in windows:
        for name, window in metrics.items():
            after[name] = after.get(name, Rolling()).merge(window, keep)
    return after


def latest(score: Score) -> Fields:
    """The device's newest window and its verdict."""
    return _present(
        {name: getattr(score, name) for name in _PLAIN}
        | {"anomaly": int(score.anomaly), "contributors": msgspec.json.encode(score.contributors)}
    )


def statistics(score: Score, rolling: Mapping[str, Rolling]) -> Fields:
    """``<metric>.mean`` and so on of the newest window, ``<metric>.rolling_mean`` and so on of all windows."""
    fields: dict[str, str | bytes | float | None] = {}
    for metric, window in score.metrics.items():
        fields.update({f"{metric}.{name}": getattr(window, name) for name in _WINDOW})
    for metric, state in rolling.items():
        fields[f"{metric}.rolling_count"] = state.count
        fields[f"{metric}.rolling_mean"] = state.mean
        fields[f"{metric}.rolling_m2"] = state.m2
        fields[f"{metric}.rolling_std"] = state.std
    return _present(fields)


def rolling_of(fields: Mapping[bytes, bytes]) -> dict[str, Rolling]:
    """The rolling statistics in what ``statistics`` gave, as Redis returns it."""
    metrics = [name.removesuffix(b".rolling_m2") for name in fields if name.endswith(b".rolling_m2")]
    return {
        metric.decode(): Rolling(*(float(fields[b"%s.rolling_%s" % (metric, name)]) for name in _STATE))
        for metric in metrics
    }


_STATE = (b"count", b"mean", b"m2")


def history(score: Score) -> Fields:
    """One point of a device's recent past: its verdict and every metric's mean."""
    means = {metric: window.mean for metric, window in score.metrics.items()}
    return _present(
        {
            "window_start": score.window_start,
            "window_end": score.window_end,
            "state": score.state,
            "score": score.score,
            "severity": score.severity,
            "anomaly": int(score.anomaly),
            "means": msgspec.json.encode(means),
        }
    )


def _present(fields: Mapping[str, str | bytes | float | None]) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}
