"""Training a forecaster: rows of features in; candidates judged, the best compared, recorded and put in force.

::

    features ──split by time──▶ training ──last fifth held out──▶ the best recipe ──▶ trained on all of training
                            └─▶ test ──▶ beside the baselines ──▶ in force, or not
                                   └─hours that neither learned from──▶ beside the forecaster in force

What is put in force is the model that was tested; with ``refit`` the same trained once more, on all hours.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scorers.errors import ConfigError, ForecasterFileError, ModelError
from scorers.forecast import pack
from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.encode import strange
from scorers.forecast.fit import PUBLISHED, RECIPES, SEED, Recipe, Teaching, fit, held_out, importance, judged
from scorers.forecast.labels import Ints, Thresholds, classes, halves, quantiles, scaled
from scorers.forecast.metrics import Figures, better, figures
from scorers.forecast.model import Forecaster
from scorers.forecast.naive import BASELINES, RIVALS, History, baseline
from scorers.forecast.schema import HORIZON, HOUR_MS
from tidewatch.console import utc
from tidewatch.forecast import store
from tidewatch.forecast.settings import Load, model_file

DAY_MS = 24 * HOUR_MS
MONTH_END = 28
"""Of a single month, days up to this one are trained on, as published."""
TENTH = 10
FEWEST = HORIZON
"""Hours, of all servers, on which forecasters are compared at least where others had to be left out: each hour of the
day twice."""
Step = Callable[[str], None]
"""Told what is done next."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to train on and how."""

    folder: Path
    """With ``features/``, as `tidewatch load etl` made them."""
    model: str = "auto"
    """One of ``RECIPES``."""
    split: int | None = None
    """Epoch ms; None: see :func:`default_split`."""
    force: bool = False
    refit: bool = False
    """After the test, train on all hours, and keep that one; the figures are of the one before."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How one candidate did on hours held out of training."""

    recipe: str
    seconds: float
    rps: float | None = None
    macro_f1: float | None = None
    accuracy: float | None = None
    reason: str = ""
    """Why it could not be tried."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A new forecaster beside the one in force, on those hours of the test that neither was trained on."""

    since: int
    """When they begin, epoch ms."""
    challenger: Figures
    champion: Figures


@dataclass(slots=True)
class Trained:
    """What came of it."""

    forecaster: Forecaster
    """What may be put in force."""
    tested: Forecaster
    """Whom the figures are of: the same, but for a refit."""
    spec: FeatureSpec
    split: int
    training: Figures
    test: Figures
    baselines: Mapping[str, Figures]
    """On the test rows; the published forest beside them, where it is not the model."""
    contest: Contest | None
    """None where there is nobody in force, or no hours are left to compare it on."""
    trials: Sequence[Trial]
    importance: Mapping[str, float]
    labels: Mapping[str, list[int]]
    """Rows of each class in ``training`` and ``test``."""
    promoted: bool
    reasons: list[str]
    started: int
    """Epoch ms, as ``ended``."""
    ended: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def train(load: Load, order: Order, step: Step = lambda _: None) -> Trained:
    """Train, and judge whether the forecaster may be put in force; ``tidewatch.forecast.record.keep`` does so.

    Raises:
        InputError: there are no features.
        ConfigError: a setting or the split leaves nothing to learn from or to test on.
        ModelError: nothing can be learned.
    """
    started = time.time_ns() // 1_000_000
    step("reading features")
    folder = store.root(order.folder)
    spec, rows = store.spec(folder), store.features(folder / "features")
    split = order.split if order.split is not None else default_split(rows["hour"].to_numpy(), spec)
    training, test = parts(rows, split)
    teaching = Teaching(
        thresholds_of(load, training), spec, _stamp(started), os.cpu_count() or 1, _facts(training, split)
    )
    recipe, trials = chosen(training, RECIPES[order.model], teaching, step)
    tested = _fitted(training, recipe, teaching, step)
    step("testing")
    others = _baselines(rows, training, test, teaching.thresholds)
    if recipe is not PUBLISHED and order.model == "auto":
        others[PUBLISHED.name] = judged(_fitted(training, PUBLISHED, teaching, step), test)
    champion = _champion(load, spec)
    trained = Trained(
        forecaster=_refitted(rows, recipe, teaching, step) if order.refit else tested,
        tested=tested,
        spec=spec,
        split=split,
        training=judged(tested, training.filter(pa.array(~strange(training)))),
        test=judged(tested, test),
        baselines=others,
        contest=None if champion is None else contest(test, tested, champion),
        trials=trials,
        importance=importance(tested, test),
        labels={name: _labels(part, teaching.thresholds) for name, part in (("training", training), ("test", test))},
        promoted=False,
        reasons=[],
        started=started,
    )
    trained.reasons = objections(load, trained, champion)
    trained.promoted = order.force or not trained.reasons
    trained.ended = time.time_ns() // 1_000_000
    return trained


