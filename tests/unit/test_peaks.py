"""Forecasts from disk, planned with."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from scorers.errors import ForecasterFileError, InputError
from scorers.forecast.fit import Recipe, Teaching, fit
from scorers.forecast.model import Kind
from scorers.forecast.pack import save
from tests.loads import SPEC, hours
from tests.loads import rows as rows_of
from tidewatch.cli import app
from tidewatch.forecast.peaks import limits_of, peaks
from tidewatch.forecast.settings import Load, model_file

LIMITS = (100.0, 500.0, 1000.0)


def record(server: str, issued: int, *hours: tuple[float, float, float]) -> str:
    told = [{"hour": issued + 3_600_000 * n, "load": "low", "probabilities": p} for n, p in enumerate(hours)]
    return json.dumps({"server": server, "issued": issued, "basis": "own", "model_version": "1", "hours": told}) + "\n"


def rows(path: Path) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.values()) for row in peaks(path, LIMITS, 0.5).to_pylist())


def test_records_give_the_peaks_of_each_servers_latest_forecast(tmp_path: Path) -> None:
    path = tmp_path / "forecasts.jsonl"
    again = record("a", 3_600_000, (0, 1, 0))
    path.write_text(record("a", 0, (1, 0, 0), (1, 0, 0)) + again + again + record("b", 0, (0, 0, 1)))

    assert rows(path) == [("a", 3_600_000, 300.0), ("b", 0, 750.0)]


def test_parquet_may_hold_probabilities_or_peaks(tmp_path: Path) -> None:
    both = {"server": ["a", "a"], "hour": pd.to_datetime([0, 3_600_000], unit="ms", utc=True)}
    pd.DataFrame(both | {"low": [1.0, 0.0], "medium": 0.0, "high": [0.0, 1.0]}).to_parquet(tmp_path / "classes.parquet")
    pd.DataFrame(both | {"peak": [7.0, 8.0]}).to_parquet(tmp_path / "peaks.parquet")

    assert rows(tmp_path / "classes.parquet") == [("a", 0, 50.0), ("a", 3_600_000, 750.0)]
    assert rows(tmp_path / "peaks.parquet") == [("a", 0, 7.0), ("a", 3_600_000, 8.0)]


def test_what_is_no_forecast_is_told(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text("{}\n")
    pd.DataFrame({"server": ["a"], "hour": [0]}).to_parquet(tmp_path / "bare.parquet")
    pd.DataFrame({"server": ["a"], "hour": [0], "low": -1.0, "medium": 1.0, "high": 1.0}).to_parquet(
        tmp_path / "odd.parquet"
    )

    for name, told in {
        "none.parquet": "no forecasts at",
        "odd.jsonl": "Line 1",
        "bare.parquet": "needs server, hour",
        "odd.parquet": "probabilities",
    }.items():
        with pytest.raises(InputError, match=told):
            peaks(tmp_path / name, LIMITS, 0.5)


def test_the_command_shows_groups_heavy_ones_and_the_saving(tmp_path: Path) -> None:
    path = tmp_path / "peaks.parquet"
    pd.DataFrame({"server": ["a", "b", "c", "d"], "hour": 0, "peak": [30.0, 40.0, 20.0, 100.0]}).to_parquet(path)
    words = ["load", "plan", str(path), "--capacity", "100"]

    told, shown = CliRunner().invoke(app, [*words, "--json"]), CliRunner().invoke(app, words)
    result = json.loads(told.stdout)

    assert (result["before"], result["after"], result["room"]) == (4, 4, 80)
    assert [group["servers"] for group in result["groups"]] == [["b", "a"], ["c"]]
    assert [(heavy["server"], heavy["machines"]) for heavy in result["heavy"]] == [("d", 2)]
    assert "4 machines before, 4 after: 0 fewer" in shown.stdout
    assert "1970-01-01 00:00:00" in shown.stdout


@pytest.mark.parametrize(
    ("settings", "limits", "peak"),
    [
        ([], [], 750),
        (["--set", "load.thresholds=20,40"], [], 60),
        (["--set", "load.scale=7"], [], 5250),
        (["--set", "load.thresholds=20,40"], ["--limits", "10,20,30"], 25),
    ],
    ids=str,
)
def test_classes_end_where_the_settings_say_unless_limits_are_told(
    tmp_path: Path, settings: list[str], limits: list[str], peak: float
) -> None:
    """A high hour is, at even odds, amid what high may be: from the last threshold to twice it."""
    path = tmp_path / "forecasts.jsonl"
    path.write_text(record("a", 0, (0, 0, 1)))
    words = [*settings, "load", "plan", str(path), "--capacity", "1e6", "--confidence", "0.5", "--json", *limits]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)

    assert told["groups"][0]["peak"] == peak


def test_quantiles_are_those_of_the_forecaster_in_force(tmp_path: Path) -> None:
    load = Load(folder=tmp_path, quantiles=(0.5, 0.9), thresholds=(1, 2))
    with pytest.raises(ForecasterFileError, match="tidewatch load train"):
        limits_of(load)
    recipe = Recipe("forest", Kind.FOREST, {"n_estimators": 2, "max_depth": 2, "random_state": 1})
    save(fit(rows_of(hours()), recipe, Teaching((30.0, 70.0), SPEC, "v1")), model_file(load))

    assert limits_of(load) == (30, 70, 140)
