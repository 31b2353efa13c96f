"""What Redis keeps of a device, as fields of hashes and streams: the pure half of the Redis sink.

A field that is absent is null; booleans are 0 and 1; lists and mappings are JSON.
"""

from collections.abc import Iterable, Mapping
from math import isfinite, sqrt

import msgspec

from stream.contracts import Forecast, MetricStatistics, Score

Fields = dict[str, str | bytes | int | float]

VERDICT = ("decision", "score", "severity", "model_version", "model", "confidence")
"""The fields of ``latest`` that may be absent."""
_ALWAYS = ("source", "window_start", "window_end", "count", "state")


class Rolling(msgspec.Struct, frozen=True, gc=False):
    """Statistics of one metric over all its windows, where a window counts half as much every half-life.

    ``count`` is the sum of weighted counts, ``m2`` of weighted squared deviations from ``mean``, ``std``
    the sample standard deviation, null below two readings. With every weight 1 this is the merge of
    Chan, Golub and LeVeque (1983). The next state follows from these fields alone, so a restart goes
    on where it was, to the last bit.
    """

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    std: float | None = None

    def merge(self, window: MetricStatistics, keep: float) -> "Rolling":
        """The statistics one window later; ``keep`` is the weight that a window passes on (0 to 1).

        A window whose squares no double holds is left out.
        """
        if not window.count:
            return self
        before = self.count * keep
        count = before + window.count
        delta = window.mean - self.mean
        share = window.count / count
        std = window.std or 0.0
        m2 = self.m2 * keep + std * std * (window.count - 1) + delta * delta * before * share
        if not isfinite(m2):
            return self
        return Rolling(count, self.mean + delta * share, m2, sqrt(m2 / (count - 1)) if count >= 2 else None)  # noqa: PLR2004  # ddof is 1


class Metric(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One metric of a device: its newest window, null if that has none of it, and all its windows."""

    latest: MetricStatistics | None = None
    rolling: Rolling = Rolling()


_METRIC = msgspec.json.Decoder(Metric)


def latest(score: Score) -> Fields:
    """The device's newest window and its verdict."""
    fields: Fields = {name: getattr(score, name) for name in _ALWAYS}
    fields["anomaly"] = int(score.anomaly)
    fields["contributors"] = msgspec.json.encode(score.contributors)
    return fields | {name: value for name in VERDICT if (value := getattr(score, name)) is not None}


def statistics(held: Mapping[bytes, bytes], windows: Iterable[Score], keep: float) -> dict[str, bytes]:
    """A device's metrics after ``windows``, oldest first: metric to JSON of ``Metric``.

    ``held`` is what this function gave before, as Redis returns it.
    """
    rolling = {name.decode(): _METRIC.decode(value).rolling for name, value in held.items()}
    newest: Mapping[str, MetricStatistics] = {}
    for score in windows:
        newest = score.metrics
        for name, window in newest.items():
            rolling[name] = rolling.get(name, Rolling()).merge(window, keep)
    return {name: msgspec.json.encode(Metric(newest.get(name), state)) for name, state in rolling.items()}


def history(score: Score) -> Fields:
    """One point of a device's recent past: its verdict and every metric's mean."""
    fields: Fields = {"window_start": score.window_start, "window_end": score.window_end, "state": score.state}
    fields["means"] = msgspec.json.encode({metric: window.mean for metric, window in score.metrics.items()})
    if score.score is not None and score.severity is not None:
        fields |= {"score": score.score, "severity": score.severity, "anomaly": int(score.anomaly)}
    return fields


def forecast(told: Forecast) -> Fields:
    """A server's newest forecast: ``issued``, ``basis``, ``model_version``, and ``hours`` as JSON, as in the record."""
    hours = msgspec.json.encode(told.hours)
    return {"issued": told.issued, "basis": told.basis, "model_version": told.model_version, "hours": hours}