def default_split(hours: Ints, spec: FeatureSpec) -> int:
    """Where the test begins if nobody says: after the 28th of a single month, else at the last tenth; epoch ms.

    Args:
        hours: starts of the hours there are, epoch ms.
        spec: whose timezone's months count.
    """
    first, end = int(hours.min()), int(hours.max()) + HOUR_MS
    begins, last = (datetime.fromtimestamp(at / 1000, spec.zone) for at in (first, end - 1))
    if (begins.year, begins.month) == (last.year, last.month) and last.day > MONTH_END:
        after = last.replace(day=MONTH_END + 1, hour=0, minute=0, second=0, microsecond=0)
        return int(after.timestamp() * 1000)
    return (end - (end - first) // TENTH) // HOUR_MS * HOUR_MS


def parts(rows: pa.Table, split: int) -> tuple[pa.Table, pa.Table]:
    """Training and test rows.

    Raises:
        ConfigError: one of them is empty.
    """
    training, test = halves(rows, split)
    if not len(training) or not len(test):
        ends = pc.min_max(rows["hour"]).as_py()
        since, until = (datetime.fromtimestamp(ends[name] / 1000, UTC).isoformat() for name in ("min", "max"))
        side = "before" if not len(training) else "after"
        raise ConfigError(f"No hour lies {side} --split; choose a time between {since} and {until}.")
    return training, test


def thresholds_of(load: Load, training: pa.Table) -> Thresholds:
    """Where classes part; quantiles are of the training rows alone."""
    if load.quantiles is not None:
        return quantiles(training["load"].to_numpy(), load.quantiles)
    return scaled(load.thresholds, load.scale)


def chosen(
    training: pa.Table, recipes: Sequence[Recipe], teaching: Teaching, step: Step = lambda _: None
) -> tuple[Recipe, list[Trial]]:
    """The recipe with the lowest ranked probability score on the last fifth of training, and how all did.

    Raises:
        ModelError: not one could be tried.
    """
    if len(recipes) == 1:
        return recipes[0], []
    early, late = held_out(training)
    trials = []
    for recipe in recipes:
        step(f"trying {recipe.name}")
        trials.append(_trial(recipe, early, late, teaching))
    tried = [(trial.rps, number) for number, trial in enumerate(trials) if trial.rps is not None]
    if not tried:
        raise ModelError(f"No candidate could be tried on hours held out of training: {trials[0].reason}")
    return recipes[min(tried)[1]], trials


def objections(load: Load, trained: Trained, champion: Forecaster | None) -> list[str]:
    """Why a forecaster must not be put in force; empty if it may."""
    ours = trained.test.told()
    found = [
        f"it does not beat {name}: accuracy {ours['accuracy']:.4f} against {figure.accuracy:.4f}, "
        f"macro-F1 {ours['macro_f1']:.4f} against {figure.macro_f1:.4f}"
        for name, figure in trained.baselines.items()
        if name in RIVALS and not better(ours, figure.told())
    ]
    if champion is None:
        return found
    if champion.thresholds != trained.forecaster.thresholds and load.quantiles is None:
        found.append(
            f"the one in force has other thresholds, {champion.thresholds[0]:g} and {champion.thresholds[1]:g}"
        )
    elif trained.contest is None:
        found.append(
            f"the one in force has learned from hours up to {utc(champion.facts['until'])} UTC, and fewer than "
            f"{FEWEST} hours of the test are later, too few to compare them on; train again once `tidewatch load etl` "
            "has read them"
        )
    elif not trained.contest.challenger.rps < trained.contest.champion.rps:
        found.append(
            f"it is no better than the one in force: ranked probability score {trained.contest.challenger.rps:.4f} "
            f"against {trained.contest.champion.rps:.4f}"
        )
    return found


def contest(test: pa.Table, challenger: Forecaster, champion: Forecaster) -> Contest | None:
    """Compare two forecasters on those hours of the challenger's test that the champion has not seen either.

    Whoever has learned from an hour forecasts it better than it ever will another, and would win by that alone.

    Returns:
        None where hours had to be left out, and fewer than ``FEWEST`` are left.
    """
    unseen = test.filter(pc.greater_equal(test["hour"], champion.facts["until"]))
    if len(unseen) < len(test) and len(pc.unique(unseen["hour"])) < FEWEST:
        return None
    known = known_to(champion, unseen, challenger.spec)
    return Contest(pc.min(unseen["hour"]).as_py(), judged(challenger, unseen), judged(champion, known))


def _trial(recipe: Recipe, early: pa.Table, late: pa.Table, teaching: Teaching) -> Trial:
    began = time.monotonic()
    try:
        told = judged(fit(early, recipe, teaching), late)
    except ModelError as error:
        return Trial(recipe.name, time.monotonic() - began, reason=str(error))
    return Trial(recipe.name, time.monotonic() - began, told.rps, told.macro_f1, told.accuracy)


def _fitted(training: pa.Table, recipe: Recipe, teaching: Teaching, step: Step) -> Forecaster:
    step(f"training {recipe.name}")
    return fit(training, recipe, teaching)


def _refitted(rows: pa.Table, recipe: Recipe, teaching: Teaching, step: Step) -> Forecaster:
    """The same trained on all hours known; classes part where they did, or nobody would know what was tested."""
    known = rows.filter(pc.is_valid(rows["load"]))
    facts = _facts(known, teaching.facts["split"]) | {"refit": True}
    step("training on all hours")
    return fit(known, recipe, replace(teaching, facts=facts))


def _baselines(rows: pa.Table, training: pa.Table, test: pa.Table, thresholds: Thresholds) -> dict[str, Figures]:
    known = History.of(rows)
    taught = classes(training["load"].to_numpy(), thresholds), thresholds
    truth = classes(test["load"].to_numpy(), thresholds)
    return {name: figures(truth, baseline(name, known, test, taught)) for name in BASELINES}


def _champion(load: Load, spec: FeatureSpec) -> Forecaster | None:
    """The forecaster in force, if there is one that can be compared."""
    path = model_file(load)
    if not path.exists():
        return None
    champion = pack.load(path)
    if (champion.spec.timezone, champion.spec.country) != (spec.timezone, spec.country):
        raise ForecasterFileError(
            f"{path} was trained for another timezone or country, {champion.spec.timezone} {champion.spec.country}; "
            "move it away, or set load.timezone and load.country as they were."
        )
    return champion


def known_to(forecaster: Forecaster, rows: pa.Table, spec: FeatureSpec) -> pa.Table:
    """Rows as a forecaster knows them whose days are counted from another start than these."""
    place, days = rows.schema.get_field_index("trend"), (spec.start - forecaster.spec.start) / DAY_MS
    return rows.set_column(place, rows.schema.field(place), pc.add(rows["trend"], days))


def _labels(rows: pa.Table, thresholds: Thresholds) -> list[int]:
    counted: list[int] = np.bincount(classes(rows["load"].to_numpy(), thresholds), minlength=3).tolist()
    return counted


def _facts(training: pa.Table, split: int) -> dict[str, Any]:
    ends = pc.min_max(training["hour"]).as_py()
    return {
        "since": ends["min"],
        "until": ends["max"] + HOUR_MS,
        "split": split,
        "rows": len(training),
        "seed": SEED,
        "horizon": HORIZON,
        "tidewatch": version("tidewatch"),
    }


def _stamp(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


def told(trained: Trained) -> dict[str, Any]:
    """All of it, as plain values."""
    forecaster, tested = trained.forecaster, trained.tested
    duel = trained.contest
    others = {name: figure.told() | {"rows": figure.rows} for name, figure in trained.baselines.items()}
    return {
        "version": forecaster.version,
        "model": tested.facts["recipe"],
        "thresholds": list(forecaster.thresholds),
        "since": tested.facts["since"],
        "split": trained.split,
        "rows": {"training": tested.facts["rows"], "test": trained.test.rows},
        "trained_on": tested.facts["trained_on"],
        "servers": len(tested.servers),
        "refit": None
        if forecaster is tested
        else {name: forecaster.facts[name] for name in ("since", "until", "rows", "trained_on")},
        "labels": dict(trained.labels),
        "training": trained.training.told(),
        "test": trained.test.told(),
        "confusion": trained.test.confusion.tolist(),
        "reliability": trained.test.reliability.tolist(),
        "baselines": others,
        "contest": duel
        and {
            "since": duel.since,
            "rows": duel.champion.rows,
            "challenger": duel.challenger.told(),
            "champion": duel.champion.told(),
        },
        "trials": [asdict(trial) for trial in trained.trials],
        "importance": dict(trained.importance),
        "promoted": trained.promoted,
        "reasons": list(trained.reasons),
        "seconds": (trained.ended - trained.started) / 1000,
        **trained.facts,
    }
