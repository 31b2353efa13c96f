"""How good forecasts would have been: train before each of several moments, forecast after it, compare with what came.

::

    ──────────── training ────────────┤origin├── 48 hours ──┤
    ─────────────── training ──────────────────┤origin├── 48 hours ──┤
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scorers.errors import ConfigError
from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.features import features
from scorers.forecast.fit import PUBLISHED, RECIPES, Teaching, fit
from scorers.forecast.labels import Floats, Ints, classes, halves
from scorers.forecast.metrics import Figures, figures
from scorers.forecast.naive import BASELINES, History, baseline
from scorers.forecast.schema import HORIZON, HOUR_MS
from tidewatch.forecast.settings import Load
from tidewatch.forecast.training import chosen, thresholds_of

BLOCK = 6
"""Hours ahead that are one point of a curve."""
CHOSEN = "chosen"
"""Of several recipes the one that hours held out of training chose, anew for each origin."""
Step = Callable[[int, int], None]
"""Told how many origins are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Roll:
    """When to forecast from: the last origin lies ``horizon`` hours before the end, the others ``every`` (ms) apart."""

    origins: int = 5
    every: int = 7 * 24 * HOUR_MS
    horizon: int = HORIZON
    model: str = "auto"
    """One of ``RECIPES``."""

    def at(self, end: int) -> list[int]:
        """The origins, epoch ms, the earliest first, where hours are known until ``end``.

        Raises:
            ConfigError: the horizon is longer than 48 hours, or origins do not lie hours apart.
        """
        if not 1 <= self.horizon <= HORIZON or self.origins < 1:
            raise ConfigError(f"--horizon is {self.horizon} hours; forecasts go 1 to {HORIZON} hours ahead.")
        if self.every < HOUR_MS or self.every % HOUR_MS:
            raise ConfigError("--every must be whole hours, such as 36h or 7d.")
        last = end // HOUR_MS * HOUR_MS - self.horizon * HOUR_MS
        return [last - number * self.every for number in reversed(range(self.origins))]


