"""How published recordings are judged: verdicts beside labels, each benchmark by its own protocol.

Nothing here is told to a model: labels meet verdicts only once all are given.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from producers.recordings import Cause
from scorers.metrics import confusion, event_recall, runs
from scorers.statistics import Flags, Floats
from stream.alert import Alerting, AlertSpec, Verdict

DAY_MS = 86_400_000


class Benchmark(StrEnum):
    """Published recordings with labels."""

    SKAB = "skab"
    SMD = "smd"
    NAB = "nab"


SETTINGS: Mapping[Benchmark, Mapping[str, float]] = {
    Benchmark.SKAB: {"window.size_s": 10, "window.hop_s": 1, "window.grace_s": 0, "window.idle_s": 60},
    Benchmark.SMD: {"window.size_s": 600, "window.hop_s": 60, "window.grace_s": 0, "window.idle_s": 3600},
    Benchmark.NAB: {"window.grace_s": 0, "training.gamma": 5.0, "training.max_windows": 20_000},
}
"""Settings by benchmark. Windows are of ten rows, one a row: SKAB has a row a second, SMD one a minute, NAB's series
differ. One of them may go on for months in one metric, and what was usual once is so again: all of it is kept."""
LABEL = {Benchmark.SKAB: "anomaly", Benchmark.SMD: "label", Benchmark.NAB: "label"}


@dataclass(frozen=True, slots=True)
class Points:
    """Row by row, pooled over all devices; ``far`` and ``mar`` in percent, ``windows`` all that came out."""

    f1: float
    far: float
    mar: float
    windows: int
    scored: int
    """Test rows judged by a model."""
    rows: int
    """Test rows in all."""


@dataclass(frozen=True, slots=True)
class Events:
    """By device, then the mean over devices, without point adjustment."""

    ap: float
    """Average precision of the severities, row by row."""
    f1: float
    """Of the rows that a window flags, at the limit in force."""
    event_recall: float
    """Share of the labelled events during which an alert was firing."""
    false_alerts_per_day: float
    """Alerts without a labelled row while they fired, a device and day."""
    hit3: float
    """Share of the explained events whose oddest window names one of their metrics among its three contributors."""
    windows: int
    scored: int
    rows: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """NAB's scores, 0 for a detector that never speaks and 100 for a perfect one, each at its best threshold."""

    score: float
    """Of the standard profile."""
    low_fp: float
    """Where false alarms cost twice as much."""
    low_fn: float
    """Where missed windows do."""
    windows: int
    """Labelled ones."""
    rows: int


Result = Points | Events | Sweep


def judge_points(judged: pd.DataFrame, windows: int) -> Points:
    """SKAB's protocol: counts of all devices added up.

    Args:
        judged: one row a test row: label, scored, anomaly; NaN where it has no verdict.
        windows: how many came out.
    """
    flagged = judged.anomaly.fillna(value=False).to_numpy(np.bool_)
    counts = confusion(flagged, judged.label.to_numpy() > 0)
    return Points(counts.f1, counts.false_alarm_percent, counts.missed_percent, windows, _scored(judged), len(judged))


def judge_events(
    judged: pd.DataFrame, windows: int, alert: AlertSpec, causes: Mapping[str, list[Cause]], step_ms: int
) -> Events:
    """SMD's rows, events and explanations.

    Args:
        judged: one row a test row, in order of time within a device: device, label, scored, anomaly, severity, top.
        windows: how many came out.
        alert: when odd windows are an alert.
        causes: the metrics that explain events, by device; rows are counted from its first test row.
        step_ms: time from row to row.
    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - a second, which only those who evaluate are to pay

    ap: list[float] = []
    f1: list[float] = []
    recall: list[float] = []
    false: list[float] = []
    hits: list[float] = []
    for device, own in judged.groupby("device", sort=True):
        label = own.label.to_numpy() > 0
        flagged = own.anomaly.fillna(value=False).to_numpy(np.bool_)
        severity, alarmed = own.severity.fillna(0.0).to_numpy(), firing(flagged, alert)
        ap.append(average_precision_score(label, severity))
        f1.append(confusion(flagged, label).f1)
        recall.append(event_recall(alarmed, label))
        days = len(own) * step_ms / DAY_MS
        false.append(sum(not label[first:last].any() for first, last in runs(alarmed)) / days)
        top = [names if isinstance(names, list) else [] for names in own.top]
        hits += [_hit(top, severity, cause) for cause in causes.get(str(device), [])]
    return Events(
        ap=_mean(ap),
        f1=_mean(f1),
        event_recall=_mean(recall),
        false_alerts_per_day=_mean(false),
        hit3=_mean(hits),
        windows=windows,
        scored=_scored(judged),
        rows=len(judged),
    )


def _mean(figures: list[float]) -> float:
    """Without those that are NaN, for want of events; NaN without any."""
    known = [figure for figure in figures if not math.isnan(figure)]
    return sum(known) / len(known) if known else float("nan")


def firing(flagged: Flags, spec: AlertSpec) -> Flags:
    """Whether an alert fires once each window is judged, shape (n,), windows in order of time."""
    alerting, result = Alerting(spec, ""), np.zeros(len(flagged), np.bool_)
    for row, anomaly in enumerate(flagged.tolist()):
        if anomaly or alerting.watched:
            alerting.see(0, Verdict("", row, row + 1, anomaly, 0.0, 0.0, []), None)
            watch = alerting.watched.get(0)
            result[row] = watch is not None and watch.since is not None
    return result


def _hit(top: Sequence[Sequence[str]], severity: Floats, cause: Cause) -> float:
    oddest = cause.first + int(severity[cause.first : cause.last + 1].argmax())
    return float(bool(cause.metrics.intersection(top[oddest])))


def _scored(judged: pd.DataFrame) -> int:
    return int(judged.scored.fillna(value=False).sum())
