"""Training forecasters: the published random forest, and boosted trees that may take its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from scorers.errors import ModelError
from scorers.forecast.encode import Encoder, Matrix, strange
from scorers.forecast.features import FeatureSpec
from scorers.forecast.labels import CLASSES, Ints, Thresholds, classes, halves
from scorers.forecast.metrics import Figures, figures
from scorers.forecast.model import Forecaster, Kind, profile
from scorers.forecast.schema import HORIZON, HOUR_MS
from scorers.trees import Forest

SEED = 42
HELD_OUT = 5
"""Every fifth of the training time, the last, judges the candidates."""


MOST = 60_000
"""Rows of each side that judge candidates."""
ALONE = 20_000
"""So few rows are trained on by one thread: several would wait for each other."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train."""

    name: str
    kind: Kind
    options: Mapping[str, Any]
    """Of scikit-learn's estimator."""


_BOOSTED = {"random_state": SEED, "early_stopping": False, "min_samples_leaf": 50, "l2_regularization": 1.0}
PUBLISHED = Recipe("forest", Kind.FOREST, {"n_estimators": 100, "max_depth": 8, "random_state": SEED})
BOOSTED = (
    Recipe("ordinal", Kind.ORDINAL, {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 31, **_BOOSTED}),
    Recipe("ordinal_small", Kind.ORDINAL, {"max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 8, **_BOOSTED}),
    Recipe("multiclass", Kind.MULTICLASS, {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 31, **_BOOSTED}),
)
RECIPES: Mapping[str, Sequence[Recipe]] = {
    "forest": (PUBLISHED,),
    "boosting": BOOSTED,
    "auto": (PUBLISHED, *BOOSTED),
}
"""By what a person asks for; where there are several, time held out of training chooses."""


@dataclass(frozen=True, slots=True)
class Teaching:
    """What every candidate of one training shares."""

    thresholds: Thresholds
    spec: FeatureSpec
    version: str
    cores: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)


def fit(training: pa.Table, recipe: Recipe, teaching: Teaching) -> Forecaster:
    """Train on rows of FEATURES whose load is known: their scales, servers, profile and trees.

    Rows of servers without any history teach nothing: such servers are forecast from the fleet's average.

    Raises:
        ModelError: nothing can be learned from the rows.
    """
    rows = training.filter(pa.array(~strange(training)))
    if not len(rows):
        raise ModelError(
            f"No hour to train on has a history, which begins {HORIZON} hours after a server's first; "
            "record more, or choose a later --split."
        )
    truth = classes(rows["load"].to_numpy(), teaching.thresholds)
    seen = np.unique(truth)
    if len(seen) == 1:
        raise ModelError(
            f"The load of every hour to train on is {CLASSES[seen[0]]}; set load.thresholds or load.quantiles so that "
            "classes differ."
        )
    encoder = Encoder.fit(rows)
    made = _ensembles(encoder.matrix(rows), truth, recipe, teaching.cores)
    facts = {**teaching.facts, "recipe": recipe.name, "trained_on": len(rows)}
    return Forecaster(
        version=teaching.version,
        kind=recipe.kind,
        spec=teaching.spec,
        thresholds=teaching.thresholds,
        encoder=encoder,
        profile=profile(rows),
        seen=tuple(int(one) for one in seen),
        ensembles=made,
        facts=facts,
    )


def held_out(training: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Training rows cut in two by time: what candidates learn from, and the last fifth that judges them.

    Where there are more than ``MOST`` rows, evenly spread ones: enough to tell which candidate is better.
    """
    hours = training["hour"]
    first, last = pc.min(hours).as_py(), pc.max(hours).as_py() + HOUR_MS
    length = max((last - first) // HELD_OUT, HORIZON * HOUR_MS)
    early, late = halves(training, (last - length) // HOUR_MS * HOUR_MS)
    return _thinned(early, MOST), _thinned(late, MOST)


def judged(forecaster: Forecaster, rows: pa.Table) -> Figures:
    """How a forecaster does on rows whose load is known; those without history filled as when forecasting."""
    filled, _ = forecaster.fill(rows)
    return figures(classes(rows["load"].to_numpy(), forecaster.thresholds), forecaster.predict(filled))


def importance(forecaster: Forecaster, rows: pa.Table, most: int = 10_000) -> dict[str, float]:
    """By how much the ranked probability score rises when one feature's values are shuffled (Breiman 2001), by name.

    Args:
        forecaster: whose features.
        rows: of FEATURES with known loads, not trained on.
        most: rows to use, evenly spread.
    """
    rows, _ = forecaster.fill(_thinned(rows, most))
    truth = classes(rows["load"].to_numpy(), forecaster.thresholds)
    usual = figures(truth, forecaster.predict(rows)).rps
    order = np.random.default_rng(SEED).permutation(len(rows))
    found = {}
    for name in forecaster.encoder.inputs:
        place = rows.schema.get_field_index(name)
        mixed = rows.set_column(place, rows.schema.field(name), rows[name].take(order))
        found[name] = figures(truth, forecaster.predict(mixed)).rps - usual
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _thinned(rows: pa.Table, most: int) -> pa.Table:
    """At most so many rows, evenly spread."""
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))) if len(rows) > most else rows


def _ensembles(matrix: Matrix, truth: Ints, recipe: Recipe, cores: int) -> tuple[Forest, ...]:
    from sklearn.ensemble import (  # noqa: PLC0415 - a second and 95 MB, which only those who train are to pay
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )

    cores = cores if len(matrix) > ALONE else 1
    if recipe.kind is Kind.FOREST:
        made = RandomForestClassifier(**recipe.options, n_jobs=cores)
        return (Forest.of(made.fit(matrix, truth)),)
    two = len(np.unique(truth)) == 2  # noqa: PLR2004 - as one threshold parts them
    goals = [truth] if recipe.kind is Kind.MULTICLASS or two else [truth > 0, truth > 1]
    with threadpool_limits(cores):
        return tuple(Forest.of(HistGradientBoostingClassifier(**recipe.options).fit(matrix, goal)) for goal in goals)
