"""How published recordings are judged: verdicts beside labels, each benchmark by its own protocol.

Nothing here is told to a model: labels meet verdicts only once all are given.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from producers.recordings import Cause
from scorers.metrics import confusion, runs
from scorers.statistics import Flags, Floats
from stream.alert import Alerting, AlertSpec, Verdict

DAY_MS = 86_400_000
WEEK = 7
"""Days."""


class Benchmark(StrEnum):
    """Published recordings with labels."""

    SKAB = "skab"
    SMD = "smd"
    NAB = "nab"
    ASD = "asd"
    MSCLOUD = "mscloud"


_SERIES: Mapping[str, float | str] = {
    "window.grace_s": 0,
    "training.detector": "combined",
    "training.gamma": 5.0,
    "training.max_windows": 20_000,
    "training.outliers": 0.0,
}
SETTINGS: Mapping[Benchmark, Mapping[str, float | str]] = {
    Benchmark.SKAB: {"window.size_s": 10, "window.hop_s": 1, "window.grace_s": 0, "window.idle_s": 60},
    Benchmark.SMD: {"window.size_s": 600, "window.hop_s": 60, "window.grace_s": 0, "window.idle_s": 3600},
    Benchmark.NAB: _SERIES,
    Benchmark.ASD: {"window.size_s": 3000, "window.hop_s": 300, "window.grace_s": 0, "window.idle_s": 18_000},
    Benchmark.MSCLOUD: _SERIES,
}
"""Settings by benchmark. Windows are of ten rows, one a row: SKAB has a row a second, SMD one a minute, ASD one in five
minutes, series of one metric differ. One of these may go on for months, and what was usual once is so again: all of it
is kept. ASD and Microsoft's series have what SMD and NAB have; nothing was chosen by what they gave."""
SERIES = (Benchmark.NAB, Benchmark.MSCLOUD)
"""Of one metric each, without rows of their own for training: models are fitted again as they go on."""
LABEL = dict.fromkeys(Benchmark, "label") | {Benchmark.SKAB: "anomaly"}


@dataclass(frozen=True, slots=True)
class Points:
    """Row by row, pooled over all devices; ``far`` and ``mar`` in percent, ``windows`` all that came out.

    The others are those of :class:`Events`.
    """

    f1: float
    far: float
    mar: float
    ap: float
    event_recall: float
    false_alerts_per_week: float
    median_delay_rows: float
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
    false_alerts_per_week: float
    """The same, a device and week."""
    median_delay_rows: float
    """From an event's first row to the first at which an alert fires, over all events that were found; 0 is at once."""
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
    event_recall: float
    """Share of the labelled windows with a detection, at the standard profile's threshold; the mean over series."""
    false_alerts_per_week: float
    """Detections outside of all windows at that threshold, a series and week."""
    median_delay_rows: float
    """From a labelled window's first row to its first detection."""
    windows: int
    """Labelled ones."""
    rows: int


Result = Points | Events | Sweep


@dataclass(frozen=True, slots=True)
class Alarms:
    """Alerts of one device beside its labelled events."""

    events: int
    delays: tuple[int, ...]
    """Of each event that was found: rows from its first to the first at which an alert fires."""
    false: int
    """Alerts without a labelled row while they fired."""
    days: float

    @property
    def recall(self) -> float:
        """Share of the events that were found; NaN without any."""
        return len(self.delays) / self.events if self.events else float("nan")


def alarms(alarmed: Flags, label: Flags, step_ms: int) -> Alarms:
    """What alerts found of the events and what they found besides, both of shape (n,), rows ``step_ms`` apart."""
    events = runs(label)
    begun = [int(np.argmax(alarmed[first:last])) for first, last in events if alarmed[first:last].any()]
    false = sum(not label[first:last].any() for first, last in runs(alarmed))
    return Alarms(len(events), tuple(begun), false, len(label) * step_ms / DAY_MS)


def average_precision(label: Flags, oddness: Floats) -> float:
    """Mean precision over the labelled rows as oddness falls, both of shape (n,); NaN without such rows."""
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - a second, which only those who evaluate are to pay

    return float(average_precision_score(label, oddness)) if label.any() else float("nan")


def judge_points(judged: pd.DataFrame, windows: int, alert: AlertSpec, step_ms: int) -> Points:
    """SKAB's protocol: counts of all devices added up; and what alerts are worth, by device.

    Args:
        judged: one row a test row, in order of time within a device: device, label, scored, anomaly, severity;
            NaN where it has no verdict.
        windows: how many came out.
        alert: when odd windows are an alert.
        step_ms: time from row to row.
    """
    counts = confusion(_flagged(judged), judged.label.to_numpy() > 0)
    devices = [own for _, own in judged.groupby("device", sort=True)]
    found = [alarms(firing(_flagged(own), alert), own.label.to_numpy() > 0, step_ms) for own in devices]
    return Points(
        f1=counts.f1,
        far=counts.false_alarm_percent,
        mar=counts.missed_percent,
        ap=mean([average_precision(own.label.to_numpy() > 0, own.severity.fillna(0.0).to_numpy()) for own in devices]),
        event_recall=mean([of.recall for of in found]),
        false_alerts_per_week=mean([WEEK * of.false / of.days for of in found]),
        median_delay_rows=median_delay(found),
        windows=windows,
        scored=_scored(judged),
        rows=len(judged),
    )


def judge_events(
    judged: pd.DataFrame, windows: int, alert: AlertSpec, causes: Mapping[str, list[Cause]], steps: Mapping[str, int]
) -> Events:
    """SMD's rows, events and explanations.

    Args:
        judged: one row a test row, in order of time within a device: device, label, scored, anomaly, severity, top.
        windows: how many came out.
        alert: when odd windows are an alert.
        causes: the metrics that explain events, by device; rows are counted from its first test row.
        steps: time from row to row of each device, ms.
    """
    ap: list[float] = []
    f1: list[float] = []
    found: list[Alarms] = []
    hits: list[float] = []
    for device, own in judged.groupby("device", sort=True):
        label, flagged = own.label.to_numpy() > 0, _flagged(own)
        severity = own.severity.fillna(0.0).to_numpy()
        ap.append(average_precision(label, severity))
        f1.append(confusion(flagged, label).f1 if label.any() else float("nan"))
        found.append(alarms(firing(flagged, alert), label, steps[str(device)]))
        top = [names if isinstance(names, list) else [] for names in own.top]
        if any(isinstance(names, list) for names in own.top):  # else the detector explains nothing
            hits += [_hit(top, severity, cause) for cause in causes.get(str(device), [])]
    a_day = mean([of.false / of.days for of in found])
    return Events(
        ap=mean(ap),
        f1=mean(f1),
        event_recall=mean([of.recall for of in found]),
        false_alerts_per_day=a_day,
        false_alerts_per_week=WEEK * a_day,
        median_delay_rows=median_delay(found),
        hit3=mean(hits),
        windows=windows,
        scored=_scored(judged),
        rows=len(judged),
    )


def median_delay(found: Iterable[Alarms]) -> float:
    """Over all events that were found, in rows; NaN if none was."""
    delays = [delay for of in found for delay in of.delays]
    return float(np.median(delays)) if delays else float("nan")


def mean(figures: list[float]) -> float:
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


def _flagged(judged: pd.DataFrame) -> Flags:
    return judged.anomaly.fillna(value=False).to_numpy(np.bool_)


def _scored(judged: pd.DataFrame) -> int:
    return int(judged.scored.fillna(value=False).sum())
