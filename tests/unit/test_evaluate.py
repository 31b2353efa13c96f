"""Evaluation: the rows the protocol gives, judged by the window that ends with them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from producers.recordings import SKAB_METRICS
from scorers.errors import ConfigError
from scorers.fit import Detector
from tidewatch.cli import app
from tidewatch.evaluate import Job
from tidewatch.protocols import Benchmark, Points
from tidewatch.rivals import RECIPES
from tidewatch.settings import load
from tidewatch.stack import embedded_broker

START = 1_600_000_000_000
TRAIN, TEST, FAULT = 400, 300, 100
"""Rows, one a second; the protocol trains on the first 400 of a device, and the last 100 are odd."""


def experiment(name: str, seed: int) -> pd.DataFrame:
    """One device whose metrics all leave their usual level at the end."""
    rows = TRAIN + TEST
    random = np.random.default_rng(seed)
    odd = np.arange(rows) >= rows - FAULT
    values = random.normal(50, 1, (rows, len(SKAB_METRICS))) + 8 * odd[:, None]
    stamps = pd.to_datetime(START + 1_000 * np.arange(rows), unit="ms")
    frame = pd.DataFrame({"file": name, "datetime": stamps, **dict(zip(SKAB_METRICS, values.T, strict=True))})
    return frame.assign(anomaly=odd.astype(int), changepoint=0)


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like that of the benchmark, with two devices."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "skab"
    folder.mkdir()
    pd.concat([experiment("valve/0", 1), experiment("valve/1", 2)]).to_parquet(folder / "skab.parquet")
    return folder


def job(recordings: Path, **flags: object) -> Job:
    return Job(load(flags, environ={}), Benchmark.SKAB, recordings)


def points(asked: Job, verdicts: pd.DataFrame) -> Points:
    result = asked.judge(verdicts)
    assert isinstance(result, Points)
    return result


def test_a_fault_is_found_and_what_is_healthy_is_not(recordings: Path) -> None:
    words = ["evaluate", "skab", "--data", str(recordings), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    result = json.loads(done.stdout.splitlines()[-1])

    assert done.exit_code == 0
    assert result["f1"] > 0.85
    assert result["far"] < 15
    assert result["mar"] < 15
    assert result["rows"] == result["scored"] == 2 * TEST
    # 10 s windows that hop by 1 s, the first and the last ones partly empty
    assert result["windows"] == 2 * (TRAIN + TEST + 9)


def test_rivals_are_judged_by_the_same_protocol(recordings: Path) -> None:
    words = ["evaluate", "skab", "--data", str(recordings), "--rivals"]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout.splitlines()[-1])
    table = CliRunner().invoke(app, words, catch_exceptions=False).stdout

    assert result["detector"] == "one_class_svm"
    assert set(result["rivals"]) == {*Detector, *RECIPES} - {Detector.ONE_CLASS_SVM}
    assert {figures["rows"] for figures in result["rivals"].values()} == {2 * TEST}
    assert all(result["rivals"][detector]["f1"] > 0.8 for detector in Detector if detector in result["rivals"])
    # the recipe flags what is healthy, which is why it is not ours
    assert result["rivals"]["scikit-learn: StandardScaler, OneClassSVM"]["far"] > 2 * result["far"]
    assert all(name[:12] in table for name in (*Detector, *RECIPES))


def test_a_row_is_judged_by_the_window_that_ends_with_its_second(recordings: Path) -> None:
    asked = job(recordings)
    test = asked.rows[asked.rows.split == "test"]
    # row at ts     |--|
    # window   ---------|      ends at ts + 1 s
    told = pd.DataFrame({"device": test.device, "end": test.ts + 1_000, "scored": True, "anomaly": test.label > 0})
    verdicts = told.assign(severity=10.0 * told.anomaly)
    late = verdicts.assign(end=verdicts.end + 1_000)

    assert points(asked, verdicts).f1 == 1
    assert (points(asked, verdicts).far, points(asked, verdicts).mar) == (0, 0)
    # one row of each fault is then judged by its healthy neighbour
    assert points(asked, late).mar == pytest.approx(100 * 1 / FAULT)


def test_a_row_without_a_verdict_counts_as_healthy_and_unscored(recordings: Path) -> None:
    verdicts = pd.DataFrame(
        {"device": ["nobody"], "end": [START], "scored": [True], "anomaly": [True], "severity": [9.0]}
    )
    result = points(job(recordings), verdicts)

    assert (result.scored, result.mar, result.far, result.windows) == (0, 100, 0, 1)


def test_windows_that_were_set_are_kept(recordings: Path) -> None:
    assert job(recordings).settings.window.size_s == 10
    assert job(recordings, **{"window.size_s": 30}).settings.window.size_s == 30


def test_what_is_kept_can_be_read_again(recordings: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    words = ["evaluate", "skab", "--data", str(recordings.parent), "--keep", str(kept)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    verdicts = pd.read_parquet(kept / "verdicts.parquet")

    assert "skab" in done.stdout
    assert set(verdicts.columns) == {"device", "end", "scored", "anomaly", "decision", "score", "severity", "top"}
    assert (kept / "fleet.arrow").is_file()


def test_a_stand_in_for_kafka_is_refused(recordings: Path) -> None:
    with embedded_broker() as broker:
        words = ["--kafka", broker.bootstrap, "evaluate", "skab", "--data", str(recordings), "--through", "kafka"]
        error = CliRunner().invoke(app, words).exception

    assert isinstance(error, ConfigError)
    assert "TIDEWATCH_KAFKA" in str(error)


@pytest.mark.data
def test_the_published_recordings_are_judged_whole(data_root: Path, tmp_path: Path) -> None:
    words = ["evaluate", "skab", "--data", str(data_root / "skab"), "--json", "--keep", str(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    result = json.loads(done.stdout.splitlines()[-1])

    assert result["f1"] > 0.84
    assert result["far"] < 15
    assert result["mar"] < 25
    # 18 678 rows of 17 experiments, 400 of each for training
    assert result["rows"] == result["scored"] == 18_678 - 17 * 400
    assert result["windows"] == len(pd.read_parquet(tmp_path / "verdicts.parquet"))
