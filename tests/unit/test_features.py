import numpy as np
import pytest

from scorers.features import KINDS, features, inverse, names, transform
from scorers.statistics import Floats, Statistics
from tests.simulator import Device, summarise

SOFTENING = np.array([0.05])


def shaped(*windows: list[float]) -> Floats:
    """Transformed features of windows of one metric, NaN for no reading."""
    statistics = summarise(np.array(windows).reshape(-1, 1), readings=len(windows[0]))
    return transform(features(statistics), SOFTENING)


def test_features_are_named_metric_by_metric() -> None:
    assert names(["load", "flow"])[3:7] == ("load.max", "load.count", "flow.mean", "flow.std")


def test_features_are_the_statistics_in_the_order_of_the_names() -> None:
    statistics = Device(1, metrics=2).windows(4)

    table = dict(zip(names(statistics.metrics), features(statistics).T, strict=True))

    for column, metric in enumerate(statistics.metrics):
        for kind in KINDS:
            np.testing.assert_array_equal(table[f"{metric}.{kind}"], getattr(statistics, kind)[:, column])


def test_a_level_shift_moves_the_mean_alone() -> None:
    before, after = shaped([1, 2, 3, 4], [11, 12, 13, 14])

    np.testing.assert_allclose(after - before, [10, 0, 0, 0, 0], atol=1e-12)


def test_a_reading_missing_lowers_the_count_alone() -> None:
    before, after = shaped([1, 3, 1, 3, 2, 2], [1, 3, 2, np.nan, np.nan, np.nan])

    assert after[4] < before[4]
    assert after[0] == before[0]


def test_a_stuck_sensor_is_far_but_finite() -> None:
    healthy, stuck = shaped([1, 2, 3, 4], [2, 2, 2, 2])

    assert stuck[1] == pytest.approx(np.log(0.05))
    assert healthy[1] - stuck[1] > 3


def test_one_reading_says_nothing_about_spread() -> None:
    (alone,) = shaped([7, np.nan])

    np.testing.assert_array_equal(np.isnan(alone), [False, True, True, True, False])


def test_an_absent_metric_has_a_count_and_nothing_else() -> None:
    (absent,) = shaped([np.nan, np.nan])

    np.testing.assert_array_equal(np.isnan(absent), [True, True, True, True, False])
    assert absent[4] == pytest.approx(np.log(0.5))


def test_overflowing_readings_stay_silent() -> None:
    huge = Statistics(("x",), np.array([[2]]), *(np.array([[value]]) for value in (np.inf, np.nan, -1e308, 1e308, 1.0)))

    assert transform(features(huge), SOFTENING)[0, 0] == np.inf


def test_inverse_gives_the_actual_values_back() -> None:
    statistics = Device(2, metrics=3).windows(20)
    softening = np.array([0.1, 1.0, 10.0])

    back = inverse(transform(features(statistics), softening), softening)

    np.testing.assert_allclose(back, features(statistics), rtol=1e-12)
