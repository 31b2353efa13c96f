"""NAB's scoring, and its series through the detectors."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from producers.recordings import named
from scorers.errors import ConfigError
from tidewatch import nab
from tidewatch.cli import app

STANDARD = nab.PROFILES["standard"]


def series(rows: int, said: list[int], spans: list[tuple[int, int]]) -> nab.Series:
    odd = np.zeros(rows)
    odd[said] = 1.0
    return nab.Series(odd, spans)


@pytest.mark.parametrize("profile", nab.PROFILES.values())
def test_silence_has_0_and_perfection_100(profile: nab.Profile) -> None:
    spans = [(40, 59), (80, 89)]

    assert nab.score([series(100, [], spans)], profile, 1.0) == 0
    assert nab.score([series(100, [40, 80], spans)], profile, 1.0) == pytest.approx(100)


def test_what_each_detection_is_worth() -> None:
    window = [(100, 199)]

    def raw(said: list[int]) -> float:  # from -1 for the one missed window to 1
        return nab.score([series(1_000, said, window)], STANDARD, 1.0) / 50 - 1

    half = (2 / (1 + np.exp(-2.5)) - 1) / (2 / (1 + np.exp(-5)) - 1)

    assert raw([150]) == pytest.approx(half)
    assert raw([150, 160, 199]) == pytest.approx(half)  # the best alone counts
    assert raw([30]) == -1  # on probation
    assert raw([150, 900]) == pytest.approx(half - 0.11)
    assert raw([900]) == pytest.approx(-1.11)  # far behind
    assert raw([201]) == pytest.approx(-1 + 0.11 * (2 / (1 + np.exp(5 * 2 / 99)) - 1))  # close behind


def test_one_threshold_is_the_best_there_is() -> None:
    odd = np.zeros(400)
    odd[[100, 250, 390]] = [0.9, 0.5, 0.7]
    corpus = [nab.Series(odd, [(90, 120), (240, 260)])]
    every = [nab.score(corpus, STANDARD, threshold) for threshold in (0.95, 0.9, 0.7, 0.5, 0.0)]

    assert nab.score(corpus, STANDARD) == pytest.approx(max(every))
    assert np.argmax(every) == 3
    assert nab.best(corpus, STANDARD) == 0.5
    assert nab.best([nab.Series(np.eye(1, 400, 390)[0], [])], STANDARD) == np.inf  # whatever is said is wrong


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(1, 10))
def test_a_peak_is_higher_than_what_came_before(odd: list[float], memory: int) -> None:
    found = nab.peaks(np.array(odd), memory, 1.3)

    for at, value in enumerate(odd):
        alone = value > 1.3 * max([0.0, *odd[max(at - memory, 0) : at]])
        assert found[at] == (value if alone else 0.0)


@pytest.mark.data
def test_the_published_score_of_the_random_detector(data_root: Path) -> None:
    """18.04 on these files at the threshold that NAB publishes (results/final_results.json, config/thresholds.json)."""
    corpus = []
    table = pd.read_parquet(named("nab", data_root).parts[0].path)
    for _, rows in table.groupby("file", sort=False):
        chance = random.Random(42)
        odd = np.array([chance.uniform(0, 1) for _ in range(len(rows))])
        corpus.append(nab.Series(odd, nab.spans(rows.window.to_numpy())))

    assert round(nab.score(corpus, STANDARD, 0.9984497070312507), 2) == 18.04


def recorded(folder: Path, rows: int = 900) -> Path:
    """Two series with a step in time each, quiet but for one window."""
    chance, frames = np.random.default_rng(3), []
    for name, step in (("a", 300), ("b", 3_600)):
        window = np.where((np.arange(rows) >= 600) & (np.arange(rows) < 660), 0, -1)
        value = chance.normal(20, 1, rows) + 15 * ((window >= 0) & (np.arange(rows) < 640))
        stamps = pd.Timestamp("2015-01-01") + pd.to_timedelta(step * np.arange(rows), unit="s")
        probation = (np.arange(rows) < nab.probation(rows)).astype(int)
        frames.append(
            pd.DataFrame({
                "file": name, "timestamp": stamps, "value": value, "window": window,
                "label": (window >= 0).astype(int), "probation": probation,
            })
        )  # fmt: skip
    (folder / "nab").mkdir()
    pd.concat(frames).to_parquet(folder / "nab" / "nab.parquet")
    return folder / "nab"


def evaluated(folder: Path, *more: str) -> dict[str, float]:
    words = ["evaluate", "nab", "--data", str(folder), "--json", *more]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_what_is_odd_is_found_as_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = recorded(tmp_path)
    result = evaluated(folder, "--keep", str(tmp_path / "kept"), "--rivals")
    odd = pd.read_parquet(tmp_path / "kept" / "oddness.parquet")

    assert str(result["detector"]) == "combined"
    assert result["null"] == 0
    assert min(result["score"], result["score_ocsvm"]) > 90
    assert result["perfect"] == pytest.approx(100)
    assert (result["windows"], result["rows"], len(odd)) == (2, 1_800, 1_800)
    assert len(dict(result["rivals"])) == 6  # type: ignore[call-overload]
    assert (odd.groupby("device").one_class_svm.apply(lambda own: (own[: nab.probation(900)] == 0).all())).all()


def test_it_knows_no_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = recorded(tmp_path)
    evaluated(folder, "--keep", str(tmp_path / "whole"))
    table = pd.read_parquet(folder / "nab.parquet")
    table.groupby("file").head(700).to_parquet(folder / "nab.parquet")
    evaluated(folder, "--keep", str(tmp_path / "half"))
    whole, half = (pd.read_parquet(tmp_path / kept / "oddness.parquet") for kept in ("whole", "half"))
    begun = whole.merge(half, on=["device", "ts"], suffixes=("", "_half"))

    # both begin alike: where probation ends is told by the file, not by its length
    for name in ("combined", "one_class_svm"):
        np.testing.assert_allclose(begun[name], begun[f"{name}_half"])


def test_through_kafka_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--through core"):
        evaluated(recorded(tmp_path), "--through", "kafka")
