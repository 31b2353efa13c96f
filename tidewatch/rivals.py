"""A benchmark by every detector there is, and by what scikit-learn does unless told otherwise."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from producers.recordings import apart
from scorers.features import features
from scorers.fit import Detector, sampled
from scorers.fleet import Fleet
from scorers.statistics import Floats
from tidewatch.evaluate import Job, blocks, through_core
from tidewatch.planning import train_spec
from tidewatch.protocols import Result
from tidewatch.settings import override

Recipe = Callable[[Floats, Floats], Floats]
"""From training rows (n, p) and others (m, p), the oddness of the others (m,); above 0 is an anomaly."""


def _one_class_svm(train: Floats, other: Floats) -> Floats:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - a second, which only those who compare are to pay
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - as above
    from sklearn.svm import OneClassSVM  # noqa: PLC0415 - as above

    return -np.asarray(make_pipeline(StandardScaler(), OneClassSVM()).fit(train).decision_function(other))


RECIPES: Mapping[str, Recipe] = {
    "scikit-learn: StandardScaler, OneClassSVM": _one_class_svm,
}
"""With every default, a model a device, on the features of the windows that ours is trained on."""
RIVALS = len(Detector) - 1 + len(RECIPES)
"""How many there are beside the detector in force."""


def rivals(job: Job, folder: Path) -> Iterator[tuple[str, Result]]:
    """Each other detector through the core, then each recipe; figures as they are known."""
    for detector in Detector:
        if detector is not job.settings.training.detector:
            own = folder / detector
            own.mkdir(exist_ok=True)
            changed = override(job.in_force, {"training.detector": detector})
            yield detector, through_core(Job(changed, job.benchmark, job.root), own)
    tables = {name: list[pd.DataFrame]() for name in RECIPES}
    for recording in apart(job.recording):
        train, known = blocks(job.windows(recording, Fleet.empty(), until=job.trained))
        whole, ends = blocks(job.windows(recording, Fleet.empty()))
        for device, statistics in whole.items():
            chosen = train[device].take(sampled(known[device], train_spec(job.settings))).align(statistics.metrics)
            learned, judged = (np.nan_to_num(features(windows)) for windows in (chosen, statistics))
            for name, recipe in RECIPES.items():
                tables[name].append(_verdicts(device, ends[device], recipe(learned, judged)))
    for name, parts in tables.items():
        yield name, job.judge(pd.concat(parts, ignore_index=True))


def _verdicts(device: str, ends: np.ndarray, odd: Floats) -> pd.DataFrame:
    """As a stream would give them, without contributors."""
    return pd.DataFrame(
        {"device": device, "end": ends, "scored": True, "anomaly": odd > 0, "severity": odd, "top": None}
    )
