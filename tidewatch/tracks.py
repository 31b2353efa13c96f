"""What a report draws of each recording: its signals, how odd they were, the limit, labels and alerts, row by row."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from producers.recordings import apart, labels
from scorers.metrics import runs
from scorers.statistics import Flags, Floats, Ints
from stream.alert import AlertSpec
from tidewatch import nab, series
from tidewatch.evaluate import Job
from tidewatch.protocols import SERIES, Alarms, Benchmark, alarms, firing
from tidewatch.wiring import stream_spec

TELLING = 4
"""Metrics that are drawn, at most."""
LIMIT = 50.0
"""The score that lies at the limit in force (``scorers.model.score``)."""


@dataclass(frozen=True, slots=True)
class Track:
    """One device's judged rows in order of time; all arrays are of shape (n,)."""

    device: str
    at: Ints
    """Epoch ms; row numbers where the recording has no times."""
    numbered: bool
    step: int
    """From row to row, ms."""
    signals: dict[str, Floats]
    """The most telling metrics."""
    metrics: int
    """How many it has in all."""
    label: Flags
    oddness: Floats
    """A score, or what stands in its place; NaN without a verdict."""
    limit: Floats
    scale: str
    """What oddness is."""
    flagged: Flags
    """Beyond the limit."""
    alarmed: Flags
    """An alert fires."""
    named: list[frozenset[str]]
    """The metrics that contributed most, of each row."""

    @property
    def alarms(self) -> Alarms:
        """Alerts beside labelled events."""
        return alarms(self.alarmed, self.label, self.step)

    def blamed(self, first: int, last: int, most: int = 3) -> list[str]:
        """The metrics named most often in some rows."""
        return _names(self.named[first:last], most)


def tracks(job: Job, folder: Path, name: str) -> Iterator[Track]:
    """What the evaluation that left its predictions in ``folder`` judged by detector ``name``, a device at a time."""
    if job.benchmark in SERIES:
        yield from _series(job, pd.read_parquet(folder / "oddness.parquet"), name)
    else:
        yield from _verdicts(job, pd.read_parquet(folder / "verdicts.parquet"))


def _verdicts(job: Job, verdicts: pd.DataFrame) -> Iterator[Track]:
    judged, alert, first = job.judged(verdicts), stream_spec(job.settings).alert, 0
    for recording in apart(job.recording):
        rows = labels(recording, metrics=True)
        rows.index += first
        first += len(rows)
        own = judged.loc[rows.index[rows.split == "test"]]
        columns = recording.parts[0].columns
        for device, seen in own.groupby("device", sort=False):
            values = rows.loc[seen.index, list(columns.metrics or ())]
            yield _judged(str(device), seen, values, alert, numbered=columns.start is not None)


def _judged(device: str, seen: pd.DataFrame, values: pd.DataFrame, alert: AlertSpec, *, numbered: bool) -> Track:
    flagged = seen.anomaly.fillna(value=False).to_numpy(np.bool_)
    alarmed, label = firing(flagged, alert), seen.label.to_numpy() > 0
    named = [frozenset() if names is None or isinstance(names, float) else frozenset(names) for names in seen.top]
    score = seen.score.to_numpy(np.float64)
    telling = _telling(named, values, alarmed | label, score)
    return Track(
        device=device,
        at=np.arange(len(seen)) if numbered else seen.ts.to_numpy(np.int64),
        numbered=numbered,
        step=series.usual_step(seen.ts.to_numpy()),
        signals={name: values[name].to_numpy(np.float64) for name in telling},
        metrics=values.shape[1],
        label=label,
        oddness=score,
        limit=np.full(len(seen), LIMIT),
        scale="score",
        flagged=flagged,
        alarmed=alarmed,
        named=named,
    )


def _telling(named: Sequence[frozenset[str]], values: pd.DataFrame, rows: Flags, score: Floats) -> list[str]:
    """The metrics named most often where an alert fires or a row is labelled, else in the oddest windows of all."""
    if not rows.any():
        rows = score >= np.nanquantile(score, 0.99) if np.isfinite(score).any() else np.ones(len(score), np.bool_)
    found = _names([names for names, wanted in zip(named, rows.tolist(), strict=True) if wanted], TELLING)
    return [*found, *(str(name) for name in values if name not in found)][:TELLING]


def _names(named: Sequence[frozenset[str]], most: int) -> list[str]:
    counts = Counter(name for names in named for name in sorted(names))
    return [name for name, _ in counts.most_common(most)]


def _series(job: Job, found: pd.DataFrame, name: str) -> Iterator[Track]:
    values = labels(job.recording, metrics=True)
    devices = {str(device): rows for device, rows in found.groupby("device", sort=True)}
    if job.benchmark is Benchmark.NAB:
        corpus = [series.said(rows, name) for rows in devices.values()]
        threshold = nab.best(corpus, nab.PROFILES["standard"])
    for device, rows in devices.items():
        value = values.loc[values.device == device, "value"].to_numpy(np.float64)
        if job.benchmark is Benchmark.NAB:
            yield _peaks(device, rows, value, name, threshold)
        else:
            yield _followed(job, device, rows, value, name)


def _peaks(device: str, rows: pd.DataFrame, value: Floats, name: str, threshold: float) -> Track:
    """One of NAB's: what is said at the best threshold."""
    detected = series.said(rows, name).oddness >= threshold
    limit = np.full(len(rows), threshold)
    label = rows.window.to_numpy() >= 0
    return _one(device, rows, value, label, (rows[name].to_numpy(np.float64), limit, detected, detected))


def _followed(job: Job, device: str, rows: pd.DataFrame, value: Floats, name: str) -> Track:
    """One of Microsoft's: what the limit in force flags."""
    judged = (rows.split == "test").to_numpy()
    limit, flagged, alarmed = np.full(len(rows), np.nan), np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    own = series.followed(rows, name, job.settings)
    limit[judged], flagged[judged] = own.limit, own.anomaly
    alarmed[judged] = firing(flagged[judged], stream_spec(job.settings).alert)
    return _one(
        device, rows, value, rows.label.to_numpy() > 0, (rows[name].to_numpy(np.float64), limit, flagged, alarmed)
    )


def _one(
    device: str, rows: pd.DataFrame, value: Floats, label: Flags, found: tuple[Floats, Floats, Flags, Flags]
) -> Track:
    """Of the rows behind probation."""
    kept = (rows.split == "test").to_numpy()
    oddness, limit, flagged, alarmed = found
    return Track(
        device=device,
        at=rows.ts.to_numpy(np.int64)[kept],
        numbered=False,
        step=series.usual_step(rows.ts.to_numpy()),
        signals={"value": value[kept]},
        metrics=1,
        label=label[kept],
        oddness=np.where(oddness[kept] > 0, oddness[kept], np.nan),
        limit=limit[kept],
        scale="oddness, in trained limits",
        flagged=flagged[kept],
        alarmed=alarmed[kept],
        named=[frozenset()] * int(kept.sum()),
    )


def events(track: Track) -> list[tuple[int, int, int | None]]:
    """Each labelled event: first row, the row after its last, and after how many rows an alert fired in it."""
    found = []
    for first, last in runs(track.label):
        fired = np.flatnonzero(track.alarmed[first:last])
        found.append((first, last, int(fired[0]) if len(fired) else None))
    return found


def alerts(track: Track) -> list[tuple[int, int, bool]]:
    """Each alert: first row, the row after its last, and whether a row was labelled while it fired."""
    return [(first, last, bool(track.label[first:last].any())) for first, last in runs(track.alarmed)]
