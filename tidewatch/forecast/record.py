"""What the registry keeps of a forecaster's training: figures, parameters, plots, and the model with its signature."""

import json
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scorers.forecast import pack
from scorers.forecast.encode import INPUTS
from scorers.forecast.fit import RECIPES
from scorers.forecast.labels import CLASSES
from scorers.forecast.metrics import EIGHT, Figures
from scorers.forecast.schema import CALENDAR, FEATURES
from tidewatch.forecast.settings import Load, model_file
from tidewatch.forecast.training import Order, Trained, told
from tidewatch.groups import Models
from tidewatch.record import installed
from tidewatch.registry import Artefact, Record, Registry, Version

NAME = "load"
"""Of the registered model."""
FILE = "forecaster.twf"
FORECASTERS = Artefact(FILE, pack.install, "tidewatch load train")
ACCOUNT = "training.json"
"""What ``tidewatch.forecast.training.told`` says of a training."""
SHOWN = 20
"""Features of the plot of importance."""


def forecasters(models: Models) -> Models:
    """The same registry's settings for forecasters, which are versions of a model beside that of fleets."""
    return models.model_copy(update={"name": NAME, "experiment": f"{models.experiment}-{NAME}"})


def account(registry: Registry, made: Version) -> dict[str, Any]:
    """All that the training of a version came to, as plain values.

    Raises:
        UnavailableError: the registry does not have it.
    """
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = json.loads(registry.kept(made, ACCOUNT, Path(folder)).read_bytes())
    return found


def keep(models: Models, load: Load, order: Order, trained: Trained) -> Version | None:
    """Keep a training as a run and its forecaster as a version, and put it in force if it is to be.

    Returns:
        The version; None where no registry is kept.

    Raises:
        UnavailableError: MLflow does not answer.
        ForecasterFileError: the file cannot be written.
    """
    made = _registered(models, load, order, trained) if models.registry.get_secret_value() else None
    if trained.promoted:
        pack.save(trained.forecaster, model_file(load))
    return made


def _registered(models: Models, load: Load, order: Order, trained: Trained) -> Version:
    registry = Registry(forecasters(models), FORECASTERS)
    with tempfile.TemporaryDirectory() as folder:
        made = registry.record(_record(load, order, trained, Path(folder)))
    (registry.promote if trained.promoted else registry.challenge)(made)
    return registry.version(str(made.number))


def _record(load: Load, order: Order, trained: Trained, folder: Path) -> Record:
    model, files = folder / "model", folder / "run"
    for made in (model, files):
        made.mkdir()
    _model_files(trained, model)
    (files / ACCOUNT).write_text(json.dumps(told(trained), indent=1))
    (files / "requirements.txt").write_text(installed())
    _plots(trained, files)
    return Record(
        name=trained.forecaster.version,
        started=trained.started,
        ended=trained.ended,
        params=_params(load, order, trained),
        metrics=_metrics(trained),
        course={},
        tags={
            "tidewatch.version": version("tidewatch"),
            "tidewatch.forecaster": trained.forecaster.version,
            "python": platform.python_version(),
        },
        fleet=model,
        files=files,
    )


def _params(load: Load, order: Order, trained: Trained) -> dict[str, object]:
    forecaster = trained.forecaster
    facts, spec = forecaster.facts, forecaster.spec
    recipe = next(one for one in RECIPES["auto"] if one.name == facts["recipe"])
    return {
        "source": str(order.folder.resolve()),
        "asked": order.model,
        "model": recipe.name,
        **{f"model.{name}": value for name, value in recipe.options.items()},
        "since": facts["since"],
        "split": trained.split,
        "until": facts["until"],
        "refit": trained.forecaster is not trained.tested,
        "thresholds": ", ".join(f"{value:g}" for value in forecaster.thresholds),
        "scale": load.scale,
        "quantiles": load.quantiles,
        "timezone": spec.timezone,
        "country": spec.country,
        "start": spec.start,
        "servers": len(forecaster.servers),
        "columns": ", ".join(forecaster.encoder.inputs),
    }


