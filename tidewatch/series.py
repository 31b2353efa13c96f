"""Series of one metric, NAB's and Microsoft's: each by models fitted again as it goes on, from the past alone.

NAB's are judged by its own scoring, Microsoft's as the stream would: by a limit that follows, and alerts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from scorers.errors import ModelError
from scorers.features import features
from scorers.fit import Detector, TrainSpec, fit_device, sampled
from scorers.fleet import Fleet
from scorers.follow import Trails
from scorers.statistics import Floats, Ints, Statistics
from stream.contracts import Score
from tidewatch import nab
from tidewatch.evaluate import Job, blocks
from tidewatch.groups import Settings
from tidewatch.planning import train_spec
from tidewatch.protocols import WEEK, Alarms, Events, Sweep, alarms, judge_events, mean, median_delay
from tidewatch.rivals import RECIPES, Recipe
from tidewatch.settings import InForce, override
from tidewatch.wiring import stream_spec

ROWS = 10
"""A window is so many rows long, and one ends with every row."""
EVERY = 500
"""After so many windows a model is fitted anew."""
MEMORY = 200
"""A row is odd by itself if it is ``FACTOR`` times as odd as each of so many before it."""
FACTOR = 1.5
RECIPES_ROWS = 5_000
"""What scikit-learn's recipes are fitted on at most, spread over all: half of the windows would be support vectors."""

Judge = Callable[[Statistics, Ints, Statistics], Floats]
"""From known windows and their ends, the oddness of later windows, shape (n,)."""


def judges(in_force: InForce, *, every: bool) -> Mapping[str, Judge]:
    """The detectors in the order they are told of, the one in force first; with ``every``, all there are."""
    best = in_force.settings.training.detector
    own = [best, *(other for other in Detector if other is not best and (every or other is Detector.ONE_CLASS_SVM))]
    recipes = RECIPES if every else {}
    return {detector.value: _ours(in_force, detector) for detector in own} | {
        name: _recipe(in_force, recipe) for name, recipe in recipes.items()
    }


def _ours(in_force: InForce, detector: Detector) -> Judge:
    spec = replace(_spec(in_force), detector=detector)

    def judge(known: Statistics, ends: Ints, later: Statistics) -> Floats:
        try:
            fleet = Fleet.of({"": fit_device(known, ends, spec)}, "")
        except ModelError:  # what cannot be told apart yet is not odd
            return np.zeros(len(later))
        measured = fleet.measure(np.zeros(len(later), np.int64), later)
        return measured.distance / measured.reach

    return judge


def _recipe(in_force: InForce, recipe: Recipe) -> Judge:
    spec = replace(_spec(in_force), max_windows=RECIPES_ROWS)

    def judge(known: Statistics, ends: Ints, later: Statistics) -> Floats:
        chosen = known.take(sampled(ends, spec))
        odd = recipe(*(np.nan_to_num(features(windows.align(known.metrics))) for windows in (chosen, later)))
        return np.maximum(odd, 0.0)

    return judge