@dataclass(frozen=True)
class Backtest:
    """Forecasts of several origins beside what came; rows are one a server, origin and hour known."""

    origins: Sequence[int]
    """Epoch ms."""
    recipes: Sequence[str]
    """Chosen at each origin."""
    thresholds: Sequence[tuple[float, float]]
    """At each origin."""
    servers: int
    lead: Ints
    """Hours ahead, shape (n,): 1 is the hour that begins at the origin."""
    truth: Ints
    """Classes, shape (n,)."""
    forecasts: Mapping[str, Floats]
    """Probabilities, shape (n, 3), by model or baseline."""

    @cached_property
    def figures(self) -> dict[str, Figures]:
        """Over all rows."""
        return {name: figures(self.truth, given) for name, given in self.forecasts.items()}

    @cached_property
    def blocks(self) -> dict[str, list[tuple[int, int, Figures]]]:
        """The same by six hours ahead: the first of them, the last, and the figures."""
        ends = range(0, int(self.lead.max()), BLOCK)
        found: dict[str, list[tuple[int, int, Figures]]] = {name: [] for name in self.forecasts}
        for begin in ends:
            mine = (self.lead > begin) & (self.lead <= begin + BLOCK)
            for name, given in self.forecasts.items():
                last = min(begin + BLOCK, int(self.lead.max()))
                found[name].append((begin + 1, last, figures(self.truth[mine], given[mine])))
        return found

    def told(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {
            "origins": list(self.origins),
            "recipes": list(self.recipes),
            "thresholds": [list(pair) for pair in self.thresholds],
            "servers": self.servers,
            "rows": len(self.truth),
            "figures": {name: of.told() for name, of in self.figures.items()},
            "confusion": {name: of.confusion.tolist() for name, of in self.figures.items()},
            "horizon": {
                name: [
                    {"from": begin, "to": last, "rows": of.rows, "accuracy": of.accuracy, "macro_f1": of.macro_f1,
                     "rps": of.rps}
                    for begin, last, of in blocks
                ]
                for name, blocks in self.blocks.items()
            },
        }  # fmt: skip


def rows_of(hours: pa.Table, spec: FeatureSpec) -> pa.Table:
    """``FEATURES`` of all hours known."""
    return features(hours, hours.select(["server", "hour"]), spec)


def backtest(rows: pa.Table, spec: FeatureSpec, load: Load, roll: Roll, step: Step = lambda _, __: None) -> Backtest:
    """Roll the origin over rows of ``FEATURES``.

    At each origin a model learns from hours that were over by then, and forecasts those of the horizon after it from
    their features, none of which is younger than 48 hours; so do the baselines.

    Args:
        rows: of all hours known.
        spec: of these rows.
        load: where classes part; quantiles are taken anew from what each origin knows.
        roll: the origins.
        step: called after each origin.

    Raises:
        ConfigError: there are no hours before the first origin.
        ModelError: nothing can be learned at an origin.
    """
    rows = rows.filter(pc.is_valid(rows["load"]))
    origins = roll.at(pc.max(rows["hour"]).as_py() + HOUR_MS)
    first = pc.min(rows["hour"]).as_py()
    if origins[0] - first < 2 * HORIZON * HOUR_MS:
        days = (origins[-1] - first - 2 * HORIZON * HOUR_MS) / (24 * HOUR_MS)
        raise ConfigError(
            f"{len(origins)} origins so far apart begin before four days of hours are known; at most "
            f"{max(days, 0):.1f} days can lie between the first and the last. Ask for fewer --origins, or less between "
            "them by --every."
        )
    known, parts = History.of(rows), []
    for number, origin in enumerate(origins, 1):
        parts.append(_at(origin, rows, known, _Plan(spec, load, roll)))
        step(number, len(origins))
    return Backtest(
        origins=origins,
        recipes=[part.recipe for part in parts],
        thresholds=[part.thresholds for part in parts],
        servers=len(pc.unique(rows["server"])),
        lead=np.concatenate([part.lead for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        forecasts={name: np.concatenate([part.forecasts[name] for part in parts]) for name in parts[0].forecasts},
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    spec: FeatureSpec
    load: Load
    roll: Roll


@dataclass(frozen=True, slots=True)
class _Part:
    """One origin's."""

    recipe: str
    thresholds: tuple[float, float]
    lead: Ints
    truth: Ints
    forecasts: Mapping[str, Floats]


def _at(origin: int, rows: pa.Table, known: History, plan: _Plan) -> _Part:
    training, later = halves(rows, origin)
    ahead = later.filter(pc.less(later["hour"], origin + plan.roll.horizon * HOUR_MS))
    thresholds = thresholds_of(plan.load, training)
    teaching = Teaching(thresholds, plan.spec, str(origin), os.cpu_count() or 1)
    recipes = RECIPES[plan.roll.model]
    recipe, _ = chosen(training, recipes, teaching)
    models = {recipe.name if len(recipes) == 1 else CHOSEN: recipe}
    if PUBLISHED in recipes:
        models[PUBLISHED.name] = PUBLISHED
    forecasts: dict[str, Floats] = {}
    for name, of in models.items():
        same = next((other for other in forecasts if models[other] is of), None)
        forecasts[name] = forecasts[same] if same else _forecast(fit(training, of, teaching), ahead)
    taught = classes(training["load"].to_numpy(), thresholds), thresholds
    return _Part(
        recipe=recipe.name,
        thresholds=thresholds,
        lead=(ahead["hour"].to_numpy() - origin) // HOUR_MS + 1,
        truth=classes(ahead["load"].to_numpy(), thresholds),
        forecasts=forecasts | {name: baseline(name, known, ahead, taught) for name in BASELINES},
    )


def _forecast(forecaster: Any, ahead: pa.Table) -> Floats:
    filled, _ = forecaster.fill(ahead)
    given: Floats = forecaster.predict(filled)
    return given
