"""What tests of the forecaster's commands share: four weeks of hours, and training that is done in a moment."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scorers.forecast import fit
from scorers.forecast.fit import Recipe
from scorers.forecast.model import Kind
from tests.loads import folder, hours
from tidewatch.cli import app
from tidewatch.forecast.record import FORECASTERS, forecasters
from tidewatch.registry import Registry
from tidewatch.settings import load as load_settings

FILE = Path("var/load/models/forecaster.twf")
SMALL = Recipe("ordinal", Kind.ORDINAL, {"max_iter": 15, "min_samples_leaf": 20, "random_state": 42})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("load"), hours(days=28))


@pytest.fixture(autouse=True)
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with four weeks of hours, and training that is done in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEWATCH_MODELS__REGISTRY", f"sqlite:///{tmp_path / 'mlflow.db'}")
    Path("var/load").mkdir(parents=True)
    for name in ("hours", "features", "etl.json"):
        Path("var/load", name).symlink_to(made / name)
    small = Recipe("forest", Kind.FOREST, {"n_estimators": 9, "max_depth": 8, "random_state": 42})
    monkeypatch.setitem(fit.RECIPES, "boosting", (SMALL,))
    monkeypatch.setitem(fit.RECIPES, "forest", (small,))
    monkeypatch.setitem(fit.RECIPES, "auto", (small, SMALL))


def run(*words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, ["--set", "load.thresholds=100,400", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def trained(*words: str) -> dict[str, Any]:
    """What a training tells."""
    told: dict[str, Any] = json.loads(run("load", "train", "--json", *words)[1])
    return told


def registry() -> Registry:
    """The forecasters' registry."""
    return Registry(forecasters(load_settings().settings.models), FORECASTERS)