def oddness(job: Job, judging: Mapping[str, Judge]) -> Iterator[tuple[str, pd.DataFrame]]:
    """One device after the other: its rows as the job has them, with the oddness by each judge."""
    steps = _by_step(job.rows)
    windows = _windows(job, steps)
    for step, devices in steps.items():
        known, ends = blocks(windows.pop(step))
        for device in devices:
            rows = job.rows[job.rows.device == device].reset_index(drop=True)
            begin = int(np.searchsorted(ends[device], job.trained.get(device, 0) + step, side="right"))
            columns = {name: _oddness(judge, known[device], ends[device], begin) for name, judge in judging.items()}
            judged = pd.DataFrame({"end": ends[device], **columns})
            own = rows.assign(end=rows.ts // step * step + step).merge(judged, "left", on="end")
            yield device, own[[*rows.columns, *judging]].fillna(0.0)


def _windows(job: Job, steps: Mapping[int, list[str]]) -> dict[int, list[Score]]:
    """By step the windows of its devices, each ``ROWS`` rows long; the recording is read once for all."""
    jobs = {step: Job(_timed(job.in_force, step), job.benchmark, job.root) for step in steps}
    feeds = {step: timed.core(Fleet.empty()) for step, timed in jobs.items()}
    own = {device.encode(): step for step, devices in steps.items() for device in devices}
    found: dict[int, list[Score]] = {step: [] for step in steps}
    for records in job.records(job.recording):
        for step, feed in feeds.items():
            # what has no key is the end of the recording, and everybody's
            rows = [row for row, key in enumerate(records.keys) if key is None or own.get(key) == step]
            found[step] += feed(records.pick(rows))
    return found


def _oddness(judge: Judge, statistics: Statistics, ends: Ints, begin: int) -> Floats:
    """Of every window from ``begin`` on, by what was known when the model was fitted; 0 before."""
    odd = np.zeros(len(ends))
    for first in range(begin, len(ends), EVERY):
        known, later = np.arange(first), np.arange(first, min(first + EVERY, len(ends)))
        odd[later] = judge(statistics.take(known), ends[known], statistics.take(later))
    return odd


def sweep(found: pd.DataFrame, name: str) -> Sweep:
    """NAB's scores of one detector, from the rows of all devices."""
    corpus = [said(rows, name) for _, rows in found.groupby("device", sort=True)]
    threshold, told = nab.best(corpus, nab.PROFILES["standard"]), list[Alarms]()
    for (_, rows), series in zip(found.groupby("device", sort=True), corpus, strict=True):
        scored = np.arange(len(rows)) >= nab.probation(len(rows))
        detected = (series.oddness >= threshold) & scored
        told.append(alarms(detected, rows.window.to_numpy() >= 0, usual_step(rows.ts.to_numpy())))
    scores = {profile: nab.score(corpus, weights) for profile, weights in nab.PROFILES.items()}
    return Sweep(
        score=scores["standard"],
        low_fp=scores["low_fp"],
        low_fn=scores["low_fn"],
        event_recall=mean([of.recall for of in told]),
        false_alerts_per_week=mean([WEEK * of.false / of.days for of in told]),
        median_delay_rows=median_delay(told),
        windows=sum(len(series.spans) for series in corpus),
        rows=len(found),
    )


def said(rows: pd.DataFrame, name: str) -> nab.Series:
    """A series as NAB's scoring takes it: where a row is odd by itself, and the windows."""
    odd = nab.peaks(rows[name].to_numpy(np.float64), MEMORY, FACTOR)
    return nab.Series(odd, nab.spans(rows.window.to_numpy()))


def events(found: pd.DataFrame, name: str, settings: Settings) -> Events:
    """Figures of one detector on Microsoft's series, from the rows of all devices; those on probation do not count."""
    devices = [followed(rows, name, settings) for _, rows in found.groupby("device", sort=True)]
    judged = pd.concat(devices, ignore_index=True)
    steps = {str(device): usual_step(rows.ts.to_numpy()) for device, rows in judged.groupby("device", sort=True)}
    return judge_events(judged, len(found), stream_spec(settings).alert, {}, steps)


def followed(rows: pd.DataFrame, name: str, settings: Settings) -> pd.DataFrame:
    """One device's rows behind probation as the stream judges them, by oddness in units of the trained limit.

    A model of ours is followed by a trail that begins with it (``scorers.follow``); to scikit-learn's, odd is what is
    above 0. Adds ``limit``, ``anomaly``, ``severity`` (the oddness), ``scored`` and ``top`` (none, for the one metric).
    """
    own = rows[rows.split == "test"]
    odd = own[name].to_numpy(np.float64)
    limit, scored = np.zeros(len(own)), np.ones(len(own), np.bool_)
    if name not in RECIPES:
        scored = odd > 0  # else no model could be fitted
        trails, fits = Trails(stream_spec(settings).follow), np.arange(len(own)) // EVERY
        trails.grow(int(fits.max(initial=0)) + 1)
        limit = trails.follow(fits, odd, np.ones(len(own)), scored)
    return own.assign(limit=limit, anomaly=odd > limit, severity=odd, scored=scored, top=None)


def verification(found: pd.DataFrame) -> dict[str, float]:
    """What NAB publishes for detectors that need no model: nothing ever, and each window as soon as it is scored."""
    silent, perfect = [], []
    for _, rows in found.groupby("device", sort=True):
        spans = nab.spans(rows.window.to_numpy())
        said = np.zeros(len(rows))
        said[[max(first, nab.probation(len(rows))) for first, _ in spans]] = 1.0
        silent.append(nab.Series(np.zeros(len(rows)), spans))
        perfect.append(nab.Series(said, spans))
    standard = nab.PROFILES["standard"]
    return {"null": nab.score(silent, standard, 1.0), "perfect": nab.score(perfect, standard, 1.0)}


def _by_step(rows: pd.DataFrame) -> dict[int, list[str]]:
    """Devices by the usual time from row to row, ms."""
    steps: dict[int, list[str]] = {}
    for device, own in rows.groupby("device", sort=True):
        steps.setdefault(usual_step(own.ts.to_numpy()), []).append(str(device))
    return steps


def usual_step(stamps: Ints) -> int:
    """The median time from row to row, ms, of stamps of shape (n,)."""
    return max(int(np.median(np.diff(stamps))), 1) if len(stamps) > 1 else 1


def _spec(in_force: InForce) -> TrainSpec:
    """How models are trained: held-out windows share no row with those trained on, whatever the time between rows."""
    return train_spec(_timed(in_force, 1_000).settings)


def _timed(in_force: InForce, step: int) -> InForce:
    """Windows of ``ROWS`` rows, one a row."""
    seconds = step / 1_000
    size = ROWS * seconds
    return override(in_force, {"window.size_s": size, "window.hop_s": seconds, "window.idle_s": size})