def _metrics(trained: Trained) -> dict[str, float]:
    """The eight published figures and the others, of training and test; MLflow takes no NaN."""
    sides = {"train": trained.training, "test": trained.test, **trained.baselines}
    if trained.contest is not None:
        sides |= {"contest": trained.contest.challenger, "champion": trained.contest.champion}
    found = {f"{side}_{name}": value for side, of in sides.items() for name, value in of.told().items()}
    for part, counts in trained.labels.items():
        found |= {f"{part}_rows_{name}": float(count) for name, count in zip(CLASSES, counts, strict=True)}
        found[f"{part}_rows"] = float(sum(counts))
    found |= {f"tried_{trial.recipe}_rps": trial.rps for trial in trained.trials if trial.rps is not None}
    if trained.contest is not None:
        found["contest_rows"] = float(trained.contest.champion.rows)
    found["seconds"] = (trained.ended - trained.started) / 1000
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _model_files(trained: Trained, folder: Path) -> None:
    """The forecaster, and MLflow's description of it."""
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415 - a second, which only those who train are to pay
    from mlflow.types.schema import ColSpec, Schema, TensorSpec  # noqa: PLC0415 - as above

    pack.save(trained.forecaster, folder / FILE)
    whole = {"hour": "long", **dict.fromkeys(CALENDAR, "integer"), "server": "string"}
    given: list[ColSpec | TensorSpec] = [
        ColSpec(whole.get(name, "double"), name, required=name not in INPUTS[len(CALENDAR) + 2 :])
        for name in FEATURES.names
        if name != "load"
    ]
    answered: list[ColSpec | TensorSpec] = [ColSpec("double", name) for name in CLASSES]
    described = Model(signature=ModelSignature(inputs=Schema(given), outputs=Schema(answered)), artifact_path="fleet")
    described.add_flavor("tidewatch", forecaster=FILE, format=pack.FORMAT, version=trained.forecaster.version)
    described.save(str(folder / "MLmodel"))


def _plots(trained: Trained, folder: Path) -> None:
    """Confusion, reliability and importance as images."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, which only those who train are to pay

    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    counts = trained.test.confusion
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = count / max(counts[row].sum(), 1)
        axes.text(column, row, f"{count:,}", ha="center", va="center", color="white" if share > 0.5 else "black")  # noqa: PLR2004 - what can be read
    axes.set(xticks=range(3), xticklabels=CLASSES, yticks=range(3), yticklabels=CLASSES)
    axes.set(xlabel="forecast", ylabel="true", title="Test hours by class")
    figure.savefig(folder / "confusion.png", dpi=110)

    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#b0b8be", lw=1)
    for name, of in _reliable(trained).items():
        known = of.reliability[of.reliability[:, 0] > 0]
        axes.plot(known[:, 1], known[:, 2], marker="o", ms=4, label=f"{name}, error {of.ece:.3f}")
    axes.set(
        xlabel="probability of the class forecast", ylabel="share that came true", title="Reliability on test hours"
    )
    axes.legend(frameon=False)
    figure.savefig(folder / "reliability.png", dpi=110)

    names = list(trained.importance)[:SHOWN][::-1]
    figure = Figure(figsize=(6, 0.25 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [trained.importance[name] for name in names], color="#2a6f97")
    axes.set(xlabel="rise of the ranked probability score when shuffled", title="Importance on test hours")
    figure.savefig(folder / "importance.png", dpi=110)


def _reliable(trained: Trained) -> Mapping[str, Figures]:
    found = {trained.forecaster.facts["recipe"]: trained.test}
    return found | {name: of for name, of in trained.baselines.items() if name == "forest"}


def eight(trained: Trained) -> dict[str, tuple[float, float]]:
    """The published figures by name: on training and on test rows."""
    return {name: (getattr(trained.training, name), getattr(trained.test, name)) for name in EIGHT}
