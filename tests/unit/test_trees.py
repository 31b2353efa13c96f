"""Packed forests say what scikit-learn's say, and a forest from a tampered file is refused before it is asked."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)

from scorers.errors import ModelError
from scorers.statistics import Floats
from scorers.trees import Forest

WIDTH = 4


def rows(seed: int, *, missing: float = 0.0) -> Floats:
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(150, WIDTH)).round(1)  # so that rows lie on thresholds too
    x[drawn.random(x.shape) < missing] = np.nan
    return x


def labels(x: Floats, classes: int) -> np.ndarray:
    total = np.nan_to_num(x[:, 0]) + np.isnan(x[:, 1]) - np.nan_to_num(x[:, 2])
    return np.digitize(total, np.linspace(-1, 1, classes - 1))


MODELS: dict[str, Callable[[Floats], Any]] = {
    "random forest": lambda x: RandomForestClassifier(12, random_state=0).fit(x, labels(x, 3)),
    "best first": lambda x: RandomForestClassifier(5, max_leaf_nodes=9, random_state=0).fit(x, labels(x, 2)),
    "boosting of two": lambda x: HistGradientBoostingClassifier(max_iter=9, min_samples_leaf=5).fit(x, labels(x, 2)),
    "boosting of four": lambda x: HistGradientBoostingClassifier(max_iter=5).fit(x, labels(x, 4)),
    "isolation forest": lambda x: IsolationForest(n_estimators=20, max_samples=64, random_state=0).fit(x),
    "isolation by some features": lambda x: IsolationForest(n_estimators=9, max_features=2, random_state=0).fit(x),
}


@cache
def fitted(name: str, missing: float) -> tuple[Any, Forest]:
    model = MODELS[name](rows(1, missing=missing))
    return model, Forest.of(model)


def oracle(model: Any, x: Floats) -> Floats:
    found = model.score_samples(x)[:, None] if isinstance(model, IsolationForest) else model.predict_proba(x)
    return np.asarray(found)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_forest_says_what_scikit_learn_says(name: str, missing: float) -> None:
    model, forest = fitted(name, missing)
    x = rows(2, missing=missing)

    np.testing.assert_allclose(forest.predict(x), oracle(model, x), rtol=0, atol=1e-12)
    assert np.ptp(forest.predict(x)) > 0.1


@pytest.mark.parametrize("name", MODELS)
@given(st.lists(st.floats(-1e30, 1e30) | st.just(float("nan")), min_size=WIDTH, max_size=WIDTH))
@settings(max_examples=40, deadline=None)
def test_any_row_gets_what_scikit_learn_gives_it(name: str, row: list[float]) -> None:
    model, forest = fitted(name, 0.2)
    x = np.array([row])

    np.testing.assert_allclose(forest.predict(x), oracle(model, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_just_beside_a_threshold_goes_where_scikit_learn_sends_it(name: str) -> None:
    model, forest = fitted(name, 0.0)
    cuts = forest.threshold[forest.feature == 0][:20]
    x = np.repeat(rows(3)[:1], 3 * len(cuts), axis=0)
    x[:, 0] = np.concatenate([cuts, np.nextafter(cuts, np.inf), cuts * (1 + 1e-9)])

    np.testing.assert_allclose(forest.predict(x), oracle(model, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_forest_survives_its_arrays(name: str) -> None:
    _, forest = fitted(name, 0.2)
    back = Forest.from_arrays({name: pa.array(values) for name, values in forest.arrays().items()})

    x = rows(4, missing=0.1)
    np.testing.assert_array_equal(back.predict(x), forest.predict(x))


def test_trees_are_taken_and_joined_again() -> None:
    _, forest = fitted("isolation forest", 0.2)
    both = Forest.union([forest.take(0, 7), forest.take(7, 20)])

    for name, values in forest.arrays().items():
        np.testing.assert_array_equal(both.arrays()[name], values)


def test_batches_of_any_size_and_order_of_memory_give_the_same() -> None:
    _, forest = fitted("random forest", 0.2)
    x = rows(5, missing=0.1)

    np.testing.assert_array_equal(forest.predict(np.asfortranarray(x)), forest.predict(x))
    np.testing.assert_array_equal(np.vstack([forest.predict(row[None]) for row in x]), forest.predict(x))
    assert forest.predict(x[:0]).shape == (0, 3)


def edited(name: str, at: int, value: float) -> dict[str, np.ndarray]:
    arrays = {key: values.copy() for key, values in fitted("isolation forest", 0.2)[1].arrays().items()}
    arrays[name][at] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "at", "value", "why"),
    [
        ("left", 0, 0, "without an end"),
        ("right", 0, 10_000, "without an end"),
        ("left", 0, -3, "without an end"),
        ("feature", 0, WIDTH, "features that it has not"),
        ("feature", 0, -2, "features that it has not"),
        ("roots", 1, 0, "do not fit its nodes"),
        ("roots", -1, 10**9, "do not fit its nodes"),
        ("output", 0, 1, "outputs that it has not"),
        ("output", 0, -1, "outputs that it has not"),
        ("threshold", 0, np.nan, "no numbers"),
        ("value", -1, np.inf, "no numbers"),
        ("value", -1, -1.0, "not positive"),
        ("base", 0, 1.0, "no isolation forest"),
        ("kind", 0, 7, "of which kind"),
        ("width", 0, 1, "features that it has not"),
    ],
)
def test_a_tampered_forest_is_refused(name: str, at: int, value: float, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        Forest.from_arrays(edited(name, at, value))


def test_arrays_that_lack_a_part_or_have_another_type_are_refused() -> None:
    arrays = fitted("isolation forest", 0.2)[1].arrays()

    with pytest.raises(ModelError, match="lacks roots"):
        Forest.from_arrays({name: values for name, values in arrays.items() if name != "roots"})
    with pytest.raises(ModelError, match="left is not a list of int32"):
        Forest.from_arrays(arrays | {"left": arrays["left"].astype(float)})
    with pytest.raises(ModelError, match="left is not a list of int32"):
        Forest.from_arrays(arrays | {"left": arrays["left"].astype(np.int64) + 2**40})
    with pytest.raises(ModelError, match="different lengths"):
        Forest.from_arrays(arrays | {"right": arrays["right"][1:]})
    with pytest.raises(ModelError, match="values do not fit"):
        Forest.from_arrays(arrays | {"value": arrays["value"][1:]})


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ModelError, match="give 4 features"):
        fitted("random forest", 0.2)[1].predict(np.zeros((2, 3)))


def test_what_cannot_be_packed_is_refused_with_its_name() -> None:
    x = rows(6)

    with pytest.raises(ModelError, match="RandomForestRegressor"):
        Forest.of(RandomForestRegressor(2).fit(x, x[:, 0]))
    x[:, 1] = np.arange(len(x)) % 3
    by_category = HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]).fit(x, labels(x, 2))
    with pytest.raises(ModelError, match="HistGradientBoostingClassifier"):
        Forest.of(by_category)
