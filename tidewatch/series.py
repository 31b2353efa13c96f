"""NAB's series: each by models fitted again as it goes on, from the past alone; judged by NAB's own scoring."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from scorers.errors import ModelError
from scorers.features import features
from scorers.fit import Detector, TrainSpec, fit_device, sampled
from scorers.fleet import Fleet
from scorers.statistics import Floats, Ints, Statistics
from tidewatch import nab
from tidewatch.children import override
from tidewatch.evaluate import Job, blocks
from tidewatch.protocols import Sweep
from tidewatch.rivals import RECIPES, Recipe
from tidewatch.settings import InForce
from tidewatch.wiring import train_spec

ROWS = 10
"""A window is so many rows long, and one ends with every row."""
EVERY = 500
"""After so many windows a model is fitted anew."""
MEMORY = 200
"""A row is odd by itself if it is ``FACTOR`` times as odd as each of so many before it."""
FACTOR = 1.3
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
    """One device after the other: its rows with ``device``, ``ts``, ``window`` and the oddness by each judge."""
    for step, devices in _by_step(job.rows).items():
        timed = Job(_timed(job.in_force, step), job.benchmark, job.root)
        known, ends = blocks(timed.windows(job.recording, Fleet.empty(), until=dict.fromkeys(devices, 2**62)))
        for device in devices:
            rows = job.rows[job.rows.device == device].reset_index(drop=True)
            begin = int(np.searchsorted(ends[device], job.trained.get(device, 0) + step, side="right"))
            columns = {name: _oddness(judge, known[device], ends[device], begin) for name, judge in judging.items()}
            windows = pd.DataFrame({"end": ends[device], **columns})
            own = rows.assign(end=rows.ts // step * step + step).merge(windows, "left", on="end")
            yield device, own[["device", "ts", "window", *judging]].fillna(0.0)


def _oddness(judge: Judge, statistics: Statistics, ends: Ints, begin: int) -> Floats:
    """Of every window from ``begin`` on, by what was known when the model was fitted; 0 before."""
    odd = np.zeros(len(ends))
    for first in range(begin, len(ends), EVERY):
        known, later = np.arange(first), np.arange(first, min(first + EVERY, len(ends)))
        odd[later] = judge(statistics.take(known), ends[known], statistics.take(later))
    return odd


def sweep(found: pd.DataFrame, name: str) -> Sweep:
    """NAB's scores of one detector, from the rows of all devices."""
    corpus = []
    for _, rows in found.groupby("device", sort=True):
        odd = nab.peaks(rows[name].to_numpy(np.float64), MEMORY, FACTOR)
        corpus.append(nab.Series(odd, nab.spans(rows.window.to_numpy())))
    scores = {profile: nab.score(corpus, weights) for profile, weights in nab.PROFILES.items()}
    return Sweep(scores["standard"], scores["low_fp"], scores["low_fn"], sum(len(s.spans) for s in corpus), len(found))


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
        steps.setdefault(max(int(np.median(np.diff(own.ts))), 1), []).append(str(device))
    return steps


def _spec(in_force: InForce) -> TrainSpec:
    """How models are trained: held-out windows share no row with those trained on, whatever the time between rows."""
    return train_spec(_timed(in_force, 1_000).settings)


def _timed(in_force: InForce, step: int) -> InForce:
    """Windows of ``ROWS`` rows, one a row."""
    seconds = step / 1_000
    size = ROWS * seconds
    return override(in_force, {"window.size_s": size, "window.hop_s": seconds, "window.idle_s": size})
