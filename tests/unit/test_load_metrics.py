"""Figures of forecasts equal scikit-learn's; baselines look as far back as they must, by time."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, precision_recall_fscore_support

from scorers.errors import ModelError
from scorers.forecast.labels import Ints
from scorers.forecast.metrics import better, figures, ranked
from scorers.forecast.naive import BASELINES, SEASONAL, WEEKLY, History, baseline
from scorers.forecast.schema import HOUR_MS

START = 1_704_067_200_000
THRESHOLDS = (100.0, 500.0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=60))
def test_figures_equal_scikit_learns(rows: list[tuple[int, int, int]]) -> None:
    truth = np.array([row[0] for row in rows])
    weights = np.array([[a, b, 5] for _, a, b in rows], float)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    guess = probabilities.argmax(axis=1)
    found = figures(truth, probabilities)
    how = {"zero_division": 0.0}
    weighted = precision_recall_fscore_support(truth, guess, average="weighted", **how)[:3]
    macro = precision_recall_fscore_support(truth, guess, average="macro", **how)[2]

    assert found.accuracy == pytest.approx(accuracy_score(truth, guess))
    assert (found.precision, found.recall, found.f1) == pytest.approx(weighted)
    assert found.macro_f1 == pytest.approx(macro)
    assert (found.confusion == confusion_matrix(truth, guess, labels=[0, 1, 2])).all()
    assert found.brier == pytest.approx(brier_score_loss(truth, probabilities, labels=[0, 1, 2], scale_by_half=False))
    assert found.reliability[:, 0].sum() == len(truth)


def test_no_rows_have_no_figures() -> None:
    found = figures(np.array([], np.int64), np.empty((0, 3)))

    assert found.rows == 0
    assert np.isnan([found.accuracy, found.f1, found.rps, found.ece]).all()


def test_two_classes_off_costs_more_than_one() -> None:
    certain = np.eye(3)

    assert ranked(np.array([0, 0, 0]), certain).tolist() == [0.0, 0.5, 1.0]


def test_a_forecast_as_often_right_as_it_says_is_calibrated() -> None:
    said = np.tile([0.8, 0.1, 0.1], (10, 1))
    right = figures(np.array([0] * 8 + [1, 2]), said)
    wrong = figures(np.array([1] * 10), said)

    assert right.ece == pytest.approx(0)
    assert wrong.ece == pytest.approx(0.8)
    assert right.reliability[7].tolist() == pytest.approx([10, 0.8, 0.8])


def test_better_is_better_in_both() -> None:
    one = {"accuracy": 0.9, "macro_f1": 0.8}

    assert better(one, {"accuracy": 0.8, "macro_f1": 0.7})
    assert not better(one, {"accuracy": 0.8, "macro_f1": 0.8})


def history(known: dict[tuple[str, int], float]) -> History:
    """Loads by server and number of the hour."""
    table = {
        "server": [server for server, _ in known],
        "hour": [START + hour * HOUR_MS for _, hour in known],
        "load": list(known.values()),
    }
    return History.of(pa.table(table))


def wanted(*pairs: tuple[str, int]) -> pa.Table:
    return pa.table({"server": [name for name, _ in pairs], "hour": [START + hour * HOUR_MS for _, hour in pairs]})


def test_loads_are_found_by_time_and_server_and_missing_hours_never_shift() -> None:
    known = history({("a", 0): 1.0, ("a", 2): 3.0, ("b", 0): 5.0})
    found = known.back(wanted(("a", 48), ("a", 49), ("a", 50), ("b", 48), ("c", 48)), 48)

    np.testing.assert_equal(found, [1.0, np.nan, 3.0, 5.0, np.nan])


def test_where_an_hour_is_missing_the_next_older_one_counts() -> None:
    known = history({("a", 0): 1.0, ("a", 168): 2.0})

    np.testing.assert_equal(known.latest(wanted(("a", 336), ("a", 504), ("a", 1)), WEEKLY), [2.0, 2.0, np.nan])


def test_no_baseline_looks_nearer_than_48_hours() -> None:
    assert min(SEASONAL) == 48
    assert min(WEEKLY) == 168
    with pytest.raises(ModelError, match="nearer than the horizon"):
        history({("a", 0): 1.0}).back(wanted(("a", 47)), 47)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_without_history_falls_back_on_training(name: str) -> None:
    taught: Ints = np.array([1, 1, 0])
    made = baseline(name, history({}), wanted(("a", 60)), (taught, THRESHOLDS))

    assert made[0].tolist() == pytest.approx([0, 1, 0] if name != "frequencies" else [1 / 3, 2 / 3, 0])


def test_the_seasonal_forecast_is_the_class_two_days_ago() -> None:
    known = history({("a", 0): 700.0, ("a", 24): 10.0})
    made = baseline("seasonal_naive", known, wanted(("a", 48), ("a", 72)), (np.array([1]), THRESHOLDS))

    assert made.argmax(axis=1).tolist() == [2, 0]
